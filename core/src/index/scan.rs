//! What a search reads of an index, and how it goes through it: a walk, or rows one after the other.
//!
//! Owns: the comparison of rows, the judgement which of them may be found, and where going through rows is left off
//! so that others get their turn. Must not know: where a search runs, or which way costs least; `search` plans. Any
//! thread.

use super::hnsw::{Codes, Judge, Scratch, Target, Walk};
use super::request::{Candidate, Refusals, SearchMode, SearchRequest, SearchResult};
use super::row_state::{Head, RowState, RowStates};
use super::tags::Tags;
use crate::filter::{Filter, Verdict};
use crate::ids::{PartitionKey, Seq, SlotId, UnixMs};
use crate::top::{Top, row_of, score_of};
use crate::vector::fine::FineTarget;
use crate::vector::links::SharedLinks;
use crate::vector::quantise::error_bound;
use crate::work::Steps;

/// How many rows ahead of the current one are fetched: about the memory latency over the time of
/// one distance.
const PREFETCH_ROWS: usize = 6;

/// Rows beyond those wanted that a scan keeps, to be compared by more than their codes.
const COMPARED_EXTRA: usize = 32;

/// Rows of a partition that are listed at once.
const LISTED_ROWS: usize = 1_024;
/// Rows of others that are passed by between two looks at what was spent, and in the time of a step.
const PASSED_ROWS: u32 = 1 << 16;
const PASSED_PER_STEP: u64 = 8;

/// What a search reads: of the index, or of the snapshot held by a worker thread.
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

/// What a search has come to, kept between its slices.
#[derive(Debug)]
pub(super) struct Progress {
    top: Top<SlotId>,
    tally: Tally,
    /// How far rows were gone through: a place of the list, or a row.
    from: u32,
}

impl Progress {
    /// Nothing found so far, by a walk for so many rows, or without one.
    pub(super) fn new(request: &SearchRequest<'_>, ef: Option<usize>) -> Self {
        let limit = request.limit;
        let room = match ef {
            _ if request.rest.is_empty() || limit == 0 => limit,
            Some(ef) => ef.max(limit),
            None => limit + COMPARED_EXTRA.max(limit / 4),
        };
        Self { top: Top::new(room), tally: Tally::default(), from: 0 }
    }

    /// Adds what was found to a result, the best of it compared once more by all that is kept of them.
    pub(super) fn end(
        self,
        request: &SearchRequest<'_>,
        codes: Option<Codes<'_>>,
        result: &mut SearchResult,
    ) {
        let Tally { filtered, undecided, invisible, too_long, mut steps } = self.tally;
        let best: Vec<(SlotId, f32)> = self.top.into_sorted().collect();
        result.candidates = match codes {
            Some(codes) if !request.rest.is_empty() => {
                let (candidates, compared) = compared_again(&codes, request, &best);
                steps.rows += compared;
                candidates
            }
            _ => {
                let bound = |slot: SlotId| {
                    codes
                        .map_or(0.0, |codes| error_bound(request.scale, codes.target(slot.0).scale))
                };
                let named = |&(slot, approx): &(SlotId, f32)| Candidate {
                    slot,
                    approx,
                    bound: bound(slot),
                };
                best.iter().map(named).collect()
            }
        };
        result.undecided += undecided;
        result.too_long += too_long;
        result.filtered.join(filtered);
        result.invisible.join(invisible);
        result.steps += steps;
    }
}

/// Compares the best rows by code, best first, once more by all that is kept of them: as many as the request wants,
/// and those beyond that might be better than one of them. Returns the best, and how many were compared.
fn compared_again(
    codes: &Codes<'_>,
    request: &SearchRequest<'_>,
    best: &[(SlotId, f32)],
) -> (Vec<Candidate>, u64) {
    let target = FineTarget::new(request.code, request.rest, request.scale);
    let mut top = Top::<SlotId>::new(request.limit);
    best.iter().take(PREFETCH_ROWS).for_each(|(slot, _)| codes.prefetch_whole(slot.0));
    let mut compared = 0;
    for (place, &(slot, approx)) in best.iter().enumerate() {
        let bound = error_bound(request.scale, codes.target(slot.0).scale);
        if !top.admits(approx + bound) {
            break;
        }
        if let Some((ahead, _)) = best.get(place + PREFETCH_ROWS) {
            codes.prefetch_whole(ahead.0);
        }
        top.push(codes.fine_similarity(&target, slot.0), slot.0);
        compared += 1;
    }
    let named = |(slot, approx): (SlotId, f32)| Candidate {
        slot,
        approx,
        bound: codes.fine_bound(&target, slot.0),
    };
    (top.into_sorted().map(named).collect(), compared)
}

