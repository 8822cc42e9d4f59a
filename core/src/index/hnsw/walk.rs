//! The walk: from a starting point along links to the rows nearest to a vector, on one level.
//!
//! Owns: the beam and what it needs between two searches (visited stamps, heaps), so that a search
//! allocates nothing once these have grown. Must not know: partitions, entries; the caller's `Judge`
//! says which rows may be found. Any thread, each with a `Scratch` of its own.
//!
//! After Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using
//! Hierarchical Navigable Small World graphs" (2016), Algorithm 2.

use super::graph::Links;
use crate::allocation::allocated_bytes;
use crate::distance::kernels;
use crate::top::{pack, row_of, score_of};
use crate::vector::arena::CodeArena;
use crate::vector::fine::FineTarget;
use crate::vector::links::{Row, SharedLinks};
use crate::vector::quantise::approx_similarity;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How many rows ahead of the current one are fetched: more than the core can wait for, and a prefetch
/// waits itself. Asking for all new neighbours at once, or for three, takes a tenth longer.
const PREFETCH_ROWS: usize = 8;

/// Links that are looked at before the first of the rows they lead to is asked for: the rest is looked at
/// while memory answers.
const LINKS_AT_ONCE: usize = 8;

/// Room of the heap of rows to walk on from that is kept after a search of great effort.
const HEAP_KEPT: usize = 16 << 10;

/// Stamps that are kept when an index shrinks.
const STAMPS_KEPT: usize = 4_096;

/// A code and its scale.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Target<'a> {
    pub code: &'a [i8],
    pub scale: f32,
}

/// The codes of an index, with the kernel that compares them.
#[derive(Debug, Clone, Copy)]
pub(in crate::index) struct Codes<'a> {
    arena: &'a CodeArena,
    dot: fn(&[i8], &[i8]) -> i32,
}

impl<'a> Codes<'a> {
    pub(in crate::index) fn new(arena: &'a CodeArena) -> Self {
        Self { arena, dot: kernels().dot_i8 }
    }

    #[inline(always)]
    pub(in crate::index) fn target(&self, row: u32) -> Target<'a> {
        let (code, scale) = self.arena.row(row);
        Target { code, scale }
    }

    pub(in crate::index) fn dim(&self) -> usize {
        self.arena.dim()
    }

    #[inline(always)]
    pub(in crate::index) fn similarity(&self, target: &Target<'_>, row: u32) -> f32 {
        let other = self.target(row);
        approx_similarity((self.dot)(target.code, other.code), target.scale, other.scale)
    }

    #[inline(always)]
    pub(in crate::index) fn prefetch(&self, row: u32) {
        self.arena.prefetch(row);
    }

    /// Asks for all that `fine_similarity` reads.
    pub(in crate::index) fn prefetch_whole(&self, row: u32) {
        self.arena.prefetch_whole(row);
    }

    /// The similarity of a row by all that is kept of it.
    pub(in crate::index) fn fine_similarity(&self, target: &FineTarget<'_>, row: u32) -> f32 {
        let (code, scale) = self.arena.row(row);
        target.similarity(kernels(), code, scale, self.arena.plane(row))
    }

    /// How far that may lie from the truth.
    pub(in crate::index) fn fine_bound(&self, target: &FineTarget<'_>, row: u32) -> f32 {
        let (_, scale) = self.arena.row(row);
        target.error_bound(scale, self.arena.plane(row).is_some())
    }
}

/// Rows seen by the walk that is on: a row's stamp equals the walk's number. A byte each, since walks read
/// stamps all over the index; every 255 walks they are cleared.
#[derive(Debug, Default)]
struct Visited {
    walk: u8,
    stamps: Vec<u8>,
}

impl Visited {
    fn begin(&mut self, rows: usize) {
        let have = self.stamps.len();
        if have < rows {
            // In steps of an eighth: what doubling would leave unused every row would pay for.
            self.stamps.reserve_exact(rows - have + rows / 8);
            self.stamps.resize(rows, 0);
        } else if have > STAMPS_KEPT && have / 4 > rows {
            self.stamps.truncate(rows * 2);
            self.stamps.shrink_to_fit();
        }
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.stamps.fill(0);
            self.walk = 1;
        }
    }

    /// Notes a row; returns whether it was new. Rows beyond those announced are never new.
    #[inline(always)]
    fn insert(&mut self, row: u32) -> bool {
        let walk = self.walk;
        self.stamps
            .get_mut(row as usize)
            .is_some_and(|stamp| std::mem::replace(stamp, walk) != walk)
    }

    /// Whether a row was noted.
    #[inline(always)]
    fn contains(&self, row: u32) -> bool {
        self.stamps.get(row as usize) == Some(&self.walk)
    }
}

