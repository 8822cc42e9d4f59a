//! Builds, saves, loads and searches an index of many rows of many dimensions, and prints a line of JSON for each.
//!
//! `cargo run --release -p llmcache-core --example large -- FOLDER ROWS DIM`, where the folder holds `*base*.f16.npy`
//! and `*queries*.f16.npy`; `bench/large.py` makes a page of it.
//!
//! Rows past the real ones are real ones moved by the difference of two others, 0.3 to 1.5 long. What has fewer
//! dimensions is made wider by sums of four of its numbers with signs, which keep angles nearly: vectors as hard as the
//! real ones, and as long as those of larger models. Truth is by f32 over all rows.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod common;
#[path = "../tests/common/xorshift.rs"]
mod xorshift;

use common::{Code, K, coded, cpu_seconds, insert, read, search};
use llmcache_core::distance::kernels;
use llmcache_core::index::{GraphSettings, Index, IndexMode, Work};
use std::path::Path;
use std::time::Instant;
use xorshift::Xorshift;

/// Queries that are asked.
const ASKED: usize = 100;
/// Rows that a walk finds, of which it names the best.
const WIDTHS: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// CPU time for which searches of a width are repeated.
const MEASURED_S: f64 = 0.2;
/// Numbers that one of a wider vector is the sum of.
const TERMS: usize = 4;

fn main() {
    let mut given = std::env::args().skip(1);
    let folder = given.next().expect("a folder of vectors");
    let rows: usize = given.next().and_then(|rows| rows.parse().ok()).expect("a number of rows");
    let dim: usize = given.next().and_then(|dim| dim.parse().ok()).expect("a dimension");
    let made = Made::new(read(Path::new(&folder), "base"), dim);
    let queries: Vec<Vec<f32>> = read(Path::new(&folder), "queries")
        .iter()
        .take(ASKED)
        .map(|query| made.widened(query))
        .collect();
    let (index, truth) = build(&made, rows, &queries);
    let mut index = saved_and_loaded(index);
    let asked: Vec<Code> = queries.iter().map(|query| coded(query, false)).collect();
    for ef in WIDTHS {
        ask(&mut index, &asked, &truth, ef);
    }
}

/// Rows and queries of as many dimensions as are asked for.
struct Made {
    base: Vec<Vec<f32>>,
    /// Of each number, what it is the sum of.
    terms: Vec<[(usize, f32); TERMS]>,
}

impl Made {
    fn new(base: Vec<Vec<f32>>, dim: usize) -> Self {
        let narrow = base[0].len();
        assert!(dim >= narrow, "the vectors have {narrow} dimensions already");
        let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
        // Each number of the narrow vector comes first in turn, so that none is left out.
        let terms = (0..dim)
            .map(|place| {
                std::array::from_fn(|term| {
                    let from = if term == 0 { place } else { random.next() as usize };
                    (from % narrow, if random.next() & 1 == 0 { 1.0 } else { -1.0 })
                })
            })
            .collect();
        Self { base, terms }
    }

    fn row(&self, number: usize) -> Vec<f32> {
        let own = &self.base[number % self.base.len()];
        if number < self.base.len() {
            return self.widened(own);
        }
        let mut random =
            Xorshift(0xD129_1E50_7A0B_4C5D ^ (number as u64).wrapping_mul(0x9E37_79B9));
        let one = &self.base[random.next() as usize % self.base.len()];
        let other = &self.base[random.next() as usize % self.base.len()];
        let apart: Vec<f32> = one.iter().zip(other).map(|(a, b)| a - b).collect();
        let share = (random.next() >> 40) as f32 / (1 << 24) as f32;
        let scale = (0.3 + 1.2 * share) / length(&apart).max(1e-6);
        let moved: Vec<f32> = own.iter().zip(&apart).map(|(x, d)| x + d * scale).collect();
        self.widened(&moved)
    }

    /// The same with the dimensions wanted, at unit length.
    fn widened(&self, narrow: &[f32]) -> Vec<f32> {
        let mut wide: Vec<f32> = self
            .terms
            .iter()
            .map(|of| of.iter().map(|&(at, sign)| narrow[at] * sign).sum())
            .collect();
        let scale = 1.0 / length(&wide);
        wide.iter_mut().for_each(|x| *x *= scale);
        wide
    }
}

fn length(vector: &[f32]) -> f32 {
    (kernels().dot_f32)(vector, vector).sqrt()
}

