//! Which namespaces live, and which chunks look for theirs: what `registry` is for caches.
//!
//! Owns: the map from uid to namespace, the namespaces whose chunks are to be removed, those that the
//! server evicted and that are put back, chunks that arrived before their namespace, stubs to remove.
//! All of it is derived. Nothing here opens keys. Main thread only.

use super::NamespaceValue;
use super::registry::{self, Place};
use crate::ffi::MainCell;
use hashbrown::HashMap;
use llmcache_core::ids::ContainerUid;
use llmcache_core::kvchunk::Namespace;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Weak};

/// A namespace, shared between its key, the reaper and whoever works on it.
pub type SharedNamespace = Arc<MainCell<Namespace>>;

/// Chunks that wait for one namespace, at most; later ones are found by the sweep.
const WAITING_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Registered {
    namespace: Weak<MainCell<Namespace>>,
    place: Place,
    /// The key went, or is being renamed or moved.
    unlinked: bool,
    expire_at_ms: u64,
}

/// A namespace without its key: its chunks are to be removed, or its key is to be put back.
#[derive(Debug)]
pub struct Keyless {
    /// The namespace.
    pub namespace: SharedNamespace,
    /// Where its key was.
    pub place: Place,
    /// The deadline its key had; 0 for none.
    pub expire_at_ms: u64,
    /// Where the walk over its chunks goes on.
    pub next_slot: u32,
    /// Since when its key is gone, in Unix milliseconds; 0 before it was first looked at.
    pub since_ms: u64,
}

#[derive(Debug, Default)]
struct Namespaces {
    known: HashMap<ContainerUid, Registered>,
    remains: VecDeque<Keyless>,
    evicted: Vec<Keyless>,
    waiting: HashMap<ContainerUid, Vec<Place>>,
    arrivals: VecDeque<Place>,
    stubs: VecDeque<Place>,
}

static NAMESPACES: LazyLock<MainCell<Namespaces>> =
    LazyLock::new(|| MainCell::new(Namespaces::default()));

/// The living namespace of this uid, if it is in this database.
pub fn find(uid: ContainerUid, db: c_int) -> Option<SharedNamespace> {
    NAMESPACES.with(|all| {
        let found = all.known.get(&uid).filter(|found| !found.unlinked)?;
        found.namespace.upgrade().filter(|_| found.place.0 == db)
    })
}

/// The same, even if its key is gone: what is to forget a chunk.
pub fn find_even_gone(uid: ContainerUid, db: c_int) -> Option<SharedNamespace> {
    NAMESPACES
        .with(|all| all.known.get(&uid).filter(|found| found.place.0 == db)?.namespace.upgrade())
}

/// Every living namespace and where it is.
pub fn all() -> Vec<(SharedNamespace, Place)> {
    NAMESPACES.with(|all| {
        let live = all.known.values().filter(|found| !found.unlinked);
        live.filter_map(|found| Some((found.namespace.upgrade()?, found.place.clone()))).collect()
    })
}

/// How many namespaces live.
pub fn count() -> usize {
    NAMESPACES.with(|all| all.known.values().filter(|found| !found.unlinked).count())
}

/// A namespace was read from RDB; under RESTORE its event places it.
pub fn loaded(value: &NamespaceValue, db: c_int, key: &[u8]) {
    if registry::is_loading() {
        place(value, (db, key.to_vec()));
    }
}

/// A namespace stands in a key: it was created, loaded, restored, renamed or moved there. A second one
/// of a living uid gets another identity, derived from uid and place.
pub fn place(value: &NamespaceValue, place: Place) {
    let uid = uid_of(&value.0);
    let taken = NAMESPACES.with(|all| {
        all.known.get(&uid).is_some_and(|found| {
            let same = std::ptr::eq(found.namespace.as_ptr(), Arc::as_ptr(&value.0));
            !same && !found.unlinked && found.namespace.strong_count() > 0
        })
    });
    let uid = if taken { become_other(value, &place) } else { uid };
    NAMESPACES.with(|all| {
        let expire_at_ms = all.known.get(&uid).map_or(0, |former| former.expire_at_ms);
        let namespace = Arc::downgrade(&value.0);
        all.known.insert(uid, Registered { namespace, place, unlinked: false, expire_at_ms });
        all.remains.retain(|gone| uid_of(&gone.namespace) != uid);
        all.evicted.retain(|gone| uid_of(&gone.namespace) != uid);
        all.arrivals.extend(all.waiting.remove(&uid).unwrap_or_default());
    });
}

/// Gives a copy of a namespace an identity of its own, the same on every server that sees these keys.
pub fn become_other(value: &NamespaceValue, (db, name): &Place) -> ContainerUid {
    value.0.with(|namespace| {
        let mut hash = Sha256::new();
        hash.update(namespace.uid().0.to_le_bytes());
        hash.update(db.to_le_bytes());
        hash.update(name);
        let mut word = [0; 8];
        word.copy_from_slice(&hash.finalize()[..8]);
        let uid = ContainerUid(u64::from_le_bytes(word));
        namespace.become_other(name, uid);
        uid
    })
}

/// The key of a namespace is going, or is renamed or moved.
pub fn unlinked(value: &NamespaceValue, db: c_int, key: &[u8]) {
    let uid = uid_of(&value.0);
    NAMESPACES.with(|all| {
        let Some(found) = all.known.get_mut(&uid) else { return };
        if !std::ptr::eq(found.namespace.as_ptr(), Arc::as_ptr(&value.0)) {
            return;
        }
        found.unlinked = true;
        all.remains.push_back(Keyless {
            namespace: Arc::clone(&value.0),
            place: (db, key.to_vec()),
            expire_at_ms: found.expire_at_ms,
            next_slot: 0,
            since_ms: 0,
        });
    });
}

