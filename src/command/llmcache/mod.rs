//! The `LLMCACHE.*` family: answers cached exactly and by meaning.
//!
//! Owns: one file a command, named like it, of those that only answers have; `container` has what `RAG.*` and
//! `EMBCACHE.*` have too.

pub(super) mod admin;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod getsem;
pub(super) mod internal;
pub(super) mod invalidate;
pub(super) mod mgetsem;
pub(super) mod setsem;
pub(super) mod stats;

use crate::command::container::need_container;
use crate::ffi::{CommandArgs, Ctx};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::Kind;
use llmcache_core::error::Result;

/// The cache, where a command cannot do without.
fn need_cache(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
    need_container(ctx, args, Kind::Answers)
}
