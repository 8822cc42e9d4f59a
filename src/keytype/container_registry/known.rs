//! The map from uid to container, by database, and the names of container keys.
//!
//! Owns: that map, the names, the list of changes, flushes and swaps. Main thread only.

use super::places::{Database, Row, Shared, Standing};
use crate::ffi::{MainCell, reclaim};
use hashbrown::HashMap;
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Weak};

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
    /// Parts with all it knows of its keys, which stay where it stood: what it returns knows them, as if it had never had
    /// a key of its own.
    fn leave_entries(&mut self) -> Self;
    /// Whether it knows any of its keys.
    fn has_entries(&self) -> bool;
    /// The first of its keys from a place on, and the place behind it.
    fn next_key(&self, from: u32) -> Option<(u32, Vec<u8>)>;
    /// Notes whether some of its keys are here that it does not know yet.
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
pub(super) const WAITING_MAX: usize = 1 << 20;
/// Containers of which only entries are here, at most; entries of others are found by the sweep.
pub(super) const AWAITED_MAX: usize = 4_096;
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
    pub(super) uid: ContainerUid,
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
    /// It stood in another database before, where its keys are.
    pub moved: bool,
    /// Entries of it may be here that nobody knows.
    pub incomplete: bool,
    /// Keys waited for it by name and are looked at next; then it is told that it is filled.
    pub awaited_by_name: bool,
}

/// What arrived and is to be looked at.
#[derive(Debug)]
pub(super) enum Arrival<C> {
    Key(Place),
    /// All that a container was to look at has been looked at.
    End {
        uid: ContainerUid,
        db: c_int,
    },
    /// All that a container knows from a place on, by name, for another that knows others already.
    All {
        container: Shared<C>,
        db: c_int,
        next: u32,
    },
}

#[derive(Debug)]
pub(super) struct Known<C> {
    pub(super) databases: BTreeMap<c_int, Database<C>>,
    /// How many stand in a key.
    pub(super) placed: usize,
    /// How many are awaited.
    pub(super) awaited: usize,
    /// Entries came of containers beyond those that may be awaited.
    pub(super) overflowed: bool,
    /// The same since the walk over all keys began, which may have passed them before.
    pub(super) has_just_overflowed: bool,
    /// Containers by the name of their key, so that a command need not open it. Holds only what is
    /// certain: a name is forgotten whenever its key goes, comes or gets a deadline.
    pub(super) named: HashMap<Box<[u8]>, (c_int, Shared<C>)>,
    pub(super) arrivals: VecDeque<Arrival<C>>,
    /// Those that stand in a key again, or at last, of which keys were here.
    pub(super) returned: Vec<(c_int, ContainerUid)>,
    /// Containers of which a key came or went by itself, and whose readers are to be told.
    changed: Vec<ContainerUid>,
    /// Containers that were read of a uid that lived already, until an event places them or loading ends.
    pub(super) postponed: Vec<(Weak<MainCell<C>>, Place)>,
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
            has_just_overflowed: false,
            named: HashMap::new(),
            arrivals: VecDeque::new(),
            returned: Vec::new(),
            changed: Vec::new(),
            postponed: Vec::new(),
            flushed: Vec::new(),
        }
    }
}

impl<C: Container> Known<C> {
    pub(super) fn row(&self, uid: ContainerUid, db: c_int) -> Option<&Row<C>> {
        self.databases.get(&db)?.row(uid)
    }

    pub(super) fn row_mut(&mut self, uid: ContainerUid, db: c_int) -> Option<&mut Row<C>> {
        self.databases.get_mut(&db)?.row_mut(uid)
    }

    /// Takes a row out, and what counts it.
    pub(super) fn take_row(&mut self, uid: ContainerUid, db: c_int) -> Option<Row<C>> {
        let row = self.databases.get_mut(&db)?.take(uid)?;
        self.placed -= usize::from(row.standing == Standing::Placed);
        self.awaited -= usize::from(row.standing == Standing::Awaited);
        Some(row)
    }

    pub(super) fn put_row(&mut self, uid: ContainerUid, db: c_int, row: Row<C>) {
        self.placed += usize::from(row.standing == Standing::Placed);
        self.awaited += usize::from(row.standing == Standing::Awaited);
        self.databases.entry(db).or_default().put(uid, row);
    }

    /// Entries came of which nothing is kept: a walk over all keys is to find them.
    pub(super) fn note_overflow(&mut self) {
        (self.overflowed, self.has_just_overflowed) = (true, true);
    }

    /// Whether there is room for another container that is awaited; where there is none, its entries are left to the walk.
    pub(super) fn may_await_another(&mut self) -> bool {
        let has_room = self.awaited < AWAITED_MAX;
        if !has_room {
            self.note_overflow();
        }
        has_room
    }

    /// Takes out what is known of a uid that is to stand in another key; returns what is left of a former life in
    /// the same database, and whether it stood in another one. There its keys stay, and are known as those of one that
    /// may come back.
    pub(super) fn take_former(
        &mut self,
        uid: ContainerUid,
        db: c_int,
        own: &Shared<C>,
    ) -> (Option<Row<C>>, bool) {
        let is_of_own =
            |database: &Database<C>| database.row(uid).is_some_and(|row| row.is_of(own));
        let elsewhere = self.databases.iter().find(|&(&at, there)| at != db && is_of_own(there));
        let elsewhere = elsewhere.map(|(&at, _)| at);
        if let Some(at) = elsewhere {
            self.take_row(uid, at);
            if own.with(|own| own.has_entries()) {
                let left = shared(own.with(Container::leave_entries));
                if self.may_await_another() {
                    self.put_row(uid, at, Row::awaited(&left));
                }
            }
        }
        (self.take_row(uid, db), elsewhere.is_some())
    }
}

/// All containers of one kind.
#[derive(Debug)]
pub struct Containers<C>(pub(super) LazyLock<MainCell<Known<C>>>);

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

    /// The container of this uid wherever it is, with or without its key; the living one where there are several.
    pub fn any(&self, uid: ContainerUid) -> Option<Shared<C>> {
        self.0.with(|known| {
            let rows = || known.databases.values().filter_map(|database| database.row(uid));
            rows().find(|row| row.lives()).or_else(|| rows().next())?.container()
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

    /// Frees some of what was flushed; returns whether more is to be freed.
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

impl<C: Container> Row<C> {
    /// Whether its key went and some of its keys are still here.
    pub(super) fn is_going(&self) -> bool {
        self.standing == Standing::Gone
            && self.container().is_some_and(|own| own.with(|own| own.has_entries()))
    }
}

impl<C> Arrival<C> {
    pub(super) fn db(&self) -> c_int {
        match self {
            Self::Key((db, _)) | Self::End { db, .. } | Self::All { db, .. } => *db,
        }
    }

    fn db_mut(&mut self) -> &mut c_int {
        match self {
            Self::Key((db, _)) | Self::End { db, .. } | Self::All { db, .. } => db,
        }
    }
}

/// What a database is called once `first` and `second` changed places.
pub fn swap_db(at: &mut c_int, first: c_int, second: c_int) {
    if *at == first {
        *at = second;
    } else if *at == second {
        *at = first;
    }
}

pub(super) fn uid_of<C: Container>(container: &Shared<C>) -> ContainerUid {
    container.with(|container| container.uid())
}
