//! The texts that match a question of words best.
//!
//! Owns: the order of a search. Rows are walked window by window. The lists of a window that together cannot bring a
//! text among the best are left unread (MaxScore, Turtle and Flood 1995; bounds by block, Ding and Suel 2011); those
//! read add what they are about worth to the rows of the window, and of a row that may be among the best the exact score is
//! made of the words that the row keeps. What is found is what comparing every text would find, to the bit.
//!
//! A search goes in rounds: it keeps the best so far and the row where it goes on, and texts may come and go between.
//! Main thread.

use super::bm25::{Scored, Weighing, idf};
use super::feedback::words_of;
use super::index::WordIndex;
use super::packed::unpack;
use super::query::{Clause, Means, Need, WordQuery};
use super::walk::{List, Which, Window};
use crate::limits::{WORDS_EXPANSIONS_MAX, WORDS_FEEDBACK_TEXTS};
use crate::work::Steps;
use smallvec::{SmallVec, smallvec};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Behind every row.
const END: u32 = u32::MAX;
/// What bounds are widened by: sums of rounded terms depend on their order, and those of a window are of single precision.
const SLACK: f64 = 1.0 + 1e-4;
/// Words of a row in so few bytes are read as a whole; of longer rows each list is asked.
const READ_WHOLE_BYTES: usize = 1_024;
/// Rows of a list that are read in the time in which one text is scored exactly.
const ROWS_A_TEXT: usize = 32;

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
    /// How many texts are looked for, and how many of them now.
    wanted: usize,
    limit: usize,
    /// Whether those looked for now are to tell words that are added.
    learns: bool,
    clauses: Vec<Clause>,
    /// How much each clause counts.
    weights: Vec<f64>,
    expansions: Vec<Expansion>,
    /// The clause that is expanded, and the number of the word where that goes on.
    expanding: (usize, u32),
    /// Where the walk goes on.
    next_row: u32,
    /// Words of a text on average.
    mean_length: f64,
    best: BinaryHeap<Reverse<ByScore>>,
}

impl WordSearch {
    /// A search for the best `limit` texts.
    pub fn new(index: &WordIndex, query: &WordQuery, limit: usize) -> Self {
        let learns = query.learns && limit > 0;
        Self {
            wanted: limit,
            limit: if learns { WORDS_FEEDBACK_TEXTS } else { limit },
            learns,
            clauses: query.clauses.clone(),
            weights: query.clauses.iter().map(|clause| f64::from(clause.times)).collect(),
            expansions: vec![Expansion::default(); query.clauses.len()],
            expanding: (0, 0),
            next_row: 0,
            mean_length: (index.total_length() as f64 / index.len().max(1) as f64).max(1.0),
            best: BinaryHeap::new(),
        }
    }

    /// How many texts it looks for.
    pub fn texts_wanted(&self) -> usize {
        self.wanted
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
        let mut lists = self.lists(index);
        let is_done = self.walk(index, &mut lists, end, steps, &mut accepts);
        if is_done && self.learns {
            self.learn(index, steps);
            return false;
        }
        is_done
    }

