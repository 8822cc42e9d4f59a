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
use super::kernel::{Isa, LANES, Lanes, TILE};
use super::memory::{Floats, Places};
use super::product::{Quantised, multiply};
use super::quant::{Matrix, Table};
use std::ops::Range;

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
    /// Clips the weights for an engine that wants that: see `Isa::CLIPS`.
    pub(super) fn clip(&mut self) {
        for Layer { asked, answered, up, down, .. } in &mut self.layers {
            [asked, answered, up, down].into_iter().for_each(Matrix::clip);
        }
    }

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
    states: Floats,
    results: Results,
    scores: Floats,
    quantised: Quantised,
}

impl Bench {
    pub(super) fn allocated_bytes(&self) -> usize {
        let Self { states, results, scores, quantised } = self;
        let floats = states.allocated_bytes() + scores.allocated_bytes();
        floats + results.allocated_bytes() + quantised.allocated_bytes()
    }
}

/// What attention and the products of a layer give.
#[derive(Debug, Default)]
struct Results {
    mixed: Floats,
    outs: Floats,
    grown: Floats,
}

impl Results {
    fn reserve(&mut self, shape: Shape, rows: usize) {
        self.mixed.reserve(rows * shape.hidden);
        self.outs.reserve(rows * shape.hidden);
        self.grown.reserve(rows * shape.inner);
    }

    /// Mixed, outs and grown.
    #[inline(always)]
    fn places(&self, shape: Shape) -> [Places; 3] {
        [(&self.mixed, shape.hidden), (&self.outs, shape.hidden), (&self.grown, shape.inner)]
            .map(|(floats, width)| floats.places(width, LANES))
    }

    fn allocated_bytes(&self) -> usize {
        let Self { mixed, outs, grown } = self;
        [mixed, outs, grown].map(Floats::allocated_bytes).iter().sum()
    }
}

/// What a pass has of every token.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where parts are columns, before and after the norm that each computes for itself; else the first alone.
    states: [Floats; 2],
    /// Queries, keys and values. Of two layers in turn where there are several parts of rows: one may be a layer ahead.
    asked: [Floats; 2],
    /// Where parts are columns; those of rows have their own.
    results: Results,
}

impl Memory {
    /// Has room for a text of so many tokens.
    pub(super) fn reserve(&mut self, shape: Shape, tokens: usize, split: Split) {
        // Nothing of a former text is read: each of these is written in whole first.
        let asked = tokens.next_multiple_of(LANES) * 3 * shape.hidden;
        self.states[0].reserve(tokens * shape.hidden);
        self.asked[0].reserve(asked);
        match split {
            Split::Rows(rows) if rows < tokens => self.asked[1].reserve(asked),
            Split::Rows(_) => {}
            Split::Columns(_) => {
                self.states[1].reserve(tokens * shape.hidden);
                self.results.reserve(shape, tokens);
            }
        }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let floats = self.states.iter().chain(&self.asked).map(Floats::allocated_bytes);
        floats.sum::<usize>() + self.results.allocated_bytes()
    }
}

/// What is a part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// So many rows, a multiple of `LANES`, through a whole layer: all weights pass by each part, and parts wait for
    /// each other once a layer.
    Rows(usize),
    /// All rows, and one of so many ranges of the outputs of a product: a part reads its share of the weights
    /// only, but parts wait for each other at each product, and each computes all norms.
    Columns(usize),
}

/// A text on its way through the encoder: its layers one after the other, each in parts.
///
/// A step of rows leads from where the keys and values of all tokens are known to where the part has its own of the
/// next layer; one of columns, over one product. The steps of one number need nothing of each other, and those of the
/// next begin when all of them ended: so they may run on any threads in any order, and the result is the same to the
/// bit.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) tokens: &'a [u32],
    pub(super) memory: &'a Memory,
    pub(super) split: Split,
}

/// Works of a layer. The work of number `WORKS * layer` is the norm that ends the layer before, or the look-up; then come
/// the products of queries, keys and values; attention; the product of what it mixed; the norm; the product that widens; the one that narrows.
const WORKS: usize = 7;
/// With which of a layer's works the steps of columns begin: with those that need whole rows of what was computed last.
const COLUMN_STEPS: [usize; 5] = [0, 3, 4, 6, WORKS];

