//! Which rows a filter lets through, of the filters that are asked for again: a bit a row, kept as entries
//! come and go. What few rows pass is then found by comparing those alone, where a scan would judge all.
//!
//! Owns: the bits. They only suggest: a row is judged again before it is found, so a bit that outlived its entry
//! costs a glance. A row that passes always has its bit. Derived, never saved. Main thread only.

use super::slots::Slots;
use crate::filter::{Filter, FilterRecord};
use crate::ids::SlotId;
use crate::work::Steps;
use std::collections::VecDeque;

/// Filters whose rows are known: two bytes a row when all are.
const KNOWN_MAX: usize = 16;
/// Filters that were asked for once: an application that asks for another each time is to pay nothing.
const SEEN_MAX: usize = 32;

/// RowSet judged each time a filter is asked for until all are known: half a millisecond, where a million at
/// once would hold up every client for fifty.
const JUDGED_AT_ONCE: u32 = 8_192;
const TERMS_AT_ONCE: u64 = 1 << 15;

/// Filters of more values and operators are not remembered: each store judges its entry by all that are.
const TERMS_MAX: u64 = 64;
/// Steps that judging one entry may take; where more are needed the row is held to pass.
const STEPS_MAX: u32 = 512;

/// The rows of filters that were asked for again.
#[derive(Debug, Default)]
pub(super) struct FilterCache {
    /// Most lately asked for at the back.
    known: VecDeque<Known>,
    seen: VecDeque<Filter>,
}

#[derive(Debug)]
struct Known {
    filter: Filter,
    rows: RowSet,
    /// RowSet before this one were judged; all are once it has reached the end.
    judged: u32,
    is_complete: bool,
}

impl Known {
    fn new(filter: Filter) -> Self {
        Self { filter, rows: RowSet::default(), judged: 0, is_complete: false }
    }

    /// Judges some more rows of those that were there before the filter was remembered.
    fn judge_some(&mut self, slots: &Slots) {
        let end = slots.end();
        let mut steps = Steps::default();
        while !self.is_complete && self.judged < end {
            let slot = slots.get(SlotId(self.judged)).filter(|slot| slot.has_code());
            if slot.is_some_and(|slot| may_pass(&self.filter, slot.record, &mut steps)) {
                self.rows.set(self.judged, true);
            }
            self.judged += 1;
            if self.judged.is_multiple_of(JUDGED_AT_ONCE) || steps.terms >= TERMS_AT_ONCE {
                break;
            }
        }
        self.is_complete |= self.judged >= end;
    }
}

/// A set of rows.
#[derive(Debug, Default)]
pub(super) struct RowSet {
    words: Vec<u64>,
    count: usize,
}

impl RowSet {
    fn set(&mut self, row: u32, is_in: bool) {
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        if word >= self.words.len() {
            if !is_in {
                return;
            }
            self.words.resize(word + 1, 0);
        }
        let was_in = self.words[word] & bit != 0;
        match (was_in, is_in) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => return,
        }
        self.words[word] ^= bit;
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Writes them to `out`, in their order.
    pub(super) fn list(&self, out: &mut Vec<u32>) {
        out.clear();
        for (place, &word) in self.words.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                out.push(place as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }
}

fn may_pass(filter: &Filter, record: Option<&FilterRecord>, steps: &mut Steps) -> bool {
    filter.may_match(record, STEPS_MAX, steps)
}

impl FilterCache {
    /// The rows that a filter lets through, if it was asked for before, often enough to have judged them
    /// all; from now on it was.
    pub(super) fn rows_of(&mut self, filter: &Filter, slots: &Slots) -> Option<&RowSet> {
        if filter.cost().terms > TERMS_MAX {
            return None;
        }
        let at = self.known.iter().position(|known| known.filter == *filter);
        let mut known = match at.and_then(|at| self.known.remove(at)) {
            Some(known) => known,
            None => {
                let Some(at) = self.seen.iter().position(|seen| seen == filter) else {
                    self.seen.truncate(SEEN_MAX - 1);
                    self.seen.push_front(filter.clone());
                    return None;
                };
                if self.known.len() == KNOWN_MAX {
                    self.known.pop_front();
                }
                Known::new(self.seen.remove(at)?)
            }
        };
        known.judge_some(slots);
        self.known.push_back(known);
        self.known.back().filter(|known| known.is_complete).map(|known| &known.rows)
    }

    /// An entry came to a row.
    pub(super) fn came(&mut self, row: u32, has_code: bool, record: Option<&FilterRecord>) {
        for known in &mut self.known {
            let may_pass = has_code && may_pass(&known.filter, record, &mut Steps::default());
            known.rows.set(row, may_pass);
        }
    }

    /// The entry of a row went. Allocates nothing.
    pub(super) fn went(&mut self, row: u32) {
        for known in &mut self.known {
            known.rows.set(row, false);
        }
    }

    /// Memory held, filters themselves aside.
    pub(super) fn bytes(&self) -> usize {
        self.known.iter().map(|known| known.rows.words.capacity() * size_of::<u64>()).sum()
    }
}
