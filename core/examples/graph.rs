//! Prints what the graph of an index costs and finds on real vectors: recall, distances and time of a
//! search for each EF, inserts a second, bytes a vector.
//!
//! `cargo run --release -p llmcache-core --example graph -- FOLDER [ROWS [codes|ask]]`, where the folder holds
//! `*base*.f16.npy` and `*queries*.f16.npy`.
//!
//! `codes`: without fine planes, as an index of `QUANT Q8` is. `ask`: EFs are read from the input, and what is found is
//! written as JSON.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod common;

use common::{Code, K, coded, cpu_seconds, insert, read, search};
use llmcache_core::ids::{Seq, SlotId};
use llmcache_core::index::{GraphSettings, Index, IndexMode, SearchMode, Work};
use std::path::Path;
use std::time::Instant;

const REPEATS: usize = 5;

fn main() {
    let mut given = std::env::args().skip(1);
    let folder = given.next().unwrap_or_else(|| "bench/data".to_owned());
    let most = given.next().and_then(|rows| rows.parse().ok()).unwrap_or(usize::MAX);
    let base: Vec<_> = read(Path::new(&folder), "base").into_iter().take(most).collect();
    let queries = read(Path::new(&folder), "queries");
    let truth: Vec<Vec<u32>> = queries.iter().map(|query| nearest(&base, query)).collect();
    let way = given.next().unwrap_or_default();
    let by_codes = way == "codes";
    let codes: Vec<Code> = base.iter().map(|vector| coded(vector, by_codes)).collect();
    let queries: Vec<Code> = queries.iter().map(|vector| coded(vector, by_codes)).collect();
    if way == "ask" {
        return answer(&codes, &queries, &truth);
    }
    println!("{} vectors, {} queries", base.len(), queries.len());

    let mut flat = Index::new();
    flat.set_graph_settings(GraphSettings { mode: IndexMode::Flat, ..GraphSettings::default() });
    fill(&mut flat, &codes);
    report("flat", &mut flat, &queries, &truth, None);

    let mut graph = graph();
    build(&mut graph, &codes);
    let info = graph.graph_info();
    let rows = codes.len() as f64;
    println!("{info:?}");
    println!(
        "bytes a vector: links {:.1}, code {}, in all {:.1}",
        info.link_bytes as f64 / rows,
        codes[0].codes.len() + 4,
        graph.bytes() as f64 / rows
    );
    for ef in [10, 16, 24, 32, 40, 48, 64, 96, 128, 192, 256] {
        report(&format!("ef {ef}"), &mut graph, &queries, &truth, Some(ef));
    }
    save_and_load(&graph);
    churn(&mut graph, &codes, &queries, &truth);
}

