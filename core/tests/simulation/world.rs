//! Two shards of a primary and a replica each, one container, its clients: the state of a run, what the adversary does to
//! it, and what must hold at its end.

use crate::common::Random;
use crate::cures::Cure;
use crate::leases::{Home, Leases};
use crate::links::Link;
use crate::model::{Answer, Model, Place};
use crate::node::{Effect, NAME, Name, Node, Now, Value, number_of};
use crate::returns::Dump;
use crate::schedule::{PROMPTS, SESSIONS, Step};
use llmcache_core::cache::{Severity, WaiterId};
use llmcache_core::cluster::{HASH_SLOTS, key_slot};
use llmcache_core::codec::Writer;
use llmcache_core::ids::{EntryId, MonotonicMs, UnixMs};
use std::collections::{BTreeMap, VecDeque};

/// When the run begins, by the wall and by the clock that only goes forward.
const WALL_MS: u64 = 1_800_000_000_000;
pub const STEADY_MS: u64 = 3_600_000;

/// A client that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub home: Home,
    pub prompt: usize,
    pub flight: EntryId,
    pub lease_ms: u64,
    pub until: u64,
}

pub struct World {
    pub passed_ms: u64,
    pub nodes: [Node; 4],
    /// The primary of each shard, and how much of its log the replica has.
    pub primary: [usize; 2],
    pub applied: [usize; 2],
    pub links: [Link; 2],
    /// The shard that owns the slot, and whether it is on its way to the other.
    pub owner: usize,
    pub is_moving: bool,
    pub model: Model,
    /// What an operator dumped of the container, while its slot did not move.
    pub dumped: Option<Dump>,
    pub leases: Leases,
    pub waiting: BTreeMap<u64, Waiting>,
    pub woken: VecDeque<u64>,
    /// The bound of the container; 0 for none.
    pub max_entries: u64,
    pub random: Random,
    pub last_number: u64,
}

impl World {
    pub fn new(seed: u64, without: Option<Cure>) -> Self {
        let mut random = Random(!seed);
        let mut world = Self {
            passed_ms: 0,
            nodes: std::array::from_fn(|_| Node { without, ..Node::default() }),
            primary: [0, 2],
            applied: [0, 0],
            links: std::array::from_fn(|_| Link::default()),
            dumped: None,
            owner: 0,
            is_moving: false,
            model: Model::default(),
            leases: Leases::default(),
            waiting: BTreeMap::new(),
            woken: VecDeque::new(),
            max_entries: [0, 0, 3][random.below(3)],
            random,
            last_number: 0,
        };
        world.tell_tables();
        world
    }

    pub fn is_without(&self, cure: Cure) -> bool {
        self.nodes[0].is_without(cure)
    }

    pub fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The clock that only goes forward.
    pub fn steady(&self) -> u64 {
        STEADY_MS + self.passed_ms
    }

    pub fn now(&self, node: usize) -> Now {
        let wall = (WALL_MS + self.passed_ms).saturating_add_signed(self.nodes[node].ahead_ms);
        let steady = if self.is_without(Cure::SteadyClock) { wall } else { self.steady() };
        Now { wall: UnixMs(wall), steady: MonotonicMs(steady) }
    }

    pub fn replica(&self, shard: usize) -> usize {
        self.primary[shard] ^ 1
    }

    pub fn home(&self, node: usize, uid: u64) -> Home {
        (node, self.nodes[node].life, uid)
    }

    /// The changes of a command, or of a slice of work, on a primary; returns their place.
    pub fn commit(&mut self, node: usize, effects: Vec<Effect>) -> Place {
        let log = &mut self.nodes[node].log;
        log.push(effects);
        (node / 2, log.len())
    }

    /// The same of what runs between commands: the server ends itself where that must not write.
    pub fn commit_between(&mut self, node: usize, effects: Vec<Effect>) -> Place {
        let role = self.nodes[node].role;
        let may = !(role.is_loading || role.is_replica || role.spares_replicas);
        assert!(may, "written without leave: {role:?}");
        self.commit(node, effects)
    }

