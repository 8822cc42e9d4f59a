//! Background work between commands: removes entries of deleted caches, invalidated and expired entries, entries
//! without a cache; re-checks slots whose key could not be opened; protects containers; maintains graphs and KV-cache
//! chunks. On the main thread, in slices below a millisecond.
//!
//! Whatever writes asks for leave (`WritePermit::between_commands`) in each slice; it runs above maxmemory too,
//! since it frees.

pub mod chunks;
mod expiry;
mod graphs;
mod hidden_slots;
mod invalidated;
mod reaper;
mod shield;
mod sweep;
mod words;

use crate::config;
use crate::ffi::{
    Ctx, WritePermit, before_next_command, is_cluster, run_once, start_timer, take_command_count,
};
use crate::keyspace::{
    any_flights, attach_arrival, end_flights_without_cache, followers, put_back_evicted,
    put_back_namespaces, set_minute, slots, tell_changes,
};
use crate::keytype::cache_registry::{self, CACHES};
use crate::keytype::follower_table;
use crate::keytype::namespace_registry::NAMESPACES;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Length of one slice.
const SLICE: Duration = Duration::from_micros(500);
/// Indexes whose memory is asked for in a slice.
const SUMMED_UP_PER_SLICE: usize = 64;
/// Pause between slices while there is a backlog and clients call the module: background work takes at
/// most a quarter of the main thread then, and all of it that nobody else wants when they do not.
const BUSY_PAUSE_MS: u64 = 3;

static REAPED: AtomicU64 = AtomicU64::new(0);
static PUT_BACK: AtomicU64 = AtomicU64::new(0);

/// Starts the timers; called once, when the module is loaded.
pub fn start(ctx: Ctx<'_>) {
    start_timer(ctx, config::sweep_interval_ms(), tick);
    expiry::start(ctx);
}

/// Has containers that the server evicted put back: before the next command, which replicas could not obey without, and
/// soon where none comes.
pub fn put_back_soon(ctx: Ctx<'_>) {
    before_next_command(put_back_now);
    run_once(ctx, put_back_now);
}

fn put_back_now(ctx: Ctx<'_>) {
    let Some(permit) = WritePermit::between_commands(ctx) else { return };
    PUT_BACK.fetch_add(put_back_evicted(permit), Ordering::Relaxed);
    put_back_namespaces(permit);
}

/// Caches that the server evicted and that were put back.
pub fn put_back() -> u64 {
    PUT_BACK.load(Ordering::Relaxed)
}

/// Entries removed because their cache was gone.
pub fn reaped() -> u64 {
    REAPED.load(Ordering::Relaxed)
}

/// Deleted caches whose entries are still looked at.
pub fn orphan_groups() -> u64 {
    sweep::orphan_groups()
}

fn count_reaped(entries: u64) {
    REAPED.fetch_add(entries, Ordering::Relaxed);
}

fn tick(ctx: Ctx<'_>) -> u64 {
    set_minute(ctx);
    if ctx.state().is_loading() {
        return config::sweep_interval_ms();
    }
    slots::ask_again();
    let end = Instant::now() + SLICE;
    let in_time = || Instant::now() < end;
    put_back_now(ctx);
    followers::wake_bereft(ctx);
    tell_changes(ctx, None);
    send_on(ctx);
    shield::run(ctx, in_time);
    cache_registry::sum_up(SUMMED_UP_PER_SLICE);
    let backlog = free_flushed(in_time)
        | attach_arrivals(ctx, in_time)
        | reaper::run(ctx, in_time)
        | invalidated::run(ctx, in_time)
        | sweep::run(ctx, in_time)
        | graphs::run(in_time)
        | words::run(ctx, in_time)
        | chunks::run(ctx, in_time);
    hidden_slots::run(ctx, in_time);
    let idle = take_command_count() == 0;
    match (backlog, idle) {
        (true, true) => 0,
        (true, false) => BUSY_PAUSE_MS.min(config::sweep_interval_ms()),
        (false, _) => config::sweep_interval_ms(),
    }
}

/// Pause between two looks at which slots are served here, while clients wait.
const SEND_ON_EVERY_MS: u64 = 500;

static SEND_ON_AT_MS: AtomicU64 = AtomicU64::new(0);

/// Wakes clients that wait for what is no more, or is another server's by now: they are told where.
fn send_on(ctx: Ctx<'_>) {
    let (now, at) = (ctx.monotonic_now().0, SEND_ON_AT_MS.load(Ordering::Relaxed));
    let waits = any_flights() || !follower_table::is_empty();
    let served = (is_cluster() && waits && now.abs_diff(at) >= SEND_ON_EVERY_MS)
        .then(|| SEND_ON_AT_MS.store(now, Ordering::Relaxed))
        .and_then(|()| slots::served(ctx))
        // A replica owns no slots.
        .filter(|_| !ctx.state().is_replica());
    end_flights_without_cache(ctx, served.as_ref());
    if let Some(served) = &served {
        followers::wake_foreign(ctx, served);
    }
}

/// Frees what was flushed; returns whether some is left.
fn free_flushed(in_time: impl Fn() -> bool) -> bool {
    while CACHES.free_flushed() | NAMESPACES.free_flushed() {
        if !in_time() {
            return true;
        }
    }
    false
}

/// Brings entries together with containers that arrived after them; returns whether some are left.
pub fn attach_arrivals(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    while in_time() {
        let Some((db, key)) = CACHES.next_arrival() else { return false };
        if ctx.select_db(db) {
            attach_arrival(ctx, &key, true);
        }
    }
    true
}
