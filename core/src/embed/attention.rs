//! Attention: each token's mixture of the values of all, by head.
//!
//! Owns: products of f32, softmax. Queries, keys and values lie in groups of sixteen dimensions, all rows of a group one
//! after the other; of the keys, each square of sixteen rows is turned, so that lanes are tokens. Each sum runs in the
//! order of dimensions or tokens, whatever is computed beside it.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "registers by number: a loop over iterators is not unrolled in every profile"
)]

use super::glue::{exp, lanes, lanes_mut};
use super::kernel::{Isa, LANES, Lanes, ROWS, SQUARE};
use super::memory::{Floats, Places};
use std::ops::Range;

/// Sizes of one pass's attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    /// Groups of sixteen dimensions of a head.
    pub(super) groups: usize,
    /// Tokens of the text.
    pub(super) rows: usize,
}

/// Turns the keys of tokens from `first` on, whole squares; `keys` begins at the first group of keys.
///
/// # Safety
/// As for [`Lanes`]; nobody else reads or writes these rows.
#[inline(always)]
pub(super) unsafe fn turn_keys<F: Lanes>(keys: Places, groups: usize, first: usize, end: usize) {
    for group in 0..groups {
        let mut row = first;
        while row < end {
            F::turn(keys.values_mut::<SQUARE>(row, group));
            row += LANES;
        }
    }
}

/// Mixtures of tokens `first..end` by some of the heads into `mixed`. `asked` has queries, keys and values of all tokens.
///
/// # Safety
/// As for [`Lanes`]; nobody writes `asked` meanwhile.
#[inline(always)]
pub(super) unsafe fn attend<I: Isa>(
    heads: Heads,
    own: Range<usize>,
    (first, end): (usize, usize),
    asked: Places,
    scores: &mut Floats,
    mixed: Places,
) {
    let Heads { heads: count, groups, rows } = heads;
    let padded = rows.next_multiple_of(LANES);
    let scale = 1.0 / ((groups * LANES) as f32).sqrt();
    scores.reserve(ROWS * padded);
    let scores = scores.all();
    let blocks = (end - first).div_ceil(I::FLOAT_TILE.0);
    for head in own {
        let queries = asked.from(0, head * groups);
        let keys = asked.from(0, (count + head) * groups);
        let values = asked.from(0, (2 * count + head) * groups);
        let mut row = first;
        for block in 1..=blocks {
            // Blocks of nearly equal size, as in products of bytes.
            let next = first + (end - first) * block / blocks;
            let block = Block { rows: next - row, groups, padded };
            block.score::<I>(queries.from(row, 0), keys, scale, scores);
            let mut shares = [0.0; ROWS];
            for (share, scores) in
                shares.iter_mut().zip(scores.chunks_exact_mut(padded)).take(block.rows)
            {
                *share = weigh::<I::F>(scores, rows);
            }
            let to = mixed.from(row - first, head * groups);
            block.mix::<I>((scores, rows), values, &shares, to);
            row = next;
        }
    }
}

/// Tokens whose mixtures are computed together.
struct Block {
    rows: usize,
    groups: usize,
    padded: usize,
}

macro_rules! by_rows {
    ($isa:ident, $rows:expr, $what:ident::<$columns:literal>($($argument:expr),*)) => {
        match $rows {
            1 if $isa::FLOAT_TILE.0 >= 1 => $what::<$isa::F, 1, $columns>($($argument),*),
            2 if $isa::FLOAT_TILE.0 >= 2 => $what::<$isa::F, 2, $columns>($($argument),*),
            3 if $isa::FLOAT_TILE.0 >= 3 => $what::<$isa::F, 3, $columns>($($argument),*),
            4 if $isa::FLOAT_TILE.0 >= 4 => $what::<$isa::F, 4, $columns>($($argument),*),
            5 if $isa::FLOAT_TILE.0 >= 5 => $what::<$isa::F, 5, $columns>($($argument),*),
            6 if $isa::FLOAT_TILE.0 >= 6 => $what::<$isa::F, 6, $columns>($($argument),*),
            7 if $isa::FLOAT_TILE.0 >= 7 => $what::<$isa::F, 7, $columns>($($argument),*),
            8 if $isa::FLOAT_TILE.0 >= 8 => $what::<$isa::F, 8, $columns>($($argument),*),
            9 if $isa::FLOAT_TILE.0 >= 9 => $what::<$isa::F, 9, $columns>($($argument),*),
            10 if $isa::FLOAT_TILE.0 >= 10 => $what::<$isa::F, 10, $columns>($($argument),*),
            11 if $isa::FLOAT_TILE.0 >= 11 => $what::<$isa::F, 11, $columns>($($argument),*),
            12 if $isa::FLOAT_TILE.0 >= 12 => $what::<$isa::F, 12, $columns>($($argument),*),
            rows => unreachable!("{rows} rows together"),
        }
    };
}