    /// Has every server know who serves the slot.
    pub fn tell_tables(&mut self) {
        let to = self.is_moving.then_some(1 - self.owner);
        for shard in 0..2 {
            let range =
                if shard == self.owner { format!(" 0-{}", HASH_SLOTS - 1) } else { String::new() };
            let slot = key_slot(NAME);
            let moving = match to {
                Some(to) if shard == self.owner => format!(" [{slot}->-s{to}]"),
                Some(to) if shard == to => format!(" [{slot}-<-s{}]", self.owner),
                _ => String::new(),
            };
            let other = 1 - shard;
            let of_other =
                if other == self.owner { format!(" 0-{}", HASH_SLOTS - 1) } else { String::new() };
            let peer = format!(
                "s{other} 127.0.0.1:{}@1 master - 0 0 1 connected{of_other}\n",
                7_000 + other
            );
            let own = format!("s{shard} 127.0.0.1:{}@1", 7_000 + shard);
            let (primary, replica) = (self.primary[shard], self.replica(shard));
            self.nodes[primary].table =
                format!("{own} myself,master - 0 0 1 connected{range}{moving}\n{peer}");
            self.nodes[replica].table = format!(
                "r{shard} 127.0.0.1:1@1 myself,slave s{shard} 0 0 1 connected\n{own} master - 0 0 1 connected{range}\n{peer}"
            );
            self.nodes[primary].role.is_replica = false;
            self.nodes[replica].role.is_replica = true;
        }
    }

    /// Where the server has a command with these keys run; `None` where it is refused or put off.
    pub fn routed(&self, names: &[Name]) -> Option<usize> {
        let [from, to] = [self.primary[self.owner], self.primary[1 - self.owner]];
        let has = |node: usize| {
            names.iter().filter(|name| self.nodes[node].keys.contains_key(name)).count()
        };
        let node = if !self.is_moving || has(from) == names.len() {
            from
        } else if has(from) == 0 && (names.len() == 1 || has(to) == names.len()) {
            to
        } else {
            return None;
        };
        (!self.nodes[node].role.spares_replicas).then_some(node)
    }

    pub fn run(&mut self, step: Step) {
        match step {
            Step::Advance { ms } => self.passed_ms += ms,
            Step::SetClock { node, by_ms } => self.nodes[node].ahead_ms += by_ms,
            Step::Deliver { shard, most } => self.deliver(shard, most),
            Step::Pause { shard } => self.nodes[self.primary[shard]].role.spares_replicas = true,
            Step::Unpause { shard } => self.nodes[self.primary[shard]].role.spares_replicas = false,
            Step::Evict { key } => self.evict(key),
            Step::Restart { node } => self.restart(node),
            Step::RestartWith { node, given } => self.restart_with(node, given),
            Step::HandOver { shard } => self.hand_over(shard),
            Step::TakeOver { shard } => self.take_over(shard),
            Step::Cut { shard } => self.links[shard].cut(),
            Step::Relink { shard } => self.relink(shard),
            Step::BeginMove => {
                let node = self.primary[self.owner];
                self.put_back(node);
                if self.nodes[node].evicted.is_some() {
                    return;
                }
                self.is_moving = true;
                self.dumped = None;
                self.tell_tables();
            }
            Step::MoveKey { key } => self.move_key(key),
            Step::EndMove => self.end_move(),
            Step::MoveAll => {
                self.run(Step::BeginMove);
                for _ in 0..20 {
                    self.move_key(0);
                }
                self.end_move();
            }
            _ => self.run_client(step),
        }
        self.check_places();
        self.ring_stray_timers();
    }

    /// The server evicts a key, or what it holds of the container.
    fn evict(&mut self, key: usize) {
        let node = self.primary[self.owner];
        if self.nodes[node].role.spares_replicas {
            return;
        }
        let names: Vec<_> = self.nodes[node].keys.keys().copied().collect();
        let Some(&name) = names.get(key % names.len().max(1)) else { return };
        match name {
            Name::Entry(uid, prompt) => {
                self.nodes[node].remove(name);
                let place = self.commit(node, vec![Effect::Remove(name)]);
                self.model.note_answer(place, (uid, prompt), None);
            }
            Name::Container => {
                self.dumped = None;
                self.nodes[node].evicted = self.nodes[node].placed();
                self.nodes[node].remove(name);
                let place = self.commit(node, vec![Effect::Remove(name)]);
                self.model.note_life(place, None);
                // It is put back before a client can have been sent to the other server for it.
                if self.is_moving {
                    self.put_back(node);
                }
            }
            Name::Owner | Name::Session(_) => {}
        }
    }

