//! The server's timers: callbacks on the main thread between commands.
//!
//! The server holds its timers of modules against the wall clock: set back by an hour, none of them would fire for an
//! hour. So each is noted here with its time by a clock that only goes forward, and one that is late by it is set
//! anew, which the server's own rounds look after.
//!
//! Set back by an hour while timers run, the server runs all that they set anew at once, for an hour: it goes on to the
//! time that it read before. So one that fires early is parked, and the server's next round sets it anew.

use super::api::api;
use super::context::monotonic_now;
use super::guard::guarded;
use super::steps::in_one_piece;
use super::{Ctx, MainCell};
use llmcache_core::ids::MonotonicMs;
use redis_module::raw;
use std::collections::BTreeMap;
use std::ffi::c_void;

/// What a timer runs; returns in how many milliseconds it wants to run again.
pub type Tick = fn(Ctx<'_>) -> u64;

/// What is run once.
type Task = Box<dyn FnOnce(Ctx<'_>) + Send>;

/// A timer by its time, and a number of its own.
pub(super) type TimerKey = (MonotonicMs, u64);

/// What the server keeps of a timer.
struct Timer {
    key: TimerKey,
    task: Task,
}

/// A timer that has not run: its name at the server, or none while it is parked, and the `Timer` that goes with it.
struct Waiting {
    id: Option<raw::RedisModuleTimerID>,
    data: *mut c_void,
}

// SAFETY: kept in a `MainCell`; the pointer is used on the main thread only.
unsafe impl Send for Waiting {}

struct Timers {
    waiting: BTreeMap<TimerKey, Waiting>,
    last: u64,
    /// Some are parked.
    any_parked: bool,
}

static TIMERS: MainCell<Timers> =
    MainCell::new(Timers { waiting: BTreeMap::new(), last: 0, any_parked: false });

/// How late a timer is before it is set anew: more than a busy server takes to come round to it.
const LATE_MS: u64 = 1_000;
/// How early a timer fires before it is parked: more than rounding to milliseconds makes of its time.
const EARLY_MS: u64 = 2;

/// Runs `task` once, in `delay_ms`, unless it is cancelled before.
pub(super) fn set(ctx: Ctx<'_>, delay_ms: u64, task: Task) -> TimerKey {
    let key = TIMERS.with(|timers| {
        timers.last += 1;
        (monotonic_now().after(delay_ms), timers.last)
    });
    let data = Box::into_raw(Box::new(Timer { key, task })).cast::<c_void>();
    let id = create(ctx, delay_ms, data);
    TIMERS.with(|timers| timers.waiting.insert(key, Waiting { id: Some(id), data }));
    key
}

/// Takes a timer back that may have fired.
pub(super) fn cancel(ctx: Ctx<'_>, key: TimerKey) {
    if let Some(waiting) = TIMERS.with(|all| all.waiting.remove(&key)) {
        stop(ctx, waiting.id);
        // SAFETY: the box of `set`; the server has it no more.
        drop(unsafe { Box::from_raw(waiting.data.cast::<Timer>()) });
    }
}

fn create(ctx: Ctx<'_>, delay_ms: u64, data: *mut c_void) -> raw::RedisModuleTimerID {
    let delay = delay_ms.min(i64::MAX as u64 / 2) as i64;
    // SAFETY: the context is valid; `data` is the box of `set`, which `on_timer` takes back.
    unsafe { api!(RedisModule_CreateTimer(ctx.as_ptr(), delay, Some(on_timer), data)) }
}

unsafe extern "C" fn on_timer(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: `data` is the box of `set`, which lives until its timer runs or is cancelled.
    let key = unsafe { (*data.cast::<Timer>()).key };
    if park_early(key) {
        return;
    }
    // SAFETY: the context is the server's for this call; the box is taken back once: a timer that was set anew was
    // stopped before, or parked.
    let (ctx, timer) = unsafe { (Ctx::from_raw(ctx), Box::from_raw(data.cast::<Timer>())) };
    TIMERS.with(|timers| timers.waiting.remove(&timer.key));
    guarded("a timer", || in_one_piece(|| (timer.task)(ctx)));
}

/// Parks a timer that fires early; false for one whose time has come.
fn park_early(key: TimerKey) -> bool {
    if key.0.left(monotonic_now()) < EARLY_MS {
        return false;
    }
    TIMERS.with(|timers| {
        if let Some(waiting) = timers.waiting.get_mut(&key) {
            waiting.id = None;
            timers.any_parked = true;
        }
    });
    true
}

fn stop(ctx: Ctx<'_>, id: Option<raw::RedisModuleTimerID>) {
    let Some(id) = id else { return };
    // SAFETY: the context is valid, and the timer one of ours that did not fire, as firing takes it from the list.
    unsafe { api!(RedisModule_StopTimer(ctx.as_ptr(), id, std::ptr::null_mut())) };
}

/// Sets all timers anew where one is late or parked: the server's clock was set. To be called in the server's rounds.
///
/// All, since the server looks again at its list only when a timer becomes the first of it: after a clock that went back
/// and forth, what it waits for may be days away, while those that are due stand before whatever is added.
pub(super) fn catch_up(ctx: Ctx<'_>) {
    let now = monotonic_now();
    let is_late = |key: &TimerKey| key.0.after(LATE_MS).is_past(now);
    let waiting = TIMERS.with(|timers| match timers.waiting.first_key_value() {
        Some((first, _)) if timers.any_parked || is_late(first) => {
            timers.any_parked = false;
            std::mem::take(&mut timers.waiting)
        }
        _ => BTreeMap::new(),
    });
    for timer in waiting.values() {
        stop(ctx, timer.id);
    }
    for (key, Waiting { data, .. }) in waiting {
        let id = create(ctx, key.0.left(now), data);
        TIMERS.with(|timers| timers.waiting.insert(key, Waiting { id: Some(id), data }));
    }
}

/// Pause after a tick that failed.
const AFTER_FAILURE_MS: u64 = 1_000;

/// Starts a timer that runs `tick` in `delay_ms` and again whenever it asks to, for ever.
pub fn start_timer(ctx: Ctx<'_>, delay_ms: u64, tick: Tick) {
    let task = move |ctx: Ctx<'_>| {
        let delay_ms = guarded("a tick", || tick(ctx)).unwrap_or(AFTER_FAILURE_MS);
        start_timer(ctx, delay_ms, tick);
    };
    set(ctx, delay_ms, Box::new(task));
}

/// Runs `task` once, as soon as the command or event that runs now has ended.
pub fn run_once(ctx: Ctx<'_>, task: fn(Ctx<'_>)) {
    set(ctx, 0, Box::new(task));
}

