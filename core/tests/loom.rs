//! Searches on other threads, run against what the main thread does to the index meanwhile, in every order that the
//! memory model allows. Built and run apart: `RUSTFLAGS="--cfg loom" cargo test -p llmcache-core --test loom
//! --release`; blocks have 4 rows there, so that models stay small.
//!
//! What must hold in each of them: a search names no entry that came after it began, scores each entry by its
//! own code, judges it by its own filter record and deadline, and does not miss an entry that nobody touched.

#![cfg(loom)]

use llmcache_core::filter::{Filter, FilterRecord};
use llmcache_core::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use llmcache_core::index::{
    GraphSettings, Index, IndexMode, NewSlot, SearchRequest, SearchResult, SearchTask, Searched,
    TaskScratch, Work,
};
use llmcache_core::sleepers::Sleepers;
use llmcache_core::vector::links::LinkArena;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const QUERY: ([i8; 2], f32) = ([100, 0], 0.01);

/// An entry whose code says which it is: the cosine of its angle to the query is its number in hundredths.
fn insert(index: &mut Index, number: i8, expire_at: UnixMs) -> SlotId {
    let meta = json!({ "n": number });
    let across = (10_000.0 - f32::from(number).powi(2)).sqrt().round() as i8;
    index.insert(NewSlot {
        id: EntryId::of(b"", b"", &[number as u8]),
        seq: Seq(number as u64),
        partition: PartitionKey(0),
        expire_at,
        bytes: 1,
        worth: 0,
        record: FilterRecord::from_meta(meta.as_object().expect("an object"), &Default::default()),
        name: None,
        code: Some((&[number, across], 0.01)),
    })
}

fn index(mode: IndexMode, numbers: std::ops::RangeInclusive<i8>) -> (Index, Vec<SlotId>) {
    let mut index = Index::new();
    index.set_graph_settings(GraphSettings { mode, m: 4, efc: 8, ef: 8 });
    let slots = numbers.map(|number| insert(&mut index, number, UnixMs::NEVER)).collect();
    while index.work(Work(1_000)).more {}
    (index, slots)
}

fn task(index: &mut Index, min_seq: u64, filter: Option<&Filter>) -> Box<SearchTask> {
    let request = SearchRequest {
        code: &QUERY.0,
        scale: QUERY.1,
        rest: &[],
        partition: PartitionKey(0),
        limit: 8,
        ef: Some(8),
        now: UnixMs(10),
        min_seq: Seq(min_seq),
        filter,
        counts_refused: true,
    };
    match index.search_or_task(&request, 0) {
        Searched::Task(task) => task,
        Searched::Done(found) => panic!("done at once: {found:?}"),
    }
}

/// Runs a task beside `meanwhile`; answers the numbers of the entries it found, by their scores.
fn beside(task: Box<SearchTask>, meanwhile: impl FnOnce()) -> Vec<(SlotId, i8)> {
    let searching = loom::thread::spawn(move || task.run(&mut TaskScratch::default()));
    meanwhile();
    let found: SearchResult = searching.join().expect("a result");
    let number = |score: f32| (score * 100.0).round() as i8;
    found.candidates.iter().map(|found| (found.slot, number(found.approx))).collect()
}

/// Runs a model in every order with at most so many preemptions, and sees to it that there were some orders.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let orders = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    // Building a graph reads its own links often before the search begins.
    builder.max_branches = 1_000_000;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{orders} orders");
    assert!(orders > 20, "{orders} orders are none to speak of");
}

#[test]
fn a_row_that_changes_hands_is_never_mistaken() {
    explore(4, || {
        let (mut index, slots) = index(IndexMode::Flat, 1..=3);
        let task = task(&mut index, 0, None);
        let mut reused = slots[1];
        let found = beside(task, || {
            index.remove(slots[1], Seq(2));
            reused = insert(&mut index, 50, UnixMs::NEVER);
        });
        assert_eq!(reused, slots[1], "the model is about a row that is used again");
        assert!(found.contains(&(slots[0], 1)) && found.contains(&(slots[2], 3)), "{found:?}");
        assert!(found.iter().all(|&(slot, number)| slot != reused || number == 2), "{found:?}");
    });
}

