//! Keys of the server, opened and closed by scope.
//!
//! A rule that the types cannot state: while a `KeyOf` lives, nothing may delete its key. Commands
//! keep it by opening each key once, and because the server freezes its clock during a command, so
//! that an open key does not expire before the command ends. `open_values` checks it.

use super::api::api;
use super::event_loop_hook::is_outside_a_unit;
use super::open_values::OpenValue;
use super::string::bytes_of;
use super::value::{Kept, ModuleValue};
use super::{Ctx, MainBound, ServerString, WritePermit};
use llmcache_core::distance::prefetch_at;
use redis_module::raw;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

/// What a key is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To answer a client: counts as a use in the server's LRU and LFU.
    Read,
    /// To look, without counting as a use.
    Probe,
    /// For what no client asked for just now: what the same command opened before, and what the module sees to by
    /// itself, in the background or because of an event. Nothing counts or tells of it, as far as the server can leave
    /// that out (from 7.2 on): users take `keyspace_hits` for what clients asked for.
    Unasked,
}

/// An open key.
#[derive(Debug)]
pub struct Key<'a> {
    raw: NonNull<raw::RedisModuleKey>,
    ctx: Ctx<'a>,
}

impl<'a> Key<'a> {
    /// Opens a key to look at it; `None` when it does not exist. A key that is due is deleted by this, on a primary, but
    /// where nobody would tell replicas (`outside_a_unit`).
    pub fn open(ctx: Ctx<'a>, name: &impl ServerString, access: Access) -> Option<Self> {
        let mode = match access {
            Access::Read => raw::REDISMODULE_READ,
            Access::Probe => raw::REDISMODULE_READ | raw::REDISMODULE_OPEN_KEY_NOTOUCH,
            Access::Unasked => {
                raw::REDISMODULE_READ
                    | raw::REDISMODULE_OPEN_KEY_NOTOUCH
                    | raw::REDISMODULE_OPEN_KEY_NONOTIFY
                    | raw::REDISMODULE_OPEN_KEY_NOSTATS
            }
        };
        // Servers before 7.2 do not know it, and tell replicas with the next command.
        let keeps_due = is_outside_a_unit().then_some(raw::REDISMODULE_OPEN_KEY_NOEXPIRE);
        Self::open_in_mode(ctx, name, mode | keeps_due.unwrap_or_default())
    }

    /// Opens a key to change it. An absent key opens empty.
    pub fn open_to_write(permit: WritePermit<'a>, name: &impl ServerString) -> Self {
        let mode = raw::REDISMODULE_READ | raw::REDISMODULE_WRITE;
        let key = Self::open_in_mode(*permit, name, mode);
        key.expect("the server opens absent keys for writing")
    }

    fn open_in_mode(ctx: Ctx<'a>, name: &impl ServerString, mode: u32) -> Option<Self> {
        super::steps::note_opened();
        // SAFETY: context and name are valid; the key is closed on drop.
        let key = unsafe { api!(RedisModule_OpenKey(ctx.as_ptr(), name.as_ptr(), mode as c_int)) };
        NonNull::new(key).map(|raw| Self { raw, ctx })
    }

    pub(super) fn as_ptr(&self) -> *mut raw::RedisModuleKey {
        self.raw.as_ptr()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the key is open, here and below.
        let kind = unsafe { api!(RedisModule_KeyType(self.raw.as_ptr())) };
        kind == raw::REDISMODULE_KEYTYPE_EMPTY as c_int
    }

    /// Whether the value is a stream.
    pub fn is_stream(&self) -> bool {
        // SAFETY: see `is_empty`.
        let kind = unsafe { api!(RedisModule_KeyType(self.raw.as_ptr())) };
        kind == raw::REDISMODULE_KEYTYPE_STREAM as c_int
    }

    /// The value, if it is of the type `T`.
    pub fn value<T: ModuleValue + ?Sized>(&self) -> Option<&T> {
        // SAFETY: a value of our type is a `T` that `set` or loading made; it lives as long as
        // nothing deletes the key (head of this file).
        self.typed::<T>().map(|kept| unsafe { T::Kept::value(kept).as_ref() })
    }

