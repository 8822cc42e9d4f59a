//! `LLMCACHE._CREATE` and `LLMCACHE._ENTRY`: what AOF and replicas are told. Everything is spelled
//! out, nothing is decided here; the bytes are treated as hostile all the same.

use crate::command::parse::ArgReader;
use crate::ffi::{CommandArgs, Ctx, MainCell, RString, Reply};
use crate::keyspace::{Linking, NewEntry, attach_arrival, create_cache, mark_stale, put_entry};
use crate::keytype::CREATE_COMMAND;
use crate::keytype::cache_registry::{CACHES, SharedCache};
use llmcache_core::cache::{Cache, Entry};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use std::sync::Arc;

/// Runs `LLMCACHE._CREATE key head`.
pub fn run_create(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let name = args.name();
    let mut reader = ArgReader::new(args.options());
    let head = reader.next("the cache")?;
    reader.finish()?;
    let cache =
        Cache::load_head(head).map_err(|error| Error::err(format!("bad cache head: {error}")))?;
    // Where entries of it are here, as after the primary's server evicted the key, it takes over their index. A slot
    // that migrates atomically brings a cache and its entries again: what it was here before is of no use.
    let state = ctx.state();
    if !state.is_replica() && !state.is_loading() {
        CACHES.forget_gone(cache.uid());
    }
    create_cache(args.permit(), name, &Arc::new(MainCell::new(cache)));
    args.permit().replicate(CREATE_COMMAND, &[name, head]);
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs `LLMCACHE._ENTRY key entry [PXAT ms]`. The entry finds its container by uid; where that is
/// not there yet, the entry waits for it.
pub fn run_entry(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let key = args.name();
    let mut reader = ArgReader::new(args.options());
    let bytes = reader.next("the entry")?;
    let expire_at = match reader.option() {
        None => UnixMs::NEVER,
        Some(word) if word.as_str() == "PXAT" => {
            UnixMs(reader.integer("PXAT", 1, i64::MAX as u64 / 2)?)
        }
        Some(word) => return Err(word.unknown()),
    };
    reader.finish()?;
    let mut entry =
        Entry::from_bytes(bytes.into()).map_err(|e| Error::err(format!("bad entry: {e}")))?;
    entry.set_slot(llmcache_core::ids::SlotId::NONE);
    let uid = entry.view().uid();
    // Under a name that is not its own, as RENAME and RESTORE leave entries, it belongs to no index, as it does not there.
    let own = |cache: &SharedCache| {
        let view = entry.view();
        cache.with(|cache| *key == *cache.named_key(&view.id_text()) && cache.is_of_kind(&view))
    };
    let cache = CACHES.find(uid, ctx.db()).filter(own);
    put_entry(
        args.permit(),
        cache.as_ref(),
        NewEntry {
            key: key.into(),
            entry,
            text: None,
            words: None,
            expire_at,
            linking: Linking::AlongTheWay,
            hits: 0,
        },
    );
    match (&cache, CACHES.place_of(uid).filter(|(db, _)| *db == ctx.db())) {
        (Some(_), Some((_, name))) => ctx.signal_modified(&RString::new(&name)),
        _ => {
            attach_arrival(ctx, key, true);
        }
    }
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs `LLMCACHE._STALE entry-key`: marks an entry stale, as the primary did.
pub fn run_stale(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    ArgReader::new(args.options()).finish()?;
    mark_stale(args.permit(), args.name());
    Reply::new(ctx).ok();
    Ok(())
}