    /// Kill and start: its data is what its AOF has.
    pub fn restart(&mut self, number: usize) {
        self.forget_clients(number);
        let node = &mut self.nodes[number];
        let (base, log) = (std::mem::take(&mut node.base), std::mem::take(&mut node.log));
        node.role.spares_replicas = false;
        node.load(base, log);
        // A primary that starts again has another history, and a replica does not know how far it was.
        self.links[number / 2].restarted();
        self.tell_tables();
    }

    /// Connections to a server end: who waited there has been told so.
    pub fn forget_clients(&mut self, node: usize) {
        let here = |(&id, waiting): (&u64, &Waiting)| (waiting.home.0 == node).then_some(id);
        for id in self.waiting.iter().filter_map(here).collect::<Vec<_>>() {
            self.leave(id);
        }
    }

    /// MIGRATE of one key: made at the target, removed at the source.
    fn move_key(&mut self, key: usize) {
        if !self.is_moving {
            return;
        }
        let [from, to] = [self.primary[self.owner], self.primary[1 - self.owner]];
        if self.nodes[from].role.spares_replicas || self.nodes[to].role.spares_replicas {
            return;
        }
        let names: Vec<_> = self.nodes[from].keys.keys().copied().collect();
        let Some(&name) = names.get(key % names.len().max(1)) else { return };
        assert!(
            !self.nodes[to].keys.contains_key(&name),
            "BUSYKEY: {name:?} is at the target already"
        );
        let made = self.nodes[from].made_of(name).expect("it is there");
        self.nodes[to].obey(&made);
        if name == Name::Container {
            self.container_arrived(to);
        }
        let place = self.commit(to, vec![made]);
        self.nodes[from].remove(name);
        let went = self.commit(from, vec![Effect::Remove(name)]);
        self.model.note_move(name, went, place);
    }

    /// What was invalidated elsewhere voids leases that were granted here before.
    pub fn container_arrived(&mut self, node: usize) {
        let uid = self.nodes[node].placed().expect("it arrived");
        if !self.is_without(Cure::ArrivalVoids)
            && let Some(flights) = self.nodes[node].flights.get_mut(&uid)
        {
            flights.note_picked();
            self.leases.arrived(node, uid);
        }
    }

    fn end_move(&mut self) {
        let from = self.primary[self.owner];
        if self.is_moving && self.nodes[from].keys.is_empty() {
            (self.owner, self.is_moving) = (1 - self.owner, false);
            self.tell_tables();
        }
    }

    /// A key is in one place.
    fn check_places(&self) {
        let [one, other] = self.primary.map(|node| &self.nodes[node].keys);
        if let Some(name) = one.keys().find(|name| other.contains_key(name)) {
            panic!("two places: {name:?}");
        }
    }

    /// Lets everything come to its end: pauses, moves, timers, what is on its way. Then looks at all there is.
    pub fn settle(&mut self) {
        for shard in 0..2 {
            self.run(Step::Unpause { shard });
        }
        while self.is_moving {
            self.run(Step::MoveKey { key: 0 });
            self.run(Step::EndMove);
        }
        for round in 0..6 {
            for step in [Step::Timeouts, Step::Wakes] {
                self.run(step);
            }
            for shard in 0..2 {
                self.run(Step::Relink { shard });
                self.run(Step::Tend { shard });
                self.run(Step::SendOn { shard });
                self.run(Step::Background { shard, most: 64 });
                self.run(Step::Deliver { shard, most: usize::MAX });
            }
            (0..4).for_each(|node| self.run(Step::Sweep { node }));
            self.run(Step::Wakes);
            self.run(Step::Advance { ms: if round == 2 { 1 } else { 61_000 } });
        }
        self.check_end();
    }

