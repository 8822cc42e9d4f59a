//! Inserting chunks into a tree, removing them, and pinning or leasing them.
//!
//! Owns: that parents, counts, ghosts and the order of eviction agree after each change. Main thread.

use super::node::{NONE, NewNode, NodeId, State};
use super::nodes::PrefixTree;
use super::nodes::ends_before;
use crate::ids::UnixMs;
use crate::kvchunk::{ChunkDigest, Content};
use crate::limits;
use crate::work;

/// Why a chunk does not fit into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would follow itself.
    Circle,
    /// Its chain is longer than `limits` allow.
    TooLong,
}

impl PrefixTree {
    /// Whether a chunk of this name could follow `parent`. Only what has something below it can close a circle,
    /// so that a new chunk costs no walk.
    pub fn check_parent(
        &self,
        digest: &ChunkDigest,
        parent: Option<&ChunkDigest>,
    ) -> Result<(), Refused> {
        if parent == Some(digest) {
            return Err(Refused::Circle);
        }
        let Some(above) = parent.and_then(|parent| self.slot_of(parent)) else { return Ok(()) };
        if self.nodes[above as usize].depth as usize >= limits::KV_CHAIN_MAX {
            return Err(Refused::TooLong);
        }
        let Some(own) = self.slot_of(digest) else { return Ok(()) };
        let node = &self.nodes[own as usize];
        if node.first_child == NONE || (node.state == State::Here && node.parent == above) {
            return Ok(());
        }
        self.walk_for(own, above)
    }

    /// Whether `own` is not among `above` and what is before it, nor too far below the first of them.
    pub(super) fn walk_for(&self, own: u32, above: u32) -> Result<(), Refused> {
        let mut length = 1;
        let mut at = Some(above);
        while let Some(slot) = at.filter(|_| length <= limits::KV_CHAIN_MAX) {
            if slot == own {
                return Err(Refused::Circle);
            }
            length += 1;
            at = self.raw_parent(slot);
        }
        work::count_path(length);
        if length > limits::KV_CHAIN_MAX { Err(Refused::TooLong) } else { Ok(()) }
    }

    /// Puts a chunk into the tree, or renews what is known of it.
    pub fn insert(&mut self, new: &NewNode<'_>) -> Result<NodeId, Refused> {
        self.check_parent(new.digest, new.parent)?;
        Ok(self.insert_checked(new))
    }

    /// The same where `check_parent`, or a `Lineage`, has said that it fits.
    pub fn insert_checked(&mut self, new: &NewNode<'_>) -> NodeId {
        self.insert_behind(new, None)
    }

    /// The same of a chunk that comes behind another in prompts, and is answered without it.
    pub fn insert_behind(&mut self, new: &NewNode<'_>, ahead: Option<&ChunkDigest>) -> NodeId {
        let slot = self.slot_or_ghost(new.digest);
        let parent = new.parent.map_or(NONE, |parent| self.slot_or_ghost(parent));
        let is_new_ghost = parent != NONE && self.nodes[parent as usize].first_child == NONE;
        let former = self.take_out(slot);
        self.linked += 1;
        self.forget_above(slot, parent);
        self.attach(slot, parent);
        self.prune(former);
        let ahead = ahead.and_then(|ahead| self.find(ahead));
        self.note_stored(slot, new, ahead);
        let node = &mut self.nodes[slot as usize];
        node.content = new.content;
        node.position = new.position;
        node.bytes = new.bytes;
        node.payload_bytes = new.payload_bytes;
        node.expire_at = new.expire_at;
        node.prio = new.prio;
        node.pinned = new.pinned;
        node.damaged = false;
        node.state = State::Here;
        node.depth = 1;
        self.chunks += 1;
        self.bytes += new.bytes;
        self.payload_bytes += new.payload_bytes;
        self.pinned += u64::from(new.pinned);
        self.tell();
        self.ghosts.remove(&slot);
        self.listing.insert(self.place_of(slot), slot);
        if let Some(content) = new.content {
            self.note_print(slot, content.print);
        }
        self.order_again(slot);
        if parent != NONE {
            self.unorder(parent);
            let above = &mut self.nodes[parent as usize];
            above.children_here += 1;
            let (depth, is_ghost) = (above.depth, above.state == State::Ghost);
            if is_ghost && (is_new_ghost || ends_before(above.expire_at, new.expire_at)) {
                above.expire_at = new.expire_at;
            }
            self.nodes[slot as usize].depth = depth + 1;
        } else if let Some(ahead) = ahead {
            self.link(ahead.0, slot);
        }
        NodeId(slot)
    }