/// Rows that were near enough, by what became of them, and the work.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    filtered: Refusals,
    undecided: usize,
    invisible: Refusals,
    too_long: usize,
    steps: Steps,
}

/// Terms of a filter that one walk may cost, a hundredth of a second in a thread: it cannot be left off in the
/// middle, so it gives up.
const WALK_TERMS_MAX: u64 = 1 << 20;

/// Judges rows by the request, and counts what it refuses.
struct Visible<'a> {
    view: View<'a>,
    scale: f32,
    now: UnixMs,
    min_seq: Seq,
    filter: Option<&'a Filter>,
    partition: PartitionKey,
    tally: Tally,
}

/// What a row is to a request.
enum Standing {
    /// No entry: nobody asks why it was not found.
    Gone,
    Invisible,
    Filtered,
    Undecided,
    TooLong,
    Accepted,
}

impl<'a> Visible<'a> {
    fn new(view: View<'a>, request: &SearchRequest<'a>, tally: Tally) -> Self {
        let SearchRequest { now, min_seq, filter, scale, partition, .. } = *request;
        Self { view, scale, now, min_seq, filter, partition, tally }
    }

    #[inline(always)]
    fn standing(&mut self, row: u32) -> Standing {
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
            Some(filter) if is_visible => {
                filter.judge_record(self.view.states.record(row), &mut self.tally.steps)
            }
            _ => Verdict::Yes,
        };
        match verdict {
            _ if !state.is_still(head) => Standing::Gone,
            _ if !is_visible => Standing::Invisible,
            Verdict::No => Standing::Filtered,
            Verdict::NeedsEntry => Standing::Undecided,
            Verdict::TooLong => Standing::TooLong,
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
            Standing::Invisible => self.tally.invisible.add(self.most_similar(row, score)),
            Standing::Filtered => self.tally.filtered.add(self.most_similar(row, score)),
            Standing::TooLong => self.tally.too_long += 1,
            Standing::Undecided => {
                self.tally.undecided += 1;
                return true;
            }
            Standing::Accepted => return true,
        }
        false
    }

    #[inline(always)]
    fn is_spent(&self) -> bool {
        self.tally.steps.terms > WALK_TERMS_MAX
    }
}

impl<'a> View<'a> {
    /// Carries out a plan to its end, and adds what it finds to `result`. Returns whether it came to one: a walk
    /// among too few rows that pass gives up.
    pub(super) fn search(
        self,
        request: &SearchRequest<'a>,
        plan: Plan<'_>,
        scratch: &mut Scratch,
        result: &mut SearchResult,
    ) -> bool {
        let ef = if let Plan::Walk { ef, .. } = plan { Some(ef) } else { None };
        let mut progress = Progress::new(request, ef);
        let ended = match plan {
            Plan::Walk { .. } => self.walk(request, plan, scratch, &mut progress, result),
            _ => self.go_through(request, plan, scratch, &mut progress, u64::MAX, result),
        };
        progress.end(request, Some(self.codes), result);
        ended
    }

    /// Walks; returns whether it did to the end.
    pub(super) fn walk(
        self,
        request: &SearchRequest<'a>,
        plan: Plan<'_>,
        scratch: &mut Scratch,
        progress: &mut Progress,
        result: &mut SearchResult,
    ) -> bool {
        let Plan::Walk { ef, most, tail } = plan else { return false };
        let (codes, target) = (self.codes, request.target());
        let mut judge = Visible::new(self, request, progress.tally);
        let rows = self.end as usize;
        let walk = Walk { links: self.links, codes, target, level: 0, ef, rows, most };
        let ended = scratch.walk(&walk, &mut judge);
        result.mode = if ended { SearchMode::Graph } else { SearchMode::GraphThenFlat };
        let distances = std::mem::take(&mut scratch.distances);
        result.scanned += distances;
        judge.tally.steps.rows += distances as u64;
        if ended {
            for &point in &scratch.points {
                progress.top.push(score_of(point), row_of(point));
            }
            // What was linked since the tail was listed, the walk may have met.
            let mut unseen = std::mem::take(&mut scratch.rows);
            for part in tail.chunks(LISTED_ROWS) {
                unseen.clear();
                unseen.extend(part.iter().filter(|&&row| !scratch.has_seen(row)));
                scan(&codes, &target, &unseen, &mut judge, &mut progress.top, u64::MAX);
                result.scanned += unseen.len();
            }
            scratch.rows = unseen;
        } else {
            // Of those it named, the judge of all rows will name the near ones again.
            (judge.tally.undecided, judge.tally.too_long) = (0, 0);
        }
        progress.tally = judge.tally;
        ended
    }

