//! What a graph finds of real vectors, and how many distances it computes for it: counts, which are
//! the same on every machine, so that a change for the worse fails here. Runs on the test runner's
//! threads.

#![expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows how far from its bound each count is"
)]

mod common;
#[path = "common/vectors.rs"]
mod vectors;

use common::{Random, measure};
use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    GraphSettings, Index, IndexMode, NewSlot, SearchMode, SearchRequest, SearchResult, Work,
};
use llmcache_core::vector::fine::{OwnPlane, rest_of};
use llmcache_core::vector::quantise::Code;
use serde_json::json;
use std::collections::HashMap;
use vectors::{codes, nearest, read};

const K: usize = 10;
const GRAPH: IndexMode = IndexMode::Hnsw;

/// An index of some of the vectors.
struct World {
    vectors: Vec<Vec<f32>>,
    codes: Vec<Code>,
    queries: Vec<Vec<f32>>,
    asked: Vec<Code>,
    /// Whether planes are kept and queries asked with what rounding left of them.
    planes: bool,
    index: Index,
    /// Which vector is in which slot, and back.
    row_in: HashMap<SlotId, u32>,
    slot_of: HashMap<u32, SlotId>,
}

impl World {
    fn new(mode: IndexMode) -> Self {
        let (vectors, queries) = (read("base.f16.npy"), read("queries.f16.npy"));
        let (codes, asked) = (codes(&vectors), codes(&queries));
        let (row_in, slot_of) = Default::default();
        let mut index = Index::new();
        index.set_graph_settings(GraphSettings { mode, ..GraphSettings::default() });
        Self { vectors, codes, queries, asked, planes: false, index, row_in, slot_of }
    }

    fn insert(&mut self, row: u32, expire_at: UnixMs) {
        let code = &self.codes[row as usize];
        let meta = json!({ "n": row });
        let slot = self.index.insert(NewSlot {
            id: EntryId::of(b"", b"", &row.to_le_bytes()),
            seq: Seq(u64::from(row) + 1),
            partition: PartitionKey(0),
            expire_at,
            bytes: 1,
            worth: 0,
            record: FilterRecord::from_meta(
                meta.as_object().expect("an object"),
                &Default::default(),
            ),
            name: None,
            code: Some((&code.codes, code.scale)),
        });
        if self.planes {
            let vector = &self.vectors[row as usize];
            self.index.set_plane(slot, OwnPlane::of(vector, &code.codes, code.scale).as_plane());
        }
        self.row_in.insert(slot, row);
        self.slot_of.insert(row, slot);
    }

    fn remove(&mut self, row: u32) {
        let slot = self.slot_of.remove(&row).expect("it was inserted");
        self.row_in.remove(&slot);
        assert!(self.index.remove(slot, Seq(u64::from(row) + 1)));
    }

    fn settle(&mut self) {
        while self.index.work(Work(50_000)).more {}
        self.index.check_invariants();
    }

    fn search(
        &mut self,
        query: usize,
        limit: usize,
        ef: usize,
        now: u64,
        filter: Option<&Filter>,
    ) -> SearchResult {
        let asked = &self.asked[query];
        let rest = rest_of(&self.queries[query], &asked.codes, asked.scale);
        self.index.search(&SearchRequest {
            counts_refused: true,
            code: &asked.codes,
            scale: asked.scale,
            rest: if self.planes { &rest } else { &[] },
            partition: PartitionKey(0),
            limit,
            ef: Some(ef),
            now: UnixMs(now),
            filter,
            min_seq: Seq(0),
        })
    }

    /// Recall of the nearest `limit` among `rows`, and distances for each query.
    fn measure(
        &mut self,
        rows: &[u32],
        limit: usize,
        ef: usize,
        now: u64,
        filter: Option<&Filter>,
    ) -> (f64, usize) {
        let (mut found, mut wanted, mut distances) = (0, 0, 0);
        for query in 0..self.queries.len() {
            let result = self.search(query, limit, ef, now, filter);
            distances += result.scanned;
            let truth = nearest(&self.vectors, rows, &self.queries[query], limit);
            wanted += truth.len();
            let named = result.candidates.iter().map(|c| self.row_in[&c.slot]);
            found += named.filter(|row| truth.contains(row)).count();
        }
        (found as f64 / wanted as f64, distances / self.queries.len())
    }

    fn rows(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = self.slot_of.keys().copied().collect();
        rows.sort_unstable();
        rows
    }
}

fn all(mode: IndexMode) -> World {
    filled(World::new(mode))
}

fn with_planes(mode: IndexMode) -> World {
    filled(World { planes: true, ..World::new(mode) })
}

fn filled(mut world: World) -> World {
    for row in 0..world.vectors.len() as u32 {
        world.insert(row, UnixMs::NEVER);
    }
    world.settle();
    world
}

