//! One virtual server: its keys, its clock, its log, and the module as the core has it: caches, flights, who may write.
//!
//! Owns: what the adapter does with them when a key comes, goes or is looked at, in the adapter's order of steps
//! (`src/keyspace/entries.rs`, `src/keyspace/attach.rs`, `src/background/`). Everything that decides is the core's.

use crate::cures::Cure;
use llmcache_core::cache::{Cache, Entry, EntryFields, Extent, Flights, Severity};
use llmcache_core::cluster::{Ownership, Role, Served, in_node_table, key_slot, redirection_by};
use llmcache_core::ids::{ContainerUid, EntryId, MonotonicMs, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::NewSlot;
use llmcache_core::vector::Quant;
use std::collections::{BTreeMap, BTreeSet};

/// Name of the container's key. All keys share its hash slot.
pub const NAME: &[u8] = b"faq";

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Container,
    /// The entry of a question in a life of the container.
    Entry(u64, usize),
    Owner,
    Session(usize),
}

/// What a key holds.
#[derive(Debug)]
pub enum Value {
    Container(u64),
    Entry(Box<Entry>, UnixMs),
    Owner(BTreeSet<usize>),
    Session,
}

/// A change, as AOF and replicas are told it.
#[derive(Debug, Clone)]
pub enum Effect {
    Create(Vec<u8>),
    Entry(usize, Vec<u8>, UnixMs),
    Remove(Name),
    Deadline(Name, UnixMs),
    Epoch(u64, Option<usize>, Seq),
    Session(usize),
    /// The members of the owner's set.
    Owner(BTreeSet<usize>),
}

/// A walk that picks entries out and removes them, while its client waits. There is one at a time.
#[derive(Debug)]
pub struct Walk {
    pub uid: u64,
    pub next_slot: u32,
    pub upto: Seq,
    /// The last answer there was when it began.
    pub begun_at: u64,
    /// The container came back meanwhile, with other rows.
    pub is_outdated: bool,
}

/// The clocks as one server sees them.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub wall: UnixMs,
    /// What the module measures leases by.
    pub steady: MonotonicMs,
}

#[derive(Debug, Default)]
pub struct Node {
    pub role: Role,
    /// How far its clock is ahead.
    pub ahead_ms: i64,
    /// How often it was started.
    pub life: u32,
    pub keys: BTreeMap<Name, Value>,
    /// The caches whose key is here, was here, or is to come, by uid.
    pub caches: BTreeMap<u64, Cache>,
    /// Those that were removed here: their entries are to go.
    pub bereft: BTreeSet<u64>,
    /// Keys that came while their container was being removed: they wait for the next.
    pub waiting: BTreeMap<u64, BTreeSet<Name>>,
    /// Since when there are entries without their container.
    pub orphaned: BTreeMap<u64, MonotonicMs>,
    /// The one that the server evicted, to be put back.
    pub evicted: Option<u64>,
    pub flights: BTreeMap<u64, Flights>,
    pub walk: Option<Walk>,
    /// What it was told when it began, and every change since: its AOF, and what its replica reads.
    pub base: Vec<Effect>,
    pub log: Vec<Vec<Effect>>,
    /// `CLUSTER NODES` as it answers it.
    pub table: String,
    /// When a timer rings that belongs to a module which the server did not take.
    pub stray_timer: Option<MonotonicMs>,
    /// Cures that are taken out.
    pub without: Option<Cure>,
}

pub fn id_of(prompt: usize) -> EntryId {
    EntryId::of(b"", b"", &[b'p', prompt as u8])
}

/// An answer to a question: `number` tells it from all others.
pub fn entry_of(uid: u64, seq: Seq, prompt: usize, tag: usize, number: u64) -> Box<Entry> {
    Entry::new(&EntryFields {
        uid: ContainerUid(uid),
        seq,
        created: UnixMs(1),
        quant: Quant::None,
        dim: 0,
        vector: b"",
        scope: b"",
        context: b"",
        prompt: &[b'p', prompt as u8],
        response: &number.to_be_bytes(),
        name: b"",
        tags: &[&[b't', tag as u8]],
        meta: b"",
        tokens: 0,
        cost_nano_usd: 0,
        latency_ms: 0,
        grace_s: 0,
        is_embedding: false,
    })
}

/// Which answer an entry is.
pub fn number_of(entry: &Entry) -> u64 {
    let text = entry.view().response().into_owned();
    u64::from_be_bytes(text.try_into().expect("eight bytes"))
}

pub fn extent_of(tag: &Option<[u8; 2]>) -> Extent<'_> {
    tag.as_ref().map_or(Extent::All, |tag| Extent::Tag(tag))
}

pub fn tag_name(tag: Option<usize>) -> Option<[u8; 2]> {
    tag.map(|tag| [b't', tag as u8])
}

impl Node {
    pub fn is_without(&self, cure: Cure) -> bool {
        self.without == Some(cure)
    }

    /// Whether work between commands may write.
    pub fn has_leave(&self) -> bool {
        self.role.may_write() || self.is_without(Cure::Permit)
    }

