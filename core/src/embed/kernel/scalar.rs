//! The encoder in plain Rust: the oracle of every other file here, and what serves where nothing better runs.
//!
//! Owns: the meaning of each operation.

use super::{Isa, LANES, Lanes, QUAD, TileSums, Weights};

pub(in crate::embed) struct Scalar;

impl Isa for Scalar {
    type F = Plain;
    const TILE_ROWS: usize = 2;
    const FLOAT_TILE: (usize, usize) = (2, 1);

    #[inline(always)]
    unsafe fn keep(values: Plain, zero: i32, to: &mut [u8; LANES]) {
        *to = values.0.map(|value| (value.round_ties_even() as i32 + zero).clamp(0, 255) as u8);
    }

    #[inline(always)]
    unsafe fn dots<const R: usize>(
        Weights { low, high, .. }: Weights<'_>,
        rows: &[u8],
        stride: usize,
        _begin: &[TileSums],
        _ahead: [bool; 2],
    ) -> [[[i32; LANES]; 2]; R] {
        let mut sums = [[[0; LANES]; 2]; R];
        for (row, sums) in sums.iter_mut().enumerate() {
            let inputs = rows[row * stride..].as_chunks::<QUAD>().0;
            for ((low, high), quad) in low.iter().zip(high).zip(inputs) {
                for (sums, line) in sums.iter_mut().zip([low, high]) {
                    for (sum, weights) in sums.iter_mut().zip(line.0.as_chunks::<QUAD>().0) {
                        for (&weight, &input) in weights.iter().zip(quad) {
                            *sum += i32::from(weight) * i32::from(input);
                        }
                    }
                }
            }
        }
        sums
    }
}

#[derive(Clone, Copy)]
pub(in crate::embed) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn each(mut self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        for (one, other) in self.0.iter_mut().zip(other.0) {
            *one = operation(*one, other);
        }
        self
    }
}

impl Lanes for Plain {
    type Sums = [i32; LANES];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    unsafe fn of_i8(from: &[i8; LANES]) -> Self {
        Self(from.map(f32::from))
    }
    #[inline(always)]
    unsafe fn of_sums(sums: [i32; LANES], zero: i32, totals: &[i32; LANES]) -> Self {
        Self(std::array::from_fn(|lane| (sums[lane] - zero * totals[lane]) as f32))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |one, other| one + other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |one, other| one - other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |one, other| one * other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.each(other, |one, other| one / other)
    }
    #[inline(always)]
    unsafe fn mul_add(mut self, factor: Self, term: Self) -> Self {
        for ((one, factor), term) in self.0.iter_mut().zip(factor.0).zip(term.0) {
            *one = one.mul_add(factor, term);
        }
        self
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.each(other, |one, other| if one < other { one } else { other })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.each(other, |one, other| if one > other { one } else { other })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn exp2_whole(self) -> Self {
        Self(self.0.map(|power| f32::from_bits(((power as i32 + 127) as u32) << 23)))
    }
}
