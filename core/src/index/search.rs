//! The nearest entries of a partition: by a walk over its graph and a scan of its unlinked tail, or by
//! a scan of all, whichever is estimated to cost less.
//!
//! Owns: that choice, and the scan. A scan is exact up to quantisation and the oracle of the graph.
//! Main thread only: what a search needs beside the index is kept in it.
//!
//! Rows that are due, hidden or refused by a filter are walked through and not found. Where too few
//! pass, the walk would go on and on: it is given up when it has cost twice what a walk usually costs
//! and a quarter of what the scan does, and the scan judges a row before it computes its distance.

use super::Index;
use super::facts::{Fact, Facts, Head};
use super::filter::{Filter, Verdict};
use super::hnsw::{Codes, IndexMode, Judge, Scratch, Target, Walk};
use super::partitions::List;
use super::remembered::Rows;
use super::tags::Tags;
use super::top::{Candidate, Top, row_of, score_of};
use crate::ids::{PartitionKey, Seq, UnixMs};
use crate::vector::links::SharedLinks;
use crate::vector::quantise::error_bound;

/// How many rows ahead of the current one are fetched: about the memory latency over the time of
/// one distance.
const PREFETCH_ROWS: usize = 6;

/// Rows a scan gets through in the time that a walk takes for one distance, since the walk waits for
/// memory that the scan has asked for long before. Of real vectors (384 dimensions, EF 64) a scan takes
/// 14.5 ns a row, a walk 35 ns a distance over 2,000 to 4,000 rows and 53 over 50,000. At 1,500 rows the
/// scan takes 21.7 us and the walk 26.0, at 2,000 29.0 and 26.9, at 3,000 43.4 and 30.1.
const SEQUENTIAL_PER_RANDOM: usize = 3;

/// Distances of a walk for each row it is to find, and those on the way there: 530 at EF 32 and 1,337
/// at EF 128 over 4,000 rows, 585 and 1,670 over 50,000.
const DISTANCES_PER_EF: usize = 9;
const DISTANCES_OF_DESCENT: usize = 200;

/// Nanoseconds that a row takes which is compared in a scan: so many, and one for each so many dimensions.
/// With 384 that makes the 14 ns that were measured.
const ROW_NS: u64 = 5;
const DIMS_PER_NS: u64 = 40;
/// The same for a row that is judged by a filter first.
const JUDGED_ROW_NS: u64 = 40;

/// Rows of a partition that are listed at once.
const LISTED_ROWS: usize = 1_024;

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
#[derive(Debug, Default, PartialEq)]
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

/// What a search reads; of an index, or of the picture that a search on another thread took along.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) facts: &'a Facts,
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
        let Some(fact) = self.view.facts.get(row) else { return Standing::Gone };
        let head = fact.head();
        let is_of_view = head.has(Head::OCCUPIED) && head.seq() < self.view.seq_end;
        if !is_of_view || fact.partition() != self.partition {
            return Standing::Gone;
        }
        let is_visible = !head.has(Head::HIDDEN)
            && !fact.expire_at().is_past(self.now)
            && head.seq() >= self.min_seq
            && !self.is_gone_by_tag(row, head);
        let verdict = match self.filter {
            Some(filter) if is_visible => filter.matches_record(self.view.facts.record(row)),
            _ => Verdict::Yes,
        };
        match verdict {
            _ if !fact.is_still(head) => Standing::Gone,
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
        self.view.facts.prefetch(row);
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

/// What a walk for `ef` rows costs, in distances.
fn walk_estimate(ef: usize) -> usize {
    DISTANCES_OF_DESCENT + DISTANCES_PER_EF * ef
}

impl Plan<'_> {
    /// What it costs, estimated, in a partition of so many rows.
    fn estimate_ns(&self, rows: usize, dim: usize) -> u64 {
        let compared = match self {
            Plan::Walk { ef, tail, .. } => {
                walk_estimate(*ef).min(rows) * SEQUENTIAL_PER_RANDOM + tail.len()
            }
            Plan::Compare(Span::Listed(listed)) => listed.len(),
            Plan::Compare(Span::Partition) => rows,
            Plan::Judge(_) => return rows as u64 * JUDGED_ROW_NS,
        };
        compared as u64 * (ROW_NS + dim as u64 / DIMS_PER_NS)
    }
}

/// A search as far as it may be done on the main thread.
pub(super) enum Stage {
    /// To its end.
    Done(SearchResult),
    /// Up to what costs more: what it found out so far, and what is left.
    Left(SearchResult, Rest),
}

/// What is left of a search.
#[derive(Debug)]
pub(super) enum Rest {
    /// A walk from `points`.
    Walk { ef: usize, most: usize, points: Vec<u64>, tail: Vec<u32> },
    /// To compare these rows.
    Rows(Vec<u32>),
    /// To compare all of the partition.
    Partition,
    /// To judge all of the partition, since too few passed a walk.
    Judged,
}

impl Index {
    /// The entries whose codes are nearest to the query's, at most `limit`.
    pub fn search(&mut self, request: &SearchRequest<'_>) -> SearchResult {
        match self.search_within(request, u64::MAX) {
            Stage::Done(result) | Stage::Left(result, _) => result,
        }
    }

    /// The same, as long as it is estimated to take no longer than `most_ns`.
    pub(super) fn search_within(&mut self, request: &SearchRequest<'_>, most_ns: u64) -> Stage {
        // Taken out so that it can change while the index is read; allocates nothing.
        let mut scratch = std::mem::take(&mut self.graphs.scratch);
        let mut remembered = std::mem::take(&mut self.remembered);
        let asked = request.filter.filter(|_| !request.counts_refused);
        let rows = asked.and_then(|filter| remembered.rows_of(filter, &self.slots));
        let stage = self.search_with(&mut scratch, request, rows, most_ns);
        self.graphs.scratch = scratch;
        self.remembered = remembered;
        stage
    }

