//! Exhaustive search over a partition's int8 codes: exact up to quantisation, no build, and the
//! oracle of every faster index.
//!
//! Owns: the scan. Main thread, or any thread that holds the index unchanged.

use super::Index;
use super::filter::{Filter, Verdict};
use super::top::{Candidate, Top};
use crate::distance::{kernels, prefetch_read};
use crate::ids::{PartitionKey, SlotId, UnixMs};
use crate::vector::quantise::approx_similarity;

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
    pub filtered: usize,
    /// Rows named although only the opened entry can tell whether the filter accepts them.
    pub undecided: usize,
    /// Rows skipped because they were due or hidden although they were near enough.
    pub invisible: usize,
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
                result.invisible += 1;
                continue;
            }
            let verdict = request.filter.map(|filter| filter.matches_record(slot.record.as_ref()));
            if verdict == Some(Verdict::No) {
                result.filtered += 1;
                continue;
            }
            result.undecided += usize::from(verdict == Some(Verdict::NeedsEntry));
            top.push(score, row);
        }
        result.candidates = top.into_sorted();
        result
    }
}
