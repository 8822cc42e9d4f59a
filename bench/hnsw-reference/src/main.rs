//! Builds a graph of hnsw_rs over the vectors of a benchmark and prints one line of JSON for each width of
//! search: recall@10 against brute force and microseconds a query. It shares no code with the module.
//!
//! `hnsw-reference BASE.npy QUERIES.npy ROWS QUERIES M EFC EF…`, both files holding f16 in C order.

use half::f16;
use hnsw_rs::prelude::{DistDot, Hnsw};
use std::time::Instant;

const K: usize = 10;
const LAYERS: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, queries, rows, asked, m, efc, widths @ ..] = arguments.as_slice() else {
        eprintln!("usage: hnsw-reference BASE.npy QUERIES.npy ROWS QUERIES M EFC EF…");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let base = load(base, number(rows));
    let queries = load(queries, number(asked));
    let truth: Vec<Vec<usize>> = queries.iter().map(|query| nearest(&base, query)).collect();

    let graph = Hnsw::<f32, DistDot>::new(number(m), base.len(), LAYERS, number(efc), DistDot);
    let start = Instant::now();
    for (row, vector) in base.iter().enumerate() {
        graph.insert((vector, row));
    }
    let inserts_per_s = base.len() as f64 / start.elapsed().as_secs_f64();
    for ef in widths.iter().map(number) {
        let start = Instant::now();
        let found: Vec<Vec<usize>> = queries
            .iter()
            .map(|query| graph.search(query, K, ef).iter().map(|one| one.d_id).collect())
            .collect();
        let us = start.elapsed().as_secs_f64() * 1e6 / queries.len() as f64;
        let hits: usize = found
            .iter()
            .zip(&truth)
            .map(|(found, truth)| truth.iter().filter(|row| found.contains(row)).count())
            .sum();
        let recall = hits as f64 / (queries.len() * K) as f64;
        println!(
            r#"{{"ef": {ef}, "recall": {recall:.4}, "us": {us:.1}, "inserts_per_s": {inserts_per_s:.0}}}"#
        );
    }
}

/// The first rows of an array of f16, brought to just below unit length: the distance of hnsw_rs panics
/// where rounding makes a dot product exceed 1.
fn load(path: &str, rows: usize) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let head = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..head]).into_owned();
    assert!(text.contains("'<f2'") && text.contains("'fortran_order': False"), "{path}: {text}");
    let shape = text.split('(').nth(1).and_then(|rest| rest.split(')').next()).expect("a shape");
    let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let [count, dim] = sizes[..] else { panic!("{path}: not a matrix") };
    bytes[head..]
        .chunks_exact(2 * dim)
        .take(rows.min(count))
        .map(|row| {
            let numbers = row.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]));
            let row: Vec<f32> = numbers.map(f16::to_f32).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt() * 1.0001;
            row.iter().map(|x| x / length).collect()
        })
        .collect()
}

fn nearest(base: &[Vec<f32>], query: &[f32]) -> Vec<usize> {
    let score = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let mut order: Vec<(f32, usize)> =
        base.iter().enumerate().map(|(row, vector)| (score(vector), row)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    order.truncate(K);
    order.into_iter().map(|(_, row)| row).collect()
}
