//! Opening and making the key of a cache.

use crate::ffi::{Access, Ctx, Key, RString, ServerString};
use crate::keytype::CacheValue;
use crate::keytype::registry::{self, SharedCache};
use llmcache_core::cache::Cache;
use llmcache_core::error::{Error, ErrorWord, Result};

/// The cache in a key: `None` when there is no such key, an error when it holds something else.
/// Counts as a use of the key.
pub fn open_cache(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedCache>> {
    let Some(key) = Key::open(ctx, name, Access::Read) else { return Ok(None) };
    match key.value::<CacheValue>() {
        Some(value) => Ok(Some(value.0.clone())),
        None if key.is_empty() => Ok(None),
        None => Err(Error::new(
            ErrorWord::WrongType,
            "Operation against a key holding the wrong kind of value",
        )),
    }
}

/// Puts a cache into a key that is free, or replaces what it holds.
pub fn create_cache(ctx: Ctx<'_>, name: &[u8], cache: Cache) -> SharedCache {
    let value = CacheValue::new(cache);
    let shared = value.0.clone();
    let name_string = RString::new(name);
    let mut key = open_for_write(ctx, &name_string);
    key.set(Box::new(value.clone()));
    // A container is never the victim while there are others; see also the shield task.
    key.hint_lfu(u8::MAX);
    drop(key);
    registry::place(&value, (ctx.db(), name.to_vec()));
    ctx.notify_module(c"llmcache.create", &name_string);
    shared
}

/// Opens a key for writing, which never fails: an absent key opens empty.
pub(super) fn open_for_write<'a>(ctx: Ctx<'a>, name: &RString) -> Key<'a> {
    Key::open(ctx, name, Access::Write).expect("the server opens absent keys for writing")
}
