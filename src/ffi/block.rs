//! Blocked clients: they wait for an event in the server, and get their reply later.
//!
//! Owns: the table of those that wait, their deadlines, and the rule that each is answered once or is
//! gone. Main thread only: no other thread ever holds a handle, so nothing here can race with a
//! client that disconnects. Deadlines are timers of ours, because the server's own would drop the
//! reply of a client whose deadline passes between being woken and being answered.

use super::api::api;
use super::context::answering;
use super::guard::guarded;
use super::steps::in_one_piece;
use super::timer::{self, TimerKey};
use super::{Arguments, Ctx, Handles, MainBound, MainCell};
use hashbrown::HashMap;
use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use std::ffi::{c_int, c_void};
use std::sync::LazyLock;

/// Why a waiting client is answered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// What it waits for may have happened.
    Ready,
    /// Its time is over.
    TimedOut,
}

/// A client that waits.
pub trait Waiter: Send {
    /// Replies to the client, with exactly one reply. The arguments are those of the command that it waits in.
    /// The server's clock goes on meanwhile: no key must be opened that is held open.
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, wake: Wake);

    /// The client went away unanswered, perhaps after it was woken.
    fn gone(&mut self, ctx: Ctx<'_>);
}

/// Names a client that waits; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockedId(pub u64);

struct Blocked {
    handle: MainBound<Handle>,
    timer: Option<TimerKey>,
    is_timed: bool,
    waiter: Box<dyn Waiter>,
    command: Option<Command>,
}

/// The command that a client waits in, for who works on it in rounds.
#[derive(Clone)]
struct Command {
    argv: MainBound<Vec<*mut super::RedisModuleString>>,
    is_resp3: bool,
}

/// The server's handle of a blocked client; from being unblocked on it is the server's alone.
type Handle = *mut raw::RedisModuleBlockedClient;

#[derive(Default)]
struct Table {
    last_id: u64,
    waiting: HashMap<u64, Blocked>,
    /// By the address of the handle.
    by_handle: HashMap<usize, u64>,
}

static TABLE: LazyLock<MainCell<Table>> = LazyLock::new(|| MainCell::new(Table::default()));

/// A waiter on its way to its reply; the server owns it meanwhile.
struct Woken {
    waiter: Box<dyn Waiter>,
    wake: Wake,
    answered: bool,
}

/// Answers a client that has waited.
fn answer(waiter: &mut dyn Waiter, ctx: Ctx<'_>, args: &Arguments<'_>, wake: Wake) {
    let reply = || in_one_piece(|| waiter.reply(ctx, args, wake));
    let replied = answering(|| guarded("a reply", reply));
    if replied.is_none() {
        super::Reply::new(ctx).internal_error();
    }
}

/// How many clients wait.
pub fn blocked_count() -> usize {
    TABLE.with(|table| table.waiting.len())
}

/// Makes the client of the running command wait, until `wake_blocked` or for `timeout_ms` (0: without
/// end). The command must not reply. Only where `ServerState::may_block`. `make` is told the id.
pub fn block_client(
    ctx: Ctx<'_>,
    timeout_ms: u64,
    make: impl FnOnce(BlockedId) -> Box<dyn Waiter>,
) -> BlockedId {
    // SAFETY: the context is that of a command of a client that may block; the callbacks live as
    // long as the module.
    let handle: Handle = unsafe {
        let (reply, timeout) = (Some(on_reply as CommandFn), Some(on_timeout as CommandFn));
        api!(RedisModule_BlockClient(ctx.as_ptr(), reply, timeout, Some(on_free), 0))
    };
    // SAFETY: the handle was just made.
    unsafe { api!(RedisModule_SetDisconnectCallback(handle, Some(on_disconnect))) };
    let id = TABLE.with(|table| {
        table.last_id += 1;
        table.last_id
    });
    let waiter = make(BlockedId(id));
    let timer = (timeout_ms > 0).then(|| start_deadline(ctx, timeout_ms, id));
    TABLE.with(|table| {
        table.by_handle.insert(handle.addr(), id);
        let handle = MainBound::new(handle);
        table.waiting.insert(id, Blocked { handle, timer, is_timed: false, waiter, command: None });
    });
    BlockedId(id)
}

