//! The server's log.
//!
//! Owns: how a line is handed to it. Any thread may write without a context.

use redis_module::raw;
use std::ffi::{CStr, CString, c_char};

/// Logs where no context is at hand.
pub(super) fn log_without_context(message: &str) {
    log(std::ptr::null_mut(), c"warning", message);
}

/// Writes a line of a level; the context may be null.
pub(super) fn log(ctx: *mut raw::RedisModuleCtx, level: &CStr, message: &str) {
    let Ok(message) = CString::new(message.replace('\0', " ")) else { return };
    // SAFETY: the message goes through "%s", never as a format; a null context is allowed.
    unsafe {
        if let Some(log) = raw::RedisModule_Log {
            let format: *const c_char = c"%s".as_ptr();
            log(ctx, level.as_ptr(), format, message.as_ptr());
        }
    }
}
