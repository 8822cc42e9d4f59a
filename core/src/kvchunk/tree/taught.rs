//! The order of chunks that were stored without their prefix, learned from look-ups.
//!
//! Owns: for a chunk that follows none, which one comes before it in prompts. That decides who is evicted first and
//! nothing else: either is answered without the other, and a chunk that goes is forgotten by those behind it at once,
//! in one step, because they hold its epoch with its place. A chunk stored behind another takes no such link: what was
//! stored is the truth. No circle can come of it: only a chunk without followers is linked unseen, any other after a
//! walk of bounded length. Main thread.

use super::node::{NONE, NodeId, State};
use super::nodes::PrefixTree;
use crate::limits;
use crate::work;

impl PrefixTree {
    /// The chunk before this one, if it is there: that which it was stored behind, else that which was taught.
    pub fn ahead(&self, id: NodeId) -> Option<NodeId> {
        self.parent(id).or_else(|| self.taught_ahead(id.0).map(NodeId))
    }

    /// Teaches that a chunk comes behind another in prompts, both of which are there; false where nothing was to be
    /// learnt of that.
    pub fn teach(&mut self, ahead: NodeId, own: NodeId) -> bool {
        self.link(ahead.0, own.0)
    }

    pub(super) fn link(&mut self, ahead: u32, own: u32) -> bool {
        let node = &self.nodes[own as usize];
        let is_known = ahead == own || node.parent != NONE;
        if is_known || self.taught_ahead(own) == Some(ahead) {
            return false;
        }
        if !node.is_bare() && !self.is_clear_of(ahead, own) {
            return false;
        }
        self.forget_ahead(own);
        self.unorder(ahead);
        let above = &mut self.nodes[ahead as usize];
        above.taught_behind += 1;
        let epoch = above.epoch;
        let node = &mut self.nodes[own as usize];
        (node.taught_ahead, node.ahead_epoch) = (ahead, epoch);
        self.taught += 1;
        true
    }

    /// Links between chunks that were taught and hold.
    pub fn taught(&self) -> u64 {
        self.taught
    }

    fn taught_ahead(&self, slot: u32) -> Option<u32> {
        let node = &self.nodes[slot as usize];
        let above = self.nodes.get(node.taught_ahead as usize)?;
        (above.state == State::Here && above.epoch == node.ahead_epoch).then_some(node.taught_ahead)
    }

    /// Whether `own` is neither a chunk nor anything before it; false too where that takes too long to see.
    fn is_clear_of(&self, slot: u32, own: u32) -> bool {
        let up = |&slot: &u32| self.raw_parent(slot).or_else(|| self.taught_ahead(slot));
        let mut path = std::iter::successors(Some(slot), up);
        let mut steps = 0;
        let met = path.by_ref().take(limits::KV_TAUGHT_WALK).any(|slot| {
            steps += 1;
            slot == own
        });
        work::count_path(steps);
        !met && path.next().is_none()
    }

    /// A chunk follows none any more by what was taught.
    pub(super) fn forget_ahead(&mut self, slot: u32) {
        if let Some(ahead) = self.taught_ahead(slot) {
            self.nodes[ahead as usize].taught_behind -= 1;
            self.taught -= 1;
            self.order_again(ahead);
        }
        self.nodes[slot as usize].taught_ahead = NONE;
    }

    /// None follows a chunk any more by what was taught.
    pub(super) fn forget_behind(&mut self, slot: u32) {
        self.epochs += 1;
        let node = &mut self.nodes[slot as usize];
        node.epoch = self.epochs;
        self.taught -= u64::from(std::mem::take(&mut node.taught_behind));
    }

    /// Before a chunk that others were stored behind is put behind `parent`: where the first before that was taught
    /// to follow another, which might be one of those others, it is not any more.
    pub(super) fn forget_above(&mut self, slot: u32, parent: u32) {
        if self.taught == 0 || parent == NONE || self.nodes[slot as usize].first_child == NONE {
            return;
        }
        let up = std::iter::successors(Some(parent), |&slot| self.raw_parent(slot));
        let (mut steps, mut first) = (0, parent);
        for slot in up.take(limits::KV_CHAIN_MAX) {
            (steps, first) = (steps + 1, slot);
        }
        work::count_path(steps);
        self.forget_ahead(first);
    }
}