/// Builds the graph and measures searches of each EF that is asked for by a line, a line of JSON for each: for
/// `bench/library.py`, which asks another library in turns.
fn answer(codes: &[Code], queries: &[Code], truth: &[Vec<u32>]) {
    let mut index = graph();
    let began = Instant::now();
    let before = cpu_seconds(began);
    for (row, code) in codes.iter().enumerate() {
        insert(&mut index, row as u32, code);
        while row % 1_000 == 999 && index.work(Work(1_000)).more {}
    }
    while index.work(Work(1_000)).more {}
    let (rows, seconds) = (codes.len() as f64, cpu_seconds(began) - before);
    let bytes = index.bytes() as f64 / rows;
    println!(r#"{{"inserts_per_s": {:.0}, "bytes": {bytes:.1}}}"#, rows / seconds);
    for line in std::io::stdin().lines() {
        let ef = line.expect("a line").trim().parse().expect("an EF");
        let found = measured(&mut index, queries, truth, Some(ef), 1);
        println!(r#"{{"recall": {:.4}, "us": {:.2}}}"#, found.recall, found.us);
    }
}

fn graph() -> Index {
    let mut graph = Index::new();
    graph.set_graph_settings(GraphSettings { mode: IndexMode::Hnsw, ..GraphSettings::default() });
    graph
}

/// Times a restart: rows alone, and rows with their graph.
fn save_and_load(index: &Index) {
    let blocks: Vec<_> = index.used_blocks().map(|block| index.save_block(block)).collect();
    let start = Instant::now();
    let graphs: Vec<_> =
        index.graph_sections().into_iter().map(|section| index.save_graph(section)).collect();
    let saved = start.elapsed();
    let mut loaded = Index::new();
    loaded.set_graph_settings(index.graph_settings());
    let start = Instant::now();
    for block in &blocks {
        loaded.load_block(block).expect("what was saved");
    }
    let rows = start.elapsed();
    for section in &graphs {
        loaded.load_graph(section).expect("what was saved");
    }
    assert!(loaded.finish_load(), "what was saved");
    println!(
        "graph saved in {saved:?} as {} bytes; rows loaded in {rows:?}, their graph in {:?}",
        graphs.iter().map(Vec::len).sum::<usize>(),
        start.elapsed() - rows
    );
}

/// Inserts as a server does that has time between: the tail is linked before it is full.
fn build(index: &mut Index, codes: &[Code]) {
    let (mut spent, mut most, mut units) = (0, 0, Vec::with_capacity(codes.len()));
    let start = Instant::now();
    for (row, code) in codes.iter().enumerate() {
        insert(index, row as u32, code);
        while row % 1_000 == 999 && index.graph_info().tail > 0 {
            let start = Instant::now();
            let cost = index.work(Work(1)).spent;
            (spent, most) = (spent + cost, most.max(cost));
            units.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    while index.work(Work(1_000)).more {}
    let seconds = start.elapsed().as_secs_f64();
    units.sort_by(f64::total_cmp);
    println!(
        "built in {seconds:.1} s: {:.0} inserts/s, {} distances (at most {most}) and {:.0} us each, 99.9 % below {:.0} us",
        codes.len() as f64 / seconds,
        spent / units.len().max(1),
        units[units.len() / 2],
        units[units.len() * 999 / 1_000]
    );
}

/// Takes half the entries out, repairs, puts them in again, and measures once more.
fn churn(index: &mut Index, codes: &[Code], queries: &[Code], truth: &[Vec<u32>]) {
    let start = Instant::now();
    let half: Vec<u32> = (0..codes.len() as u32).filter(|row| row % 2 == 0).collect();
    for &row in &half {
        index.remove(SlotId(row), Seq(u64::from(row) + 1));
    }
    let removed = start.elapsed();
    let (mut spent, mut most, mut longest) = (0, 0, 0.0_f64);
    let start = Instant::now();
    while index.graph_info().tombstones > 0 {
        let start = Instant::now();
        let cost = index.work(Work(1)).spent;
        (spent, most) = (spent + cost, most.max(cost));
        longest = longest.max(start.elapsed().as_secs_f64());
    }
    println!(
        "{} removed in {removed:?}, repaired in {:?}: {} distances each (at most {most}), longest {:.0} us",
        half.len(),
        start.elapsed(),
        spent / half.len().max(1),
        longest * 1e6
    );
    let mut places = std::collections::HashMap::new();
    for &row in &half {
        places.insert(insert(index, row, &codes[row as usize]).0, row);
    }
    while index.work(Work(1_000)).more {}
    for ef in [32, 48, 128] {
        let (mut found, mut distances) = (0, 0);
        for (query, truth) in queries.iter().zip(truth) {
            let result = search(index, query, Some(ef));
            distances += result.scanned;
            let named = |slot: SlotId| places.get(&slot.0).copied().unwrap_or(slot.0);
            found += result.candidates.iter().filter(|c| truth.contains(&named(c.slot))).count();
        }
        println!(
            "after replacement, ef {ef}: recall {:.4}, {} distances",
            found as f64 / (K * queries.len()) as f64,
            distances / queries.len()
        );
    }
}

/// What searches of one EF come to.
struct Measured {
    recall: f64,
    distances: usize,
    walked: usize,
    us: f64,
}

fn measured(
    index: &mut Index,
    queries: &[Code],
    truth: &[Vec<u32>],
    ef: Option<usize>,
    repeats: usize,
) -> Measured {
    let (mut found, mut distances, mut walked) = (0, 0, 0);
    for (query, truth) in queries.iter().zip(truth) {
        let result = search(index, query, ef);
        distances += result.scanned;
        walked += usize::from(result.mode == SearchMode::Graph);
        found += result.candidates.iter().filter(|c| truth.contains(&c.slot.0)).count();
    }
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        let began = Instant::now();
        let before = cpu_seconds(began);
        for query in queries {
            std::hint::black_box(search(index, query, ef));
        }
        best = best.min((cpu_seconds(began) - before) / queries.len() as f64);
    }
    let recall = found as f64 / (K * queries.len()) as f64;
    Measured { recall, distances: distances / queries.len(), walked, us: best * 1e6 }
}

fn report(name: &str, index: &mut Index, queries: &[Code], truth: &[Vec<u32>], ef: Option<usize>) {
    let Measured { recall, distances, walked, us } = measured(index, queries, truth, ef, REPEATS);
    println!(
        "{name:8} recall@10 {recall:.4}  {distances:6} distances  {us:8.1} us CPU  {:3.0} % walked",
        100.0 * walked as f64 / queries.len() as f64
    );
}

fn fill(index: &mut Index, codes: &[Code]) {
    for (row, code) in codes.iter().enumerate() {
        insert(index, row as u32, code);
    }
}

/// The true nearest by f32.
fn nearest(base: &[Vec<f32>], query: &[f32]) -> Vec<u32> {
    let dot = llmcache_core::distance::kernels().dot_f32;
    let mut scored: Vec<(f32, u32)> =
        base.iter().zip(0..).map(|(vector, row)| (dot(vector, query), row)).collect();
    let place = K.min(scored.len()) - 1;
    scored.select_nth_unstable_by(place, |a, b| b.0.total_cmp(&a.0));
    scored[..=place].iter().map(|&(_, row)| row).collect()
}
