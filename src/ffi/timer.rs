//! The server's timers: callbacks on the main thread between commands.

use super::api::api;
use super::{Ctx, MainCell, guarded};
use redis_module::raw;
use std::ffi::c_void;

/// What a timer runs; answers in how many milliseconds it wants to run again.
pub type Tick = fn(Ctx<'_>) -> u64;

/// Starts a timer that runs `tick` in `delay_ms` and again whenever it asks to, for ever.
pub fn start_timer(ctx: Ctx<'_>, delay_ms: u64, tick: Tick) {
    let data = tick as *mut c_void;
    // SAFETY: `data` is a function pointer, which `on_timer` turns back.
    unsafe {
        api!(RedisModule_CreateTimer(ctx.as_ptr(), delay_ms as i64, Some(on_timer), data));
    }
}

/// Pause after a tick that failed.
const AFTER_FAILURE_MS: u64 = 1_000;

unsafe extern "C" fn on_timer(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: the context is the server's for this call; `data` was made from a `Tick` above.
    let (ctx, tick) =
        unsafe { (Ctx::from_raw(ctx), std::mem::transmute::<*mut c_void, Tick>(data)) };
    let delay_ms = guarded("a timer", || tick(ctx)).unwrap_or(AFTER_FAILURE_MS);
    start_timer(ctx, delay_ms, tick);
}

/// Runs `task` once, as soon as the command or event that runs now has ended.
pub fn run_once(ctx: Ctx<'_>, task: fn(Ctx<'_>)) {
    let data = task as *mut c_void;
    // SAFETY: `data` is a function pointer, which `on_once` turns back.
    unsafe { api!(RedisModule_CreateTimer(ctx.as_ptr(), 0, Some(on_once), data)) };
}

unsafe extern "C" fn on_once(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: the context is the server's for this call; `data` was made from a function above.
    let (ctx, task) =
        unsafe { (Ctx::from_raw(ctx), std::mem::transmute::<*mut c_void, fn(Ctx<'_>)>(data)) };
    guarded("a task", || task(ctx));
}

/// What `run_later` runs.
type Task = Box<dyn FnOnce(Ctx<'_>) + Send>;

/// Runs `task` once, in `delay_ms`, between commands.
pub fn run_later(ctx: Ctx<'_>, delay_ms: u64, task: Task) {
    // A pointer to a trait object is wide: it is boxed once more.
    let data = Box::into_raw(Box::new(task)).cast::<c_void>();
    // SAFETY: `on_later` takes the box back, once.
    unsafe { api!(RedisModule_CreateTimer(ctx.as_ptr(), delay_ms as i64, Some(on_later), data)) };
}

unsafe extern "C" fn on_later(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: the context is the server's for this call; `data` is the box of `run_later`.
    let (ctx, task) = unsafe { (Ctx::from_raw(ctx), Box::from_raw(data.cast::<Task>())) };
    guarded("a later task", || task(ctx));
}

/// A timer that is set to the soonest of many times: there is one at most, whatever it looks after.
pub struct Alarm {
    ring: fn(Ctx<'_>),
    /// When it rings, in Unix milliseconds, and which timer that is.
    set: MainCell<Option<(u64, raw::RedisModuleTimerID)>>,
}

impl Alarm {
    /// One that calls `ring`, which sets it again where there is more.
    pub const fn new(ring: fn(Ctx<'_>)) -> Self {
        Self { ring, set: MainCell::new(None) }
    }

    /// Has it ring at this time, unless it rings sooner.
    pub fn set(&'static self, ctx: Ctx<'_>, at_ms: u64) {
        let set = self.set.with(|set| *set);
        if set.is_some_and(|(sooner, _)| sooner <= at_ms) {
            return;
        }
        let data = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        let delay = at_ms.saturating_sub(ctx.now_ms()).min(i64::MAX as u64) as i64;
        // SAFETY: the context is valid; the former timer is one of ours that did not fire yet, as firing clears
        // `set`; `data` lives as long as the process, and `on_alarm` reads it as what it is.
        let timer = unsafe {
            if let Some((_, former)) = set {
                api!(RedisModule_StopTimer(ctx.as_ptr(), former, std::ptr::null_mut()));
            }
            api!(RedisModule_CreateTimer(ctx.as_ptr(), delay, Some(on_alarm), data))
        };
        self.set.with(|set| *set = Some((at_ms, timer)));
    }
}

unsafe extern "C" fn on_alarm(ctx: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: the context is the server's for this call; `data` is the static of `Alarm::set`.
    let (ctx, alarm) = unsafe { (Ctx::from_raw(ctx), &*data.cast::<Alarm>()) };
    guarded("an alarm", || {
        alarm.set.with(|set| *set = None);
        (alarm.ring)(ctx);
    });
}
