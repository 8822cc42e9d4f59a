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

use super::{Activations, Isa, LANES, Lanes, Line, QUAD, ROWS, TILE};
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
    const WIDE: bool = false;
    const TILE_ROWS: usize = 4;
    const FLOAT_TILE: (usize, usize) = (4, 1);
    /// `sdot` multiplies signed bytes; `usdot`, which takes both kinds, is younger than many servers. So activations
    /// are taken less 128, and what that leaves out is put back with their zero: all of it exact.
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn dots<const R: usize>(
        low: &[Line],
        high: &[Line],
        rows: &Activations<'_>,
        sums: &mut [[i32; TILE]; ROWS],
    ) {
        debug_assert!(rows.bytes.len() >= (R - 1) * rows.stride + low.len() * QUAD);
        debug_assert_eq!(low.len(), high.len());
        half::<R>(low, rows, sums, 0);
        half::<R>(high, rows, sums, LANES);
    }
}

/// The products of sixteen outputs, into `sums` from `at` on: so many sums, weights and inputs have a register each.
#[inline(always)]
unsafe fn half<const R: usize>(
    lines: &[Line],
    rows: &Activations<'_>,
    sums: &mut [[i32; TILE]; ROWS],
    at: usize,
) {
    let (start, flip) = (rows.bytes.as_ptr(), vdupq_n_u8(0x80));
    let mut totals = [[vdupq_n_s32(0); PARTS]; R];
    for step in 0..lines.len() {
        let line = lines.as_ptr().add(step).cast::<i8>();
        let mut weights = [vdupq_n_s8(0); PARTS];
        for part in 0..PARTS {
            weights[part] = vld1q_s8(line.add(part * LANES));
        }
        for row in 0..R {
            let quad = start.add(row * rows.stride + step * QUAD).cast::<u32>();
            let inputs = vreinterpretq_u8_u32(vdupq_n_u32(quad.read_unaligned()));
            let inputs = vreinterpretq_s8_u8(veorq_u8(inputs, flip));
            for part in 0..PARTS {
                totals[row][part] = dot(totals[row][part], weights[part], inputs);
            }
        }
    }
    for row in 0..R {
        for part in 0..PARTS {
            vst1q_s32(sums[row].as_mut_ptr().add(at + part * QUAD), totals[row][part]);
        }
    }
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
    of_both!(add vaddq_f32, sub vsubq_f32, mul vmulq_f32, div vdivq_f32, min vminq_f32, max vmaxq_f32);

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
    unsafe fn of_sums(sums: &[i32; LANES], zero: i32, totals: &[i32; LANES]) -> Self {
        let zero = vdupq_n_s32(zero);
        Self(std::array::from_fn(|part| {
            let sums = vld1q_s32(sums.as_ptr().add(part * QUAD));
            let totals = vld1q_s32(totals.as_ptr().add(part * QUAD));
            vcvtq_f32_s32(vmlsq_s32(sums, zero, totals))
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
    #[inline(always)]
    unsafe fn store_u8(self, to: &mut [u8; LANES]) {
        let [first, second, third, fourth] = self.0.map(|part| vmovn_u32(vcvtq_u32_f32(part)));
        let (low, high) = (vcombine_u16(first, second), vcombine_u16(third, fourth));
        vst1q_u8(to.as_mut_ptr(), vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
    }
}
