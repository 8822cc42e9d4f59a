//! Removing chunks: by name, and those that are evicted for room, leaves first.
//!
//! Main thread only.

use super::open::open_existing;
use crate::ffi::{RString, WritePermit};
use crate::keyspace::caches::unlink_key;
use crate::keytype::ChunkValue;
use crate::keytype::namespace_registry::{self, SharedNamespace};
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use llmcache_core::kvchunk::{ChunkDigest, Namespace, NodeId};

/// Removes the chunk in a key if it belongs to `uid`, or if only a stub is in it, and has AOF and
/// replicas remove it; false when there is neither.
pub fn remove_chunk(ctx: WritePermit<'_>, name: &[u8], uid: ContainerUid) -> bool {
    let name_string = RString::new(name);
    let Some(key) = open_existing(ctx, &name_string) else { return false };
    let whole = key.value::<ChunkValue>().and_then(ChunkValue::whole);
    if whole.is_some_and(|whole| whole.header.uid != uid) {
        return false;
    }
    unlink_key(ctx, key, &name_string);
    true
}

/// Removes a stub.
pub fn remove_stub(ctx: WritePermit<'_>, name: &[u8]) {
    let name_string = RString::new(name);
    if let Some(key) = open_existing(ctx, &name_string)
        && key.value::<ChunkValue>().is_some_and(|value| value.whole().is_none())
    {
        unlink_key(ctx, key, &name_string);
    }
}

/// Removes a chunk of a namespace; what the tree knew of it is gone in any case.
pub fn remove_node(ctx: WritePermit<'_>, namespace: &SharedNamespace, id: NodeId) -> bool {
    let (digest, name, uid) = namespace.with(|namespace| {
        let digest = namespace.tree.node(id).digest.clone();
        let name = namespace.chunk_key(&digest);
        (digest, name, namespace.uid())
    });
    let removed = remove_chunk(ctx, &name, uid);
    namespace.with(|namespace| {
        namespace.tree.remove(&digest);
        namespace_registry::note_work(namespace);
    });
    removed
}

/// Evicts until `need` more bytes fit into `room`, leaves first, never what `keep` names; false, and
/// nothing is evicted, when that cannot be.
pub fn make_room(
    ctx: WritePermit<'_>,
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> bool {
    let Some(plan) = plan_room(namespace, room, need, keep) else { return false };
    evict(ctx, namespace, plan);
    true
}

/// What has to go so that `need` more bytes fit into `room`; see `make_room`.
fn plan_room(
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> Option<Vec<NodeId>> {
    namespace.with(|namespace| {
        let Namespace { tree, leases, .. } = namespace;
        let over = (tree.chunk_bytes() + need).saturating_sub(room);
        if over == 0 {
            return Some(Vec::new());
        }
        let kept: Vec<NodeId> = keep.iter().filter_map(|digest| tree.find(digest)).collect();
        leases.grant(tree, KEEPING, &kept, MonotonicMs::NEVER);
        let plan = tree.plan_eviction(over, None);
        leases.release(tree, KEEPING);
        plan
    })
}

/// The same for who evicts them one by one, the first to go last: the tree may change in between.
pub fn doomed_for(
    namespace: &SharedNamespace,
    room: u64,
    need: u64,
    keep: &[&ChunkDigest],
) -> Vec<ChunkDigest> {
    let plan = plan_room(namespace, room, need, keep).unwrap_or_default();
    let name = |id: &NodeId| namespace.with(|n| n.tree.node(*id).digest.clone());
    plan.iter().rev().map(name).collect()
}

/// Evicts one of those, unless something follows or keeps it by now.
pub fn evict_one(ctx: WritePermit<'_>, namespace: &SharedNamespace, digest: &ChunkDigest) {
    if let Some(id) = namespace.with(|namespace| namespace.tree.evictable(digest)) {
        evict(ctx, namespace, vec![id]);
    }
}

/// Evicts until the chunks take no more than `room`, or until what is left is pinned, leased or before
/// such; at most `most` chunks. Returns how many went.
pub fn shrink_to(ctx: WritePermit<'_>, namespace: &SharedNamespace, room: u64, most: usize) -> u64 {
    let mut plan = namespace.with(|namespace| {
        let over = namespace.tree.chunk_bytes().saturating_sub(room);
        if over == 0 { Vec::new() } else { namespace.tree.plan_up_to(over, None).0 }
    });
    plan.truncate(most);
    evict(ctx, namespace, plan)
}

fn evict(ctx: WritePermit<'_>, namespace: &SharedNamespace, plan: Vec<NodeId>) -> u64 {
    let evicted = plan.into_iter().filter(|&id| remove_node(ctx, namespace, id)).count() as u64;
    namespace.with(|namespace| namespace.note_evicted(evicted));
    evicted
}

/// Names the lease that lasts while room is made; others are drawn above it.
const KEEPING: u64 = 0;
