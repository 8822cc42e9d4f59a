//! The minute that hits are counted in, for commands and for background work. Main thread only.

use crate::ffi::Ctx;
use llmcache_core::evict::minute;
use llmcache_core::ids::UnixMs;
use std::sync::atomic::{AtomicU16, Ordering};

/// The minute that hits are counted in, as of the last tick: asking the clock would cost an exact hit
/// a good part of its time, and a tick late is near enough for a half-life of an hour.
static NOW_MIN: AtomicU16 = AtomicU16::new(0);

/// The minute that hits are counted in.
pub fn now_min() -> u16 {
    NOW_MIN.load(Ordering::Relaxed)
}

/// Takes the minute from the server's clock; called on load and by each tick.
pub fn set_minute(ctx: Ctx<'_>) {
    NOW_MIN.store(minute(UnixMs(ctx.now_ms())), Ordering::Relaxed);
}
