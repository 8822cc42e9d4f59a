//! The nodes of a prefix tree, and what finds them: names, prints, parents, a listing for pages.
//!
//! Owns: the data and the walks that only read. `change`, `order`, `deadlines` and `orphans` stand above. Main thread.

use super::admission::Admission;
use super::node::{NONE, Node, NodeId, State};
use crate::account::{Account, Holding};
use crate::ids::UnixMs;
use crate::kvchunk::ChunkDigest;
use crate::limits;
use crate::listing::Listing;
use crate::work;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;

/// Places of the slab that a step of a walk looks at.
const SLOTS_AT_ONCE: usize = 512;

/// Place in the order of eviction; the least goes first.
pub(super) type OrderKey = (u64, u64, Reverse<u32>, u32);

/// The prefix tree of a namespace: which chunk follows which. A chunk counts only while all before it are there.
///
/// ```
/// use llmcache_core::ids::UnixMs;
/// use llmcache_core::kvchunk::{ChunkDigest, NewNode, PrefixTree};
///
/// let [system, question] = [b"system", b"prompt"].map(|name| ChunkDigest::from_bytes(name).unwrap());
/// let node = |digest, parent, position| NewNode {
///     digest,
///     parent,
///     content: None,
///     position,
///     bytes: 1_100,
///     payload_bytes: 1_000,
///     expire_at: UnixMs::NEVER,
///     prio: 0,
///     pinned: false,
/// };
/// let mut tree = PrefixTree::default();
/// tree.insert(&node(&system, None, 0)).unwrap();
/// let last = tree.insert(&node(&question, Some(&system), 1)).unwrap();
/// assert!(tree.is_reachable(last, UnixMs(0)));
///
/// // Without its prefix a chunk is a miss, until the prefix is stored again.
/// tree.remove(&system);
/// assert!(!tree.is_reachable(last, UnixMs(0)));
/// tree.insert(&node(&system, None, 0)).unwrap();
/// assert!(tree.is_reachable(last, UnixMs(0)));
/// ```
#[derive(Debug, Default)]
pub struct PrefixTree {
    pub(super) nodes: Vec<Node>,
    pub(super) free: Vec<u32>,
    pub(super) by_digest: HashTable<u32>,
    pub(super) hasher: DefaultHashBuilder,
    /// The chunks that are there, in an order that does not change with their nodes.
    pub(super) listing: Listing,
    /// The newest chunk of each print; the others follow through their nodes.
    pub(super) by_print: HashMap<u64, u32>,
    pub(super) order: BTreeSet<OrderKey>,
    pub(super) ghosts: BTreeSet<u32>,
    /// Chunks that became leaves and have a deadline their key may not carry.
    pub(super) new_leaves: VecDeque<ChunkDigest>,
    pub(super) clock: u64,
    pub(super) half_life: f64,
    pub(super) capacity: f64,
    pub(super) admission: Admission,
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
    pub(super) pinned: u64,
    /// Chunks ever put behind others: while it stays the same, no chain has grown.
    pub(super) linked: u64,
    /// Links that were taught and hold.
    pub(super) taught: u64,
    /// The last epoch given to a node.
    pub(super) epochs: u64,
    pub(super) holding: Holding<4>,
}

impl PrefixTree {
    /// Counts what it has with an account: chunks, their bytes, those of their payloads.
    pub fn open_account(&mut self, account: &'static Account<4>) {
        self.holding.open(account);
        self.tell();
    }

    /// Counts with no account any more.
    pub fn close_account(&mut self) {
        self.holding.close();
    }

    pub(super) fn tell(&mut self) {
        self.holding.tell([self.chunks, self.bytes, self.payload_bytes, 0]);
    }

    /// How often a chunk was put behind another: while it stays the same, a `Lineage` holds.
    pub fn linked(&self) -> u64 {
        self.linked
    }

    /// Chunks that are there.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Memory of their keys.
    pub fn chunk_bytes(&self) -> u64 {
        self.bytes
    }

    /// Length of their payloads.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Chunks that are pinned.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Chunks whose eviction nothing forbids at the moment.
    pub fn evictable_leaves(&self) -> usize {
        self.order.len()
    }