    /// The value for change, if it is of the type `T`.
    pub fn value_mut<T: ModuleValue + ?Sized>(&mut self) -> Option<&mut T> {
        // SAFETY: as above; the key is opened once at a time.
        self.typed::<T>().map(|kept| unsafe { T::Kept::value(kept).as_mut() })
    }

    /// What the server keeps of the value, if that is of the type `T`.
    fn typed<T: ModuleValue + ?Sized>(&self) -> Option<NonNull<c_void>> {
        // SAFETY: see `is_empty`. Both functions accept keys of any type.
        unsafe {
            let kind = api!(RedisModule_ModuleTypeGetType(self.raw.as_ptr()));
            if kind.is_null() || kind != T::handle().as_ptr() {
                return None;
            }
            NonNull::new(api!(RedisModule_ModuleTypeGetValue(self.raw.as_ptr())))
        }
    }

    /// Keeps hold of the key as one of the type `T`.
    pub fn into_typed<T: ModuleValue + ?Sized>(self) -> Option<KeyOf<'a, T>> {
        let kept = self.typed::<T>()?;
        Some(KeyOf { kept, key: self, value: Cell::new(None), _open: OpenValue::note(kept) })
    }

    /// Replaces the value, whatever it was, and removes the expiry. The key was opened to write.
    pub fn set<T: ModuleValue + ?Sized>(&mut self, value: T::Kept) {
        let value = value.into_raw();
        // SAFETY: the server owns the value from here and ends it with the type's `free`.
        let status = unsafe {
            let (key, kind) = (self.raw.as_ptr(), T::handle().as_ptr());
            api!(RedisModule_ModuleTypeSetValue(key, kind, value.as_ptr()))
        };
        assert_eq!(status, raw::REDISMODULE_OK as c_int, "the key was opened for writing");
    }

    /// Deletes the key, freeing a large value on another thread. Opened to write.
    pub fn unlink(&mut self) {
        // SAFETY: see `is_empty`.
        unsafe { api!(RedisModule_UnlinkKey(self.raw.as_ptr())) };
    }

    /// The deadline in Unix milliseconds; 0 for none.
    pub fn expire_at_ms(&self) -> u64 {
        // SAFETY: see `is_empty`. Negative means none.
        let at = unsafe { api!(RedisModule_GetAbsExpire(self.raw.as_ptr())) };
        u64::try_from(at).unwrap_or(0)
    }

    /// Sets the deadline; 0 removes it. Opened to write.
    pub fn set_expire_at_ms(&mut self, at_ms: u64) {
        let at = if at_ms == 0 { raw::REDISMODULE_NO_EXPIRE.into() } else { at_ms as i64 };
        // SAFETY: see `is_empty`.
        unsafe { api!(RedisModule_SetAbsExpire(self.raw.as_ptr(), at)) };
    }

    /// Tells the server's LFU eviction how often the key is used (0 to 255); no effect under another
    /// policy.
    pub fn hint_lfu(&mut self, counter: u8) {
        // SAFETY: see `is_empty`.
        unsafe { api!(RedisModule_SetLFU(self.raw.as_ptr(), i64::from(counter))) };
    }

    /// The server's LFU counter of the key; `None` under another policy.
    pub fn lfu(&self) -> Option<u8> {
        let mut counter = 0;
        // SAFETY: see `is_empty`; the counter is written on success.
        let status = unsafe { api!(RedisModule_GetLFU(self.raw.as_ptr(), &mut counter)) };
        (status == raw::REDISMODULE_OK as c_int).then(|| u8::try_from(counter).ok()).flatten()
    }

    /// Tells the server's LRU eviction that the key was used now; no effect under another policy.
    pub fn hint_used_now(&mut self) {
        // SAFETY: see `is_empty`.
        unsafe { api!(RedisModule_SetLRU(self.raw.as_ptr(), 0)) };
    }

    /// Both, as strongly as can be.
    pub fn hint_strongly(&mut self) {
        self.hint_lfu(u8::MAX);
        self.hint_used_now();
    }

    /// The context it was opened in.
    pub fn ctx(&self) -> Ctx<'a> {
        self.ctx
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; its context's call is still running.
        unsafe { api!(RedisModule_CloseKey(self.raw.as_ptr())) };
    }
}

