//! The prefix tree checked against itself, for tests.

use super::node::{NONE, Node, State};
use super::nodes::{PrefixTree, ends_before};

impl PrefixTree {
    /// Checks the tree against itself; for tests.
    ///
    /// # Panics
    /// When it contradicts itself.
    pub fn check_invariants(&self) {
        let here: Vec<(u32, &Node)> = (0u32..).zip(&self.nodes).collect();
        let count = |state| here.iter().filter(|(_, node)| node.state == state).count();
        assert_eq!(count(State::Here) as u64, self.chunks);
        assert_eq!(count(State::Ghost), self.ghosts.len());
        assert_eq!(count(State::Free), self.free.len());
        assert_eq!(self.by_digest.len(), count(State::Here) + count(State::Ghost));
        let live = || here.iter().filter(|(_, node)| node.state == State::Here);
        assert_eq!(live().map(|(_, node)| node.bytes).sum::<u64>(), self.bytes);
        assert_eq!(live().filter(|(_, node)| node.pinned).count() as u64, self.pinned);
        let mut ordered = 0;
        for &(slot, node) in here.iter().filter(|(_, node)| node.state != State::Free) {
            assert_eq!(self.slot_of(&node.digest), Some(slot));
            let children: Vec<u32> = self.children(slot).collect();
            for &child in &children {
                assert_eq!(self.nodes[child as usize].parent, slot);
                assert_ne!(self.nodes[child as usize].state, State::Free);
            }
            let below = children.iter().filter(|&&c| self.nodes[c as usize].state == State::Here);
            assert_eq!(below.count() as u32, node.children_here);
            if node.state == State::Ghost {
                assert!(!children.is_empty(), "a bare ghost");
                assert_eq!(node.parent, NONE, "a ghost that follows");
            }
            for &child in &children {
                let below = self.nodes[child as usize].expire_at;
                assert!(!ends_before(node.expire_at, below), "a chunk outlives one before it");
            }
            if let Some(content) = node.content {
                assert!(self.with_print(content.print).any(|id| id.0 == slot));
            }
            assert_eq!(node.ordered, node.may_go() && node.is_bare());
            if node.ordered {
                assert!(self.order.contains(&self.key_of(slot)));
                ordered += 1;
            }
        }
        assert_eq!(self.order.len(), ordered);
        self.check_taught();
        let alike =
            self.by_print.keys().map(|&print| self.with_print(print).count()).sum::<usize>();
        assert_eq!(alike, live().filter(|(_, node)| node.content.is_some()).count());
    }

    /// What was taught: counted right, of chunks that are there, and leading round in no circle.
    fn check_taught(&self) {
        let ahead = |slot: u32| {
            let node = &self.nodes[slot as usize];
            let above = self.nodes.get(node.taught_ahead as usize)?;
            let holds = above.epoch == node.ahead_epoch && above.state == State::Here;
            (node.state == State::Here && holds).then_some(node.taught_ahead)
        };
        let mut behind = vec![0; self.nodes.len()];
        for slot in 0..self.nodes.len() as u32 {
            if let Some(above) = ahead(slot) {
                assert_eq!(
                    self.nodes[slot as usize].parent, NONE,
                    "taught against what was stored"
                );
                behind[above as usize] += 1;
            }
            if self.taught == 0 {
                continue;
            }
            let up = |&slot: &u32| self.raw_parent(slot).or_else(|| ahead(slot));
            let path = std::iter::successors(Some(slot), up);
            assert!(path.take(self.nodes.len() + 1).count() <= self.nodes.len(), "a circle");
        }
        assert_eq!(behind.iter().map(|&count| u64::from(count)).sum::<u64>(), self.taught);
        for (node, count) in self.nodes.iter().zip(behind) {
            assert_eq!(node.taught_behind, count);
        }
    }
}
