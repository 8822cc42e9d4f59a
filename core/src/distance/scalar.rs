//! Kernels in plain Rust, one element after the other: the oracle of every other file here.
//!
//! Owns: the meaning of each kernel. Serves where nothing better runs, and under Miri.

use super::Kernels;
use half::f16;

pub(super) const KERNELS: Kernels =
    Kernels { name: "scalar", dot_i8, dot_u2_i8, dot_f32, dot_f16_f32, square_f16, hamming };

pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).fold(0_i32, |sum, (&x, &y)| sum.wrapping_add(i32::from(x) * i32::from(y)))
}

pub(super) fn dot_u2_i8(a: &[u8], b: &[i8]) -> i32 {
    dot_u2_i8_from(a, b, 0)
}

/// The part of it from the byte `from` on.
pub(super) fn dot_u2_i8_from(a: &[u8], b: &[i8], from: usize) -> i32 {
    let mut sum = 0;
    for plane in 0..4 {
        let values = b.get(plane * a.len() + from..).unwrap_or_default();
        for (&byte, &y) in a[from..].iter().zip(values) {
            sum += i32::from(byte >> (2 * plane) & 3) * i32::from(y);
        }
    }
    sum
}

pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn dot_f16_f32(a: &[f16], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x.to_f32() * y).sum()
}

pub(super) fn square_f16(a: &[f16]) -> f32 {
    a.iter().map(|x| x.to_f32() * x.to_f32()).sum()
}

pub(super) fn hamming(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(x, y)| (x ^ y).count_ones()).sum()
}
