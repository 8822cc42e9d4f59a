//! Re-checks index slots in doubt: hidden ones, ones past their deadline without a removal event (the entry expired
//! while the server was down), and all of a cache with more rows than the sweep met entries. A slow walk looks at
//! their keys and shows the slot again or frees it.

use crate::ffi::{Access, Ctx, MainCell};
use crate::keyspace::open_entry;
use crate::keyspace::slots;
use crate::keytype::cache_registry::{self, CACHES, Place, SharedCache};
use crate::keytype::container_registry::Round;
use llmcache_core::cache::Cache;
use llmcache_core::ids::{Seq, SlotId, UnixMs};
use std::sync::{Arc, LazyLock, Weak};

/// Slots passed in one slice; most are passed without opening a key.
const SLOTS_PER_SLICE: usize = 2_048;
/// How long past its deadline an entry is left to the server's own expiry.
const OVERDUE_MS: u64 = 2_000;

#[derive(Default)]
struct Walk {
    round: Round,
    /// Held weakly: a cache that is flushed meanwhile gives its memory back at once.
    at: Option<(Weak<MainCell<Cache>>, Place)>,
    next_slot: u32,
}

impl Walk {
    /// The cache it is in, or the next one; `None` at the end of a round.
    fn cache(&mut self) -> Option<(SharedCache, Place)> {
        let at =
            self.at.as_ref().and_then(|(cache, place)| Some((cache.upgrade()?, place.clone())));
        if at.is_some() {
            return at;
        }
        let (cache, place) = CACHES.step(&mut self.round)?;
        self.at = Some((Arc::downgrade(&cache), place.clone()));
        self.next_slot = 0;
        Some((cache, place))
    }
}

static WALK: LazyLock<MainCell<Walk>> = LazyLock::new(|| MainCell::new(Walk::default()));

/// Walks on.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) {
    let now = ctx.now_ms();
    let mut passed = 0;
    while passed < SLOTS_PER_SLICE && in_time() {
        let at =
            WALK.with(|walk| walk.cache().map(|(cache, place)| (cache, place, walk.next_slot)));
        let Some((cache, place, from)) = at else { return };
        let left = SLOTS_PER_SLICE - passed;
        let (next, unsure) = next_unsure(&cache, from, left, now);
        passed += left.min((next.unwrap_or(from) - from) as usize + 1);
        if let Some((slot, seq)) = unsure {
            settle(ctx, &cache, &place, slot, seq);
        }
        WALK.with(|walk| match next {
            Some(next) => walk.next_slot = next,
            None => walk.at = None,
        });
    }
}

/// Passes up to `most` slots from `from` on; returns where to continue, if there is more, and the slot
/// it stopped at because it is unsure.
fn next_unsure(
    cache: &SharedCache,
    from: u32,
    most: usize,
    now: u64,
) -> (Option<u32>, Option<(SlotId, Seq)>) {
    cache.with(|cache| {
        if from == 0 {
            cache.begin_walk();
        }
        let mut at = from;
        for _ in 0..most {
            let Some((slot, found)) = cache.index.next_occupied(at) else {
                cache.end_walk();
                return (None, None);
            };
            at = slot.0 + 1;
            let overdue = UnixMs(now.saturating_sub(OVERDUE_MS));
            if found.is_hidden() || found.expire_at.is_past(overdue) || cache.doubts_all() {
                return (Some(at), Some((slot, found.seq())));
            }
        }
        (Some(at), None)
    })
}

fn settle(ctx: Ctx<'_>, cache: &SharedCache, (db, _): &Place, slot: SlotId, seq: Seq) {
    let key = cache.with(|cache| cache.key_at(slot, seq));
    let Some(key) = key else { return };
    if !ctx.select_db(*db) {
        return;
    }
    let seen = open_entry(ctx, &key, Access::Unasked).map(|entry| {
        let view = entry.view();
        let claimed = view.is_at(slot, seq);
        (claimed, UnixMs(entry.expire_at_ms()))
    });
    match seen {
        Some((true, expire_at)) => cache.with(|cache| {
            cache.index.unhide(slot, seq);
            cache.index.set_expiry(slot, seq, expire_at);
            cache_registry::note_work(cache);
        }),
        // The key lives and is another entry's, or stands elsewhere in the index.
        Some((false, _)) => {
            cache.with(|cache| cache.index.remove(slot, seq));
        }
        None => {
            let state = ctx.state();
            // A replica's node table does not show the migrations of its primary.
            let blind = state.is_cluster() && state.is_replica();
            if slots::of_key(ctx, &key).absent_is_gone(blind) {
                cache.with(|cache| cache.index.remove(slot, seq));
            }
        }
    }
}
