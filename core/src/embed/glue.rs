//! What is computed between two products, over sixteen lanes, in an order that never changes.
//!
//! Owns: quantisation of activations, the finishing of integer products, layer norm, GELU, softmax, and products
//! of f32 in attention. Must not know: layers. Each is compiled once for each instruction set and gives the same
//! bits on all: see `kernel`.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "registers by number: a loop over iterators is not unrolled in every profile"
)]

use super::kernel::{Activations, Isa, LANES, Lanes, ROWS, TILE};
use super::quant::Matrix;

/// Sixteen values at a place.
#[inline(always)]
unsafe fn lanes(values: &[f32], at: usize) -> &[f32; LANES] {
    debug_assert!(at + LANES <= values.len());
    &*values.as_ptr().add(at).cast()
}

#[inline(always)]
unsafe fn lanes_mut(values: &mut [f32], at: usize) -> &mut [f32; LANES] {
    debug_assert!(at + LANES <= values.len());
    &mut *values.as_mut_ptr().add(at).cast()
}

/// Lanes into one value: halves are joined until one is left.
#[inline(always)]
unsafe fn join<F: Lanes>(lanes: F, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut values = [0.0; LANES];
    lanes.store(&mut values);
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            values[lane] = join(values[lane], values[lane + width]);
        }
        width /= 2;
    }
    values[0]
}

#[inline(always)]
unsafe fn sum<F: Lanes>(lanes: F) -> f32 {
    join(lanes, |one, other| one + other)
}

#[inline(always)]
unsafe fn largest<F: Lanes>(lanes: F) -> f32 {
    join(lanes, |one, other| if one > other { one } else { other })
}

#[inline(always)]
unsafe fn smallest<F: Lanes>(lanes: F) -> f32 {
    join(lanes, |one, other| if one < other { one } else { other })
}

/// `coefficients`, highest power first, at `x`.
#[inline(always)]
unsafe fn polynomial<F: Lanes, const N: usize>(x: F, coefficients: [f32; N]) -> F {
    let mut value = F::splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        value = value.mul_add(x, F::splat(coefficient));
    }
    value
}

/// e to the power of numbers that are not positive; below -87, where nothing is left of it in f32, as at -87.
#[inline(always)]
unsafe fn exp<F: Lanes>(x: F) -> F {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.max(F::splat(-87.0));
    let power = x.mul(F::splat(std::f32::consts::LOG2_E)).round();
    let rest = power.mul_add(F::splat(-LN_2_HIGH), x);
    let rest = power.mul_add(F::splat(-LN_2_LOW), rest);
    let tail = polynomial(
        rest,
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5],
    );
    let value = tail.mul_add(rest.mul(rest), rest.add(F::splat(1.0)));
    value.mul(power.exp2_whole())
}

/// The error function: a quotient of polynomials, off by less than 4e-7.
#[inline(always)]
unsafe fn erf<F: Lanes>(x: F) -> F {
    let x = x.max(F::splat(-4.0)).min(F::splat(4.0));
    let square = x.mul(x);
    let above = polynomial(
        square,
        [
            -2.726_142_4e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_6e-5,
            -7.349_906e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let below = polynomial(
        square,
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2],
    );
    x.mul(above).div(below)
}

/// GELU of all values in place; their number is a multiple of `LANES`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn gelu<F: Lanes>(values: &mut [f32]) {
    let mut at = 0;
    while at < values.len() {
        let x = F::load(lanes(values, at));
        let half = x.mul(F::splat(0.5));
        let bent = erf(x.mul(F::splat(std::f32::consts::FRAC_1_SQRT_2)));
        half.mul_add(bent, half).store(lanes_mut(values, at));
        at += LANES;
    }
}

/// Scale and shift of a layer norm.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
    pub(super) epsilon: f32,
}

/// Normalises each row of `values` in place, after adding the row of `others`, where there are any.
///
/// # Safety
/// As for [`Lanes`]; rows are as long as the norm.
#[inline(always)]
pub(super) unsafe fn add_and_norm<F: Lanes>(values: &mut [f32], others: &[f32], norm: &Norm) {
    let width = norm.scale.len();
    let count = width as f32;
    let mut start = 0;
    while start < values.len() {
        let mut total = F::splat(0.0);
        let mut at = 0;
        while at < width {
            let mut x = F::load(lanes(values, start + at));
            if !others.is_empty() {
                x = x.add(F::load(lanes(others, start + at)));
                x.store(lanes_mut(values, start + at));
            }
            total = total.add(x);
            at += LANES;
        }
        let mean = F::splat(sum(total) / count);
        let mut squares = F::splat(0.0);
        at = 0;
        while at < width {
            let off = F::load(lanes(values, start + at)).sub(mean);
            squares = off.mul_add(off, squares);
            at += LANES;
        }
        let inverse = F::splat(1.0 / (sum(squares) / count + norm.epsilon).sqrt());
        at = 0;
        while at < width {
            let off = F::load(lanes(values, start + at)).sub(mean).mul(inverse);
            let scale = F::load(lanes(&norm.scale, at));
            off.mul_add(scale, F::load(lanes(&norm.shift, at)))
                .store(lanes_mut(values, start + at));
            at += LANES;
        }
        start += width;
    }
}

