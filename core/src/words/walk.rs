//! A walk over the rows of several words, window by window.
//!
//! Owns: where the walk stands in each list, the most a list adds to a text of a window, and what the texts of a window
//! are about worth by the lists that were read. Main thread.

use super::bm25::Weighing;
use super::index::WordIndex;
use super::postings::{NO_ROWS, Postings, Rows};
use crate::work::Steps;

/// Rows of a window at most: their scores lie in the cache nearest to the processor.
const WIDTH_MAX: u32 = 4_096;
/// Lists and rows of a window, multiplied, at most about: what is done in one go.
const WORK_MAX: usize = 32_768;
/// No block is read.
const NO_BLOCK: usize = usize::MAX;

/// A word's list, and where the walk stands in it.
pub(super) struct List<'a> {
    pub(super) postings: &'a Postings,
    /// The number of the word.
    pub(super) number: u32,
    /// Which clause means the word.
    pub(super) clause: usize,
    pub(super) weight: f64,
    /// The most that the word adds to a text of the window; 0 where none has it.
    pub(super) here: f64,
    /// Rows of the blocks that the window meets.
    pub(super) rows_here: usize,
    /// The first block that ends in the window or behind it.
    block: usize,
    /// The block that was read last, its rows, and which of them is next.
    read: usize,
    rows: Rows,
    count: usize,
    at: usize,
}

impl<'a> List<'a> {
    pub(super) fn new(postings: &'a Postings, number: u32, clause: usize, weight: f64) -> Self {
        Self {
            postings,
            number,
            clause,
            weight,
            here: 0.0,
            rows_here: 0,
            block: 0,
            read: NO_BLOCK,
            rows: NO_ROWS,
            count: 0,
            at: 0,
        }
    }

    /// Goes on to a window.
    pub(super) fn enter(&mut self, start: u32, until: u32, weighing: Weighing, steps: &mut Steps) {
        self.block = self.postings.block_from(self.block, start);
        (self.here, self.rows_here) = (0.0, 0);
        steps.rows += 1;
        for block in self.block.. {
            let Some((first, bound)) = self.postings.block_bound(block) else { break };
            if first >= until {
                break;
            }
            self.rows_here += self.postings.block_rows(block);
            self.here = self.here.max(weighing.bound(self.weight, bound));
        }
    }

    /// Adds what the word is about worth to the texts of the window.
    pub(super) fn add_to(
        &mut self,
        window: &mut Window,
        until: u32,
        of: Which,
        index: &WordIndex,
        weighing: Weighing,
        steps: &mut Steps,
    ) {
        let about = weighing.about(self.weight);
        for block in self.block.. {
            match self.postings.block_bound(block) {
                Some((first, _)) if first < until => {}
                _ => break,
            }
            if self.read != block {
                self.count = self.postings.read_block(block, &mut self.rows);
                (self.read, self.at) = (block, 0);
                steps.rows += self.count as u64 / 8 + 1;
            }
            let rest = &self.rows[self.at..self.count];
            self.at += rest.partition_point(|posting| posting.row < window.start);
            let rest = &self.rows[self.at..self.count];
            let rest = &rest[..rest.partition_point(|posting| posting.row < until)];
            steps.rows += rest.len() as u64 / 8;
            for posting in rest {
                if of == Which::All || window.has_row(posting.row) {
                    let length = index.length_of(posting.row);
                    window.add(posting.row, about.score(posting.count, length));
                }
            }
            self.at += rest.len();
        }
    }
}

/// To which texts of a window a word is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that have another word.
    Known,
}

/// What the texts of some rows are about worth.
pub(super) struct Window {
    start: u32,
    width: u32,
    scores: Vec<f32>,
    /// Rows that have a score, a bit each.
    has: Vec<u64>,
}

impl Window {
    /// As wide as suits so many lists.
    pub(super) fn of(lists: usize) -> Self {
        let most = (WORK_MAX / lists.max(1)).next_power_of_two() as u32;
        let width = most.clamp(u64::BITS, WIDTH_MAX);
        let (scores, has) = (vec![0.0; width as usize], vec![0; (width / u64::BITS) as usize]);
        Self { start: 0, width, scores, has }
    }

    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// Begins at a row, with nothing.
    pub(super) fn start_at(&mut self, start: u32) {
        self.start = start;
    }

    #[inline]
    fn add(&mut self, row: u32, score: f32) {
        let at = (row - self.start) as usize;
        self.scores[at] += score;
        self.has[at / 64] |= 1 << (at % 64);
    }

    #[inline]
    fn has_row(&self, row: u32) -> bool {
        let at = (row - self.start) as usize;
        self.has[at / 64] >> (at % 64) & 1 == 1
    }

    /// How many rows have at least a score.
    pub(super) fn count_from(&self, least: f64) -> usize {
        let counts = |word: usize, mut left: u64| {
            let mut count = 0;
            while left != 0 {
                let at = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                count += usize::from(f64::from(self.scores[at]) >= least);
            }
            count
        };
        self.has.iter().enumerate().map(|(word, &bits)| counts(word, bits)).sum()
    }

    /// Takes all rows out, and tells those that have at least a score.
    pub(super) fn take_from(&mut self, least: f64, out: &mut Vec<(f32, u32)>) {
        out.clear();
        for (word, bits) in self.has.iter_mut().enumerate() {
            let mut left = std::mem::take(bits);
            while left != 0 {
                let at = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let score = std::mem::take(&mut self.scores[at]);
                if f64::from(score) >= least {
                    out.push((score, self.start + at as u32));
                }
            }
        }
    }
}