    fn check_end(&mut self) {
        assert!(self.waiting.is_empty(), "unanswered: {:?}", self.waiting);
        let node = self.primary[self.owner];
        assert!(self.nodes[node].walk.is_none(), "unanswered: a walk");
        let now = self.now(node).wall;
        if let Some(uid) = self.model.life() {
            for prompt in 0..PROMPTS {
                self.read(node, uid, prompt);
            }
            let here = self.nodes[node]
                .keys
                .keys()
                .filter(|name| matches!(name, Name::Entry(of, _) if *of == uid));
            let here = here.count();
            let listed = self.nodes[node].listed(uid);
            assert_eq!(listed.len(), here, "rows and keys differ: {listed:?}");
        }
        for (name, value) in &self.nodes[node].keys {
            match value {
                Value::Entry(_, until) if until.is_past(now) => panic!("kept: {name:?} is due"),
                Value::Entry(entry, _) if Some(entry.view().uid().0) != self.model.life() => {
                    panic!("kept: {name:?} of a container that is gone");
                }
                _ => {}
            }
        }
        for session in 0..SESSIONS {
            let there = self.nodes[node].keys.contains_key(&Name::Session(session));
            assert_eq!(there, self.model.has_session(session), "lost: session {session}");
        }
        self.check_replica(node);
        self.check_leases_end(node);
    }

    /// Everything was delivered: keys, deadlines and the index are equal.
    fn check_replica(&self, node: usize) {
        let all = |node: usize| -> Vec<(Name, String)> {
            let keys = self.nodes[node].keys.iter();
            keys.map(|(name, value)| {
                let told = match value {
                    Value::Entry(entry, until) => format!("{} {until:?}", number_of(entry)),
                    // Its next place in the store order is each server's own.
                    Value::Container(uid) => {
                        let mut bounds = Writer::section(0, 0);
                        self.nodes[node].caches[uid].epochs().write(&mut bounds);
                        format!("{uid} {:?}", bounds.finish())
                    }
                    other => format!("{other:?}"),
                };
                (*name, told)
            })
            .collect()
        };
        assert_eq!(all(node), all(node ^ 1), "the replica differs");
        let rows = |node: usize| {
            let mut rows =
                self.nodes[node].placed().map_or(Vec::new(), |uid| self.nodes[node].listed(uid));
            rows.sort_unstable();
            rows
        };
        assert_eq!(rows(node), rows(node ^ 1), "the replica's index differs");
    }

    /// Nobody waits and all leases are over: whoever asks for what is not there leads.
    fn check_leases_end(&mut self, node: usize) {
        let Some(uid) = self.nodes[node].placed() else { return };
        for prompt in 0..PROMPTS {
            if self.nodes[node].entry(Name::Entry(uid, prompt)).is_none() {
                self.run(Step::Fetch { prompt, lease_ms: 100, wait_ms: 0 });
                let home = self.home(node, uid);
                let leads = self
                    .leases
                    .all
                    .last()
                    .is_some_and(|l| l.home == home && l.prompt == prompt && !l.ended);
                assert!(leads, "held: nobody may make the answer to question {prompt}");
            }
        }
    }

    /// What GET of a question returns here, checked against what was acknowledged.
    pub fn read(&mut self, node: usize, uid: u64, prompt: usize) -> Option<u64> {
        self.touch(node, Name::Entry(uid, prompt));
        let now = self.now(node).wall;
        let here = &self.nodes[node];
        let found = here.entry(Name::Entry(uid, prompt)).filter(|(entry, until)| {
            let standing = here.caches[&uid].epochs().standing(&entry.view());
            !until.is_past(now) && standing != Some(Severity::Gone)
        });
        let found = found.map(|(entry, until)| (number_of(entry), until));
        let expected = self.model.answer(uid, prompt).filter(|answer| !answer.until.is_past(now));
        match (found, expected) {
            (Some((number, until)), Some(Answer { number: right, until: due, .. })) => {
                assert_eq!(number, right, "came back: another answer to question {prompt}");
                assert_eq!(until, due, "the deadline of question {prompt} moved");
            }
            (Some((number, _)), None) => panic!("came back: answer {number} to question {prompt}"),
            (None, Some(answer)) if here.is_whole() && self.model.life() == Some(uid) => {
                panic!("lost: {answer:?} to question {prompt}");
            }
            (None, _) => {}
        }
        found.map(|(number, _)| number)
    }

    pub fn wake(&mut self, waiters: impl IntoIterator<Item = WaiterId>) {
        self.woken.extend(waiters.into_iter().map(|WaiterId(id)| id));
    }
}
