//! The texts that match a question of words best.
//!
//! Owns: the order of a search. Lists are walked row by row; a row, or a whole block of them, that cannot come among the best is passed over unread
//! (block-max WAND, Ding and Suel 2011). What is found is what comparing every text would find, to the bit.
//!
//! A search goes in rounds: it keeps the best so far and the row where it goes on, and texts may come and go between.
//! Main thread.

use super::bm25::{Weighing, idf};
use super::index::WordIndex;
use super::postings::{NO_ROWS, Postings, Rows};
use super::query::{Clause, Means, Need, WordQuery};
use crate::limits::WORDS_EXPANSIONS_MAX;
use crate::work::Steps;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Behind every row.
const END: u32 = u32::MAX;
/// What bounds are widened by, as sums of rounded terms depend on their order.
const SLACK: f64 = 1.0 + 1e-9;

/// A text that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Its row.
    pub row: u32,
    /// Its score.
    pub score: f64,
}

/// By score, of equals the smaller row first.
#[derive(Debug, Clone, PartialEq)]
struct ByScore(Scored);

impl Eq for ByScore {}

impl PartialOrd for ByScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_score = self.0.score.total_cmp(&other.0.score);
        by_score.then_with(|| other.0.row.cmp(&self.0.row))
    }
}

/// The words that a clause means.
#[derive(Debug, Clone, Default)]
struct Expansion {
    /// The words, and in how many texts each is.
    terms: Vec<(String, u32)>,
    idf: f64,
}

/// A search that goes on until it is done.
#[derive(Debug, Clone)]
pub struct WordSearch {
    limit: usize,
    clauses: Vec<Clause>,
    expansions: Vec<Expansion>,
    /// The clause that is expanded, and the number of the word where that goes on.
    expanding: (usize, u32),
    /// Where the walk goes on.
    next_row: u32,
    /// Words of a text on average.
    mean_length: f64,
    best: BinaryHeap<Reverse<ByScore>>,
}

/// A place in the list of a word.
struct Cursor<'a> {
    postings: &'a Postings,
    clause: usize,
    need: Need,
    weight: f64,
    /// The most that the word adds to a text.
    most: f64,
    block: usize,
    rows: Rows,
    count: usize,
    at: usize,
    /// The row it stands at.
    row: u32,
    /// The block of the last bound that was asked for.
    seen: usize,
    /// That bound, and the last row for which it holds; none has been asked for while that is nothing.
    seen_bound: (f64, Option<u32>),
}

impl<'a> Cursor<'a> {
    fn go_to(&mut self, row: u32, steps: &mut Steps) {
        if self.row >= row {
            return;
        }
        if self.at >= self.count || self.rows[self.count - 1].row < row {
            self.block = self.postings.block_from(self.block, row);
            self.count = self.postings.read_block(self.block, &mut self.rows);
            self.at = 0;
            steps.rows += (self.count / 8) as u64 + 1;
        }
        let rest = &self.rows[self.at..self.count];
        self.at += rest.partition_point(|posting| posting.row < row);
        self.row = if self.at < self.count { self.rows[self.at].row } else { END };
    }

    /// The most that the word adds to the text of a row, and the last row for which that holds.
    #[inline]
    fn bound_at(&mut self, row: u32, weighing: Weighing) -> (f64, u32) {
        if let (bound, Some(last)) = self.seen_bound
            && row <= last
        {
            return (bound, last);
        }
        self.seen = self.postings.block_from(self.seen, row);
        let (bound, last) = match self.postings.block_bound(self.seen) {
            Some((last, bound)) => (weighing.bound(self.weight, bound), last),
            None => (0.0, END),
        };
        self.seen_bound = (bound, Some(last));
        (bound, last)
    }
}

impl WordSearch {
    /// A search for the best `limit` texts.
    pub fn new(index: &WordIndex, query: &WordQuery, limit: usize) -> Self {
        Self {
            limit,
            clauses: query.clauses.clone(),
            expansions: vec![Expansion::default(); query.clauses.len()],
            expanding: (0, 0),
            next_row: 0,
            mean_length: (index.total_length() as f64 / index.len().max(1) as f64).max(1.0),
            best: BinaryHeap::new(),
        }
    }

