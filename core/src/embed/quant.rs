//! Weights in 8 bits: how they lie in memory, and how they come from f32.
//!
//! Owns: matrices and tables. Quantisation is scalar and correctly rounded, so that equal files give equal weights
//! on every CPU. Never written after loading.

use super::kernel::{LANES, Line, QUAD, TILE};

/// The largest magnitude of a quantised weight.
const LEVELS: f32 = 127.0;

/// One row in 8 bits; returns its scale.
fn quantise(row: &[f32], mut keep: impl FnMut(usize, i8)) -> f32 {
    let largest = row.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    // A row of zeros, or of numbers whose scale would be none.
    if largest < 1e-30 {
        return 0.0;
    }
    let scale = largest / LEVELS;
    for (at, value) in row.iter().enumerate() {
        keep(at, (value / scale).round_ties_even().clamp(-LEVELS, LEVELS) as i8);
    }
    scale
}

/// A linear layer. Lines of 16 outputs by 4 inputs, the lines of 16 outputs one after the other: what `dpbusd`
/// and `madd` want, and what any loop can read in order.
#[derive(Debug)]
pub(super) struct Matrix {
    inputs: usize,
    outputs: usize,
    lines: Vec<Line>,
    scales: Vec<f32>,
    /// Sums of the weights of each output, which the zero of the activations is taken times.
    totals: Vec<i32>,
    bias: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros; `inputs` is a multiple of `QUAD`, `outputs` of `TILE`.
    pub(super) fn new(inputs: usize, outputs: usize) -> Self {
        assert!(inputs.is_multiple_of(QUAD) && outputs.is_multiple_of(TILE));
        Self {
            inputs,
            outputs,
            lines: vec![Line([0; LANES * QUAD]); inputs / QUAD * outputs / LANES],
            scales: vec![0.0; outputs],
            totals: vec![0; outputs],
            bias: vec![0.0; outputs],
        }
    }

    /// Sets the weights of one output.
    pub(super) fn set_row(&mut self, output: usize, row: &[f32]) {
        assert!(output < self.outputs && row.len() == self.inputs);
        let steps = self.inputs / QUAD;
        let lines = &mut self.lines[output / LANES * steps..][..steps];
        let (lane, mut total) = (output % LANES, 0);
        self.scales[output] = quantise(row, |input, weight| {
            lines[input / QUAD].0[lane * QUAD + input % QUAD] = weight;
            total += i32::from(weight);
        });
        self.totals[output] = total;
    }

    /// Sets the bias of outputs from `first` on.
    pub(super) fn set_bias(&mut self, first: usize, bias: &[f32]) {
        self.bias[first..first + bias.len()].copy_from_slice(bias);
    }

    #[inline(always)]
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// The lines of the two halves of a tile.
    #[inline(always)]
    pub(super) fn tile(&self, tile: usize) -> (&[Line], &[Line]) {
        let steps = self.inputs / QUAD;
        self.lines[2 * tile * steps..][..2 * steps].split_at(steps)
    }

    #[inline(always)]
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    #[inline(always)]
    pub(super) fn totals(&self) -> &[i32] {
        &self.totals
    }

    #[inline(always)]
    pub(super) fn bias(&self) -> &[f32] {
        &self.bias
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + 12 * self.outputs
    }
}

/// Vectors by number, in 8 bits with a scale each.
#[derive(Debug)]
pub(super) struct Table {
    width: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Table {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        Self { width, codes: vec![0; rows * width], scales: vec![0.0; rows] }
    }

    pub(super) fn set_row(&mut self, row: usize, values: &[f32]) {
        let codes = &mut self.codes[row * self.width..][..self.width];
        self.scales[row] = quantise(values, |at, code| codes[at] = code);
    }

    /// The codes and the scale of a row.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> (&[i8], f32) {
        (&self.codes[row * self.width..][..self.width], self.scales[row])
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.codes.capacity() + 4 * self.scales.capacity()
    }
}
