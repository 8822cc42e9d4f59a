//! Loading the module: the checks that must pass first.
//!
//! Owns: the order of OnLoad, and the question whether the server still holds settings that nobody knows. Called
//! on the main thread, by the server's entry point only.

use super::Ctx;
use super::api::{api, initialise, probe};
use super::guard::guarded;
use super::guard::install_panic_hook;
use super::log::log_without_context;
use super::string::bytes_of;
use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use redis_module::raw::RedisModuleString;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

/// Defines the entry point that servers look for; `$start` puts the module together.
#[macro_export]
macro_rules! module_entry {
    ($name:expr, $version:expr, $start:path) => {
        /// Called by the server when it loads the module.
        ///
        /// # Safety
        /// To be called by a server, once, with its context.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn RedisModule_OnLoad(
            ctx: *mut $crate::ffi::RedisModuleCtx,
            argv: *mut *mut $crate::ffi::RedisModuleString,
            argc: std::ffi::c_int,
        ) -> std::ffi::c_int {
            let (name, version, start) = ($name, $version, $start);
            // SAFETY: by the contract of this function.
            unsafe { $crate::ffi::load(ctx, (argv, argc), name, version, start) }
        }
    };
}

/// The arguments of OnLoad, as the server passes them.
type RawArgs = (*mut *mut RedisModuleString, c_int);

/// Fills in the bindings, checks the server, refuses arguments, then runs `start`; returns what OnLoad returns.
///
/// # Safety
/// All is what the server passed to OnLoad, which is running.
pub unsafe fn load(
    ctx: *mut RedisModuleCtx,
    args: RawArgs,
    name: &CStr,
    version: c_int,
    start: impl FnOnce(Ctx<'_>) -> Result<(), String>,
) -> c_int {
    let (ok, err) = (raw::REDISMODULE_OK as c_int, raw::REDISMODULE_ERR as c_int);
    if ASKING.load(Ordering::Relaxed) {
        // The module that `has_settings_left` loads: it has a name and nothing else.
        return if initialise(ctx, QUESTION, version) { ok } else { err };
    }
    if !initialise(ctx, name, version) {
        return err;
    }
    if let Some(missing) = probe() {
        log_without_context(&format!("llmcache needs {missing}: Redis 7.0 or newer is required"));
        return err;
    }
    install_panic_hook();
    let started = guarded("OnLoad", || {
        // SAFETY: the server's, for the time of OnLoad.
        let (ctx, args) = unsafe { (Ctx::from_raw(ctx), arguments(args)) };
        if !args.is_empty() {
            return Err(refusal_of(&args));
        }
        ctx.set_options();
        start(ctx)
    });
    match started {
        Some(Ok(())) => ok,
        Some(Err(message)) => {
            log_without_context(&format!("llmcache cannot be loaded: {message}"));
            err
        }
        None => err,
    }
}

/// # Safety
/// What the server passed to OnLoad, which is running: no array where there are no arguments.
unsafe fn arguments<'a>((argv, argc): RawArgs) -> Vec<&'a [u8]> {
    let count = usize::try_from(argc).unwrap_or(0);
    if argv.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: an array of that many strings, by the contract.
    unsafe { std::slice::from_raw_parts(argv, count).iter().map(|&arg| bytes_of(arg)).collect() }
}

/// Why arguments are refused, and what stands in the place of these.
fn refusal_of(args: &[&[u8]]) -> String {
    let shown = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(64)]).into_owned();
    let lines: Vec<String> = args
        .chunks(2)
        .map(|pair| {
            let (name, value) =
                (shown(pair[0]), pair.get(1).map_or("<value>".into(), |v| shown(v)));
            format!(
                "{}{name} {value}",
                if name.starts_with("llmcache.") { "" } else { "llmcache." }
            )
        })
        .collect();
    format!(
        "it takes no arguments. Settings are lines of the server's configuration, \"{}\", or CONFIG pairs of \
         MODULE LOADEX",
        lines.join("\", \"")
    )
}

/// The name of the module by which `has_settings_left` asks.
const QUESTION: &CStr = c"llmcache-settings";

/// Whether OnLoad is called by `has_settings_left`.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Whether `MODULE LOADEX` was given settings that the module, which has read its own, does not know.
///
/// A server unloads a module of which it still holds settings after OnLoad, and since 7.2 crashes on that where the
/// module has data types: so OnLoad has to refuse. Nothing tells a module of them but this: that loading another
/// one meanwhile fails, for the same reason, where there are some. At a start, when settings of modules yet to come
/// are held, it is not asked: the server names what is left by itself.
pub fn has_settings_left(ctx: Ctx<'_>) -> bool {
    let by_command = ctx.info_number(c"clients", c"connected_clients").is_some_and(|n| n > 0);
    let Some(path) = own_path().filter(|_| by_command) else { return false };
    ASKING.store(true, Ordering::Relaxed);
    let loaded = call_module(ctx, &[c"LOADEX", &path]);
    ASKING.store(false, Ordering::Relaxed);
    if loaded {
        call_module(ctx, &[c"UNLOAD", QUESTION]);
    }
    !loaded
}

/// The file that this code was loaded from.
fn own_path() -> Option<CString> {
    let inside: *const AtomicBool = &ASKING;
    // SAFETY: `dladdr` writes the struct where it returns other than zero; the name lives as long as this code.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(inside.cast(), &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Some(CStr::from_ptr(info.dli_fname).to_owned())
    }
}

/// Runs `MODULE` with two words; whether it did not fail.
fn call_module(ctx: Ctx<'_>, words: &[&CStr; 2]) -> bool {
    let [first, second]: [*const c_char; 2] = words.map(CStr::as_ptr);
    // SAFETY: the format names two C strings; the reply is freed on the one path there is.
    unsafe {
        let (command, format) = (c"MODULE".as_ptr(), c"cc".as_ptr());
        let reply = api!(RedisModule_Call(ctx.as_ptr(), command, format, first, second));
        if reply.is_null() {
            return false;
        }
        let kind = api!(RedisModule_CallReplyType(reply));
        api!(RedisModule_FreeCallReply(reply));
        kind != raw::REDISMODULE_REPLY_ERROR as c_int
    }
}
