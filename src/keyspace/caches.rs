//! Opening and making the key of a cache.

use crate::ffi::{Access, Ctx, Key, RString, ServerString};
use crate::keytype::registry::{self, CACHES, SharedCache};
use crate::keytype::{CREATE_COMMAND, CacheValue};
use llmcache_core::error::{Error, ErrorWord, Result};

/// The cache in a key: `None` when there is no such key, an error when it holds something else. The
/// key is opened the first time only; that caches are in use is told by the shield. A cache that the
/// server evicted a moment ago is there all the same.
pub fn open_cache(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedCache>> {
    let (db, text) = (ctx.db(), name.as_bytes());
    if let Some(cache) = CACHES.by_name(db, text) {
        return Ok(Some(cache));
    }
    let evicted = || CACHES.evicted_from(db, text);
    let Some(key) = Key::open(ctx, name, Access::Read) else { return Ok(evicted()) };
    match key.value::<CacheValue>() {
        Some(value) => {
            if key.expire_at_ms() == 0 {
                CACHES.remember_name(db, text, &value.0);
            }
            Ok(Some(value.0.clone()))
        }
        None if key.is_empty() => Ok(evicted()),
        None => Err(Error::new(
            ErrorWord::WrongType,
            "Operation against a key holding the wrong kind of value",
        )),
    }
}

/// Puts a cache into a key that is free, or replaces what it holds.
pub fn create_cache(ctx: Ctx<'_>, name: &[u8], value: CacheValue) -> SharedCache {
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

/// Puts the caches that the server evicted back into their keys, as they were; AOF and replicas are
/// told, since they were told of the eviction. Leaves them for later while nothing may be written.
/// Answers how many it put back.
pub fn put_back_evicted(ctx: Ctx<'_>, may_write: bool) -> u64 {
    let evicted = CACHES.take_evicted();
    if !may_write {
        CACHES.put_back_evicted(evicted);
        return 0;
    }
    let mut put_back = 0;
    for cache in evicted {
        if !ctx.select_db(cache.place.0) {
            continue;
        }
        let name = cache.place.1.clone();
        let name_string = RString::new(&name);
        if Key::open(ctx, &name_string, Access::Probe).is_some() {
            CACHES.give_up(cache);
            continue;
        }
        put_back += 1;
        let expire_at_ms = cache.expire_at_ms;
        let shared = create_cache(ctx, &name, CacheValue(cache.container));
        let head = shared.with(|cache| cache.save_head());
        ctx.replicate(CREATE_COMMAND, &[&name, &head]);
        if expire_at_ms > 0 {
            open_for_write(ctx, &name_string).set_expire_at_ms(expire_at_ms);
            ctx.replicate(c"PEXPIREAT", &[&name, expire_at_ms.to_string().as_bytes()]);
        }
    }
    put_back
}

/// Opens a key for writing, which never fails: an absent key opens empty.
pub(super) fn open_for_write<'a>(ctx: Ctx<'a>, name: &impl ServerString) -> Key<'a> {
    Key::open(ctx, name, Access::Write).expect("the server opens absent keys for writing")
}
