//! The path from the server's command callback to a handler: arguments as slices, errors as replies, panics caught.

use super::guard::guarded;
use super::steps;
use super::string::bytes_of;
use super::{ArgString, Ctx, HeldString, MainCell, Reply, WritePermit};
use llmcache_core::error::{Error, ErrorWord};
use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use redis_module::raw::RedisModuleString;
use smallvec::SmallVec;
use std::ffi::c_int;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A command's code: writes its reply, or answers an error and has changed nothing.
pub type Handler = fn(Ctx<'_>, &CommandArgs<'_>) -> Result<(), Error>;

/// The arguments of a command, its name left out.
#[derive(Debug)]
pub struct Arguments<'a> {
    pointers: &'a [*mut RedisModuleString],
    slices: SmallVec<[&'a [u8]; INLINE_ARGS]>,
}

/// The arguments of a command that runs, which may write. A client that waited has its arguments alone.
#[derive(Debug)]
pub struct CommandArgs<'a> {
    arguments: Arguments<'a>,
    permit: WritePermit<'a>,
}

impl<'a> CommandArgs<'a> {
    /// Those of a client that has waited, for its command to be run as if it had just come; `permit` was asked for now.
    pub fn again<'b: 'a>(arguments: &Arguments<'b>, permit: WritePermit<'a>) -> Self {
        let slices = arguments.slices.iter().copied().collect();
        Self { arguments: Arguments { pointers: arguments.pointers, slices }, permit }
    }

    /// Leave to write.
    pub fn permit(&self) -> WritePermit<'a> {
        self.permit
    }
}

impl<'a> Deref for CommandArgs<'a> {
    type Target = Arguments<'a>;

    fn deref(&self) -> &Arguments<'a> {
        &self.arguments
    }
}

/// The server's own strings of a command, for work on it in rounds: its client keeps them while it waits.
#[derive(Debug, Clone, Copy)]
pub struct Handles<'a>(pub(super) &'a [*mut RedisModuleString]);

/// Arguments kept without an allocation: what look-ups take, vectors by value aside.
const INLINE_ARGS: usize = 16;

impl<'a> Arguments<'a> {
    /// # Safety
    /// The arguments of a command, its name first, which live for `'a`. Every command has an arity of at
    /// least two, which the server checks.
    pub(super) unsafe fn from_raw(argv: *mut *mut RedisModuleString, argc: c_int) -> Self {
        // SAFETY: the caller's word.
        let pointers = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
        // SAFETY: as above.
        let slices = pointers.iter().skip(1).map(|&arg| unsafe { bytes_of(arg) }).collect();
        Self { pointers, slices }
    }

    /// The server's handles, the command's own name first, for a command that is to be worked on in rounds.
    pub fn handles(&self) -> Handles<'a> {
        Handles(self.pointers)
    }

    /// The key, which is the first argument of every command.
    pub fn key(&self) -> ArgString<'a> {
        self.string(0)
    }

    /// An argument as the server has it; the key is number 0, the first option number 1.
    pub fn string(&self, number: usize) -> ArgString<'a> {
        // SAFETY: arguments of the running command; the command's own name is before them.
        unsafe { ArgString::from_raw(self.pointers[number + 1]) }
    }

    /// The same, for work that continues after the command's call.
    pub fn held(&self, number: usize) -> HeldString {
        HeldString::keep(&self.string(number))
    }

    /// The argument whose bytes these are.
    pub fn argument_of(&self, bytes: &[u8]) -> Option<ArgString<'a>> {
        let number = self.slices.iter().position(|slice| std::ptr::eq(*slice, bytes))?;
        Some(self.string(number))
    }

    /// The name of that key.
    pub fn name(&self) -> &'a [u8] {
        self.slices[0]
    }

    /// What follows the key.
    pub fn options(&self) -> &[&'a [u8]] {
        &self.slices[1..]
    }
}

static COMMANDS: AtomicU64 = AtomicU64::new(0);

/// Commands of the module that were called since this was asked last.
pub fn take_command_count() -> u64 {
    COMMANDS.swap(0, Ordering::Relaxed)
}

