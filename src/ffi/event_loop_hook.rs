//! Work in each turn of the server's event loop, before it reads what clients sent; and when the loop sleeps.
//!
//! Owns: a pipe that always has something to read, by which the server comes here once a turn while it is
//! watched. A timer would come a millisecond later at the soonest; the server's own one-shot events run
//! until none is left, so one that asks for the next would never let clients in. Main thread only.

use super::api::api;
use super::guard::guarded;
use super::scope::Scope;
use super::steps::in_one_piece;
use super::{Ctx, MainBound, MainCell};
use redis_module::raw;
use std::ffi::{c_int, c_void};
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;

/// Whether the event loop itself called what runs now.
static OUTSIDE_A_UNIT: Scope = Scope::new();

/// Does what the event loop calls the module for. The server opens no unit of execution around that, as it does around
/// commands, timers and events: nobody would tell AOF and replicas what was done before the loop goes on, and servers from
/// 7.2 on end with a failed assertion where something is left to be told. So no permit to write is given meanwhile, and a key
/// that is due is not deleted by being looked at.
pub(super) fn outside_a_unit<R>(work: impl FnOnce() -> R) -> R {
    OUTSIDE_A_UNIT.within(work)
}

/// Whether nothing may be left to be told to AOF and replicas: see `outside_a_unit`.
pub(super) fn is_outside_a_unit() -> bool {
    OUTSIDE_A_UNIT.is_open()
}

/// What is done in a turn; returns whether it is to be done in the next as well.
pub type Turn = fn(Ctx<'_>) -> bool;

struct Pipe {
    reader: PipeReader,
    _writer: PipeWriter,
    /// A context of no client and no call, which lives as long as the module.
    ctx: MainBound<*mut raw::RedisModuleCtx>,
}

static PIPE: MainCell<Option<Pipe>> = MainCell::new(None);

/// Does `turn` in each turn of the event loop from the next on, until it returns false. One at a time;
/// false where the system has no pipe to spare.
pub fn run_each_turn(ctx: Ctx<'_>, turn: Turn) -> bool {
    let Some(fd) = PIPE.with(|pipe| {
        if pipe.is_none() {
            *pipe = make_pipe(ctx);
        }
        pipe.as_ref().map(|pipe| pipe.reader.as_raw_fd())
    }) else {
        return false;
    };
    let (mask, data) = (raw::REDISMODULE_EVENTLOOP_READABLE as c_int, turn as *mut c_void);
    // SAFETY: the descriptor stays open; `on_turn` turns the function pointer back.
    let status = unsafe { api!(RedisModule_EventLoopAdd(fd, mask, Some(on_turn), data)) };
    status == raw::REDISMODULE_OK as c_int
}

fn make_pipe(ctx: Ctx<'_>) -> Option<Pipe> {
    let (reader, mut writer) = std::io::pipe().ok()?;
    // Never read: the pipe has something in it for ever.
    writer.write_all(b"1").ok()?;
    // SAFETY: the context is valid; the detached one is never freed, as the module is never unloaded.
    let ctx = unsafe { api!(RedisModule_GetDetachedThreadSafeContext(ctx.as_ptr())) };
    Some(Pipe { reader, _writer: writer, ctx: MainBound::new(ctx) })
}

unsafe extern "C" fn on_turn(fd: c_int, data: *mut c_void, _: c_int) {
    let work = || {
        let ctx = PIPE.with(|pipe| pipe.as_ref().map(|pipe| *pipe.ctx.get()))?;
        // SAFETY: the context was made by `make_pipe`; `data` was made from a `Turn`.
        let (ctx, turn) =
            unsafe { (Ctx::from_raw(ctx), std::mem::transmute::<*mut c_void, Turn>(data)) };
        Some(turn(ctx))
    };
    let more = outside_a_unit(|| guarded("a turn", || in_one_piece(work)));
    if more.flatten() != Some(true) {
        // SAFETY: the descriptor was added by `run_each_turn`.
        unsafe { api!(RedisModule_EventLoopDel(fd, raw::REDISMODULE_EVENTLOOP_READABLE as c_int)) };
    }
}

/// What the event loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// It waits until something happens, if nothing has.
    Sleeps,
    /// It does what happened.
    Wakes,
}

/// Who is told.
static TOLD: MainCell<Option<fn(Loop)>> = MainCell::new(None);

/// Tells from now on when the event loop goes to sleep and wakes; false where the server does not say.
pub fn watch_sleep(ctx: Ctx<'_>, told: fn(Loop)) -> bool {
    TOLD.with(|slot| *slot = Some(told));
    let event = raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_EVENTLOOP, dataver: 1 };
    // SAFETY: the callback keeps the server's contract; the context is valid.
    let status =
        unsafe { api!(RedisModule_SubscribeToServerEvent(ctx.as_ptr(), event, Some(on_loop))) };
    status == raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_loop(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    what: u64,
    _: *mut c_void,
) {
    guarded("a turn of the event loop", || {
        let what = match what {
            raw::REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP => Loop::Sleeps,
            _ => Loop::Wakes,
        };
        if let Some(told) = TOLD.with(|told| *told) {
            told(what);
        }
    });
}
