//! How much room the chunks of a namespace have, and how much payload is on its way to clients.
//!
//! Owns: what the server said lately of its memory. Commands ask, background work asks the server. Main thread only.

use crate::config;
use crate::ffi::Ctx;
use crate::keytype::namespace_registry::{NAMESPACES, SharedNamespace};
use std::sync::atomic::{AtomicU64, Ordering};

/// `maxmemory` as of the last round; 0 for none.
static MAXMEMORY: AtomicU64 = AtomicU64::new(0);
/// Bytes in the output buffers of clients as of the last tick, and payload answered since.
static BUFFERED: AtomicU64 = AtomicU64::new(0);
static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// Counts payload that was answered.
pub fn note_answered(bytes: u64) {
    ANSWERED.fetch_add(bytes, Ordering::Relaxed);
}

/// Payload bytes on their way to clients, roughly.
pub fn in_flight() -> u64 {
    BUFFERED.load(Ordering::Relaxed) + ANSWERED.load(Ordering::Relaxed)
}

/// How much memory the chunks of a namespace may take: its budget, and what other namespaces leave of
/// the share of `maxmemory` that all have together. 0 for no bound.
pub fn room_of(namespace: &SharedNamespace) -> u64 {
    let (budget, own) = namespace.with(|n| (n.settings().budget_bytes, n.tree.chunk_bytes()));
    let share = MAXMEMORY.load(Ordering::Relaxed) / 100 * config::kv_share_pct();
    if share == 0 {
        return budget;
    }
    let all: u64 = NAMESPACES.all().iter().map(|(n, _)| n.with(|n| n.tree.chunk_bytes())).sum();
    let left = share.saturating_sub(all - own).max(1);
    if budget == 0 { left } else { budget.min(left) }
}

/// Asks the server what is in the output buffers of clients, where something was answered.
pub fn note_buffered(ctx: Ctx<'_>) {
    if ANSWERED.swap(0, Ordering::Relaxed) > 0 || BUFFERED.load(Ordering::Relaxed) > 0 {
        let buffered = ctx.info_number(c"memory", c"mem_clients_normal").unwrap_or(0);
        BUFFERED.store(buffered, Ordering::Relaxed);
    }
}

/// Asks the server for its `maxmemory`.
pub fn note_maxmemory(ctx: Ctx<'_>) {
    MAXMEMORY.store(ctx.info_number(c"memory", c"maxmemory").unwrap_or(0), Ordering::Relaxed);
}
