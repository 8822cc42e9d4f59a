//! The order of eviction of a prefix tree.
//!
//! Owns: frequencies and their ageing, the order, plans of eviction. Leaves (nothing there behind them) go
//! first, of them the lowest aged frequency, then the longest unused, then the deepest. Frequencies
//! halve every so many references, so all age alike and their order does not change with time: a
//! chunk's place is `used / half-life + log2(frequency) + PRIO`, and only what is touched moves.

use super::node::{NewNode, Node, NodeId};
use super::nodes::OrderKey;
use super::nodes::PrefixTree;
use crate::work;
use hashbrown::{HashMap, HashSet};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// References in which a frequency halves, for each chunk that fits, or would fit if as much less came
/// as `admission` lets pass. On the Mooncake conversation trace, replayed by `core/examples/kvtrace.rs` with
/// 1,250 to 40,000 chunks, a half loses at most 0.6 points of hits to the best of a quarter to one; a
/// sixteenth and four lose up to ten times that.
const HALF_LIFE_PER_CHUNK: f64 = 0.5;

/// What counts as the use by which a chunk is stored, where its chain is not one of those kept: it goes
/// before what was kept and not used for five half-lives.
const PASSING: f32 = 0.03;

/// Least half-life: a few chunks must not forget at once.
const HALF_LIFE_MIN: f64 = 64.0;

impl PrefixTree {
    /// References in which a frequency halves.
    pub fn half_life(&self) -> f64 {
        self.half_life.max(HALF_LIFE_MIN)
    }

    /// Counts the storing of a chunk as a use, and decides whether its chain is one of those kept: what
    /// continues a chain that was used is, what continues one that was just stored is as that one, and
    /// of those that begin here `admission` decides.
    pub(super) fn note_stored(&mut self, slot: u32, new: &NewNode<'_>, ahead: Option<NodeId>) {
        self.clock += 1;
        self.admission.note_stored(new.digest);
        if self.admission.decide(self.capacity) {
            self.age_anew();
        }
        let (clock, half_life) = (self.clock, self.half_life());
        let above = new.parent.and_then(|parent| self.find(parent)).or(ahead);
        let above = above.map(|id| self.node(id));
        let kept = match above {
            _ if new.prio > 0 || new.pinned => true,
            Some(above) if above.hits == 0 => above.kept,
            Some(above) if above.behind_here() <= 1 => true,
            _ => self.admission.keep_chain(),
        };
        let node = &mut self.nodes[slot as usize];
        let first = if kept { 1.0 } else { PASSING };
        (node.frequency, node.kept) = (node.aged(clock, half_life) + first, kept);
        node.used_at = clock;
    }

    /// Counts a use of each of these chunks, all at the same time.
    pub fn touch(&mut self, path: &[NodeId]) {
        self.clock += path.len() as u64;
        let (clock, half_life) = (self.clock, self.half_life());
        for &NodeId(slot) in path {
            self.unorder(slot);
            self.admission.note_used(&self.nodes[slot as usize].digest);
            let node = &mut self.nodes[slot as usize];
            node.frequency = node.aged(clock, half_life) + 1.0;
            node.used_at = clock;
            node.hits = node.hits.saturating_add(1);
            self.order_again(slot);
        }
    }

    /// The chunks to evict so that `need` bytes are freed, in order, never `spare`; `None` when not so
    /// much can be freed. What no prefix reaches goes first.
    pub fn plan_eviction(&mut self, need: u64, spare: Option<NodeId>) -> Option<Vec<NodeId>> {
        let (plan, freed) = self.plan_up_to(need, spare);
        (freed >= need).then_some(plan)
    }

    /// The same as far as it can be done, and the bytes that frees.
    pub fn plan_up_to(&mut self, need: u64, spare: Option<NodeId>) -> (Vec<NodeId>, u64) {
        self.plan_until(spare, |freed, _, _| freed >= need)
    }

    /// The chunks that would be evicted first, in order, as far as that shows within `steps`.
    pub fn next_evicted(&self, count: usize, steps: usize) -> Vec<NodeId> {
        let is_enough = |_, planned, looked_at| planned >= count || looked_at >= steps;
        self.plan_until(None, is_enough).0
    }

