//! Graphs against a model: random operations from fixed seeds, every structure checked, and every
//! answer compared with what a search of all entries may answer. Runs on the test runner's threads.

mod common;
#[path = "common/slots.rs"]
mod slots;

use common::{Random, measure};
use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    FLAT_MAX_ROWS, GraphInfo, GraphSettings, Index, IndexMode, NewSlot, SearchMode, SearchRequest,
    TAIL_MAX_ROWS, TOMBSTONES_MAX, Work,
};
use llmcache_core::vector::quantise::unit_scale;
use serde_json::json;
use slots::numbered;
use std::collections::HashMap;

const DIM: usize = 16;
const NOW: UnixMs = UnixMs(1_000);
const SMALL: GraphSettings = GraphSettings { mode: IndexMode::Hnsw, m: 4, efc: 16, ef: 24 };

#[derive(Debug, Clone)]
struct Known {
    seq: Seq,
    partition: PartitionKey,
    expire_at: UnixMs,
    hidden: bool,
    number: Option<i64>,
    code: [i8; DIM],
}

/// Codes in clusters: neighbours are nearer than chance, and some codes are equal.
fn random_code(random: &mut Random) -> [i8; DIM] {
    let cluster = random.below(12) as u64;
    let mut centre = Random(cluster);
    let spread = [1, 9, 30][random.below(3)];
    std::array::from_fn(|_| {
        let middle = centre.below(180) as i32 - 90;
        (middle + random.below(spread) as i32 - spread as i32 / 2) as i8
    })
}

fn similarity(a: &[i8; DIM], b: &[i8; DIM]) -> f32 {
    let dot: i32 = a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
    dot as f32 * (unit_scale(a) * unit_scale(b))
}

struct Pair {
    index: Index,
    model: HashMap<u32, Known>,
    slots: Vec<u32>,
    next: u64,
    random: Random,
    filter: Filter,
    /// How many of the nearest entries searches should have found, and how many they did.
    wanted: usize,
    found: usize,
    walked: usize,
}

impl Pair {
    fn new(seed: u64, settings: GraphSettings) -> Self {
        let mut index = Index::new();
        index.set_graph_settings(settings);
        Self {
            index,
            model: HashMap::new(),
            slots: Vec::new(),
            next: 1,
            random: Random(seed),
            filter: Filter::parse(b".n >= 2").expect("a filter"),
            wanted: 0,
            found: 0,
            walked: 0,
        }
    }

