//! Data types of the module: from the server's callbacks to a trait.
//!
//! Threads: `free` may run on the server's lazy-free thread, so dropping a value must touch nothing
//! shared. `rdb_save`, `aof_rewrite` run in the forked child or on the main thread. Everything else
//! is on the main thread.

use super::api::api;
use super::guard::guarded;
use super::open_values::assert_closed;
use super::string::bytes_of;
use super::{Ctx, Digest, RString, RdbReader, RdbWriter};
use redis_module::raw;
use std::ffi::{CString, c_int, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where the server's handle of a data type is kept.
#[derive(Debug)]
pub struct TypeHandle(AtomicPtr<raw::RedisModuleType>);

impl TypeHandle {
    /// Not yet registered.
    pub const fn unregistered() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(super) fn as_ptr(&self) -> *mut raw::RedisModuleType {
        // Written once at load, on the thread that reads it.
        self.0.load(Ordering::Relaxed)
    }
}

/// How the server keeps a value: as one pointer.
pub trait Kept<T: ?Sized>: Sized {
    /// Hands the value over to the server.
    fn into_raw(self) -> NonNull<c_void>;

    /// Takes it back.
    ///
    /// # Safety
    /// `raw` came from `into_raw` and is given up by this.
    unsafe fn from_raw(raw: NonNull<c_void>) -> Self;

    /// Where the value is.
    ///
    /// # Safety
    /// `raw` came from `into_raw` and was not taken back.
    unsafe fn value(raw: NonNull<c_void>) -> NonNull<T>;
}

impl<T> Kept<T> for Box<T> {
    fn into_raw(self) -> NonNull<c_void> {
        NonNull::from(Self::leak(self)).cast()
    }

    unsafe fn from_raw(raw: NonNull<c_void>) -> Self {
        // SAFETY: by the contract the box that `into_raw` leaked.
        unsafe { Self::from_raw(raw.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn value(raw: NonNull<c_void>) -> NonNull<T> {
        raw.cast()
    }
}

/// A value that is its bytes and tells by the first of them how many they are.
pub trait TellsLength {
    /// Bytes that every value begins with; they say how long the head is.
    const HEADER_BYTES: usize;

    /// Length of the head, by the header; at least the header's.
    fn head_len(header: &[u8]) -> usize;
    /// Length of the whole, by the head. Nothing that is done to a value changes it.
    fn whole_len(head: &[u8]) -> usize;
    /// The value's bytes.
    fn bytes(&self) -> &[u8];
    /// The value that these bytes are: the same address and length.
    fn cast(bytes: *mut [u8]) -> *mut Self;
}

/// A box of such a value, kept as the pointer to its bytes alone: no pointer and length in between, which would be
/// 16 bytes a value and a wait for memory.
#[derive(Debug)]
pub struct Thin<T: ?Sized>(pub Box<T>);

impl<T: TellsLength + ?Sized> Kept<T> for Thin<T> {
    fn into_raw(self) -> NonNull<c_void> {
        let bytes: *const [u8] = self.0.bytes();
        let told = T::whole_len(self.0.bytes());
        let kept = NonNull::from(Box::leak(self.0));
        // What `value` relies on.
        assert_eq!(told, bytes.len(), "a value tells its length");
        assert!(ptr::addr_eq(kept.as_ptr(), bytes), "a value begins with its bytes");
        kept.cast()
    }

    unsafe fn from_raw(raw: NonNull<c_void>) -> Self {
        // SAFETY: by the contract the box that `into_raw` leaked, with the length it had.
        Self(unsafe { Box::from_raw(<Self as Kept<T>>::value(raw).as_ptr()) })
    }

    #[inline]
    unsafe fn value(raw: NonNull<c_void>) -> NonNull<T> {
        let start = raw.as_ptr().cast::<u8>();
        // SAFETY: a value has a header, the header says how far the head goes, the head how long the value is, and
        // nothing that is done to one changes that: `into_raw` saw that it holds.
        let length = unsafe {
            let header = slice::from_raw_parts(start, T::HEADER_BYTES);
            T::whole_len(slice::from_raw_parts(start, T::head_len(header)))
        };
        let value = T::cast(ptr::slice_from_raw_parts_mut(start, length));
        // SAFETY: not null, as `raw` is not.
        unsafe { NonNull::new_unchecked(value) }
    }
}

/// A value that a key of one of our types holds.
pub trait ModuleValue: Send + 'static {
    /// What the server keeps of it.
    type Kept: Kept<Self>;
    /// What `TYPE` answers; nine characters.
    const TYPE_NAME: &'static str;
    /// Version of the RDB form.
    const ENCODING: c_int;
    /// Whether `COPY` makes a copy, which `copied` does.
    const COPIES: bool = false;

    /// Where the type's handle is kept.
    fn handle() -> &'static TypeHandle;
    /// Reads the value of the key `key` of the database `db`; `None` refuses the bytes.
    fn rdb_load(from: &mut RdbReader, encoding: c_int, db: c_int, key: &[u8])
    -> Option<Self::Kept>;
    /// Writes it.
    fn rdb_save(&self, to: &mut RdbWriter);
    /// The command that makes it again: name and arguments, the key among them; `None` for a value
    /// that is not kept. Expiry is the server's.
    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static std::ffi::CStr, Vec<RString>)>;
    /// What `DEBUG DIGEST` covers.
    fn digest(&self, digest: &mut Digest);
    /// Memory, in bytes.
    fn mem_usage(&self) -> usize;
    /// Roughly how many allocations freeing it gives back; many are freed on another thread.
    fn free_effort(&self) -> usize;
    /// The key is going, or was renamed or moved: told before, and not told which.
    fn unlinked(&self, db: c_int, key: &[u8]);
    /// A value of its own for another key; `None` for a type without `COPIES`.
    fn copied(&self) -> Option<Self::Kept> {
        None
    }
}

/// Registers a data type; returns whether the server accepted it.
pub fn register_type<T: ModuleValue + ?Sized>(ctx: Ctx<'_>) -> bool {
    let mut methods = raw::RedisModuleTypeMethods {
        version: u64::from(raw::REDISMODULE_TYPE_METHOD_VERSION),
        rdb_load: Some(rdb_load::<T>),
        rdb_save: Some(rdb_save::<T>),
        aof_rewrite: Some(aof_rewrite::<T>),
        mem_usage: None,
        digest: Some(digest::<T>),
        free: Some(free::<T>),
        aux_load: None,
        aux_save: None,
        aux_save_triggers: 0,
        free_effort: None,
        unlink: None,
        copy: None,
        defrag: None,
        mem_usage2: Some(mem_usage::<T>),
        free_effort2: Some(free_effort::<T>),
        unlink2: Some(unlink::<T>),
        copy2: if T::COPIES { Some(copy::<T>) } else { None },
        aux_save2: None,
    };
    let name = CString::new(T::TYPE_NAME).expect("type names are plain text");
    // SAFETY: the server copies name and methods. It refuses names that are not nine characters.
    let handle = unsafe {
        api!(RedisModule_CreateDataType(ctx.as_ptr(), name.as_ptr(), T::ENCODING, &mut methods))
    };
    T::handle().0.store(handle, Ordering::Relaxed);
    !handle.is_null()
}

/// # Safety
/// `value` is a live value of the type `T`, as the server passes it to the callbacks of that type.
unsafe fn borrow<'a, T: ModuleValue + ?Sized>(value: *const c_void) -> &'a T {
    // SAFETY: by the contract. The server keeps no null.
    unsafe { T::Kept::value(NonNull::new_unchecked(value.cast_mut())).as_ref() }
}

unsafe extern "C" fn rdb_load<T: ModuleValue + ?Sized>(
    io: *mut raw::RedisModuleIO,
    encoding: c_int,
) -> *mut c_void {
    let loaded = guarded("rdb_load", || {
        // SAFETY: the stream and the key's name are valid for this call; the name may be null.
        let (mut reader, db, key) = unsafe {
            let name = api!(RedisModule_GetKeyNameFromIO(io));
            let key = if name.is_null() { &[][..] } else { bytes_of(name) };
            (RdbReader::from_raw(io), api!(RedisModule_GetDbIdFromIO(io)), key)
        };
        let value = T::rdb_load(&mut reader, encoding, db, key)?;
        (!reader.failed()).then(|| value.into_raw())
    });
    loaded.flatten().map_or(ptr::null_mut(), NonNull::as_ptr)
}

unsafe extern "C" fn rdb_save<T: ModuleValue + ?Sized>(
    io: *mut raw::RedisModuleIO,
    value: *mut c_void,
) {
    // SAFETY: stream and value are the server's, valid for this call; so in all callbacks below.
    guarded("rdb_save", || unsafe {
        borrow::<T>(value).rdb_save(&mut RdbWriter::from_raw(io));
    });
}

unsafe extern "C" fn aof_rewrite<T: ModuleValue + ?Sized>(
    io: *mut raw::RedisModuleIO,
    key: *mut raw::RedisModuleString,
    value: *mut c_void,
) {
    // SAFETY: see `rdb_save`.
    guarded("aof_rewrite", || unsafe {
        if let Some((command, args)) = borrow::<T>(value).aof_rewrite(bytes_of(key)) {
            super::io::emit_aof(io, command, &args);
        }
    });
}

unsafe extern "C" fn digest<T: ModuleValue + ?Sized>(
    md: *mut raw::RedisModuleDigest,
    value: *mut c_void,
) {
    // SAFETY: see `rdb_save`.
    guarded("digest", || unsafe { borrow::<T>(value).digest(&mut Digest::from_raw(md)) });
}

unsafe extern "C" fn free<T: ModuleValue + ?Sized>(value: *mut c_void) {
    // SAFETY: the server gives back what `set` or `rdb_load` gave it.
    guarded("free", || unsafe { drop(T::Kept::from_raw(NonNull::new_unchecked(value))) });
}

unsafe extern "C" fn mem_usage<T: ModuleValue + ?Sized>(
    _: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
    _samples: usize,
) -> usize {
    // SAFETY: see `rdb_save`.
    guarded("mem_usage", || unsafe { borrow::<T>(value).mem_usage() }).unwrap_or(0)
}

unsafe extern "C" fn free_effort<T: ModuleValue + ?Sized>(
    _: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
) -> usize {
    // SAFETY: see `rdb_save`.
    guarded("free_effort", || unsafe { borrow::<T>(value).free_effort() }).unwrap_or(1)
}

unsafe extern "C" fn unlink<T: ModuleValue + ?Sized>(
    ctx: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
) {
    // SAFETY: see `rdb_save`.
    guarded("unlink", || unsafe {
        assert_closed(value);
        let db = api!(RedisModule_GetDbIdFromOptCtx(ctx));
        let name = api!(RedisModule_GetKeyNameFromOptCtx(ctx));
        let key = if name.is_null() { &[][..] } else { bytes_of(name) };
        borrow::<T>(value).unlinked(db, key);
    });
}

unsafe extern "C" fn copy<T: ModuleValue + ?Sized>(
    _: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
) -> *mut c_void {
    // SAFETY: see `rdb_save`. The server owns the copy as it does what `rdb_load` answers.
    let copied = guarded("copy", || unsafe { borrow::<T>(value).copied() }).flatten();
    copied.map_or(ptr::null_mut(), |value| value.into_raw().as_ptr())
}