    /// What searches of this index read.
    pub(super) fn view(&self) -> Option<View<'_>> {
        Some(View {
            facts: self.slots.facts(),
            codes: Codes::new(self.arena.as_ref()?),
            links: self.graphs.shared_links(),
            end: self.slots.end(),
            seq_end: Seq(self.last_seq.0 + 1),
            tags: self.tags.any_bound().then_some(&self.tags),
        })
    }

    fn search_with(
        &self,
        scratch: &mut Scratch,
        request: &SearchRequest<'_>,
        passing: Option<&Rows>,
        most_ns: u64,
    ) -> Stage {
        let mut result = SearchResult::default();
        let view = self.view().filter(|view| view.codes.dim() == request.code.len());
        let Some(view) = view else { return Stage::Done(result) };
        let rows = self.partitions.rows(&self.slots, request.partition);
        let too_long = |plan: Plan<'_>| plan.estimate_ns(rows.len(), request.code.len()) > most_ns;
        let planned = self.planned_walk(request);
        scratch.distances = 0;
        if let Some(passing) = passing.filter(|passing| pays(passing, rows, planned.as_ref())) {
            let mut listed = std::mem::take(&mut scratch.rows);
            passing.list(&mut listed);
            let plan = Plan::Compare(Span::Listed(&listed));
            if too_long(plan) {
                return Stage::Left(result, Rest::Rows(listed));
            }
            view.search(request, plan, scratch, &mut result);
            scratch.rows = listed;
            return Stage::Done(result);
        }
        let Some(planned) = planned else {
            let plan = Plan::Compare(Span::Listed(rows));
            if too_long(plan) {
                return Stage::Left(result, Rest::Partition);
            }
            view.search(request, plan, scratch, &mut result);
            return Stage::Done(result);
        };
        let Planned { list, ef, most, entry, level } = planned;
        let (links, codes, target) = (self.graphs.links(), view.codes, request.target());
        let walk = Walk { links, codes, target, level, ef, rows: view.end as usize, most };
        walk.descend(scratch, entry);
        let plan = Plan::Walk { ef, most, tail: list.tail() };
        if too_long(plan) {
            let (points, tail) = (scratch.points.clone(), list.tail().to_vec());
            result.scanned = scratch.distances;
            return Stage::Left(result, Rest::Walk { ef, most, points, tail });
        }
        if view.search(request, plan, scratch, &mut result) {
            return Stage::Done(result);
        }
        let plan = Plan::Judge(Span::Listed(rows));
        if too_long(plan) {
            return Stage::Left(result, Rest::Judged);
        }
        view.search(request, plan, scratch, &mut result);
        Stage::Done(result)
    }

    /// The walk over the partition's graph and where it starts, if there is one and it pays.
    fn planned_walk(&self, request: &SearchRequest<'_>) -> Option<Planned<'_>> {
        let list = self.partitions.list_of(&self.slots, request.partition)?;
        let (entry, level) = self.graphs.entry(list.graph()?)?;
        let ef = request.ef.unwrap_or(self.graphs.settings.ef as usize).max(request.limit);
        if request.limit == 0 || !self.walk_is_due(list, ef) {
            return None;
        }
        let most = (2 * walk_estimate(ef)).max(list.rows().len() / SEQUENTIAL_PER_RANDOM / 4);
        Some(Planned { list, ef, most, entry, level })
    }

    /// Whether a walk and a scan of the tail cost less than a scan of all; where a graph was asked for,
    /// whether there is as yet enough of one.
    fn walk_is_due(&self, list: &List, ef: usize) -> bool {
        let (linked, tail) = (list.linked().len(), list.tail().len());
        match self.graphs.settings.mode {
            IndexMode::Auto => walk_estimate(ef) * SEQUENTIAL_PER_RANDOM < linked,
            IndexMode::Flat => false,
            IndexMode::Hnsw => tail <= linked && ef < linked,
        }
    }
}

/// A walk over the graph of a partition.
struct Planned<'a> {
    list: &'a List,
    ef: usize,
    most: usize,
    /// Where it starts, and on which level.
    entry: u32,
    level: usize,
}

/// Whether comparing the rows that pass costs less than comparing all, or than the walk that was planned:
/// that meets as many rows for each that passes as there are.
fn pays(passing: &Rows, rows: &[u32], planned: Option<&Planned<'_>>) -> bool {
    match planned {
        None => passing.len() < rows.len(),
        Some(planned) => {
            let walked = walk_estimate(planned.ef) * SEQUENTIAL_PER_RANDOM;
            passing.len() * passing.len() < walked * rows.len()
        }
    }
}

impl<'a> SearchRequest<'a> {
    fn target(&self) -> Target<'a> {
        Target { code: self.code, scale: self.scale }
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
        result.candidates = top.into_sorted();
        result.undecided += judge.undecided;
        result.filtered.join(judge.filtered);
        result.invisible.join(judge.invisible);
        ended
    }

    /// Lists the next rows of a partition from `from` on, in their order; false when there is none left.
    fn list_rows(self, partition: PartitionKey, from: &mut u32, rows: &mut Vec<u32>) -> bool {
        rows.clear();
        while *from < self.end && rows.len() < LISTED_ROWS {
            let is_of_partition =
                |fact: &Fact| fact.head().has(Head::HAS_CODE) && fact.partition() == partition;
            if self.facts.get(*from).is_some_and(is_of_partition) {
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
    top: &mut Top,
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
    top: &mut Top,
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
