//! The lowest similarity that a lookup serves, and the lowest that it considers.
//!
//! Owns: how THRESHOLD, MAXERROR and the request's own threshold combine. Main thread only.

use super::request::LookupRequest;
use crate::cache::Cache;
use crate::cache::maxerror::SimilarityE4;

/// From which similarity on a lookup serves by meaning, and from which on it looks at candidates.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// Least similarity served; infinite where nothing is.
    pub threshold: f64,
    /// Least similarity of a candidate: the same, but lower in a cache with MAXERROR.
    pub floor: f64,
    /// In a cache with MAXERROR whether the threshold is proven.
    pub verified: Option<bool>,
    /// The threshold in a cache like it without MAXERROR.
    pub usual: f64,
    /// Whether the nearest entry is to be known.
    pub keeps_nearest: bool,
}

impl Bar {
    pub fn of(cache: &Cache, request: &LookupRequest<'_>) -> Self {
        let settings = &cache.settings;
        let usual = request.threshold.unwrap_or(settings.threshold);
        let keeps_nearest = request.explain || settings.near_misses > 0;
        let plain = Self { threshold: usual, floor: usual, verified: None, usual, keeps_nearest };
        let Some(audit) = cache.audit() else { return plain };
        let least = audit.least().as_f64();
        let threshold = match audit.serves_from(settings.threshold) {
            // A lookup can only be stricter.
            Some(from) => request.threshold.map_or(from, |asked| asked.max(from)),
            None => f64::INFINITY,
        };
        let verified = Some(audit.is_proven());
        Self { threshold, floor: least.min(threshold), verified, usual, keeps_nearest }
    }

    /// Whether so near an entry is served.
    pub fn serves(&self, similarity: f64) -> bool {
        match self.verified {
            // Evidence counts in ten-thousandths: what is served is what a label would count for.
            Some(_) => {
                self.threshold.is_finite()
                    && similarity + f64::EPSILON >= self.threshold
                    && SimilarityE4::of(similarity) >= SimilarityE4::of(self.threshold)
            }
            None => similarity >= self.threshold,
        }
    }
}
