//! The BERT encoder: word pieces in, one vector out.
//!
//! Owns: the order of layers, which rows a step writes, pooling. Must not know: text, files, servers, threads. Any thread,
//! each with a bench of its own; an encoder is never written after loading.

#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "each function is under the one condition of `Lanes`: the instructions are there"
)]

use super::attention::{Heads, attend, turn_keys};
use super::glue::{Norm, add_and_norm, gelu};
use super::kernel::{Isa, LANES, Lanes};
use super::memory::{Floats, Places};
use super::product::{Quantised, multiply};
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

/// Memory that a thread uses for one step after the other.
#[derive(Debug, Default)]
pub(super) struct Bench {
    mixed: Floats,
    inner: Floats,
    outs: Floats,
    scores: Floats,
    quantised: Quantised,
}

impl Bench {
    pub(super) fn allocated_bytes(&self) -> usize {
        let Self { mixed, inner, outs, scores, quantised } = self;
        let floats = [mixed, inner, outs, scores].map(Floats::allocated_bytes);
        floats.iter().sum::<usize>() + quantised.allocated_bytes()
    }
}

/// What a pass has of every token.
#[derive(Debug, Default)]
pub(super) struct Memory {
    states: Floats,
    /// Queries, keys and values. Of two layers in turn where a pass has several parts: one part may be a layer ahead.
    asked: [Floats; 2],
}

impl Memory {
    /// Has room for a text of so many tokens, in so many parts.
    pub(super) fn reserve(&mut self, shape: Shape, tokens: usize, parts: usize) {
        // Nothing of a former text is read: each of these is written in whole first.
        self.states.reserve(tokens * shape.hidden);
        for asked in self.asked.iter_mut().take(parts) {
            asked.reserve(tokens.next_multiple_of(LANES) * 3 * shape.hidden);
        }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let [one, other] = &self.asked;
        [&self.states, one, other].map(Floats::allocated_bytes).iter().sum()
    }
}

/// A text on its way through the encoder: its layers one after the other, each in parts of some rows.
///
/// A step is one part from where it knows the keys and values of all tokens to where it has its own of the next layer.
/// The steps of one number need nothing of each other, and those of the next begin when all of them ended: so they
/// may run on any threads in any order, and the result is the same to the bit.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) tokens: &'a [u32],
    pub(super) memory: &'a Memory,
    /// Rows of a part, a multiple of `LANES`.
    pub(super) part_rows: usize,
}

impl Pass<'_> {
    pub(super) fn parts(&self) -> usize {
        self.tokens.len().div_ceil(self.part_rows)
    }

    /// Steps of a part.
    pub(super) fn steps(&self) -> usize {
        self.encoder.layers.len() + 1
    }

    fn asked(&self, layer: usize) -> Places {
        let padded = self.tokens.len().next_multiple_of(LANES);
        let turn = if self.parts() > 1 { layer % 2 } else { 0 };
        self.memory.asked[turn].places(LANES, padded * LANES)
    }

    /// Runs a step of a part.
    ///
    /// # Safety
    /// The CPU has the instructions of `I`; all steps of lower numbers have ended, of all parts, and no other thread
    /// runs this one. The memory has room.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(&self, step: usize, part: usize, bench: &mut Bench) {
        let Shape { hidden, .. } = self.encoder.shape;
        let first = part * self.part_rows;
        let end = self.tokens.len().min(first + self.part_rows);
        let states = self.memory.states.places(hidden, LANES).from(first, 0);
        let states = states.slice_mut((end - first) * hidden);
        match step.checked_sub(1) {
            None => {
                look_up::<I::F>(self.encoder, &self.tokens[first..end], first, states);
                add_and_norm::<I::F>(states, &[], &self.encoder.norm);
            }
            Some(layer) => self.finish_layer::<I>(layer, (first, end), states, bench),
        }
        if let Some(layer) = self.encoder.layers.get(step) {
            let asked = self.asked(step);
            bench.quantised.fill::<I>(states, hidden);
            multiply::<I>(&bench.quantised, &layer.asked, asked.from(first, 0));
            let groups = hidden / LANES;
            turn_keys::<I::F>(asked.from(0, groups), groups, first, end);
        }
    }

    /// A layer from attention on, for some rows.
    #[inline(always)]
    unsafe fn finish_layer<I: Isa>(
        &self,
        number: usize,
        (first, end): (usize, usize),
        states: &mut [f32],
        bench: &mut Bench,
    ) {
        let layer = &self.encoder.layers[number];
        let (hidden, inner) = (layer.up.inputs(), layer.up.outputs());
        let Bench { mixed, inner: grown, outs, scores, quantised } = bench;
        for (floats, width) in [(&mut *mixed, hidden), (&mut *grown, inner), (&mut *outs, hidden)] {
            floats.reserve((end - first) * width);
        }
        let Shape { heads, .. } = self.encoder.shape;
        let sizes = Heads { heads, groups: hidden / heads / LANES, rows: self.tokens.len() };
        let mixed = &mut mixed.all()[..(end - first) * hidden];
        let outs = &mut outs.all()[..(end - first) * hidden];
        let grown = &mut grown.all()[..(end - first) * inner];
        let asked = self.asked(number);
        attend::<I>(sizes, (first, end), asked, scores, Places::of(mixed, hidden));
        quantised.fill::<I>(mixed, hidden);
        multiply::<I>(quantised, &layer.answered, Places::of(outs, hidden));
        add_and_norm::<I::F>(states, outs, &layer.first_norm);
        quantised.fill::<I>(states, hidden);
        multiply::<I>(quantised, &layer.up, Places::of(grown, inner));
        gelu::<I::F>(grown);
        quantised.fill::<I>(grown, inner);
        multiply::<I>(quantised, &layer.down, Places::of(outs, hidden));
        add_and_norm::<I::F>(states, outs, &layer.second_norm);
    }

    /// The vector of the text, not normalised.
    ///
    /// # Safety
    /// All steps have ended.
    pub(super) unsafe fn pool(&self, pooling: Pooling) -> Vec<f32> {
        let width = self.encoder.shape.hidden;
        let states = self.memory.states.places(width, LANES).slice(self.tokens.len() * width);
        let mut vector = states[..width].to_vec();
        if pooling == Pooling::Mean {
            for row in states[width..].chunks_exact(width) {
                for (sum, value) in vector.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            for sum in &mut vector {
                *sum /= self.tokens.len() as f32;
            }
        }
        vector
    }
}

/// The sum of what stands for each word and for its place, of tokens from the place `first` on.
#[inline(always)]
unsafe fn look_up<F: Lanes>(encoder: &Encoder, tokens: &[u32], first: usize, states: &mut [f32]) {
    let width = encoder.shape.hidden;
    let places = encoder.positions[first * width..].chunks_exact(width);
    for ((&token, place), to) in tokens.iter().zip(places).zip(states.chunks_exact_mut(width)) {
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
