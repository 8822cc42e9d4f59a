//! Kernels by `simsimd`, which picks its own instruction set: NEON, SVE, AVX-512, AVX2 or plain C.
//!
//! Owns: the fit between its interface and ours. Serves where no file of our own does.

use super::{Kernels, scalar};
use half::f16;
use half::slice::HalfFloatSliceExt;
use simsimd::{BinarySimilarity, SpatialSimilarity};

pub(super) const KERNELS: Kernels = Kernels {
    name: "simsimd",
    dot_i8,
    // It has no such kernel; the compiler makes vectors of the loops.
    dot_u2_i8: scalar::dot_u2_i8,
    dot_f32,
    dot_f16_f32,
    square_f16,
    hamming,
};

/// f16 values widened at a time: 1 KiB of stack, and long enough to hide the call.
const WIDENED: usize = 256;

fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    match <i8 as SpatialSimilarity>::dot(a, b) {
        // Sums of int8 products up to 2^53 are exact in the f64 it answers.
        Some(dot) => dot as i32,
        None => scalar::dot_i8(a, b),
    }
}

fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    match <f32 as SpatialSimilarity>::dot(a, b) {
        Some(dot) => dot as f32,
        None => scalar::dot_f32(a, b),
    }
}

/// Widens to f32 first: the f16 kernels of `simsimd` want both sides in f16, and with AVX512-FP16
/// they sum in f16, which leaves three digits.
fn dot_f16_f32(a: &[f16], b: &[f32]) -> f32 {
    let mut widened = [0_f32; WIDENED];
    let mut sum = 0.0;
    for (halves, singles) in a.chunks(WIDENED).zip(b.chunks(WIDENED)) {
        let length = halves.len().min(singles.len());
        let target = &mut widened[..length];
        halves[..length].convert_to_f32_slice(target);
        sum += dot_f32(target, &singles[..length]);
    }
    sum
}

fn square_f16(a: &[f16]) -> f32 {
    let mut widened = [0_f32; WIDENED];
    let mut sum = 0.0;
    for halves in a.chunks(WIDENED) {
        let target = &mut widened[..halves.len()];
        halves.convert_to_f32_slice(target);
        sum += dot_f32(target, target);
    }
    sum
}

fn hamming(a: &[u64], b: &[u64]) -> u32 {
    match <u8 as BinarySimilarity>::hamming(bytemuck::cast_slice(a), bytemuck::cast_slice(b)) {
        Some(bits) => bits as u32,
        None => scalar::hamming(a, b),
    }
}