/// Allows a command whose client was just made to wait to be worked on in rounds: `in_round`.
pub fn work_in_rounds(ctx: Ctx<'_>, id: BlockedId, args: Handles<'_>) {
    let command =
        Command { argv: MainBound::new(args.0.to_vec()), is_resp3: ctx.state().is_resp3() };
    TABLE.with(|table| {
        if let Some(blocked) = table.waiting.get_mut(&id.0) {
            blocked.command = Some(command);
        }
    });
}

/// The same without end, for a command that is worked on in rounds: `in_round`.
pub fn block_for_rounds(
    ctx: Ctx<'_>,
    args: &Arguments<'_>,
    make: impl FnOnce(BlockedId) -> Box<dyn Waiter>,
) -> BlockedId {
    let id = block_client(ctx, 0, make);
    work_in_rounds(ctx, id, args.handles());
    id
}

/// Works on the command of a client that waits, in its database. What is replied is kept until `end_rounds`, and
/// thrown away where the client is answered in another way. `None` where it waits no more.
pub fn in_round<R>(id: BlockedId, work: impl FnOnce(Ctx<'_>, &Arguments<'_>) -> R) -> Option<R> {
    let (handle, command) = TABLE.with(|table| {
        let blocked = table.waiting.get(&id.0)?;
        Some((*blocked.handle.get(), blocked.command.clone()?))
    })?;
    // SAFETY: the client waits, so its handle is valid; the context is freed below. The main thread needs no lock.
    let raw = unsafe { api!(RedisModule_GetThreadSafeContext(handle)) };
    let mut argv = command.argv.get().clone();
    let argc = argv.len() as c_int;
    // SAFETY: the context is valid until it is freed. A client keeps the arguments of the command that it waits in,
    // and it is in the table until it is told that the client goes; nothing here lets it go.
    let (ctx, args) = unsafe {
        let ctx = Ctx::from_waiting_raw(raw, command.is_resp3);
        (ctx, Arguments::from_raw(argv.as_mut_ptr(), argc))
    };
    // It waits already.
    let result = answering(|| guarded("a round", || work(ctx, &args)));
    if result.is_none() {
        super::Reply::new(ctx).internal_error();
    }
    // SAFETY: made above, and used no more.
    unsafe { api!(RedisModule_FreeThreadSafeContext(raw)) };
    result
}

/// Ends the wait of a client whose reply was written in rounds.
pub fn end_rounds(ctx: Ctx<'_>, id: BlockedId) {
    let Some(blocked) = take(id.0) else { return };
    if let Some(timer) = blocked.timer {
        timer::cancel(ctx, timer);
    }
    unblock_with(blocked, Wake::Ready, true);
}

type CommandFn =
    unsafe extern "C" fn(*mut RedisModuleCtx, *mut *mut super::RedisModuleString, c_int) -> c_int;

/// Has a waiting client answered as soon as the running command has ended; false when it is not
/// waiting any more.
pub fn wake_blocked(ctx: Ctx<'_>, id: BlockedId) -> bool {
    let Some(blocked) = take(id.0) else { return false };
    if let Some(timer) = blocked.timer {
        timer::cancel(ctx, timer);
    }
    unblock(blocked, Wake::Ready);
    true
}

/// Has a client that waits go on waiting for something else, for `timeout_ms` from now (0: without end). False when
/// it is not waiting any more.
pub fn wait_on(ctx: Ctx<'_>, id: BlockedId, timeout_ms: u64, waiter: Box<dyn Waiter>) -> bool {
    let timer = (timeout_ms > 0).then(|| start_deadline(ctx, timeout_ms, id.0));
    let former = TABLE.with(|table| {
        let blocked = table.waiting.get_mut(&id.0)?;
        blocked.waiter = waiter;
        Some(std::mem::replace(&mut blocked.timer, timer))
    });
    if let Some(timer) = former.unwrap_or(timer) {
        timer::cancel(ctx, timer);
    }
    former.is_some()
}

fn take(id: u64) -> Option<Blocked> {
    TABLE.with(|table| {
        let blocked = table.waiting.remove(&id)?;
        table.by_handle.remove(&blocked.handle.get().addr());
        if table.waiting.is_empty() {
            // A storm of waiters must not keep its memory.
            table.waiting.shrink_to_fit();
            table.by_handle.shrink_to_fit();
        }
        Some(blocked)
    })
}

fn take_handle(handle: Handle) -> Option<Blocked> {
    let id = TABLE.with(|table| table.by_handle.get(&handle.addr()).copied())?;
    take(id)
}