    /// Takes a chunk out of the tree; false when it is not in it.
    pub fn remove(&mut self, digest: &ChunkDigest) -> bool {
        let Some(slot) = self.slot_of(digest) else { return false };
        if self.nodes[slot as usize].state != State::Here {
            return false;
        }
        let former = self.take_out(slot);
        self.prune(slot);
        self.prune(former);
        true
    }

    /// Ends the life of a chunk: its node is a ghost from here, and a ghost follows nothing. Answers
    /// the slot it followed, which may be a ghost to prune.
    pub(super) fn take_out(&mut self, slot: u32) -> u32 {
        self.unorder(slot);
        if self.nodes[slot as usize].state != State::Here {
            return NONE;
        }
        self.forget_ahead(slot);
        self.forget_behind(slot);
        let node = &mut self.nodes[slot as usize];
        node.state = State::Ghost;
        node.since = None;
        node.leases = 0;
        node.hits = 0;
        node.life = node.life.wrapping_add(1);
        let (bytes, payload, parent) = (node.bytes, node.payload_bytes, node.parent);
        let (pinned, content) = (node.pinned, node.content.take());
        self.chunks -= 1;
        self.bytes -= bytes;
        self.payload_bytes -= payload;
        self.pinned -= u64::from(pinned);
        self.tell();
        self.ghosts.insert(slot);
        self.listing.remove(self.place_of(slot), slot);
        if let Some(Content { print, .. }) = content {
            self.forget_print(slot, print);
        }
        if parent != NONE {
            let above = &mut self.nodes[parent as usize];
            above.children_here -= 1;
            let waits = above.state == State::Here && above.expire_at != UnixMs::NEVER;
            if above.children_here == 0 && waits {
                self.new_leaves.push_back(above.digest.clone());
            }
            self.order_again(parent);
        }
        self.detach(slot);
        parent
    }

    /// Frees a ghost nothing hangs on.
    pub(super) fn prune(&mut self, slot: u32) {
        if slot == NONE {
            return;
        }
        let node = &self.nodes[slot as usize];
        if node.state != State::Ghost || node.first_child != NONE {
            return;
        }
        let hash = self.hash_of(&node.digest);
        if let Ok(entry) = self.by_digest.find_entry(hash, |&found| found == slot) {
            entry.remove();
        }
        self.ghosts.remove(&slot);
        self.nodes[slot as usize].state = State::Free;
        self.free.push(slot);
    }

    /// Pins a chunk or lets it go; false when it was so already.
    pub fn set_pinned(&mut self, id: NodeId, pinned: bool) -> bool {
        let node = &mut self.nodes[id.0 as usize];
        if node.pinned == pinned {
            return false;
        }
        node.pinned = pinned;
        self.pinned = if pinned { self.pinned + 1 } else { self.pinned - 1 };
        self.unorder(id.0);
        self.order_again(id.0);
        true
    }

    /// Adds a lease; returns which life of the node it holds.
    pub(in crate::kvchunk) fn lease(&mut self, id: NodeId) -> u32 {
        self.unorder(id.0);
        let node = &mut self.nodes[id.0 as usize];
        node.leases += 1;
        node.life
    }

    /// Ends a lease; false when the chunk it held is gone.
    pub(in crate::kvchunk) fn unlease(&mut self, id: NodeId, life: u32) -> bool {
        let node = &mut self.nodes[id.0 as usize];
        if node.state != State::Here || node.life != life {
            return false;
        }
        node.leases -= 1;
        self.order_again(id.0);
        true
    }
}
