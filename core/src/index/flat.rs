//! Exhaustive search over a partition's int8 codes: exact up to quantisation, no build, and the
//! oracle of every faster index.
//!
//! Owns: the scan. Main thread, or any thread that holds the index unchanged.

use super::Index;
use super::filter::{Filter, Verdict};
use super::top::{Candidate, Top};
use crate::distance::{kernels, prefetch_read};
use crate::ids::{PartitionKey, SlotId, UnixMs};
use crate::vector::quantise::{approx_similarity, error_bound};

/// How many rows ahead of the current one are fetched: about the memory latency over the time of
/// one distance.
const PREFETCH_ROWS: usize = 6;

/// A search for the nearest entries of one partition.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    /// int8 code of the normalised query.
    pub code: &'a [i8],
    /// Its scale.
    pub scale: f32,
    /// Where to search.
    pub partition: PartitionKey,
    /// Most candidates wanted.
    pub limit: usize,
    /// Entries due at or before this are skipped.
    pub now: UnixMs,
    /// Entries that fail it are skipped; one that cannot be judged from its record is kept, for the
    /// caller to judge when it has opened the entry.
    pub filter: Option<&'a Filter>,
}

/// What a search found, and what it cost.
#[derive(Debug, Default, PartialEq)]
pub struct SearchResult {
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// Distances computed.
    pub scanned: usize,
    /// Rows that a filter refused although they were near enough.
    pub filtered: Refusals,
    /// Rows named although only the opened entry can tell whether the filter accepts them.
    pub undecided: usize,
    /// Rows skipped because they were due or hidden although they were near enough.
    pub invisible: Refusals,
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

fn most_similar(approx: f32, query_scale: f32, scale: f32) -> f64 {
    f64::from(approx + error_bound(query_scale, scale))
}

impl Index {
    /// The entries whose codes are nearest to the query's, at most `limit`.
    pub fn search(&self, request: &SearchRequest<'_>) -> SearchResult {
        let mut result = SearchResult::default();
        let Some(arena) = self.arena.as_ref().filter(|arena| arena.dim() == request.code.len())
        else {
            return result;
        };
        let rows = self.partitions.rows(&self.slots, request.partition);
        let dot = kernels().dot_i8;
        let mut top = Top::new(request.limit);
        for (place, &row) in rows.iter().enumerate() {
            if let Some(ahead) = rows.get(place + PREFETCH_ROWS).and_then(|&row| arena.code(row)) {
                prefetch_read(ahead);
            }
            let (Some(code), Some(scale)) = (arena.code(row), arena.scale(row)) else { continue };
            result.scanned += 1;
            let score = approx_similarity(dot(request.code, code), request.scale, scale);
            if !top.admits(score) {
                continue;
            }
            let Some(slot) = self.slots.get(SlotId(row)) else { continue };
            if !slot.is_visible(request.now) {
                result.invisible.add(most_similar(score, request.scale, scale));
                continue;
            }
            let verdict = request.filter.map(|filter| filter.matches_record(slot.record.as_ref()));
            if verdict == Some(Verdict::No) {
                result.filtered.add(most_similar(score, request.scale, scale));
                continue;
            }
            result.undecided += usize::from(verdict == Some(Verdict::NeedsEntry));
            top.push(score, row);
        }
        result.candidates = top.into_sorted();
        result
    }
}
