//! The room of a namespace for chunks, and the payload bytes in flight to clients.
//!
//! Owns: what the server said lately of its memory. Commands ask, background work asks the server. Main thread only.

use crate::config;
use crate::ffi::{Ctx, bytes_replied};
use crate::keytype::namespace_registry::{self, SharedNamespace};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// `maxmemory` as of the last round; 0 for none.
static MAXMEMORY: AtomicU64 = AtomicU64::new(0);
/// Bytes in the output buffers of clients as of the last tick, and what all replies came to then.
static BUFFERED: AtomicU64 = AtomicU64::new(0);
static REPLIED: AtomicU64 = AtomicU64::new(0);
/// Replies that are so small together that the server is not asked what became of them.
const SMALL_REPLIES_BYTES: u64 = 64 << 10;

/// Bytes on their way to clients, roughly.
pub fn in_flight() -> u64 {
    let replied = bytes_replied() - REPLIED.load(Ordering::Relaxed);
    BUFFERED.load(Ordering::Relaxed) + replied
}

/// `maxmemory` as of the last round, or of the first time it is asked for; 0 for none.
pub(super) fn maxmemory(ctx: Ctx<'_>) -> u64 {
    static IS_KNOWN: AtomicBool = AtomicBool::new(false);
    if !IS_KNOWN.swap(true, Ordering::Relaxed) {
        note_maxmemory(ctx);
    }
    MAXMEMORY.load(Ordering::Relaxed)
}

/// How much memory the chunks of a namespace may take: its budget, and what other namespaces leave of
/// the share of `maxmemory` that all have together. 0 for no bound.
pub fn room_of(namespace: &SharedNamespace) -> u64 {
    let (budget, own) = namespace.with(|n| (n.settings().budget_bytes, n.tree.chunk_bytes()));
    let share = MAXMEMORY.load(Ordering::Relaxed) / 100 * config::kv_share_pct();
    if share == 0 {
        return budget;
    }
    let [_, all, ..] = namespace_registry::totals().held.sums();
    let left = share.saturating_sub(all.saturating_sub(own)).max(1);
    if budget == 0 { left } else { budget.min(left) }
}

/// Asks the server what is in the output buffers of clients, where something was answered.
pub fn note_buffered(ctx: Ctx<'_>) {
    let replied = bytes_replied();
    let fresh = replied - REPLIED.load(Ordering::Relaxed);
    if fresh > SMALL_REPLIES_BYTES || BUFFERED.load(Ordering::Relaxed) > 0 {
        let buffered = ctx.info_number(c"memory", c"mem_clients_normal").unwrap_or(0);
        // What the server keeps for clients in any case is no reply that waits.
        let waits = if buffered > SMALL_REPLIES_BYTES { buffered } else { 0 };
        BUFFERED.store(waits, Ordering::Relaxed);
        REPLIED.store(replied, Ordering::Relaxed);
        note_maxmemory(ctx);
    }
}

/// Asks the server for its `maxmemory`.
pub fn note_maxmemory(ctx: Ctx<'_>) {
    MAXMEMORY.store(ctx.info_number(c"memory", c"maxmemory").unwrap_or(0), Ordering::Relaxed);
}
