//! Spaces in which all vectors point in nearly the same direction, as embeddings of texts with a long template in
//! common do: what the index finds there, counted. Random vectors from a fixed seed; runs on the test runner's
//! threads.

#![expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows how far from its bound each count is"
)]

#[expect(dead_code, reason = "what is counted here is not memory")]
mod common;
#[path = "common/slots.rs"]
mod slots;

use common::Random;
use llmcache_core::ids::{PartitionKey, Seq, UnixMs};
use llmcache_core::index::{GraphSettings, Index, IndexMode, SearchRequest, Work};
use llmcache_core::vector::fine::{OwnPlane, rest_of};
use llmcache_core::vector::quantise::quantise;
use slots::numbered;

const DIM: usize = 384;
const ROWS: usize = 4_000;
const QUERIES: usize = 100;
const K: usize = 10;

fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0
}

fn unit(values: Vec<f64>) -> Vec<f64> {
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    values.into_iter().map(|x| x / norm).collect()
}

/// Vectors of a mean pairwise cosine: each the same template, and something of its own that differs from one of
/// some hundred topics.
fn space(cosine: f64) -> Vec<Vec<f32>> {
    let mut random = Random(0x71_6487);
    let mut draw = || unit((0..DIM).map(|_| normal(&mut random)).collect());
    let template = draw();
    let topics: Vec<_> = (0..100).map(|_| draw()).collect();
    let (shared, own) = (cosine.sqrt(), (1.0 - cosine).sqrt());
    (0..ROWS + QUERIES)
        .map(|row| {
            let (topic, noise) = (&topics[row % topics.len()], draw());
            let differs = unit(topic.iter().zip(&noise).map(|(t, n)| t + 0.8 * n).collect());
            let vector = template.iter().zip(&differs).map(|(t, d)| shared * t + own * d).collect();
            unit(vector).into_iter().map(|x| x as f32).collect()
        })
        .collect()
}

fn mean_cosine(vectors: &[Vec<f32>]) -> f64 {
    let mut sum = vec![0.0; DIM];
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let rows = vectors.len() as f64;
    (sum.iter().map(|x| x * x).sum::<f64>() - rows) / (rows * (rows - 1.0))
}

fn indexed(vectors: &[Vec<f32>], mode: IndexMode, planes: bool) -> Index {
    let mut index = Index::new();
    index.set_graph_settings(GraphSettings { mode, ..GraphSettings::default() });
    for (row, vector) in vectors.iter().enumerate() {
        let code = quantise(vector);
        let slot = index.insert(numbered(row as u64, (&code.codes, code.scale)));
        assert_eq!(slot.0, row as u32);
        if planes {
            index.set_plane(slot, OwnPlane::of(vector, &code.codes, code.scale).as_plane());
        }
    }
    while index.work(Work(100_000)).more {}
    index
}

fn found(index: &mut Index, query: &[f32], planes: bool) -> Vec<u32> {
    let code = quantise(query);
    let rest = if planes { rest_of(query, &code.codes, code.scale) } else { Vec::new() };
    let found = index.search(&SearchRequest {
        code: &code.codes,
        scale: code.scale,
        rest: &rest,
        partition: PartitionKey(0),
        limit: K,
        ef: None,
        now: UnixMs(1),
        min_seq: Seq(0),
        filter: None,
        counts_refused: true,
    });
    found.candidates.iter().map(|candidate| candidate.slot.0).collect()
}

fn nearest(vectors: &[Vec<f32>], query: &[f32]) -> Vec<u32> {
    let dot = |row: &Vec<f32>| -> f64 {
        row.iter().zip(query).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let mut scored: Vec<(f64, u32)> = vectors.iter().map(dot).zip(0..).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(K).map(|(_, row)| row).collect()
}

/// With the width of a step as the scale of a code, most entries of the tighter space were nearest to another one than
/// themselves, and next to none of the nearest ten were found.
#[test]
fn an_entry_of_a_tight_space_is_nearest_to_itself_and_order_is_kept() {
    for (cosine, by_codes, by_planes) in [(0.99, 0.90, 0.97), (0.999, 0.75, 0.90)] {
        let mut vectors = space(cosine);
        let mean = mean_cosine(&vectors);
        assert!((mean - cosine).abs() < (1.0 - cosine) / 10.0, "mean cosine {mean}");
        let queries = vectors.split_off(ROWS);
        let kept = [(false, by_codes), (true, by_planes)];
        let modes = [IndexMode::Flat, IndexMode::Hnsw];
        for (mode, (planes, least)) in
            modes.into_iter().flat_map(|mode| kept.map(|kept| (mode, kept)))
        {
            let (asked, lost) = (ROWS / 4, if mode == IndexMode::Flat { 0 } else { ROWS / 1_000 });
            let mut index = indexed(&vectors, mode, planes);
            let selves = vectors.iter().zip(0..).step_by(4);
            let first =
                selves.filter(|(v, row)| found(&mut index, v, planes).first() == Some(row)).count();
            let hits: usize = queries
                .iter()
                .map(|query| {
                    let truth = nearest(&vectors, query);
                    found(&mut index, query, planes)
                        .iter()
                        .filter(|row| truth.contains(row))
                        .count()
                })
                .sum();
            let recall = hits as f64 / (K * QUERIES) as f64;
            println!(
                "{cosine}, {mode:?}, planes {planes}: {first} of {asked} first, recall {recall:.4}"
            );
            assert!(
                first >= asked - lost,
                "{cosine}, {mode:?}: {first} of {asked} are nearest to themselves"
            );
            assert!(recall >= least, "{cosine}, {mode:?}: recall {recall}");
        }
    }
}
