//! Opens and creates the key of a cache.

use super::put_back::put_back;
use super::slots::Presence;
use crate::ffi::{Access, Ctx, Key, RString, ServerString, WritePermit};
use crate::keytype::cache_registry::{self, CACHES, SharedCache};
use crate::keytype::{CREATE_COMMAND, cache_in, set_cache};
use llmcache_core::cache::{Cache, Kind};
use llmcache_core::error::{Error, ErrorWord, Result};
use std::sync::Arc;

/// The cache in a key: `None` when there is no such key, an error when it holds something else, or may be on
/// another server. The key is opened the first time only; that caches are in use is told by the shield. A cache
/// that the server evicted a moment ago is there all the same.
pub fn open_cache(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedCache>> {
    open_container(ctx, name, Kind::Answers)
}

/// The same for a container of any kind: an error when the key holds one of another.
pub fn open_container(
    ctx: Ctx<'_>,
    name: &impl ServerString,
    kind: Kind,
) -> Result<Option<SharedCache>> {
    let found = find_container(ctx, name, kind)?;
    Presence::of(ctx, name.as_bytes()).found(found)
}

/// The same for a look-up, which may miss: `None` also where the key may be on another server.
pub fn find_container(
    ctx: Ctx<'_>,
    name: &impl ServerString,
    kind: Kind,
) -> Result<Option<SharedCache>> {
    let Some(cache) = open_any(ctx, name)? else { return Ok(None) };
    if cache.with(|cache| cache.settings.kind) != kind {
        return Err(Error::wrong_type());
    }
    Ok(Some(cache))
}

fn open_any(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedCache>> {
    let (db, text) = (ctx.db(), name.as_bytes());
    if let Some(cache) = CACHES.by_name(db, text) {
        return Ok(Some(cache));
    }
    let evicted = || CACHES.evicted_from(db, text);
    let Some(key) = Key::open(ctx, name, Access::Read) else { return Ok(evicted()) };
    match cache_in(&key) {
        Some(cache) => {
            if key.expire_at_ms() == 0 {
                CACHES.remember_name(db, text, &cache);
            }
            Ok(Some(cache))
        }
        None if key.is_empty() => Ok(evicted()),
        None => Err(Error::wrong_type()),
    }
}

/// Refuses what is to know all entries of a container while some are here that its index does not know yet.
pub fn need_index(cache: &SharedCache) -> Result<()> {
    if cache.with(|cache| cache.is_filling()) {
        let message = "the index is being filled from its entries";
        return Err(Error::new(ErrorWord::TryAgain, message));
    }
    Ok(())
}

/// Puts a cache into a key that is free, or replaces what it holds.
pub fn create_cache(ctx: WritePermit<'_>, name: &[u8], cache: &SharedCache) {
    let name_string = RString::new(name);
    let mut key = Key::open_to_write(ctx, &name_string);
    set_cache(&mut key, Arc::clone(cache));
    // A container is never the victim while there are others; see also the shield task.
    key.hint_lfu(u8::MAX);
    drop(key);
    cache_registry::place(cache, (ctx.db(), name.to_vec()));
    ctx.notify_module(c"llmcache.create", &name_string);
}

/// Puts the caches that the server evicted back into their keys, as they were; AOF and replicas are
/// told, since they were told of the eviction. Returns how many it put back.
pub fn put_back_evicted(ctx: WritePermit<'_>) -> u64 {
    put_back(ctx, &CACHES, create_cache, (CREATE_COMMAND, Cache::save_head))
}

/// Removes an opened key, and has AOF and replicas do so.
pub fn unlink_key(ctx: WritePermit<'_>, mut key: Key<'_>, name: &RString) {
    key.unlink();
    drop(key);
    ctx.replicate(c"UNLINK", &[name.as_bytes()]);
    ctx.notify_generic(c"del", name);
}
