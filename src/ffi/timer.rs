//! The server's timers: callbacks on the main thread between commands.

use super::api::api;
use super::{Ctx, guarded};
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