/// Rows in 8 bits without a sign, each with a scale and the value that stands for zero.
#[derive(Debug, Default)]
pub(super) struct Quantised {
    width: usize,
    bytes: Vec<u8>,
    wide: Vec<i16>,
    rows: Vec<(f32, i32)>,
}

impl Quantised {
    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity() + 2 * self.wide.capacity() + 8 * self.rows.capacity()
    }

    /// # Safety
    /// As for [`Lanes`]; `width` is a multiple of `LANES` and divides the number of values.
    #[inline(always)]
    pub(super) unsafe fn fill<I: Isa>(&mut self, values: &[f32], width: usize) {
        self.width = width;
        self.rows.clear();
        self.bytes.resize(values.len(), 0);
        if I::WIDE {
            self.wide.resize(values.len(), 0);
        }
        let mut start = 0;
        while start < values.len() {
            let row = self.fill_row::<I::F>(values, start, width);
            self.rows.push(row);
            start += width;
        }
        if I::WIDE {
            for at in 0..values.len() {
                *self.wide.get_unchecked_mut(at) = i16::from(*self.bytes.get_unchecked(at));
            }
        }
    }

    #[inline(always)]
    unsafe fn fill_row<F: Lanes>(
        &mut self,
        values: &[f32],
        start: usize,
        width: usize,
    ) -> (f32, i32) {
        const LEVELS: f32 = 255.0;
        let (mut low, mut high) = (F::splat(0.0), F::splat(0.0));
        let mut at = start;
        while at < start + width {
            let x = F::load(lanes(values, at));
            (low, high) = (x.min(low), x.max(high));
            at += LANES;
        }
        let (low, high) = (smallest(low), largest(high));
        let range = high - low;
        // All zero, or as good as that; what is no number is not computed with.
        if !(1e-30..=f32::MAX).contains(&range) {
            self.bytes[start..start + width].fill(0);
            return (1.0, 0);
        }
        let inverse = LEVELS / range;
        let zero = (-low * inverse).round_ties_even();
        at = start;
        while at < start + width {
            let x = F::load(lanes(values, at)).mul(F::splat(inverse)).round().add(F::splat(zero));
            let x = x.max(F::splat(0.0)).min(F::splat(LEVELS));
            debug_assert!(at + LANES <= self.bytes.len());
            x.store_u8(&mut *self.bytes.as_mut_ptr().add(at).cast());
            at += LANES;
        }
        (range / LEVELS, zero as i32)
    }

    #[inline(always)]
    fn from(&self, row: usize) -> Activations<'_> {
        let at = row * self.width;
        let wide = self.wide.get(at..).unwrap_or_default();
        Activations { bytes: &self.bytes[at..], wide, stride: self.width }
    }
}

/// `input` times `weights`, plus bias, into rows of `outs`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn multiply<I: Isa>(input: &Quantised, weights: &Matrix, outs: &mut [f32]) {
    let rows = input.rows.len();
    assert!(input.width == weights.inputs() && outs.len() == rows * weights.outputs());
    let blocks = rows.div_ceil(I::TILE_ROWS);
    let mut sums = [[0; TILE]; ROWS];
    for tile in 0..weights.outputs() / TILE {
        let (low, high) = weights.tile(tile);
        let mut row = 0;
        for block in 1..=blocks {
            // Blocks of nearly equal size: one row alone would wait for each sum.
            let end = rows * block / blocks;
            let activations = input.from(row);
            match end - row {
                1 => I::dots::<1>(low, high, &activations, &mut sums),
                2 => I::dots::<2>(low, high, &activations, &mut sums),
                3 => I::dots::<3>(low, high, &activations, &mut sums),
                4 => I::dots::<4>(low, high, &activations, &mut sums),
                5 => I::dots::<5>(low, high, &activations, &mut sums),
                6 => I::dots::<6>(low, high, &activations, &mut sums),
                7 => I::dots::<7>(low, high, &activations, &mut sums),
                _ => I::dots::<8>(low, high, &activations, &mut sums),
            }
            let first = row;
            while row < end {
                let to = &mut outs[row * weights.outputs() + tile * TILE..][..TILE];
                let (scale, zero) = input.rows[row];
                let sums = &sums[row - first];
                finish::<I::F>(sums, (scale, zero - I::OFFSET), weights, tile * TILE, to);
                row += 1;
            }
        }
    }
}

/// Integer products into numbers.
#[inline(always)]
unsafe fn finish<F: Lanes>(
    sums: &[i32; TILE],
    (scale, zero): (f32, i32),
    weights: &Matrix,
    output: usize,
    to: &mut [f32],
) {
    for half in 0..TILE / LANES {
        let at = output + half * LANES;
        let (sums, totals) =
            (&sums.as_chunks().0[half], &weights.totals().as_chunks().0[at / LANES]);
        let scales = F::load(lanes(weights.scales(), at)).mul(F::splat(scale));
        let bias = F::load(lanes(weights.bias(), at));
        F::of_sums(sums, zero, totals).mul_add(scales, bias).store(lanes_mut(to, half * LANES));
    }
}

