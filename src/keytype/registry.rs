//! Which caches live, under which names, and which entries look for theirs.
//!
//! Owns: the map from container uid to container, the caches whose entries are to be removed, the
//! caches that the server evicted and that are put back, the entries that arrived before their
//! container. All of it is derived: the map is filled as keys are loaded, created, restored, renamed
//! or moved, and an empty one is legal. Nothing here opens keys. Main thread only.

use super::CacheValue;
use crate::ffi::MainCell;
use hashbrown::{HashMap, HashSet};
use llmcache_core::cache::Cache;
use llmcache_core::ids::ContainerUid;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock, Weak};

/// A cache, shared between its key, the reaper and whoever works on it.
pub type SharedCache = Arc<MainCell<Cache>>;

/// A key by database and name.
pub type Place = (c_int, Vec<u8>);

/// Entries that wait for one container, at most; later ones are found by the sweep.
const WAITING_MAX: usize = 1 << 20;
/// Caches known by name, at most; others cost an opened key.
const NAMED_MAX: usize = 4_096;

#[derive(Debug)]
struct Registered {
    cache: Weak<MainCell<Cache>>,
    place: Place,
    /// The key went, or is being renamed or moved; which of these shows when it is placed again.
    unlinked: bool,
    /// The key's deadline when it was last looked at, in Unix milliseconds; 0 for none.
    expire_at_ms: u64,
}

/// A cache whose key the server evicted. It lives on: its entries find it, commands are answered from
/// it, and its key is put back as soon as the module may write.
#[derive(Debug)]
pub struct Evicted {
    /// The cache.
    pub cache: SharedCache,
    /// Where its key was.
    pub place: Place,
    /// The deadline its key had; 0 for none.
    pub expire_at_ms: u64,
}

/// A cache whose key is gone and whose entries are to follow.
#[derive(Debug)]
pub struct Remains {
    /// The cache as it was.
    pub cache: SharedCache,
    /// Where its key was; its entries are in the same database.
    pub place: Place,
    /// The next slot to look at.
    pub next_slot: u32,
    /// Since when its key is gone, in Unix milliseconds; 0 before it was first looked at.
    pub since_ms: u64,
}

#[derive(Debug, Default)]
struct Registry {
    caches: HashMap<ContainerUid, Registered>,
    remains: VecDeque<Remains>,
    evicted: Vec<Evicted>,
    /// Caches by the name of their key, so that a command need not open it. Holds only what is
    /// certain: emptied whenever a cache's key goes, comes or gets a deadline.
    named: HashMap<Box<[u8]>, (c_int, SharedCache)>,
    waiting: HashMap<ContainerUid, Vec<Place>>,
    arrivals: VecDeque<Place>,
    /// Caches whose graphs have work to be done between commands.
    busy: HashSet<ContainerUid>,
    /// Caches of which entries were invalidated and not removed or marked yet.
    invalidated: HashSet<ContainerUid>,
    loading: bool,
    sweep_wanted: bool,
}

static REGISTRY: LazyLock<MainCell<Registry>> =
    LazyLock::new(|| MainCell::new(Registry::default()));

/// The cache in the key of this name, as far as that is known without opening the key.
pub fn by_name(db: c_int, name: &[u8]) -> Option<SharedCache> {
    REGISTRY.with(|registry| {
        let (at, cache) = registry.named.get(name)?;
        (*at == db).then(|| Arc::clone(cache))
    })
}

/// Notes that the key of this name holds a cache and has no deadline.
pub fn remember_name(db: c_int, name: &[u8], cache: &SharedCache) {
    REGISTRY.with(|registry| {
        if registry.named.len() >= NAMED_MAX {
            registry.named.clear();
        }
        registry.named.insert(name.into(), (db, Arc::clone(cache)));
    });
}

/// The living cache of this uid, if it is in this database: entries elsewhere are not its own.
pub fn find(uid: ContainerUid, db: c_int) -> Option<SharedCache> {
    REGISTRY.with(|registry| {
        let found = registry.caches.get(&uid).filter(|found| !found.unlinked)?;
        found.cache.upgrade().filter(|_| found.place.0 == db)
    })
}

