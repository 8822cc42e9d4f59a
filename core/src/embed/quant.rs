//! Weights in 8 bits: how they lie in memory, and how they come from f32.
//!
//! Owns: matrices and tables. Quantisation is scalar and correctly rounded, so that equal files give equal weights
//! on every CPU. Never written after loading.

use super::kernel::{Beyond, LANES, Line, QUAD, TILE};

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
    clipped: Option<Clipped>,
}

/// What weights lack that were clipped.
#[derive(Debug)]
struct Clipped {
    /// Where those of each tile begin, and where the last end.
    starts: Vec<u32>,
    beyond: Vec<Beyond>,
}

/// The most that two weights of one sign may have together, so that their products with bytes fit into 16 bits.
const PAIR_MAX: i32 = 128;
/// Of so many pairs one at most is clipped: where more would have to be, none is.
const PAIRS_A_CLIP: usize = 8;

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
            clipped: None,
        }
    }

    /// Clips pairs of weights whose products `maddubs` could not add in 16 bits, and keeps what they lack. Where that
    /// is much, which no trained weights were seen to need, they stay whole.
    pub(super) fn clip(&mut self) {
        let (steps, most) = (self.inputs / QUAD, self.inputs * self.outputs / 2 / PAIRS_A_CLIP);
        let (mut starts, mut beyond) = (vec![0], Vec::new());
        for tile in self.lines.chunks_exact(2 * steps) {
            let first = beyond.len();
            for (at, line) in tile.iter().enumerate() {
                for (place, pair) in line.0.as_chunks::<2>().0.iter().enumerate() {
                    let output = at / steps * LANES + 2 * place / QUAD;
                    let input = at % steps * QUAD + 2 * place % QUAD;
                    if let Some((of_pair, weight)) = too_much(*pair) {
                        let (input, output) = ((input + of_pair) as u16, output as u16);
                        beyond.push(Beyond { weight, input, output });
                    }
                }
            }
            if beyond.len() > most {
                return;
            }
            // In the order of inputs: those of one output, which are added to one sum, are apart.
            beyond[first..].sort_unstable_by_key(|part| (part.input, part.output));
            starts.push(beyond.len() as u32);
        }
        beyond.shrink_to_fit();
        for (tile, range) in starts.windows(2).enumerate() {
            for part in &beyond[range[0] as usize..range[1] as usize] {
                let (output, input) = (usize::from(part.output), usize::from(part.input));
                let line = (2 * tile + output / LANES) * steps + input / QUAD;
                let place = output % LANES * QUAD + input % QUAD;
                self.lines[line].0[place] -= part.weight as i8;
            }
        }
        self.clipped = Some(Clipped { starts, beyond });
    }

    /// What the weights of a tile lack; `None` where all are whole.
    #[inline(always)]
    pub(super) fn beyond(&self, tile: usize) -> Option<&[Beyond]> {
        let Clipped { starts, beyond } = self.clipped.as_ref()?;
        Some(&beyond[starts[tile] as usize..starts[tile + 1] as usize])
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
        let clipped = self.clipped.as_ref().map_or(0, |Clipped { starts, beyond }| {
            starts.capacity() * size_of::<u32>() + beyond.capacity() * size_of::<Beyond>()
        });
        self.lines.capacity() * size_of::<Line>() + 12 * self.outputs + clipped
    }
}

/// Of two weights, which has too much beside the other, and how much that is.
fn too_much(pair: [i8; 2]) -> Option<(usize, i32)> {
    let [one, other] = pair.map(i32::from);
    let over = (one + other).abs() - PAIR_MAX;
    // Weights of two signs have less together than one alone.
    let of_pair = usize::from(other.abs() > one.abs());
    (over > 0).then(|| (of_pair, over * (one + other).signum()))
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
