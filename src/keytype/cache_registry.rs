//! The registry of caches: which exist, which have background work and when, their sums, and whether a data set is
//! being loaded.
//!
//! Owns: the registry of caches; the sums of each kind; the flags of loading and of the sweep, which concern chunks
//! too. All of it is derived. Nothing here opens keys, and nothing lists all caches. Main thread only.

use super::container_registry::{self, Container, Containers, Placed, Shared};
use crate::ffi::{MainCell, is_replica};
use hashbrown::{HashMap, HashSet};
use llmcache_core::cache::{Cache, Kind, KindTotals};
use llmcache_core::ids::{ContainerUid, UnixMs};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::c_int;
use std::sync::LazyLock;

pub use super::container_registry::Place;

/// A cache, shared between its key, the reaper and whoever works on it.
pub type SharedCache = Shared<Cache>;

/// A cache without its key.
pub type KeylessCache = container_registry::Keyless<Cache>;

/// All caches, and entries that look for theirs.
pub static CACHES: Containers<Cache> = Containers::new();

static TOTALS: [KindTotals; Kind::ALL.len()] = [const { KindTotals::new() }; Kind::ALL.len()];

/// What all containers of a kind have and did.
pub fn totals(kind: Kind) -> &'static KindTotals {
    &TOTALS[usize::from(kind.as_byte())]
}

impl Container for Cache {
    fn uid(&self) -> ContainerUid {
        self.uid()
    }

    fn prefix(&self) -> &[u8] {
        self.prefix()
    }

    fn is_named_after(&self, name: &[u8]) -> bool {
        self.is_named_after(name)
    }

    fn become_other(&mut self, name: &[u8], uid: ContainerUid) {
        self.become_other(name, uid);
    }

    fn take_entries_of(&mut self, other: &mut Self) -> bool {
        self.take_entries_of(other)
    }

    fn leave_entries(&mut self) -> Self {
        self.leave_entries()
    }

    fn allocations(&self) -> usize {
        // Rows stand in blocks; some have names, tags or a record of their own.
        self.index.slot_end() as usize
    }

    fn has_entries(&self) -> bool {
        self.index.totals().entries > 0
    }

    fn next_key(&self, from: u32) -> Option<(u32, Vec<u8>)> {
        let (slot, found) = self.index.next_occupied(from)?;
        Some((slot.0 + 1, self.entry_key(&found.id).to_vec()))
    }

    fn set_filling(&mut self, is_filling: bool) {
        self.set_filling(is_filling);
    }

    fn count_with_all(&mut self) {
        self.count_with(totals(self.settings.kind));
    }

    fn count_alone(&mut self) {
        self.count_alone();
    }
}

/// When each container is to be looked at, by one of the clocks.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    by_time: BTreeSet<(T, ContainerUid)>,
    by_uid: HashMap<ContainerUid, T>,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_uid: HashMap::new() }
    }
}

impl<T: Copy + Ord> Schedule<T> {
    /// The one to be looked at first, if its time has come.
    pub(super) fn first(&self, now: T) -> Option<ContainerUid> {
        let &(at, uid) = self.by_time.first()?;
        (at <= now).then_some(uid)
    }

    pub(super) fn set(&mut self, uid: ContainerUid, at: Option<T>) {
        let former = match at {
            Some(at) => self.by_uid.insert(uid, at),
            None => self.by_uid.remove(&uid),
        };
        if former != at {
            if let Some(former) = former {
                self.by_time.remove(&(former, uid));
            }
            self.by_time.extend(at.map(|at| (at, uid)));
        }
    }
}

/// Containers to be looked at, each once, in the order in which they were noted.
#[derive(Debug, Default)]
pub(super) struct Worklist {
    order: VecDeque<ContainerUid>,
    noted: HashSet<ContainerUid>,
}