#[test]
fn recall_and_distances_of_each_effort() {
    let mut world = all(GRAPH);
    let rows = world.rows();
    let bytes = world.index.bytes() as f64 / rows.len() as f64;
    for (ef, least, most) in [(24, 0.95, 480), (48, 0.98, 760), (96, 0.99, 1_200)] {
        let (recall, distances) = world.measure(&rows, K, ef, 1, None);
        println!("ef {ef}: recall {recall:.4}, {distances} distances");
        assert!(recall >= least, "ef {ef}: recall {recall}");
        assert!(distances <= most, "ef {ef}: {distances} distances");
    }
    // Filter records are the callers'; they stand beside the 600 bytes.
    let records = 48.0;
    assert!(bytes <= 600.0 + records + 20.0, "{bytes} bytes an entry");
}

/// Planes are read for the few that are about to be named: more of the nearest for the same distances.
#[test]
fn planes_take_recall_beyond_codes() {
    let (mut codes, mut planes) = (all(IndexMode::Flat), with_planes(IndexMode::Flat));
    let rows = codes.rows();
    let (by_codes, _) = codes.measure(&rows, K, 1, 1, None);
    let (by_planes, _) = planes.measure(&rows, K, 1, 1, None);
    println!("flat: recall {by_codes:.4} by codes, {by_planes:.4} by planes");
    assert!(by_codes < 0.998 && by_planes >= 0.9985, "{by_codes}, {by_planes}");
    let bytes = (planes.index.bytes() - codes.index.bytes()) as f64 / rows.len() as f64;
    assert!(bytes <= 104.0, "{bytes} bytes a plane");

    let (mut codes, mut planes) = (all(GRAPH), with_planes(GRAPH));
    for (ef, least) in [(48, 0.985), (96, 0.993), (192, 0.997)] {
        let (without, others) = codes.measure(&rows, K, ef, 1, None);
        let (recall, distances) = planes.measure(&rows, K, ef, 1, None);
        println!(
            "ef {ef}: recall {without:.4} by codes, {recall:.4} by planes, {distances} distances"
        );
        assert_eq!(distances, others, "the walk is the same");
        assert!(recall >= least && recall >= without, "ef {ef}: {recall}, {without} by codes");
    }
}

#[test]
fn replacing_nearly_all_entries_costs_no_recall() {
    let mut world = World::new(GRAPH);
    for row in 0..2_000 {
        world.insert(row, UnixMs::NEVER);
    }
    world.settle();
    let mut random = Random(3);
    let mut old: Vec<u32> = (0..2_000).collect();
    for new in 2_000..3_800 {
        let gone = old.swap_remove(random.below(old.len()));
        world.remove(gone);
        world.insert(new, UnixMs::NEVER);
        world.index.work(Work(2_000));
    }
    world.settle();
    let rows = world.rows();
    assert_eq!(rows.len(), 2_000);
    let mut fresh = World::new(GRAPH);
    for &row in &rows {
        fresh.insert(row, UnixMs::NEVER);
    }
    fresh.settle();
    for ef in [16, 32, 64] {
        let (now, distances) = world.measure(&rows, K, ef, 1, None);
        let (built, others) = fresh.measure(&rows, K, ef, 1, None);
        println!("ef {ef}: {now:.4} with {distances}, built anew {built:.4} with {others}");
        assert!(now >= built - 0.005, "ef {ef}: recall {now}, built anew {built}");
        assert!(distances <= others * 11 / 10, "ef {ef}: {distances} distances, {others} anew");
    }
    let empty = Index::new().bytes();
    let held = world.index.bytes() as isize;
    // What an emptied graph held is given back in slices.
    let ((), _, _, kept) = measure(|| {
        rows.into_iter().for_each(|row| world.remove(row));
        world.settle();
    });
    assert_eq!(world.index.bytes(), empty, "memory of the removed");
    assert!(-kept > held * 9 / 10, "{kept} of {held} bytes came back");
}

/// How many entries a search with their own vector does not find.
fn lost(world: &mut World) -> usize {
    let mut lost = 0;
    for (&row, &slot) in &world.slot_of {
        let code = &world.codes[row as usize];
        let found = world.index.search(&SearchRequest {
            counts_refused: true,
            code: &code.codes,
            scale: code.scale,
            rest: &[],
            partition: PartitionKey(0),
            limit: K,
            ef: Some(48),
            now: UnixMs(1),
            filter: None,
            min_seq: Seq(0),
        });
        lost += usize::from(found.candidates.iter().all(|candidate| candidate.slot != slot));
    }
    println!("{lost} of {} lost", world.slot_of.len());
    lost
}

