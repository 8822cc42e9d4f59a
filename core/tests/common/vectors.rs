//! The real vectors that the quick benchmark brings along (`bench/data`, with its attribution).

use half::f16;
use llmcache_core::distance::kernels;
use llmcache_core::vector::quantise::{Code, quantise};
use std::path::Path;

/// Values of each vector.
pub const DIM: usize = 384;

/// The rows of one of the files, unit length.
pub fn read(name: &str) -> Vec<Vec<f32>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/data");
    let bytes = std::fs::read(folder.join(name)).expect("a file of vectors");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let numbers: Vec<f32> = bytes[header..]
        .chunks_exact(2)
        .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
        .collect();
    numbers.chunks_exact(DIM).map(<[f32]>::to_vec).collect()
}

/// Their codes.
pub fn codes(vectors: &[Vec<f32>]) -> Vec<Code> {
    vectors.iter().map(|vector| quantise(vector)).collect()
}

/// The `count` of `among` whose vectors are nearest to the query, by f32.
pub fn nearest(vectors: &[Vec<f32>], among: &[u32], query: &[f32], count: usize) -> Vec<u32> {
    let dot = kernels().dot_f32;
    let score = |&row: &u32| (dot(&vectors[row as usize], query), row);
    let mut scored: Vec<(f32, u32)> = among.iter().map(score).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(count).map(|(_, row)| row).collect()
}