/// Runs `task` once, in `delay_ms`, between commands.
pub fn run_later(ctx: Ctx<'_>, delay_ms: u64, task: Task) {
    set(ctx, delay_ms, task);
}

/// A timer that is set to the soonest of many times: there is one at most, whatever it looks after.
pub struct Alarm {
    ring: fn(Ctx<'_>),
    /// When it rings, and the timer that makes it.
    set: MainCell<Option<(MonotonicMs, TimerKey)>>,
}

impl Alarm {
    /// One that calls `ring`, which sets it again where there is more.
    pub const fn new(ring: fn(Ctx<'_>)) -> Self {
        Self { ring, set: MainCell::new(None) }
    }

    /// Has it ring at this time, unless it rings sooner.
    pub fn set(&'static self, ctx: Ctx<'_>, at: MonotonicMs) {
        let former = self.set.with(|set| *set);
        if former.is_some_and(|(sooner, _)| sooner <= at) {
            return;
        }
        if let Some((_, key)) = former {
            cancel(ctx, key);
        }
        let task = |ctx: Ctx<'_>| {
            self.set.with(|set| *set = None);
            (self.ring)(ctx);
        };
        let key = set(ctx, at.left(monotonic_now()), Box::new(task));
        self.set.with(|set| *set = Some((at, key)));
    }
}
