//! The `LLMCACHE.*` family: answers cached exactly and by meaning.
//!
//! Owns: one file a command, named like it; `hit_reply` serves several. What a command does for containers
//! of any kind takes the kind, and serves `RAG.*` and `EMBCACHE.*` too.

pub(super) mod admin;
pub(super) mod create;
pub(super) mod entry;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod getsem;
pub(super) mod hit_reply;
pub(super) mod internal;
pub(super) mod invalidate;
pub(super) mod lease;
pub(super) mod mgetsem;
pub(super) mod scan;
pub(super) mod setsem;
pub(super) mod stats;

use crate::command::store::shown;
use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_container;
use crate::keytype::registry::SharedCache;
use llmcache_core::cache::Kind;
use llmcache_core::error::{Error, ErrorWord, Result};

/// The cache, where a command cannot do without.
fn need_cache(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
    need_container(ctx, args, Kind::Answers)
}

/// The container, where a command cannot do without.
pub(super) fn need_container(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    kind: Kind,
) -> Result<SharedCache> {
    open_container(ctx, &args.key(), kind)?.ok_or_else(|| no_container(args.name(), kind))
}

/// The error of a container that does not exist.
pub(super) fn no_container(name: &[u8], kind: Kind) -> Error {
    let message = format!("there is no {} \"{}\"", kind.noun(), shown(name));
    Error::new(ErrorWord::NoCache, message)
}
