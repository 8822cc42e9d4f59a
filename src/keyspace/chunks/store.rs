//! Storing a chunk: its key, its place in the tree, the deadlines of those before it, AOF and replicas. And pinning it.
//!
//! Main thread only.

use super::open::{open_chunk, open_existing};
use crate::ffi::{Access, Key, RString, WritePermit};
use crate::keyspace::attach::key_frame_bytes;
use crate::keytype::namespace_registry::{self, NAMESPACES, SharedNamespace};
use crate::keytype::{CHUNK_COMMAND, ChunkValue, Whole, put_args};
use llmcache_core::error::Error;
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::{ChunkDigest, ChunkKey, Durable, Namespace, NewNode, NodeId, Refused};

/// A chunk on its way into its key.
#[derive(Debug)]
pub struct NewChunk {
    /// Its key.
    pub key: ChunkKey,
    /// It.
    pub whole: Whole,
    /// Where the primary said so: the deadline of the key itself.
    pub key_expire_at: Option<UnixMs>,
    /// Whether it is known that the chunk may follow the one before it.
    pub fits: bool,
    /// The chunk it comes behind in prompts, where it is stored for itself.
    pub ahead: Option<ChunkDigest>,
}

/// Memory a chunk's key takes.
pub fn chunk_bytes(key: &[u8], whole: &Whole) -> u64 {
    (key_frame_bytes(key) + whole.memory_bytes()) as u64
}

/// Takes a chunk into the tree, which was asked already where it `fits`. One of another fingerprint than the
/// namespace's is known as damaged: a miss, removed in the next round.
pub(super) fn insert_node(
    namespace: &mut Namespace,
    key: &[u8],
    whole: &Whole,
    fits: bool,
    ahead: Option<&ChunkDigest>,
) -> std::result::Result<NodeId, Refused> {
    let header = &whole.header;
    let new = NewNode {
        digest: &header.digest,
        parent: header.parent.as_ref(),
        content: header.content,
        position: header.position,
        bytes: chunk_bytes(key, whole),
        payload_bytes: header.payload_bytes,
        expire_at: header.deadline,
        prio: header.prio,
        pinned: header.pinned,
    };
    let tree = &mut namespace.tree;
    let id = if fits { tree.insert_behind(&new, ahead) } else { tree.insert(&new)? };
    if header.fingerprint != *namespace.fingerprint() {
        namespace.tree.set_damaged(id);
    }
    namespace_registry::note_work(namespace);
    Ok(id)
}

/// Stores a chunk: key, tree, deadlines of those before it, AOF and replicas, keyspace event. Eviction hints are given
/// by the command, with `use_stored`, once for all it stores. What the key held before left the tree by the removal hook.
pub fn put_chunk(ctx: WritePermit<'_>, namespace: Option<&SharedNamespace>, new: NewChunk) {
    let NewChunk { key: name, whole, key_expire_at, fits, ahead } = new;
    let (durable, own) = (whole.durable, whole.header.deadline);
    let uid = whole.header.uid;
    let name_string = RString::new(&name);
    let mut key = Key::open_to_write(ctx, &name_string);
    key.set::<ChunkValue>(Box::new(ChunkValue::Whole(Box::new(whole))));
    let mut node = None;
    if let Some(whole) = key.value::<ChunkValue>().and_then(ChunkValue::whole)
        && let Some(namespace) = namespace
    {
        node = namespace
            .with(|namespace| insert_node(namespace, &name, whole, fits, ahead.as_ref()).ok());
    }
    let is_leaf = |namespace: &SharedNamespace, id: NodeId| {
        namespace.with(|namespace| namespace.tree.node(id).is_leaf())
    };
    let expire_at = key_expire_at.unwrap_or_else(|| match (namespace, node) {
        (Some(namespace), Some(id)) if !is_leaf(namespace, id) => UnixMs::NEVER,
        _ => own,
    });
    key.set_expire_at_ms(expire_at.0);
    if durable == Durable::Full
        && let Some(whole) = key.value::<ChunkValue>().and_then(ChunkValue::whole)
    {
        ctx.replicate_strings(CHUNK_COMMAND, &put_args(&name, whole, expire_at.0));
    }
    drop(key);
    match (namespace, node) {
        (Some(namespace), Some(id)) => settle_ancestors(ctx, namespace, id),
        (None, _) if NAMESPACES.find(uid, ctx.db()).is_none() => {
            NAMESPACES.wait_for(uid, (ctx.db(), name.to_vec()));
        }
        // It is none of the namespace's own.
        _ => {}
    }
    ctx.notify_module(c"kvchunk.put", &name_string);
}

/// What a new chunk does to those before it: deadlines not before its own, no deadline of the key of
/// what is not a leaf any more.
fn settle_ancestors(ctx: WritePermit<'_>, namespace: &SharedNamespace, id: NodeId) {
    let (raised, parent) = namespace.with(|namespace| {
        let raised = namespace.tree.raise_ancestors(id);
        let key = |id: &NodeId| namespace.chunk_key(&namespace.tree.node(*id).digest);
        let at = namespace.tree.node(id).expire_at;
        let raised: Vec<_> = raised.iter().map(|id| (key(id), at)).collect();
        (raised, namespace.tree.parent(id).map(|id| key(&id)))
    });
    for (name, at) in raised {
        let name_string = RString::new(&name);
        let Some(mut key) = open_existing(ctx, &name_string) else { continue };
        if let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut) {
            header.deadline = at;
        }
    }
    // Replicas and the AOF are told which keys lost their deadline.
    if !ctx.state().must_obey()
        && let Some(name) = parent
    {
        let name_string = RString::new(&name);
        if let Some(mut key) = open_existing(ctx, &name_string)
            && key.expire_at_ms() > 0
        {
            key.set_expire_at_ms(0);
            drop(key);
            ctx.replicate(c"PERSIST", &[&name]);
            ctx.notify_generic(c"persist", &name_string);
        }
    }
}

/// Pins a chunk or lets it go, in its key and in the tree; false when it was so already or is not
/// there.
pub fn pin_chunk(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    pinned: bool,
) -> bool {
    if open_chunk(*ctx, namespace, digest, Access::Probe).is_none() {
        return false;
    }
    let name = RString::new(&namespace.with(|namespace| namespace.chunk_key(digest)));
    let Some(mut key) = open_existing(ctx, &name) else { return false };
    let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut) else {
        return false;
    };
    if header.pinned == pinned {
        return false;
    }
    header.pinned = pinned;
    if pinned {
        key.hint_lfu(u8::MAX);
        key.hint_used_now();
    }
    drop(key);
    namespace.with(|namespace| {
        if let Some(id) = namespace.tree.find(digest) {
            namespace.tree.set_pinned(id, pinned);
        }
    });
    true
}

/// The error of a chunk that the tree refuses.
pub fn refused_parent(refused: Refused) -> Error {
    Error::err(match refused {
        Refused::Circle => "PARENT would have the chunk follow itself",
        Refused::TooLong => "the chain of chunks is too long",
    })
}
