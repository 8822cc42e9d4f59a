//! The encoder on x86-64 with AVX-512 VNNI: servers since Ice Lake (2019) and Zen 4 (2022).
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

use super::avx2::{largest_of_eight, prefetch, smallest_of_eight, sum_of_eight};
use super::{Isa, LANES, Lanes, QUAD, SQUARE, TileSums, Weights};
use std::arch::x86_64::*;

/// Whether this CPU has the instructions.
pub(in crate::embed) fn runs() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("fma")
}

pub(in crate::embed) struct Vnni;

impl Isa for Vnni {
    type F = One;
    const TILE_ROWS: usize = 8;
    const FLOAT_TILE: (usize, usize) = (12, 2);

    #[inline(always)]
    unsafe fn keep(values: One, zero: i32, to: &mut [u8; LANES]) {
        let whole = _mm512_add_epi32(_mm512_cvtps_epi32(values.0), _mm512_set1_epi32(zero));
        _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(whole));
    }

    /// `dpbusd` adds four products of an unsigned and a signed byte to each sum, in 32 bits: exact.
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        Weights { low, high, .. }: Weights<'_>,
        rows: &[u8],
        stride: usize,
        _begin: &[TileSums],
        ahead: [bool; 2],
    ) -> [[__m512i; 2]; R] {
        debug_assert!(rows.len() >= (R - 1) * stride + low.len() * QUAD);
        debug_assert_eq!(low.len(), high.len());
        let start = rows.as_ptr();
        let mut totals = [[_mm512_setzero_si512(); 2]; R];
        for step in 0..low.len() {
            let first = _mm512_loadu_si512(low.as_ptr().add(step).cast());
            let second = _mm512_loadu_si512(high.as_ptr().add(step).cast());
            if ahead[0] {
                prefetch(low, step + 2 * low.len());
            }
            if ahead[1] {
                prefetch(high, step + 2 * high.len());
            }
            for row in 0..R {
                let quad = start.add(row * stride + step * QUAD).cast::<i32>();
                let inputs = _mm512_set1_epi32(quad.read_unaligned());
                totals[row][0] = _mm512_dpbusd_epi32(totals[row][0], inputs, first);
                totals[row][1] = _mm512_dpbusd_epi32(totals[row][1], inputs, second);
            }
        }
        totals
    }
}

/// Sixteen lanes in one register.
#[derive(Clone, Copy)]
pub(in crate::embed) struct One(__m512);

impl Lanes for One {
    type Sums = __m512i;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(_mm512_loadu_ps(from.as_ptr()))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        _mm512_storeu_ps(to.as_mut_ptr(), self.0);
    }
    #[inline(always)]
    unsafe fn of_i8(from: &[i8; LANES]) -> Self {
        let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()));
        Self(_mm512_cvtepi32_ps(wide))
    }
    #[inline(always)]
    unsafe fn of_sums(sums: __m512i, zero: i32, totals: &[i32; LANES]) -> Self {
        let totals = _mm512_loadu_si512(totals.as_ptr().cast());
        let of_zero = _mm512_mullo_epi32(_mm512_set1_epi32(zero), totals);
        Self(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, of_zero)))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, factor.0, term.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(_mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let (low, high) = self.halves();
        sum_of_eight(_mm256_add_ps(low, high))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let (low, high) = self.halves();
        largest_of_eight(_mm256_max_ps(low, high))
    }
    #[inline(always)]
    unsafe fn smallest(self) -> f32 {
        let (low, high) = self.halves();
        smallest_of_eight(_mm256_min_ps(low, high))
    }
    #[inline(always)]
    unsafe fn turn(square: &mut [f32; SQUARE]) {
        let start = square.as_mut_ptr();
        let mut rows = [_mm512_setzero_ps(); LANES];
        for row in 0..LANES {
            rows[row] = _mm512_loadu_ps(start.add(row * LANES));
        }
        // In each of the four parts of a register of four rows: columns of those four rows.
        let mut parts = [_mm512_setzero_ps(); LANES];
        for four in 0..4 {
            let at = 4 * four;
            let low = _mm512_unpacklo_ps(rows[at], rows[at + 1]);
            let high = _mm512_unpackhi_ps(rows[at], rows[at + 1]);
            let later_low = _mm512_unpacklo_ps(rows[at + 2], rows[at + 3]);
            let later_high = _mm512_unpackhi_ps(rows[at + 2], rows[at + 3]);
            parts[at] = _mm512_shuffle_ps::<0x44>(low, later_low);
            parts[at + 1] = _mm512_shuffle_ps::<0xEE>(low, later_low);
            parts[at + 2] = _mm512_shuffle_ps::<0x44>(high, later_high);
            parts[at + 3] = _mm512_shuffle_ps::<0xEE>(high, later_high);
        }
        // `parts[4 * four + column]` has, for each `part`, column `4 * part + column` of rows `4 * four..`.
        for column in 0..4 {
            let [first, second, third, fourth] =
                [parts[column], parts[4 + column], parts[8 + column], parts[12 + column]];
            let low = _mm512_shuffle_f32x4::<0x44>(first, second);
            let high = _mm512_shuffle_f32x4::<0xEE>(first, second);
            let later_low = _mm512_shuffle_f32x4::<0x44>(third, fourth);
            let later_high = _mm512_shuffle_f32x4::<0xEE>(third, fourth);
            let turned = [
                _mm512_shuffle_f32x4::<0x88>(low, later_low),
                _mm512_shuffle_f32x4::<0xDD>(low, later_low),
                _mm512_shuffle_f32x4::<0x88>(high, later_high),
                _mm512_shuffle_f32x4::<0xDD>(high, later_high),
            ];
            for part in 0..4 {
                _mm512_storeu_ps(start.add((4 * part + column) * LANES), turned[part]);
            }
        }
    }
}

impl One {
    #[inline(always)]
    unsafe fn halves(self) -> (__m256, __m256) {
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
        (_mm512_castps512_ps256(self.0), _mm256_castpd_ps(high))
    }
}
