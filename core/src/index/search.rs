//! The nearest entries of a partition: by a walk over its graph and a scan of its unlinked tail, or by
//! a scan of all, whichever is estimated to cost less.
//!
//! Owns: that choice, and how far a search goes on the main thread; `scan` carries it out. A scan is exact up to
//! quantisation and the oracle of the graph. Reads rows and graphs, changes neither. Main thread only.
//!
//! Rows that are due, hidden or refused by a filter are walked through and not found. Where too few
//! pass, the walk would go on and on: it is given up when it has cost twice what a walk usually costs
//! and a quarter of what the scan does, and the scan judges a row before it computes its distance.

use super::filter_cache::RowSet;
use super::hnsw::{Codes, Graphs, IndexMode, Scratch, Target, Walk};
use super::partitions::List;
use super::request::{SearchRequest, SearchResult};
use super::rows::Rows;
use super::scan::{Plan, Span, View};
use crate::ids::Seq;
use crate::vector::quantise::unit_scale;

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

/// The same for a row that is judged by a filter first, and for each step of that.
const JUDGED_ROW_NS: u64 = 40;

const TERM_NS: u64 = 8;

/// Of the distances of a walk, one in so many is of a row that is judged.
const DISTANCES_PER_JUDGED: usize = 2;

/// Most rows that a remembered filter lists for a search on the main thread.
const LISTED_MAX: usize = 1 << 16;

/// What a walk for `ef` rows costs, in distances.
fn walk_estimate(ef: usize) -> usize {
    DISTANCES_OF_DESCENT + DISTANCES_PER_EF * ef
}

/// What comparing a row takes.
fn row_ns(dim: usize) -> u64 {
    ROW_NS + dim as u64 / DIMS_PER_NS
}

impl SearchResult {
    /// What it took, estimated by its steps, where vectors have so many dimensions.
    pub fn took_ns(&self, dim: usize) -> u64 {
        self.steps.rows * row_ns(dim) + self.steps.terms * TERM_NS
    }
}

impl Plan<'_> {
    /// What it costs, estimated, in a partition of so many rows, each of which the filter judges in so many steps.
    fn estimate_ns(&self, rows: usize, dim: usize, terms: u64) -> u64 {
        let (compared, judged) = match self {
            Plan::Walk { ef, tail, .. } => {
                let met = walk_estimate(*ef).min(rows);
                let compared = met * SEQUENTIAL_PER_RANDOM + tail.len();
                (compared, met / DISTANCES_PER_JUDGED + tail.len())
            }
            Plan::Compare(Span::Listed(listed)) => (listed.len(), listed.len()),
            Plan::Compare(Span::Partition) => (rows, rows),
            Plan::Judge(_) => return rows as u64 * (JUDGED_ROW_NS + terms * TERM_NS),
        };
        row_ns(dim) * compared as u64 + judged as u64 * terms * TERM_NS
    }
}

/// A search as far as it may be done on the main thread.
pub(super) enum Stage {
    /// To its end.
    Done(SearchResult),
    /// Up to what costs more: what it found out so far, and what is left.
    Partial(SearchResult, Remaining),
}

/// What is left of a search.
#[derive(Debug)]
pub(super) enum Remaining {
    /// A walk from `points`.
    Walk { ef: usize, most: usize, points: Vec<u64>, tail: Vec<u32> },
    /// To compare these rows.
    Rows(Vec<u32>),
    /// To compare all of the partition.
    Partition,
    /// To judge all of the partition, since too few passed a walk.
    Judged,
}

/// What a search reads of an index.
#[derive(Clone, Copy)]
pub(super) struct Searchable<'a> {
    pub(super) rows: &'a Rows,
    pub(super) graphs: &'a Graphs,
}

impl<'a> Searchable<'a> {
    /// What searches of this index read.
    pub(super) fn view(&self) -> Option<View<'a>> {
        Some(View {
            states: self.rows.slots.states(),
            codes: Codes::new(self.rows.arena.as_ref()?),
            links: self.graphs.shared_links(),
            end: self.rows.slots.end(),
            seq_end: Seq(self.rows.last_seq.0 + 1),
            tags: self.rows.bounded_tags(),
        })
    }

    /// Searches as long as that is estimated to take no longer than `most_ns`. `passing` are the rows that the filter
    /// is known to let through, `terms` the steps that judging one row takes.
    pub(super) fn search(
        &self,
        scratch: &mut Scratch,
        request: &SearchRequest<'_>,
        (passing, terms): (Option<&RowSet>, u64),
        most_ns: u64,
    ) -> Stage {
        let mut result = SearchResult::default();
        let view = self.view().filter(|view| view.codes.dim() == request.code.len());
        let Some(view) = view else { return Stage::Done(result) };
        let rows = self.rows.of_partition(request.partition);
        let too_long =
            |plan: Plan<'_>| plan.estimate_ns(rows.len(), request.code.len(), terms) > most_ns;
        let planned = self.planned_walk(request);
        scratch.distances = 0;
        if let Some(passing) = passing.filter(|passing| pays(passing, rows, planned.as_ref())) {
            let mut listed = std::mem::take(&mut scratch.rows);
            passing.list(&mut listed);
            let plan = Plan::Compare(Span::Listed(&listed));
            if too_long(plan) {
                return Stage::Partial(result, Remaining::Rows(listed));
            }
            view.search(request, plan, scratch, &mut result);
            scratch.rows = listed;
            return Stage::Done(result);
        }
        let Some(planned) = planned else {
            let plan = Plan::Compare(Span::Listed(rows));
            if too_long(plan) {
                return Stage::Partial(result, Remaining::Partition);
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
            // Those on the way down count, whoever goes on from there.
            result.steps.rows = scratch.distances as u64;
            return Stage::Partial(result, Remaining::Walk { ef, most, points, tail });
        }
        if view.search(request, plan, scratch, &mut result) {
            return Stage::Done(result);
        }
        let plan = Plan::Judge(Span::Listed(rows));
        if too_long(plan) {
            return Stage::Partial(result, Remaining::Judged);
        }
        view.search(request, plan, scratch, &mut result);
        Stage::Done(result)
    }

    /// The walk over the partition's graph and where it starts, if there is one and it pays.
    fn planned_walk(&self, request: &SearchRequest<'_>) -> Option<Planned<'a>> {
        let list = self.rows.partitions.list_of(&self.rows.slots, request.partition)?;
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
fn pays(passing: &RowSet, rows: &[u32], planned: Option<&Planned<'_>>) -> bool {
    if passing.len() > LISTED_MAX {
        return false;
    }
    match planned {
        None => passing.len() < rows.len(),
        Some(planned) => {
            let walked = walk_estimate(planned.ef) * SEQUENTIAL_PER_RANDOM;
            passing.len() * passing.len() < walked * rows.len()
        }
    }
}

impl<'a> SearchRequest<'a> {
    pub(super) fn target(&self) -> Target<'a> {
        Target { code: self.code, scale: unit_scale(self.code) }
    }
}