impl Block {
    /// Queries times keys, times `scale`.
    #[inline(always)]
    unsafe fn score<I: Isa>(&self, queries: Places, keys: Places, scale: f32, to: &mut [f32]) {
        let rows = self.rows;
        let mut token = 0;
        while token < self.padded {
            let (keys, to) = (keys.from(token, 0), &mut to[token..]);
            if I::FLOAT_TILE.1 == 2 && self.padded - token >= 2 * LANES {
                by_rows!(I, rows, score_tile::<2>(queries, keys, self, scale, to));
                token += 2 * LANES;
            } else {
                by_rows!(I, rows, score_tile::<1>(queries, keys, self, scale, to));
                token += LANES;
            }
        }
    }

    /// Weights times values, times the share of each row.
    #[inline(always)]
    unsafe fn mix<I: Isa>(
        &self,
        (weights, depth): (&[f32], usize),
        values: Places,
        shares: &[f32; ROWS],
        to: Places,
    ) {
        let rows = self.rows;
        let weights = (weights, self.padded, depth);
        let mut group = 0;
        while group < self.groups {
            let (values, to) = (values.from(0, group), to.from(0, group));
            if I::FLOAT_TILE.1 == 2 && self.groups - group >= 2 {
                by_rows!(I, rows, mix_tile::<2>(weights, values, shares, to));
                group += 2;
            } else {
                by_rows!(I, rows, mix_tile::<1>(weights, values, shares, to));
                group += 1;
            }
        }
    }
}

/// Scores of `R` queries with `16 * C` keys, each summed in the order of dimensions.
#[inline(always)]
unsafe fn score_tile<F: Lanes, const R: usize, const C: usize>(
    queries: Places,
    keys: Places,
    block: &Block,
    scale: f32,
    to: &mut [f32],
) {
    let mut sums = [[F::splat(0.0); C]; R];
    for group in 0..block.groups {
        for dimension in 0..LANES {
            let mut columns = [F::splat(0.0); C];
            for part in 0..C {
                // A square is turned: its rows are dimensions.
                columns[part] = F::load(keys.values(part * LANES + dimension, group));
            }
            for row in 0..R {
                let value = F::splat(queries.values::<LANES>(row, group)[dimension]);
                for part in 0..C {
                    sums[row][part] = value.mul_add(columns[part], sums[row][part]);
                }
            }
        }
    }
    let factor = F::splat(scale);
    for row in 0..R {
        for part in 0..C {
            let place = lanes_mut(to, row * block.padded + part * LANES);
            sums[row][part].mul(factor).store(place);
        }
    }
}

/// Mixtures of `R` tokens, `16 * C` of their dimensions, each summed in the order of tokens.
#[inline(always)]
unsafe fn mix_tile<F: Lanes, const R: usize, const C: usize>(
    (weights, stride, depth): (&[f32], usize, usize),
    values: Places,
    shares: &[f32; ROWS],
    to: Places,
) {
    debug_assert!((R - 1) * stride + depth <= weights.len());
    let mut sums = [[F::splat(0.0); C]; R];
    let start = weights.as_ptr();
    for token in 0..depth {
        let mut columns = [F::splat(0.0); C];
        for part in 0..C {
            columns[part] = F::load(values.values(token, part));
        }
        for row in 0..R {
            let weight = F::splat(*start.add(row * stride + token));
            for part in 0..C {
                sums[row][part] = weight.mul_add(columns[part], sums[row][part]);
            }
        }
    }
    for row in 0..R {
        let share = F::splat(shares[row]);
        for part in 0..C {
            sums[row][part].mul(share).store(to.lanes(row, part));
        }
    }
}

/// Scores into weights that are not divided by their sum yet, in place; answers one over that sum. What is past
/// `count` is as good as nothing.
#[inline(always)]
unsafe fn weigh<F: Lanes>(scores: &mut [f32], count: usize) -> f32 {
    scores[count..].fill(f32::MIN / 2.0);
    let mut high = F::splat(f32::MIN);
    let mut at = 0;
    while at < scores.len() {
        high = F::load(lanes(scores, at)).max(high);
        at += LANES;
    }
    let high = F::splat(high.largest());
    let mut total = F::splat(0.0);
    at = 0;
    while at < scores.len() {
        let weight = exp(F::load(lanes(scores, at)).sub(high));
        weight.store(lanes_mut(scores, at));
        total = total.add(weight);
        at += LANES;
    }
    1.0 / total.sum()
}
