//! What clients ask of the container, in the order of steps of the commands (`src/command/`), held against what was
//! acknowledged. A refused command changes nothing.

use crate::cures::Cure;
use crate::leases::BREAKER;
use crate::model::Answer;
use crate::node::{Effect, NAME, Name, Value, Walk, entry_of, extent_of, id_of, tag_name};
use crate::schedule::{PROMPTS, SESSIONS, Step};
use crate::world::{Waiting, World};
use llmcache_core::cache::guard::Rules;
use llmcache_core::cache::maxerror::TicketSecret;
use llmcache_core::cache::{
    Ask, Cache, Found, LeaseToken, Room, Settings, Severity, Verdict, WaiterId,
};
use llmcache_core::cluster::found_or_elsewhere;
use llmcache_core::ids::{ContainerUid, MonotonicMs, SlotId, UnixMs};
use std::collections::BTreeSet;

/// Somebody who asks for an answer.
#[derive(Clone, Copy)]
struct Asker {
    prompt: usize,
    lease_ms: u64,
    wait_ms: u64,
    waiter: Option<u64>,
}

impl World {
    pub fn run_client(&mut self, step: Step) {
        match step {
            Step::Store { prompt, ttl_ms, tag } => self.store(prompt, ttl_ms, tag, None),
            Step::Keep { lease, ttl_ms } => {
                let known = self.leases.all.len();
                if let Some(lease) = self.leases.all.get(lease % known.max(1)) {
                    let (prompt, token) = (lease.prompt, lease.token);
                    self.store(prompt, ttl_ms, 0, Some(token));
                }
            }
            Step::Fetch { prompt, lease_ms, wait_ms } => {
                let Some(node) = self.routed(&[Name::Container]) else { return };
                self.open_or_create(node);
                self.ask(node, Asker { prompt, lease_ms, wait_ms, waiter: None });
            }
            Step::Fail { lease, backoff_ms } => self.fail(lease, backoff_ms),
            Step::Extend { lease, ms } => self.extend(lease, ms),
            Step::Leave { waiter } => {
                let chosen = self.waiting.keys().nth(waiter % self.waiting.len().max(1)).copied();
                if let Some(id) = chosen {
                    self.leave(id);
                }
            }
            Step::Get { prompt } => {
                if let Some(node) = self.routed(&[Name::Container])
                    && let Some(uid) = self.nodes[node].placed()
                {
                    self.read(node, uid, prompt);
                }
            }
            Step::Delete { prompt } => self.delete(prompt, false),
            Step::Void { prompt } => self.delete(prompt, true),
            Step::Expire { prompt, ttl_ms } => self.expire(prompt, ttl_ms),
            Step::InvalidateTag { tag } => self.invalidate(Some(tag)),
            Step::InvalidateAll => self.invalidate(None),
            Step::InvalidateOlder => self.begin_walk(),
            Step::Drop => self.drop_container(),
            Step::Scan => self.scan(),
            Step::Append { session } => self.append(session),
            Step::EndSession { session } => {
                let name = Name::Session(session);
                if let Some(node) = self.routed(&[name])
                    && self.nodes[node].remove(name)
                {
                    let place = self.commit(node, vec![Effect::Remove(name)]);
                    self.model.note_session(place, session, false);
                }
            }
            Step::ListOwner => self.list_owner(),
            Step::Dump => self.dump(),
            Step::RestoreEntry { prompt } => self.restore_entry(prompt),
            Step::RestoreContainer => self.restore_container(),
            _ => self.run_server(step),
        }
    }

    /// The container of a primary, made where there is none.
    fn open_or_create(&mut self, node: usize) -> u64 {
        if let Some(uid) = self.nodes[node].placed() {
            return uid;
        }
        let uid = self.next_number();
        let settings = Settings { max_entries: self.max_entries, ..Settings::default() };
        let cache = Cache::new(NAME, ContainerUid(uid), settings, TicketSecret([1, 2]));
        let cache = cache.expect("a name");
        let head = cache.save_head();
        self.nodes[node].create(cache);
        let place = self.commit(node, vec![Effect::Create(head)]);
        self.model.note_life(place, Some(uid));
        uid
    }