/// Nothing is stored and lost, also when most of what an entry was linked with is gone.
#[test]
fn every_entry_is_found_by_its_own_vector() {
    let mut world = all(GRAPH);
    assert!(lost(&mut world) <= 4);
    let mut random = Random(8);
    for row in world.rows() {
        if random.below(4) > 0 {
            world.remove(row);
        }
    }
    world.settle();
    assert!(lost(&mut world) <= 1);
}

/// Nearly all entries go at once, and so many come that they are linked among the tombstones.
#[test]
fn entries_stored_among_tombstones_are_found() {
    let mut world = all(GRAPH);
    (0..3_950).for_each(|row| world.remove(row));
    assert_eq!(world.index.graph_info().tombstones, 3_950);
    (0..3_000).for_each(|row| world.insert(row, UnixMs::NEVER));
    world.index.check_invariants();
    assert!(world.index.graph_info().linked > 1_000 && world.index.graph_info().tombstones > 500);
    assert!(lost(&mut world) <= 3);
    world.settle();
    assert!(lost(&mut world) <= 3);
    let rows = world.rows();
    let (recall, distances) = world.measure(&rows, K, 48, 1, None);
    println!("recall {recall:.4}, {distances} distances");
    assert!(recall >= 0.98, "{recall}");
}

/// Mass expiry: half of the entries go at once, before any repair and after it.
#[test]
fn half_of_the_entries_at_once() {
    let mut world = all(GRAPH);
    for row in 0..world.vectors.len() as u32 {
        if row % 2 == 0 {
            world.remove(row);
        }
    }
    let rows = world.rows();
    let (before, _) = world.measure(&rows, K, 48, 1, None);
    world.settle();
    let (after, distances) = world.measure(&rows, K, 48, 1, None);
    println!("unrepaired {before:.4}, repaired {after:.4} with {distances}");
    assert!(before >= 0.97 && after >= 0.97, "{before}, {after}");
    assert_eq!(world.index.graph_info().linked, 2_000);
}

#[test]
fn rows_that_are_due_are_walked_through() {
    let mut world = World::new(GRAPH);
    for row in 0..4_000 {
        world.insert(row, if row % 4 == 0 { UnixMs::NEVER } else { UnixMs(500) });
    }
    world.settle();
    let rows: Vec<u32> = (0..4_000).filter(|row| row % 4 == 0).collect();
    let (recall, distances) = world.measure(&rows, K, 48, 1_000, None);
    println!("recall {recall:.4}, {distances} distances");
    assert!(recall >= 0.97, "{recall}");
}

#[test]
fn a_filter_of_each_selectivity_finds_enough() {
    let mut world = all(GRAPH);
    for (text, share) in [
        (".n % 2 == 0", 2),
        (".n % 10 == 0", 10),
        (".n % 100 == 0", 100),
        (".n % 1000 == 0", 1_000),
    ] {
        let filter = Filter::parse(text.as_bytes()).expect("a filter");
        let rows: Vec<u32> = (0..4_000).filter(|row| row % share == 0).collect();
        let (recall, distances) = world.measure(&rows, K, 48, 1, Some(&filter));
        println!("{text}: recall {recall:.4}, {distances} distances");
        assert!(recall >= 0.97, "{text}: {recall}");
        let result = world.search(0, K, 48, 1, Some(&filter));
        if share >= 100 {
            assert_eq!(result.mode, SearchMode::GraphThenFlat, "{text}");
        }
    }
}

#[test]
fn a_thousand_nearest() {
    let mut world = all(GRAPH);
    let rows = world.rows();
    let (recall, _) = world.measure(&rows, 1_000, 1_000, 1, None);
    assert!(recall >= 0.98, "{recall}");
    let mut auto = all(IndexMode::Auto);
    assert_eq!(auto.search(0, 1_000, 48, 1, None).mode, SearchMode::Flat, "a scan costs less");
    assert_eq!(auto.search(0, 10, 48, 1, None).mode, SearchMode::Graph);
}

/// Both of an index and of the one that loaded what it saved.
#[test]
fn a_loaded_graph_answers_alike() {
    let mut world = all(GRAPH);
    let mut loaded = Index::new();
    loaded.set_graph_settings(world.index.graph_settings());
    for block in world.index.used_blocks() {
        loaded.load_block(&world.index.save_block(block)).expect("what was saved");
    }
    for section in world.index.graph_sections() {
        loaded.load_graph(&world.index.save_graph(section)).expect("what was saved");
    }
    assert!(loaded.finish_load());
    loaded.check_invariants();
    assert_eq!(loaded.graph_info().linked, 4_000);
    let answers = |world: &mut World| -> Vec<SearchResult> {
        (0..200).map(|query| world.search(query, K, 32, 1, None)).collect()
    };
    let before = answers(&mut world);
    world.index = loaded;
    assert!(before == answers(&mut world));
}
