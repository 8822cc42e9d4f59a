//! Removes the entries of deleted caches in slices, each removal replicated.

use super::count_reaped;
use crate::ffi::{Ctx, WritePermit};
use crate::keyspace::remove_entry_of;
use crate::keyspace::slots::{self, Ownership};
use crate::keytype::cache_registry::{CACHES, KeylessCache};
use llmcache_core::cache::EntryKey;
use llmcache_core::ids::{Seq, SlotId};

/// How long a replica has the index of a deleted cache ready to be reaped, should it be promoted.
const KEPT_BY_REPLICA_MS: u64 = 10_000;

/// Works on the oldest deleted cache; returns whether more is to do at once.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    let Some(mut remains) = CACHES.take_remains() else { return false };
    if ctx.state().is_replica() {
        wait_for_primary(ctx, remains);
        return false;
    }
    let key = remains.container.with(|cache| cache.prefix().to_vec());
    match slots::of_key(ctx, &key) {
        Ownership::Foreign => {
            CACHES.let_wait(&remains);
            return true;
        }
        Ownership::Moving => {
            CACHES.put_back_remains(&remains, true);
            return false;
        }
        Ownership::Settled => {}
    }
    let permit = WritePermit::between_commands(ctx).filter(|_| ctx.select_db(remains.place.0));
    let Some(permit) = permit else {
        CACHES.put_back_remains(&remains, true);
        return false;
    };
    while in_time() {
        let Some((slot, seq, key)) = next_entry(&mut remains) else {
            CACHES.let_wait(&remains);
            return true;
        };
        let uid = remains.container.with(|cache| cache.uid());
        count_reaped(u64::from(remove_entry_of(permit, &key, uid)));
        // Frees the index along the way instead of in one long step at the end.
        remains.container.with(|cache| cache.index.remove(slot, seq));
    }
    CACHES.put_back_remains(&remains, false);
    true
}

/// The primary sends every removal, or makes the cache again where its server evicted it: the index is
/// kept until the last entry went. Should this server be promoted, the sweep finds what is left.
fn wait_for_primary(ctx: Ctx<'_>, mut remains: KeylessCache) {
    let now = ctx.monotonic_now();
    if !remains.since.get_or_insert(now).after(KEPT_BY_REPLICA_MS).is_past(now) {
        CACHES.put_back_remains(&remains, true);
    } else {
        CACHES.let_wait(&remains);
    }
}

fn next_entry(remains: &mut KeylessCache) -> Option<(SlotId, Seq, EntryKey)> {
    let next = remains.next_slot;
    let found = remains.container.with(|cache| {
        let (slot, found) = cache.index.next_occupied(next)?;
        Some((slot, found.seq(), cache.entry_key(&found.id)))
    })?;
    remains.next_slot = found.0.0 + 1;
    Some(found)
}
