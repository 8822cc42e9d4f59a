//! Walks up many prefixes at once: what several chunks have before them is visited once.
//!
//! Owns: what is known of a tree for the time of one command. Nothing here outlives a change of the tree, but
//! for `Lineage`, which is told of what its command stores. Main thread.

use super::change::Refused;
use super::node::{NONE, NodeId};
use super::nodes::PrefixTree;
use crate::ids::UnixMs;
use crate::kvchunk::ChunkDigest;
use crate::limits;
use crate::work;
use hashbrown::{HashMap, HashSet};

/// In `Reach`: something before the chunk is not there.
const LOST: u32 = 0;

/// Which of many chunks a prefix leads to; no step of their prefixes is walked twice. Good until the tree changes.
#[derive(Debug)]
pub struct Reach {
    now: UnixMs,
    /// How many chunks the prefix has that ends with one, or `LOST`.
    lengths: HashMap<u32, u32>,
}

impl Reach {
    /// Nothing is known yet.
    pub fn new(now: UnixMs) -> Self {
        Self { now, lengths: HashMap::new() }
    }

    /// Whether a chunk and all before it are there, sound and within their deadlines.
    pub fn is_reachable(&mut self, tree: &PrefixTree, id: NodeId) -> bool {
        let (mut walked, mut length, mut is_lost) = (Vec::new(), 0, false);
        let mut at = Some(id.0);
        while let Some(slot) = at {
            if let Some(&known) = self.lengths.get(&slot) {
                (length, is_lost) = (known, known == LOST);
                break;
            }
            walked.push(slot);
            if walked.len() > limits::KV_CHAIN_MAX || !tree.is_sound(slot, self.now) {
                is_lost = true;
                break;
            }
            at = tree.raw_parent(slot);
        }
        work::count_path(1 + walked.len());
        for slot in walked.into_iter().rev() {
            length += 1;
            is_lost |= length as usize > limits::KV_CHAIN_MAX;
            self.lengths.insert(slot, if is_lost { LOST } else { length });
        }
        !is_lost
    }
}

/// A chunk and all before it, to which a command adds what it stores behind them: tells at once what would close
/// a circle.
#[derive(Debug)]
pub struct Lineage {
    names: HashSet<ChunkDigest>,
}

impl Lineage {
    /// Whether a chunk of this name may follow the last one.
    pub fn check(&self, digest: &ChunkDigest) -> Result<(), Refused> {
        if self.names.contains(digest) {
            return Err(Refused::Circle);
        }
        if self.names.len() >= limits::KV_CHAIN_MAX { Err(Refused::TooLong) } else { Ok(()) }
    }

    /// The chunk, which the tree has by now, is the last one.
    pub fn push(&mut self, tree: &PrefixTree, digest: &ChunkDigest) {
        if !self.names.insert(digest.clone()) {
            return;
        }
        // One that was there already may follow another than the last one.
        let own = tree.slot_of(digest);
        let up = std::iter::successors(own, |&slot| tree.raw_parent(slot)).skip(1);
        for slot in up.take(limits::KV_CHAIN_MAX) {
            work::count_path(1);
            if !self.names.insert(tree.nodes[slot as usize].digest.clone()) {
                return;
            }
        }
    }
}

impl PrefixTree {
    /// What a chunk has before it, itself included.
    pub fn lineage(&self, last: Option<&ChunkDigest>) -> Lineage {
        let mut lineage = Lineage { names: HashSet::new() };
        if let Some(last) = last {
            lineage.push(self, last);
        }
        lineage
    }

    /// The next after `at` on a walk over a chunk and all that follow it, parents first; what follows `at` itself
    /// is left out unless `below`. A whole walk takes two steps a chunk.
    pub fn next_below(&self, root: NodeId, at: NodeId, below: bool) -> Option<NodeId> {
        let node = |slot: u32| &self.nodes[slot as usize];
        let mut slot = at.0;
        let mut steps = 1;
        let mut next = if below { node(slot).first_child } else { NONE };
        while next == NONE && slot != root.0 && slot != NONE {
            next = node(slot).next_sibling;
            slot = node(slot).parent;
            steps += 1;
        }
        work::count_path(steps);
        (next != NONE).then_some(NodeId(next))
    }

    /// A chunk without followers among those at and below this one: the first on a walk that meets children
    /// before parents.
    pub fn first_leaf(&self, id: NodeId) -> NodeId {
        let first = |&slot: &u32| {
            let child = self.nodes[slot as usize].first_child;
            (child != NONE).then_some(child)
        };
        let (leaf, depth) =
            std::iter::successors(Some(id.0), first).fold((id.0, 0), |(_, n), slot| (slot, n + 1));
        work::count_path(depth);
        NodeId(leaf)
    }
}