    /// Memory of the tree itself.
    pub fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.free.capacity() * 4
            + self.by_digest.allocation_size()
            + self.listing.bytes()
            + self.by_print.allocation_size()
            + self.order.len() * (size_of::<OrderKey>() + 8)
            + self.admission.heap_bytes()
    }

    pub(super) fn hash_of(&self, digest: &ChunkDigest) -> u64 {
        self.hasher.hash_one(digest)
    }

    pub(super) fn slot_of(&self, digest: &ChunkDigest) -> Option<u32> {
        let same = |&slot: &u32| self.nodes[slot as usize].digest == *digest;
        self.by_digest.find(self.hash_of(digest), same).copied()
    }

    /// The chunk of this name, if it is there.
    pub fn find(&self, digest: &ChunkDigest) -> Option<NodeId> {
        let slot = self.slot_of(digest)?;
        (self.nodes[slot as usize].state == State::Here).then_some(NodeId(slot))
    }

    /// Whether the node still stands for a chunk that is there.
    pub fn is_current(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).is_some_and(|node| node.state == State::Here)
    }

    /// A chunk that may be evicted now: nothing follows it, and nothing keeps it.
    pub fn evictable(&self, digest: &ChunkDigest) -> Option<NodeId> {
        let id = self.find(digest)?;
        let node = self.node(id);
        (node.may_go() && node.is_bare()).then_some(id)
    }

    /// What is known of a chunk.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The chunk before this one, if it is there.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        let parent = self.node(id).parent;
        (parent != NONE && self.nodes[parent as usize].state == State::Here)
            .then_some(NodeId(parent))
    }

    /// The place in the prompt of a chunk that follows `parent`; 1 where that is not known.
    pub fn position_behind(&self, parent: &ChunkDigest) -> u32 {
        let parent = self.find(parent).map_or(0, |id| self.node(id).position);
        parent.saturating_add(1)
    }

    /// The chunks before this one that are there, nearest first.
    pub fn ancestors(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        // A ghost follows nothing, so only the last of these can be one.
        std::iter::successors(self.parent(id), |&above| self.parent(above))
    }

    pub(super) fn raw_parent(&self, slot: u32) -> Option<u32> {
        let parent = self.nodes[slot as usize].parent;
        (parent != NONE).then_some(parent)
    }

    /// The chunks that follow this one directly.
    pub fn followers(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let here = |&slot: &u32| self.nodes[slot as usize].state == State::Here;
        self.children(id.0).filter(here).map(NodeId)
    }

    pub(super) fn children(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(next(self.nodes[slot as usize].first_child), move |&child| {
            next(self.nodes[child as usize].next_sibling)
        })
    }

    /// Whether a chunk and all before it are there, sound and within their deadlines. A chain longer than
    /// `limits` allow, which can only have been put together from its end, is not followed to its start.
    pub fn is_reachable(&self, id: NodeId, now: UnixMs) -> bool {
        let mut at = Some(id.0);
        for length in 0..limits::KV_CHAIN_MAX {
            let Some(slot) = at else {
                work::count_path(length);
                return true;
            };
            if !self.is_sound(slot, now) {
                work::count_path(length);
                return false;
            }
            at = self.raw_parent(slot);
        }
        work::count_path(limits::KV_CHAIN_MAX);
        at.is_none()
    }

    /// Whether a chunk is there, sound and within its deadline.
    pub(super) fn is_sound(&self, slot: u32, now: UnixMs) -> bool {
        let node = &self.nodes[slot as usize];
        node.state == State::Here && !node.damaged && !node.expire_at.is_past(now)
    }

    /// The first chunk at or after a place of the slab, for walks: the place to go on from, and it, or nothing where
    /// `SLOTS_AT_ONCE` places have none. A chunk that is stored again may move to a place that was passed.
    pub fn next_from(&self, from: u32) -> Option<(u32, Option<NodeId>)> {
        let last = (from as usize + SLOTS_AT_ONCE).min(self.nodes.len());
        let places = self.nodes.get(from as usize..last).filter(|places| !places.is_empty())?;
        let found = places.iter().position(|node| node.state == State::Here);
        Some(match found {
            Some(place) => (from + place as u32 + 1, Some(NodeId(from + place as u32))),
            None => (last as u32, None),
        })
    }

    /// Chunks from a place of the listing on, for pages: one that is there throughout is listed, stored again or
    /// not. Two may share a place.
    pub fn listed_from(&self, place: u32) -> impl Iterator<Item = (u32, NodeId)> + '_ {
        self.listing.from(place).map(|(place, slot)| (place, NodeId(slot)))
    }

    /// Where a chunk is listed.
    pub(super) fn place_of(&self, slot: u32) -> u32 {
        (self.hash_of(&self.nodes[slot as usize].digest) >> 32) as u32
    }

    /// Chunks whose tokens have this print, the newest first.
    pub fn with_print(&self, print: u64) -> impl Iterator<Item = NodeId> + '_ {
        let first = self.by_print.get(&print).copied();
        std::iter::successors(first, |&slot| {
            let next = self.nodes[slot as usize].next_alike;
            (next != NONE).then_some(next)
        })
        .map(NodeId)
    }

    /// Makes a chunk findable by its tokens.
    pub(super) fn note_print(&mut self, slot: u32, print: u64) {
        let next = self.by_print.insert(print, slot).unwrap_or(NONE);
        if next != NONE {
            self.nodes[next as usize].previous_alike = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.next_alike, node.previous_alike) = (next, NONE);
    }

    /// The reverse.
    pub(super) fn forget_print(&mut self, slot: u32, print: u64) {
        let node = &mut self.nodes[slot as usize];
        let (next, previous) = (node.next_alike, node.previous_alike);
        (node.next_alike, node.previous_alike) = (NONE, NONE);
        if next != NONE {
            self.nodes[next as usize].previous_alike = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next_alike = next;
        } else if next != NONE {
            self.by_print.insert(print, next);
        } else {
            self.by_print.remove(&print);
        }
    }

    pub(super) fn slot_or_ghost(&mut self, digest: &ChunkDigest) -> u32 {
        if let Some(slot) = self.slot_of(digest) {
            return slot;
        }
        let life = self.free.last().map_or(0, |&slot| self.nodes[slot as usize].life);
        self.epochs += 1;
        let node = Node { epoch: self.epochs, ..Node::ghost(digest.clone(), life) };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        let rehash = |&slot: &u32| hasher.hash_one(&nodes[slot as usize].digest);
        self.by_digest.insert_unique(hasher.hash_one(digest), slot, rehash);
        self.ghosts.insert(slot);
        slot
    }

    pub(super) fn attach(&mut self, slot: u32, parent: u32) {
        if parent == NONE {
            return;
        }
        let first = self.nodes[parent as usize].first_child;
        if first != NONE {
            self.nodes[first as usize].previous_sibling = slot;
        }
        self.nodes[parent as usize].first_child = slot;
        let node = &mut self.nodes[slot as usize];
        (node.parent, node.next_sibling, node.previous_sibling) = (parent, first, NONE);
    }

    pub(super) fn detach(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        let (parent, next, previous) = (node.parent, node.next_sibling, node.previous_sibling);
        (node.parent, node.next_sibling, node.previous_sibling) = (NONE, NONE, NONE);
        if next != NONE {
            self.nodes[next as usize].previous_sibling = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next_sibling = next;
        } else if parent != NONE {
            self.nodes[parent as usize].first_child = next;
        }
    }

    /// Marks a chunk as damaged: it is a miss from here.
    pub fn set_damaged(&mut self, id: NodeId) {
        self.nodes[id.0 as usize].damaged = true;
    }

    /// Notes that the payload of a chunk was found to be what was stored.
    pub fn set_checked(&mut self, id: NodeId, now: UnixMs) {
        self.nodes[id.0 as usize].checked_at = now;
    }

    /// Whether there are chunks that no prefix reaches.
    pub fn has_ghosts(&self) -> bool {
        !self.ghosts.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let (half_life, capacity) = (self.half_life, self.capacity);
        let holding = std::mem::take(&mut self.holding);
        *self = Self { half_life, capacity, holding, ..Self::default() };
        self.tell();
    }
}

/// Whether the deadline `a` comes before `b`; no deadline is the latest.
pub(super) fn ends_before(a: UnixMs, b: UnixMs) -> bool {
    a != UnixMs::NEVER && (b == UnixMs::NEVER || a < b)
}
