//! Streams of the server: RDB in and out, AOF rewrite, digests.

use super::api::api;
use super::{Ctx, HeldString, RString, ServerString, is_cluster};
use redis_module::raw;
use std::ffi::CStr;

/// Reads an RDB value. After a failure everything reads as `None`.
#[derive(Debug)]
pub struct RdbReader(*mut raw::RedisModuleIO);

impl RdbReader {
    /// # Safety
    /// `io` is the stream of a running `rdb_load`.
    pub(super) unsafe fn from_raw(io: *mut raw::RedisModuleIO) -> Self {
        Self(io)
    }

    /// Whether the stream ended early or held another kind of field.
    pub fn failed(&self) -> bool {
        // SAFETY: the stream is valid while its callback runs, here and below.
        unsafe { api!(RedisModule_IsIOError(self.0)) != 0 }
    }

    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        // SAFETY: see `failed`.
        let value = unsafe { api!(RedisModule_LoadUnsigned(self.0)) };
        (!self.failed()).then_some(value)
    }

    /// Whether the key that is read comes with its hash slot, which is on its way to this server: a client that did not
    /// say `ASKING` would be sent elsewhere.
    pub fn comes_with_slot(&self, key: &[u8]) -> bool {
        if !is_cluster() {
            return false;
        }
        // SAFETY: the stream is valid; the context made from its own has no client, lives for this call alone and
        // stays on the main thread.
        unsafe {
            let own = api!(RedisModule_GetContextFromIO(self.0));
            let detached = api!(RedisModule_GetDetachedThreadSafeContext(own));
            let is_served = Ctx::from_raw(detached).serves(&[&RString::new(key)]);
            api!(RedisModule_FreeThreadSafeContext(detached));
            !is_served
        }
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Option<Box<[u8]>> {
        let mut length = 0;
        // SAFETY: see `failed`. The buffer comes from the server's allocator, which is the module's
        // global allocator, has at least `length` bytes, and is owned by the caller.
        unsafe {
            let start = api!(RedisModule_LoadStringBuffer(self.0, &mut length));
            if start.is_null() {
                return None;
            }
            if length == 0 {
                api!(RedisModule_Free(start.cast()));
                return Some(Box::default());
            }
            Some(Box::from_raw(std::ptr::slice_from_raw_parts_mut(start.cast(), length)))
        }
    }
}

impl RdbReader {
    /// A byte string as a string of the server, without a copy.
    pub fn string(&mut self) -> Option<HeldString> {
        // SAFETY: the stream is valid; what is loaded is the caller's. Null after a failure.
        let string = unsafe { RString::from_owned_raw(api!(RedisModule_LoadString(self.0)))? };
        (!self.failed()).then(|| HeldString::from_owned(string))
    }
}

/// Writes an RDB value.
#[derive(Debug)]
pub struct RdbWriter(*mut raw::RedisModuleIO);

impl RdbWriter {
    /// # Safety
    /// `io` is the stream of a running `rdb_save`.
    pub(super) unsafe fn from_raw(io: *mut raw::RedisModuleIO) -> Self {
        Self(io)
    }

    /// Whether the whole data set is being written, not a key alone for `DUMP` or `MIGRATE`.
    pub fn is_whole(&self) -> bool {
        super::event::is_saving()
    }

    /// A number.
    pub fn number(&mut self, value: u64) {
        // SAFETY: the stream is valid while its callback runs; so below.
        unsafe { api!(RedisModule_SaveUnsigned(self.0, value)) };
    }

    /// A string of the server.
    pub fn string(&mut self, string: &impl ServerString) {
        // SAFETY: see `number`; the string is valid.
        unsafe { api!(RedisModule_SaveString(self.0, string.as_ptr())) };
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        // SAFETY: see `number`; the bytes are copied.
        unsafe {
            api!(RedisModule_SaveStringBuffer(self.0, bytes.as_ptr().cast(), bytes.len()));
        }
    }
}

/// Appends a command to an AOF that is being rewritten.
///
/// # Safety
/// `io` is the stream of a running `aof_rewrite`.
pub(super) unsafe fn emit_aof(io: *mut raw::RedisModuleIO, command: &CStr, args: &[RString]) {
    let mut pointers: Vec<_> = args.iter().map(ServerString::as_ptr).collect();
    // SAFETY: by the contract; format "v" takes an array of strings and its length.
    unsafe {
        let (array, count) = (pointers.as_mut_ptr(), pointers.len());
        api!(RedisModule_EmitAOF(io, command.as_ptr(), c"v".as_ptr(), array, count));
    }
}

/// What `DEBUG DIGEST` adds up.
#[derive(Debug)]
pub struct Digest(*mut raw::RedisModuleDigest);

impl Digest {
    /// # Safety
    /// `md` is the digest of a running `digest` callback.
    pub(super) unsafe fn from_raw(md: *mut raw::RedisModuleDigest) -> Self {
        Self(md)
    }

    /// Adds bytes whose order matters.
    pub fn add(&mut self, bytes: &[u8]) {
        // SAFETY: valid while its callback runs; so below.
        unsafe {
            api!(RedisModule_DigestAddStringBuffer(self.0, bytes.as_ptr().cast(), bytes.len()));
        }
    }

    /// Ends one element.
    pub fn end(&mut self) {
        // SAFETY: see `add`.
        unsafe { api!(RedisModule_DigestEndSequence(self.0)) };
    }
}
