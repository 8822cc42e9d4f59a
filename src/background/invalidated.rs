//! Removes, or marks stale, the entries that an invalidation by tag, scope or of a whole cache concerns, in slices.
//! Look-ups do not serve them any more; this frees their memory. On a primary only; the changes are replicated.

use crate::ffi::{Access, Ctx, WritePermit};
use crate::keyspace::slots::{self, Ownership};
use crate::keyspace::{mark_stale, open_entry, remove_entry};
use crate::keytype::cache_registry::{self, Place, SharedCache};
use llmcache_core::cache::Severity;
use llmcache_core::ids::{Seq, SlotId};

/// Works until all is carried out or time is up; returns whether more is to be done.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    let mut more = false;
    // Each once: one whose slot is moving stays on the list.
    for _ in 0..cache_registry::invalidated_count() {
        if !in_time() {
            return true;
        }
        let Some((cache, place)) = cache_registry::take_invalidated() else { break };
        if let Some(permit) = WritePermit::between_commands(ctx)
            && ctx.select_db(place.0)
        {
            carry_out(permit, &cache, &place, &in_time);
            more |= cache.with(|cache| cache.has_invalidated());
        }
        cache.with(|cache| cache_registry::note_work(cache));
    }
    more
}

fn carry_out(ctx: WritePermit<'_>, cache: &SharedCache, place: &Place, in_time: impl Fn() -> bool) {
    // All entries share the slot of their cache.
    if slots::of_key(*ctx, &place.1) != Ownership::Settled {
        return;
    }
    while in_time() && cache.with(|cache| cache.has_invalidated()) {
        if let Some((slot, seq)) = cache.with(|cache| cache.next_invalidated()) {
            carry_out_one(ctx, cache, slot, seq);
        }
    }
}

fn carry_out_one(ctx: WritePermit<'_>, cache: &SharedCache, slot: SlotId, seq: Seq) {
    let key = cache.with(|cache| cache.key_at(slot, seq));
    let Some(key) = key else { return };
    let standing = open_entry(*ctx, &key, Access::Unasked).and_then(|entry| {
        let view = entry.view();
        let claimed = view.is_at(slot, seq);
        let standing = cache.with(|cache| cache.epochs().standing(&view))?;
        (claimed && !(standing == Severity::Stale && view.is_marked_stale())).then_some(standing)
    });
    match standing {
        Some(Severity::Gone) => {
            remove_entry(ctx, &key);
        }
        Some(Severity::Stale) => mark_stale(ctx, &key),
        None => {}
    }
}
