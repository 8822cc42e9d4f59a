//! Which containers of one kind live, under which names, and which keys look for theirs: what caches
//! with their entries and namespaces with their chunks have in common.
//!
//! Owns: the map from uid to container, containers whose keys are to be removed, those that the server
//! evicted and that are put back, those of which only entries are here, keys that arrived before their
//! container. All of it is derived: the map is filled as keys are loaded, created, restored, renamed or
//! moved, and an empty one is legal. Nothing here opens keys. Main thread only.
//!
//! Nothing lists all containers: whoever visits them goes on from a `Round`, a few at a time. Each
//! database has its own map, so that a flush or a swap moves a map and no container.

pub use super::places::Shared;
use super::places::{Database, Row, Standing};
use crate::ffi::{MainCell, reclaim};
use hashbrown::HashMap;
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_int;
use std::sync::{Arc, LazyLock};

/// What stands in a key of its own and has other keys.
pub trait Container: Send + 'static {
    /// Identity of this life of it.
    fn uid(&self) -> ContainerUid;
    /// What the names of its keys begin with.
    fn prefix(&self) -> &[u8];
    /// Whether its keys are named after a key of this name.
    fn is_named_after(&self, name: &[u8]) -> bool;
    /// Takes on another identity, without the keys it had.
    fn become_other(&mut self, name: &[u8], uid: ContainerUid);
    /// Takes over what another of the same uid knows of its keys, where it knows none itself.
    fn take_entries_of(&mut self, other: &mut Self) -> bool;
    /// Whether it knows any of its keys.
    fn has_entries(&self) -> bool;
    /// The first of its keys from a place on, and the place behind it.
    fn next_key(&self, from: u32) -> Option<(u32, Vec<u8>)>;
    /// Notes whether keys of its are here that it does not know yet.
    fn set_filling(&mut self, is_filling: bool);
    /// Counts what it has with all others, while it stands in a key.
    fn count_with_all(&mut self);
    /// What it has counts no more.
    fn count_alone(&mut self);
    /// Allocations that go with it, about.
    fn allocations(&self) -> usize;
}

/// A container as it is kept: where it goes last, a large one is dropped by a thread of its own, whoever removed it.
pub fn shared<C: Container>(container: C) -> Shared<C> {
    Arc::new(MainCell::disposed_by(container, |container| {
        let allocations = container.allocations();
        reclaim(container, allocations);
    }))
}

/// A key by database and name.
pub type Place = (c_int, Vec<u8>);

/// Keys that wait for one container, at most; later ones are found by the sweep.
const WAITING_MAX: usize = 1 << 20;
/// Containers of which only entries are here, at most; entries of others are found by the sweep.
const AWAITED_MAX: usize = 4_096;
/// Containers known by name, at most; others cost an opened key.
const NAMED_MAX: usize = 4_096;

/// A container without its key: what it had is to be removed, or its key is to be put back.
#[derive(Debug)]
pub struct Keyless<C> {
    /// The container as it was.
    pub container: Shared<C>,
    /// Where its key was; what it had is in the same database.
    pub place: Place,
    /// The deadline its key had, in Unix milliseconds; 0 for none.
    pub expire_at_ms: u64,
    /// Where the walk over what it had goes on.
    pub next_slot: u32,
    /// Since when its key is gone; `None` before it was first looked at.
    pub since: Option<MonotonicMs>,
    uid: ContainerUid,
}

/// Where a walk over all containers is.
#[derive(Debug, Default)]
pub struct Round {
    db: c_int,
    at: usize,
}

/// What came of a container that stands in a key now.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// It stood in another database before.
    pub moved: bool,
    /// Entries of it may be here that nobody knows.
    pub incomplete: bool,
}

/// What arrived and is to be looked at.
#[derive(Debug)]
enum Arrival<C> {
    Key(Place),
    /// All that a container knows from a place on, by name, for another that knows others already.
    All {
        container: Shared<C>,
        db: c_int,
        next: u32,
    },
}

