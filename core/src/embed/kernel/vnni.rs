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

use super::{Activations, Isa, LANES, Lanes, Line, QUAD, ROWS, TILE};
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
    const WIDE: bool = false;
    const TILE_ROWS: usize = ROWS;
    const FLOAT_TILE: (usize, usize) = (ROWS, 2);

    /// `dpbusd` adds four products of an unsigned and a signed byte to each sum, in 32 bits: exact.
    #[inline(always)]
    unsafe fn dots<const R: usize>(
        low: &[Line],
        high: &[Line],
        rows: &Activations<'_>,
        sums: &mut [[i32; TILE]; ROWS],
    ) {
        debug_assert!(rows.bytes.len() >= (R - 1) * rows.stride + low.len() * QUAD);
        debug_assert_eq!(low.len(), high.len());
        let start = rows.bytes.as_ptr();
        let mut totals = [[_mm512_setzero_si512(); 2]; R];
        for step in 0..low.len() {
            let first = _mm512_loadu_si512(low.as_ptr().add(step).cast());
            let second = _mm512_loadu_si512(high.as_ptr().add(step).cast());
            // The next tile comes from the third cache: it is asked for while this one is computed with.
            prefetch(low, step + 2 * low.len());
            prefetch(low, step + 3 * low.len());
            for row in 0..R {
                let quad = start.add(row * rows.stride + step * QUAD).cast::<i32>();
                let inputs = _mm512_set1_epi32(quad.read_unaligned());
                totals[row][0] = _mm512_dpbusd_epi32(totals[row][0], inputs, first);
                totals[row][1] = _mm512_dpbusd_epi32(totals[row][1], inputs, second);
            }
        }
        for row in 0..R {
            _mm512_storeu_si512(sums[row].as_mut_ptr().cast(), totals[row][0]);
            _mm512_storeu_si512(sums[row].as_mut_ptr().add(LANES).cast(), totals[row][1]);
        }
    }
}

/// Asks for the line `ahead` of the first of `lines`, which need not be there.
#[inline(always)]
unsafe fn prefetch(lines: &[Line], ahead: usize) {
    _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().wrapping_add(ahead).cast());
}

/// Sixteen lanes in one register.
#[derive(Clone, Copy)]
pub(in crate::embed) struct One(__m512);

impl Lanes for One {
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
    unsafe fn of_sums(sums: &[i32; LANES], zero: i32, totals: &[i32; LANES]) -> Self {
        let (sums, totals) =
            (_mm512_loadu_si512(sums.as_ptr().cast()), _mm512_loadu_si512(totals.as_ptr().cast()));
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
    unsafe fn store_u8(self, to: &mut [u8; LANES]) {
        let narrow = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(self.0));
        _mm_storeu_si128(to.as_mut_ptr().cast(), narrow);
    }
}