    fn insert(&mut self, partitions: usize) {
        let random = &mut self.random;
        let known = Known {
            seq: Seq(self.next),
            partition: PartitionKey(random.below(partitions) as u64),
            expire_at: UnixMs([0, 0, 0, 1_500, 900][random.below(5)]),
            hidden: false,
            number: (random.below(3) > 0).then(|| random.below(4) as i64),
            code: random_code(random),
        };
        self.next += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_le_bytes());
        id[8..].copy_from_slice(&random.next().to_le_bytes());
        let meta = known.number.map(|number| json!({ "n": number }));
        let slot = self.index.insert(NewSlot {
            id: EntryId(id),
            seq: known.seq,
            partition: known.partition,
            expire_at: known.expire_at,
            bytes: 100,
            worth: 1,
            record: meta
                .and_then(|meta| FilterRecord::from_meta(meta.as_object()?, &Default::default())),
            name: None,
            code: Some((&known.code, 0.01)),
        });
        assert!(self.model.insert(slot.0, known).is_none(), "{slot:?} was given out twice");
        self.slots.push(slot.0);
    }

    fn remove(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        let place = self.random.below(self.slots.len());
        let slot = self.slots.swap_remove(place);
        let known = self.model.remove(&slot).expect("a listed slot");
        assert!(self.index.remove(SlotId(slot), known.seq));
        assert!(!self.index.remove(SlotId(slot), known.seq), "removed twice");
        assert!(self.index.slot(SlotId(slot)).is_none() && self.index.code(SlotId(slot)).is_none());
    }

    fn touch(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        let slot = self.slots[self.random.below(self.slots.len())];
        let known = self.model.get_mut(&slot).expect("a listed slot");
        match self.random.below(3) {
            0 => {
                known.expire_at = UnixMs([0, 500, 2_000][self.random.below(3)]);
                self.index.set_expiry(SlotId(slot), known.seq, known.expire_at);
            }
            1 => {
                known.hidden = true;
                self.index.hide(SlotId(slot), known.seq);
            }
            _ => {
                known.hidden = false;
                self.index.unhide(SlotId(slot), known.seq);
            }
        }
    }

    fn search(&mut self, partitions: usize) {
        let code = random_code(&mut self.random);
        let partition = PartitionKey(self.random.below(partitions) as u64);
        let limit = [0, 1, 3, 10, 40][self.random.below(5)];
        let filter = (self.random.below(4) == 0).then_some(&self.filter);
        let ef = [None, Some(1), Some(64), Some(400)][self.random.below(4)];
        let request = SearchRequest {
            counts_refused: true,
            code: &code,
            scale: 0.01,
            rest: &[],
            partition,
            limit,
            ef,
            now: NOW,
            filter,
            min_seq: Seq(0),
        };
        let result = self.index.search(&request);
        let mut expected: Vec<(f32, u32)> = Vec::new();
        for (&slot, known) in &self.model {
            let visible = !known.hidden && !known.expire_at.is_past(NOW);
            let passes = filter.is_none() || known.number.is_some_and(|number| number >= 2);
            if known.partition == partition && visible && passes {
                expected.push((similarity(&code, &known.code), slot));
            }
        }
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        assert!(result.candidates.len() <= limit);
        let mut last = (f32::INFINITY, 0);
        for candidate in &result.candidates {
            let place = (candidate.approx, candidate.slot.0);
            assert!(place.0 < last.0 || place.0 == last.0 && place.1 > last.1, "order");
            last = place;
            assert!(expected.contains(&place), "{candidate:?} was not to be found");
        }
        expected.truncate(limit);
        if result.mode == SearchMode::Graph {
            self.walked += 1;
            self.wanted += expected.len();
            let worst = result.candidates.last().map_or(f32::MAX, |last| last.approx);
            self.found += expected.iter().filter(|(score, _)| *score >= worst).count();
        } else {
            let found = result.candidates.iter().map(|c| (c.approx, c.slot.0));
            assert!(found.eq(expected), "a scan finds all");
        }
    }

    fn saved(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let index = &self.index;
        let blocks = index.used_blocks().map(|block| index.save_block(block)).collect();
        (blocks, index.graph_sections().into_iter().map(|part| index.save_graph(part)).collect())
    }

    fn reload(&mut self) {
        let (blocks, graphs) = self.saved();
        let mut loaded = Index::new();
        loaded.set_graph_settings(self.index.graph_settings());
        for block in &blocks {
            loaded.load_block(block).expect("what was just saved");
        }
        for graph in &graphs {
            loaded.load_graph(graph).expect("what was just saved");
        }
        assert!(loaded.finish_load(), "what was just saved");
        self.index = loaded;
        for known in self.model.values_mut() {
            known.hidden = false;
        }
        self.index.check_invariants();
    }

    fn step(&mut self, target: usize, partitions: usize) {
        let lacking = self.model.len() < target;
        match self.random.below(16) {
            0..=5 if lacking => (0..2).for_each(|_| self.insert(partitions)),
            0..=5 => self.remove(),
            6..=7 => self.remove(),
            8 => self.insert(partitions),
            9 => self.touch(),
            10..=12 => self.search(partitions),
            _ => {
                let budget = [1, 200, 3_000][self.random.below(3)];
                self.index.work(Work(budget));
            }
        }
    }

    /// Works until nothing is left to do.
    fn settle(&mut self) -> GraphInfo {
        let mut rounds = 0;
        while self.index.work(Work(10_000)).more {
            rounds += 1;
            assert!(rounds < 1_000_000, "work without end");
        }
        self.index.check_invariants();
        let info = self.index.graph_info();
        assert_eq!((info.tail, info.tombstones), (0, 0));
        info
    }

    fn remove_all(&mut self) {
        while !self.slots.is_empty() {
            self.remove();
        }
    }
}

#[test]
fn small_runs_agree_after_every_step() {
    for seed in 0..60 {
        let mut pair = Pair::new(seed, SMALL);
        let partitions = [1, 1, 2, 5][seed as usize % 4];
        for step in 0..1_200 {
            let target = if step % 400 < 300 { 120 } else { 3 };
            pair.step(target, partitions);
            pair.index.check_invariants();
            if pair.random.below(150) == 0 {
                pair.reload();
            }
        }
        assert!(pair.walked > 20, "seed {seed}: {} walks", pair.walked);
        let recall = pair.found as f64 / pair.wanted as f64;
        assert!(recall > 0.85, "seed {seed}: recall {recall}");
        pair.settle();
    }
}

