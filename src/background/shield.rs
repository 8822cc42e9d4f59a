//! Protects containers from the server's eviction while they have entries: keeps their LFU counter at its maximum and
//! their idle time at zero. Under a random policy nothing helps, and under `volatile-*` nothing is needed. On the
//! same round, limits that were lowered are enforced.

use crate::ffi::{Ctx, MainCell, WritePermit};
use crate::keyspace::slots::{self, Ownership};
use crate::keyspace::{enforce_limits, shield};
use crate::keytype::cache_in;
use crate::keytype::cache_registry::{self, CACHES, Place, SharedCache};
use crate::keytype::container_registry::Round;
use llmcache_core::ids::{MonotonicMs, SlotId};
use std::sync::LazyLock;

/// Pause between rounds: LFU counters decay by the minute, the LRU clock ticks by the second.
const ROUND_MS: u64 = 1_000;
/// Containers looked at in one slice, at most.
const PER_SLICE: usize = 128;

#[derive(Default)]
struct Rounds {
    round: Round,
    under_way: bool,
    next_at: MonotonicMs,
}

static ROUNDS: LazyLock<MainCell<Rounds>> = LazyLock::new(|| MainCell::new(Rounds::default()));

/// Goes on with the round, or starts one when it is time.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) {
    let now = ctx.monotonic_now();
    let permit = WritePermit::between_commands(ctx);
    for _ in 0..PER_SLICE {
        if !in_time() {
            return;
        }
        let Some((cache, place)) = next(now) else { return };
        if !ctx.select_db(place.0) {
            continue;
        }
        shield(ctx, &CACHES, &place, cache_in);
        // What removed entries without saying so, as a lookup that found one gone.
        cache.with(|cache| cache_registry::note_work(cache));
        if let Some(permit) = permit
            && cache.with(|cache| cache.is_over_limit())
            && slots::of_key(ctx, &place.1) == Ownership::Settled
        {
            enforce_limits(permit, &cache, SlotId::NONE);
        }
    }
}

fn next(now: MonotonicMs) -> Option<(SharedCache, Place)> {
    ROUNDS.with(|rounds| {
        if !rounds.under_way && now < rounds.next_at {
            return None;
        }
        if !rounds.under_way {
            (rounds.under_way, rounds.next_at) = (true, now.after(ROUND_MS));
        }
        let found = CACHES.step(&mut rounds.round);
        rounds.under_way = found.is_some();
        found
    })
}