    fn store(&mut self, prompt: usize, ttl_ms: u64, tag: usize, lease: Option<LeaseToken>) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        if lease.is_some() && self.nodes[node].placed().is_none() {
            return;
        }
        let uid = self.open_or_create(node);
        let name = Name::Entry(uid, prompt);
        self.touch(node, name);
        let here = &self.nodes[node];
        let whole = || here.is_whole() || here.is_without(Cure::StoreAsks);
        if found_or_elsewhere(here.entry(name), whole).is_err() {
            return;
        }
        if let Some(token) = lease
            && !self.is_good(node, uid, (prompt, tag), token)
        {
            return;
        }
        let now = self.now(node).wall;
        let until = if ttl_ms == 0 { UnixMs::NEVER } else { UnixMs(now.0 + ttl_ms) };
        let number = self.next_number();
        let seq = self.nodes[node].caches[&uid].next_seq();
        let entry = entry_of(uid, seq, prompt, tag, number);
        let told = Effect::Entry(prompt, entry.portable_bytes(), until);
        self.nodes[node].put(prompt, entry, until);
        let place = self.commit(node, vec![told]);
        let answer = Answer { number, tag, until };
        self.model.note_answer(place, (uid, prompt), Some(answer));
        self.enforce_limits(node, uid, prompt);
        self.note_stored(node, uid, prompt, lease);
    }

    /// Removes what is least worth keeping where there is too much.
    fn enforce_limits(&mut self, node: usize, uid: u64, spare: usize) {
        let now = self.now(node).wall;
        while let Some(cache) =
            self.nodes[node].caches.get_mut(&uid).filter(|cache| cache.is_over_limit())
        {
            let spare = cache.index.row_of(&id_of(spare)).unwrap_or(SlotId::NONE);
            let random = &mut self.random;
            let Some((slot, seq)) = cache.pick_victim(spare, now, || random.next()) else { return };
            let id = cache.index.slot(slot).expect("it was picked").id;
            let prompt = (0..PROMPTS).find(|&prompt| id_of(prompt) == id).expect("a question");
            let name = Name::Entry(uid, prompt);
            let was_here = self.nodes[node].remove(name);
            if let Some(cache) = self.nodes[node].caches.get_mut(&uid) {
                cache.index.remove(slot, seq);
            }
            if was_here {
                let place = self.commit(node, vec![Effect::Remove(name)]);
                self.model.note_answer(place, (uid, prompt), None);
            }
        }
    }

    /// Whether a lease is good for an answer; what the servers say is held against what was granted and invalidated.
    fn is_good(
        &mut self,
        node: usize,
        uid: u64,
        (prompt, tag): (usize, usize),
        token: LeaseToken,
    ) -> bool {
        let home = self.home(node, uid);
        let here = &mut self.nodes[node];
        let flights = here.flights.entry(uid).or_default();
        let since = flights.granted_at(token, id_of(prompt));
        let tag_text = tag_name(Some(tag)).expect("a tag");
        let changed = |since| {
            here.caches[&uid].epochs().changed_since(since, b"", [&tag_text[..]].into_iter())
        };
        let is_good = since.is_some_and(|since| !changed(since));
        let now = self.passed_ms + crate::world::STEADY_MS;
        let lease =
            self.leases.all.iter().find(|lease| lease.token == token).expect("it was granted");
        let is_void = lease.ended || lease.is_void || lease.void_tags.contains(&tag);
        if is_good {
            assert!(
                !is_void && lease.home == home,
                "stored under a lease that was void: {lease:?}"
            );
        } else {
            assert!(
                is_void || lease.home != home || lease.until <= now,
                "a good lease was refused: {lease:?}"
            );
            let heir =
                self.nodes[node].flights.get_mut(&uid).and_then(|flights| flights.lose(token));
            if lease.home == home && !lease.ended {
                self.leases.end(home, prompt);
            }
            self.wake(heir);
        }
        is_good
    }

    /// An answer was stored: its flight is over.
    fn note_stored(&mut self, node: usize, uid: u64, prompt: usize, lease: Option<LeaseToken>) {
        let home = self.home(node, uid);
        if let Some(flights) = self.nodes[node].flights.get_mut(&uid) {
            let before = flights.held()[2];
            let woken = flights.stored(id_of(prompt), lease);
            // A failure that is forgotten is smaller than a flight.
            if before - flights.held()[2] >= 512 {
                self.leases.note_success(home);
            }
            self.wake(woken);
        }
        self.leases.end(home, prompt);
        self.leases.forget_failure(home, prompt);
    }

    fn ask(&mut self, node: usize, asker: Asker) -> Verdict {
        let Asker { prompt, lease_ms, wait_ms, waiter } = asker;
        let uid = self.nodes[node].placed().expect("it was opened");
        let found = self.read(node, uid, prompt);
        let found = found.map_or(Found::Missing, |_| Found::Fresh { early: false });
        let token = LeaseToken(self.next_number());
        let now = self.now(node).steady;
        let random = self.random.next();
        let here = &mut self.nodes[node];
        let verdict = here.flights.entry(uid).or_default().decide(
            &Ask {
                id: id_of(prompt),
                scope: b"",
                context: b"",
                prompt: &[b'p', prompt as u8],
                query: None,
                unseen: None,
                threshold: 0.9,
                rules: Rules::OFF,
                room: Room::Bytes(1 << 20),
                seq: here.caches[&uid].next_seq(),
                now,
                lease_ms,
                token,
                random,
                breaker: BREAKER,
                waits: wait_ms > 0,
                waiter: waiter.map(WaiterId),
            },
            found,
        );
        let home = self.home(node, uid);
        let others =
            |(id, w): (&u64, &Waiting)| w.home == home && w.prompt == prompt && Some(*id) != waiter;
        let waited_for = self.waiting.iter().any(others);
        let steady = self.steady();
        self.leases.judge(home, prompt, &verdict, steady, waited_for);
        match verdict {
            Verdict::Lead => self.leases.grant(home, prompt, token, steady + lease_ms),
            Verdict::Wait(flight) => {
                assert!(wait_ms > 0 && waiter.is_none(), "one who was woken waits again");
                let id = self.next_number();
                let until = steady + wait_ms;
                self.waiting.insert(id, Waiting { home, prompt, flight, lease_ms, until });
                let flights = self.nodes[node].flights.get_mut(&uid).expect("it decided");
                flights.wait(flight, WaiterId(id));
            }
            _ => {}
        }
        verdict
    }

    /// A client that waited looks again, as it is answered.
    pub fn answer_waiter(&mut self, id: u64) {
        let Some(waiting) = self.waiting.get(&id).copied() else { return };
        let (node, _, uid) = waiting.home;
        let elsewhere =
            self.nodes[node].redirection().filter(|_| !self.is_without(Cure::Redirected));
        if let Some(told) = elsewhere {
            let right = format!("127.0.0.1:{}", 7_000 + 1 - node / 2);
            assert!(told.ends_with(&right), "sent elsewhere than to the other server: {told}");
        } else if self.nodes[node].placed() == Some(uid) {
            let Waiting { prompt, lease_ms, .. } = waiting;
            self.ask(node, Asker { prompt, lease_ms, wait_ms: 1, waiter: Some(id) });
        } else {
            let life = self.model.life();
            assert_ne!(life, Some(uid), "told that a container is gone which is at another server");
        }
        self.leave(id);
    }

    /// A client waits no longer.
    pub fn leave(&mut self, id: u64) {
        let Some(waiting) = self.waiting.remove(&id) else { return };
        let (node, _, uid) = waiting.home;
        let flights = self.nodes[node].flights.get_mut(&uid);
        let heir = flights.and_then(|flights| flights.leave(waiting.flight, WaiterId(id)));
        self.wake(heir);
    }

    fn fail(&mut self, lease: usize, backoff_ms: u64) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let known = self.leases.all.len();
        let Some(lease) = self.leases.all.get(lease % known.max(1)) else { return };
        let (token, prompt, home) = (lease.token, lease.prompt, self.home(node, uid));
        let now = self.now(node).steady;
        let Some(flights) = self.nodes[node].flights.get_mut(&uid) else { return };
        if let Some(woken) = flights.fail(token, backoff_ms, b"no", BREAKER, now) {
            assert!(lease.home == home && !lease.ended, "failed by a lease that has ended");
            let steady = self.steady();
            self.leases.end(home, prompt);
            self.leases.note_failure(home, prompt, backoff_ms, steady);
            self.wake(woken);
        }
    }

    fn extend(&mut self, lease: usize, ms: u64) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let (now, steady, home) = (self.now(node).steady, self.steady(), self.home(node, uid));
        let known = self.leases.all.len();
        let Some(lease) = self.leases.all.get_mut(lease % known.max(1)) else { return };
        let Some(flights) = self.nodes[node].flights.get_mut(&uid) else { return };
        if flights.extend(lease.token, MonotonicMs(now.0 + ms)) {
            assert!(lease.home == home && !lease.ended, "a lease that has ended was prolonged");
            lease.until = steady + ms;
        }
    }

    /// DEL of an entry, or INVALIDATE of its id, which voids a lease on it too.
    fn delete(&mut self, prompt: usize, voids: bool) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let name = Name::Entry(uid, prompt);
        self.touch(node, name);
        let here = &self.nodes[node];
        let whole = || here.is_whole() || here.is_without(Cure::RemovalAsks);
        if found_or_elsewhere(here.entry(name), whole).is_err() {
            return;
        }
        if voids {
            let home = self.home(node, uid);
            let heir = self.nodes[node].flights.get_mut(&uid).and_then(|f| f.void(id_of(prompt)));
            self.leases.end(home, prompt);
            self.leases.voided(uid, prompt);
            self.leases.forget_failure(home, prompt);
            self.wake(heir);
        }
        let effects =
            if self.nodes[node].remove(name) { vec![Effect::Remove(name)] } else { Vec::new() };
        let place = self.commit(node, effects);
        // It was acknowledged that there is none.
        self.model.note_answer(place, (uid, prompt), None);
    }

    fn expire(&mut self, prompt: usize, ttl_ms: u64) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let Some(was) = self.read(node, uid, prompt).and_then(|_| self.model.answer(uid, prompt))
        else {
            return;
        };
        let now = self.now(node).wall;
        let until = if ttl_ms == 0 { UnixMs::NEVER } else { UnixMs(now.0 + ttl_ms) };
        let name = Name::Entry(uid, prompt);
        self.nodes[node].set_deadline(name, until);
        let place = self.commit(node, vec![Effect::Deadline(name, until)]);
        self.model.note_answer(place, (uid, prompt), Some(Answer { until, ..was }));
    }

    fn invalidate(&mut self, tag: Option<usize>) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let cache = self.nodes[node].caches.get_mut(&uid).expect("it is placed");
        let text = tag_name(tag);
        let Ok(bound) = cache.invalidate(extent_of(&text), Severity::Gone) else { return };
        let place = self.commit(node, vec![Effect::Epoch(uid, tag, bound)]);
        for (prompt, answer) in self.model.answers_of(uid) {
            if tag.is_none_or(|tag| tag == answer.tag) {
                self.model.note_answer(place, (uid, prompt), None);
            }
        }
        self.leases.invalidated(uid, tag);
    }

    /// INVALIDATE OLDER 0: a walk removes all that is stored by now.
    fn begin_walk(&mut self) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        let here = &self.nodes[node];
        if here.walk.is_some() || !(here.is_whole() || here.is_without(Cure::WalkAsks)) {
            return;
        }
        let (upto, begun_at) = (here.caches[&uid].next_seq(), self.last_number);
        self.nodes[node].flights.entry(uid).or_default().note_picked();
        self.nodes[node].walk =
            Some(Walk { uid, next_slot: 0, upto, begun_at, is_outdated: false });
        self.leases.invalidated(uid, None);
    }

    fn drop_container(&mut self) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        self.nodes[node].remove(Name::Container);
        let place = self.commit(node, vec![Effect::Remove(Name::Container)]);
        self.model.note_life(place, None);
        for (prompt, _) in self.model.answers_of(uid) {
            self.model.note_answer(place, (uid, prompt), None);
        }
    }

    /// SCAN lists each entry that is here once, and nothing else, where all of the slot is here.
    fn scan(&mut self) {
        let Some(node) = self.routed(&[Name::Container]) else { return };
        let Some(uid) = self.nodes[node].placed() else { return };
        if found_or_elsewhere(None::<()>, || self.nodes[node].is_whole()).is_err() {
            return;
        }
        let mut listed = self.nodes[node].listed(uid);
        let count = listed.len();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), count, "listed twice");
        for prompt in 0..PROMPTS {
            let there = self.read(node, uid, prompt).is_some();
            assert!(!there || listed.contains(&id_of(prompt)), "left out: question {prompt}");
        }
    }

    fn append(&mut self, session: usize) {
        let Some(node) = self.routed(&[Name::Owner, Name::Session(session)]) else { return };
        let here = &mut self.nodes[node];
        let mut members = match here.keys.get(&Name::Owner) {
            Some(Value::Owner(members)) => members.clone(),
            _ => BTreeSet::new(),
        };
        if here.is_whole() || here.is_without(Cure::OwnerAsks) {
            members.retain(|&member| here.keys.contains_key(&Name::Session(member)));
        }
        members.insert(session);
        here.keys.insert(Name::Session(session), Value::Session);
        here.keys.insert(Name::Owner, Value::Owner(members.clone()));
        let place = self.commit(node, vec![Effect::Session(session), Effect::Owner(members)]);
        self.model.note_session(place, session, true);
        self.model.note_member(place, session);
    }

    fn list_owner(&mut self) {
        let Some(node) = self.routed(&[Name::Owner]) else { return };
        let here = &self.nodes[node];
        let asks = |here: bool| if here { Some(()) } else { None };
        let whole = || here.is_whole() || here.is_without(Cure::ListAsks);
        let Some(Value::Owner(members)) = here.keys.get(&Name::Owner) else { return };
        let mut listed = Vec::new();
        for &member in members {
            let found = asks(here.keys.contains_key(&Name::Session(member)));
            match found_or_elsewhere(found, whole) {
                Ok(Some(())) => listed.push(member),
                Ok(None) => {}
                Err(_) => return,
            }
        }
        let right = (0..SESSIONS).filter(|&s| self.model.has_session(s) && self.model.is_member(s));
        assert_eq!(listed, right.collect::<Vec<_>>(), "lost: a conversation of its owner");
    }
}
