//! Products of bytes: rows of activations in 8 bits, times the weights of a linear layer.
//!
//! Owns: quantisation of activations, the walk over rows and outputs, the finishing of sums. Must not know: layers.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]

use super::glue::lanes;
use super::kernel::{Isa, LANES, Lanes, TILE, TURNED, TileSums, Weights};
use super::memory::Places;
use super::quant::Matrix;
use std::ops::Range;

/// Rows in 8 bits without a sign, each with a scale and the value that stands for zero.
#[derive(Debug, Default)]
pub(super) struct Quantised {
    width: usize,
    inputs: Vec<u8>,
    rows: Vec<(f32, i32)>,
    /// Where weights are clipped, the rows turned; and what each row of a tile begins with.
    columns: Vec<u8>,
    begin: Vec<TileSums>,
}

impl Quantised {
    pub(super) fn allocated_bytes(&self) -> usize {
        let clipped = self.columns.capacity() + size_of::<TileSums>() * self.begin.capacity();
        self.inputs.capacity() + 8 * self.rows.capacity() + clipped
    }

    /// # Safety
    /// As for [`Lanes`]; `width` is a multiple of `LANES` and divides the number of values.
    #[inline(always)]
    pub(super) unsafe fn fill<I: Isa>(&mut self, values: &[f32], width: usize) {
        self.width = width;
        self.rows.clear();
        if self.inputs.len() < values.len() {
            self.inputs.resize(values.len(), 0);
        }
        let inputs = &mut self.inputs[..values.len()];
        for (row, to) in values.chunks_exact(width).zip(inputs.chunks_exact_mut(width)) {
            self.rows.push(fill_row::<I>(row, to));
        }
        if I::CLIPS {
            let padded = self.rows.len().next_multiple_of(TURNED);
            if self.columns.len() < padded * width {
                self.columns.resize(padded * width, 0);
            }
            self.begin.resize(padded, [0; TILE]);
            I::turn_inputs(inputs, width, &mut self.columns[..padded * width]);
        }
    }

    #[inline(always)]
    fn from(&self, row: usize) -> &[u8] {
        &self.inputs[row * self.width..]
    }
}

/// One row; returns its scale and its zero.
#[inline(always)]
unsafe fn fill_row<I: Isa>(values: &[f32], to: &mut [u8]) -> (f32, i32) {
    const LEVELS: f32 = 255.0;
    let (mut low, mut high) = (I::F::splat(0.0), I::F::splat(0.0));
    let mut at = 0;
    while at < values.len() {
        let x = I::F::load(lanes(values, at));
        (low, high) = (x.min(low), x.max(high));
        at += LANES;
    }
    let (low, high) = (low.smallest(), high.largest());
    let range = high - low;
    // All zero, or as good as that; what is no number is not computed with.
    if !(1e-30..=f32::MAX).contains(&range) {
        to.fill(0);
        return (1.0, 0);
    }
    let inverse = LEVELS / range;
    let zero = (-low * inverse).round_ties_even();
    let (factor, least) = (I::F::splat(inverse), I::F::splat(-zero));
    for (place, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        // What is no number becomes the least.
        let x = I::F::load(lanes(values, place * LANES)).mul(factor).max(least);
        I::keep(x, zero as i32, to);
    }
    (range / LEVELS, zero as i32)
}

/// `input` times the weights of some tiles, plus bias, into `outs`: as many rows, groups of `LANES` outputs.
///
/// # Safety
/// As for [`Lanes`]; `outs` has the places of these tiles, and nobody else reads or writes them.
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa>(
    input: &mut Quantised,
    weights: &Matrix,
    tiles: Range<usize>,
    outs: Places,
) {
    let rows = input.rows.len();
    assert!(input.width == weights.inputs());
    let blocks = rows.div_ceil(I::TILE_ROWS);
    for tile in tiles {
        if I::CLIPS
            && let Some(parts) = weights.beyond(tile)
        {
            let Quantised { width, columns, begin, .. } = &mut *input;
            I::beyond(parts, &columns[..begin.len() * *width], *width, begin);
        }
        let mut row = 0;
        for block in 1..=blocks {
            // Blocks of nearly equal size: one row alone would wait for each sum.
            let end = rows * block / blocks;
            let part =
                Part { input: &*input, weights, tile, row, ahead: [block == 1, block == blocks] };
            match end - row {
                1 if I::TILE_ROWS >= 1 => part.compute::<I, 1>(outs),
                2 if I::TILE_ROWS >= 2 => part.compute::<I, 2>(outs),
                3 if I::TILE_ROWS >= 3 => part.compute::<I, 3>(outs),
                4 if I::TILE_ROWS >= 4 => part.compute::<I, 4>(outs),
                5 if I::TILE_ROWS >= 5 => part.compute::<I, 5>(outs),
                6 if I::TILE_ROWS >= 6 => part.compute::<I, 6>(outs),
                7 if I::TILE_ROWS >= 7 => part.compute::<I, 7>(outs),
                8 if I::TILE_ROWS >= 8 => part.compute::<I, 8>(outs),
                rows => unreachable!("{rows} rows together"),
            }
            row = end;
        }
    }
}

/// Some rows of a product, for the outputs of one tile.
struct Part<'a> {
    input: &'a Quantised,
    weights: &'a Matrix,
    tile: usize,
    row: usize,
    /// Which halves of the next tile are to be asked for meanwhile.
    ahead: [bool; 2],
}

impl Part<'_> {
    #[inline(always)]
    unsafe fn compute<I: Isa, const R: usize>(&self, outs: Places) {
        let Self { input, weights, tile, row, ahead } = *self;
        let (low, high) = weights.tile(tile);
        let are_clipped = I::CLIPS && weights.beyond(tile).is_some();
        let tile_weights = Weights { low, high, are_clipped };
        let begin = input.begin.get(row..row + R).unwrap_or_default();
        let sums = I::dots::<R>(tile_weights, input.from(row), input.width, begin, ahead);
        for half in 0..TILE / LANES {
            let group = tile * (TILE / LANES) + half;
            let totals = &weights.totals().as_chunks().0[group];
            let scales = I::F::load(lanes(weights.scales(), group * LANES));
            let bias = I::F::load(lanes(weights.bias(), group * LANES));
            for (at, sums) in sums.iter().enumerate() {
                let (scale, zero) = *input.rows.get_unchecked(row + at);
                let scales = scales.mul(I::F::splat(scale));
                I::F::of_sums(sums[half], zero - I::OFFSET, totals)
                    .mul_add(scales, bias)
                    .store(outs.lanes(row + at, group));
            }
        }
    }
}
