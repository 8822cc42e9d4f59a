//! The server's strings. Binary safe: never through C strings.

use super::api::api;
use llmcache_core::allocation::allocated_bytes;
use redis_module::raw;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A string of the server, wherever it is kept.
pub trait ServerString {
    /// The server's handle, valid while `self` is.
    fn as_ptr(&self) -> *mut raw::RedisModuleString;

    /// Its bytes.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the handle is valid while `self` is, and nothing writes to a string that is shared.
        unsafe { bytes_of(self.as_ptr()) }
    }
}

/// An argument of the running command.
#[derive(Debug, Clone, Copy)]
pub struct ArgString<'a> {
    raw: NonNull<raw::RedisModuleString>,
    call: PhantomData<&'a ()>,
}

impl ArgString<'_> {
    /// # Safety
    /// `raw` is an argument of the running command.
    pub(super) unsafe fn from_raw(raw: *mut raw::RedisModuleString) -> Self {
        let raw = NonNull::new(raw).expect("the server passes no null arguments");
        Self { raw, call: PhantomData }
    }
}

impl ServerString for ArgString<'_> {
    fn as_ptr(&self) -> *mut raw::RedisModuleString {
        self.raw.as_ptr()
    }
}

/// A string the module owns, freed when dropped. Main thread only: its count is not atomic.
#[derive(Debug)]
pub struct RString(NonNull<raw::RedisModuleString>);

impl RString {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        // SAFETY: a null context is allowed: no automatic memory. The bytes are copied.
        let raw = unsafe {
            api!(RedisModule_CreateString(std::ptr::null_mut(), bytes.as_ptr().cast(), bytes.len()))
        };
        Self(NonNull::new(raw).expect("the server aborts rather than answer null"))
    }

    /// Takes over a string from the server; `None` for null.
    ///
    /// # Safety
    /// `raw` is null, or a string that the caller owns and that no automatic memory frees.
    pub(super) unsafe fn from_owned_raw(raw: *mut raw::RedisModuleString) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// Hands the string over to the server.
    pub(super) fn into_raw(self) -> *mut raw::RedisModuleString {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

/// What the server allocates with a string beside its bytes: a header of up to 17 bytes, a NUL, an object of 16, and
/// what their size classes add.
const STRING_FRAME_BYTES: usize = 64;

/// A string kept in a value, whose only handle is the value's: it may be freed on the server's
/// lazy-free thread.
#[derive(Debug)]
pub struct HeldString(RString);

// SAFETY: the value is the only holder once the command that brought the string ended, replies by
// reference aside. A server that sends those makes copies of them before it hands a database to its
// lazy-free thread (redis#14544, redis#14608), and a single value that holds such strings asks to be
// freed on the main thread (`ChunkValue::free_effort`).
unsafe impl Send for HeldString {}

impl HeldString {
    /// Keeps an argument in a value, without copying it unless the server left much room behind it. The server's own
    /// trimming would move the bytes, which the slices of the running command's arguments point to.
    pub fn hold(argument: &impl ServerString) -> Self {
        let kept = Self::keep(argument);
        let length = kept.as_bytes().len();
        let exact = allocated_bytes(length + STRING_FRAME_BYTES);
        if kept.memory_bytes() > exact + length / 10 {
            Self::new(argument.as_bytes())
        } else {
            kept
        }
    }

    /// Keeps an argument as it is, for work that continues after the command's call.
    pub fn keep(argument: &impl ServerString) -> Self {
        // SAFETY: the handle is valid; a null context means that the module frees it by itself. The server copies
        // strings that it cannot share.
        let raw = unsafe { api!(RedisModule_HoldString(std::ptr::null_mut(), argument.as_ptr())) };
        Self(RString(NonNull::new(raw).expect("the server aborts rather than answer null")))
    }

    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        Self(RString::new(bytes))
    }

    /// A string of the server's that nobody else holds.
    pub(super) fn from_owned(string: RString) -> Self {
        Self(string)
    }

    /// Another handle of the same string, for one call.
    pub fn share(&self) -> RString {
        // SAFETY: the handle is valid; see `hold`.
        unsafe { api!(RedisModule_RetainString(std::ptr::null_mut(), self.as_ptr())) };
        RString(self.0.0)
    }

    /// Memory of the string.
    pub fn memory_bytes(&self) -> usize {
        // SAFETY: the handle is valid.
        unsafe { api!(RedisModule_MallocSizeString(self.as_ptr())) }
    }
}

impl ServerString for HeldString {
    fn as_ptr(&self) -> *mut raw::RedisModuleString {
        self.0.as_ptr()
    }
}

impl ServerString for RString {
    fn as_ptr(&self) -> *mut raw::RedisModuleString {
        self.0.as_ptr()
    }
}

impl Drop for RString {
    fn drop(&mut self) {
        // SAFETY: owned by this handle, created without automatic memory.
        unsafe { api!(RedisModule_FreeString(std::ptr::null_mut(), self.0.as_ptr())) }
    }
}

/// The bytes of a server string.
///
/// # Safety
/// `string` is valid and stays unchanged for `'a`.
pub(super) unsafe fn bytes_of<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: by the contract of this function.
    unsafe {
        let start = api!(RedisModule_StringPtrLen(string, &mut length));
        if length == 0 { &[] } else { std::slice::from_raw_parts(start.cast(), length) }
    }
}
