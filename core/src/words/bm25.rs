//! How much a word counts in a text.
//!
//! Owns: BM25 (Robertson and Zaragoza 2009) with k1 = 2, b = 0.75. The inverse document frequency is
//! ln(1 + (N - n + 0.5) / (n + 0.5)) for n of N texts, so that it is never negative. Any thread.

use super::postings::Bound;

const K1: f64 = 2.0;
const B: f64 = 0.75;

/// A text that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Its row.
    pub row: u32,
    /// Its score.
    pub score: f64,
}

/// How words are weighed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighing {
    /// Words of a text on average.
    pub(super) mean_length: f64,
}

impl Weighing {
    /// What a word that weighs so much adds to a text that has it so often.
    #[inline]
    pub(super) fn score(self, weight: f64, count: u32, length: u32) -> f64 {
        let count = f64::from(count);
        let norm = K1 * (1.0 - B + B * f64::from(length) / self.mean_length);
        weight * (count * (K1 + 1.0) / (count + norm))
    }

    /// The same in single precision, for a word that weighs so much.
    pub(super) fn about(self, weight: f64) -> About {
        About {
            most: (weight * (K1 + 1.0)) as f32,
            norm: (K1 * (1.0 - B)) as f32,
            norm_of_word: (K1 * B / self.mean_length) as f32,
        }
    }

    /// The most that it adds to texts within a bound.
    pub(super) fn bound(self, weight: f64, bound: Bound) -> f64 {
        self.score(weight, bound.count, bound.length)
    }
}

/// What a word adds to texts, about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    most: f32,
    norm: f32,
    norm_of_word: f32,
}

impl About {
    #[inline]
    pub(super) fn score(self, count: u32, length: u32) -> f32 {
        let (count, length) = (count as f32, length as f32);
        self.most * count / (count + self.norm + self.norm_of_word * length)
    }
}

/// The inverse document frequency of a word that is in so many of all texts.
pub(super) fn idf(rows: f64, live: f64) -> f64 {
    (1.0 + (live - rows.min(live) + 0.5) / (rows + 0.5)).ln()
}
