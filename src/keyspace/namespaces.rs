//! Opens and creates the key of a namespace of KV-cache chunks.

use super::chunks::chunk_arrived;
use super::put_back::put_back;
use super::slots::Presence;
use crate::ffi::{Access, Ctx, Key, RString, ServerString, WritePermit};
use crate::keytype::cache_registry;
use crate::keytype::namespace_registry::{self, NAMESPACES, SharedNamespace};
use crate::keytype::{NAMESPACE_COMMAND, NamespaceValue};
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::Namespace;

/// Arrivals that one command takes in; more are taken in between commands.
const ATTACH_AT_ONCE: usize = 4_096;

/// The namespace in a key: `None` when there is no such key, an error when it holds something else, or may be on
/// another server. One that the server evicted a moment ago is there all the same.
pub fn open_namespace(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedNamespace>> {
    let found = find_namespace(ctx, name)?;
    Presence::of(ctx, name.as_bytes()).found(found)
}

/// The same for a look-up, which may miss: `None` also where the key may be on another server.
pub fn find_namespace(ctx: Ctx<'_>, name: &impl ServerString) -> Result<Option<SharedNamespace>> {
    attach_a_few(ctx);
    let evicted = || NAMESPACES.evicted_from(ctx.db(), name.as_bytes());
    let Some(key) = Key::open(ctx, name, Access::Read) else { return Ok(evicted()) };
    match key.value::<NamespaceValue>() {
        Some(value) => Ok(Some(value.0.clone())),
        None if key.is_empty() => Ok(evicted()),
        None => Err(Error::wrong_type()),
    }
}

/// Takes chunks that arrived lately into their trees, so that a command sees them.
///
/// While an AOF is loaded, all of them: a store that is read behind its preamble raises the deadlines of the chunks
/// before it, as it did when it was told.
pub fn attach_a_few(ctx: Ctx<'_>) {
    let db = ctx.db();
    let most = if cache_registry::is_loading() { usize::MAX } else { ATTACH_AT_ONCE };
    for _ in 0..most {
        let Some((at, key)) = NAMESPACES.next_arrival() else { break };
        if ctx.select_db(at) {
            chunk_arrived(ctx, &key);
        }
    }
    if ctx.db() != db {
        ctx.select_db(db);
    }
}

/// Puts a namespace into a key that is free, or replaces what it holds.
pub fn create_namespace(
    ctx: WritePermit<'_>,
    name: &[u8],
    value: NamespaceValue,
) -> SharedNamespace {
    let shared = value.0.clone();
    let name_string = RString::new(name);
    let mut key = Key::open_to_write(ctx, &name_string);
    key.set::<NamespaceValue>(Box::new(value.clone()));
    key.hint_lfu(u8::MAX);
    drop(key);
    namespace_registry::place(&value.0, (ctx.db(), name.to_vec()));
    ctx.notify_module(c"kvchunk.create", &name_string);
    shared
}

/// Puts the namespaces that the server evicted back into their keys, and tells AOF and replicas, which
/// were told of the eviction.
pub fn put_back_namespaces(ctx: WritePermit<'_>) {
    let create = |ctx: WritePermit<'_>, name: &[u8], namespace: &SharedNamespace| {
        create_namespace(ctx, name, NamespaceValue(namespace.clone()));
    };
    put_back(ctx, &NAMESPACES, create, (NAMESPACE_COMMAND, Namespace::save_head));
}
