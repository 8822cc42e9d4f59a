//! Chunks that arrive by loading, RESTORE, RENAME or MOVE, and come into the tree of their namespace.
//!
//! Main thread only.

use super::store::insert_node;
use crate::ffi::{Access, Ctx, Key, RString};
use crate::keytype::ChunkValue;
use crate::keytype::namespace_registry::{self, NAMESPACES};
use llmcache_core::ids::ContainerUid;
use std::ffi::c_int;

/// What became of a chunk that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSeen {
    /// The tree knows it, or has taken it in.
    Known,
    /// Its namespace does not live here.
    NoNamespace(ContainerUid),
    /// Only a stub is left of it.
    Stub,
    /// It stands under a name that is not its own, or does not fit: left alone.
    Foreign,
}

/// Looks at an opened chunk and takes it into the tree of its namespace.
pub fn attach_chunk(db: c_int, name: &[u8], value: &ChunkValue) -> ChunkSeen {
    let Some(whole) = value.whole() else { return ChunkSeen::Stub };
    let header = &whole.header;
    let Some(namespace) = NAMESPACES.find(header.uid, db) else {
        return ChunkSeen::NoNamespace(header.uid);
    };
    namespace.with(|namespace| {
        if *name != *namespace.chunk_key(&header.digest) {
            return ChunkSeen::Foreign;
        }
        if namespace.tree.find(&header.digest).is_some() {
            return ChunkSeen::Known;
        }
        if insert_node(namespace, name, whole, false, None).is_err() {
            return ChunkSeen::Foreign;
        }
        NAMESPACES.note_change(header.uid);
        ChunkSeen::Known
    })
}

/// Looks at the chunk in a key that arrived by loading, RESTORE, RENAME or MOVE; it waits where its
/// namespace is not there yet.
pub fn chunk_arrived(ctx: Ctx<'_>, name: &[u8]) {
    let place = (ctx.db(), name.to_vec());
    let Some(key) = Key::open(ctx, &RString::new(name), Access::Unasked) else { return };
    let Some(value) = key.value::<ChunkValue>() else { return };
    match attach_chunk(ctx.db(), name, value) {
        ChunkSeen::NoNamespace(uid) => NAMESPACES.wait_for(uid, place),
        ChunkSeen::Stub => namespace_registry::note_stub(place),
        ChunkSeen::Known | ChunkSeen::Foreign => {}
    }
}
