//! Deadlines along a prefix: none ends before one that follows it.
//!
//! Owns: raising them, and which deadline a chunk must at least have. Main thread.

use super::node::{NodeId, State};
use super::nodes::{PrefixTree, ends_before};
use crate::ids::UnixMs;
use crate::kvchunk::ChunkDigest;
use crate::work;

/// Children whose deadlines are looked at when their parent is stored again.
const CHILDREN_LOOKED_AT: u32 = 1_024;

impl PrefixTree {
    /// Raises the deadlines of all before a chunk to at least its own; answers those that moved. None ends
    /// before one that follows it, so the first that lasts as long ends the walk.
    pub fn raise_ancestors(&mut self, id: NodeId) -> Vec<NodeId> {
        let least = self.node(id).expire_at;
        // A ghost has the latest deadline of what follows it.
        let up = std::iter::successors(self.raw_parent(id.0), |&slot| self.raw_parent(slot));
        let is_short = |slot: &u32| ends_before(self.nodes[*slot as usize].expire_at, least);
        let mut short: Vec<u32> = up.take_while(is_short).collect();
        work::count_path(1 + short.len());
        for &slot in &short {
            self.nodes[slot as usize].expire_at = least;
        }
        short.retain(|&slot| self.nodes[slot as usize].state == State::Here);
        short.into_iter().map(NodeId).collect()
    }

    /// A chunk and those before it that end before `least`, last to first, which is where a longer chain moves deadlines.
    pub fn ending_before(&self, id: NodeId, least: UnixMs) -> Vec<NodeId> {
        let up = std::iter::successors(Some(id.0), |&slot| self.raw_parent(slot));
        let short = up.take_while(|&slot| ends_before(self.nodes[slot as usize].expire_at, least));
        let short: Vec<NodeId> = short.map(NodeId).collect();
        work::count_path(1 + short.len());
        short
    }

    /// Raises the deadline of one chunk, before which none may end sooner.
    pub fn raise(&mut self, id: NodeId, least: UnixMs) {
        let node = &mut self.nodes[id.0 as usize];
        if ends_before(node.expire_at, least) {
            node.expire_at = least;
        }
    }

    /// The deadline a chunk must at least have: its own or the latest of its children's. Of one with very many
    /// children, that which it had, which is not before any of theirs.
    pub fn deadline_for(&self, digest: &ChunkDigest, own: UnixMs) -> UnixMs {
        let Some(slot) = self.slot_of(digest) else { return own };
        let later = |latest, at| if ends_before(latest, at) { at } else { latest };
        let node = &self.nodes[slot as usize];
        if node.children_here > CHILDREN_LOOKED_AT {
            return later(own, node.expire_at);
        }
        work::count_path(node.children_here as usize);
        let below = self.children(slot).map(|child| &self.nodes[child as usize]);
        let here = below.filter(|child| child.state == State::Here).map(|child| child.expire_at);
        here.fold(own, later)
    }

    /// Whether chunks became leaves and have a deadline.
    pub fn has_new_leaves(&self) -> bool {
        !self.new_leaves.is_empty()
    }

    /// The next chunk that became a leaf and has a deadline.
    pub fn pop_new_leaf(&mut self) -> Option<ChunkDigest> {
        self.new_leaves.pop_front()
    }
}
