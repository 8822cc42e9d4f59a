//! Which entries are due: found by a walk over the slots, a few rows at a time.
//!
//! Owns: where the walk is, before when no entry is due, and when another round is worth its while. The
//! index keeps no order of deadlines, which would cost memory with every entry; passing a row costs some
//! nanoseconds. Main thread only.

use super::slots::Slots;
use crate::ids::{Seq, SlotId, UnixMs};

/// Pause between two rounds, at least.
const PAUSE_MIN_MS: u64 = 20;
/// And at most.
const PAUSE_MAX_MS: u64 = 10_000;
/// Rows passed for each millisecond of pause: rounds that find little take some thousandths of the main
/// thread's time, ones that find a hundredth of the rows or more take some hundredths.
const ROWS_PER_MS: u64 = 500;
const ROWS_PER_MS_OF_MANY: u64 = 10_000;

/// What a step of the walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueStep {
    /// This entry is due. It is named once a round.
    Entry(SlotId, Seq),
    /// None of the rows looked at is; there are more.
    Passed,
    /// The round is over, or it is not the time for one.
    Over,
}

/// The walk over the slots of one index.
#[derive(Debug, Default)]
pub(super) struct DueWalk {
    /// No deadline comes before this one; it may be that of an entry that went.
    bound: UnixMs,
    /// The same of the rows passed in this round, and of deadlines set since it began.
    ahead: UnixMs,
    /// Where it goes on.
    next_row: u32,
    /// Due entries found in this round.
    found: u64,
    next_round_at: UnixMs,
}

impl DueWalk {
    /// An entry has this deadline.
    pub(super) fn note(&mut self, expire_at: UnixMs) {
        self.bound = sooner(self.bound, expire_at);
        self.ahead = sooner(self.ahead, expire_at);
    }

    fn is_time(&self, now: UnixMs) -> bool {
        // Further ahead than a pause can be: the clock was set back.
        let pause = self.next_round_at.0.saturating_sub(now.0);
        self.bound.is_past(now) && (pause == 0 || pause > PAUSE_MAX_MS)
    }

    fn end_round(&mut self, now: UnixMs) {
        let rows = u64::from(self.next_row);
        let per_ms = if self.found * 100 >= rows { ROWS_PER_MS_OF_MANY } else { ROWS_PER_MS };
        let pause = (rows / per_ms).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        *self = Self { bound: self.ahead, next_round_at: UnixMs(now.0 + pause), ..Self::default() };
    }
}

fn sooner(one: UnixMs, other: UnixMs) -> UnixMs {
    match (one, other) {
        (UnixMs::NEVER, at) | (at, UnixMs::NEVER) => at,
        (one, other) => one.min(other),
    }
}

impl DueWalk {
    /// Whether any entry has a deadline, or had one lately.
    pub(super) fn has_deadlines(&self) -> bool {
        self.bound != UnixMs::NEVER
    }

    /// When `next_due` has something to look at; `None` while no entry has a deadline.
    pub(super) fn next_round_at(&self) -> Option<UnixMs> {
        self.has_deadlines().then(|| self.bound.max(self.next_round_at))
    }

    /// Whether `next_due` has something to look at; costs nothing.
    pub(super) fn may_be_due(&self, now: UnixMs) -> bool {
        self.is_time(now)
    }

    /// Walks on over at most `rows` rows to the next entry whose deadline is past. What becomes of it is
    /// the caller's business: if it stays, and its deadline is not set again, it is not named again until
    /// others bring on another round.
    pub(super) fn next_due(&mut self, slots: &Slots, now: UnixMs, rows: u32) -> DueStep {
        if !self.is_time(now) {
            return DueStep::Over;
        }
        if self.next_row == 0 {
            // All that was noted so far is passed again.
            self.ahead = UnixMs::NEVER;
        }
        let end = self.next_row.saturating_add(rows);
        while let Some((slot, found)) = slots.next_occupied(self.next_row) {
            if slot.0 >= end {
                self.next_row = slot.0;
                return DueStep::Passed;
            }
            self.next_row = slot.0 + 1;
            if found.expire_at.is_past(now) {
                self.found += 1;
                return DueStep::Entry(slot, found.seq());
            }
            self.ahead = sooner(self.ahead, found.expire_at);
        }
        self.end_round(now);
        DueStep::Over
    }
}
