//! Prints nanoseconds per distance of every kernel implementation this machine runs: in cache,
//! streaming through memory, and in random order; and by byte of the row, in cache, so that dimensions compare.
//!
//! `cargo run --release -p llmcache-core --example kernels`

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

#[path = "../tests/common/xorshift.rs"]
mod xorshift;

use half::f16;
use llmcache_core::distance::{available, kernels};
use std::hint::black_box;
use std::time::Instant;
use xorshift::Xorshift;

const DIMS: [usize; 5] = [384, 768, 1024, 1536, 3072];
/// Vectors that stay in the first-level cache.
const CACHED: usize = 16;
/// Bytes of a streamed set: past the second-level cache.
const STREAMED_BYTES: usize = 64 << 20;
const REPEATS: usize = 7;

fn main() {
    println!("chosen: {}", kernels().name);
    println!(
        "{:10} {:8} {:>5} {:>9} {:>9} {:>9} {:>9}",
        "kernel", "by", "dim", "cached", "stream", "random", "ps/byte"
    );
    for dim in DIMS {
        let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
        let codes: Vec<i8> = (0..STREAMED_BYTES / dim * dim)
            .map(|_| (random.next() % 255) as i8)
            .map(|c| c.max(-127))
            .collect();
        let count = STREAMED_BYTES / 4 / dim;
        let singles: Vec<f32> = (0..count * dim).map(|_| random.unit()).collect();
        let halves: Vec<f16> = singles.iter().map(|&x| f16::from_f32(x)).collect();
        let words: Vec<u64> =
            (0..STREAMED_BYTES / 8 / (dim / 64) * (dim / 64)).map(|_| random.next()).collect();
        for kernels in available() {
            let name = kernels.name;
            report("dot_i8", name, dim, &codes, dim, |row| {
                (kernels.dot_i8)(row, &codes[..dim]) as f32
            });
            report("dot_f32", name, dim, &singles, dim, |row| {
                (kernels.dot_f32)(row, &singles[..dim])
            });
            report("dot_f16", name, dim, &halves, dim, |row| {
                (kernels.dot_f16_f32)(row, &singles[..dim])
            });
            report("hamming", name, dim, &words, dim / 64, |row| {
                (kernels.hamming)(row, &words[..dim / 64]) as f32
            });
        }
    }
}

/// Times one kernel over all rows of `data`, each of `width` elements.
fn report<T>(
    kernel: &str,
    by: &str,
    dim: usize,
    data: &[T],
    width: usize,
    distance: impl Fn(&[T]) -> f32,
) {
    let rows = data.len() / width;
    let row = |number: usize| &data[number * width..][..width];
    let cached: Vec<usize> = (0..rows.min(50_000)).map(|number| number % CACHED).collect();
    let streamed: Vec<usize> = (0..rows).collect();
    let mut shuffled = streamed.clone();
    let mut random = Xorshift(7);
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, random.next() as usize % (last + 1));
    }
    let time = |order: &[usize]| {
        let mut best = f64::INFINITY;
        for _ in 0..REPEATS {
            let start = Instant::now();
            let sum: f32 = order.iter().map(|&number| distance(row(number))).sum();
            black_box(sum);
            best = best.min(start.elapsed().as_nanos() as f64 / order.len() as f64);
        }
        best
    };
    let (cached, streamed, shuffled) = (time(&cached), time(&streamed), time(&shuffled));
    let by_byte = 1_000.0 * cached / (width * size_of::<T>()) as f64;
    println!("{kernel:10} {by:8} {dim:5} {cached:9.1} {streamed:9.1} {shuffled:9.1} {by_byte:9.1}");
}

impl Xorshift {
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0
    }
}
