//! Steps of work: the cost of a command in counts that do not depend on the machine.
//!
//! Owns: the kinds of steps and their sum. A function that works on data of a size that a client chose counts into
//! a [`Steps`]: passed as `&mut Steps`, or kept in a [`Counter`] where only `&self` is at hand (one thread, no
//! lock). `Steps` is plain data: a search in a thread answers its own with its result, and the main thread merges
//! them by `+=`. So tests and debug builds compare what a command did with what its row of the command table
//! states, and a budget ([`Steps::weight`]) decides when a command yields, goes on in a thread or is refused.
//!
//! What no result carries back is counted for the running thread, by [`count`]: keys opened, replies written, walks
//! over trees and sessions. [`take_counted`] around a command tells what it did.
//!
//! Counting is an addition to a word that is at hand; nothing here allocates, looks at a clock or knows a limit.
//! Any thread, except `Counter`, which stays on its own.

use std::cell::Cell;
use std::ops::{Add, AddAssign};

/// What was done, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// Rows passed or compared: of an index, messages, chunks.
    pub rows: u64,
    /// Terms of a filter judged: each value or operator, each element of an array looked at, each 64 bytes of text
    /// searched.
    pub terms: u64,
    /// Keys opened.
    pub keys: u64,
    /// Steps along a path or chain: nodes of a tree, links of a graph, pairs of words.
    pub path: u64,
    /// Bytes read or written because of what a client asked: of replies, prompts compared, META parsed.
    pub bytes: u64,
}

/// What opening a key weighs, in rows.
pub const KEY_WEIGHT: u64 = 32;
/// Bytes that weigh as much as a row.
pub const BYTES_PER_WEIGHT: u64 = 64;

impl Steps {
    /// Nothing done.
    pub const NONE: Self = Self { rows: 0, terms: 0, keys: 0, path: 0, bytes: 0 };

    /// All of it as one number, for budgets: about the time of a row compared, 20 to 40 ns, is one.
    pub const fn weight(&self) -> u64 {
        self.rows
            .saturating_add(self.terms)
            .saturating_add(self.path)
            .saturating_add(self.keys.saturating_mul(KEY_WEIGHT))
            .saturating_add(self.bytes / BYTES_PER_WEIGHT)
    }

    /// Whether no kind of step was done more often than stated.
    pub const fn is_within(&self, stated: &Self) -> bool {
        self.rows <= stated.rows
            && self.terms <= stated.terms
            && self.keys <= stated.keys
            && self.path <= stated.path
            && self.bytes <= stated.bytes
    }
}

impl Add for Steps {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            terms: self.terms.saturating_add(other.terms),
            keys: self.keys.saturating_add(other.keys),
            path: self.path.saturating_add(other.path),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl AddAssign for Steps {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Counts steps where only a shared borrow is at hand.
#[derive(Debug, Default)]
pub struct Counter(Cell<Steps>);

impl Counter {
    /// Counts these.
    pub fn add(&self, steps: Steps) {
        self.0.set(self.0.get() + steps);
    }

    /// Counts one key opened, of which so many bytes are read.
    pub fn key(&self, bytes: u64) {
        self.add(Steps { keys: 1, bytes, ..Steps::NONE });
    }

    /// What was counted.
    pub fn get(&self) -> Steps {
        self.0.get()
    }

    /// What was counted; begins again.
    pub fn take(&self) -> Steps {
        self.0.take()
    }
}

thread_local! {
    static COUNTED: Counter = const { Counter(Cell::new(Steps::NONE)) };
}

/// Counts steps of the running thread. Loops count once behind them, not in each round.
#[inline]
pub fn count(steps: Steps) {
    COUNTED.with(|counted| counted.add(steps));
}

/// Counts steps along a path; see [`count`].
#[inline]
pub fn count_path(path: usize) {
    count(Steps { path: path as u64, ..Steps::NONE });
}

/// Counts bytes that were hashed, parsed or copied; see [`count`].
#[inline]
pub fn count_bytes(bytes: usize) {
    count(Steps { bytes: bytes as u64, ..Steps::NONE });
}

/// What this thread counted and nobody took yet.
pub fn counted() -> Steps {
    COUNTED.with(Counter::get)
}

/// Takes what this thread counted since this was asked last.
pub fn take_counted() -> Steps {
    COUNTED.with(Counter::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_kind_by_kind_and_never_wrap() {
        let counter = Counter::default();
        counter.add(Steps { rows: 2, terms: 5, ..Steps::NONE });
        counter.key(640);
        let seen = counter.get();
        assert_eq!(seen, Steps { rows: 2, terms: 5, keys: 1, path: 0, bytes: 640 });
        assert_eq!(seen.weight(), 2 + 5 + KEY_WEIGHT + 640 / BYTES_PER_WEIGHT);
        assert!(seen.is_within(&seen));
        assert!(!seen.is_within(&Steps { bytes: 639, ..seen }));
        counter.add(Steps { rows: u64::MAX, keys: u64::MAX, ..Steps::NONE });
        assert_eq!((counter.get().rows, counter.take().weight()), (u64::MAX, u64::MAX));
        assert_eq!(counter.get(), Steps::NONE);
    }

    #[test]
    fn threads_count_apart() {
        take_counted();
        count_path(3);
        std::thread::scope(|scope| {
            scope.spawn(|| count_path(100));
        });
        count_bytes(7);
        let seen = take_counted();
        assert_eq!(seen, Steps { path: 3, bytes: 7, ..Steps::NONE });
        assert_eq!(take_counted(), Steps::NONE);
    }
}