/// The cache of this uid in this database, even if its key is gone and only its index is kept: what
/// is to forget an entry.
pub fn find_even_gone(uid: ContainerUid, db: c_int) -> Option<SharedCache> {
    REGISTRY.with(|registry| {
        let found = registry.caches.get(&uid).filter(|found| found.place.0 == db)?;
        found.cache.upgrade()
    })
}

/// Where the living cache of this uid is.
pub fn place_of(uid: ContainerUid) -> Option<Place> {
    REGISTRY.with(|registry| {
        let found = registry.caches.get(&uid).filter(|found| !found.unlinked)?;
        Some(found.place.clone())
    })
}

/// Every living cache and where it is.
pub fn all() -> Vec<(SharedCache, Place)> {
    REGISTRY.with(|registry| {
        let live = registry.caches.values().filter(|found| !found.unlinked);
        live.filter_map(|found| Some((found.cache.upgrade()?, found.place.clone()))).collect()
    })
}

/// How many caches live.
pub fn count() -> usize {
    REGISTRY.with(|registry| registry.caches.values().filter(|found| !found.unlinked).count())
}

/// A cache was read from RDB. Under RESTORE the former key of that name still lives: its event tells
/// when the new one took its place.
pub fn loaded(value: &CacheValue, db: c_int, key: &[u8]) {
    if is_loading() {
        place(value, (db, key.to_vec()));
    }
}

/// A cache stands in a key: it was created, loaded, restored, renamed or moved there. A second one of
/// a living uid gets another identity, derived from uid and place, so that primary and replica agree.
pub fn place(value: &CacheValue, place: Place) {
    value.0.with(|cache| note_work(cache));
    let uid = value.0.with(|cache| cache.uid());
    let taken = REGISTRY.with(|registry| {
        registry.caches.get(&uid).is_some_and(|found| {
            let same = std::ptr::eq(found.cache.as_ptr(), Arc::as_ptr(&value.0));
            !same && !found.unlinked && found.cache.strong_count() > 0
        })
    });
    let uid = if taken { become_other(value, &place) } else { uid };
    REGISTRY.with(|registry| {
        let cache = Arc::downgrade(&value.0);
        let former = registry.caches.get(&uid);
        // Its entries may have been given up, or were never seen, while it stood elsewhere.
        registry.sweep_wanted |= former.is_some_and(|former| former.place.0 != place.0);
        let expire_at_ms = former.map_or(0, |former| former.expire_at_ms);
        let placed = Registered { cache, place, unlinked: false, expire_at_ms };
        registry.caches.insert(uid, placed);
        registry.named.clear();
        registry.remains.retain(|remains| uid_of(&remains.cache) != uid);
        registry.evicted.retain(|evicted| uid_of(&evicted.cache) != uid);
        if let Some(waiting) = registry.waiting.remove(&uid) {
            registry.arrivals.extend(waiting);
        }
    });
}

/// Gives a copy of a cache an identity of its own, derived from where it stands, so that every server
/// that sees the same keys derives the same.
pub fn become_other(value: &CacheValue, (db, name): &Place) -> ContainerUid {
    value.0.with(|cache| {
        let mut hash = Sha256::new();
        hash.update(cache.uid().0.to_le_bytes());
        hash.update(db.to_le_bytes());
        hash.update(name);
        let mut word = [0; 8];
        word.copy_from_slice(&hash.finalize()[..8]);
        let uid = ContainerUid(u64::from_le_bytes(word));
        cache.become_other(name, uid);
        uid
    })
}

