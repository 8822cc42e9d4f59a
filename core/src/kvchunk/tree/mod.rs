//! The prefix tree of a namespace: which chunks are there, which follows which, who goes first.
//!
//! Owns: nodes in a slab, found by digest; children linked through their siblings. `order` says who is
//! evicted first. A *ghost* is a node whose chunk is not there but whose children are: what is below it
//! cannot be reached by a prefix. Everything here is a hint: a chunk counts once its key was opened.
//! Main thread.

mod admission;
mod check;
mod lineage;
mod node;
mod order;
mod taught;

use super::{ChunkDigest, Content};
use crate::account::{Account, Holding};
use crate::ids::{MonotonicMs, UnixMs};
use crate::limits;
use crate::listing::Listing;
use crate::work;
use admission::Admission;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
pub use lineage::{Lineage, Reach};
use node::State;
pub use node::{NewNode, Node};
use order::OrderKey;
use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;

/// A node of a tree; meaningless once its chunk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

const NONE: u32 = u32::MAX;

/// Children whose deadlines are looked at when their parent is stored again.
const CHILDREN_LOOKED_AT: u32 = 1_024;

/// Places of the slab that a step of a walk looks at.
const SLOTS_AT_ONCE: usize = 512;

/// Why a chunk does not fit into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would follow itself.
    Circle,
    /// Its chain is longer than `limits` allow.
    TooLong,
}

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
    nodes: Vec<Node>,
    free: Vec<u32>,
    by_digest: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The chunks that are there, in an order that does not change with their nodes.
    listing: Listing,
    /// The newest chunk of each print; the others follow through their nodes.
    by_print: HashMap<u64, u32>,
    order: BTreeSet<OrderKey>,
    ghosts: BTreeSet<u32>,
    /// Chunks that became leaves and have a deadline their key may not carry.
    new_leaves: VecDeque<ChunkDigest>,
    clock: u64,
    half_life: f64,
    capacity: f64,
    admission: Admission,
    chunks: u64,
    bytes: u64,
    payload_bytes: u64,
    pinned: u64,
    /// Chunks ever put behind others: while it stays the same, no chain has grown.
    linked: u64,
    /// Links that were taught and hold.
    taught: u64,
    /// The last epoch given to a node.
    epochs: u64,
    holding: Holding<4>,
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

    fn tell(&mut self) {
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

    fn hash_of(&self, digest: &ChunkDigest) -> u64 {
        self.hasher.hash_one(digest)
    }

    fn slot_of(&self, digest: &ChunkDigest) -> Option<u32> {
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

    fn raw_parent(&self, slot: u32) -> Option<u32> {
        let parent = self.nodes[slot as usize].parent;
        (parent != NONE).then_some(parent)
    }

    /// The chunks that follow this one directly.
    pub fn followers(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let here = |&slot: &u32| self.nodes[slot as usize].state == State::Here;
        self.children(id.0).filter(here).map(NodeId)
    }

    fn children(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
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
    fn is_sound(&self, slot: u32, now: UnixMs) -> bool {
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
    fn place_of(&self, slot: u32) -> u32 {
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
    fn note_print(&mut self, slot: u32, print: u64) {
        let next = self.by_print.insert(print, slot).unwrap_or(NONE);
        if next != NONE {
            self.nodes[next as usize].previous_alike = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.next_alike, node.previous_alike) = (next, NONE);
    }

    /// The reverse.
    fn forget_print(&mut self, slot: u32, print: u64) {
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
    fn walk_for(&self, own: u32, above: u32) -> Result<(), Refused> {
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
    fn take_out(&mut self, slot: u32) -> u32 {
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
    fn prune(&mut self, slot: u32) {
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

    fn slot_or_ghost(&mut self, digest: &ChunkDigest) -> u32 {
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

    fn attach(&mut self, slot: u32, parent: u32) {
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

    fn detach(&mut self, slot: u32) {
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

    /// Marks a chunk as damaged: it is a miss from here.
    pub fn set_damaged(&mut self, id: NodeId) {
        self.nodes[id.0 as usize].damaged = true;
    }

    /// Notes that the payload of a chunk was found to be what was stored.
    pub fn set_checked(&mut self, id: NodeId, now: UnixMs) {
        self.nodes[id.0 as usize].checked_at = now;
    }

    /// Adds a lease; returns which life of the node it holds.
    pub(super) fn lease(&mut self, id: NodeId) -> u32 {
        self.unorder(id.0);
        let node = &mut self.nodes[id.0 as usize];
        node.leases += 1;
        node.life
    }

    /// Ends a lease; false when the chunk it held is gone.
    pub(super) fn unlease(&mut self, id: NodeId, life: u32) -> bool {
        let node = &mut self.nodes[id.0 as usize];
        if node.state != State::Here || node.life != life {
            return false;
        }
        node.leases -= 1;
        self.order_again(id.0);
        true
    }

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
    fn below(&self, ghost: u32) -> impl Iterator<Item = NodeId> + '_ {
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
fn ends_before(a: UnixMs, b: UnixMs) -> bool {
    a != UnixMs::NEVER && (b == UnixMs::NEVER || a < b)
}
