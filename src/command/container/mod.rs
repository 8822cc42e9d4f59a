//! Code shared by all kinds of containers: answers, documents and embeddings are created, stored, listed, fetched and
//! removed alike.
//!
//! Owns: these verbs, which take the kind. Must not know: a family; `llmcache`, `rag` and `embcache` use it.

pub(super) mod batch;
pub(super) mod create;
pub(super) mod drop;
pub(super) mod entry;
pub(super) mod fetch;
pub(super) mod fetch_request;
pub(super) mod hit_reply;
pub(super) mod lease;
pub(super) mod note;
pub(super) mod picking;
pub(super) mod scan;
pub(super) mod settings;
pub(super) mod store;
pub(super) mod streams;
pub(super) mod texts;
pub(super) mod told;

use crate::ffi::{CommandArgs, Ctx};
use crate::keyspace::open_container;
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::Kind;
use llmcache_core::error::{Error, ErrorWord, Result};
use store::shown;

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