    /// How often a chunk was used, aged to now.
    pub fn heat(&self, id: NodeId) -> f32 {
        self.node(id).aged(self.clock, self.half_life())
    }

    /// Plans until there is enough of bytes freed, of chunks planned or of chunks looked at.
    fn plan_until(
        &self,
        spare: Option<NodeId>,
        is_enough: impl Fn(u64, usize, usize) -> bool,
    ) -> (Vec<NodeId>, u64) {
        let tree = self;
        let mut plan =
            Plan { tree, gone: HashMap::new(), planned: HashSet::new(), out: Vec::new() };
        let (mut freed, mut looked_at) = (0, 0);
        for id in tree.ghosts.iter().flat_map(|&ghost| tree.below(ghost)) {
            if is_enough(freed, plan.out.len(), looked_at) {
                break;
            }
            looked_at += 1;
            freed += plan.take(id, spare);
        }
        let mut bared: BTreeSet<OrderKey> = BTreeSet::new();
        let mut leaves = plan.tree.order.iter().copied().peekable();
        while !is_enough(freed, plan.out.len(), looked_at) {
            let next = match (leaves.peek().copied(), bared.first().copied()) {
                (Some(leaf), Some(bare)) if bare < leaf => bared.pop_first(),
                (Some(_), _) => leaves.next(),
                (None, _) => bared.pop_first(),
            };
            let Some(id) = next.map(|key| NodeId(key.3)) else { break };
            looked_at += 1;
            let bytes = plan.take(id, spare);
            freed += bytes;
            if bytes > 0
                && let Some(parent) = plan.tree.ahead(id)
                && plan.is_bare(parent)
                && plan.tree.node(parent).may_go()
            {
                bared.insert(plan.tree.key_of(parent.0));
            }
        }
        work::count_path(looked_at);
        (plan.out, freed)
    }

    /// Tells how many chunks fit, from which the pace of ageing follows.
    pub fn set_capacity(&mut self, chunks: u64) {
        self.capacity = chunks.max(1) as f64;
        self.age_anew();
    }

    /// Of how many new chains one is kept until it had time to be used.
    pub fn one_chain_in(&self) -> u32 {
        self.admission.one_in()
    }

    /// Sets the half-life that capacity and admission ask for, and builds the order again where it is
    /// another.
    fn age_anew(&mut self) {
        // By powers of two, so that the order is built again rarely.
        let room = (self.capacity as u64).next_power_of_two() as f64;
        let kept = f64::from(self.admission.one_in());
        let half_life = (room * kept * HALF_LIFE_PER_CHUNK).max(HALF_LIFE_MIN);
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

    pub(super) fn key_of(&self, slot: u32) -> OrderKey {
        let node = &self.nodes[slot as usize];
        (node.score_now(self.half_life()), node.used_at, Reverse(node.position), slot)
    }

    /// Takes a node out of the order; before anything the order depends on changes.
    pub(super) fn unorder(&mut self, slot: u32) {
        let node = &mut self.nodes[slot as usize];
        if std::mem::take(&mut node.ordered) {
            let key = (node.score, node.used_at, Reverse(node.position), slot);
            self.order.remove(&key);
        }
    }

    /// Puts a node into the order if it may be evicted.
    pub(super) fn order_again(&mut self, slot: u32) {
        let node = &self.nodes[slot as usize];
        if node.ordered || !node.is_bare() || !node.may_go() {
            return;
        }
        let key = self.key_of(slot);
        let node = &mut self.nodes[slot as usize];
        (node.score, node.ordered) = (key.0, true);
        self.order.insert(key);
    }
}

impl Node {
    pub(super) fn aged(&self, clock: u64, half_life: f64) -> f32 {
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
        self.gone.get(&id).copied().unwrap_or(0) == self.tree.node(id).behind_here()
    }

    /// Adds a chunk to the plan if it may go and nothing below it stays; returns what that frees.
    fn take(&mut self, id: NodeId, spare: Option<NodeId>) -> u64 {
        let node = self.tree.node(id);
        if Some(id) == spare || !node.may_go() || !self.is_bare(id) || !self.planned.insert(id) {
            return 0;
        }
        if let Some(parent) = self.tree.ahead(id) {
            *self.gone.entry(parent).or_default() += 1;
        }
        self.out.push(id);
        node.bytes
    }
}
