//! Loading: what must stand before anything else of the module runs.

use super::api::{initialise, probe};
use super::context::log_without_context;
use super::{Ctx, RedisModuleCtx, guarded, install_panic_hook};
use redis_module::raw;
use std::ffi::{CStr, c_int};

/// Defines the entry point that servers look for; `$start` puts the module together.
#[macro_export]
macro_rules! module_entry {
    ($name:literal, $version:expr, $start:path) => {
        /// Called by the server when it loads the module.
        ///
        /// # Safety
        /// To be called by a server, once, with its context.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn RedisModule_OnLoad(
            ctx: *mut $crate::ffi::RedisModuleCtx,
            _argv: *mut *mut $crate::ffi::RedisModuleString,
            _argc: std::ffi::c_int,
        ) -> std::ffi::c_int {
            let (name, version, start) = ($name, $version, $start);
            // SAFETY: by the contract of this function.
            unsafe { $crate::ffi::load(ctx, name, version, start) }
        }
    };
}

/// Fills in the bindings, checks the server, then runs `start`; answers what OnLoad answers.
///
/// # Safety
/// `ctx` is the context that the server passed to OnLoad, which is running.
pub unsafe fn load(
    ctx: *mut RedisModuleCtx,
    name: &CStr,
    version: c_int,
    start: impl FnOnce(Ctx<'_>) -> Result<(), String>,
) -> c_int {
    let (ok, err) = (raw::REDISMODULE_OK as c_int, raw::REDISMODULE_ERR as c_int);
    if !initialise(ctx, name, version) {
        return err;
    }
    if let Some(missing) = probe() {
        log_without_context(&format!("llmcache needs {missing}: Redis 7.0 or newer is required"));
        return err;
    }
    install_panic_hook();
    let started = guarded("OnLoad", || {
        // SAFETY: the context is the server's, for the time of OnLoad.
        let ctx = unsafe { Ctx::from_raw(ctx) };
        ctx.handle_io_errors();
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