#[test]
fn a_million_operations_agree() {
    let mut pair = Pair::new(0x9a4b, GraphSettings { efc: 32, ..SMALL });
    let empty = pair.index.bytes();
    for (target, partitions, steps) in [
        (3_000, 1, 250_000),
        (50, 1, 50_000),
        (4_000, 6, 300_000),
        (2_000, 40, 250_000),
        (0, 40, 150_000),
    ] {
        for step in 0..steps {
            // Few searches: the model looks at every entry for each.
            match pair.random.below(16) {
                0..=5 if pair.model.len() < target => pair.insert(partitions),
                0..=6 => pair.remove(),
                7 => pair.insert(partitions),
                8..=9 => pair.touch(),
                10 if step % 8 == 0 => pair.search(partitions),
                11..=12 => drop(pair.index.work(Work(1))),
                _ => {}
            }
            if step % 10_000 == 0 {
                pair.index.check_invariants();
            }
            if step % 100_000 == 99_999 {
                pair.reload();
            }
        }
    }
    let recall = pair.found as f64 / pair.wanted as f64;
    assert!(recall > 0.9 && pair.walked > 1_000, "recall {recall} in {} walks", pair.walked);
    pair.settle();
    pair.remove_all();
    assert_eq!(pair.index.bytes(), empty);
    pair.index.check_invariants();
}

#[test]
fn removal_allocates_and_frees_next_to_nothing_and_work_gives_the_memory_back() {
    let mut pair = Pair::new(4, SMALL);
    let empty = pair.index.bytes();
    for _ in 0..5_000 {
        pair.insert(2);
    }
    pair.settle();
    while !pair.slots.is_empty() {
        let place = pair.random.below(pair.slots.len());
        let slot = pair.slots.swap_remove(place);
        let known = pair.model.remove(&slot).expect("a listed slot");
        let (removed, _, peak, kept) = measure(|| pair.index.remove(SlotId(slot), known.seq));
        assert!(removed && peak <= 0, "a removal took {peak} bytes");
        // The server waits for it: what a whole graph held is given back between commands.
        assert!(kept > -100_000, "a removal freed {} bytes", -kept);
    }
    let (mut most, mut steps) = (0, 0);
    while pair.index.has_work() {
        let (_, _, _, kept) = measure(|| pair.index.work(Work(1)));
        (most, steps) = (most.max(-kept), steps + 1);
    }
    assert!(most < 100_000 && steps > 1_000, "{most} bytes at once, {steps} steps");
    assert_eq!(pair.index.bytes(), empty);
    assert_eq!(pair.index.graph_info().tombstones, 0);
}

#[test]
fn a_partition_that_empties_gives_back_its_graph() {
    let mut pair = Pair::new(5, SMALL);
    for _ in 0..3_000 {
        pair.insert(2);
    }
    pair.settle();
    let both = pair.index.graph_info();
    assert_eq!((both.graphs, both.linked), (2, 3_000));
    let gone: Vec<u32> =
        pair.slots.iter().copied().filter(|s| pair.model[s].partition.0 == 1).collect();
    for slot in gone {
        let known = pair.model.remove(&slot).expect("a listed slot");
        assert!(pair.index.remove(SlotId(slot), known.seq));
    }
    pair.slots.retain(|slot| pair.model.contains_key(slot));
    pair.index.check_invariants();
    let waiting = pair.index.graph_info();
    assert!(waiting.graphs == 1 && waiting.tombstones > 1_000);
    let mut distances = 0;
    while pair.index.graph_info().tombstones > 0 {
        distances += pair.index.work(Work(1)).spent;
        pair.index.check_invariants();
    }
    assert!(distances < 40 * 1_500, "{distances}: remains are freed, not repaired");
    // Shrinking far below the size of a graph dissolves it.
    while pair.slots.len() > 3 {
        pair.remove();
    }
    let left = pair.settle();
    assert_eq!((left.graphs, left.linked), (0, 0));
}

/// An owner that never works: inserts keep tail and tombstones bounded by themselves.
#[test]
fn inserts_alone_converge() {
    let settings = GraphSettings { mode: IndexMode::Auto, ..SMALL };
    let mut pair = Pair::new(6, settings);
    for _ in 0..FLAT_MAX_ROWS {
        pair.insert(1);
    }
    assert_eq!(pair.index.graph_info().graphs, 0, "small partitions have no graph");
    for _ in 0..4_000 {
        pair.insert(1);
    }
    let info = pair.index.graph_info();
    assert!(info.graphs == 1 && info.tail <= 2 * TAIL_MAX_ROWS as u64, "{info:?}");
    pair.settle();
    for _ in 0..2_500 {
        pair.remove();
    }
    assert!(pair.index.graph_info().tombstones >= 2_400);
    for _ in 0..2_000 {
        pair.insert(1);
    }
    let info = pair.index.graph_info();
    assert!(info.tombstones <= 2 * TOMBSTONES_MAX as u64, "{info:?}");
    pair.index.check_invariants();
}

