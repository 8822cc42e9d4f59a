//! What servers do by themselves: timers of leases, clients whose time is over, slices of background work. In the order of
//! `src/background/`; whatever writes asks for leave in each slice.

use crate::cures::Cure;
use crate::node::{Effect, Name, Value, id_of};
use crate::schedule::{PROMPTS, Step};
use crate::world::{Waiting, World};
use llmcache_core::cache::{Flights, Severity};
use llmcache_core::cluster::Ownership;
use llmcache_core::ids::UnixMs;
use llmcache_core::index::DueStep;

impl World {
    pub fn run_server(&mut self, step: Step) {
        match step {
            Step::Tend { shard } => self.tend(self.primary[shard]),
            Step::Background { shard, most } => self.background(self.primary[shard], most),
            Step::SendOn { shard } => self.send_on(self.primary[shard]),
            Step::Sweep { node } => {
                self.nodes[node].sweep();
                let now = self.now(node).wall;
                self.nodes[node].settle_slots(UnixMs(now.0.saturating_sub(2_000)));
                self.remove_orphans(node);
            }
            Step::Timeouts => {
                let now = self.steady();
                let due = self.waiting.iter().filter(|(_, waiting)| waiting.until <= now);
                for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
                    self.time_out(id);
                }
            }
            Step::Wakes => {
                while let Some(id) = self.woken.pop_front() {
                    self.answer_waiter(id);
                }
                self.check_waiters();
            }
            Step::Cycle { node, most } => self.cycle(node, most),
            other => unreachable!("{other:?} is a client's or the adversary's"),
        }
    }

    /// Who was woken has been answered: whoever still waits does so for a flight, which will wake it.
    fn check_waiters(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            for (&uid, flights) in &node.flights {
                let home = self.home(number, uid);
                let here = self.waiting.values().filter(|waiting| waiting.home == home).count();
                let known = flights.held()[1];
                assert_eq!(known, here as u64, "{home:?}: so many flights know, so many wait");
            }
        }
        let is_known = |w: &Waiting| self.nodes[w.home.0].flights.contains_key(&w.home.2);
        assert!(self.waiting.values().all(is_known), "unanswered: a client without a flight");
    }

    /// One whose time is over looks again: it must not miss an answer stored that very moment.
    fn time_out(&mut self, id: u64) {
        let waiting = self.waiting[&id];
        let (node, _, uid) = waiting.home;
        if let Some(flights) = self.nodes[node].flights.get_mut(&uid) {
            let heir = flights.leave(waiting.flight, llmcache_core::cache::WaiterId(id));
            self.wake(heir);
        }
        self.answer_waiter(id);
    }

    fn tend(&mut self, node: usize) {
        let now = self.now(node).steady;
        let uids: Vec<u64> = self.nodes[node].flights.keys().copied().collect();
        for uid in uids {
            let flights = self.nodes[node].flights.get_mut(&uid).expect("it is there");
            let woken = flights.tend(now, usize::MAX);
            let home = self.home(node, uid);
            let steady = self.steady();
            self.leases.tended(home, steady);
            self.wake(woken);
        }
    }

    /// Flights of a container that is no more, or is at another server, end.
    fn send_on(&mut self, node: usize) {
        let serves = self.nodes[node].serves();
        let placed = self.nodes[node].placed().filter(|_| serves);
        let gone: Vec<u64> =
            self.nodes[node].flights.keys().copied().filter(|&uid| Some(uid) != placed).collect();
        for uid in gone {
            let home = self.home(node, uid);
            self.leases.forget(home);
            let woken =
                self.nodes[node].flights.remove(&uid).map(|mut flights: Flights| flights.end());
            self.wake(woken.unwrap_or_default());
        }
    }

    fn background(&mut self, node: usize, most: usize) {
        self.put_back(node);
        self.reap(node, most);
        self.carry_out(node, most);
        self.expire_due(node, most);
        self.walk_on(node, most);
    }

    /// Puts a container back that the server evicted.
    pub fn put_back(&mut self, node: usize) {
        let here = &mut self.nodes[node];
        if !here.has_leave() {
            return;
        }
        let Some(uid) = here.evicted.take() else { return };
        let Some(cache) = here.caches.get(&uid).filter(|_| here.placed().is_none()) else {
            return;
        };
        let head = cache.save_head();
        assert_ne!(here.slot(), Ownership::Foreign, "a key in a slot that is another server's");
        here.keys.insert(Name::Container, Value::Container(uid));
        here.bereft.remove(&uid);
        let place = self.commit_between(node, vec![Effect::Create(head)]);
        self.model.note_life(place, Some(uid));
    }

    /// Removes entries whose container is gone.
    fn reap(&mut self, node: usize, most: usize) {
        let here = &mut self.nodes[node];
        let placed = here.placed();
        let keyless: Vec<u64> = here
            .caches
            .keys()
            .copied()
            .filter(|&uid| Some(uid) != placed && here.bereft.contains(&uid))
            .collect();
        match here.slot() {
            Ownership::Foreign => keyless.iter().for_each(|uid| {
                here.caches.remove(uid);
                here.bereft.remove(uid);
            }),
            Ownership::Moving if !here.is_without(Cure::ReaperWaits) => {}
            _ if !here.has_leave() => {}
            _ => {
                for uid in
                    keyless.into_iter().filter(|uid| here.evicted != Some(*uid)).collect::<Vec<_>>()
                {
                    self.reap_one(node, uid, most);
                }
            }
        }
    }

    fn reap_one(&mut self, node: usize, uid: u64, most: usize) {
        for _ in 0..most {
            let Some((slot, found)) = self.nodes[node].caches[&uid].index.next_occupied(0) else {
                self.nodes[node].caches.remove(&uid);
                self.nodes[node].bereft.remove(&uid);
                return;
            };
            let (id, seq) = (found.id, found.seq());
            let prompt = (0..PROMPTS).find(|&prompt| id_of(prompt) == id).expect("a question");
            let name = Name::Entry(uid, prompt);
            if self.nodes[node].remove(name) {
                self.check_not_restored(uid, prompt);
                self.commit_between(node, vec![Effect::Remove(name)]);
            }
            if let Some(cache) = self.nodes[node].caches.get_mut(&uid) {
                cache.index.remove(slot, seq);
            }
        }
    }

    /// Removes what an invalidation concerns.
    fn carry_out(&mut self, node: usize, most: usize) {
        let here = &self.nodes[node];
        let Some(uid) = here.placed().filter(|_| here.has_leave() && here.is_whole()) else {
            return;
        };
        for _ in 0..most {
            let here = &mut self.nodes[node];
            let cache = here.caches.get_mut(&uid).expect("it is placed");
            let Some((slot, _)) = cache.next_invalidated() else { continue };
            let id = cache.index.slot(slot).expect("it was named").id;
            let prompt = (0..PROMPTS).find(|&prompt| id_of(prompt) == id).expect("a question");
            let name = Name::Entry(uid, prompt);
            let is_gone = here.entry(name).is_some_and(|(entry, _)| {
                here.caches[&uid].epochs().standing(&entry.view()) == Some(Severity::Gone)
            });
            if is_gone {
                self.nodes[node].remove(name);
                self.commit_between(node, vec![Effect::Remove(name)]);
            }
        }
    }

    /// Has the server expire what the index names as due.
    fn expire_due(&mut self, node: usize, most: usize) {
        let now = self.now(node).wall;
        for _ in 0..most {
            let here = &mut self.nodes[node];
            let Some(uid) = here.placed().filter(|_| here.has_leave() && here.is_whole()) else {
                return;
            };
            let cache = here.caches.get_mut(&uid).expect("it is placed");
            let DueStep::Entry(slot, seq) = cache.index.next_due(now, 512) else { return };
            let id = cache.index.slot(slot).expect("it was named").id;
            let prompt = (0..PROMPTS).find(|&prompt| id_of(prompt) == id).expect("a question");
            let name = Name::Entry(uid, prompt);
            let Some((entry, until)) = here.entry(name) else { continue };
            if until.is_past(now) {
                here.remove(name);
                let place = self.commit_between(node, vec![Effect::Remove(name)]);
                self.model.note_answer(place, (uid, prompt), None);
            } else if entry.view().is_at(slot, seq) {
                here.set_deadline(name, until);
            }
        }
    }

    /// A slice of a walk that picks entries out.
    fn walk_on(&mut self, node: usize, most: usize) {
        for _ in 0..most {
            let here = &self.nodes[node];
            let Some(walk) = &here.walk else { return };
            if !here.has_leave() {
                return;
            }
            let uid = walk.uid;
            let is_outdated = walk.is_outdated && !here.is_without(Cure::WalkLooksUp);
            if is_outdated
                || here.placed() != Some(uid)
                || !(here.is_whole() || here.is_without(Cure::WalkAsks))
            {
                return self.end_walk(node, true);
            }
            let Some((slot, found)) = here.caches[&uid].index.next_occupied(walk.next_slot) else {
                return self.end_walk(node, false);
            };
            let (id, is_meant) = (found.id, found.seq() < walk.upto);
            self.nodes[node].walk.as_mut().expect("it goes on").next_slot = slot.0 + 1;
            let prompt = (0..PROMPTS).find(|&prompt| id_of(prompt) == id).expect("a question");
            let name = Name::Entry(uid, prompt);
            if is_meant && self.nodes[node].remove(name) {
                let place = self.commit_between(node, vec![Effect::Remove(name)]);
                self.model.note_answer(place, (uid, prompt), None);
            }
        }
    }

    /// The client of a walk is answered: that it is done, or that it was cut short.
    pub fn end_walk(&mut self, node: usize, cut_short: bool) {
        let Some(walk) = self.nodes[node].walk.take() else { return };
        if cut_short && !self.is_without(Cure::WholeWalk) {
            return;
        }
        let old = self
            .model
            .answers_of(walk.uid)
            .into_iter()
            .find(|(_, answer)| answer.number <= walk.begun_at);
        if self.model.life() == Some(walk.uid) {
            assert_eq!(old, None, "a walk was answered as whole that was not");
        }
    }
}