    /// Adds the words that the best texts have, and begins anew.
    fn learn(&mut self, index: &WordIndex, steps: &mut Steps) {
        let asked = self.weights.iter().sum();
        for added in words_of(index, &self.best(), asked, steps) {
            let (means, need) = (Means::Exact, Need::Adds);
            self.clauses.push(Clause { term: added.term.clone(), means, need, times: 1 });
            self.weights.push(added.weight);
            self.expansions
                .push(Expansion { terms: vec![(added.term, added.rows)], idf: added.idf });
        }
        self.expanding = (self.clauses.len(), 0);
        (self.learns, self.limit, self.next_row) = (false, self.wanted, 0);
        self.best.clear();
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
        let (mut score, mut is_found) = (0.0, false);
        for (number, (clause, expansion)) in self.clauses.iter().zip(&self.expansions).enumerate() {
            let mut has = false;
            for (text, _) in &expansion.terms {
                steps.rows += 16;
                let Some(term) = index.term(text) else { continue };
                let count = term.postings.count_in(row);
                if count > 0 {
                    has = true;
                    let weight = expansion.idf * self.weights[number];
                    score += weighing.score(weight, count, length);
                }
            }
            match clause.need {
                Need::Required if !has => return None,
                Need::Excluded if has => return None,
                need => is_found |= has && need != Need::Adds,
            }
        }
        Some(if is_found { score } else { 0.0 })
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

    /// The list of each word.
    fn lists<'a>(&self, index: &'a WordIndex) -> Vec<List<'a>> {
        let mut lists = Vec::new();
        for (clause, expansion) in self.expansions.iter().enumerate() {
            for (text, _) in &expansion.terms {
                let Some(number) = index.dictionary().find(text) else { continue };
                let Some(term) = index.dictionary().term(number) else { continue };
                let weight = expansion.idf * self.weights[clause];
                lists.push(List::new(&term.postings, number, clause, weight));
            }
        }
        lists
    }

    /// Walks on; whether the end was reached.
    fn walk(
        &mut self,
        index: &WordIndex,
        lists: &mut [List<'_>],
        end: u64,
        steps: &mut Steps,
        accepts: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let judge = Judge::new(&self.clauses, lists, self.weighing());
        let leading = self.leading_clause(lists);
        // Places of the lists that add to a score.
        let counts = |list: &List<'_>| self.clauses[list.clause].need != Need::Excluded;
        let mut order: SmallVec<[usize; 16]> =
            (0..lists.len()).filter(|&place| counts(&lists[place])).collect();
        let mut window = Window::of(lists.len());
        let mut found = Vec::new();
        for passed in 0.. {
            let (start, rows) = (self.next_row, index.row_end());
            if start >= rows || order.is_empty() {
                self.next_row = END;
                return true;
            }
            // A round goes on for one window at least.
            if passed > 0 && steps.weight() >= end {
                return false;
            }
            let until = start.saturating_add(window.width()).min(rows);
            for &place in &order {
                lists[place].enter(start, until, judge.weighing, steps);
            }
            if let Some(read) = self.split(lists, &mut order, leading) {
                window.start_at(start);
                let of_window = (until, judge.weighing);
                let rest = self.read(index, lists, &order, read, &mut window, of_window, steps);
                let from = self.least() / SLACK - rest;
                window.take_from(from, &mut found);
                // The best first, so that the others need not be looked into.
                if found.len() > 2 * self.limit {
                    let by_score = |one: &(f32, u32), other: &(f32, u32)| other.0.total_cmp(&one.0);
                    found.select_nth_unstable_by(2 * self.limit, by_score);
                }
                for &(score, row) in &found {
                    if (f64::from(score) + rest) * SLACK >= self.least() {
                        self.judge(index, &judge, lists, row, steps, accepts);
                    }
                }
            }
            self.next_row = until;
        }
        true
    }

    /// Orders lists by what they add at most to a text of the window. Those from the place returned on have to be read,
    /// the others together bring no text among the best; nothing where no text of the window can be among the best.
    fn split(
        &self,
        lists: &[List<'_>],
        order: &mut [usize],
        leading: Option<usize>,
    ) -> Option<usize> {
        // Only texts with a word of the leading clause are found, and none by words that only add.
        let leads = |place: usize| match leading {
            Some(clause) => lists[place].clause == clause,
            None => self.clauses[lists[place].clause].need != Need::Adds,
        };
        order.sort_unstable_by(|&one, &other| {
            let by_score = || lists[one].here.total_cmp(&lists[other].here);
            leads(one).cmp(&leads(other)).then_with(by_score)
        });
        let (least, mut sum) = (self.least(), 0.0);
        for (read, &place) in order.iter().enumerate() {
            sum += lists[place].here;
            if lists[place].here > 0.0 && leads(place) && sum * SLACK >= least {
                return Some(read);
            }
        }
        None
    }

    /// Reads the lists from a place on, and of the others as many as are read sooner than the texts are scored that may be
    /// among the best. Returns what the lists that were not read add at most.
    #[expect(clippy::too_many_arguments, reason = "what a window is read with")]
    fn read(
        &self,
        index: &WordIndex,
        lists: &mut [List<'_>],
        order: &[usize],
        read: usize,
        window: &mut Window,
        (until, weighing): (u32, Weighing),
        steps: &mut Steps,
    ) -> f64 {
        for &place in &order[read..] {
            lists[place].add_to(window, until, Which::All, index, weighing, steps);
        }
        let mut unread: SmallVec<[usize; 16]> = SmallVec::from_slice(&order[..read]);
        unread.sort_unstable_by(|&one, &other| lists[one].here.total_cmp(&lists[other].here));
        loop {
            let rest: f64 = unread.iter().map(|&place| lists[place].here).sum();
            let texts = window.count_from(self.least() / SLACK - rest);
            match unread.pop() {
                Some(place) if texts * ROWS_A_TEXT > lists[place].rows_here => {
                    lists[place].add_to(window, until, Which::Known, index, weighing, steps);
                }
                _ => return rest,
            }
        }
    }

    /// Of the clauses that must occur, the one in the fewest texts.
    fn leading_clause(&self, lists: &[List<'_>]) -> Option<usize> {
        let required = self.clauses.iter().enumerate();
        let required = required.filter(|(_, clause)| clause.need == Need::Required);
        let rows_of = |number: usize| {
            let of_clause = lists.iter().filter(|list| list.clause == number);
            of_clause.map(|list| u64::from(list.postings.rows())).sum::<u64>()
        };
        required.map(|(number, _)| number).min_by_key(|&number| rows_of(number))
    }

    /// The score that a text has to exceed.
    fn least(&self) -> f64 {
        if self.best.len() < self.limit {
            return f64::NEG_INFINITY;
        }
        self.best.peek().map_or(f64::NEG_INFINITY, |Reverse(ByScore(worst))| worst.score)
    }

    /// Scores a row, and keeps it if it is among the best.
    fn judge(
        &mut self,
        index: &WordIndex,
        judge: &Judge,
        lists: &[List<'_>],
        row: u32,
        steps: &mut Steps,
        accepts: &mut impl FnMut(u32) -> bool,
    ) {
        let Some(score) = judge.score(index, lists, row, steps) else { return };
        let scored = ByScore(Scored { row, score });
        let is_full = self.best.len() == self.limit;
        let is_worse = |worst: &Reverse<ByScore>| scored <= worst.0;
        if is_full && self.best.peek().is_none_or(is_worse) || !accepts(row) {
            return;
        }
        self.best.push(Reverse(scored));
        if self.best.len() > self.limit {
            self.best.pop();
        }
    }
}

/// Scores rows exactly.
struct Judge {
    weighing: Weighing,
    /// Numbers of words, ascending, with the places of their lists.
    by_number: Vec<(u32, usize)>,
    /// Clauses of which one must occur, that must occur and that must not, a bit each.
    finding: u128,
    required: u128,
    excluded: u128,
}

/// The bit of a clause; words that only add have none.
fn bit(clause: usize) -> u128 {
    1u128.checked_shl(clause as u32).unwrap_or(0)
}

impl Judge {
    fn new(clauses: &[Clause], lists: &[List<'_>], weighing: Weighing) -> Self {
        let mut by_number: Vec<_> =
            lists.iter().enumerate().map(|(place, list)| (list.number, place)).collect();
        by_number.sort_unstable();
        let bits = |need: Need| {
            let with_need = clauses.iter().enumerate().filter(|(_, clause)| clause.need == need);
            with_need.fold(0, |bits, (number, _)| bits | bit(number))
        };
        let (required, excluded) = (bits(Need::Required), bits(Need::Excluded));
        Self { weighing, by_number, finding: required | bits(Need::Counts), required, excluded }
    }

    /// The score of a row; nothing where it is not there, or has not what it must have, or has what it must not.
    fn score(
        &self,
        index: &WordIndex,
        lists: &[List<'_>],
        row: u32,
        steps: &mut Steps,
    ) -> Option<f64> {
        let words = index.words_of(row);
        if words.is_empty() {
            return None;
        }
        let counts = self.counts(words, lists, row, steps);
        let (mut score, mut met, length) = (0.0, 0u128, index.length_of(row));
        // In the order of lists: a sum of floats depends on it.
        for (list, count) in lists.iter().zip(counts).filter(|&(_, count)| count > 0) {
            met |= bit(list.clause);
            if self.excluded & bit(list.clause) == 0 {
                score += self.weighing.score(list.weight, count, length);
            }
        }
        let is_found = met & self.finding != 0 && met & self.excluded == 0;
        (is_found && met & self.required == self.required).then_some(score)
    }

    /// How often the word of each list stands in a row.
    fn counts(
        &self,
        words: &[u8],
        lists: &[List<'_>],
        row: u32,
        steps: &mut Steps,
    ) -> SmallVec<[u32; 16]> {
        let mut counts: SmallVec<[u32; 16]> = smallvec![0; lists.len()];
        if words.len() > READ_WHOLE_BYTES {
            steps.rows += 16 * lists.len() as u64;
            for (count, list) in counts.iter_mut().zip(lists) {
                *count = list.postings.count_in(row);
            }
            return counts;
        }
        steps.rows += 1 + words.len() as u64 / 16;
        let mut wanted = self.by_number.iter().peekable();
        for (number, count) in unpack(words) {
            while wanted.next_if(|(other, _)| *other < number).is_some() {}
            while let Some((_, place)) = wanted.next_if(|(other, _)| *other == number) {
                counts[*place] = count;
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        counts
    }
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
