//! Searches that go on elsewhere: they find what a search here finds, whatever comes and goes meanwhile. Random
//! operations from fixed seeds; some tests start threads, since that is what they are about.

mod common;
#[expect(dead_code, reason = "searches are compared with each other, not with the truth")]
#[path = "common/vectors.rs"]
mod vectors;

use common::{Random, measure};
use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    Candidate, GraphSettings, Index, IndexMode, NewSlot, SearchMode, SearchRequest, SearchResult,
    SearchTask, Searched, TaskScratch, Work,
};
use llmcache_core::vector::fine::{OwnPlane, rest_of};
use llmcache_core::vector::quantise::{Code, approx_similarity, unit_scale};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::mpsc;
use vectors::{codes, read};

const NEVER: UnixMs = UnixMs::NEVER;

struct World {
    codes: Vec<Code>,
    asked: Vec<Code>,
    /// What rounding left of the queries and of every other vector.
    rests: Vec<Vec<i8>>,
    planes: Vec<OwnPlane>,
    index: Index,
    /// What is in each slot: the place in the store order and the number of the vector.
    entries: HashMap<SlotId, (Seq, usize)>,
    seq: u64,
}

impl World {
    fn new(mode: IndexMode) -> Self {
        let (vectors, queries) = (read("base.f16.npy"), read("queries.f16.npy"));
        let (codes, asked) = (codes(&vectors), codes(&queries));
        let of = |(vector, code): (&Vec<f32>, &Code)| rest_of(vector, &code.codes, code.scale);
        let rests = queries.iter().zip(&asked).map(of).collect();
        let of = |(vector, code): (&Vec<f32>, &Code)| OwnPlane::of(vector, &code.codes, code.scale);
        let planes = vectors.iter().zip(&codes).map(of).collect();
        let mut index = Index::new();
        index.set_graph_settings(GraphSettings { mode, ..GraphSettings::default() });
        Self { codes, asked, rests, planes, index, entries: HashMap::new(), seq: 0 }
    }

    fn filled(mode: IndexMode, rows: usize) -> Self {
        let mut world = Self::new(mode);
        (0..rows).for_each(|vector| world.insert(vector, PartitionKey(0)));
        while world.index.work(Work(100_000)).more {}
        world
    }

    fn insert(&mut self, vector: usize, partition: PartitionKey) {
        self.insert_by(Index::insert, vector, partition);
    }

    fn insert_unlinked(&mut self, vector: usize, partition: PartitionKey) {
        self.insert_by(Index::insert_unlinked, vector, partition);
    }

