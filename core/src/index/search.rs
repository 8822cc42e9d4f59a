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
use super::filter::{Filter, Verdict};
use super::hnsw::{Codes, IndexMode, Judge, Scratch, Target, Walk};
use super::partitions::List;
use super::remembered::Rows;
use super::slots::Slots;
use super::tags::Tags;
use super::top::{Candidate, Top, row_of, score_of};
use crate::ids::{PartitionKey, Seq, SlotId, UnixMs};
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

/// Judges rows by the request, and counts what it refuses.
struct Visible<'a> {
    slots: &'a Slots,
    codes: Codes<'a>,
    tags: Option<&'a Tags>,
    scale: f32,
    now: UnixMs,
    min_seq: Seq,
    filter: Option<&'a Filter>,
    /// Where rows of others may come up.
    partition: Option<PartitionKey>,
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
    fn new(index: &'a Index, codes: Codes<'a>, request: &SearchRequest<'a>) -> Self {
        let tags = index.tags.any_bound().then_some(&index.tags);
        let SearchRequest { now, min_seq, filter, scale, .. } = *request;
        let (filtered, undecided, invisible) = Default::default();
        let slots = &index.slots;
        let partition = None;
        Self {
            slots,
            codes,
            tags,
            scale,
            now,
            min_seq,
            filter,
            partition,
            filtered,
            undecided,
            invisible,
        }
    }

    #[inline(always)]
    fn standing(&self, row: u32) -> Standing {
        let Some(slot) = self.slots.get(SlotId(row)) else { return Standing::Gone };
        if self.partition.is_some_and(|partition| slot.partition != partition) {
            return Standing::Gone;
        }
        if !slot.is_visible(self.now) || slot.seq() < self.min_seq {
            return Standing::Invisible;
        }
        if let Some(tags) = self.tags
            && slot.is_tagged()
            && tags.is_gone(row, slot.seq())
        {
            return Standing::Invisible;
        }
        match self.filter.map(|filter| filter.matches_record(slot.record.as_ref())) {
            Some(Verdict::No) => Standing::Filtered,
            Some(Verdict::NeedsEntry) => Standing::Undecided,
            Some(Verdict::Yes) | None => Standing::Accepted,
        }
    }

    /// The most that the exact similarity of a row may be.
    fn most_similar(&self, row: u32, score: f32) -> f64 {
        f64::from(score + error_bound(self.scale, self.codes.target(row).scale))
    }
}

impl Judge for Visible<'_> {
    #[inline(always)]
    fn prefetch(&self, row: u32) {
        self.slots.prefetch(row);
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

impl Index {
    /// The entries whose codes are nearest to the query's, at most `limit`.
    pub fn search(&mut self, request: &SearchRequest<'_>) -> SearchResult {
        // Taken out so that it can change while the index is read; allocates nothing.
        let mut scratch = std::mem::take(&mut self.graphs.scratch);
        let mut remembered = std::mem::take(&mut self.remembered);
        let asked = request.filter.filter(|_| !request.counts_refused);
        let rows = asked.and_then(|filter| remembered.rows_of(filter, &self.slots));
        let result = self.search_with(&mut scratch, request, rows);
        self.graphs.scratch = scratch;
        self.remembered = remembered;
        result
    }

    fn search_with(
        &self,
        scratch: &mut Scratch,
        request: &SearchRequest<'_>,
        passing: Option<&Rows>,
    ) -> SearchResult {
        let mut result = SearchResult::default();
        let arena = self.arena.as_ref().filter(|arena| arena.dim() == request.code.len());
        let Some(arena) = arena else { return result };
        let codes = Codes::new(arena);
        let target = Target { code: request.code, scale: request.scale };
        let rows = self.partitions.rows(&self.slots, request.partition);
        let mut judge = Visible::new(self, codes, request);
        let mut top = Top::new(request.limit);
        let planned = self.planned_walk(request, codes, target);
        if let Some(passing) = passing.filter(|passing| pays(passing, rows, planned.as_ref())) {
            judge.partition = Some(request.partition);
            passing.list(&mut scratch.rows);
            result.scanned = scan(&codes, &target, &scratch.rows, &mut judge, &mut top);
        } else if let Some((list, walk, entry)) = planned {
            scratch.distances = 0;
            if walk.run(scratch, entry, &mut judge) {
                result.mode = SearchMode::Graph;
                for &point in scratch.points.iter().take(request.limit) {
                    top.push(score_of(point), row_of(point));
                }
                result.scanned = scan(&codes, &target, list.tail(), &mut judge, &mut top);
            } else {
                result.mode = SearchMode::GraphThenFlat;
                // What was near enough and refused, the walk has met and counted.
                judge.undecided = 0;
                result.scanned = scan_judged(&codes, &target, rows, &mut judge, &mut top);
            }
            result.scanned += scratch.distances;
        } else {
            result.scanned = scan(&codes, &target, rows, &mut judge, &mut top);
        }
        result.candidates = top.into_sorted();
        (result.filtered, result.undecided) = (judge.filtered, judge.undecided);
        result.invisible = judge.invisible;
        result
    }

    /// The walk over the partition's graph and where it starts, if there is one and it pays.
    fn planned_walk<'a>(
        &'a self,
        request: &SearchRequest<'a>,
        codes: Codes<'a>,
        target: Target<'a>,
    ) -> Option<(&'a List, Walk<'a>, u32)> {
        let list = self.partitions.list_of(&self.slots, request.partition)?;
        let (entry, level) = self.graphs.entry(list.graph()?)?;
        let ef = request.ef.unwrap_or(self.graphs.settings.ef as usize).max(request.limit);
        if request.limit == 0 || !self.walk_is_due(list, ef) {
            return None;
        }
        let most = (2 * walk_estimate(ef)).max(list.rows().len() / SEQUENTIAL_PER_RANDOM / 4);
        let (links, rows) = (self.graphs.links(), self.slots.end() as usize);
        Some((list, Walk { links, codes, target, level, ef, rows, most }, entry))
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

/// Whether comparing the rows that pass costs less than comparing all, or than the walk that was planned:
/// that meets as many rows for each that passes as there are.
fn pays(passing: &Rows, rows: &[u32], planned: Option<&(&List, Walk<'_>, u32)>) -> bool {
    match planned {
        None => passing.len() < rows.len(),
        Some((_, walk, _)) => {
            let walked = walk_estimate(walk.ef) * SEQUENTIAL_PER_RANDOM;
            passing.len() * passing.len() < walked * rows.len()
        }
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