/// What searches keep between each other.
#[derive(Debug, Default)]
pub(in crate::index) struct Scratch {
    visited: Visited,
    /// Rows seen and not yet walked on from, the nearest first.
    open: BinaryHeap<u64>,
    /// The nearest so far that the judge accepts, the farthest of them first.
    found: BinaryHeap<Reverse<u64>>,
    fresh: Vec<u32>,
    /// Those near enough, before they are judged.
    near: Vec<u64>,
    /// Where the next walk starts; after a walk, what it found, the nearest first.
    pub(in crate::index) points: Vec<u64>,
    /// Rows to be compared without a walk.
    pub(in crate::index) rows: Vec<u32>,
    /// Distances computed since the owner last set it to zero.
    pub(in crate::index) distances: usize,
}

/// Says which rows a walk may find. All rows are walked through.
pub(in crate::index) trait Judge {
    /// Asks for the memory that `accepts` will read.
    fn prefetch(&self, row: u32);
    /// Whether a row that is near enough may be found.
    fn accepts(&mut self, row: u32, score: f32) -> bool;
    /// Whether judging has cost so much that the walk is to give up.
    #[inline(always)]
    fn is_spent(&self) -> bool {
        false
    }
}

/// Accepts all.
pub(in crate::index) struct Everyone;

impl Judge for Everyone {
    #[inline(always)]
    fn prefetch(&self, _: u32) {}

    #[inline(always)]
    fn accepts(&mut self, _: u32, _: f32) -> bool {
        true
    }
}

/// What a walk goes along.
pub(in crate::index) trait Neighbours {
    /// The neighbours of a row on a level.
    fn of(&self, row: u32, level: usize) -> Row<'_>;
    /// Asks for the memory of those on level 0.
    fn prefetch(&self, row: u32);
}

impl Neighbours for Links {
    #[inline(always)]
    fn of(&self, row: u32, level: usize) -> Row<'_> {
        Self::of(self, row, level)
    }

    #[inline(always)]
    fn prefetch(&self, row: u32) {
        self.base.prefetch(row);
    }
}

/// Level 0 alone, as any thread sees it.
impl Neighbours for SharedLinks {
    #[inline(always)]
    fn of(&self, row: u32, level: usize) -> Row<'_> {
        debug_assert_eq!(level, 0, "higher levels belong to the main thread");
        self.links(row)
    }

    #[inline(always)]
    fn prefetch(&self, row: u32) {
        Self::prefetch(self, row);
    }
}

/// One walk.
#[derive(Debug)]
pub(in crate::index) struct Walk<'a, L> {
    pub(in crate::index) links: &'a L,
    pub(in crate::index) codes: Codes<'a>,
    pub(in crate::index) target: Target<'a>,
    pub(in crate::index) level: usize,
    /// Rows to find.
    pub(in crate::index) ef: usize,
    /// Rows of the index; bounds the stamps.
    pub(in crate::index) rows: usize,
    /// Distances after which the walk gives up.
    pub(in crate::index) most: usize,
}

impl Walk<'_, Links> {
    /// Walks from the entry point of a graph, on whose level this starts, down to where a walk on level 0
    /// is to start: `points`.
    pub(in crate::index) fn descend(mut self, scratch: &mut Scratch, entry: u32) {
        self.ef = 1;
        scratch.start_at(&self, entry);
        while self.level > 0 {
            scratch.walk(&self, &mut Everyone);
            self.level -= 1;
        }
    }
}

impl Scratch {
    /// Makes one row the starting point.
    pub(in crate::index) fn start_at<L>(&mut self, walk: &Walk<'_, L>, row: u32) {
        self.distances += 1;
        self.points.clear();
        self.points.push(pack(walk.codes.similarity(&walk.target, row), row));
    }

    /// Makes some points the start, as another walk found them.
    pub(in crate::index) fn start_from(&mut self, points: &[u64]) {
        self.distances = 0;
        self.points.clear();
        self.points.extend_from_slice(points);
    }

    /// Whether the last walk met a row.
    #[inline(always)]
    pub(in crate::index) fn has_seen(&self, row: u32) -> bool {
        self.visited.contains(row)
    }