/// The key of a cache is going, or is renamed or moved.
pub fn unlinked(value: &CacheValue, db: c_int, key: &[u8]) {
    let uid = value.0.with(|cache| cache.uid());
    REGISTRY.with(|registry| {
        registry.named.clear();
        let Some(found) = registry.caches.get_mut(&uid) else { return };
        if !std::ptr::eq(found.cache.as_ptr(), Arc::as_ptr(&value.0)) {
            return;
        }
        found.unlinked = true;
        let (cache, place) = (Arc::clone(&value.0), (db, key.to_vec()));
        registry.remains.push_back(Remains { cache, place, next_slot: 0, since_ms: 0 });
    });
}

/// The server evicted a key. If it was a cache's, the cache is kept to be put back: its size is its
/// entries', which go by themselves, and making it anew would lose them all. Answers whether it was.
pub fn evicted(db: c_int, key: &[u8]) -> bool {
    REGISTRY.with(|registry| {
        let gone = |remains: &Remains| remains.place.0 == db && remains.place.1 == key;
        let Some(index) = registry.remains.iter().rposition(gone) else { return false };
        let Some(Remains { cache, place, .. }) = registry.remains.remove(index) else {
            return false;
        };
        let Some(found) = registry.caches.get_mut(&uid_of(&cache)) else { return false };
        found.unlinked = false;
        registry.evicted.push(Evicted { cache, place, expire_at_ms: found.expire_at_ms });
        true
    })
}

/// The evicted cache that stood in this key and was not put back yet.
pub fn evicted_from(db: c_int, key: &[u8]) -> Option<SharedCache> {
    REGISTRY.with(|registry| {
        let found = registry.evicted.iter().find(|e| e.place.0 == db && e.place.1 == key)?;
        Some(Arc::clone(&found.cache))
    })
}

/// Takes the caches that are to be put back, for good: place each again, or give it up.
pub fn take_evicted() -> Vec<Evicted> {
    REGISTRY.with(|registry| std::mem::take(&mut registry.evicted))
}

/// Gives back evicted caches for which it was not the time.
pub fn put_back_evicted(evicted: Vec<Evicted>) {
    REGISTRY.with(|registry| registry.evicted.extend(evicted));
}

/// The place of an evicted cache was taken by another key: its entries are to be removed.
pub fn give_up(evicted: Evicted) {
    REGISTRY.with(|registry| {
        if let Some(found) = registry.caches.get_mut(&uid_of(&evicted.cache)) {
            found.unlinked = true;
        }
        let Evicted { cache, place, .. } = evicted;
        registry.remains.push_back(Remains { cache, place, next_slot: 0, since_ms: 0 });
    });
}

/// The cache of this uid whose key went a short while ago, if it is still at hand.
pub fn remains_of(uid: ContainerUid) -> Option<SharedCache> {
    REGISTRY.with(|registry| {
        let found = registry.remains.iter().find(|remains| uid_of(&remains.cache) == uid)?;
        Some(Arc::clone(&found.cache))
    })
}

/// Notes the deadline of a cache's key.
pub fn note_expiry(value: &CacheValue, expire_at_ms: u64) {
    REGISTRY.with(|registry| {
        if let Some(found) = registry.caches.get_mut(&uid_of(&value.0)) {
            found.expire_at_ms = expire_at_ms;
        }
        if expire_at_ms > 0 {
            registry.named.clear();
        }
    });
}

/// An entry stands in a key and its container is not known: it waits for it.
pub fn wait_for(uid: ContainerUid, place: Place) {
    REGISTRY.with(|registry| {
        let waiting = registry.waiting.entry(uid).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(place);
        }
    });
}

/// Entries of this uid are gone: nobody waits any more.
pub fn stop_waiting(uid: ContainerUid) {
    REGISTRY.with(|registry| registry.waiting.remove(&uid));
}

/// The next entry whose container arrived after it.
pub fn next_arrival() -> Option<Place> {
    REGISTRY.with(|registry| registry.arrivals.pop_front())
}

/// Takes the oldest cache whose entries are to be removed; give it back with `put_back_remains`
/// unless it is done.
pub fn take_remains() -> Option<Remains> {
    REGISTRY.with(|registry| {
        registry.caches.retain(|_, found| !found.unlinked || found.cache.strong_count() > 0);
        registry.remains.pop_front()
    })
}