#[derive(Debug)]
struct Known<C> {
    databases: BTreeMap<c_int, Database<C>>,
    /// How many stand in a key.
    placed: usize,
    /// How many are awaited.
    awaited: usize,
    /// Entries came of containers beyond those that may be awaited.
    overflowed: bool,
    /// Containers by the name of their key, so that a command need not open it. Holds only what is
    /// certain: a name is forgotten whenever its key goes, comes or gets a deadline.
    named: HashMap<Box<[u8]>, (c_int, Shared<C>)>,
    arrivals: VecDeque<Arrival<C>>,
    /// Containers of which a key came or went by itself, and whose readers are to be told.
    changed: Vec<ContainerUid>,
    /// Databases that were flushed, to be freed in slices.
    flushed: Vec<Database<C>>,
}

impl<C> Default for Known<C> {
    fn default() -> Self {
        Self {
            databases: BTreeMap::new(),
            placed: 0,
            awaited: 0,
            overflowed: false,
            named: HashMap::new(),
            arrivals: VecDeque::new(),
            changed: Vec::new(),
            flushed: Vec::new(),
        }
    }
}

impl<C: Container> Known<C> {
    fn row(&self, uid: ContainerUid, db: c_int) -> Option<&Row<C>> {
        self.databases.get(&db)?.row(uid)
    }

    fn row_mut(&mut self, uid: ContainerUid, db: c_int) -> Option<&mut Row<C>> {
        self.databases.get_mut(&db)?.row_mut(uid)
    }

    /// Takes a row out, and what counts it.
    fn take_row(&mut self, uid: ContainerUid, db: c_int) -> Option<Row<C>> {
        let row = self.databases.get_mut(&db)?.take(uid)?;
        self.placed -= usize::from(row.standing == Standing::Placed);
        self.awaited -= usize::from(row.standing == Standing::Awaited);
        Some(row)
    }

    fn put_row(&mut self, uid: ContainerUid, db: c_int, row: Row<C>) {
        self.placed += usize::from(row.standing == Standing::Placed);
        self.awaited += usize::from(row.standing == Standing::Awaited);
        self.databases.entry(db).or_default().put(uid, row);
    }

    /// Takes out what is known of a uid that is to stand in another key; answers what is left of a former life in
    /// the same database, and whether it stood in another one.
    fn take_former(
        &mut self,
        uid: ContainerUid,
        db: c_int,
        own: &Shared<C>,
    ) -> (Option<Row<C>>, bool) {
        let elsewhere: Vec<c_int> = self.databases.keys().copied().filter(|&at| at != db).collect();
        let mut moved = false;
        for at in elsewhere {
            if self.row(uid, at).is_some_and(|row| row.is_of(own)) {
                moved |= self.take_row(uid, at).is_some();
            }
        }
        (self.take_row(uid, db), moved)
    }
}

/// All containers of one kind.
#[derive(Debug)]
pub struct Containers<C>(LazyLock<MainCell<Known<C>>>);

impl<C: Container> Containers<C> {
    /// None yet.
    pub const fn new() -> Self {
        Self(LazyLock::new(|| MainCell::new(Known::default())))
    }

    /// The container in the key of this name, as far as that is known without opening the key.
    pub fn by_name(&self, db: c_int, name: &[u8]) -> Option<Shared<C>> {
        self.0.with(|known| {
            let (at, container) = known.named.get(name)?;
            (*at == db).then(|| Arc::clone(container))
        })
    }

    /// Notes that the key of this name holds a container and has no deadline.
    pub fn remember_name(&self, db: c_int, name: &[u8], container: &Shared<C>) {
        self.0.with(|known| {
            if known.named.len() >= NAMED_MAX {
                known.named.clear();
            }
            known.named.insert(name.into(), (db, Arc::clone(container)));
        });
    }

    /// Knows no container by the name of its key any more.
    pub fn forget_names(&self) {
        self.0.with(|known| known.named.clear());
    }

