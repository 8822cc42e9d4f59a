//! Removes expired entries in slices before the server's own expire cycle meets many of them. Where more than a tenth
//! of its sample has expired, that cycle goes on for up to a quarter of its period in one piece, and an entry costs
//! it several times what a plain key does.
//!
//! The index names what is due; opening such a key has the server delete it as it would itself: event,
//! statistics, AOF and replicas. Nothing is concluded from a key that is not there. A timer of its own,
//! because it comes each millisecond while there is something to do. The registry knows which cache is to be looked at
//! first, and when. Main thread, on a primary only.

use crate::config;
use crate::ffi::{Access, Ctx, MainCell, WritePermit, start_timer};
use crate::keyspace::open_entry;
use crate::keyspace::slots::{self, Ownership};
use crate::keytype::cache_registry::{self, CACHES, Place, SharedCache};
use llmcache_core::ids::{Seq, SlotId, UnixMs};
use llmcache_core::index::DueStep;
use std::time::{Duration, Instant};

/// Pause between slices while something is due, while nothing is, and while nothing has a deadline.
const BUSY_PAUSE_MS: u64 = 1;
const PAUSE_MS: u64 = 10;
const IDLE_PAUSE_MS: u64 = 100;
/// A slice takes this share of the time since the last one, so that it keeps up where turns of the
/// event loop are long.
const SHARE: u32 = 5;
const SLICE_MIN: Duration = Duration::from_micros(100);
const SLICE_MAX: Duration = Duration::from_micros(400);
/// Rows looked at between two looks at the clock.
const ROWS_PER_STEP: u32 = 512;
/// Longest pause before a cache is looked at again that could not be: its hash slot is moving.
const LATER_MS: u64 = 1_000;

static LAST_SLICE: MainCell<Option<Instant>> = MainCell::new(None);

/// Starts the timer; called once, on load.
pub fn start(ctx: Ctx<'_>) {
    start_timer(ctx, PAUSE_MS, tick);
}

fn tick(ctx: Ctx<'_>) -> u64 {
    let start = Instant::now();
    let since = LAST_SLICE.with(|last| last.replace(start));
    let since = since.map_or(SLICE_MAX, |last| start - last);
    let permit = WritePermit::between_commands(ctx).filter(|_| config::active_expire());
    let Some(permit) = permit else { return IDLE_PAUSE_MS };
    let now_ms = ctx.now_ms();
    let end = start + (since / SHARE).clamp(SLICE_MIN, SLICE_MAX);
    let in_time = || Instant::now() < end;
    // The server lets a key go once its deadline is past, not when it has come.
    let now = UnixMs(now_ms - 1);
    while let Some(uid) = cache_registry::next_due(now) {
        let Some((cache, place)) = CACHES.placed(uid) else {
            cache_registry::postpone_due(uid, None);
            continue;
        };
        if !in_time() || !expire_due(permit, &cache, &place, now, in_time) {
            return BUSY_PAUSE_MS;
        }
        let next = cache.with(|cache| cache.index.next_round_at());
        // What could not be looked at now is later.
        let next = next.map(|at| if at.is_past(now) { UnixMs(now_ms + LATER_MS) } else { at });
        cache_registry::postpone_due(uid, next);
    }
    if cache_registry::has_deadlines() { PAUSE_MS } else { IDLE_PAUSE_MS }
}

/// Has the server expire what is due of one cache; false when the time was up before.
fn expire_due(
    ctx: WritePermit<'_>,
    cache: &SharedCache,
    (db, name): &Place,
    now: UnixMs,
    in_time: impl Fn() -> bool,
) -> bool {
    if !cache.with(|cache| cache.index.may_be_due(now)) {
        return true;
    }
    if !ctx.select_db(*db) || slots::of_key(*ctx, name) != Ownership::Settled {
        return true;
    }
    while in_time() {
        match cache.with(|cache| cache.index.next_due(now, ROWS_PER_STEP)) {
            DueStep::Entry(slot, seq) => expire(ctx, cache, slot, seq),
            DueStep::Passed => {}
            DueStep::Over => return true,
        }
    }
    false
}

fn expire(ctx: WritePermit<'_>, cache: &SharedCache, slot: SlotId, seq: Seq) {
    let key = cache.with(|cache| cache.key_at(slot, seq));
    let Some(key) = key else { return };
    // What is due is deleted by opening it, and the removal hook frees the slot. What opens has another
    // deadline than the index heard of; what is neither is settled elsewhere.
    let still = open_entry(*ctx, &key, Access::Unasked);
    let at = still.filter(|entry| entry.view().is_at(slot, seq)).map(|e| e.expire_at_ms());
    if let Some(at) = at {
        cache.with(|cache| cache.index.set_expiry(slot, seq, UnixMs(at)));
    }
}
