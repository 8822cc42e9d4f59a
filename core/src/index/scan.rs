//! What a search reads of an index, and how it goes through it: a walk, or rows one after the other.
//!
//! Owns: the comparison of rows and the judgement which of them may be found. Must not know: where a search runs, or
//! which way costs least; `search` plans. Any thread.

use super::hnsw::{Codes, Judge, Scratch, Target, Walk};
use super::request::{Candidate, Refusals, SearchMode, SearchRequest, SearchResult};
use super::row_state::{Head, RowState, RowStates};
use super::tags::Tags;
use crate::filter::{Filter, Verdict};
use crate::ids::{PartitionKey, Seq, SlotId, UnixMs};
use crate::top::{Top, row_of, score_of};
use crate::vector::links::SharedLinks;
use crate::vector::quantise::error_bound;

/// How many rows ahead of the current one are fetched: about the memory latency over the time of
/// one distance.
const PREFETCH_ROWS: usize = 6;

/// Rows of a partition that are listed at once.
const LISTED_ROWS: usize = 1_024;

/// What a search reads; of an index, or of the picture that a search on another thread took along.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) states: &'a RowStates,
    pub(super) codes: Codes<'a>,
    pub(super) links: &'a SharedLinks,
    /// One past the highest row.
    pub(super) end: u32,
    /// What came in at or after this place of the store order is not part of the view.
    pub(super) seq_end: Seq,
    /// Where some tag is invalidated. The main thread's alone: elsewhere who opens the entry finds out.
    pub(super) tags: Option<&'a Tags>,
}

/// How a search goes about it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plan<'a> {
    /// Walk a graph on level 0 from `Scratch::points`, and compare the rows that are in none.
    Walk { ef: usize, most: usize, tail: &'a [u32] },
    /// Compare rows, and judge those that are near enough.
    Compare(Span<'a>),
    /// Judge rows, and compare those that pass.
    Judge(Span<'a>),
}

/// Which rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span<'a> {
    /// These.
    Listed(&'a [u32]),
    /// All of the partition, for who has no list of them.
    Partition,
}

/// Judges rows by the request, and counts what it refuses.
struct Visible<'a> {
    view: View<'a>,
    scale: f32,
    now: UnixMs,
    min_seq: Seq,
    filter: Option<&'a Filter>,
    partition: PartitionKey,
    filtered: Refusals,
    undecided: usize,
    invisible: Refusals,
}

/// What a row is to a request.
enum Standing {
    /// No entry: nobody asks why it was not found.
    Gone,
    Invisible,
    Filtered,
    Undecided,
    Accepted,
}

impl<'a> Visible<'a> {
    fn new(view: View<'a>, request: &SearchRequest<'a>) -> Self {
        let SearchRequest { now, min_seq, filter, scale, partition, .. } = *request;
        let (filtered, undecided, invisible) = Default::default();
        Self { view, scale, now, min_seq, filter, partition, filtered, undecided, invisible }
    }

    #[inline(always)]
    fn standing(&self, row: u32) -> Standing {
        let Some(state) = self.view.states.get(row) else { return Standing::Gone };
        let head = state.head();
        let is_of_view = head.has(Head::OCCUPIED) && head.seq() < self.view.seq_end;
        if !is_of_view || state.partition() != self.partition {
            return Standing::Gone;
        }
        let is_visible = !head.has(Head::HIDDEN)
            && !state.expire_at().is_past(self.now)
            && head.seq() >= self.min_seq
            && !self.is_gone_by_tag(row, head);
        let verdict = match self.filter {
            Some(filter) if is_visible => filter.matches_record(self.view.states.record(row)),
            _ => Verdict::Yes,
        };
        match verdict {
            _ if !state.is_still(head) => Standing::Gone,
            _ if !is_visible => Standing::Invisible,
            Verdict::No => Standing::Filtered,
            Verdict::NeedsEntry => Standing::Undecided,
            Verdict::Yes => Standing::Accepted,
        }
    }

    #[inline(always)]
    fn is_gone_by_tag(&self, row: u32, head: Head) -> bool {
        let tags = self.view.tags.filter(|_| head.has(Head::TAGGED));
        tags.is_some_and(|tags| tags.is_gone(row, head.seq()))
    }

    /// The most that the exact similarity of a row may be.
    fn most_similar(&self, row: u32, score: f32) -> f64 {
        f64::from(score + error_bound(self.scale, self.view.codes.target(row).scale))
    }
}

impl Judge for Visible<'_> {
    #[inline(always)]
    fn prefetch(&self, row: u32) {
        self.view.states.prefetch(row);
    }

    #[inline(always)]
    fn accepts(&mut self, row: u32, score: f32) -> bool {
        match self.standing(row) {
            Standing::Gone => return false,
            Standing::Invisible => self.invisible.add(self.most_similar(row, score)),
            Standing::Filtered => self.filtered.add(self.most_similar(row, score)),
            Standing::Undecided => {
                self.undecided += 1;
                return true;
            }
            Standing::Accepted => return true,
        }
        false
    }
}

