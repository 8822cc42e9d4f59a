//! Leases: they keep chunks from eviction between a match and a fetch. Kept in this process only. Of this process
//! only.
//!
//! Owns: which lease holds which chunks, and when it lapses. Main thread.

use super::{NodeId, PrefixTree};
use crate::account::{Account, Holding};
use crate::ids::MonotonicMs;
use crate::limits::{KV_LEASED_CHUNKS_MAX, KV_LEASES_MAX};
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// Name of a lease, drawn at random so that those of an earlier process name none of this one.
pub type LeaseId = u64;

/// A chunk as it was when it was leased: its node and the life of that node.
type Held = (NodeId, u32);

/// The leases of a namespace.
#[derive(Debug, Default)]
pub struct Leases {
    held: HashMap<LeaseId, (MonotonicMs, Vec<Held>)>,
    due: BTreeSet<(MonotonicMs, LeaseId)>,
    /// Chunks that all of them hold together, each as often as it is held.
    chunks: usize,
    holding: Holding<4>,
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

    /// Whether there are as many as there may be, or they hold as many chunks.
    pub fn is_full(&self) -> bool {
        self.held.len() >= KV_LEASES_MAX || self.chunks >= KV_LEASED_CHUNKS_MAX
    }

    /// Counts them with the account of the trees, as its fourth number.
    pub fn open_account(&mut self, account: &'static Account<4>) {
        self.holding.open(account);
        self.tell();
    }

    /// Counts with no account any more.
    pub fn close_account(&mut self) {
        self.holding.close();
    }

    fn tell(&mut self) {
        self.holding.tell_one(3, self.held.len() as u64);
    }

    /// When the next one lapses.
    pub fn next_lapse(&self) -> Option<MonotonicMs> {
        self.due.first().map(|&(until, _)| until).filter(|&until| until != MonotonicMs::NEVER)
    }

    /// Leases nodes of the tree until `until`.
    pub fn grant(
        &mut self,
        tree: &mut PrefixTree,
        id: LeaseId,
        nodes: &[NodeId],
        until: MonotonicMs,
    ) {
        self.release(tree, id);
        let held: Vec<_> = nodes.iter().map(|&node| (node, tree.lease(node))).collect();
        self.chunks += held.len();
        self.held.insert(id, (until, held));
        self.due.insert((until, id));
        self.tell();
    }

    /// Has a lease hold one more node; false where it has ended.
    pub fn add(&mut self, tree: &mut PrefixTree, id: LeaseId, node: NodeId) -> bool {
        let Some((_, held)) = self.held.get_mut(&id) else { return false };
        held.push((node, tree.lease(node)));
        self.chunks += 1;
        true
    }

    /// Ends a lease for at most `most` of its chunks; returns how many it still held, and whether some are left.
    pub fn release_some(
        &mut self,
        tree: &mut PrefixTree,
        id: LeaseId,
        most: usize,
    ) -> (usize, bool) {
        let Some((_, held)) = self.held.get_mut(&id) else { return (0, false) };
        let rest = held.len().saturating_sub(most);
        self.chunks -= held.len() - rest;
        let ended = held.drain(rest..).filter(|&(node, life)| tree.unlease(node, life)).count();
        if rest == 0 {
            self.release(tree, id);
        }
        (ended, rest > 0)
    }

    /// Ends a lease; returns how many chunks it still held.
    pub fn release(&mut self, tree: &mut PrefixTree, id: LeaseId) -> usize {
        let Some((until, held)) = self.held.remove(&id) else { return 0 };
        self.due.remove(&(until, id));
        self.chunks -= held.len();
        self.tell();
        held.into_iter().filter(|&(node, life)| tree.unlease(node, life)).count()
    }

    /// Ends those whose time is over, of at most `most` chunks; returns whether some are left.
    pub fn lapse(&mut self, tree: &mut PrefixTree, now: MonotonicMs, most: usize) -> bool {
        let mut left = most;
        while let Some(&(until, id)) = self.due.first()
            && until.is_past(now)
        {
            if left == 0 {
                return true;
            }
            let held = self.held.get(&id).map_or(0, |(_, held)| held.len());
            self.release_some(tree, id, left);
            left = left.saturating_sub(held.max(1));
        }
        false
    }

    /// Forgets all: the tree was emptied.
    pub fn clear(&mut self) {
        self.held.clear();
        self.due.clear();
        self.chunks = 0;
        self.tell();
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> usize {
        96 * self.held.len() + self.chunks * size_of::<Held>()
    }
}
