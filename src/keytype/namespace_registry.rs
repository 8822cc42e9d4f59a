//! The registry of namespaces: which exist, which have background work, their sums, and stubs to be removed.
//!
//! Owns: the registry of namespaces, their sums, and the stubs. All of it is derived. Nothing here opens keys. Main
//! thread only.

use super::cache_registry::{self, Schedule, Worklist};
use super::container_registry::{self, Container, Containers, Place, Shared};
use crate::ffi::MainCell;
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use llmcache_core::kvchunk::{KvTotals, Namespace};
use llmcache_core::limits;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::LazyLock;

/// A namespace, shared between its key, the reaper and whoever works on it.
pub type SharedNamespace = Shared<Namespace>;

/// A namespace without its key.
pub type KeylessNamespace = container_registry::Keyless<Namespace>;

/// All namespaces, and chunks that look for theirs.
pub static NAMESPACES: Containers<Namespace> = Containers::new();

static STUBS: LazyLock<MainCell<VecDeque<Place>>> =
    LazyLock::new(|| MainCell::new(VecDeque::new()));

impl Container for Namespace {
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
        self.tree.chunks() as usize
    }

    fn has_entries(&self) -> bool {
        self.tree.chunks() > 0
    }

    fn next_key(&self, from: u32) -> Option<(u32, Vec<u8>)> {
        let mut at = from;
        let (next, id) = loop {
            match self.tree.next_from(at)? {
                (next, Some(id)) => break (next, id),
                (next, None) => at = next,
            }
        };
        Some((next, self.chunk_key(&self.tree.node(id).digest).to_vec()))
    }

    fn set_filling(&mut self, _: bool) {}

    fn count_with_all(&mut self) {
        self.count_with(&TOTALS);
    }

    fn count_alone(&mut self) {
        self.count_alone();
    }
}

static TOTALS: KvTotals = KvTotals::new();

/// What all namespaces together have and did.
pub fn totals() -> &'static KvTotals {
    &TOTALS
}

/// Namespaces that have work to be done between commands.
#[derive(Debug, Default)]
struct Pending {
    /// Those in which chunks became leaves that have a deadline.
    leaves: Worklist,
    /// When leases of each lapse.
    leases: Schedule<MonotonicMs>,
}

static PENDING: LazyLock<MainCell<Pending>> = LazyLock::new(|| MainCell::new(Pending::default()));

/// Notes that new leaves or leases of a namespace may be work to be done between commands.
pub fn note_work(namespace: &Namespace) {
    let lapse = namespace.leases.next_lapse();
    PENDING.with(|pending| {
        if namespace.tree.has_new_leaves() {
            pending.leaves.note(namespace.uid());
        }
        pending.leases.set(namespace.uid(), lapse);
    });
}

/// Takes a namespace that may have new leaves, for good, and where it is.
pub fn take_with_leaves() -> Option<(SharedNamespace, Place)> {
    let next = || PENDING.with(|pending| pending.leaves.take());
    std::iter::from_fn(next).find_map(|uid| NAMESPACES.placed(uid))
}

/// How many may have new leaves.
pub fn with_leaves() -> usize {
    PENDING.with(|pending| pending.leaves.len())
}

/// Ends leases whose time is over, in the namespace where that is first; false where none is.
pub fn lapse_one(now: MonotonicMs) -> bool {
    let Some(uid) = PENDING.with(|pending| pending.leases.first(now)) else { return false };
    match NAMESPACES.any(uid) {
        Some(namespace) => namespace.with(|n| {
            n.leases.lapse(&mut n.tree, now, limits::KV_LAPSED_AT_ONCE);
            note_work(n);
        }),
        None => PENDING.with(|pending| pending.leases.set(uid, None)),
    }
    true
}

/// A namespace stands in a key: it was created, loaded, restored, renamed or moved there.
pub fn place(namespace: &SharedNamespace, place: Place) {
    let placed = NAMESPACES.place(namespace, place);
    if placed.moved || placed.incomplete {
        cache_registry::want_sweep();
    }
    namespace.with(|namespace| note_work(namespace));
}

/// A namespace was read from RDB; under RESTORE its event places it.
pub fn loaded(namespace: &SharedNamespace, db: c_int, key: &[u8]) {
    let at = (db, key.to_vec());
    if cache_registry::is_loading() && NAMESPACES.may_place_at_load(namespace, &at) {
        place(namespace, at);
    }
}

/// Loading ended.
pub fn loading_ended() {
    for (namespace, at) in NAMESPACES.take_postponed() {
        place(&namespace, at);
    }
}

/// A stub stands in a key and is to be removed.
pub fn note_stub(place: Place) {
    STUBS.with(|stubs| stubs.push_back(place));
}

/// The next such stub.
pub fn next_stub() -> Option<Place> {
    STUBS.with(VecDeque::pop_front)
}

/// A database, or all of them, lost all keys.
pub fn flushed(db: Option<c_int>) {
    NAMESPACES.flushed(db);
    STUBS.with(|stubs| stubs.retain(|place| db.is_some_and(|db| db != place.0)));
}

/// Two databases changed places.
pub fn swapped(first: c_int, second: c_int) {
    NAMESPACES.swapped(first, second);
    STUBS.with(|stubs| {
        stubs.iter_mut().for_each(|place| container_registry::swap_db(&mut place.0, first, second));
    });
}
