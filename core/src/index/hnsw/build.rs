//! Linking a row into its graph.
//!
//! Owns: the choice of neighbours. After Malkov & Yashunin (see `walk`): Algorithm 1 for the insertion
//! and Algorithm 4 for the choice, which keeps a candidate only if no neighbour chosen before is
//! nearer to it than the row itself is, so that links point in different directions. Main thread only.
//!
//! Other than there, links come in pairs, and a full row that takes a new link drops one, not all that
//! Algorithm 4 would. On 50,000 real vectors that finds 0.95 of the nearest ten with 599 distances;
//! links one way, dropped as in the paper, take 616. Dropping four at once takes 615; all at once, on
//! both sides, tears the graph apart: 0.945 is reached with 2,486.
//!
//! Which link goes is asked of the newcomer first: comparing all neighbours of a full row with each other, as
//! Algorithm 4 does, takes a row 2,441 distances to link among 50,000, this 1,952, and both find as much: 0.9538 and 0.9521
//! with 588 distances, 0.9886 and 0.9895 with 1,335, 0.9972 and 0.9976 with 2,915. Linking all rows once more at the end
//! adds nothing at equal distances.
//!
//! What Vamana does with `alpha` gains little here. On 20,000 real vectors with planes, EF 128: 0.9949 with 1,640
//! distances and 2,281 to link a row; alpha 0.95 gives 0.9949 with 1,649 and 2,624, alpha 0.9 0.9946 with 1,616 and
//! 2,957, alpha 1.05 0.9946 with 1,591 and 1,984. Half as many links again chosen for a new row: 0.9964 with 1,718 and
//! 2,743; EFC 160: 0.9964 with 1,730 and 3,039. All lie on one curve of recall over distances, or a thousandth above it.

use super::super::row_state::NONE;
use super::super::slots::Slots;
use super::graph::Links;
use super::head::Head;
use super::walk::{Codes, Judge, Scratch, Walk};
use crate::allocation::allocated_bytes;
use crate::top::{pack, row_of, score_of};

/// A row that would keep fewer links than this on a level is not dropped by a full neighbour: rows
/// with few links are the ones that get lost.
pub(super) const DEGREE_MIN: usize = 4;

/// Distances after which the search for neighbours gives up, for each of them: several times what it
/// takes where most entries live. Among tombstones it would go on for as long as there are any.
const FOUND_MAX_DISTANCES: usize = 64;

/// What changing a graph needs.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) links: &'a mut Links,
    pub(super) codes: Codes<'a>,
    pub(super) slots: &'a Slots,
    pub(super) scratch: &'a mut Scratch,
    pub(super) lists: &'a mut Lists,
    pub(super) efc: usize,
}

/// Lists that are filled again and again while a graph is changed.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) candidates: Vec<u64>,
    pub(super) chosen: Vec<u64>,
    pub(super) rows: Vec<u32>,
    rated: Vec<u64>,
    kept: Vec<u64>,
    dropped: Vec<u64>,
}

impl Lists {
    pub(super) fn bytes(&self) -> usize {
        let Self { candidates, chosen, rows, rated, kept, dropped } = self;
        let points = [candidates, chosen, rated, kept, dropped];
        let points = points.map(|list| size_of::<u64>() * list.capacity());
        points.map(allocated_bytes).iter().sum::<usize>()
            + allocated_bytes(rows.capacity() * size_of::<u32>())
    }
}

/// Finds all but one row: the one that is being linked.
struct Except(u32);

impl Judge for Except {
    fn prefetch(&self, _: u32) {}

    fn accepts(&mut self, row: u32, _: f32) -> bool {
        row != self.0
    }
}

/// Finds rows that a new link may go to: those whose entry lives, but not the one being linked.
struct Living<'a>(&'a Slots, u32);

impl Judge for Living<'_> {
    fn prefetch(&self, row: u32) {
        self.0.prefetch(row);
    }

    fn accepts(&mut self, row: u32, _: f32) -> bool {
        row != self.1 && !self.0.is_tombstone(row)
    }
}

