//! The encoder on aarch64 with dot products of bytes: servers since Neoverse N1 (2019), Apple's since M1.
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

use super::{Isa, LANES, Lanes, Line, QUAD, TileSums, Weights};
use std::arch::aarch64::*;
use std::arch::asm;

/// Whether this CPU has the instructions.
pub(in crate::embed) fn runs() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

pub(in crate::embed) struct Neon;

/// Four outputs of a line's sixteen lie in a register.
const PARTS: usize = LANES / QUAD;

impl Isa for Neon {
    type F = Four;
    const TILE_ROWS: usize = 4;
    const FLOAT_TILE: (usize, usize) = (4, 1);
    /// `sdot` multiplies signed bytes; `usdot`, which takes both kinds, is younger than many servers. So activations
    /// are taken less 128, and what that leaves out is put back with their zero: all of it exact.
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn keep(values: Four, zero: i32, to: &mut [u8; LANES]) {
        let zero = vdupq_n_s32(zero);
        let narrow = |part| vqmovun_s32(vaddq_s32(vcvtnq_s32_f32(part), zero));
        let [first, second, third, fourth] = values.0.map(narrow);
        let (low, high) = (vcombine_u16(first, second), vcombine_u16(third, fourth));
        vst1q_u8(to.as_mut_ptr(), vcombine_u8(vqmovn_u16(low), vqmovn_u16(high)));
    }

    #[inline(always)]
    unsafe fn dots<const R: usize>(
        Weights { low, high, .. }: Weights<'_>,
        rows: &[u8],
        stride: usize,
        _begin: &[TileSums],
        _ahead: [bool; 2],
    ) -> [[[int32x4_t; PARTS]; 2]; R] {
        debug_assert!(rows.len() >= (R - 1) * stride + low.len() * QUAD);
        debug_assert_eq!(low.len(), high.len());
        let (first, second) = (half::<R>(low, rows, stride), half::<R>(high, rows, stride));
        std::array::from_fn(|row| [first[row], second[row]])
    }
}

/// The products of sixteen outputs: so many sums, weights and inputs have a register each.
#[inline(always)]
unsafe fn half<const R: usize>(
    lines: &[Line],
    rows: &[u8],
    stride: usize,
) -> [[int32x4_t; PARTS]; R] {
    let (start, flip) = (rows.as_ptr(), vdupq_n_u8(0x80));
    let mut totals = [[vdupq_n_s32(0); PARTS]; R];
    for step in 0..lines.len() {
        let line = lines.as_ptr().add(step).cast::<i8>();
        let mut weights = [vdupq_n_s8(0); PARTS];
        for part in 0..PARTS {
            weights[part] = vld1q_s8(line.add(part * LANES));
        }
        for row in 0..R {
            let quad = start.add(row * stride + step * QUAD).cast::<u32>();
            let inputs = vreinterpretq_u8_u32(vdupq_n_u32(quad.read_unaligned()));
            let inputs = vreinterpretq_s8_u8(veorq_u8(inputs, flip));
            for part in 0..PARTS {
                totals[row][part] = dot(totals[row][part], weights[part], inputs);
            }
        }
    }
    totals
}

/// Adds to each sum the products of four signed bytes with four others. The intrinsic for it is not stable yet.
#[inline(always)]
unsafe fn dot(mut sum: int32x4_t, weights: int8x16_t, inputs: int8x16_t) -> int32x4_t {
    asm!(
        ".arch_extension dotprod",
        "sdot {sum:v}.4s, {weights:v}.16b, {inputs:v}.16b",
        sum = inout(vreg) sum,
        weights = in(vreg) weights,
        inputs = in(vreg) inputs,
        options(pure, nomem, nostack, preserves_flags)
    );
    sum
}

/// Sixteen lanes in four registers.
#[derive(Clone, Copy)]
pub(in crate::embed) struct Four([float32x4_t; PARTS]);

macro_rules! of_both {
    ($($name:ident $intrinsic:ident),*) => {$(
        #[inline(always)]
        unsafe fn $name(mut self, other: Self) -> Self {
            for part in 0..PARTS {
                self.0[part] = $intrinsic(self.0[part], other.0[part]);
            }
            self
        }
    )*};
}

impl Lanes for Four {
    type Sums = [int32x4_t; PARTS];

    of_both!(add vaddq_f32, sub vsubq_f32, mul vmulq_f32, div vdivq_f32, min vminnmq_f32, max vmaxnmq_f32);

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([vdupq_n_f32(value); PARTS])
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(std::array::from_fn(|part| vld1q_f32(from.as_ptr().add(part * QUAD))))
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        for part in 0..PARTS {
            vst1q_f32(to.as_mut_ptr().add(part * QUAD), self.0[part]);
        }
    }
    #[inline(always)]
    unsafe fn of_i8(from: &[i8; LANES]) -> Self {
        let bytes = vld1q_s8(from.as_ptr());
        let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
        let wide =
            |half: int16x8_t| [vmovl_s16(vget_low_s16(half)), vmovl_s16(vget_high_s16(half))];
        let ([first, second], [third, fourth]) = (wide(low), wide(high));
        Self([first, second, third, fourth].map(|part| vcvtq_f32_s32(part)))
    }
    #[inline(always)]
    unsafe fn of_sums(sums: [int32x4_t; PARTS], zero: i32, totals: &[i32; LANES]) -> Self {
        let zero = vdupq_n_s32(zero);
        Self(std::array::from_fn(|part| {
            let totals = vld1q_s32(totals.as_ptr().add(part * QUAD));
            vcvtq_f32_s32(vmlsq_s32(sums[part], zero, totals))
        }))
    }
    #[inline(always)]
    unsafe fn mul_add(mut self, factor: Self, term: Self) -> Self {
        for part in 0..PARTS {
            self.0[part] = vfmaq_f32(term.0[part], self.0[part], factor.0[part]);
        }
        self
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(|part| vrndnq_f32(part)))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        let bias = vdupq_n_s32(127);
        let power = |part| vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(part), bias));
        Self(self.0.map(|part| vreinterpretq_f32_s32(power(part))))
    }
}