/// The server evicted a key. If it was a namespace's, that lives on until its key is put back. Answers
/// whether it was.
pub fn evicted(db: c_int, key: &[u8]) -> bool {
    NAMESPACES.with(|all| {
        let gone = |gone: &Keyless| gone.place.0 == db && gone.place.1 == key;
        let Some(gone) = all.remains.iter().rposition(gone).and_then(|at| all.remains.remove(at))
        else {
            return false;
        };
        if let Some(found) = all.known.get_mut(&uid_of(&gone.namespace)) {
            found.unlinked = false;
        }
        all.evicted.push(gone);
        true
    })
}

/// The evicted namespace that stood in this key and was not put back yet.
pub fn evicted_from(db: c_int, key: &[u8]) -> Option<SharedNamespace> {
    NAMESPACES.with(|all| {
        let found = all.evicted.iter().find(|gone| gone.place.0 == db && gone.place.1 == key)?;
        Some(Arc::clone(&found.namespace))
    })
}

/// Takes the namespaces to be put back, for good: place each again, or give it up.
pub fn take_evicted() -> Vec<Keyless> {
    NAMESPACES.with(|all| std::mem::take(&mut all.evicted))
}

/// Gives back evicted namespaces for which it was not the time.
pub fn put_back_evicted(evicted: Vec<Keyless>) {
    NAMESPACES.with(|all| all.evicted.extend(evicted));
}

/// The place of an evicted namespace was taken by another key: its chunks are to be removed.
pub fn give_up(evicted: Keyless) {
    NAMESPACES.with(|all| {
        if let Some(found) = all.known.get_mut(&uid_of(&evicted.namespace)) {
            found.unlinked = true;
        }
        all.remains.push_back(evicted);
    });
}

/// The namespace of this uid whose key went a short while ago, if it is still at hand.
pub fn remains_of(uid: ContainerUid) -> Option<SharedNamespace> {
    NAMESPACES.with(|all| {
        let found = all.remains.iter().find(|gone| uid_of(&gone.namespace) == uid)?;
        Some(Arc::clone(&found.namespace))
    })
}

/// Notes the deadline of a namespace's key.
pub fn note_expiry(value: &NamespaceValue, expire_at_ms: u64) {
    let uid = uid_of(&value.0);
    NAMESPACES.with(|all| {
        if let Some(found) = all.known.get_mut(&uid) {
            found.expire_at_ms = expire_at_ms;
        }
    });
}

/// Takes the oldest namespace whose chunks are to be removed.
pub fn take_remains() -> Option<Keyless> {
    NAMESPACES.with(|all| {
        all.known.retain(|_, found| !found.unlinked || found.namespace.strong_count() > 0);
        all.remains.pop_front()
    })
}

/// Gives back one whose chunks are not all removed, unless its key was placed again; behind the
/// others when `later`.
pub fn put_back_remains(gone: Keyless, later: bool) {
    NAMESPACES.with(|all| {
        let found = all.known.get(&uid_of(&gone.namespace));
        if found.is_some_and(|found| !found.unlinked && found.namespace.strong_count() > 0) {
            return;
        }
        if later {
            all.remains.push_back(gone);
        } else {
            all.remains.push_front(gone);
        }
    });
}

/// A chunk stands in a key and is to be looked at.
pub fn arrived(place: Place) {
    NAMESPACES.with(|all| all.arrivals.push_back(place));
}

/// The next such chunk.
pub fn next_arrival() -> Option<Place> {
    NAMESPACES.with(|all| all.arrivals.pop_front())
}

/// A chunk's namespace is not known: it waits for it.
pub fn wait_for(uid: ContainerUid, place: Place) {
    NAMESPACES.with(|all| {
        let waiting = all.waiting.entry(uid).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(place);
        }
    });
}

/// A stub stands in a key and is to be removed.
pub fn note_stub(place: Place) {
    NAMESPACES.with(|all| all.stubs.push_back(place));
}

/// The next such stub.
pub fn next_stub() -> Option<Place> {
    NAMESPACES.with(|all| all.stubs.pop_front())
}

/// A database, or all of them, lost all keys.
pub fn flushed(db: Option<c_int>) {
    let hit = |at: c_int| db.is_none_or(|db| db == at);
    NAMESPACES.with(|all| {
        all.known.retain(|_, found| !hit(found.place.0));
        all.remains.retain(|gone| !hit(gone.place.0));
        all.evicted.retain(|gone| !hit(gone.place.0));
        all.arrivals.retain(|place| !hit(place.0));
        all.stubs.retain(|place| !hit(place.0));
        all.waiting.values_mut().for_each(|waiting| waiting.retain(|place| !hit(place.0)));
        all.waiting.retain(|_, waiting| !waiting.is_empty());
    });
}

/// Two databases changed places.
pub fn swapped(first: c_int, second: c_int) {
    let swap = |at: &mut c_int| {
        if *at == first {
            *at = second;
        } else if *at == second {
            *at = first;
        }
    };
    NAMESPACES.with(|all| {
        all.known.values_mut().for_each(|found| swap(&mut found.place.0));
        all.remains.iter_mut().for_each(|gone| swap(&mut gone.place.0));
        all.evicted.iter_mut().for_each(|gone| swap(&mut gone.place.0));
        all.arrivals.iter_mut().for_each(|place| swap(&mut place.0));
        all.stubs.iter_mut().for_each(|place| swap(&mut place.0));
        all.waiting.values_mut().flatten().for_each(|place| swap(&mut place.0));
    });
}

fn uid_of(namespace: &SharedNamespace) -> ContainerUid {
    namespace.with(|namespace| namespace.uid())
}
