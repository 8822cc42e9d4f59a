//! Linking and repairing the graphs of caches, one node at a time. Changes the index only, nothing
//! that is saved with a key or replicated, so it runs on replicas too.

use crate::keyspace::stores_wait;
use crate::keytype::cache_registry;
use llmcache_core::index::Work;

/// Works until nothing is left to do or time is up; returns whether more is to do.
pub fn run(in_time: impl Fn() -> bool) -> bool {
    if stores_wait() {
        // Done in every turn already.
        return true;
    }
    while in_time() {
        let Some(cache) = cache_registry::take_busy() else { return false };
        cache.with(|cache| {
            while in_time() && cache.index.work(Work(1)).more {}
            cache_registry::note_work(cache);
        });
    }
    cache_registry::has_busy()
}
