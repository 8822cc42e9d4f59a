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

use super::{Isa, LANES, Lanes, Line, QUAD};
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
    type Input = i16;
    const TILE_ROWS: usize = 6;
    const FLOAT_TILE: (usize, usize) = (6, 1);

    #[inline(always)]
    unsafe fn keep(values: Two, zero: i32, to: &mut [i16; LANES]) {
        let zero = _mm256_set1_epi32(zero);
        let low = _mm256_add_epi32(_mm256_cvtps_epi32(values.0), zero);
        let high = _mm256_add_epi32(_mm256_cvtps_epi32(values.1), zero);
        let mixed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
        let kept = _mm256_min_epu16(mixed, _mm256_set1_epi16(255));
        _mm256_storeu_si256(to.as_mut_ptr().cast(), kept);
    }

    /// Weights are widened to 16 bits and multiplied in pairs (`madd`): exact. `maddubs`, which takes them as they
    /// are, would saturate where both activations are large.
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        low: &[Line],
        high: &[Line],
        rows: &[i16],
        stride: usize,
        ahead: [bool; 2],
    ) -> [[(__m256i, __m256i); 2]; R] {
        debug_assert!(rows.len() >= (R - 1) * stride + low.len() * QUAD);
        let mut sums = [[(_mm256_setzero_si256(), _mm256_setzero_si256()); 2]; R];
        for half in 0..2 {
            let lines = if half == 0 { low } else { high };
            let first = eight::<R>(lines, 0, rows, stride, ahead[half]);
            let second = eight::<R>(lines, 2 * PER_REGISTER * QUAD, rows, stride, false);
            for row in 0..R {
                sums[row][half] = (first[row], second[row]);
            }
        }
        sums
    }
}

/// The products of eight outputs of each line, whose weights begin at `at`.
#[inline(always)]
unsafe fn eight<const R: usize>(
    lines: &[Line],
    at: usize,
    rows: &[i16],
    stride: usize,
    ahead: bool,
) -> [__m256i; R] {
    let (weights, start) = (lines.as_ptr().cast::<i8>().add(at), rows.as_ptr());
    let mut totals = [[_mm256_setzero_si256(); 2]; R];
    for step in 0..lines.len() {
        let line = weights.add(step * size_of::<Line>());
        if ahead {
            prefetch(lines, step + 2 * lines.len());
        }
        let first = _mm256_cvtepi8_epi16(_mm_loadu_si128(line.cast()));
        let second = _mm256_cvtepi8_epi16(_mm_loadu_si128(line.add(LANES).cast()));
        for row in 0..R {
            let quad = start.add(row * stride + step * QUAD).cast::<i64>();
            let inputs = _mm256_set1_epi64x(quad.read_unaligned());
            let (one, other) =
                (_mm256_madd_epi16(first, inputs), _mm256_madd_epi16(second, inputs));
            totals[row][0] = _mm256_add_epi32(totals[row][0], one);
            totals[row][1] = _mm256_add_epi32(totals[row][1], other);
        }
    }
    let mut sums = [_mm256_setzero_si256(); R];
    for row in 0..R {
        // Pairs of neighbours are one output: 0 1 4 5 | 2 3 6 7 after the horizontal sum.
        let mixed = _mm256_hadd_epi32(totals[row][0], totals[row][1]);
        sums[row] = _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed);
    }
    sums
}

/// Asks for the line `ahead` of the first of `lines`, which need not be there, into the second cache: so many are under
/// way that the first one's slots for lines that are awaited would hold up the loads between.
#[inline(always)]
pub(super) unsafe fn prefetch(lines: &[Line], ahead: usize) {
    _mm_prefetch::<_MM_HINT_T1>(lines.as_ptr().wrapping_add(ahead).cast());
}

#[inline(always)]
pub(super) unsafe fn sum_of_eight(values: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline(always)]
pub(super) unsafe fn largest_of_eight(values: __m256) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

#[inline(always)]
pub(super) unsafe fn smallest_of_eight(values: __m256) -> f32 {
    let four = _mm_min_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps::<1>(values));
    let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
}

/// Sixteen lanes in two registers.
#[derive(Clone, Copy)]
pub(in crate::embed) struct Two(__m256, __m256);

impl Lanes for Two {
    type Sums = (__m256i, __m256i);

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
    unsafe fn of_sums(sums: (__m256i, __m256i), zero: i32, totals: &[i32; LANES]) -> Self {
        let zero = _mm256_set1_epi32(zero);
        let half = |sums: __m256i, at: usize| {
            let totals = _mm256_loadu_si256(totals.as_ptr().add(at).cast());
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_mullo_epi32(zero, totals)))
        };
        Self(half(sums.0, 0), half(sums.1, LANES / 2))
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
    unsafe fn sum(self) -> f32 {
        sum_of_eight(_mm256_add_ps(self.0, self.1))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        largest_of_eight(_mm256_max_ps(self.0, self.1))
    }
    #[inline(always)]
    unsafe fn smallest(self) -> f32 {
        smallest_of_eight(_mm256_min_ps(self.0, self.1))
    }
}
