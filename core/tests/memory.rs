//! What the index takes for an entry of 384 dimensions with a graph, by its own count and by the
//! allocator's. Random codes from a fixed seed; runs on the test runner's threads.

mod common;
#[path = "common/slots.rs"]
mod slots;

use common::{Random, measure};
use llmcache_core::index::{GraphSettings, Index, IndexMode, Work};
use slots::numbered;

const DIM: usize = 384;
const MOST: usize = 612;

fn insert(index: &mut Index, random: &mut Random, number: u64) {
    let code: Vec<i8> = (0..DIM).map(|_| (random.below(255) as i16 - 127) as i8).collect();
    index.insert(numbered(number, (&code, 0.01)));
}

/// 10,000 rows use 16 of the last block's 256, 5,000 rows 136, 7,000 rows 88: what is empty of it is paid
/// for by all.
#[test]
fn an_entry_takes_at_most_612_bytes_of_the_index() {
    let mut index = Index::new();
    // What links take does not depend on how well they were chosen.
    let settings = GraphSettings { mode: IndexMode::Hnsw, efc: 16, ..GraphSettings::default() };
    index.set_graph_settings(settings);
    let ((), _, _, kept) = measure(|| {
        let mut random = Random(5);
        for number in 0..10_000 {
            insert(&mut index, &mut random, number);
            if [4_999, 6_999, 9_999].contains(&number) {
                while index.work(Work(1_000)).more {}
                let (bytes, rows) = (index.bytes(), number as usize + 1);
                assert!(bytes <= MOST * rows, "{} bytes a row of {rows}", bytes / rows);
            }
        }
    });
    let (said, kept) = (index.bytes(), kept as usize);
    assert!(kept <= said && said <= kept + kept / 20, "said {said}, held {kept}");
}
