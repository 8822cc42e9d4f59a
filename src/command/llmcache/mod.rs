//! The `LLMCACHE.*` family: answers cached exactly and by meaning.
//!
//! Owns: one file a command, named like it, of those that only answers have; `container` has what `RAG.*` and
//! `EMBCACHE.*` have too.

pub(super) mod admin;
pub(super) mod audit;
mod audit_stats;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod getsem;
pub(super) mod internal;
pub(super) mod invalidate;
pub(super) mod mgetsem;
pub(super) mod near_misses;
pub(super) mod setsem;
pub(super) mod stats;

use crate::command::container::need_container;
use crate::ffi::{CommandArgs, Ctx};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::Kind;
use llmcache_core::error::Result;
use std::ffi::c_int;

/// The cache, where a command cannot do without.
fn need_cache(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache> {
    need_container(ctx, args, Kind::Answers)
}

/// The channel that tells of something that happened to a cache; that of a database other than 0 names it.
fn channel(what: &str, db: c_int, name: &[u8]) -> Vec<u8> {
    let before = match db {
        0 => format!("llmcache:{what}:"),
        db => format!("llmcache:{what}@{db}:"),
    };
    [before.as_bytes(), name].concat()
}
