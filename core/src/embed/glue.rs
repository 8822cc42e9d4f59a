//! What is computed between two products, over sixteen lanes, in an order that never changes.
//!
//! Owns: layer norm, GELU and the exponential. Must not know: layers. Each is compiled once for each instruction set
//! and gives the same bits on all: see `kernel`.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]

use super::kernel::{LANES, Lanes};

/// Sixteen values at a place.
#[inline(always)]
pub(super) unsafe fn lanes(values: &[f32], at: usize) -> &[f32; LANES] {
    debug_assert!(at + LANES <= values.len());
    &*values.as_ptr().add(at).cast()
}

#[inline(always)]
pub(super) unsafe fn lanes_mut(values: &mut [f32], at: usize) -> &mut [f32; LANES] {
    debug_assert!(at + LANES <= values.len());
    &mut *values.as_mut_ptr().add(at).cast()
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
pub(super) unsafe fn exp<F: Lanes>(x: F) -> F {
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
        let mean = F::splat(total.sum() / count);
        let mut squares = F::splat(0.0);
        at = 0;
        while at < width {
            let off = F::load(lanes(values, start + at)).sub(mean);
            squares = off.mul_add(off, squares);
            at += LANES;
        }
        let inverse = F::splat(1.0 / (squares.sum() / count + norm.epsilon).sqrt());
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
