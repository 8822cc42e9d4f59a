//! Chunks that no prefix reaches, found for removal.
//!
//! Owns: the walk below ghosts. Main thread.

use super::node::{NONE, NodeId};
use super::nodes::PrefixTree;
use crate::ids::MonotonicMs;
use crate::work;

impl PrefixTree {
    /// Chunks that no prefix reaches, children before parents, at most `most`. `since` decides by the moment
    /// their ghost was first looked at, which it may set.
    pub fn orphans(
        &mut self,
        most: usize,
        mut since: impl FnMut(&mut Option<MonotonicMs>) -> bool,
    ) -> Vec<NodeId> {
        let mut out = Vec::new();
        for &slot in &self.ghosts {
            if out.len() >= most {
                break;
            }
            if since(&mut self.nodes[slot as usize].since) {
                out.extend(self.below(slot).take(most - out.len()));
            }
        }
        work::count_path(self.ghosts.len().min(most) + out.len());
        out
    }

    /// The chunks below a ghost, children before parents, found one by one.
    pub(super) fn below(&self, ghost: u32) -> impl Iterator<Item = NodeId> + '_ {
        let leftmost = |mut slot: u32| {
            while self.nodes[slot as usize].first_child != NONE {
                slot = self.nodes[slot as usize].first_child;
            }
            slot
        };
        let first = Some(leftmost(ghost)).filter(|&slot| slot != ghost);
        std::iter::successors(first, move |&slot| {
            let node = &self.nodes[slot as usize];
            match node.next_sibling {
                NONE => Some(node.parent).filter(|&parent| parent != ghost),
                next => Some(leftmost(next)),
            }
        })
        .map(NodeId)
    }
}