/// Gives back a cache whose entries are not all removed; behind the others when `later`.
pub fn put_back_remains(remains: Remains, later: bool) {
    REGISTRY.with(|registry| {
        // Its key may have been placed again meanwhile: then its entries have an owner.
        if registry.live(uid_of(&remains.cache)) {
            return;
        }
        if later {
            registry.remains.push_back(remains);
        } else {
            registry.remains.push_front(remains);
        }
    });
}

/// Notes that the graphs of a cache, or its invalidated entries, may be work to be done between commands.
pub fn note_work(cache: &Cache) {
    let (linking, invalidated) = (cache.index.has_work(), cache.has_invalidated());
    if linking || invalidated {
        REGISTRY.with(|registry| {
            if linking {
                registry.busy.insert(cache.uid());
            }
            if invalidated {
                registry.invalidated.insert(cache.uid());
            }
        });
    }
}

/// Takes the caches whose invalidations wait to be carried out, for good, and where they are.
pub fn take_invalidated() -> Vec<(SharedCache, Place)> {
    REGISTRY.with(|registry| {
        let uids = std::mem::take(&mut registry.invalidated);
        let live = |uid| {
            let found = registry.caches.get(&uid).filter(|found| !found.unlinked)?;
            Some((found.cache.upgrade()?, found.place.clone()))
        };
        uids.into_iter().filter_map(live).collect()
    })
}

/// Takes the caches that may have such work, for good.
pub fn take_busy() -> Vec<SharedCache> {
    REGISTRY.with(|registry| {
        let busy = std::mem::take(&mut registry.busy);
        let find = |uid| registry.caches.get(&uid)?.cache.upgrade();
        busy.into_iter().filter_map(find).collect()
    })
}

/// Whether a data set is being loaded.
pub fn is_loading() -> bool {
    REGISTRY.with(|registry| registry.loading)
}

/// A data set is about to be loaded.
pub fn loading_started() {
    REGISTRY.with(|registry| {
        registry.loading = true;
        registry.named.clear();
    });
}

/// Loading ended: every entry is looked at once.
pub fn loading_ended() {
    REGISTRY.with(|registry| {
        registry.loading = false;
        registry.sweep_wanted = true;
    });
}

/// Whether a sweep was asked for; asking ends with this.
pub fn take_sweep_wanted() -> bool {
    REGISTRY.with(|registry| std::mem::take(&mut registry.sweep_wanted))
}

/// A database, or all of them, lost all keys.
pub fn flushed(db: Option<c_int>) {
    let hit = |at: c_int| db.is_none_or(|db| db == at);
    REGISTRY.with(|registry| {
        registry.named.clear();
        registry.caches.retain(|_, found| !hit(found.place.0));
        registry.remains.retain(|remains| !hit(remains.place.0));
        registry.evicted.retain(|evicted| !hit(evicted.place.0));
        registry.arrivals.retain(|place| !hit(place.0));
        for waiting in registry.waiting.values_mut() {
            waiting.retain(|place| !hit(place.0));
        }
        registry.waiting.retain(|_, waiting| !waiting.is_empty());
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
    REGISTRY.with(|registry| {
        registry.named.clear();
        registry.caches.values_mut().for_each(|found| swap(&mut found.place.0));
        registry.remains.iter_mut().for_each(|remains| swap(&mut remains.place.0));
        registry.evicted.iter_mut().for_each(|evicted| swap(&mut evicted.place.0));
        registry.arrivals.iter_mut().for_each(|place| swap(&mut place.0));
        registry.waiting.values_mut().flatten().for_each(|place| swap(&mut place.0));
    });
}

fn uid_of(cache: &SharedCache) -> ContainerUid {
    cache.with(|cache| cache.uid())
}

impl Registry {
    fn live(&self, uid: ContainerUid) -> bool {
        let found = self.caches.get(&uid);
        found.is_some_and(|found| !found.unlinked && found.cache.strong_count() > 0)
    }
}