/// An open key whose value is a `T`.
#[derive(Debug)]
pub struct KeyOf<'a, T: ?Sized> {
    kept: NonNull<c_void>,
    key: Key<'a>,
    /// Where the value is, once that was asked: it may be told by the value itself.
    value: Cell<Option<NonNull<T>>>,
    _open: OpenValue,
}

impl<T: ModuleValue + ?Sized> KeyOf<'_, T> {
    /// Asks for the first `bytes` of what the server keeps, ahead of their use.
    pub fn prefetch(&self, bytes: usize) {
        prefetch_at(self.kept.as_ptr().cast(), bytes);
    }

    /// The deadline in Unix milliseconds; 0 for none.
    pub fn expire_at_ms(&self) -> u64 {
        self.key.expire_at_ms()
    }

    /// Counts a use of the key, as opening it to read does. Deletes it where it is due, which the caller has seen
    /// that it is not.
    pub fn touch(&self) {
        // SAFETY: the key is open; its name is the server's and lives as long. The second handle is closed here.
        unsafe {
            let name = api!(RedisModule_GetKeyNameFromModuleKey(self.key.as_ptr()));
            super::steps::note_opened();
            let read = raw::REDISMODULE_READ as c_int;
            let again = api!(RedisModule_OpenKey(self.key.ctx.as_ptr(), name.cast_mut(), read));
            if !again.is_null() {
                api!(RedisModule_CloseKey(again));
            }
        }
    }

    /// Tells the server's eviction, whichever its policy, that this key is among the last to go.
    pub fn hint_strongly(&mut self) {
        self.key.hint_strongly();
    }
}

impl<T: ModuleValue + ?Sized> Deref for KeyOf<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the type was checked on opening; nothing deletes the key while this lives.
        unsafe {
            let value = self.value.get().unwrap_or_else(|| T::Kept::value(self.kept));
            self.value.set(Some(value));
            value.as_ref()
        }
    }
}

/// A walk over the keys of one database, in steps.
#[derive(Debug)]
pub struct KeyScan {
    cursor: MainBound<NonNull<raw::RedisModuleScanCursor>>,
}

type Visit<'v> = &'v mut dyn FnMut(&[u8], &Key<'_>);

impl KeyScan {
    /// Starts a walk.
    pub fn start() -> Self {
        // SAFETY: takes nothing; destroyed on drop.
        let cursor = unsafe { api!(RedisModule_ScanCursorCreate()) };
        let cursor = NonNull::new(cursor).expect("the server aborts rather than return null");
        Self { cursor: MainBound::new(cursor) }
    }

    /// Visits the keys of one bucket; false when the walk is over. `visit` must not delete keys.
    pub fn step(&mut self, ctx: Ctx<'_>, mut visit: Visit<'_>) -> bool {
        let visit_ptr: *mut Visit<'_> = &mut visit;
        // SAFETY: `on_key` gets the pointer to `visit` back, and only during this call.
        unsafe {
            let cursor = self.cursor.get().as_ptr();
            api!(RedisModule_Scan(ctx.as_ptr(), cursor, Some(on_key), visit_ptr.cast())) != 0
        }
    }
}

unsafe extern "C" fn on_key(
    ctx: *mut raw::RedisModuleCtx,
    name: *mut raw::RedisModuleString,
    key: *mut raw::RedisModuleKey,
    visit: *mut c_void,
) {
    super::guard::guarded("a scan", || {
        let Some(raw) = NonNull::new(key) else { return };
        // SAFETY: the server's arguments are valid for this call; it closes the key itself.
        unsafe {
            let key = ManuallyDrop::new(Key { raw, ctx: Ctx::from_raw(ctx) });
            (*visit.cast::<Visit<'_>>())(bytes_of(name), &key);
        }
    });
}

impl Drop for KeyScan {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { api!(RedisModule_ScanCursorDestroy(self.cursor.get().as_ptr())) };
    }
}