    /// Goes through rows from where it was left off, for about `most` steps. Returns whether all were gone through.
    pub(super) fn go_through(
        self,
        request: &SearchRequest<'a>,
        plan: Plan<'_>,
        scratch: &mut Scratch,
        progress: &mut Progress,
        most: u64,
        result: &mut SearchResult,
    ) -> bool {
        let (span, judges_first) = match plan {
            Plan::Walk { .. } => return true,
            Plan::Compare(span) => (span, false),
            Plan::Judge(span) => (span, true),
        };
        let (codes, target) = (self.codes, request.target());
        let mut judge = Visible::new(self, request, progress.tally);
        let end = judge.tally.steps.weight().saturating_add(most);
        let ended = loop {
            if judge.tally.steps.weight() >= end {
                break false;
            }
            let rows = match span {
                Span::Listed(rows) => {
                    let rows = rows.get(progress.from as usize..).unwrap_or_default();
                    &rows[..rows.len().min(LISTED_ROWS)]
                }
                Span::Partition => {
                    let mut from = progress.from;
                    let passed = self.list_rows(request.partition, &mut from, &mut scratch.rows);
                    judge.tally.steps.rows += u64::from(passed) / PASSED_PER_STEP;
                    if scratch.rows.is_empty() && from < self.end {
                        progress.from = from;
                        continue;
                    }
                    &scratch.rows[..]
                }
            };
            if rows.is_empty() {
                break true;
            }
            let top = &mut progress.top;
            let gone_through = if judges_first {
                scan_judged(&codes, &target, rows, &mut judge, top, end, result)
            } else {
                let rows = scan(&codes, &target, rows, &mut judge, top, end);
                result.scanned += rows;
                rows
            };
            progress.from = match (span, rows.get(gone_through), rows.last()) {
                (Span::Listed(_), ..) => progress.from + gone_through as u32,
                (Span::Partition, Some(&next), _) => next,
                (Span::Partition, None, last) => last.map_or(self.end, |last| last + 1),
            };
        };
        progress.tally = judge.tally;
        ended
    }

    /// Lists the next rows of a partition from `from` on, in their order; returns how many of all were looked at.
    fn list_rows(self, partition: PartitionKey, from: &mut u32, rows: &mut Vec<u32>) -> u32 {
        rows.clear();
        let first = *from;
        while *from < self.end && rows.len() < LISTED_ROWS && *from - first < PASSED_ROWS {
            let is_of_partition = |state: &RowState| {
                state.head().has(Head::HAS_CODE) && state.partition() == partition
            };
            if self.states.get(*from).is_some_and(is_of_partition) {
                rows.push(*from);
            }
            *from += 1;
        }
        *from - first
    }
}

/// Compares rows, and judges those near enough, until steps come to `end`. Returns how many were compared.
#[inline]
fn scan(
    codes: &Codes<'_>,
    target: &Target<'_>,
    rows: &[u32],
    judge: &mut Visible<'_>,
    top: &mut Top<SlotId>,
    end: u64,
) -> usize {
    let mut compared = rows.len();
    for (place, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(place + PREFETCH_ROWS) {
            codes.prefetch(ahead);
        }
        let score = codes.similarity(target, row);
        if top.admits(score) {
            if judge.accepts(row, score) {
                top.push(score, row);
            }
            if judge.tally.steps.terms >= end {
                compared = place + 1;
                break;
            }
        }
    }
    judge.tally.steps.rows += compared as u64;
    compared
}

/// Judges rows, and compares those that pass, until steps come to `end`. Returns how many were judged.
fn scan_judged(
    codes: &Codes<'_>,
    target: &Target<'_>,
    rows: &[u32],
    judge: &mut Visible<'_>,
    top: &mut Top<SlotId>,
    end: u64,
    result: &mut SearchResult,
) -> usize {
    let mut judged = rows.len();
    for (place, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(place + PREFETCH_ROWS) {
            judge.prefetch(ahead);
        }
        match judge.standing(row) {
            standing @ (Standing::Accepted | Standing::Undecided) => {
                judge.tally.undecided += usize::from(matches!(standing, Standing::Undecided));
                result.scanned += 1;
                top.push(codes.similarity(target, row), row);
            }
            Standing::TooLong => judge.tally.too_long += 1,
            Standing::Gone | Standing::Invisible | Standing::Filtered => {}
        }
        if judge.tally.steps.terms >= end {
            judged = place + 1;
            break;
        }
    }
    judge.tally.steps.rows += judged as u64;
    judged
}