/// Runs a handler. The entry point of each command calls this and nothing else.
///
/// # Safety
/// To be called by the server, with the arguments of a command callback.
pub unsafe fn run_command(
    handler: Handler,
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the server's context and arguments are valid until the callback returns.
    let (ctx, arguments) = unsafe { (Ctx::from_raw(ctx), Arguments::from_raw(argv, argc)) };
    let args = CommandArgs { arguments, permit: WritePermit::of_command(ctx) };
    COMMANDS.fetch_add(1, Ordering::Relaxed);
    if IS_BEFORE_NEXT.load(Ordering::Relaxed) {
        run_before(ctx);
    }
    let before = steps::begin();
    match guarded("a command", || handler(ctx, &args)) {
        Some(Ok(())) => {}
        Some(Err(error)) => Reply::new(ctx).error(&error.to_string()),
        None => Reply::new(ctx).internal_error(),
    }
    if let Some(before) = before {
        // SAFETY: the command's own name is the first argument.
        let name = unsafe { bytes_of(*argv) };
        guarded("what a command came to", || steps::end(ctx, name, argc as usize - 1, &before));
    }
    raw::REDISMODULE_OK as c_int
}

/// What is to be done before the next command.
static BEFORE_NEXT: MainCell<Option<fn(Ctx<'_>)>> = MainCell::new(None);
static IS_BEFORE_NEXT: AtomicBool = AtomicBool::new(false);

/// Has `task` run before the next command, in the database of whose client it is called and which it may leave. It asks
/// for leave to write, as between commands.
pub fn before_next_command(task: fn(Ctx<'_>)) {
    BEFORE_NEXT.with(|next| *next = Some(task));
    IS_BEFORE_NEXT.store(true, Ordering::Relaxed);
}

#[cold]
fn run_before(ctx: Ctx<'_>) {
    IS_BEFORE_NEXT.store(false, Ordering::Relaxed);
    let db = ctx.db();
    if let Some(task) = BEFORE_NEXT.with(Option::take) {
        guarded("what comes before a command", || task(ctx));
    }
    if ctx.db() != db {
        ctx.select_db(db);
    }
}

/// Runs the handler of a command that only a primary and the AOF may give: whoever else could make the
/// data set say what no command ever checked. Servers before 7.2 put modules' commands into no category,
/// so that rules alone do not keep users from it.
///
/// # Safety
/// To be called by the server, with the arguments of a command callback.
pub unsafe fn run_internal_command(
    handler: Handler,
    ctx: *mut RedisModuleCtx,
    argv: *mut *mut RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the server's context is valid until the callback returns.
    let called = unsafe { Ctx::from_raw(ctx) };
    if called.is_for_a_user() {
        let error = Error::new(ErrorWord::NoPerm, "this command serves AOF and replication alone");
        Reply::new(called).error(&error.to_string());
        return raw::REDISMODULE_OK as c_int;
    }
    // SAFETY: the caller's word.
    unsafe { run_command(handler, ctx, argv, argc) }
}

/// Makes the `extern "C"` entry point of a handler.
#[macro_export]
macro_rules! command_entry {
    // Of a row whose keys depend on options: the server also calls it to be told which they are.
    ($handler:path, keys) => {{
        unsafe extern "C" fn entry(
            ctx: *mut $crate::ffi::RedisModuleCtx,
            argv: *mut *mut $crate::ffi::RedisModuleString,
            argc: std::ffi::c_int,
        ) -> std::ffi::c_int {
            // SAFETY: only the server calls this, as a command callback.
            unsafe {
                if $crate::ffi::command::tell_keys(entry, ctx, argv, argc) {
                    return 0;
                }
                $crate::ffi::command::run_command($handler, ctx, argv, argc)
            }
        }
        entry
    }};
    // Of a command that AOF and replicas are told, which is none of clients.
    ($handler:path, internal) => {{
        unsafe extern "C" fn entry(
            ctx: *mut $crate::ffi::RedisModuleCtx,
            argv: *mut *mut $crate::ffi::RedisModuleString,
            argc: std::ffi::c_int,
        ) -> std::ffi::c_int {
            // SAFETY: only the server calls this, as a command callback.
            unsafe { $crate::ffi::command::run_internal_command($handler, ctx, argv, argc) }
        }
        entry
    }};
    ($handler:path) => {{
        unsafe extern "C" fn entry(
            ctx: *mut $crate::ffi::RedisModuleCtx,
            argv: *mut *mut $crate::ffi::RedisModuleString,
            argc: std::ffi::c_int,
        ) -> std::ffi::c_int {
            // SAFETY: only the server calls this, as a command callback.
            unsafe { $crate::ffi::command::run_command($handler, ctx, argv, argc) }
        }
        entry
    }};
}