impl Builder<'_> {
    /// Links a row, which has a code and is not linked yet, on the levels 0 to `level`.
    pub(super) fn link(&mut self, head: &mut Head, row: u32, level: usize) {
        let (entry, top) = (head.entry, head.top);
        self.links.occupy(row, level, &mut head.rings);
        if entry == NONE || level > top {
            (head.entry, head.top) = (row, level);
        }
        if entry == NONE {
            return;
        }
        self.approach(row, (entry, top), level, 0);
    }

    /// Walks from a node, given with its level, towards a row, and links the row on the levels from
    /// `high` down to `low`.
    pub(super) fn approach(&mut self, row: u32, start: (u32, usize), high: usize, low: usize) {
        let (target, rows) = (self.codes.target(row), self.slots.end() as usize);
        for level in (low..=start.1).rev() {
            let ef = if level > high { 1 } else { self.efc };
            let (codes, most) = (self.codes, FOUND_MAX_DISTANCES * ef);
            let walk = Walk { links: &*self.links, codes, target, level, ef, rows, most };
            if level == start.1 {
                self.scratch.start_at(&walk, start.0);
            }
            if level > high {
                self.scratch.walk(&walk, &mut Except(row));
                continue;
            }
            let origin = self.scratch.points.clone();
            self.scratch.walk(&walk, &mut Living(self.slots, row));
            if self.scratch.points.is_empty() {
                // Nothing but tombstones around: better linked with them than with nobody. Who repairs
                // them links this row with what is behind them.
                self.scratch.points = origin;
                self.scratch.walk(&walk, &mut Except(row));
            }
            self.connect_found(row, level);
        }
    }

    /// Links a row with the best of what the walk found.
    pub(super) fn connect_found(&mut self, row: u32, level: usize) {
        let mut candidates = std::mem::take(&mut self.lists.candidates);
        candidates.clear();
        candidates.extend_from_slice(&self.scratch.points);
        let linked = self.links.of(row, level);
        candidates.retain(|&point| !linked.contains(row_of(point)));
        self.choose(&candidates, self.links.m());
        let mut chosen = std::mem::take(&mut self.lists.chosen);
        for &point in &chosen {
            self.connect(row, point, level);
        }
        if self.links.of(row, level).len() < DEGREE_MIN {
            for &point in &candidates {
                if self.links.of(row, level).len() >= DEGREE_MIN {
                    break;
                }
                let other = row_of(point);
                if self.links.has_room(other, level) && !self.links.of(row, level).contains(other) {
                    self.links.join(row, other, level);
                }
            }
        }
        if self.links.of(row, level).is_empty()
            && let Some(&nearest) = candidates.first()
        {
            self.force(row, row_of(nearest), level);
        }
        chosen.clear();
        self.lists.chosen = chosen;
        self.lists.candidates = candidates;
    }

    /// Puts a row that found no other way in, as among many equal codes, between a full row and one of
    /// its neighbours: both keep as many links as they had, and what held together still does.
    fn force(&mut self, row: u32, full: u32, level: usize) {
        let degree = |&other: &u32| self.links.of(other, level).len();
        let Some(other) = self.links.of(full, level).iter().max_by_key(degree) else { return };
        self.links.part(full, other, level);
        self.links.join(row, full, level);
        self.links.join(row, other, level);
    }

    /// Chooses at most `limit` of some candidates, the nearest first.
    fn choose(&mut self, candidates: &[u64], limit: usize) {
        let chosen = &mut self.lists.chosen;
        chosen.clear();
        for &point in candidates {
            if chosen.len() < limit
                && is_diverse(&self.codes, point, chosen, &mut self.scratch.distances)
            {
                chosen.push(point);
            }
        }
    }

    /// Links a row with another, given with its similarity. A full neighbour drops what it needs least,
    /// which may be the new link: then nothing changes.
    pub(super) fn connect(&mut self, row: u32, point: u64, level: usize) {
        let other = row_of(point);
        if !self.links.has_room(other, level)
            && !self.make_room(other, pack(score_of(point), row), level)
        {
            return;
        }
        self.links.join(row, other, level);
    }

    /// Makes a full row drop a link for the sake of `newcomer`; returns whether it did. It does not where a nearer
    /// neighbour stands for the newcomer. Otherwise the farthest goes that the newcomer stands for; where there is
    /// none, the farthest that any neighbour stands for; else the farthest.
    fn make_room(&mut self, full: u32, newcomer: u64, level: usize) -> bool {
        let Lists { rated, .. } = &mut *self.lists;
        let target = self.codes.target(full);
        let others = self.links.of(full, level);
        rated.clear();
        rated.extend(others.iter().map(|row| pack(self.codes.similarity(&target, row), row)));
        rated.sort_unstable_by(|a, b| b.cmp(a));
        let distances = &mut self.scratch.distances;
        *distances += rated.len();
        let nearer = rated.partition_point(|&point| point > newcomer);
        if !is_diverse(&self.codes, newcomer, &rated[..nearer], distances) {
            return false;
        }
        let (codes, links) = (self.codes, &*self.links);
        let farther = rated[nearer..].iter().rev().copied();
        let mut goes = farther
            .filter(|&point| may_lose_one(links, point, level))
            .find(|&point| !is_diverse(&codes, point, &[newcomer], distances));
        if goes.is_none() {
            goes = self.needed_least(level);
        }
        if let Some(point) = goes {
            self.links.part(full, row_of(point), level);
        }
        goes.is_some()
    }

    /// Of the neighbours that are rated, the farthest that a nearer one stands for; else the farthest.
    fn needed_least(&mut self, level: usize) -> Option<u64> {
        let Lists { rated, kept, dropped, .. } = &mut *self.lists;
        kept.clear();
        dropped.clear();
        for &point in &*rated {
            let diverse = is_diverse(&self.codes, point, kept, &mut self.scratch.distances);
            if diverse { kept.push(point) } else { dropped.push(point) }
        }
        let mut least = dropped.iter().rev().chain(kept.iter().rev()).copied();
        least.find(|&point| may_lose_one(self.links, point, level))
    }
}

/// Whether a row keeps enough links without the one that is in question.
fn may_lose_one(links: &Links, point: u64, level: usize) -> bool {
    links.of(row_of(point), level).len() > DEGREE_MIN
}

/// Whether a point is nearer to the row it is rated for than to any chosen point.
pub(super) fn is_diverse(
    codes: &Codes<'_>,
    point: u64,
    chosen: &[u64],
    distances: &mut usize,
) -> bool {
    let target = codes.target(row_of(point));
    let own = score_of(point);
    chosen.iter().all(|&other| {
        *distances += 1;
        codes.similarity(&target, row_of(other)) < own
    })
}
