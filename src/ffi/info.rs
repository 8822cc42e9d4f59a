//! The module's part of `INFO`.

use super::api::api;
use super::guard::guarded;
use redis_module::raw;
use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

/// Writes sections and fields of `INFO`.
#[derive(Debug)]
pub struct InfoWriter(*mut raw::RedisModuleInfoCtx);

impl InfoWriter {
    /// Starts a section; false when the client did not ask for it.
    pub fn section(&mut self, name: &CStr) -> bool {
        // SAFETY: valid while the callback runs; so below.
        unsafe {
            api!(RedisModule_InfoAddSection(self.0, name.as_ptr())) == raw::REDISMODULE_OK as c_int
        }
    }

    /// A number.
    pub fn number(&mut self, name: &CStr, value: u64) {
        // SAFETY: see `section`.
        unsafe { api!(RedisModule_InfoAddFieldULongLong(self.0, name.as_ptr(), value)) };
    }

    /// A text, without NUL and without a line break.
    pub fn text(&mut self, name: &CStr, value: &str) {
        let Ok(value) = CString::new(value) else { return };
        // SAFETY: see `section`; the text is copied.
        unsafe { api!(RedisModule_InfoAddFieldCString(self.0, name.as_ptr(), value.as_ptr())) };
    }
}

/// Writes the module's sections.
pub type InfoSource = fn(&mut InfoWriter);

static SOURCE: OnceLock<InfoSource> = OnceLock::new();

/// Has `source` asked whenever a client asks for `INFO`.
pub fn register_info(ctx: super::Ctx<'_>, source: InfoSource) -> bool {
    SOURCE.get_or_init(|| source);
    // SAFETY: the context is OnLoad's.
    let status = unsafe { api!(RedisModule_RegisterInfoFunc(ctx.as_ptr(), Some(on_info))) };
    status == raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_info(info: *mut raw::RedisModuleInfoCtx, for_crash_report: c_int) {
    // In a crash report the heap may be broken: nothing of the module is looked at.
    if for_crash_report != 0 {
        return;
    }
    guarded("info", || {
        if let Some(source) = SOURCE.get() {
            source(&mut InfoWriter(info));
        }
    });
}