    /// The living container of this uid, if it is in this database: keys elsewhere are not its own.
    pub fn find(&self, uid: ContainerUid, db: c_int) -> Option<Shared<C>> {
        self.0.with(|known| known.row(uid, db).filter(|row| row.lives())?.container())
    }

    /// The same, even if its key is gone, or not here yet: what is to forget one of its keys.
    pub fn find_even_gone(&self, uid: ContainerUid, db: c_int) -> Option<Shared<C>> {
        self.0.with(|known| known.row(uid, db)?.container())
    }

    /// The container of this uid wherever it is, with or without its key.
    pub fn any(&self, uid: ContainerUid) -> Option<Shared<C>> {
        self.0.with(|known| {
            known.databases.values().find_map(|database| database.row(uid)?.container())
        })
    }

    /// The living container of this uid and where it is.
    pub fn placed(&self, uid: ContainerUid) -> Option<(Shared<C>, Place)> {
        self.0.with(|known| {
            known.databases.iter().find_map(|(&db, database)| {
                let row = database.row(uid).filter(|row| row.lives())?;
                Some((row.container()?, (db, row.name.clone())))
            })
        })
    }

    /// Where the living container of this uid is.
    pub fn place_of(&self, uid: ContainerUid) -> Option<Place> {
        self.placed(uid).map(|(_, place)| place)
    }

    /// The next container of a walk over all that stand in keys; `None` at the end, from where it begins anew. One
    /// that comes or goes meanwhile may be passed or met twice in the same round.
    pub fn step(&self, round: &mut Round) -> Option<(Shared<C>, Place)> {
        self.0.with(|known| {
            loop {
                let Some((&db, database)) = known.databases.range(round.db..).next() else {
                    *round = Round::default();
                    return None;
                };
                if db != round.db {
                    *round = Round { db, at: 0 };
                }
                let Some(row) = database.placed_at(round.at) else {
                    *round = Round { db: db + 1, at: 0 };
                    continue;
                };
                round.at += 1;
                if let Some(container) = row.container() {
                    return Some((container, (db, row.name.clone())));
                }
            }
        })
    }

    /// How many stand in a key.
    pub fn count(&self) -> usize {
        self.0.with(|known| known.placed)
    }

    /// A container stands in a key: it was created, loaded, restored, renamed or moved there. A second
    /// one of a living uid gets another identity, derived from uid and place, so that primary and
    /// replica agree. One whose entries are here already takes over what is known of them.
    pub fn place(&self, container: &Shared<C>, place: Place) -> Placed {
        let uid = uid_of(container);
        let uid =
            if self.is_taken(uid, container) { self.become_other(container, &place) } else { uid };
        let (db, name) = place;
        self.0.with(|known| {
            let (former, moved) = known.take_former(uid, db, container);
            known.named.remove(&*name);
            let mut row = Row::placed(container, name);
            let mut incomplete = known.overflowed;
            if let Some(former) = former {
                row.expire_at_ms = former.expire_at_ms;
                known.named.remove(&*former.name);
                let kept = former.container().filter(|kept| !Arc::ptr_eq(kept, container));
                if let Some(kept) = kept {
                    incomplete |= !inherit(container, &kept, db, &mut known.arrivals);
                }
            }
            let waiting = known.databases.get_mut(&db).and_then(|at| at.waiting.remove(&uid));
            let waiting = waiting.into_iter().flatten();
            known.arrivals.extend(waiting.map(|name| Arrival::Key((db, name))));
            known.put_row(uid, db, row);
            container.with(|container| {
                container.count_with_all();
                if incomplete {
                    container.set_filling(true);
                }
            });
            Placed { moved, incomplete }
        })
    }

    /// Whether another container of this uid lives.
    fn is_taken(&self, uid: ContainerUid, container: &Shared<C>) -> bool {
        self.0.with(|known| {
            let mut rows = known.databases.values().filter_map(|database| database.row(uid));
            rows.any(|row| row.lives() && !row.is_of(container))
        })
    }

