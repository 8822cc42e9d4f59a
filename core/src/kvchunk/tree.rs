//! The prefix tree of a namespace: which chunks are there, which follows which, who goes first.
//!
//! Owns: nodes in a slab, found by digest; children linked through their siblings; the order of
//! eviction. A *ghost* is a node whose chunk is not there but whose children are: what is below it
//! cannot be reached by a prefix. Everything here is a hint: a chunk counts once its key was opened.
//! Main thread.
//!
//! Eviction takes leaves (no child that is there) of the lowest aged frequency, then the longest
//! unused, then the deepest. Frequencies halve every so many references, so all age alike and their
//! order does not change with time: a node's place is `used / half-life + log2(frequency) + PRIO`,
//! and only what is touched moves.

use super::{ChunkDigest, Content};
use crate::ids::UnixMs;
use crate::limits;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;

/// A node of a tree; meaningless once its chunk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

const NONE: u32 = u32::MAX;

/// References in which a frequency halves, for each chunk that fits. On the Mooncake conversation
/// trace, replayed by `core/examples/kvtrace.rs` with 5,000 to 40,000 chunks, a half loses at most
/// half a percent of blocks to the best at each size; a sixteenth and four lose up to ten times that.
const HALF_LIFE_PER_CHUNK: f64 = 0.5;
/// Least half-life: a few chunks must not forget at once.
const HALF_LIFE_MIN: f64 = 64.0;

/// Why a chunk does not fit into the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would follow itself.
    Circle,
    /// Its chain is longer than `limits` allow.
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Ghost,
    Here,
}

/// Place in the order of eviction; the least goes first.
type OrderKey = (u64, u64, Reverse<u32>, u32);

/// What the tree knows of a chunk.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub digest: ChunkDigest,
    /// Its tokens, where they are known.
    pub content: Option<Content>,
    /// Its place in the prompt.
    pub position: u32,
    /// Memory of its key.
    pub bytes: u64,
    /// Length of its payload.
    pub payload_bytes: u64,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// Weight at eviction.
    pub prio: u8,
    /// Not to be evicted by BUDGET.
    pub pinned: bool,
    /// Found damaged: a miss, to be removed.
    pub damaged: bool,
    /// Uses since it was stored, in this process.
    pub hits: u32,
    /// For a ghost: since when, in Unix milliseconds; 0 before it was looked at.
    pub since_ms: u64,
    frequency: f32,
    used_at: u64,
    score: u64,
    leases: u32,
    life: u32,
    children_here: u32,
    parent: u32,
    first_child: u32,
    next_sibling: u32,
    previous_sibling: u32,
    state: State,
    ordered: bool,
}

impl Node {
    /// Leases that hold it.
    pub fn leases(&self) -> u32 {
        self.leases
    }

    /// Whether no child of it is there.
    pub fn is_leaf(&self) -> bool {
        self.children_here == 0
    }
}

/// A chunk to be put into the tree.
#[derive(Debug, Clone)]
pub struct NewNode<'a> {
    /// Its name.
    pub digest: &'a ChunkDigest,
    /// The chunk before it.
    pub parent: Option<&'a ChunkDigest>,
    /// Its tokens.
    pub content: Option<Content>,
    /// Its place in the prompt.
    pub position: u32,
    /// Memory of its key.
    pub bytes: u64,
    /// Length of its payload.
    pub payload_bytes: u64,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// Weight at eviction.
    pub prio: u8,
    /// Pinned.
    pub pinned: bool,
}

/// The tree.
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    by_digest: HashTable<u32>,
    hasher: DefaultHashBuilder,
    by_print: HashMap<u64, SmallVec<[NodeId; 2]>>,
    order: BTreeSet<OrderKey>,
    ghosts: BTreeSet<u32>,
    /// Chunks that became leaves and have a deadline their key may not carry.
    new_leaves: VecDeque<ChunkDigest>,
    clock: u64,
    half_life: f64,
    chunks: u64,
    bytes: u64,
    payload_bytes: u64,
    pinned: u64,
}

impl PrefixTree {
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