/// Counts the time from now until a client is woken as its command's, in the server's statistics and slow log.
pub fn count_time_from_now(id: BlockedId) {
    TABLE.with(|table| {
        if let Some(blocked) = table.waiting.get_mut(&id.0) {
            // SAFETY: the client waits, so the handle is the server's still.
            unsafe { api!(RedisModule_BlockedClientMeasureTimeStart(*blocked.handle.get())) };
            blocked.is_timed = true;
        }
    });
}

fn unblock(blocked: Blocked, wake: Wake) {
    unblock_with(blocked, wake, false);
}

fn unblock_with(blocked: Blocked, wake: Wake, answered: bool) {
    if blocked.is_timed {
        // SAFETY: the handle left the table and was not unblocked yet.
        unsafe { api!(RedisModule_BlockedClientMeasureTimeEnd(*blocked.handle.get())) };
    }
    let woken = Box::new(Woken { waiter: blocked.waiter, wake, answered });
    // SAFETY: the handle left the table, so it is unblocked this once; `on_free` takes the box back.
    unsafe { api!(RedisModule_UnblockClient(*blocked.handle.get(), Box::into_raw(woken).cast())) };
}

/// Ends the wait of a client that needs no reply from here: the server requires it to be unblocked.
fn release(handle: Handle) {
    // SAFETY: as in `unblock`; there is no private data.
    unsafe { api!(RedisModule_UnblockClient(handle, std::ptr::null_mut())) };
}

fn start_deadline(ctx: Ctx<'_>, timeout_ms: u64, id: u64) -> TimerKey {
    timer::set(ctx, timeout_ms, Box::new(move |_| on_deadline(id)))
}

fn on_deadline(id: u64) {
    if let Some(blocked) = take(id) {
        unblock(blocked, Wake::TimedOut);
    }
}

unsafe extern "C" fn on_reply(
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut super::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the private data is the box of `unblock`, which nothing else uses during the callback; the
    // arguments are those of the client's command, which it keeps while it waits.
    let (ctx, woken, args) = unsafe {
        let data = api!(RedisModule_GetBlockedClientPrivateData(ctx));
        (Ctx::from_raw(ctx), &mut *data.cast::<Woken>(), Arguments::from_raw(argv, argc))
    };
    if woken.answered {
        // Its reply was written in rounds: the server adds it now.
        return raw::REDISMODULE_OK as c_int;
    }
    woken.answered = true;
    answer(&mut *woken.waiter, ctx, &args, woken.wake);
    raw::REDISMODULE_OK as c_int
}

/// Only `CLIENT UNBLOCK` comes here: no deadline is given to the server.
unsafe extern "C" fn on_timeout(
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut super::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the context and the arguments are those of a blocked client.
    let (ctx, handle, args) = unsafe {
        let handle = api!(RedisModule_GetBlockedClientHandle(ctx));
        (Ctx::from_raw(ctx), handle, Arguments::from_raw(argv, argc))
    };
    guarded("an unblocked client", || {
        let Some(mut blocked) = take_handle(handle) else { return };
        if let Some(timer) = blocked.timer {
            timer::cancel(ctx, timer);
        }
        answer(&mut *blocked.waiter, ctx, &args, Wake::TimedOut);
        release(handle);
    });
    raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_disconnect(
    ctx: *mut RedisModuleCtx,
    handle: *mut raw::RedisModuleBlockedClient,
) {
    // SAFETY: the server's context of this call.
    let ctx = unsafe { Ctx::from_raw(ctx) };
    guarded("a disconnect", || {
        // One that was woken already is told by `on_free`.
        let Some(mut blocked) = take_handle(handle) else { return };
        if let Some(timer) = blocked.timer {
            timer::cancel(ctx, timer);
        }
        blocked.waiter.gone(ctx);
        release(*blocked.handle.get());
    });
}

unsafe extern "C" fn on_free(ctx: *mut RedisModuleCtx, data: *mut c_void) {
    // SAFETY: the box of `unblock`, given back once, after any reply.
    let (ctx, mut woken) = unsafe { (Ctx::from_raw(ctx), Box::from_raw(data.cast::<Woken>())) };
    guarded("a waiter", || {
        if !woken.answered {
            woken.waiter.gone(ctx);
        }
    });
}
