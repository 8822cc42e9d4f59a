//! The `KVCHUNK.*` family: attention KV-cache chunks and the longest prefix of them.
//!
//! Owns: one file for commands that belong together; `chain` reads which chunks a command names.

mod chain;
pub(super) mod create;
pub(super) mod fetch;
pub(super) mod find;
pub(super) mod info;
pub(super) mod internal;
pub(super) mod matching;
mod page;
pub(super) mod put;
mod reach;
pub(super) mod remove;
pub(super) mod retention;
mod sparse;
mod storing;
pub mod tree;

use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_namespace;
use crate::keytype::Whole;
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::UnixMs;
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

/// How long a payload that fitted its checksum is answered without another look: reading it takes up to
/// a tenth of the time of answering it.
const SOUND_FOR_MS: u64 = 60_000;

/// Whether the payload of a chunk is what was stored, as of a short while ago.
fn was_sound_lately(ctx: Ctx<'_>, namespace: &SharedNamespace, chunk: &Whole) -> bool {
    let now = ctx.now_ms();
    let checked_at = namespace.with(|namespace| {
        let id = namespace.tree.find(&chunk.header.digest);
        id.map_or(UnixMs(0), |id| namespace.tree.node(id).checked_at)
    });
    now < checked_at.0 + SOUND_FOR_MS || is_sound(ctx, namespace, chunk)
}

/// Whether the payload of a chunk is what was stored. One that is not is a miss from here, and removed
/// in the next round.
fn is_sound(ctx: Ctx<'_>, namespace: &SharedNamespace, chunk: &Whole) -> bool {
    let (sound, now) = (chunk.is_sound(), UnixMs(ctx.now_ms()));
    namespace.with(|namespace| {
        namespace.stats.damaged += u64::from(!sound);
        match namespace.tree.find(&chunk.header.digest) {
            Some(id) if sound => namespace.tree.set_checked(id, now),
            Some(id) => namespace.tree.set_damaged(id),
            None => {}
        }
    });
    sound
}