#[test]
fn one_call_of_work_does_one_node_beyond_its_budget() {
    let mut pair = Pair::new(7, SMALL);
    for _ in 0..1_000 {
        pair.insert(1);
    }
    let mut most = 0;
    loop {
        let linked = pair.index.graph_info().linked;
        let done = pair.index.work(Work(1));
        most = most.max(done.spent);
        assert!(pair.index.graph_info().linked <= linked + 1);
        if !done.more {
            break;
        }
    }
    assert!(most < 3_000, "{most} distances at once");
    assert_eq!(pair.index.work(Work(1)).spent, 0);
}

#[test]
fn modes_and_another_m_rebuild() {
    let mut pair = Pair::new(8, GraphSettings { mode: IndexMode::Flat, ..SMALL });
    for _ in 0..3_000 {
        pair.insert(1);
    }
    assert_eq!(pair.settle().graphs, 0);
    let flat = pair.index.bytes();
    for settings in [
        GraphSettings { mode: IndexMode::Auto, ..SMALL },
        GraphSettings { mode: IndexMode::Auto, m: 8, ..SMALL },
    ] {
        pair.index.set_graph_settings(settings);
        pair.index.check_invariants();
        let info = pair.settle();
        assert_eq!((info.graphs, info.linked), (1, 3_000));
        (0..200).for_each(|_| pair.search(1));
    }
    for _ in 0..100 {
        pair.remove();
    }
    pair.index.set_graph_settings(SMALL);
    pair.settle();
    pair.index.set_graph_settings(GraphSettings { mode: IndexMode::Flat, ..SMALL });
    (0..20).for_each(|_| pair.search(1));
    assert_eq!(pair.settle().graphs, 0);
    let left = pair.index.bytes() as f64;
    // The stamps and heaps of searches stay, and the room of the first blocks.
    assert!(left < flat as f64 * 1.15, "{left} bytes after {flat}");
}

/// Equal codes all over: links point nowhere in particular, and must still hold together.
#[test]
fn equal_codes_are_found() {
    let mut pair = Pair::new(9, SMALL);
    let one = random_code(&mut Random(1));
    for number in 0..1_500_u64 {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&Random(number).next().to_le_bytes());
        pair.index.insert(NewSlot { id: EntryId(id), ..numbered(number, (&one, 0.01)) });
    }
    pair.settle();
    let request = SearchRequest {
        counts_refused: true,
        code: &one,
        scale: 0.01,
        rest: &[],
        partition: PartitionKey(0),
        limit: 50,
        ef: None,
        now: NOW,
        filter: None,
        min_seq: Seq(0),
    };
    assert_eq!(pair.index.search(&request).candidates.len(), 50);
}

/// A search allocates what it answers, not what it walks over.
#[test]
fn memory_of_a_walk_follows_the_limit() {
    let mut pair = Pair::new(10, SMALL);
    for _ in 0..4_000 {
        pair.insert(1);
    }
    pair.settle();
    let code = random_code(&mut Random(2));
    let request = SearchRequest {
        counts_refused: true,
        code: &code,
        scale: 0.01,
        rest: &[],
        partition: PartitionKey(0),
        limit: 5,
        ef: Some(50),
        now: NOW,
        filter: None,
        min_seq: Seq(0),
    };
    pair.index.search(&request);
    let (result, calls, peak, _) = measure(|| pair.index.search(&request));
    assert_eq!(result.mode, SearchMode::Graph);
    assert!(calls <= 3 && peak < 400, "{calls} allocations, {peak} bytes");
}

/// What `bytes` says is what an allocator is asked for, within its size classes.
#[test]
fn memory_is_counted() {
    let (mut pair, _, _, built) = measure(|| {
        let mut pair = Pair::new(11, GraphSettings { m: 16, ..SMALL });
        (0..9_000).for_each(|_| pair.insert(3));
        pair.settle();
        pair
    });
    let said = pair.index.bytes() as isize;
    let ((), _, _, freed) = measure(|| pair.index.clear());
    assert!(built > 0 && (-freed..-freed * 11 / 10).contains(&said), "said {said}, held {freed}");
}