    /// Gives a second container of a uid an identity of its own, derived from where it stands, so that every server
    /// that applies the same command agrees.
    pub fn become_other(&self, container: &Shared<C>, place: &Place) -> ContainerUid {
        let uid = uid_of(container);
        // A dump restored to one place twice finds its first identity taken if that container was renamed meanwhile.
        let mut derived = (0..).map(|attempt| derived_uid(uid, place, attempt));
        let other = derived.find(|&other| !self.is_taken(other, container));
        let other = other.expect("fewer containers than identities");
        container.with(|container| container.become_other(&place.1, other));
        other
    }

    /// Whether a container that a dump brings may stand in the key of this name: it takes over the keys of its uid that
    /// are here, which whoever restores it may have no right to. It may where these are named after the key, or where
    /// the container stood last. Under another name it may only if no key of the uid is here, which is certain only if
    /// all keys are known. If the uid lives, the second container gets another uid.
    pub fn may_arrive(&self, arriving: &C, db: c_int, name: &[u8], all_is_known: bool) -> bool {
        let (uid, is_own_name) = (arriving.uid(), arriving.is_named_after(name));
        self.0.with(|known| {
            let may_have = |at: c_int, row: &Row<C>| {
                let same_keys = || {
                    let left = row.container();
                    left.is_none_or(|left| left.with(|left| left.prefix() == arriving.prefix()))
                };
                (at == db && *row.name == *name) || (is_own_name && same_keys())
            };
            let rows = || known.databases.iter().filter_map(|(&at, d)| Some((at, d.row(uid)?)));
            if rows().any(|(_, row)| row.lives()) {
                return true;
            }
            if !rows().all(|(at, row)| may_have(at, row)) {
                return false;
            }
            if rows().any(|(at, row)| at == db && *row.name == *name) {
                return true;
            }
            let waits = || known.databases.values().any(|d| d.waiting.contains_key(&uid));
            let is_all_known = all_is_known && !known.overflowed && known.arrivals.is_empty();
            is_own_name || (is_all_known && !waits())
        })
    }

    /// The key of a container is going, or is renamed or moved.
    pub fn unlinked(&self, container: &Shared<C>, db: c_int, key: &[u8]) {
        let uid = uid_of(container);
        self.0.with(|known| {
            known.named.remove(key);
            if !known.row(uid, db).is_some_and(|row| row.is_of(container)) {
                return;
            }
            let Some(mut row) = known.take_row(uid, db) else { return };
            row.unlink(container, key);
            known.put_row(uid, db, row);
            if let Some(database) = known.databases.get_mut(&db) {
                database.queue_remains(uid, true);
                database.last_unlinked = Some(uid);
            }
            container.with(Container::count_alone);
        });
    }

    /// The server evicted a key. If it was a container's, that is kept to be put back: its size is that
    /// of its keys, which go by themselves, and making it anew would lose them all. Answers whether it
    /// was.
    pub fn evicted(&self, db: c_int, key: &[u8]) -> bool {
        self.0.with(|known| {
            // The server tells of an eviction right after the key went.
            let Some(database) = known.databases.get_mut(&db) else { return false };
            let Some(uid) = database.last_unlinked.take() else { return false };
            let Some(row) = database.row_mut(uid) else { return false };
            if row.standing != Standing::Gone || *row.name != *key {
                return false;
            }
            row.standing = Standing::Evicted;
            database.evicted.push(uid);
            true
        })
    }

    /// The evicted container that stood in this key and was not put back yet.
    pub fn evicted_from(&self, db: c_int, key: &[u8]) -> Option<Shared<C>> {
        self.0.with(|known| {
            let database = known.databases.get(&db)?;
            let rows = database.evicted.iter().filter_map(|&uid| database.row(uid));
            let mut rows = rows.filter(|row| row.standing == Standing::Evicted);
            rows.find(|row| *row.name == *key)?.container()
        })
    }