/// Builds the index, and finds the nearest of each query beside it, whose time is not counted.
fn build(made: &Made, rows: usize, queries: &[Vec<f32>]) -> (Index, Vec<Vec<u32>>) {
    let mut index = Index::new();
    index.set_graph_settings(GraphSettings { mode: IndexMode::Hnsw, ..GraphSettings::default() });
    let mut nearest: Vec<Vec<(f32, u32)>> = vec![Vec::new(); queries.len()];
    let (began, mut seconds) = (Instant::now(), 0.0);
    for number in 0..rows {
        let row = made.row(number);
        for (query, best) in queries.iter().zip(&mut nearest) {
            keep(best, ((kernels().dot_f32)(query, &row), number as u32));
        }
        let before = cpu_seconds(began);
        insert(&mut index, number as u32, &coded(&row, false));
        while number % 1_000 == 999 && index.work(Work(1_000)).more {}
        seconds += cpu_seconds(began) - before;
    }
    let before = cpu_seconds(began);
    while index.work(Work(1_000)).more {}
    seconds += cpu_seconds(began) - before;
    println!(
        r#"{{"built_s": {seconds:.1}, "inserts_per_s": {:.0}, "bytes": {:.1}, "link_bytes": {:.1}}}"#,
        rows as f64 / seconds,
        index.bytes() as f64 / rows as f64,
        index.graph_info().link_bytes as f64 / rows as f64
    );
    let rows_of = |best: Vec<(f32, u32)>| best.into_iter().map(|(_, row)| row).collect();
    (index, nearest.into_iter().map(rows_of).collect())
}

/// Keeps the nearest, best first.
fn keep(best: &mut Vec<(f32, u32)>, next: (f32, u32)) {
    if best.len() == K && best[K - 1].0 >= next.0 {
        return;
    }
    best.truncate(K - 1);
    best.insert(best.partition_point(|have| have.0 >= next.0), next);
}

/// The index as it is after a restart.
fn saved_and_loaded(index: Index) -> Index {
    let settings = index.graph_settings();
    let rows = index.graph_info().linked;
    let began = Instant::now();
    let before = cpu_seconds(began);
    let blocks: Vec<_> = index.used_blocks().map(|block| index.save_block(block)).collect();
    let sections = index.graph_sections();
    let graphs: Vec<_> = sections.into_iter().map(|part| index.save_graph(part)).collect();
    let saved = cpu_seconds(began) - before;
    let bytes: usize = blocks.iter().chain(&graphs).map(Vec::len).sum();
    println!(r#"{{"saved_s": {saved:.2}, "saved_bytes": {bytes}}}"#);
    // Two at a time would need twice the memory, and a restart has but one.
    drop(index);
    let mut loaded = Index::new();
    loaded.set_graph_settings(settings);
    let before = cpu_seconds(began);
    for block in &blocks {
        loaded.load_block(block).expect("what was saved");
    }
    for graph in &graphs {
        loaded.load_graph(graph).expect("what was saved");
    }
    assert!(loaded.finish_load(), "what was saved");
    println!(r#"{{"loaded_s": {:.2}}}"#, cpu_seconds(began) - before);
    assert_eq!(
        (loaded.graph_info().linked, loaded.graph_info().tail),
        (rows, 0),
        "all rows are linked"
    );
    loaded
}

/// Searches of one width.
fn ask(index: &mut Index, asked: &[Code], truth: &[Vec<u32>], ef: usize) {
    let (mut found, mut distances) = (0, 0);
    for (query, truth) in asked.iter().zip(truth) {
        let result = search(index, query, Some(ef));
        distances += result.scanned;
        found += result.candidates.iter().filter(|near| truth.contains(&near.slot.0)).count();
    }
    // The system counts a thread's time in ticks of some milliseconds.
    let began = Instant::now();
    let before = cpu_seconds(began);
    let (mut seconds, mut searches) = (0.0, 0);
    while seconds < MEASURED_S {
        for query in asked {
            std::hint::black_box(search(index, query, Some(ef)));
        }
        (seconds, searches) = (cpu_seconds(began) - before, searches + asked.len());
    }
    let us = seconds * 1e6 / searches as f64;
    println!(
        r#"{{"width": {ef}, "recall": {:.4}, "distances": {}, "us": {us:.1}}}"#,
        found as f64 / (K * asked.len()) as f64,
        distances / asked.len()
    );
}