impl Worklist {
    pub(super) fn note(&mut self, uid: ContainerUid) {
        if self.noted.insert(uid) {
            self.order.push_back(uid);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn take(&mut self) -> Option<ContainerUid> {
        let uid = self.order.pop_front()?;
        self.noted.remove(&uid);
        if self.order.is_empty() {
            self.order.shrink_to(64);
            self.noted.shrink_to(64);
        }
        Some(uid)
    }
}

/// Caches whose keys went since somebody asked; some may stand in a key again.
#[derive(Debug)]
pub enum Bereft {
    /// These.
    These(Vec<ContainerUid>),
    /// Any may have: a database was flushed, or swapped with another.
    Any,
}

impl Default for Bereft {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

#[derive(Debug, Default)]
struct Registry {
    /// Caches whose graphs have work to be done between commands.
    busy: Worklist,
    /// Caches with texts whose words are to be read.
    unread: Worklist,
    /// Caches of which entries were invalidated and not removed or marked yet.
    invalidated: Worklist,
    /// Caches whose index may take more or less memory than the sums say.
    resized: Worklist,
    /// Caches whose index is to be filled by the sweep.
    filling: HashSet<ContainerUid>,
    due: Schedule<UnixMs>,
    bereft: Bereft,
    loading: bool,
    sweep_wanted: bool,
    /// No walk over all keys has ended since one was wanted.
    is_sweep_due: bool,
}

impl Registry {
    fn want_sweep(&mut self) {
        (self.sweep_wanted, self.is_sweep_due) = (true, true);
    }
}

static REGISTRY: LazyLock<MainCell<Registry>> =
    LazyLock::new(|| MainCell::new(Registry::default()));

/// A cache was read from RDB. Under RESTORE the former key of that name still lives: its event tells
/// when the new one took its place.
pub fn loaded(cache: &SharedCache, db: c_int, key: &[u8]) {
    let at = (db, key.to_vec());
    if is_loading() && CACHES.may_place_at_load(cache, &at) {
        place(cache, at);
    }
}

/// A cache stands in a key: it was created, loaded, restored, renamed or moved there.
pub fn place(cache: &SharedCache, place: Place) {
    let Placed { moved, incomplete, awaited_by_name } = CACHES.place(cache, place);
    // Entries may have been given up, or were never seen, while it stood elsewhere or nowhere.
    let is_filling = incomplete || cache.with(|cache| cache.is_filling());
    if moved || is_filling {
        want_sweep();
    }
    if is_filling {
        fill_by_sweep(cache);
    }
    cache.with(|cache| {
        if awaited_by_name {
            cache.set_filling(true);
        }
        note_work(cache);
    });
}

/// A dump brought a cache. Until a walk has met all keys, entries of it may be here that nobody knows.
pub fn restored(cache: &SharedCache, at: Place) {
    cache.with(|cache| cache.settings.note_restored());
    if REGISTRY.with(|registry| registry.is_sweep_due) {
        fill_by_sweep(cache);
    }
    place(cache, at);
}

/// The key of a cache is going, or is renamed or moved.
pub fn unlinked(cache: &SharedCache, db: c_int, key: &[u8]) {
    let uid = cache.with(|cache| cache.uid());
    CACHES.unlinked(cache, db, key);
    REGISTRY.with(|registry| {
        if let Bereft::These(uids) = &mut registry.bereft {
            uids.push(uid);
        }
    });
}

/// A database, or all of them, lost all keys.
pub fn flushed(db: Option<c_int>) {
    CACHES.flushed(db);
    REGISTRY.with(|registry| registry.bereft = Bereft::Any);
}

/// Two databases changed places.
pub fn swapped(first: c_int, second: c_int) {
    CACHES.swapped(first, second);
    REGISTRY.with(|registry| registry.bereft = Bereft::Any);
}

/// Takes what is known of caches whose keys went.
pub fn take_bereft() -> Bereft {
    REGISTRY.with(|registry| std::mem::take(&mut registry.bereft))
}

/// The index of a cache is to be filled from its entries by the next sweep.
pub fn fill_by_sweep(cache: &SharedCache) {
    let uid = cache.with(|cache| {
        cache.set_filling(true);
        cache.uid()
    });
    REGISTRY.with(|registry| {
        registry.filling.insert(uid);
        registry.want_sweep();
    });
}

/// Takes the caches that a sweep fills which begins now.
pub fn take_filling() -> HashSet<ContainerUid> {
    REGISTRY.with(|registry| std::mem::take(&mut registry.filling))
}

/// Notes that the graphs of a cache, its invalidated entries, its entries that are due or its memory may be
/// work to be done between commands.
pub fn note_work(cache: &Cache) {
    let (uid, linking, invalidated) =
        (cache.uid(), cache.index.has_work(), cache.has_invalidated());
    let unread = cache.index.has_unread_texts();
    let due = cache.index.next_round_at();
    REGISTRY.with(|registry| {
        if linking {
            registry.busy.note(uid);
        }
        if unread {
            registry.unread.note(uid);
        }
        if invalidated {
            registry.invalidated.note(uid);
        }
        registry.resized.note(uid);
        registry.due.set(uid, due);
    });
}

/// The cache whose entries may be due soonest, if that is now.
pub fn next_due(now: UnixMs) -> Option<ContainerUid> {
    REGISTRY.with(|registry| registry.due.first(now))
}

/// Whether any cache has entries with a deadline.
pub fn has_deadlines() -> bool {
    REGISTRY.with(|registry| !registry.due.by_time.is_empty())
}

/// A cache is not to be looked at for entries that are due before this time; never where there is none.
pub fn postpone_due(uid: ContainerUid, at: Option<UnixMs>) {
    REGISTRY.with(|registry| registry.due.set(uid, at));
}

/// Takes a cache whose invalidations wait to be carried out, for good, and where it is.
pub fn take_invalidated() -> Option<(SharedCache, Place)> {
    let next = || REGISTRY.with(|registry| registry.invalidated.take());
    std::iter::from_fn(next).find_map(|uid| CACHES.placed(uid))
}

/// How many caches may have such work.
pub fn invalidated_count() -> usize {
    REGISTRY.with(|registry| registry.invalidated.len())
}

/// Takes a cache that may have graphs to be worked on, for good.
pub fn take_busy() -> Option<SharedCache> {
    let next = || REGISTRY.with(|registry| registry.busy.take());
    std::iter::from_fn(next).find_map(|uid| CACHES.any(uid))
}

/// Whether any may have.
pub fn has_busy() -> bool {
    REGISTRY.with(|registry| registry.busy.len() > 0)
}

/// A cache with texts whose words may be to be read, and the database it is in; it is in the list no more.
pub fn take_unread() -> Option<(SharedCache, c_int)> {
    let next = || REGISTRY.with(|registry| registry.unread.take());
    std::iter::from_fn(next).find_map(|uid| CACHES.placed(uid)).map(|(cache, (db, _))| (cache, db))
}

/// Brings the sums up to the memory that indexes take; returns whether more are to be looked at.
pub fn sum_up(most: usize) -> bool {
    for _ in 0..most {
        let Some(uid) = REGISTRY.with(|registry| registry.resized.take()) else {
            return false;
        };
        if let Some((cache, _)) = CACHES.placed(uid) {
            cache.with(|cache| cache.index.tell_bytes());
        }
    }
    true
}

/// Whether a data set is being loaded.
pub fn is_loading() -> bool {
    REGISTRY.with(|registry| registry.loading)
}

/// A data set is about to be loaded.
pub fn loading_started() {
    REGISTRY.with(|registry| registry.loading = true);
    CACHES.forget_names();
}

/// Loading ended: every entry is looked at once.
pub fn loading_ended() {
    for (cache, at) in CACHES.take_postponed() {
        place(&cache, at);
    }
    REGISTRY.with(|registry| {
        registry.loading = false;
        registry.want_sweep();
    });
}

/// Asks for a sweep: entries or chunks may be here that nobody knows.
pub fn want_sweep() {
    REGISTRY.with(Registry::want_sweep);
}

/// Whether a sweep was asked for; asking ends with this.
pub fn take_sweep_wanted() -> bool {
    REGISTRY.with(|registry| std::mem::take(&mut registry.sweep_wanted))
}

/// A walk over all keys ended: whatever was here when it was asked for is known.
pub fn sweep_ended() {
    REGISTRY.with(|registry| registry.is_sweep_due = registry.sweep_wanted);
}

/// Whether a dump may bring this container, of caches or of namespaces, into a key. What a primary, the AOF or a file
/// brings is not judged, nor what comes with a slot on its way here, which `comes_with_slot` tells.
pub(super) fn may_arrive<C: Container>(
    all: &Containers<C>,
    arriving: &C,
    (db, name): (c_int, &[u8]),
    comes_with_slot: impl FnOnce() -> bool,
) -> bool {
    let (is_loading, all_is_known) =
        REGISTRY.with(|registry| (registry.loading, !registry.is_sweep_due));
    is_loading
        || is_replica()
        || all.may_arrive(arriving, db, name, all_is_known)
        || comes_with_slot()
}
