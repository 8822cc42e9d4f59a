//! Leases: chunks kept from BUDGET between a match and a fetch. Of this process only.
//!
//! Owns: which lease holds which chunks, and when it lapses. Main thread.

use super::{NodeId, PrefixTree};
use crate::ids::UnixMs;
use std::collections::{BTreeSet, HashMap};

/// Name of a lease, drawn at random so that those of an earlier process name none of this one.
pub type LeaseId = u64;

/// A chunk as it was when it was leased: its node and the life of that node.
type Held = (NodeId, u32);

/// The leases of a namespace.
#[derive(Debug, Default)]
pub struct Leases {
    held: HashMap<LeaseId, (UnixMs, Vec<Held>)>,
    due: BTreeSet<(UnixMs, LeaseId)>,
}

impl Leases {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Leases nodes of the tree until `until`.
    pub fn grant(&mut self, tree: &mut PrefixTree, id: LeaseId, nodes: &[NodeId], until: UnixMs) {
        self.release(tree, id);
        let held = nodes.iter().map(|&node| (node, tree.lease(node))).collect();
        self.held.insert(id, (until, held));
        self.due.insert((until, id));
    }

    /// Ends a lease; answers how many chunks it still held.
    pub fn release(&mut self, tree: &mut PrefixTree, id: LeaseId) -> usize {
        let Some((until, held)) = self.held.remove(&id) else { return 0 };
        self.due.remove(&(until, id));
        held.into_iter().filter(|&(node, life)| tree.unlease(node, life)).count()
    }

    /// Ends those whose time is over.
    pub fn lapse(&mut self, tree: &mut PrefixTree, now: UnixMs) {
        while let Some(&(until, id)) = self.due.first()
            && until.is_past(now)
        {
            self.release(tree, id);
        }
    }

    /// Forgets all: the tree was emptied.
    pub fn clear(&mut self) {
        self.held.clear();
        self.due.clear();
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> usize {
        self.held.values().map(|(_, held)| 96 + held.len() * size_of::<Held>()).sum()
    }
}
