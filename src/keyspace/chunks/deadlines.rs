//! Deadlines of chunks: none of a prefix ends before one that follows it, and only the key of a leaf has a deadline.
//!
//! Main thread only.

use super::open::open_existing;
use super::removal::remove_node;
use crate::ffi::{Ctx, RString, WritePermit};
use crate::keytype::ChunkValue;
use crate::keytype::namespace_registry::SharedNamespace;
use llmcache_core::ids::UnixMs;
use llmcache_core::kvchunk::ChunkDigest;

/// What is past its deadline among a chunk and those before it, to be removed so that what is stored behind
/// them does not bring them back; last to first.
pub fn due_before(
    ctx: Ctx<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
) -> Vec<ChunkDigest> {
    let now = UnixMs(ctx.now_ms());
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let path = tree
            .find(digest)
            .into_iter()
            .flat_map(|id| std::iter::once(id).chain(tree.ancestors(id)));
        // None ends before one that follows it.
        let due = path.take_while(|&id| tree.node(id).expire_at.is_past(now));
        due.map(|id| tree.node(id).digest.clone()).collect()
    })
}

/// Removes a chunk that `due_before` named, if it is due still.
pub fn remove_due(ctx: WritePermit<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    let now = UnixMs(ctx.now_ms());
    let due = namespace.with(|namespace| {
        let id = namespace.tree.find(digest)?;
        namespace.tree.node(id).expire_at.is_past(now).then_some(id)
    });
    if let Some(id) = due {
        remove_node(ctx, namespace, id);
    }
}

/// A chunk and those before it that end before `least`, last to first.
pub fn ending_before(
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    least: UnixMs,
) -> Vec<ChunkDigest> {
    namespace.with(|namespace| {
        let tree = &namespace.tree;
        let short = tree.find(digest).map(|id| tree.ending_before(id, least));
        short.into_iter().flatten().map(|id| tree.node(id).digest.clone()).collect()
    })
}

/// Raises the deadline of a chunk, in its key and in the tree. Of a prefix the first is raised first: none ends before
/// one that follows it.
pub fn raise_deadline(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    digest: &ChunkDigest,
    at: UnixMs,
) {
    let name = namespace.with(|namespace| {
        let id = namespace.tree.find(digest)?;
        namespace.tree.raise(id, at);
        Some(namespace.chunk_key(digest))
    });
    let Some(name) = name else { return };
    let name = RString::new(&name);
    let Some(mut key) = open_existing(ctx, &name) else { return };
    if let Some(header) = key.value_mut::<ChunkValue>().and_then(ChunkValue::header_mut)
        && !at_least(header.deadline, at)
    {
        header.deadline = at;
    }
}

/// Whether a deadline is not before another.
fn at_least(deadline: UnixMs, least: UnixMs) -> bool {
    deadline == UnixMs::NEVER || (least != UnixMs::NEVER && deadline >= least)
}

/// Gives the keys of chunks that became leaves their deadlines back, or removes what is due.
pub fn arm_new_leaves(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    in_time: impl Fn() -> bool,
) {
    while in_time() {
        let Some(digest) = namespace.with(|namespace| namespace.tree.pop_new_leaf()) else {
            return;
        };
        let leaf = namespace.with(|namespace| {
            let id = namespace.tree.find(&digest)?;
            let node = namespace.tree.node(id);
            node.is_leaf().then(|| (id, node.expire_at, namespace.chunk_key(&digest)))
        });
        let Some((id, expire_at, name)) = leaf else { continue };
        if expire_at == UnixMs::NEVER {
            continue;
        }
        if expire_at.is_past(UnixMs(ctx.now_ms())) {
            remove_node(ctx, namespace, id);
            continue;
        }
        let name_string = RString::new(&name);
        if let Some(mut key) = open_existing(ctx, &name_string)
            && key.expire_at_ms() == 0
        {
            key.set_expire_at_ms(expire_at.0);
            drop(key);
            ctx.replicate(c"PEXPIREAT", &[&name, expire_at.0.to_string().as_bytes()]);
            ctx.notify_generic(c"expire", &name_string);
        }
    }
}