    /// Takes the containers that are to be put back, for good: place each again, or give it up.
    pub fn take_evicted(&self) -> Vec<Keyless<C>> {
        self.0.with(|known| {
            let mut taken = Vec::new();
            for (&db, database) in &mut known.databases {
                for uid in std::mem::take(&mut database.evicted) {
                    let row = database.row(uid).filter(|row| row.standing == Standing::Evicted);
                    taken.extend(row.and_then(|row| keyless(uid, db, row)));
                }
            }
            taken
        })
    }

    /// What is left of a container whose key went is of no use any more: what it had comes anew.
    pub fn forget_gone(&self, uid: ContainerUid) {
        self.0.with(|known| {
            let databases: Vec<c_int> = known.databases.keys().copied().collect();
            for db in databases {
                if known.row(uid, db).is_some_and(|row| row.standing == Standing::Gone) {
                    known.take_row(uid, db);
                }
            }
        });
    }

    /// The place of an evicted container was taken by another key: what it had is to be removed.
    pub fn give_up(&self, evicted: &Keyless<C>) {
        self.0.with(|known| {
            let Some(database) = known.databases.get_mut(&evicted.place.0) else { return };
            if let Some(row) = database.row_mut(evicted.uid)
                && row.standing == Standing::Evicted
            {
                row.standing = Standing::Gone;
                database.queue_remains(evicted.uid, true);
            }
        });
    }

    /// Notes the deadline of a container's key.
    pub fn note_expiry(&self, container: &Shared<C>, db: c_int, expire_at_ms: u64) {
        let uid = uid_of(container);
        self.0.with(|known| {
            let Some(row) = known.row_mut(uid, db) else { return };
            row.expire_at_ms = expire_at_ms;
            if expire_at_ms > 0 {
                let name = row.name.clone();
                known.named.remove(&*name);
            }
        });
    }

    /// A key of a container came or went: who read it by the container's name is to be told.
    pub fn note_change(&self, uid: ContainerUid) {
        self.0.with(|known| {
            if known.changed.last() != Some(&uid) {
                known.changed.push(uid);
            }
        });
    }

    /// Takes the names of the containers of a database, or of all, of which keys came or went.
    pub fn take_changed(&self, db: Option<c_int>) -> Vec<Place> {
        self.0.with(|known| {
            if known.changed.is_empty() {
                return Vec::new();
            }
            let (mut told, mut later) = (Vec::new(), Vec::new());
            for uid in std::mem::take(&mut known.changed) {
                let living = known.databases.iter().find_map(|(&at, database)| {
                    Some((at, database.row(uid).filter(|row| row.lives())?))
                });
                match living {
                    Some((at, row)) if db.is_none_or(|db| db == at) => {
                        told.push((at, row.name.clone()));
                    }
                    Some(_) => later.push(uid),
                    None => {}
                }
            }
            known.changed = later;
            told
        })
    }

    /// A key arrived and is to be looked at.
    pub fn arrived(&self, place: Place) {
        self.0.with(|known| known.arrivals.push_back(Arrival::Key(place)));
    }

    /// A key arrived and its container is not known: it waits for it.
    pub fn wait_for(&self, uid: ContainerUid, (db, name): Place) {
        self.0.with(|known| {
            let waiting = known.databases.entry(db).or_default().waiting.entry(uid).or_default();
            if waiting.len() < WAITING_MAX {
                waiting.push(name);
            }
        });
    }

    /// The container that an entry waits for, or that is left of one that went: what is known of entries whose
    /// container is not here. Made by `make` where there is none; `None` where that makes none, or where too many are
    /// awaited: then the sweep finds the entry.
    pub fn awaited(
        &self,
        uid: ContainerUid,
        db: c_int,
        make: impl FnOnce() -> Option<C>,
    ) -> Option<Shared<C>> {
        self.0.with(|known| {
            if let Some(row) = known.row(uid, db) {
                return row.container();
            }
            if known.awaited >= AWAITED_MAX {
                known.overflowed = true;
                return None;
            }
            let container = shared(make()?);
            known.put_row(uid, db, Row::awaited(&container));
            Some(container)
        })
    }

