//! Containers are never the victim of the server's eviction while there are entries: their LFU
//! counter is kept at its top and their idle time at zero. Under a random policy nothing helps, and
//! under `volatile-*` nothing is needed. On the same round, limits that were lowered are enforced.

use crate::ffi::{Access, Ctx, Key, MainCell, RString, WritePermit};
use crate::keyspace::enforce_limits;
use crate::keyspace::slots::{self, Ownership};
use crate::keytype::cache_in;
use crate::keytype::cache_registry::{self, CACHES, Place, SharedCache};
use llmcache_core::ids::SlotId;
use std::sync::LazyLock;

/// Pause between rounds: LFU counters decay by the minute, the LRU clock ticks by the second.
const ROUND_MS: u64 = 1_000;
/// Containers looked at in one slice.
const PER_SLICE: usize = 128;

#[derive(Default)]
struct Round {
    left: Vec<(SharedCache, Place)>,
    next_at_ms: u64,
}

static ROUND: LazyLock<MainCell<Round>> = LazyLock::new(|| MainCell::new(Round::default()));

/// Goes on with the round, or starts one when it is time.
pub fn run(ctx: Ctx<'_>) {
    let now = ctx.now_ms();
    let due = ROUND.with(|round| {
        if round.left.is_empty() && now >= round.next_at_ms {
            round.left = CACHES.all();
            round.next_at_ms = now + ROUND_MS;
        }
        let keep = round.left.len().saturating_sub(PER_SLICE);
        round.left.split_off(keep)
    });
    let permit = WritePermit::between_commands(ctx);
    for (cache, (db, name)) in due {
        if !ctx.select_db(db) {
            continue;
        }
        if let Some(mut key) = Key::open(ctx, &RString::new(&name), Access::Probe) {
            key.hint_lfu(u8::MAX);
            key.hint_used_now();
            if let Some(cache) = cache_in(&key) {
                CACHES.note_expiry(&cache, key.expire_at_ms());
            }
        }
        // What removed entries without saying so, as a lookup that found one gone.
        cache.with(|cache| cache_registry::note_work(cache));
        if let Some(permit) = permit
            && cache.with(|cache| cache.is_over_limit())
            && slots::of_key(ctx, &name) == Ownership::Settled
        {
            enforce_limits(permit, &cache, SlotId::NONE);
        }
    }
}
