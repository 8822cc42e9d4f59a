//! Which caches live, which have work to be done between commands, and whether a data set is loading.
//!
//! Owns: the registry of caches; the flags of loading and of the sweep, which concern chunks too. All of
//! it is derived. Nothing here opens keys. Main thread only.

use super::container_registry::{self, Container, Containers, Shared};
use crate::ffi::MainCell;
use hashbrown::HashSet;
use llmcache_core::cache::Cache;
use llmcache_core::ids::ContainerUid;
use std::ffi::c_int;
use std::sync::LazyLock;

pub use super::container_registry::Place;

/// A cache, shared between its key, the reaper and whoever works on it.
pub type SharedCache = Shared<Cache>;

/// A cache without its key.
pub type KeylessCache = container_registry::Keyless<Cache>;

/// All caches, and entries that look for theirs.
pub static CACHES: Containers<Cache> = Containers::new();

impl Container for Cache {
    fn uid(&self) -> ContainerUid {
        self.uid()
    }

    fn become_other(&mut self, name: &[u8], uid: ContainerUid) {
        self.become_other(name, uid);
    }
}

#[derive(Debug, Default)]
struct Registry {
    /// Caches whose graphs have work to be done between commands.
    busy: HashSet<ContainerUid>,
    /// Caches of which entries were invalidated and not removed or marked yet.
    invalidated: HashSet<ContainerUid>,
    loading: bool,
    sweep_wanted: bool,
}

static REGISTRY: LazyLock<MainCell<Registry>> =
    LazyLock::new(|| MainCell::new(Registry::default()));

/// A cache was read from RDB. Under RESTORE the former key of that name still lives: its event tells
/// when the new one took its place.
pub fn loaded(cache: &SharedCache, db: c_int, key: &[u8]) {
    if is_loading() {
        place(cache, (db, key.to_vec()));
    }
}

/// A cache stands in a key: it was created, loaded, restored, renamed or moved there.
pub fn place(cache: &SharedCache, place: Place) {
    cache.with(|cache| note_work(cache));
    if CACHES.place(cache, place) {
        // Its entries may have been given up, or were never seen, while it stood elsewhere.
        REGISTRY.with(|registry| registry.sweep_wanted = true);
    }
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

/// Drains the caches with pending invalidations, each with the place of its key.
pub fn take_invalidated() -> Vec<(SharedCache, Place)> {
    let invalidated = REGISTRY.with(|registry| std::mem::take(&mut registry.invalidated));
    invalidated.into_iter().filter_map(|uid| CACHES.placed(uid)).collect()
}

/// Takes the caches that may have such work, for good.
pub fn take_busy() -> Vec<SharedCache> {
    let busy = REGISTRY.with(|registry| std::mem::take(&mut registry.busy));
    busy.into_iter().filter_map(|uid| CACHES.any(uid)).collect()
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
    REGISTRY.with(|registry| {
        registry.loading = false;
        registry.sweep_wanted = true;
    });
}

/// Whether a sweep was asked for; asking ends with this.
pub fn take_sweep_wanted() -> bool {
    REGISTRY.with(|registry| std::mem::take(&mut registry.sweep_wanted))
}
