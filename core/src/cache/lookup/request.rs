//! The request of a lookup, and its report.
//!
//! Owns: plain data; a hit keeps its entry's key open as long as it lives. Main thread only.

use crate::cache::Tier;
use crate::cache::guard::{Finding, GuardLevel, Unseen};
use crate::cache::maxerror::SimilarityE4;
use crate::cache::miss_reason::{MissReason, Nearest};
use crate::filter::Filter;
use crate::ids::{EntryId, UnixMs};
use crate::index::SearchMode;
use crate::vector::Query;

/// A question.
#[derive(Debug)]
pub struct LookupRequest<'a> {
    /// Scope asked in.
    pub scope: &'a [u8],
    /// Context asked in.
    pub context: &'a [u8],
    /// The prompt, for the exact tier.
    pub prompt: Option<&'a [u8]>,
    /// Its vector, for the semantic tier.
    pub query: Option<&'a Query>,
    /// What that vector does not show of the prompt, where a model made it of the prompt.
    pub unseen: Option<&'a Unseen>,
    /// Least similarity of a semantic hit; the cache's own when `None`.
    pub threshold: Option<f64>,
    /// Most hits wanted.
    pub count: usize,
    /// Width of a walk over a graph; the cache's own when `None`.
    pub ef: Option<usize>,
    /// How strictly answers by meaning are judged, where that is stricter than the cache's own level.
    pub guard: GuardLevel,
    /// Condition on META.
    pub filter: Option<&'a Filter>,
    /// Oldest entry wanted.
    pub max_age_ms: Option<u64>,
    /// Whether statistics tell why nothing was found; see [`SearchRequest::counts_refused`](crate::index::SearchRequest::counts_refused).
    pub counts_refused: bool,
    /// Whether the nearest entry is wanted even where it is no hit.
    pub explain: bool,
    /// Whether the caller chooses among the hits, so that none is certain to be served.
    pub chooses: bool,
    /// The time.
    pub now: UnixMs,
}

impl LookupRequest<'_> {
    /// A question about nothing yet, without scope and conditions, as a lookup without options asks it.
    pub fn new(now: UnixMs) -> Self {
        Self {
            scope: b"",
            context: b"",
            prompt: None,
            query: None,
            unseen: None,
            threshold: None,
            count: 1,
            ef: None,
            guard: GuardLevel::Off,
            filter: None,
            max_age_ms: None,
            counts_refused: true,
            explain: false,
            chooses: false,
            now,
        }
    }
}

/// A hit, its key still open.
#[derive(Debug)]
pub struct Hit<O> {
    /// Which tier found it.
    pub tier: Tier,
    /// Cosine of question and entry; 1 for the exact tier.
    pub similarity: f64,
    /// Digest of its scope, context and prompt, where the look-up had it at hand.
    pub id: Option<EntryId>,
    /// The entry.
    pub entry: O,
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct LookupReport<O> {
    /// Best first.
    pub hits: Vec<Hit<O>>,
    /// Why there was none.
    pub reason: Option<MissReason>,
    /// Similarity of the nearest entry, where a search by meaning found one.
    pub nearest_similarity: Option<f64>,
    /// That entry, when an explanation was asked for.
    pub nearest: Option<Nearest>,
    /// The guard that refused the nearest of those that guards refused.
    pub guard: Option<Box<Finding>>,
    /// The threshold applied.
    pub threshold: f64,
    /// Entries of the partition.
    pub candidates: usize,
    /// How the last search went about it; `None` when there was none.
    pub mode: Option<SearchMode>,
    /// Distances computed.
    pub scanned: usize,
    /// Entries near enough that FILTER refused.
    pub filtered: usize,
    /// Entries whose filter could be judged only after opening them.
    pub judged_by_entry: usize,
    /// Entries opened.
    pub opened: usize,
    /// In a cache with MAXERROR whether what is served by meaning is so by a proven threshold.
    pub verified: Option<bool>,
    /// In a cache with MAXERROR the first candidate of a near lookup.
    pub near: Option<Box<Near<O>>>,
}

/// The first candidate of a near lookup: one by meaning, near enough to be told right from wrong.
#[derive(Debug)]
pub struct Near<O> {
    /// Which entry it is.
    pub id: EntryId,
    /// Similarity that is held against thresholds.
    pub similarity: SimilarityE4,
    /// The candidate, where it is not served.
    pub candidate: Option<Hit<O>>,
}

impl<O> LookupReport<O> {
    /// A report without any finding.
    pub fn nothing(threshold: f64) -> Self {
        Self {
            hits: Vec::new(),
            reason: None,
            nearest_similarity: None,
            nearest: None,
            guard: None,
            threshold,
            candidates: 0,
            mode: None,
            scanned: 0,
            filtered: 0,
            judged_by_entry: 0,
            opened: 0,
            verified: None,
            near: None,
        }
    }
}