    /// The state of the one hash slot.
    pub fn slot(&self) -> Ownership {
        in_node_table(self.table.as_bytes(), key_slot(NAME))
    }

    /// Whether what is not here is nowhere.
    pub fn is_whole(&self) -> bool {
        self.slot() == Ownership::Settled
    }

    /// Where the command of a client that has waited is sent; `None` where it runs here.
    pub fn redirection(&self) -> Option<String> {
        let runs_here = self.is_whole() || (self.serves() && self.placed().is_some());
        (!runs_here).then(|| redirection_by(self.table.as_bytes(), key_slot(NAME)).to_string())
    }

    pub fn serves(&self) -> bool {
        Served::by(self.table.as_bytes()).is_some_and(|served| served.has(NAME))
    }

    /// The life of the container whose key is here.
    pub fn placed(&self) -> Option<u64> {
        match self.keys.get(&Name::Container) {
            Some(Value::Container(uid)) => Some(*uid),
            _ => None,
        }
    }

    pub fn entry(&self, name: Name) -> Option<(&Entry, UnixMs)> {
        match self.keys.get(&name) {
            Some(Value::Entry(entry, until)) => Some((entry, *until)),
            _ => None,
        }
    }

    /// Removes a key; the hook of the module is told of it.
    pub fn remove(&mut self, name: Name) -> bool {
        match self.keys.remove(&name) {
            Some(Value::Entry(entry, _)) => {
                let view = entry.view();
                if let Some(cache) = self.caches.get_mut(&view.uid().0) {
                    cache.index.remove(view.slot(), view.seq());
                }
                true
            }
            Some(Value::Container(uid)) => {
                self.bereft.insert(uid);
                true
            }
            other => other.is_some(),
        }
    }

    /// A container comes: by CREATE, RESTORE, its AOF or its primary.
    pub fn create(&mut self, cache: Cache) {
        let uid = cache.uid().0;
        self.remove(Name::Container);
        self.keys.insert(Name::Container, Value::Container(uid));
        self.bereft.remove(&uid);
        if let Some(walk) = &mut self.walk {
            walk.is_outdated |= walk.uid == uid;
        }
        let mut cache = cache;
        if let Some(mut known) = self.caches.remove(&uid) {
            cache.take_entries_of(&mut known);
        }
        self.caches.insert(uid, cache);
        for name in self.waiting.remove(&uid).unwrap_or_default() {
            self.attach(name);
        }
    }

    /// Puts an entry into its key and into the index of its container.
    pub fn put(&mut self, prompt: usize, entry: Box<Entry>, until: UnixMs) {
        let uid = entry.view().uid().0;
        let name = Name::Entry(uid, prompt);
        self.remove(name);
        self.keys.insert(name, Value::Entry(entry, until));
        self.attach(name);
    }

    /// Brings an entry together with its container, or with what waits for that.
    pub fn attach(&mut self, name: Name) {
        let Some(Value::Entry(entry, until)) = self.keys.get_mut(&name) else { return };
        let uid = entry.view().uid().0;
        let is_going = self.bereft.contains(&uid) && self.evicted != Some(uid);
        if is_going && self.without != Some(Cure::GoingIsNotAwaited) {
            self.waiting.entry(uid).or_default().insert(name);
            return;
        }
        if !self.caches.contains_key(&uid) {
            if self.without == Some(Cure::Awaited) {
                return;
            }
            let uid_text = format!("{}:", ContainerUid(uid));
            let key = [b"{faq}:", uid_text.as_bytes(), &entry.view().id_text()];
            let Some(awaited) = Cache::awaited(&key.concat(), &entry.view()) else { return };
            self.caches.insert(uid, awaited);
        }
        let cache = self.caches.get_mut(&uid).expect("it was made above");
        let view = entry.view();
        let row = cache.index.row_of(&view.id());
        let row = row.and_then(|slot| Some((slot, cache.index.slot(slot)?.seq())));
        let slot = match row {
            Some((slot, seq)) if seq == view.seq() => {
                cache.index.unhide(slot, seq);
                cache.index.set_expiry(slot, seq, *until);
                slot
            }
            _ => index(cache, entry, *until),
        };
        entry.set_slot(slot);
    }

    pub fn set_deadline(&mut self, name: Name, at: UnixMs) {
        let Some(Value::Entry(entry, until)) = self.keys.get_mut(&name) else { return };
        *until = at;
        let view = entry.view();
        if let Some(cache) = self.caches.get_mut(&view.uid().0) {
            cache.index.set_expiry(view.slot(), view.seq(), at);
        }
    }

