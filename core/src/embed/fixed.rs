//! A static model: a vector for each piece, and the mean of those of a text (model2vec: potion and its like).
//!
//! Owns: the table and the mean. Scalar, in the order of the tokens: equal bits on every CPU, and about 2 µs for a
//! question. Any thread; never written after loading.

use super::quant::Table;

/// The vectors.
#[derive(Debug)]
pub(super) struct Static {
    /// Each times its weight.
    pub(super) table: Table,
    pub(super) width: usize,
    /// A piece that counts for nothing.
    pub(super) unknown: u32,
}

impl Static {
    /// The mean of the vectors of pieces, zero where there is none.
    pub(super) fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let mut sum = vec![0.0_f32; self.width];
        let mut count = 0.0_f32;
        for &token in tokens.iter().filter(|token| **token != self.unknown) {
            let (codes, scale) = self.table.row(token as usize);
            for (sum, &code) in sum.iter_mut().zip(codes) {
                *sum += f32::from(code) * scale;
            }
            count += 1.0;
        }
        if count > 0.0 {
            sum.iter_mut().for_each(|value| *value /= count);
        }
        sum
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.table.allocated_bytes()
    }
}