    /// One of the keys of a container went. Nobody waits for one of which nothing is left.
    pub fn lost_one(&self, uid: ContainerUid, db: c_int) {
        self.0.with(|known| {
            let is_over = |row: &Row<C>| {
                row.standing == Standing::Awaited
                    && row.container().is_none_or(|own| !own.with(|own| own.has_entries()))
            };
            if known.row(uid, db).is_some_and(is_over) {
                known.take_row(uid, db);
            }
        });
    }

    /// Keys wait for these containers only: for the others none was seen in a walk over all keys.
    pub fn wait_only_for(&self, is_seen: impl Fn(c_int, ContainerUid) -> bool) {
        self.0.with(|known| {
            for (&db, database) in &mut known.databases {
                database.waiting.retain(|&uid, _| is_seen(db, uid));
                if database.waiting.is_empty() {
                    database.waiting.shrink_to_fit();
                }
            }
            // The walk met the entries of those that could not be awaited before.
            known.overflowed &= known.awaited >= AWAITED_MAX;
        });
    }

    /// The next key whose container arrived after it, or that is to be looked at.
    pub fn next_arrival(&self) -> Option<Place> {
        self.0.with(|known| {
            loop {
                match known.arrivals.front_mut()? {
                    Arrival::Key(_) => {
                        let Some(Arrival::Key(place)) = known.arrivals.pop_front() else {
                            return None;
                        };
                        if known.arrivals.is_empty() {
                            known.arrivals.shrink_to(64);
                        }
                        return Some(place);
                    }
                    Arrival::All { container, db, next } => {
                        let (db, from) = (*db, *next);
                        if let Some((behind, key)) = container.with(|all| all.next_key(from)) {
                            *next = behind;
                            return Some((db, key));
                        }
                        let uid = uid_of(container);
                        known.arrivals.pop_front();
                        if let Some(own) = known.row(uid, db).and_then(Row::container) {
                            own.with(|own| own.set_filling(false));
                        }
                    }
                }
            }
        })
    }

    /// Takes the oldest container whose keys are to be removed; give it back with `put_back_remains`
    /// unless it is done, or is to wait (`let_wait`).
    pub fn take_remains(&self) -> Option<Keyless<C>> {
        self.0.with(|known| {
            known.databases.iter_mut().find_map(|(&db, database)| {
                while let Some(uid) = database.next_remains() {
                    let row = database.row(uid).filter(|row| row.standing == Standing::Gone);
                    if let Some(gone) = row.and_then(|row| keyless(uid, db, row)) {
                        return Some(gone);
                    }
                }
                None
            })
        })
    }

    /// Gives back a container whose keys are not all removed; behind the others when `later`.
    pub fn put_back_remains(&self, gone: &Keyless<C>, later: bool) {
        self.0.with(|known| {
            let Some(database) = known.databases.get_mut(&gone.place.0) else { return };
            // Its key may have been placed again meanwhile: then what it has has an owner.
            let Some(row) = database.row_mut(gone.uid).filter(|row| row.is_left_of(gone)) else {
                return;
            };
            (row.next_slot, row.since) = (gone.next_slot, gone.since);
            database.queue_remains(gone.uid, later);
        });
    }

    /// A container whose keys are not to be removed here: what is left of it waits for its like, nothing of one
    /// that has none.
    pub fn let_wait(&self, gone: &Keyless<C>) {
        self.0.with(|known| {
            let (uid, db) = (gone.uid, gone.place.0);
            if !known.row(uid, db).is_some_and(|row| row.is_left_of(gone)) {
                return;
            }
            let Some(mut row) = known.take_row(uid, db) else { return };
            if gone.container.with(|container| container.has_entries()) {
                row.standing = Standing::Awaited;
                known.put_row(uid, db, row);
            }
        });
    }

