//! The `KVCHUNK.*` family: attention KV-cache chunks and the longest prefix of them.
//!
//! Owns: one file for commands that belong together; `chain` reads which chunks a command names.

mod chain;
pub(super) mod create;
pub(super) mod fetch;
pub(super) mod find;
pub(super) mod hold;
pub(super) mod info;
pub(super) mod internal;
pub(super) mod put;
pub(super) mod remove;

use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_namespace;
use crate::keytype::namespaces::SharedNamespace;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::kvchunk::ChunkDigest;

/// The namespace, where a command cannot do without.
fn need_namespace(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedNamespace> {
    open_namespace(ctx, &args.key())?.ok_or_else(|| no_namespace(args.name()))
}

fn no_namespace(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
    Error::new(ErrorWord::NoCache, format!("there is no namespace \"{name}\""))
}

/// A digest as clients write it: lower-case hex digits.
fn hex_digest(text: &[u8]) -> Result<ChunkDigest> {
    ChunkDigest::from_hex(text)
        .ok_or_else(|| Error::err("a digest is 2 to 128 lower-case hex digits"))
}