    fn insert_by(
        &mut self,
        insert: impl FnOnce(&mut Index, NewSlot<'_>) -> SlotId,
        vector: usize,
        partition: PartitionKey,
    ) {
        self.seq += 1;
        let code = &self.codes[vector];
        let meta = json!({ "n": vector, "tenth": vector % 10 });
        let new = NewSlot {
            id: EntryId::of(b"", b"", &self.seq.to_le_bytes()),
            seq: Seq(self.seq),
            partition,
            expire_at: if vector % 50 == 7 { UnixMs(5) } else { NEVER },
            bytes: 1,
            worth: 0,
            record: FilterRecord::from_meta(
                meta.as_object().expect("an object"),
                &Default::default(),
            ),
            name: None,
            code: Some((&code.codes, code.scale)),
        };
        let slot = insert(&mut self.index, new);
        if vector.is_multiple_of(2) {
            self.index.set_plane(slot, self.planes[vector].as_plane());
        }
        self.entries.insert(slot, (Seq(self.seq), vector));
    }

    fn remove(&mut self, slot: SlotId) {
        let (seq, _) = self.entries.remove(&slot).expect("an entry");
        assert!(self.index.remove(slot, seq));
    }

    fn any(&self, random: &mut Random) -> SlotId {
        let mut slots: Vec<_> = self.entries.keys().copied().collect();
        slots.sort_unstable();
        slots[random.below(slots.len())]
    }

    fn task(&mut self, query: usize, ef: usize, filter: Option<&Filter>) -> Box<SearchTask> {
        match self.index.search_or_task(&request(&self.asked[query], ef, filter), 0) {
            Searched::Task(task) => task,
            Searched::Done(found) => panic!("nothing is left of it: {found:?}"),
        }
    }

    /// Slots of the index, those of other partitions too.
    fn slots(&self) -> u32 {
        self.entries.keys().map(|slot| slot.0 + 1).max().unwrap_or(0)
    }

    /// The entries as they are now.
    fn picture(&self) -> HashMap<SlotId, usize> {
        self.entries.iter().map(|(&slot, &(_, vector))| (slot, vector)).collect()
    }
}

fn request<'a>(asked: &'a Code, ef: usize, filter: Option<&'a Filter>) -> SearchRequest<'a> {
    SearchRequest {
        code: &asked.codes,
        scale: asked.scale,
        rest: &[],
        partition: PartitionKey(0),
        limit: 10,
        ef: Some(ef),
        now: UnixMs(10),
        min_seq: Seq(3),
        filter,
        counts_refused: true,
    }
}

fn parsed(filter: &str) -> Filter {
    Filter::parse(filter.as_bytes()).expect("a filter")
}

/// What both searches found and spent. A task that goes through a partition lists its rows itself, which it counts as
/// one step for each so many slots of the index.
fn assert_same(here: &SearchResult, there: &SearchResult, slots: u64, what: &str) {
    let listing = match here.mode {
        SearchMode::Graph => 0,
        SearchMode::GraphThenFlat | SearchMode::Flat => slots / SLOTS_PER_STEP + 1,
    };
    let (least, spent) = (here.steps.rows, there.steps.rows);
    assert!((least..=least + listing).contains(&spent), "{what}: {least} rows here, {spent} there");
    // Which rows are judged depends on the order in which they come.
    let there = SearchResult { steps: here.steps, ..there.clone() };
    assert_eq!(*here, there, "{what}");
}

/// Slots that a task passes for one step.
const SLOTS_PER_STEP: u64 = 8;

#[test]
fn a_task_finds_what_a_search_here_finds() {
    for mode in [IndexMode::Hnsw, IndexMode::Flat] {
        let mut world = World::filled(mode, 3_000);
        for vector in 0..100 {
            world.insert(vector, PartitionKey(0));
            world.insert(vector, PartitionKey(1));
        }
        let mut scratch = TaskScratch::default();
        let filters = [None, Some(parsed(".tenth < 5")), Some(parsed(".n == 17"))];
        let mut modes = Vec::new();
        for (query, filter) in (0..60).map(|query| (query, &filters[query % 3])) {
            let asked = world.asked[query].clone();
            let rest = world.rests[query].clone();
            for (counts_refused, rest) in
                [(true, &[][..]), (false, &[]), (true, &rest), (false, &rest)]
            {
                let request =
                    SearchRequest { counts_refused, rest, ..request(&asked, 40, filter.as_ref()) };
                // Asked for twice, so that the rows that pass are known to both.
                world.index.search(&request);
                let here = world.index.search(&request);
                let there = match world.index.search_or_task(&request, 0) {
                    Searched::Task(task) => task.run(&mut scratch),
                    Searched::Done(found) => panic!("{mode:?}: done at once: {found:?}"),
                };
                let slots = u64::from(world.slots());
                assert_same(&here, &there, slots, &format!("{mode:?}, query {query}"));
                assert!(!here.candidates.is_empty());
                modes.push(here.mode);
            }
            let request = request(&asked, 40, filter.as_ref());
            let (here, there) =
                (world.index.search(&request), world.task(query, 40, filter.as_ref()));
            let finished = world.index.finish(there, 1, || true).expect("it was told to go on");
            let what = format!("{mode:?}, query {query}: finished here");
            // Interrupted after each step it lists rows anew, as often as it is interrupted.
            assert_same(&here, &finished, u64::MAX / 2, &what);
            match world.index.search_or_task(&request, u64::MAX) {
                Searched::Done(found) => assert!(!found.candidates.is_empty()),
                Searched::Task(task) => panic!("cheap enough to be done here: {task:?}"),
            }
        }
        let wanted: &[_] = match mode {
            IndexMode::Hnsw => &[SearchMode::Graph, SearchMode::GraphThenFlat, SearchMode::Flat],
            _ => &[SearchMode::Flat],
        };
        assert!(wanted.iter().all(|mode| modes.contains(mode)), "{modes:?}");
    }
}

#[test]
fn what_came_meanwhile_is_not_found_and_what_was_there_is_scored_by_its_own_code() {
    for mode in [IndexMode::Hnsw, IndexMode::Flat] {
        let mut world = World::filled(mode, 2_500);
        let (mut random, mut scratch) = (Random(4), TaskScratch::default());
        for round in 0..40 {
            let query = random.below(world.asked.len());
            let filter = (round % 3 == 1).then(|| parsed(".tenth != 3"));
            let (picture, task) = (world.picture(), world.task(query, 40, filter.as_ref()));
            for _ in 0..150 {
                let gone = world.any(&mut random);
                world.remove(gone);
                world.insert(random.below(3_000), PartitionKey(0));
                world.index.work(Work(random.below(3_000)));
            }
            let found = task.run(&mut scratch);
            world.index.tidy();
            world.index.check_invariants();
            for candidate in &found.candidates {
                let Some(&vector) = picture.get(&candidate.slot) else {
                    panic!("{candidate:?} came after the search began");
                };
                check_score(&world, query, vector, candidate);
                let stands = world.entries.get(&candidate.slot).map(|&(_, now)| now);
                assert_eq!(stands, Some(vector), "{mode:?}: found although it went before");
            }
            assert!(found.candidates.len() >= 5, "{found:?}");
        }
    }
}

fn check_score(world: &World, query: usize, vector: usize, candidate: &Candidate) {
    let (asked, code) = (&world.asked[query], &world.codes[vector]);
    let products = asked.codes.iter().zip(&code.codes);
    let dot = products.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
    assert_eq!(
        candidate.approx,
        approx_similarity(dot, unit_scale(&asked.codes), unit_scale(&code.codes))
    );
}

#[test]
fn a_row_that_is_linked_meanwhile_is_found_once() {
    let mut world = World::filled(IndexMode::Hnsw, 1_500);
    (1_500..2_500).for_each(|vector| world.insert_unlinked(vector, PartitionKey(0)));
    let mut scratch = TaskScratch::default();
    let tasks: Vec<_> = (0..20).map(|query| world.task(query, 100, None)).collect();
    while world.index.work(Work(100_000)).more {}
    for task in tasks {
        let found = task.run(&mut scratch);
        assert_eq!((found.mode, found.candidates.len()), (SearchMode::Graph, 10));
        let slots: HashSet<_> = found.candidates.iter().map(|found| found.slot).collect();
        assert_eq!(slots.len(), 10, "some twice: {found:?}");
    }
}

#[test]
fn tasks_run_beside_the_thread_that_changes_the_index() {
    let mut world = World::filled(IndexMode::Hnsw, 3_000);
    let mut random = Random(8);
    let (send, receive) = mpsc::channel::<(usize, HashMap<SlotId, usize>, Box<SearchTask>)>();
    let (answer, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut scratch = TaskScratch::default();
            for (query, picture, task) in receive {
                answer.send((query, picture, task.run(&mut scratch))).expect("a reader");
            }
        });
        let mut checked = 0;
        for _ in 0..400 {
            let query = random.below(world.asked.len());
            let filter = (random.below(3) == 0).then(|| parsed(".tenth != 3"));
            let ef = 20 + random.below(200);
            let task = (query, world.picture(), world.task(query, ef, filter.as_ref()));
            send.send(task).expect("a thread");
            for _ in 0..20 {
                let gone = world.any(&mut random);
                world.remove(gone);
                world.insert(random.below(3_000), PartitionKey(0));
                world.index.work(Work(random.below(2_000)));
            }
            for (query, picture, found) in answers.try_iter() {
                checked += found.candidates.len();
                for candidate in &found.candidates {
                    check_score(&world, query, picture[&candidate.slot], candidate);
                }
                world.index.tidy();
            }
        }
        drop(send);
        assert!(checked > 0, "no search ended while the index changed");
    });
    world.index.check_invariants();
}

#[test]
fn an_index_emptied_under_a_search_gives_its_memory_back() {
    let ((), _, _, kept) = measure(empty_under_a_search);
    assert!(kept < 4_096, "{kept} bytes are held by nobody");
}

fn empty_under_a_search() {
    let mut world = World::filled(IndexMode::Hnsw, 2_600);
    let empty = World::new(IndexMode::Hnsw).index.bytes();
    let tasks: Vec<_> = (0..3).map(|query| world.task(query, 40, None)).collect();
    let picture = world.picture();
    for &slot in picture.keys() {
        world.remove(slot);
    }
    while world.index.work(Work(100_000)).more {}
    let mut scratch = TaskScratch::default();
    for task in tasks {
        assert_eq!(task.run(&mut scratch).candidates, [], "all went before it ran");
        world.index.tidy();
    }
    world.index.check_invariants();
    assert!(world.index.bytes() <= empty, "{} bytes of nothing", world.index.bytes());
    world.insert(1, PartitionKey(0));
    let asked = world.asked[0].clone();
    assert_eq!(world.index.search(&request(&asked, 40, None)).candidates.len(), 1);
}
