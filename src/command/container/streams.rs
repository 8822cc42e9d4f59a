//! Streams that a container writes to: the loader, which misses of `FETCH VIA` go to, and the sink, which receives
//! stored answers (write-behind).
//!
//! Owns: in whose name they are written to. Whoever set one by `CONFIG SET` was asked for the right to it. One that came
//! with a dump was set by nobody, so the caller of each command that would write to it is asked. Main thread only.

use crate::ffi::command::KeyUse;
use crate::ffi::{Ctx, RString};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::Outlet;
use llmcache_core::error::{Error, ErrorWord, Result};

/// The stream, if the container names one. Refuses the command of a caller who may not write to it, where nobody was
/// asked before.
pub fn stream_of(ctx: Ctx<'_>, cache: &SharedCache, outlet: Outlet) -> Result<Option<Box<[u8]>>> {
    let (stream, is_restored) = cache.with(|cache| {
        let settings = &cache.settings;
        (Box::<[u8]>::from(settings.stream(outlet)), settings.is_restored(outlet))
    });
    if stream.is_empty() {
        return Ok(None);
    }
    if is_restored {
        check_permission(ctx, &RString::new(&stream))?;
    }
    Ok(Some(stream))
}

/// Refuses a caller who may not read and append to a stream.
pub fn check_permission(ctx: Ctx<'_>, stream: &RString) -> Result<()> {
    let may = |how| ctx.may_use_key(stream, how);
    if may(KeyUse::Read) && may(KeyUse::Insert) {
        return Ok(());
    }
    Err(Error::new(ErrorWord::NoPerm, "the stream is not open to this user"))
}