    /// Goes on for about so many steps; whether it is done. `accepts` tells whether a row that would be among the best
    /// counts at all.
    pub fn run(
        &mut self,
        index: &WordIndex,
        most_steps: u64,
        steps: &mut Steps,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> bool {
        let end = steps.weight().saturating_add(most_steps);
        if !self.expand(index, end, steps) {
            return false;
        }
        if self.limit == 0 || self.clauses.is_empty() {
            return true;
        }
        let mut cursors = self.cursors(index, steps);
        self.walk(index, &mut cursors, end, steps, &mut accepts)
    }

    /// The texts found, best first.
    pub fn best(&self) -> Vec<Scored> {
        let mut best: Vec<_> = self.best.iter().collect();
        best.sort_unstable();
        best.into_iter().map(|Reverse(ByScore(scored))| *scored).collect()
    }

    /// The score of a row, 0 where it has none of the words; `None` where it has not what it must have, or has what it
    /// must not. To be asked when the search is done.
    pub fn score_of(&self, index: &WordIndex, row: u32, steps: &mut Steps) -> Option<f64> {
        if !index.has(row) {
            return None;
        }
        let (weighing, length) = (self.weighing(), index.length_of(row));
        let mut score = 0.0;
        for (clause, expansion) in self.clauses.iter().zip(&self.expansions) {
            let mut has = false;
            for (text, _) in &expansion.terms {
                steps.rows += 16;
                let Some(term) = index.term(text) else { continue };
                let count = term.postings.count_in(row);
                if count > 0 {
                    has = true;
                    let weight = expansion.idf * f64::from(clause.times);
                    score += weighing.score(weight, count, length);
                }
            }
            match clause.need {
                Need::Required if !has => return None,
                Need::Excluded if has => return None,
                _ => {}
            }
        }
        Some(score)
    }

    fn weighing(&self) -> Weighing {
        Weighing { mean_length: self.mean_length }
    }

    /// Finds the words that clauses mean; whether that is done.
    fn expand(&mut self, index: &WordIndex, end: u64, steps: &mut Steps) -> bool {
        while self.expanding.0 < self.clauses.len() {
            let clause = &self.clauses[self.expanding.0];
            let expansion = &mut self.expansions[self.expanding.0];
            if clause.means == Means::Exact {
                let rows = index.term(&clause.term).map(|term| term.postings.rows());
                expansion.terms.extend(rows.map(|rows| (clause.term.clone(), rows)));
                steps.rows += 1;
            } else {
                while self.expanding.1 < index.dictionary().end() {
                    if steps.weight() >= end {
                        return false;
                    }
                    let number = self.expanding.1;
                    self.expanding.1 += 1;
                    steps.rows += 1;
                    let Some(term) = index.dictionary().term(number) else { continue };
                    if clause.means(&term.text) {
                        expansion.note(&term.text, term.postings.rows());
                    }
                }
            }
            expansion.settle(index.len());
            self.expanding = (self.expanding.0 + 1, 0);
        }
        true
    }

    /// A place in each list, where the walk goes on.
    fn cursors<'a>(&self, index: &'a WordIndex, steps: &mut Steps) -> Vec<Cursor<'a>> {
        let weighing = self.weighing();
        let mut cursors = Vec::new();
        for (number, (clause, expansion)) in self.clauses.iter().zip(&self.expansions).enumerate() {
            for (text, _) in &expansion.terms {
                let Some(term) = index.term(text) else { continue };
                let weight = match clause.need {
                    Need::Excluded => 0.0,
                    _ => expansion.idf * f64::from(clause.times),
                };
                let mut cursor = Cursor {
                    postings: &term.postings,
                    clause: number,
                    need: clause.need,
                    weight,
                    most: weighing.bound(weight, term.postings.bound()),
                    block: 0,
                    rows: NO_ROWS,
                    count: 0,
                    at: 0,
                    row: 0,
                    seen: 0,
                    seen_bound: (0.0, None),
                };
                cursor.count = cursor.postings.read_block(0, &mut cursor.rows);
                cursor.row = cursor.rows[0].row;
                cursor.go_to(self.next_row, steps);
                cursors.push(cursor);
            }
        }
        cursors
    }

    /// Walks on; whether the end was reached.
    fn walk(
        &mut self,
        index: &WordIndex,
        cursors: &mut [Cursor<'_>],
        end: u64,
        steps: &mut Steps,
        accepts: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let weighing = self.weighing();
        let is_strict = self.clauses.iter().any(|clause| clause.need == Need::Required);
        // Places of the cursors that add to a score, by the row they stand at.
        let mut order: SmallVec<[usize; 16]> =
            (0..cursors.len()).filter(|&place| cursors[place].need != Need::Excluded).collect();
        for passed in 0.. {
            order.sort_unstable_by_key(|&place| cursors[place].row);
            // A round goes on for one row at least.
            if passed > 0 && steps.weight() >= end {
                self.next_row = order.first().map_or(END, |&place| cursors[place].row);
                return self.next_row == END;
            }
            let least = self.least();
            let Some(mut pivot) = self.pivot(cursors, &order, least) else { return true };
            if is_strict {
                pivot = pivot.max(self.first_possible(cursors));
            }
            if pivot == END {
                return true;
            }
            steps.rows += 1 + cursors.len() as u64 / 8;
            let (most, behind) = most_at(cursors, &order, pivot, weighing);
            if self.best.len() == self.limit && most * SLACK <= least {
                order.iter().for_each(|&place| cursors[place].go_to(behind, steps));
                continue;
            }
            order.iter().for_each(|&place| cursors[place].go_to(pivot, steps));
            if order.iter().any(|&place| cursors[place].row == pivot) {
                self.judge(index, cursors, pivot, steps, accepts);
                order.iter().for_each(|&place| cursors[place].go_to(pivot + 1, steps));
            }
        }
        true
    }

    /// The score that a text has to exceed.
    fn least(&self) -> f64 {
        if self.best.len() < self.limit {
            return f64::NEG_INFINITY;
        }
        self.best.peek().map_or(f64::NEG_INFINITY, |Reverse(ByScore(worst))| worst.score)
    }

    /// The first row that may exceed it, by what each word adds at most; none where no row can.
    fn pivot(&self, cursors: &[Cursor<'_>], order: &[usize], least: f64) -> Option<u32> {
        let mut most = 0.0;
        for &place in order {
            let cursor = &cursors[place];
            if cursor.row == END {
                return None;
            }
            most += cursor.most;
            if most * SLACK > least {
                return Some(cursor.row);
            }
        }
        None
    }

    /// The first row that may have all words that must occur.
    fn first_possible(&self, cursors: &[Cursor<'_>]) -> u32 {
        let required = self.clauses.iter().enumerate();
        let required = required.filter(|(_, clause)| clause.need == Need::Required);
        let first_of = |number: usize| {
            let rows = cursors.iter().filter(|cursor| cursor.clause == number);
            rows.map(|cursor| cursor.row).min().unwrap_or(END)
        };
        required.map(|(number, _)| first_of(number)).max().unwrap_or(0)
    }

    /// Scores the row at which cursors stand, and keeps it if it is among the best.
    fn judge(
        &mut self,
        index: &WordIndex,
        cursors: &mut [Cursor<'_>],
        row: u32,
        steps: &mut Steps,
        accepts: &mut impl FnMut(u32) -> bool,
    ) {
        steps.rows += 1;
        let (weighing, length) = (self.weighing(), index.length_of(row));
        let mut score = 0.0;
        for cursor in cursors.iter_mut() {
            if cursor.need == Need::Excluded {
                cursor.go_to(row, steps);
                if cursor.row == row {
                    return;
                }
            } else if cursor.row == row {
                score += weighing.score(cursor.weight, cursor.rows[cursor.at].count, length);
            }
        }
        let has = |number: usize| cursors.iter().any(|c| c.clause == number && c.row == row);
        let mut required = self.clauses.iter().enumerate();
        if required.any(|(number, clause)| clause.need == Need::Required && !has(number)) {
            return;
        }
        if score <= self.least() || !index.has(row) || !accepts(row) {
            return;
        }
        self.best.push(Reverse(ByScore(Scored { row, score })));
        if self.best.len() > self.limit {
            self.best.pop();
        }
    }
}

/// The most that a row scores by the blocks it would stand in, and the next row for which that may differ.
fn most_at(
    cursors: &mut [Cursor<'_>],
    order: &[usize],
    row: u32,
    weighing: Weighing,
) -> (f64, u32) {
    let (mut most, mut behind) = (0.0, END);
    for &place in order {
        let cursor = &mut cursors[place];
        if cursor.row > row {
            behind = behind.min(cursor.row);
            continue;
        }
        let (bound, last) = cursor.bound_at(row, weighing);
        most += bound;
        behind = behind.min(last.saturating_add(1));
    }
    (most, behind.max(row + 1))
}

impl Expansion {
    /// Notes a word that is meant. Of more than may be, those count that most texts have.
    fn note(&mut self, text: &str, rows: u32) {
        self.terms.push((text.to_owned(), rows));
        if self.terms.len() >= 2 * WORDS_EXPANSIONS_MAX {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.terms.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        self.terms.truncate(WORDS_EXPANSIONS_MAX);
    }

    /// All words are known: they weigh as one that all their texts have.
    fn settle(&mut self, live: u64) {
        self.cut();
        let rows: u64 = self.terms.iter().map(|&(_, rows)| u64::from(rows)).sum();
        self.idf = idf(rows.min(live) as f64, live as f64);
    }
}