    /// Does as it is told, by its AOF or its primary.
    pub fn obey(&mut self, effect: &Effect) {
        match effect {
            Effect::Create(head) => self.create(Cache::load_head(head).expect("what was saved")),
            Effect::Entry(prompt, bytes, until) => {
                let entry = Entry::from_bytes(bytes.clone().into()).expect("what was stored");
                self.put(*prompt, entry, *until);
            }
            Effect::Remove(name) => {
                self.remove(*name);
            }
            Effect::Deadline(name, at) => self.set_deadline(*name, *at),
            Effect::Epoch(uid, tag, bound) => {
                if let Some(cache) = self.caches.get_mut(uid) {
                    let tag = tag_name(*tag);
                    let done = cache.obey_epoch(extent_of(&tag), Severity::Gone, *bound);
                    done.expect("there are few tags");
                }
            }
            Effect::Session(session) => {
                self.keys.insert(Name::Session(*session), Value::Session);
            }
            Effect::Owner(members) if members.is_empty() => {
                self.keys.remove(&Name::Owner);
            }
            Effect::Owner(members) => {
                self.keys.insert(Name::Owner, Value::Owner(members.clone()));
            }
        }
    }

    /// The effect that makes one key as it is.
    pub fn made_of(&self, name: Name) -> Option<Effect> {
        Some(match (name, self.keys.get(&name)?) {
            (_, Value::Container(uid)) => Effect::Create(self.caches[uid].save_head()),
            (Name::Entry(_, prompt), Value::Entry(entry, until)) => {
                Effect::Entry(prompt, entry.portable_bytes(), *until)
            }
            (_, Value::Owner(members)) => Effect::Owner(members.clone()),
            (Name::Session(session), _) => Effect::Session(session),
            _ => return None,
        })
    }

    /// What a replica reads first, and what a rewritten AOF begins with. Keys come in an order of their own.
    pub fn snapshot(&self, shift: usize) -> Vec<Effect> {
        let mut all: Vec<_> = self.keys.keys().filter_map(|&name| self.made_of(name)).collect();
        let shift = shift.checked_rem(all.len()).unwrap_or(0);
        all.rotate_left(shift);
        all
    }

    /// Forgets everything and reads its data.
    pub fn load(&mut self, base: Vec<Effect>, log: Vec<Vec<Effect>>) {
        let (role, without) = (self.role, self.without);
        let (ahead_ms, life) = (self.ahead_ms, self.life + 1);
        let table = std::mem::take(&mut self.table);
        *self = Self { role, ahead_ms, life, table, without, ..Self::default() };
        self.role.is_loading = true;
        base.iter().chain(log.iter().flatten()).for_each(|effect| self.obey(effect));
        self.role.is_loading = false;
        (self.base, self.log) = (base, log);
    }

    /// A walk of the sweep over all keys: entries that the index does not know are added, and rows are held against
    /// what was met.
    pub fn sweep(&mut self) {
        let names: Vec<_> = self.keys.keys().copied().collect();
        let mut met: BTreeMap<u64, u64> = BTreeMap::new();
        for name in names {
            if let Name::Entry(uid, _) = name {
                self.attach(name);
                *met.entry(uid).or_default() += 1;
            }
        }
        for (uid, cache) in &mut self.caches {
            cache.count_against(met.get(uid).copied().unwrap_or(0));
        }
    }

    /// A walk over the rows in doubt: shows them again or frees them.
    pub fn settle_slots(&mut self, now: UnixMs) {
        let is_blind = self.role.is_replica;
        let gone = self.slot().absent_is_gone(is_blind);
        for (uid, cache) in &mut self.caches {
            cache.begin_walk();
            let mut next = 0;
            while let Some((slot, found)) = cache.index.next_occupied(next) {
                next = slot.0 + 1;
                let unsure =
                    found.is_hidden() || found.expire_at.is_past(now) || cache.doubts_all();
                let (id, seq) = (found.id, found.seq());
                let prompt = (0..crate::schedule::PROMPTS).find(|&prompt| id_of(prompt) == id);
                let name = Name::Entry(*uid, prompt.expect("one of the questions"));
                match self.keys.get(&name) {
                    _ if !unsure => {}
                    Some(_)
                        if found.expire_at.is_past(now) && self.without == Some(Cure::DueAsks) =>
                    {
                        cache.index.remove(slot, seq);
                    }
                    Some(Value::Entry(entry, until)) if entry.view().is_at(slot, seq) => {
                        cache.index.unhide(slot, seq);
                        cache.index.set_expiry(slot, seq, *until);
                    }
                    None if !gone => {}
                    _ => {
                        cache.index.remove(slot, seq);
                    }
                }
            }
            cache.end_walk();
        }
    }

    /// What SCAN of the container lists.
    pub fn listed(&self, uid: u64) -> Vec<EntryId> {
        let cache = &self.caches[&uid];
        cache.index.listed_from(0).map(|(_, _, slot)| slot.id).collect()
    }
}

fn index(cache: &mut Cache, entry: &Entry, expire_at: UnixMs) -> SlotId {
    let view = entry.view();
    cache.observe_seq(view.seq());
    let slot = cache.index.insert(NewSlot {
        id: view.id(),
        seq: view.seq(),
        partition: PartitionKey::of(b"", b""),
        expire_at,
        bytes: 100,
        worth: 1,
        record: None,
        name: None,
        code: None,
    });
    cache.index.set_tags(slot, view.tags());
    cache.note_arrival(&view);
    slot
}
