//! The first dimensions of a vector at unit length: what an index with MATRYOSHKA compares, where models are trained so
//! that these carry most of the meaning.
//!
//! Owns: the code of such a prefix, and what its similarity says of the whole vectors' similarity. Codes are scalar and
//! correctly rounded, as all are. Any thread.
//!
//! Of two unit vectors let the prefixes have the lengths `p` and `q`, and the cosine `c`. The cosine of the whole vectors
//! is `pqc` and what the rest adds, which is at most `sqrt(1 - p²) sqrt(1 - q²)`. Whatever `q` is, that is at most
//! `sqrt(p²c² + 1 - p²)`, or `sqrt(1 - p²)` where `c` is negative. So what the prefix of a row may be worth is known
//! without its length, and who must not miss anything knows which rows need no look at the whole vector.

use super::normalise::normalise_in_place;
use super::quantise::{Code, approx_similarity, error_bound, quantise};
use crate::distance::kernels;

/// The code of the first dimensions of a vector, brought to unit length; `None` where they are zeros.
pub fn prefix_code(first: &[f32]) -> Option<Code> {
    let mut first = first.to_vec();
    normalise_in_place(&mut first).ok()?;
    Some(quantise(&first))
}

/// The first dimensions of a query.
#[derive(Debug, Clone)]
pub struct Prefix {
    code: Code,
    /// Square of their length within the whole, which has length 1.
    share: f64,
}

impl Prefix {
    /// Of the first dimensions of a vector of unit length; `None` where they are zeros.
    pub fn of(first: &[f32]) -> Option<Self> {
        let share = first.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        Some(Self { code: prefix_code(first)?, share: share.min(1.0) })
    }

    /// What the index is searched with.
    pub fn code(&self) -> &[i8] {
        &self.code.codes
    }

    /// Its scale.
    pub fn scale(&self) -> f32 {
        self.code.scale
    }

    /// The most that the whole vectors' similarity may be where that of the prefixes is `similarity`.
    pub fn most_similar(&self, similarity: f64) -> f64 {
        let similarity = similarity.clamp(0.0, 1.0);
        (self.share * similarity * similarity + 1.0 - self.share).sqrt()
    }

    /// Whether the whole vector behind the code of a prefix may have a similarity of `least`, by twice the usual bound of
    /// codes, since nobody looks again at what this refuses. Another dimension never does.
    pub fn may_reach(&self, codes: &[i8], scale: f32, least: f64) -> bool {
        if codes.len() != self.code().len() {
            return false;
        }
        let dot = (kernels().dot_i8)(self.code(), codes);
        let approx = approx_similarity(dot, self.scale(), scale);
        let most = approx + 2.0 * error_bound(self.scale(), scale);
        self.most_similar(most.into()) >= least
    }
}
