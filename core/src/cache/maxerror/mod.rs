//! MAXERROR: the promise that at most a given share of the answers served by meaning is wrong.
//!
//! Owns: the evidence a cache has gathered from labels, which threshold that evidence proves, the alarm
//! when answers turn out worse than promised. All arithmetic on evidence is on integers, so that a
//! replica that replays the same labels uses the same threshold on any CPU. Knows no clock, no
//! randomness, no entries: similarities, labels and nonces are passed in. Main thread only.
//!
//! Why it holds: at a threshold whose share of wrong answers is at least d, the exponential of each bet
//! is a non-negative supermartingale of mean at most 1, so the chance that it ever reaches `1/x` is at most
//! `x` (Ville's inequality). In each chain of thresholds only the first bad one can err; there are two
//! bets and three chains, hence the bar ln(6/(1-confidence)).

mod audit;
mod bets;
mod evidence;
mod ticket;

pub use audit::{Audit, AuditCounts, Report, Standing};
pub use bets::{Bets, MAX_ERROR_MAX_PPM};
pub use evidence::{Evidence, LabelEffect, Point, Starts};
pub use ticket::{Coin, Ticket, TicketError, TicketSecret};

use crate::error::{Error, Result};

/// A similarity in ten-thousandths, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SimilarityE4(pub u16);

impl SimilarityE4 {
    /// Of a cosine; below 0 counts as 0.
    pub fn of(similarity: f64) -> Self {
        // A decimal such as 0.57 is a little less in binary.
        Self((similarity.clamp(0.0, 1.0) * 10_000.0 + 1e-9).floor() as u16)
    }

    /// As a cosine.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

/// What a cache serves by meaning before any threshold is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cold {
    /// Nothing: exact hits only.
    #[default]
    Exact,
    /// What its THRESHOLD lets through, marked as unverified.
    Static,
}

impl Cold {
    /// Every choice, in the order of their bytes.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Static];

    /// As written in arguments and replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "EXACT",
            Self::Static => "STATIC",
        }
    }
}

/// What the user promises, or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxError {
    /// Largest share of wrong answers among those served by meaning, in millionths; 0 for no promise.
    pub max_error_ppm: u32,
    /// With which confidence, in millionths.
    pub confidence_ppm: u32,
    /// Which share of near lookups is audited once a threshold is proven, in millionths.
    pub audit_ppm: u32,
    /// What is served before that.
    pub cold: Cold,
    /// Least similarity of a near lookup; 0.20 below THRESHOLD when `None`.
    pub min_similarity: Option<SimilarityE4>,
}

impl Default for MaxError {
    fn default() -> Self {
        Self {
            max_error_ppm: 0,
            confidence_ppm: 950_000,
            audit_ppm: 20_000,
            cold: Cold::Exact,
            min_similarity: None,
        }
    }
}

/// By how much MINSIM lies below THRESHOLD unless said otherwise.
const MIN_SIMILARITY_BELOW_THRESHOLD: f64 = 0.20;

fn out_of_range(what: &str, min: f64, max: f64) -> Error {
    Error::err(format!("{what} must be between {min} and {max}"))
}

impl MaxError {
    /// Whether a promise is made.
    pub fn is_on(&self) -> bool {
        self.max_error_ppm > 0
    }

    /// Refuses values past their bounds.
    pub fn check(&self) -> Result<()> {
        if self.max_error_ppm > MAX_ERROR_MAX_PPM {
            return Err(out_of_range("MAXERROR", 0.0, 0.5));
        }
        if !(500_000..=999_999).contains(&self.confidence_ppm) {
            return Err(out_of_range("CONFIDENCE", 0.5, 0.999999));
        }
        if self.audit_ppm > 1_000_000 {
            return Err(out_of_range("AUDIT", 0.0, 1.0));
        }
        if self.min_similarity.is_some_and(|least| least.0 > evidence::STRICTEST_E4) {
            return Err(out_of_range("MINSIM", 0.0, 0.99));
        }
        Ok(())
    }

    /// Least similarity of a near lookup in a cache of this THRESHOLD.
    pub fn least_similarity(&self, threshold: f64) -> SimilarityE4 {
        let below = || SimilarityE4::of((threshold - MIN_SIMILARITY_BELOW_THRESHOLD).min(0.99));
        self.min_similarity.unwrap_or_else(below)
    }
}
