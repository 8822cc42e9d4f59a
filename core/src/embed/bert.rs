//! The BERT encoder: word pieces in, one vector out.
//!
//! Owns: the order of layers, the memory of a pass, pooling. Must not know: text, files, servers. Any thread, each
//! with a scratch memory of its own; an encoder is never written after loading.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]

use super::glue::{Norm, Quantised, Strided, add_and_norm, gelu, multiply, multiply_floats, weigh};
use super::kernel::{Isa, LANES, Lanes, ROWS};
use super::quant::{Matrix, Table};

/// How the vectors of all tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
}

/// The sizes of an encoder; `folder` checks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    pub(super) inner: usize,
    pub(super) words: usize,
    pub(super) positions: usize,
}

impl Shape {
    fn head_width(&self) -> usize {
        self.hidden / self.heads
    }
}

/// The weights.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) shape: Shape,
    pub(super) words: Table,
    /// Of each position, with that of the first segment added.
    pub(super) positions: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
}

/// The weights of a layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// Query, key and value one after the other.
    pub(super) asked: Matrix,
    pub(super) answered: Matrix,
    pub(super) first_norm: Norm,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
    pub(super) second_norm: Norm,
}

impl Encoder {
    pub(super) fn allocated_bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            [&layer.asked, &layer.answered, &layer.up, &layer.down]
                .map(Matrix::allocated_bytes)
                .iter()
                .sum::<usize>()
        };
        self.words.allocated_bytes()
            + 4 * self.positions.capacity()
            + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// The vector of a text of so many tokens, not normalised, from the states that a pass left.
pub(super) fn pool(
    encoder: &Encoder,
    tokens: usize,
    pooling: Pooling,
    scratch: &Scratch,
) -> Vec<f32> {
    let width = encoder.shape.hidden;
    let mut vector = scratch.states[..width].to_vec();
    if pooling == Pooling::Mean {
        for row in scratch.states[width..tokens * width].chunks_exact(width) {
            for (sum, value) in vector.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for sum in &mut vector {
            *sum /= tokens as f32;
        }
    }
    vector
}

/// Memory that passes use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    states: Vec<f32>,
    asked: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
    outs: Vec<f32>,
    keys: Vec<f32>,
    scores: Vec<f32>,
    quantised: Quantised,
}

impl Scratch {
    /// Its bytes.
    pub fn allocated_bytes(&self) -> usize {
        let Self { states, asked, mixed, inner, outs, keys, scores, quantised } = self;
        let floats = [states, asked, mixed, inner, outs, keys, scores];
        4 * floats.iter().map(|values| values.capacity()).sum::<usize>()
            + quantised.allocated_bytes()
    }
}

/// One text on its way through the encoder.
pub(super) struct Pass<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) scratch: &'a mut Scratch,
}

/// Rows that go through the second half of a layer together: what is computed of them stays in the cache.
const BLOCK: usize = 64;

/// Runs the encoder: the states of the last layer are left in the scratch memory.
///
/// # Safety
/// The CPU has the instructions of `I`.
#[inline(always)]
pub(super) unsafe fn forward<I: Isa>(encoder: &Encoder, pass: &mut Pass<'_>) {
    let Shape { hidden, inner, .. } = encoder.shape;
    let rows = pass.tokens.len();
    let scratch = &mut *pass.scratch;
    // Nothing of a former text is read: each of these is written in whole first.
    scratch.states.resize(rows * hidden, 0.0);
    scratch.asked.resize(rows * 3 * hidden, 0.0);
    scratch.mixed.resize(rows * hidden, 0.0);
    scratch.inner.resize(rows.min(BLOCK) * inner, 0.0);
    scratch.outs.resize(rows.min(BLOCK) * hidden, 0.0);
    look_up::<I::F>(encoder, pass.tokens, &mut scratch.states);
    add_and_norm::<I::F>(&mut scratch.states, &[], &encoder.norm);
    for layer in &encoder.layers {
        scratch.quantised.fill::<I>(&scratch.states, hidden);
        multiply::<I>(&scratch.quantised, &layer.asked, &mut scratch.asked);
        attend::<I>(encoder.shape, rows, scratch);
        let mut first = 0;
        while first < rows {
            let end = rows.min(first + BLOCK);
            finish_layer::<I>(layer, first, end, scratch);
            first = end;
        }
    }
}