impl<'a> View<'a> {
    /// Carries out a plan and adds what it finds to `result`. Answers whether it came to its end: a walk
    /// among too few rows that pass gives up.
    pub(super) fn search(
        self,
        request: &SearchRequest<'a>,
        plan: Plan<'_>,
        scratch: &mut Scratch,
        result: &mut SearchResult,
    ) -> bool {
        let (codes, target) = (self.codes, request.target());
        let mut judge = Visible::new(self, request);
        let mut top = Top::new(request.limit);
        let mut ended = true;
        match plan {
            Plan::Walk { ef, most, tail } => {
                let rows = self.end as usize;
                let walk = Walk { links: self.links, codes, target, level: 0, ef, rows, most };
                ended = scratch.walk(&walk, &mut judge);
                result.mode = if ended { SearchMode::Graph } else { SearchMode::GraphThenFlat };
                result.scanned += std::mem::take(&mut scratch.distances);
                if ended {
                    for &point in scratch.points.iter().take(request.limit) {
                        top.push(score_of(point), row_of(point));
                    }
                    // What was linked since the tail was listed, the walk may have met.
                    let mut unseen = std::mem::take(&mut scratch.rows);
                    for part in tail.chunks(LISTED_ROWS) {
                        unseen.clear();
                        unseen.extend(part.iter().filter(|&&row| !scratch.has_seen(row)));
                        result.scanned += scan(&codes, &target, &unseen, &mut judge, &mut top);
                    }
                    scratch.rows = unseen;
                } else {
                    // Of those it named, the judge of all rows will name the near ones again.
                    judge.undecided = 0;
                }
            }
            Plan::Compare(span) | Plan::Judge(span) => {
                let judges_first = matches!(plan, Plan::Judge(_));
                let mut compare = |rows: &[u32]| {
                    result.scanned += if judges_first {
                        scan_judged(&codes, &target, rows, &mut judge, &mut top)
                    } else {
                        scan(&codes, &target, rows, &mut judge, &mut top)
                    };
                };
                match span {
                    Span::Listed(rows) => compare(rows),
                    Span::Partition => {
                        let mut from = 0;
                        while self.list_rows(request.partition, &mut from, &mut scratch.rows) {
                            compare(&scratch.rows);
                        }
                    }
                }
            }
        }
        result.candidates =
            top.into_sorted().map(|(slot, approx)| Candidate { slot, approx }).collect();
        result.undecided += judge.undecided;
        result.filtered.join(judge.filtered);
        result.invisible.join(judge.invisible);
        ended
    }

    /// Lists the next rows of a partition from `from` on, in their order; false when there is none left.
    fn list_rows(self, partition: PartitionKey, from: &mut u32, rows: &mut Vec<u32>) -> bool {
        rows.clear();
        while *from < self.end && rows.len() < LISTED_ROWS {
            let is_of_partition = |state: &RowState| {
                state.head().has(Head::HAS_CODE) && state.partition() == partition
            };
            if self.states.get(*from).is_some_and(is_of_partition) {
                rows.push(*from);
            }
            *from += 1;
        }
        !rows.is_empty()
    }
}

/// Compares rows, and judges those near enough. Answers how many were compared.
fn scan(
    codes: &Codes<'_>,
    target: &Target<'_>,
    rows: &[u32],
    judge: &mut impl Judge,
    top: &mut Top<SlotId>,
) -> usize {
    for (place, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(place + PREFETCH_ROWS) {
            codes.prefetch(ahead);
        }
        let score = codes.similarity(target, row);
        if top.admits(score) && judge.accepts(row, score) {
            top.push(score, row);
        }
    }
    rows.len()
}

/// Judges rows, and compares those that pass. Answers how many were compared.
fn scan_judged(
    codes: &Codes<'_>,
    target: &Target<'_>,
    rows: &[u32],
    judge: &mut Visible<'_>,
    top: &mut Top<SlotId>,
) -> usize {
    let mut compared = 0;
    for (place, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(place + PREFETCH_ROWS) {
            judge.prefetch(ahead);
        }
        let standing = judge.standing(row);
        if matches!(standing, Standing::Accepted | Standing::Undecided) {
            judge.undecided += usize::from(matches!(standing, Standing::Undecided));
            compared += 1;
            top.push(codes.similarity(target, row), row);
        }
    }
    compared
}
