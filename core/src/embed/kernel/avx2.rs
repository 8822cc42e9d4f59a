//! The encoder on x86-64 with AVX2 and FMA: every server CPU since 2013.
//!
//! Owns: the intrinsics. Called through the engine that `super::super::engine` hands out where [`runs`] says so,
//! so nothing here runs on a CPU without its instructions.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each line is an intrinsic or a load, all under the one condition of `Lanes` and `Isa`"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "registers by number: a loop over iterators is not unrolled in every profile"
)]

use super::{Activations, Isa, LANES, Lanes, Line, QUAD, ROWS, TILE};
use std::arch::x86_64::*;

/// Whether this CPU has the instructions.
pub(in crate::embed) fn runs() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

pub(in crate::embed) struct Avx2;

/// Outputs of one register of sums: eight sums, two an output.
const PER_REGISTER: usize = 4;

impl Isa for Avx2 {
    type F = Two;
    const WIDE: bool = true;
    const TILE_ROWS: usize = 4;
    const FLOAT_TILE: (usize, usize) = (6, 1);

    /// Weights are widened to 16 bits and multiplied in pairs (`madd`): exact. `maddubs`, which takes them as they
    /// are, would saturate where both activations are large.
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        low: &[Line],
        high: &[Line],
        rows: &Activations<'_>,
        sums: &mut [[i32; TILE]; ROWS],
    ) {
        debug_assert!(rows.wide.len() >= (R - 1) * rows.stride + low.len() * QUAD);
        let start = rows.wide.as_ptr();
        for half in 0..2 {
            let lines = if half == 0 { low } else { high };
            for group in 0..LANES / (2 * PER_REGISTER) {
                let mut totals = [[_mm256_setzero_si256(); 2]; R];
                for step in 0..lines.len() {
                    let at = lines.as_ptr().add(step).cast::<i8>().add(group * 32);
                    let first = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()));
                    let second = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(16).cast()));
                    for row in 0..R {
                        let quad = start.add(row * rows.stride + step * QUAD).cast::<i64>();
                        let inputs = _mm256_set1_epi64x(quad.read_unaligned());
                        let (one, other) =
                            (_mm256_madd_epi16(first, inputs), _mm256_madd_epi16(second, inputs));
                        totals[row][0] = _mm256_add_epi32(totals[row][0], one);
                        totals[row][1] = _mm256_add_epi32(totals[row][1], other);
                    }
                }
                for row in 0..R {
                    // Pairs of neighbours are one output: 0 1 4 5 | 2 3 6 7 after the horizontal sum.
                    let mixed = _mm256_hadd_epi32(totals[row][0], totals[row][1]);
                    let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed);
                    let to = &mut sums[row][half * LANES + group * 8..][..8];
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), ordered);
                }
            }
        }
    }
}

/// Sixteen lanes in two registers.
#[derive(Clone, Copy)]
pub(in crate::embed) struct Two(__m256, __m256);

impl Lanes for Two {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8)))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        _mm256_storeu_ps(to.as_mut_ptr(), self.0);
        _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
    }
    #[inline(always)]
    unsafe fn of_i8(from: &[i8; LANES]) -> Self {
        let all = _mm_loadu_si128(from.as_ptr().cast());
        let (low, high) =
            (_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(all)));
        Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
    }
    #[inline(always)]
    unsafe fn of_sums(sums: &[i32; LANES], zero: i32, totals: &[i32; LANES]) -> Self {
        let zero = _mm256_set1_epi32(zero);
        let half = |at: usize| {
            let sums = _mm256_loadu_si256(sums.as_ptr().add(at).cast());
            let totals = _mm256_loadu_si256(totals.as_ptr().add(at).cast());
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_mullo_epi32(zero, totals)))
        };
        Self(half(0), half(8))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        let low = _mm256_fmadd_ps(self.0, factor.0, term.0);
        Self(low, _mm256_fmadd_ps(self.1, factor.1, term.1))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        let bias = _mm256_set1_epi32(127);
        let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias));
        let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias));
        Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
    }
    #[inline(always)]
    unsafe fn store_u8(self, to: &mut [u8; LANES]) {
        let (low, high) = (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
        let mixed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
        let (low, high) = (_mm256_castsi256_si128(mixed), _mm256_extracti128_si256::<1>(mixed));
        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packus_epi16(low, high));
    }
}