    /// References in which a frequency halves.
    pub fn half_life(&self) -> f64 {
        self.half_life.max(HALF_LIFE_MIN)
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
            + self.by_print.allocation_size()
            + self.order.len() * (size_of::<OrderKey>() + 8)
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

    /// The chunk and all below it that are there, parents before children.
    pub fn subtree(&self, id: NodeId) -> Vec<NodeId> {
        let (mut out, mut stack) = (Vec::new(), vec![id.0]);
        while let Some(slot) = stack.pop() {
            if self.nodes[slot as usize].state == State::Here {
                out.push(NodeId(slot));
            }
            stack.extend(self.children(slot));
        }
        out
    }

    fn children(&self, slot: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(next(self.nodes[slot as usize].first_child), move |&child| {
            next(self.nodes[child as usize].next_sibling)
        })
    }

    /// Whether a chunk and all before it are there, sound and within their deadlines.
    pub fn is_reachable(&self, id: NodeId, now: UnixMs) -> bool {
        let mut at = Some(id.0);
        while let Some(slot) = at {
            let node = &self.nodes[slot as usize];
            if node.state != State::Here || node.damaged || node.expire_at.is_past(now) {
                return false;
            }
            at = self.raw_parent(slot);
        }
        true
    }

    /// The first chunk at or after a place of the slab, for walks: the place to go on from, and it.
    pub fn next_from(&self, from: u32) -> Option<(u32, NodeId)> {
        let nodes = self.nodes.iter().enumerate().skip(from as usize);
        let (slot, _) = nodes.into_iter().find(|(_, node)| node.state == State::Here)?;
        Some((slot as u32 + 1, NodeId(slot as u32)))
    }

    /// Chunks whose tokens have this print.
    pub fn with_print(&self, print: u64) -> &[NodeId] {
        self.by_print.get(&print).map_or(&[], SmallVec::as_slice)
    }

    /// Whether a chunk of this name could follow `parent`.
    pub fn check_parent(
        &self,
        digest: &ChunkDigest,
        parent: Option<&ChunkDigest>,
    ) -> Result<(), Refused> {
        if parent == Some(digest) {
            return Err(Refused::Circle);
        }
        let own = self.slot_of(digest);
        let mut at = parent.and_then(|parent| self.slot_of(parent));
        let mut length = 1;
        while let Some(slot) = at {
            if Some(slot) == own {
                return Err(Refused::Circle);
            }
            length += 1;
            if length > limits::KV_CHAIN_MAX {
                return Err(Refused::TooLong);
            }
            at = self.raw_parent(slot);
        }
        Ok(())
    }

    /// Puts a chunk into the tree, or renews what is known of it.
    pub fn insert(&mut self, new: &NewNode<'_>) -> Result<NodeId, Refused> {
        self.check_parent(new.digest, new.parent)?;
        let slot = self.slot_or_ghost(new.digest);
        let parent = new.parent.map_or(NONE, |parent| self.slot_or_ghost(parent));
        let former = self.take_out(slot);
        self.attach(slot, parent);
        self.prune(former);
        self.clock += 1;
        let (clock, half_life) = (self.clock, self.half_life());
        let node = &mut self.nodes[slot as usize];
        node.frequency = node.aged(clock, half_life) + 1.0;
        node.used_at = clock;
        node.content = new.content;
        node.position = new.position;
        node.bytes = new.bytes;
        node.payload_bytes = new.payload_bytes;
        node.expire_at = new.expire_at;
        node.prio = new.prio;
        node.pinned = new.pinned;
        node.damaged = false;
        node.state = State::Here;
        self.chunks += 1;
        self.bytes += new.bytes;
        self.payload_bytes += new.payload_bytes;
        self.pinned += u64::from(new.pinned);
        self.ghosts.remove(&slot);
        if let Some(content) = new.content {
            self.by_print.entry(content.print).or_default().push(NodeId(slot));
        }
        self.order_again(slot);
        if parent != NONE {
            self.unorder(parent);
            self.nodes[parent as usize].children_here += 1;
        }
        Ok(NodeId(slot))
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
        let node = &mut self.nodes[slot as usize];
        node.state = State::Ghost;
        node.since_ms = 0;
        node.leases = 0;
        node.hits = 0;
        node.life = node.life.wrapping_add(1);
        let (bytes, payload, parent) = (node.bytes, node.payload_bytes, node.parent);
        let (pinned, content) = (node.pinned, node.content.take());
        self.chunks -= 1;
        self.bytes -= bytes;
        self.payload_bytes -= payload;
        self.pinned -= u64::from(pinned);
        self.ghosts.insert(slot);
        if let Some(Content { print, .. }) = content
            && let Some(same) = self.by_print.get_mut(&print)
        {
            same.retain(|id| id.0 != slot);
            if same.is_empty() {
                self.by_print.remove(&print);
            }
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
        let node = Node::ghost(digest.clone(), life);
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

    /// Counts a use of each of these chunks, all at the same time.
    pub fn touch(&mut self, path: &[NodeId]) {
        self.clock += path.len() as u64;
        let (clock, half_life) = (self.clock, self.half_life());
        for &NodeId(slot) in path {
            self.unorder(slot);
            let node = &mut self.nodes[slot as usize];
            node.frequency = node.aged(clock, half_life) + 1.0;
            node.used_at = clock;
            node.hits = node.hits.saturating_add(1);
            self.order_again(slot);
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

    /// Adds a lease; answers which life of the node it holds.
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

    /// Raises the deadlines of all before a chunk to at least its own; answers those that moved.
    pub fn raise_ancestors(&mut self, id: NodeId) -> Vec<NodeId> {
        let least = self.node(id).expire_at;
        let short: Vec<NodeId> = self
            .ancestors(id)
            .filter(|&above| ends_before(self.node(above).expire_at, least))
            .collect();
        for above in &short {
            self.nodes[above.0 as usize].expire_at = least;
        }
        short
    }

    /// The deadline a chunk must at least have: its own or the latest of its children's.
    pub fn deadline_for(&self, digest: &ChunkDigest, own: UnixMs) -> UnixMs {
        let Some(slot) = self.slot_of(digest) else { return own };
        let below = self.children(slot).map(|child| &self.nodes[child as usize]);
        let here = below.filter(|child| child.state == State::Here).map(|child| child.expire_at);
        here.fold(own, |latest, at| if ends_before(latest, at) { at } else { latest })
    }

    /// The next chunk that became a leaf and has a deadline.
    pub fn pop_new_leaf(&mut self) -> Option<ChunkDigest> {
        self.new_leaves.pop_front()
    }

    /// Chunks that no prefix reaches, children before parents. `since` decides by the moment their
    /// ghost was first looked at, which it may set.
    pub fn orphans(&mut self, mut since: impl FnMut(&mut u64) -> bool) -> Vec<NodeId> {
        let mut out = Vec::new();
        for &slot in &self.ghosts {
            if !since(&mut self.nodes[slot as usize].since_ms) {
                continue;
            }
            let below = self.subtree(NodeId(slot));
            out.extend(below.into_iter().rev());
        }
        out
    }

    /// Whether there are chunks that no prefix reaches.
    pub fn has_ghosts(&self) -> bool {
        !self.ghosts.is_empty()
    }

    /// The chunks to evict so that `need` bytes are freed, in order, never `spare`; `None` when not so
    /// much can be freed. What no prefix reaches goes first.
    pub fn plan_eviction(&mut self, need: u64, spare: Option<NodeId>) -> Option<Vec<NodeId>> {
        let (plan, freed) = self.plan_up_to(need, spare);
        (freed >= need).then_some(plan)
    }

    /// The same as far as it can be done, and the bytes that frees.
    pub fn plan_up_to(&mut self, need: u64, spare: Option<NodeId>) -> (Vec<NodeId>, u64) {
        let orphans = if self.has_ghosts() { self.orphans(|_| true) } else { Vec::new() };
        let mut plan =
            Plan { tree: self, gone: HashMap::new(), planned: HashSet::new(), out: Vec::new() };
        let mut freed = 0;
        for id in orphans {
            if freed < need {
                freed += plan.take(id, spare);
            }
        }
        let mut bared: BTreeSet<OrderKey> = BTreeSet::new();
        let mut leaves = plan.tree.order.iter().copied().peekable();
        while freed < need {
            let next = match (leaves.peek().copied(), bared.first().copied()) {
                (Some(leaf), Some(bare)) if bare < leaf => bared.pop_first(),
                (Some(_), _) => leaves.next(),
                (None, _) => bared.pop_first(),
            };
            let Some(id) = next.map(|key| NodeId(key.3)) else { break };
            let bytes = plan.take(id, spare);
            freed += bytes;
            if bytes > 0
                && let Some(parent) = plan.tree.parent(id)
                && plan.is_bare(parent)
                && plan.tree.node(parent).may_go()
            {
                bared.insert(plan.tree.key_of(parent.0));
            }
        }
        (plan.out, freed)
    }

    /// Tells how many chunks fit, from which the pace of ageing follows.
    pub fn set_capacity(&mut self, chunks: u64) {
        // By powers of two, so that the order is built anew rarely.
        let room = chunks.max(1).next_power_of_two() as f64;
        let half_life = (room * HALF_LIFE_PER_CHUNK).max(HALF_LIFE_MIN);
        if half_life == self.half_life {
            return;
        }
        self.half_life = half_life;
        let ordered: Vec<u32> = self.order.iter().map(|key| key.3).collect();
        self.order.clear();
        for slot in ordered {
            self.nodes[slot as usize].ordered = false;
            self.order_again(slot);
        }
    }

    fn key_of(&self, slot: u32) -> OrderKey {
        let node = &self.nodes[slot as usize];
        (node.score_now(self.half_life()), node.used_at, Reverse(node.position), slot)
    }

    /// Takes a node out of the order; before anything the order depends on changes.
    fn unorder(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        if std::mem::take(&mut node.ordered) {
            let key = (node.score, node.used_at, Reverse(node.position), slot);
            self.order.remove(&key);
        }
    }

    /// Puts a node into the order if it may be evicted.
    fn order_again(&mut self, slot: u32) {
        let node = &self.nodes[slot as usize];
        if node.ordered || node.children_here > 0 || !node.may_go() {
            return;
        }
        let key = self.key_of(slot);
        let node = &mut self.nodes[slot as usize];
        (node.score, node.ordered) = (key.0, true);
        self.order.insert(key);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { half_life: self.half_life, ..Self::default() };
    }

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
            assert_eq!(node.ordered, node.may_go() && node.children_here == 0);
            if node.ordered {
                assert!(self.order.contains(&self.key_of(slot)));
                ordered += 1;
            }
        }
        assert_eq!(self.order.len(), ordered);
    }
}

impl Node {
    fn ghost(digest: ChunkDigest, life: u32) -> Self {
        Self {
            digest,
            content: None,
            position: 0,
            bytes: 0,
            payload_bytes: 0,
            expire_at: UnixMs::NEVER,
            prio: 0,
            pinned: false,
            damaged: false,
            hits: 0,
            since_ms: 0,
            frequency: 0.0,
            used_at: 0,
            score: 0,
            leases: 0,
            life,
            children_here: 0,
            parent: NONE,
            first_child: NONE,
            next_sibling: NONE,
            previous_sibling: NONE,
            state: State::Ghost,
            ordered: false,
        }
    }

    fn may_go(&self) -> bool {
        self.state == State::Here && !self.pinned && self.leases == 0
    }

    fn aged(&self, clock: u64, half_life: f64) -> f32 {
        let age = (clock - self.used_at.min(clock)) as f64;
        self.frequency * (-age / half_life).exp2() as f32
    }

    /// The place by use, as a number whose order is that of the value.
    fn score_now(&self, half_life: f64) -> u64 {
        let uses = f64::from(self.frequency.max(f32::MIN_POSITIVE)).log2();
        let value = self.used_at as f64 / half_life + uses + f64::from(self.prio);
        let bits = value.to_bits();
        if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
    }
}

/// Evictions decided on but not done.
struct Plan<'t> {
    tree: &'t PrefixTree,
    /// Children to go, for each parent.
    gone: HashMap<NodeId, u32>,
    planned: HashSet<NodeId>,
    out: Vec<NodeId>,
}

impl Plan<'_> {
    fn is_bare(&self, id: NodeId) -> bool {
        self.gone.get(&id).copied().unwrap_or(0) == self.tree.node(id).children_here
    }

    /// Adds a chunk to the plan if it may go and nothing below it stays; answers what that frees.
    fn take(&mut self, id: NodeId, spare: Option<NodeId>) -> u64 {
        let node = self.tree.node(id);
        if Some(id) == spare || !node.may_go() || !self.is_bare(id) || !self.planned.insert(id) {
            return 0;
        }
        if let Some(parent) = self.tree.parent(id) {
            *self.gone.entry(parent).or_default() += 1;
        }
        self.out.push(id);
        node.bytes
    }
}

/// Whether the deadline `a` comes before `b`; no deadline is the latest.
fn ends_before(a: UnixMs, b: UnixMs) -> bool {
    a != UnixMs::NEVER && (b == UnixMs::NEVER || a < b)
}