/// A search that the second entry must not be found by, while it gives its row to one that would be, were the old
/// one judged by what is known of the new.
struct Refusing {
    /// Entries that are there, and the one of them that is found.
    entries: i8,
    finds: i8,
    /// The second one's deadline, and the new one's, before it is given more time.
    old_until: UnixMs,
    new_until: UnixMs,
    min_seq: u64,
    filter: Option<&'static str>,
}

const REFUSING: Refusing = Refusing {
    entries: 2,
    finds: 1,
    old_until: UnixMs::NEVER,
    new_until: UnixMs::NEVER,
    min_seq: 0,
    filter: None,
};

impl Refusing {
    fn check(self) {
        explore(4, move || {
            let (mut index, slots) = index(IndexMode::Flat, 1..=self.entries);
            index.set_expiry(slots[1], Seq(2), self.old_until);
            let filter = self.filter.map(|text| Filter::parse(text.as_bytes()).expect("a filter"));
            let task = task(&mut index, self.min_seq, filter.as_ref());
            let found = beside(task, || {
                index.remove(slots[1], Seq(2));
                insert(&mut index, 50, self.new_until);
                if self.new_until != UnixMs::NEVER {
                    index.set_expiry(slots[1], Seq(50), UnixMs::NEVER);
                }
            });
            assert_eq!(found, [(slots[self.finds as usize - 1], self.finds)]);
        });
    }
}

#[test]
fn an_entry_is_judged_by_its_own_place_in_the_store_order() {
    // The first two are invalidated.
    Refusing { entries: 3, finds: 3, min_seq: 3, ..REFUSING }.check();
}

#[test]
fn an_entry_is_judged_by_its_own_deadline() {
    Refusing { old_until: UnixMs(5), ..REFUSING }.check();
}

#[test]
fn an_entry_is_judged_by_no_deadline_that_another_was_given_later() {
    Refusing { old_until: UnixMs(5), new_until: UnixMs(5), ..REFUSING }.check();
}

#[test]
fn an_entry_is_judged_by_its_own_record() {
    Refusing { filter: Some(".n == 1 or .n == 50"), ..REFUSING }.check();
}

#[test]
fn a_deadline_that_moves_is_seen_or_not_and_nothing_else() {
    explore(4, || {
        let (mut index, slots) = index(IndexMode::Flat, 1..=2);
        let task = task(&mut index, 0, None);
        let found = beside(task, || {
            index.set_expiry(slots[0], Seq(1), UnixMs(5));
            index.hide(slots[1], Seq(2));
            index.unhide(slots[1], Seq(2));
        });
        assert!(found.iter().all(|&(slot, number)| slots[number as usize - 1] == slot));
    });
}

#[test]
fn a_block_outlives_its_entries_under_a_search() {
    explore(4, || {
        let (mut index, slots) = index(IndexMode::Flat, 1..=2);
        let task = task(&mut index, 0, None);
        let found = beside(task, || {
            index.remove(slots[0], Seq(1));
            index.remove(slots[1], Seq(2));
            index.tidy();
            insert(&mut index, 50, UnixMs::NEVER);
        });
        assert!(found.iter().all(|&(slot, number)| slots[number as usize - 1] == slot));
        index.tidy();
        index.check_invariants();
    });
}

#[test]
fn a_block_grows_under_a_search() {
    explore(4, || {
        let (mut index, slots) = index(IndexMode::Flat, 1..=2);
        let task = task(&mut index, 0, None);
        let mut reused = slots[0];
        let found = beside(task, || {
            // The block of the first two has room for them alone: this copies it.
            insert(&mut index, 40, UnixMs::NEVER);
            index.remove(slots[0], Seq(1));
            reused = insert(&mut index, 50, UnixMs::NEVER);
        });
        assert_eq!(reused, slots[0], "the model is about a row that is used again");
        assert!(found.contains(&(slots[1], 2)), "{found:?}");
        assert!(found.iter().all(|&(slot, number)| slots[number as usize - 1] == slot));
        index.check_invariants();
    });
}