    /// Walks from `points`; afterwards they are what was found. Returns whether the walk came to its
    /// end, and did not give up.
    pub(in crate::index) fn walk(
        &mut self,
        walk: &Walk<'_, impl Neighbours>,
        judge: &mut impl Judge,
    ) -> bool {
        self.visited.begin(walk.rows);
        self.open.clear();
        self.found.clear();
        for &point in &self.points {
            self.visited.insert(row_of(point));
            self.open.push(point);
            if judge.accepts(row_of(point), score_of(point)) {
                self.found.push(Reverse(point));
            }
        }
        let ended = self.expand(walk, judge);
        self.points.clear();
        self.points.extend(self.found.drain().map(|Reverse(point)| point));
        self.points.sort_unstable_by(|a, b| b.cmp(a));
        self.points.truncate(walk.ef);
        if self.open.capacity() > HEAP_KEPT {
            self.open.clear();
            self.open.shrink_to(HEAP_KEPT);
        }
        ended
    }

    fn expand(&mut self, walk: &Walk<'_, impl Neighbours>, judge: &mut impl Judge) -> bool {
        let mut spent = 0;
        while let Some(nearest) = self.open.pop() {
            let full = self.found.len() >= walk.ef;
            if full && self.found.peek().is_some_and(|worst| nearest < worst.0) {
                break;
            }
            self.collect_fresh(walk, row_of(nearest));
            if walk.level == 0
                && let Some(&next) = self.open.peek()
            {
                walk.links.prefetch(row_of(next));
            }
            spent += self.fresh.len();
            self.score_fresh(walk, judge);
            if spent > walk.most || judge.is_spent() {
                self.distances += spent;
                return false;
            }
        }
        self.distances += spent;
        true
    }

    /// Gathers the neighbours of a row that were not seen yet, and asks for the codes of the first.
    #[inline(always)]
    fn collect_fresh(&mut self, walk: &Walk<'_, impl Neighbours>, row: u32) {
        let links = walk.links.of(row, walk.level);
        self.fresh.resize(links.len(), 0);
        let (mut fresh, mut asked) = (0, 0);
        for part in links.chunks(LINKS_AT_ONCE) {
            for row in part.iter() {
                // Written in any case: a branch on whether a row is new would often be guessed wrong.
                self.fresh[fresh] = row;
                fresh += usize::from(self.visited.insert(row));
            }
            while asked < fresh.min(PREFETCH_ROWS) {
                walk.codes.prefetch(self.fresh[asked]);
                asked += 1;
            }
        }
        self.fresh.truncate(fresh);
    }

    #[inline(always)]
    fn score_fresh(&mut self, walk: &Walk<'_, impl Neighbours>, judge: &mut impl Judge) {
        let mut worst = self.worst(walk.ef);
        // The row that is walked on from next: a better one that is seen on the way has its links asked for.
        let mut next = self.open.peek().copied().unwrap_or(0);
        self.near.clear();
        for (place, &row) in self.fresh.iter().enumerate() {
            if let Some(&ahead) = self.fresh.get(place + PREFETCH_ROWS) {
                walk.codes.prefetch(ahead);
            }
            let packed = pack(walk.codes.similarity(&walk.target, row), row);
            if packed > worst {
                judge.prefetch(row);
                if packed > next && walk.level == 0 {
                    next = packed;
                    walk.links.prefetch(row);
                }
                self.near.push(packed);
            }
        }
        for &packed in &self.near {
            if packed <= worst {
                continue;
            }
            self.open.push(packed);
            if !judge.accepts(row_of(packed), score_of(packed)) {
                continue;
            }
            if self.found.len() < walk.ef {
                self.found.push(Reverse(packed));
            } else if let Some(mut last) = self.found.peek_mut() {
                *last = Reverse(packed);
            }
            worst = self.worst(walk.ef);
        }
    }

    /// What a row must pass to be found.
    fn worst(&self, ef: usize) -> u64 {
        match self.found.peek() {
            Some(worst) if self.found.len() >= ef => worst.0,
            _ => 0,
        }
    }

    pub(in crate::index) fn bytes(&self) -> usize {
        allocated_bytes(self.visited.stamps.capacity())
            + allocated_bytes(self.open.capacity() * size_of::<u64>())
            + allocated_bytes(self.found.capacity() * size_of::<u64>())
            + allocated_bytes(self.points.capacity() * size_of::<u64>())
            + allocated_bytes(self.near.capacity() * size_of::<u64>())
            + allocated_bytes(self.fresh.capacity() * size_of::<u32>())
            + allocated_bytes(self.rows.capacity() * size_of::<u32>())
    }
}