    /// A database, or all of them, lost all keys.
    pub fn flushed(&self, db: Option<c_int>) {
        self.0.with(|known| {
            known.named.clear();
            let gone: Vec<Database<C>> = match db {
                None => std::mem::take(&mut known.databases).into_values().collect(),
                Some(db) => known.databases.remove(&db).into_iter().collect(),
            };
            for database in gone {
                known.placed -= database.placed();
                known.awaited -= database.awaited();
                known.flushed.push(database);
            }
            match db {
                None => known.arrivals.clear(),
                Some(db) => known.arrivals.retain(|arrival| arrival.db() != db),
            }
            known.overflowed &= db.is_some();
        });
    }

    /// Frees some of what was flushed; answers whether more is to be freed.
    pub fn free_flushed(&self) -> bool {
        let part = self.0.with(|known| {
            let database = known.flushed.last_mut()?;
            let part = database.pop_part();
            if part.is_none() {
                known.flushed.pop();
            }
            part
        });
        // Dropped here, outside of the borrow: a container may be freed with it.
        drop(part);
        self.0.with(|known| !known.flushed.is_empty())
    }

    /// Two databases changed places.
    pub fn swapped(&self, first: c_int, second: c_int) {
        self.0.with(|known| {
            known.named.clear();
            let (one, other) = (known.databases.remove(&first), known.databases.remove(&second));
            known.databases.extend(one.map(|database| (second, database)));
            known.databases.extend(other.map(|database| (first, database)));
            for arrival in &mut known.arrivals {
                swap_db(arrival.db_mut(), first, second);
            }
        });
    }
}

impl<C> Arrival<C> {
    fn db(&self) -> c_int {
        match self {
            Self::Key((db, _)) | Self::All { db, .. } => *db,
        }
    }

    fn db_mut(&mut self) -> &mut c_int {
        match self {
            Self::Key((db, _)) | Self::All { db, .. } => db,
        }
    }
}

impl<C> Row<C> {
    fn is_left_of(&self, gone: &Keyless<C>) -> bool {
        self.standing == Standing::Gone && self.is_of(&gone.container)
    }
}

fn keyless<C>(uid: ContainerUid, db: c_int, row: &Row<C>) -> Option<Keyless<C>> {
    Some(Keyless {
        container: row.container()?,
        place: (db, row.name.clone()),
        expire_at_ms: row.expire_at_ms,
        next_slot: row.next_slot,
        since: row.since,
        uid,
    })
}

/// Has a container take over what another of its uid knew; where it knows keys of its own already, those of the
/// other are looked at one by one. Answers whether nothing is left to be looked at.
fn inherit<C: Container>(
    container: &Shared<C>,
    kept: &Shared<C>,
    db: c_int,
    arrivals: &mut VecDeque<Arrival<C>>,
) -> bool {
    let taken = kept.with(|kept| {
        kept.count_alone();
        !kept.has_entries() || container.with(|container| container.take_entries_of(kept))
    });
    if !taken {
        arrivals.push_back(Arrival::All { container: Arc::clone(kept), db, next: 0 });
    }
    taken
}

/// The identity of that many attempts that belongs to a uid and a place.
fn derived_uid(uid: ContainerUid, (db, name): &Place, attempt: u64) -> ContainerUid {
    let mut hash = Sha256::new();
    hash.update(uid.0.to_le_bytes());
    hash.update(db.to_le_bytes());
    hash.update(name);
    if attempt > 0 {
        hash.update(attempt.to_le_bytes());
    }
    let mut word = [0; 8];
    word.copy_from_slice(&hash.finalize()[..8]);
    ContainerUid(u64::from_le_bytes(word))
}

/// What a database is called once `first` and `second` changed places.
pub(super) fn swap_db(at: &mut c_int, first: c_int, second: c_int) {
    if *at == first {
        *at = second;
    } else if *at == second {
        *at = first;
    }
}

fn uid_of<C: Container>(container: &Shared<C>) -> ContainerUid {
    container.with(|container| container.uid())
}