#[test]
fn a_walk_meets_links_that_go() {
    explore(1, || {
        let (mut index, slots) = index(IndexMode::Hnsw, 1..=9);
        let task = task(&mut index, 0, None);
        let found = beside(task, || {
            index.remove(slots[8], Seq(9));
            index.work(Work(1));
        });
        assert!(found.len() >= 4, "{found:?}");
        assert!(found.iter().all(|&(slot, number)| slots[number as usize - 1] == slot));
        index.check_invariants();
    });
}

#[test]
fn who_sees_a_count_sees_the_links_it_counts() {
    explore(3, || {
        let mut links = LinkArena::new(4);
        links.occupy(1);
        let shared = links.shared().clone();
        let reading = loom::thread::spawn(move || shared.links(1).iter().collect::<Vec<_>>());
        // None of them is what a place without a link holds.
        let rows = [3, 2, 7];
        rows.iter().for_each(|&row| links.push(1, row));
        let seen = reading.join().expect("a row");
        assert!(rows.starts_with(&seen), "{seen:?}");
    });
}

/// Before the tenth row the last block has room for one more, before the eleventh it has to grow.
#[test]
fn a_walk_meets_links_that_come() {
    walk_while_one_is_linked(9, 1);
}

#[test]
fn a_walk_meets_links_that_come_and_move_to_a_grown_block() {
    // What goes into a grown block nobody else sees: one preemption makes hardly any order.
    walk_while_one_is_linked(10, 2);
}

fn walk_while_one_is_linked(rows: i8, preemptions: usize) {
    explore(preemptions, move || {
        let (mut index, slots) = index(IndexMode::Hnsw, 1..=rows);
        let task = task(&mut index, 0, None);
        let found = beside(task, || {
            insert(&mut index, 50, UnixMs::NEVER);
            index.work(Work(1));
        });
        assert_eq!(found.len(), 8, "{found:?}");
        assert!(found.iter().all(|&(slot, number)| slots[number as usize - 1] == slot));
        index.check_invariants();
    });
}

/// One puts something where another takes it from, who sleeps where there is nothing: all is taken, and no call is left
/// over once it sleeps.
#[test]
fn who_sleeps_is_called_for_all_that_comes() {
    use loom::sync::atomic::AtomicUsize as Counted;

    /// What is there, who sleeps, and the calls that were made.
    #[derive(Default)]
    struct Shared {
        things: Counted,
        calls: Counted,
        sleepers: Sleepers,
    }

    fn took_one(count: &Counted) -> bool {
        let less = |count: usize| count.checked_sub(1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    impl Shared {
        fn put(&self) {
            self.things.fetch_add(1, Ordering::Release);
            if self.sleepers.claim() {
                self.calls.fetch_add(1, Ordering::Release);
            }
        }

        /// Takes what there is until it would sleep, uncalled; answers how much that was.
        fn take(&self) -> usize {
            let mut taken = 0;
            loop {
                if took_one(&self.things) {
                    taken += 1;
                    continue;
                }
                self.sleepers.will_sleep();
                if self.things.load(Ordering::Acquire) > 0 && self.sleepers.claim() {
                    continue;
                }
                // Who claimed this one calls, if not yet: the test goes on with it below.
                if !took_one(&self.calls) {
                    return taken;
                }
            }
        }
    }

    explore(3, || {
        let shared = loom::sync::Arc::new(Shared::default());
        let taking = loom::sync::Arc::clone(&shared);
        let taker = loom::thread::spawn(move || taking.take());
        shared.put();
        shared.put();
        let mut taken = taker.join().expect("a count");
        // The taker sleeps. If something is there it was called for, once.
        if took_one(&shared.calls) {
            taken += shared.take();
        }
        assert_eq!(taken, 2, "somebody sleeps while there is something");
        assert_eq!(shared.calls.load(Ordering::Relaxed), 0, "a call for nobody");
    });
}
