//! The k best of many: a bounded heap of (score, row) packed into one word each.
//!
//! Owns: the order of candidates. Higher score first; equal scores by lower row, so that a scan in
//! any order gives one answer. Any thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::marker::PhantomData;

/// Collects the best `limit` candidates.
#[derive(Debug)]
pub(crate) struct Top<I> {
    limit: usize,
    heap: BinaryHeap<Reverse<u64>>,
    id: PhantomData<I>,
}

/// A float's bits as an integer of the same order (IEEE 754 totalOrder on finite numbers).
fn ordered(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn unordered(order: u32) -> f32 {
    f32::from_bits(if order >> 31 == 1 { order & !(1 << 31) } else { !order })
}

/// A score and a row as one word: the better is the larger, of equal scores the lower row.
#[inline(always)]
pub(crate) fn pack(score: f32, row: u32) -> u64 {
    u64::from(ordered(score)) << 32 | u64::from(!row)
}

#[inline(always)]
pub(crate) fn row_of(packed: u64) -> u32 {
    !(packed as u32)
}

#[inline(always)]
pub(crate) fn score_of(packed: u64) -> f32 {
    unordered((packed >> 32) as u32)
}

impl<I: From<u32>> Top<I> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::with_capacity(limit.min(1 << 12) + 1), id: PhantomData }
    }

    /// Whether a candidate of this score would be kept.
    pub(crate) fn admits(&self, score: f32) -> bool {
        self.heap.len() < self.limit
            || self.heap.peek().is_some_and(|worst| ordered(score) >= (worst.0 >> 32) as u32)
    }

    pub(crate) fn push(&mut self, score: f32, row: u32) {
        let packed = pack(score, row);
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(packed));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && packed > worst.0
        {
            *worst = Reverse(packed);
        }
    }

    /// The candidates with their scores, best first.
    pub(crate) fn into_sorted(self) -> impl Iterator<Item = (I, f32)> {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|Reverse(packed)| (I::from(row_of(packed)), score_of(packed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_and_breaks_ties_by_row() {
        let mut top = Top::<u32>::new(3);
        for (score, row) in [(0.5, 9), (-0.5, 1), (0.5, 2), (0.9, 7), (0.5, 4), (-1.0, 0)] {
            top.push(score, row);
        }
        let rows: Vec<_> = top.into_sorted().collect();
        assert_eq!(rows, [(7, 0.9), (2, 0.5), (4, 0.5)]);
    }

    #[test]
    fn order_of_bits_is_order_of_floats() {
        let scores = [-1.0, -0.25, -0.0, 0.0, 1e-30, 0.25, 1.0];
        for pair in scores.windows(2) {
            assert!(ordered(pair[0]) <= ordered(pair[1]), "{pair:?}");
        }
        for score in scores {
            assert_eq!(unordered(ordered(score)).to_bits(), score.to_bits());
        }
    }
}
