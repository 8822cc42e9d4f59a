//! What a search is asked, and what it answers.
//!
//! Owns: the request and the result, which every part of a search shares. Any thread.

use crate::filter::Filter;
use crate::ids::{PartitionKey, Seq, SlotId, UnixMs};
use crate::work::Steps;

/// An entry that a search names, with the similarity that the index knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Where it is.
    pub slot: SlotId,
    /// Cosine by what the index keeps, in [-1, 1] give or take `bound`.
    pub approx: f32,
    /// How far that may lie from the cosine of the vectors.
    pub bound: f32,
}

/// A search for the nearest entries of one partition.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    /// int8 code of the normalised query.
    pub code: &'a [i8],
    /// Its scale.
    pub scale: f32,
    /// What rounding left of it (`Query::rest`): with it the rows about to be named are compared once more, and more
    /// exactly. Empty where codes are enough.
    pub rest: &'a [i8],
    /// Where to search.
    pub partition: PartitionKey,
    /// Most candidates wanted.
    pub limit: usize,
    /// Rows a walk finds to answer the best of; the index's own setting when `None`. At least `limit`
    /// are found.
    pub ef: Option<usize>,
    /// Entries due at or before this are skipped.
    pub now: UnixMs,
    /// Entries stored before this are invalidated, and skipped.
    pub min_seq: Seq,
    /// Entries that fail it are skipped; one that cannot be judged from its record is kept, for the
    /// caller to judge when it has opened the entry.
    pub filter: Option<&'a Filter>,
    /// Whether it matters how many rows the filter refused. Where it does not, a filter that is asked
    /// for again is answered from the rows that passed it before.
    pub counts_refused: bool,
}

/// How a search went about it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    /// Every row was compared.
    #[default]
    Flat,
    /// A graph was walked.
    Graph,
    /// A graph was walked, too few rows passed, and every row was judged instead.
    GraphThenFlat,
}

impl SearchMode {
    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Graph => "graph",
            Self::GraphThenFlat => "graph-then-flat",
        }
    }
}

/// What a search found, and what it cost.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct SearchResult {
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// How they were found.
    pub mode: SearchMode,
    /// Distances computed.
    pub scanned: usize,
    /// Rows that a filter refused although they were near enough.
    pub filtered: Refusals,
    /// Rows named although only the opened entry can tell whether the filter accepts them.
    pub undecided: usize,
    /// Rows skipped because they were due or hidden although they were near enough.
    pub invisible: Refusals,
    /// Rows that a filter could not judge in as many steps as one entry may take.
    pub too_long: usize,
    /// Rows compared and terms judged.
    pub steps: Steps,
}

/// Rows that were near enough and refused for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Refusals {
    /// How many.
    pub count: usize,
    /// The similarity of the nearest: exact where its entry was opened, else the most that its code
    /// allows.
    pub nearest: Option<f64>,
}

impl Refusals {
    /// Counts one.
    pub fn add(&mut self, similarity: f64) {
        self.count += 1;
        self.nearest = Some(self.nearest.map_or(similarity, |nearest| nearest.max(similarity)));
    }

    /// Counts those of another step of the same lookup.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.nearest = self.nearest.into_iter().chain(other.nearest).reduce(f64::max);
    }
}

/// What entries have to be like to be found by their words.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// Entries due at or before this are not found.
    pub now: UnixMs,
    /// Nor such as were stored before this.
    pub min_seq: Seq,
    /// Nor such as fail this; one that cannot be judged from its record is found, for the caller to judge.
    pub filter: Option<&'a Filter>,
}