/// A matrix of f32 in another's rows.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// Products of `R` rows of `left` with `16 * C` columns of `right`, each summed in order over `depth`.
#[inline(always)]
unsafe fn tile<F: Lanes, const R: usize, const C: usize>(
    left: Strided<'_>,
    right: Strided<'_>,
    depth: usize,
) -> [[F; C]; R] {
    debug_assert!((R - 1) * left.stride + depth <= left.values.len());
    let mut sums = [[F::splat(0.0); C]; R];
    let start = left.values.as_ptr();
    for step in 0..depth {
        let mut columns = [F::splat(0.0); C];
        for part in 0..C {
            columns[part] = F::load(lanes(right.values, step * right.stride + part * LANES));
        }
        for row in 0..R {
            let value = F::splat(*start.add(row * left.stride + step));
            for part in 0..C {
                sums[row][part] = value.mul_add(columns[part], sums[row][part]);
            }
        }
    }
    sums
}

/// At most `ROWS` rows of `left` times `columns` columns of `right`, into rows of `to`, times a factor for each row.
///
/// # Safety
/// As for [`Lanes`]; `columns` is a multiple of `LANES`, and `rows` at most what `I` computes together.
#[inline(always)]
pub(super) unsafe fn multiply_floats<I: Isa>(
    left: Strided<'_>,
    right: Strided<'_>,
    (rows, depth, columns): (usize, usize, usize),
    factors: &[f32; ROWS],
    to: &mut [f32],
    to_stride: usize,
) {
    debug_assert!(rows <= I::FLOAT_TILE.0 && columns.is_multiple_of(LANES));
    let mut column = 0;
    while column < columns {
        let part = Strided { values: &right.values[column..], ..right };
        let mut to = Into { values: &mut to[column..], stride: to_stride, factors };
        if I::FLOAT_TILE.1 == 2 && columns - column >= 2 * LANES {
            columns_of::<I, 2>(rows, left, part, depth, &mut to);
            column += 2 * LANES;
        } else {
            columns_of::<I, 1>(rows, left, part, depth, &mut to);
            column += LANES;
        }
    }
}

/// Where products go.
struct Into<'a> {
    values: &'a mut [f32],
    stride: usize,
    factors: &'a [f32; ROWS],
}

/// Some columns of a product; the registers of a tile are a matter of its size, the order of its sums is not.
#[inline(always)]
unsafe fn columns_of<I: Isa, const C: usize>(
    rows: usize,
    left: Strided<'_>,
    right: Strided<'_>,
    depth: usize,
    to: &mut Into<'_>,
) {
    match rows.min(I::FLOAT_TILE.0) {
        1 => store_tile::<I::F, 1, C>(left, right, depth, to),
        2 => store_tile::<I::F, 2, C>(left, right, depth, to),
        3 => store_tile::<I::F, 3, C>(left, right, depth, to),
        4 => store_tile::<I::F, 4, C>(left, right, depth, to),
        5 => store_tile::<I::F, 5, C>(left, right, depth, to),
        6 => store_tile::<I::F, 6, C>(left, right, depth, to),
        7 => store_tile::<I::F, 7, C>(left, right, depth, to),
        _ => store_tile::<I::F, 8, C>(left, right, depth, to),
    }
}

#[inline(always)]
unsafe fn store_tile<F: Lanes, const R: usize, const C: usize>(
    left: Strided<'_>,
    right: Strided<'_>,
    depth: usize,
    to: &mut Into<'_>,
) {
    let sums = tile::<F, R, C>(left, right, depth);
    for row in 0..R {
        let factor = F::splat(to.factors[row]);
        for part in 0..C {
            let place = lanes_mut(to.values, row * to.stride + part * LANES);
            sums[row][part].mul(factor).store(place);
        }
    }
}

/// Scores into weights that are not divided by their sum yet, in place; answers one over that sum. What is past
/// `count` is as good as nothing.
///
/// # Safety
/// As for [`Lanes`]; the length is a multiple of `LANES`.
#[inline(always)]
pub(super) unsafe fn weigh<F: Lanes>(scores: &mut [f32], count: usize) -> f32 {
    scores[count..].fill(f32::MIN / 2.0);
    let mut high = F::splat(f32::MIN);
    let mut at = 0;
    while at < scores.len() {
        high = F::load(lanes(scores, at)).max(high);
        at += LANES;
    }
    let high = F::splat(largest(high));
    let mut total = F::splat(0.0);
    at = 0;
    while at < scores.len() {
        let weight = exp(F::load(lanes(scores, at)).sub(high));
        weight.store(lanes_mut(scores, at));
        total = total.add(weight);
        at += LANES;
    }
    1.0 / sum(total)
}