/// A part of a step.
struct Part<'a> {
    first: usize,
    end: usize,
    /// Which of how many ranges of columns.
    column: usize,
    columns: usize,
    /// Of these rows: its own where parts are columns.
    states: &'a mut [f32],
    results: [Places; 3],
}

impl Part<'_> {
    /// Its share of so many.
    #[inline(always)]
    fn of(&self, count: usize) -> Range<usize> {
        count * self.column / self.columns..count * (self.column + 1) / self.columns
    }
}

impl Shape {
    /// Columns that a part has whole: those of heads, and those of tiles.
    fn unit(&self) -> usize {
        let head = self.hidden / self.heads;
        if head.is_multiple_of(TILE) { head } else { head * TILE / LANES }
    }
}

impl Pass<'_> {
    pub(super) fn parts(&self) -> usize {
        let Shape { hidden, .. } = self.encoder.shape;
        match self.split {
            Split::Rows(rows) => self.tokens.len().div_ceil(rows),
            Split::Columns(parts) => parts.min(hidden / self.encoder.shape.unit()),
        }
    }

    /// Steps of a part.
    pub(super) fn steps(&self) -> usize {
        let layers = self.encoder.layers.len();
        match self.split {
            Split::Rows(_) => layers + 1,
            Split::Columns(_) => (COLUMN_STEPS.len() - 1) * layers + 1,
        }
    }

    /// The works of a step.
    fn works(&self, step: usize) -> Range<usize> {
        let (begin, end) = match self.split {
            Split::Rows(_) => ((WORKS * step + 2).saturating_sub(WORKS), WORKS * step + 2),
            Split::Columns(_) => {
                let (layer, step) =
                    (step / (COLUMN_STEPS.len() - 1), step % (COLUMN_STEPS.len() - 1));
                (WORKS * layer + COLUMN_STEPS[step], WORKS * layer + COLUMN_STEPS[step + 1])
            }
        };
        begin..end.min(WORKS * self.encoder.layers.len() + 1)
    }

    /// Queries, keys and values of a layer.
    fn asked(&self, layer: usize) -> Places {
        let padded = self.tokens.len().next_multiple_of(LANES);
        let is_ahead = matches!(self.split, Split::Rows(rows) if rows < self.tokens.len());
        let turn = if is_ahead { layer % 2 } else { 0 };
        self.memory.asked[turn].places(LANES, padded * LANES)
    }

    /// The states of all tokens: the first, or the second.
    #[inline(always)]
    fn states(&self, turn: usize) -> Places {
        self.memory.states[turn].places(self.encoder.shape.hidden, LANES)
    }

    /// Runs a step of a part.
    ///
    /// # Safety
    /// The CPU has the instructions of `I`; all steps of lower numbers have ended, of all parts, and no other thread
    /// runs this one. The memory has room.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(&self, step: usize, part: usize, bench: &mut Bench) {
        let shape = self.encoder.shape;
        let Bench { states, results, scores, quantised } = bench;
        let mut part = match self.split {
            Split::Rows(rows) => {
                let (first, end) = (part * rows, self.tokens.len().min((part + 1) * rows));
                results.reserve(shape, end - first);
                let states = self.states(0).from(first, 0).slice_mut((end - first) * shape.hidden);
                Part { first, end, column: 0, columns: 1, states, results: results.places(shape) }
            }
            Split::Columns(_) => {
                let (end, results) = (self.tokens.len(), self.memory.results.places(shape));
                states.reserve(end * shape.hidden);
                let states = &mut states.all()[..end * shape.hidden];
                Part { first: 0, end, column: part, columns: self.parts(), states, results }
            }
        };
        for work in self.works(step) {
            self.work::<I>(work, &mut part, scores, quantised);
        }
    }

    #[inline(always)]
    unsafe fn work<I: Isa>(
        &self,
        work: usize,
        part: &mut Part<'_>,
        scores: &mut Floats,
        quantised: &mut Quantised,
    ) {
        let Shape { hidden, heads, inner, .. } = self.encoder.shape;
        let (layers, number) = (&self.encoder.layers, work / WORKS);
        let [mixed, outs, grown] = part.results;
        let rows = part.end - part.first;
        match work % WORKS {
            0 if work == 0 => {
                let tokens = &self.tokens[part.first..part.end];
                look_up::<I::F>(self.encoder, tokens, part.first, part.states);
                add_and_norm::<I::F>(part.states, &[], &self.encoder.norm);
                self.keep(part, 0);
            }
            0 => self.settle::<I>(part, &layers[number - 1].second_norm, 1),
            1 => self.ask::<I>(part, number, quantised),
            2 => {
                let unit = self.encoder.shape.unit();
                let (columns, width) = (part.of(hidden / unit), hidden / heads);
                let sizes = Heads { heads, groups: width / LANES, rows: self.tokens.len() };
                let own = columns.start * unit / width..columns.end * unit / width;
                attend::<I>(sizes, own, (part.first, part.end), self.asked(number), scores, mixed);
            }
            3 => {
                let weights = &layers[number].answered;
                quantised.fill::<I>(mixed.slice(rows * hidden), hidden);
                multiply::<I>(quantised, weights, part.of(hidden / TILE), outs);
            }
            4 => self.settle::<I>(part, &layers[number].first_norm, 0),
            5 => {
                let tiles = part.of(inner / TILE);
                quantised.fill::<I>(part.states, hidden);
                multiply::<I>(quantised, &layers[number].up, tiles.clone(), grown);
                for row in 0..rows {
                    let own = grown.from(row, tiles.start * (TILE / LANES));
                    gelu::<I::F>(own.slice_mut(tiles.len() * TILE));
                }
            }
            _ => {
                quantised.fill::<I>(grown.slice(rows * inner), inner);
                multiply::<I>(quantised, &layers[number].down, part.of(hidden / TILE), outs);
            }
        }
    }

    /// Queries, keys and values of a layer from the states.
    #[inline(always)]
    unsafe fn ask<I: Isa>(&self, part: &Part<'_>, layer: usize, quantised: &mut Quantised) {
        let Shape { hidden, .. } = self.encoder.shape;
        let (weights, asked) = (&self.encoder.layers[layer].asked, self.asked(layer));
        quantised.fill::<I>(part.states, hidden);
        let unit = self.encoder.shape.unit();
        let columns = part.of(hidden / unit);
        for third in 0..3 {
            let [start, end] = [columns.start, columns.end].map(|at| third * hidden + at * unit);
            multiply::<I>(quantised, weights, start / TILE..end / TILE, asked.from(part.first, 0));
        }
        let groups = unit / LANES;
        let keys = asked.from(0, hidden / LANES + columns.start * groups);
        turn_keys::<I::F>(keys, columns.len() * groups, part.first, part.end);
    }

    /// Adds what a layer gave to the states and normalises them. Each of the parts that are columns needs all of them:
    /// it computes its own of the states of `turn`, which the others read meanwhile.
    #[inline(always)]
    unsafe fn settle<I: Isa>(&self, part: &mut Part<'_>, norm: &Norm, turn: usize) {
        let outs = part.results[1].slice(part.states.len());
        if matches!(self.split, Split::Columns(_)) {
            part.states.copy_from_slice(self.states(turn).slice(outs.len()));
        }
        add_and_norm::<I::F>(part.states, outs, norm);
        self.keep(part, 1 - turn);
    }

    /// Keeps the states that parts which are columns have computed, each for itself.
    #[inline(always)]
    unsafe fn keep(&self, part: &Part<'_>, turn: usize) {
        if matches!(self.split, Split::Columns(_)) && part.column == 0 {
            self.states(turn).slice_mut(part.states.len()).copy_from_slice(part.states);
        }
    }

    /// The vector of the text, not normalised.
    ///
    /// # Safety
    /// All steps have ended.
    pub(super) unsafe fn pool(&self, pooling: Pooling) -> Vec<f32> {
        let width = self.encoder.shape.hidden;
        let states = self.states(0).slice(self.tokens.len() * width);
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
