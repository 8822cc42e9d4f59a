//! `LLMCACHE.DROP` and `RAG.DROP`: remove a container with all its entries.

use crate::command::parse::ArgReader;
use crate::ffi::{CommandArgs, Ctx, Key, RString, Reply};
use crate::keyspace::{open_container, unlink_key};
use crate::keytype::cache_in;
use llmcache_core::cache::Kind;
use llmcache_core::error::Result;

/// Runs `LLMCACHE.DROP`: the cache goes at once, its entries in the background.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    drop_container(ctx, args, Kind::Answers)
}

/// Drops a container of this kind.
pub fn drop_container(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    ArgReader::new(args.options()).finish()?;
    if open_container(ctx, &args.key(), kind)?.is_none() {
        Reply::new(ctx).int(0);
        return Ok(());
    }
    let name = RString::new(args.name());
    let key = Key::open_to_write(args.permit(), &name);
    let key = cache_in(&key).is_some().then_some(key);
    let dropped = key.is_some();
    if let Some(key) = key {
        unlink_key(args.permit(), key, &name);
    }
    Reply::new(ctx).int(i64::from(dropped));
    Ok(())
}