/// What follows attention in a layer, for some rows.
#[inline(always)]
unsafe fn finish_layer<I: Isa>(layer: &Layer, first: usize, end: usize, scratch: &mut Scratch) {
    let (hidden, inner) = (layer.up.inputs(), layer.up.outputs());
    let Scratch { states, mixed, inner: grown, outs, quantised, .. } = scratch;
    let states = &mut states[first * hidden..end * hidden];
    let (outs, grown) = (&mut outs[..(end - first) * hidden], &mut grown[..(end - first) * inner]);
    quantised.fill::<I>(&mixed[first * hidden..end * hidden], hidden);
    multiply::<I>(quantised, &layer.answered, outs);
    add_and_norm::<I::F>(states, outs, &layer.first_norm);
    quantised.fill::<I>(states, hidden);
    multiply::<I>(quantised, &layer.up, grown);
    gelu::<I::F>(grown);
    quantised.fill::<I>(grown, inner);
    multiply::<I>(quantised, &layer.down, outs);
    add_and_norm::<I::F>(states, outs, &layer.second_norm);
}

/// The sum of what stands for each word and for its place.
#[inline(always)]
unsafe fn look_up<F: Lanes>(encoder: &Encoder, tokens: &[u32], states: &mut [f32]) {
    let width = encoder.shape.hidden;
    for ((&token, place), to) in
        tokens.iter().zip(encoder.positions.chunks_exact(width)).zip(states.chunks_exact_mut(width))
    {
        let (codes, scale) = encoder.words.row(token as usize);
        let codes = codes.as_chunks::<LANES>().0;
        let place = place.as_chunks::<LANES>().0;
        let to = to.as_chunks_mut::<LANES>().0;
        for at in 0..to.len() {
            let word = F::of_i8(&codes[at]);
            word.mul_add(F::splat(scale), F::load(&place[at])).store(&mut to[at]);
        }
    }
}

/// Each token's mixture of the values of all, by head.
#[inline(always)]
unsafe fn attend<I: Isa>(shape: Shape, rows: usize, scratch: &mut Scratch) {
    let (width, stride) = (shape.head_width(), 3 * shape.hidden);
    let padded = rows.next_multiple_of(LANES);
    let scale = 1.0 / (width as f32).sqrt();
    let Scratch { asked, mixed, keys, scores, .. } = scratch;
    keys.resize(width * padded, 0.0);
    scores.resize(ROWS * padded, 0.0);
    for head in 0..shape.heads {
        let (query_at, key_at) = (head * width, shape.hidden + head * width);
        turn(asked, key_at, stride, rows, padded, &mut keys[..width * padded]);
        let keys = Strided { values: keys, stride: padded };
        let values = Strided { values: &asked[2 * shape.hidden + head * width..], stride };
        let blocks = rows.div_ceil(I::FLOAT_TILE.0);
        let mut first = 0;
        for block in 1..=blocks {
            // Blocks of nearly equal size, as in products of bytes.
            let count = rows * block / blocks - first;
            let queries = Strided { values: &asked[first * stride + query_at..], stride };
            let sizes = (count, width, padded);
            multiply_floats::<I>(queries, keys, sizes, &[scale; ROWS], scores, padded);
            let mut shares = [0.0; ROWS];
            for (row, share) in shares.iter_mut().enumerate().take(count) {
                *share = weigh::<I::F>(&mut scores[row * padded..][..padded], rows);
            }
            let weights = Strided { values: scores, stride: padded };
            let to = &mut mixed[first * shape.hidden + head * width..];
            let sizes = (count, rows, width);
            multiply_floats::<I>(weights, values, sizes, &shares, to, shape.hidden);
            first += count;
        }
    }
}

/// Keys of one head, a row for each of their dimensions.
#[inline(always)]
fn turn(asked: &[f32], at: usize, stride: usize, rows: usize, padded: usize, keys: &mut [f32]) {
    for (dimension, row) in keys.chunks_exact_mut(padded).enumerate() {
        row[rows..].fill(0.0);
        for (token, value) in row[..rows].iter_mut().enumerate() {
            *value = asked[token * stride + at + dimension];
        }
    }
}
