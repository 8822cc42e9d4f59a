//! The `LLMCACHE.*` family: answers cached exactly and by meaning.
//!
//! Owns: one file a command, named like it; `hit_reply` serves several.

pub(super) mod admin;
pub(super) mod create;
pub(super) mod entry;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod getsem;
mod hit_reply;
pub(super) mod internal;
pub(super) mod invalidate;
pub(super) mod lease;
pub(super) mod mgetsem;
pub(super) mod scan;
pub(super) mod setsem;
pub(super) mod stats;

use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_cache;
use crate::keytype::registry::SharedCache;
use llmcache_core::error::{Error, ErrorWord, Result};

/// The cache, where a command cannot do without.
fn need_cache(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
    let name = args.name();
    open_cache(ctx, &args.key())?.ok_or_else(|| no_cache(name))
}

fn no_cache(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
    Error::new(ErrorWord::NoCache, format!("there is no cache \"{name}\""))
}
