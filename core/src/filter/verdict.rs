//! The result of a FILTER expression for an entry, the cost of judging it, or the reason why it could not be judged.
//!
//! Owns: these types, which every part of the language shares. Plain data; any thread.

use std::fmt;

/// What is known of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The entry matches.
    Yes,
    /// The entry does not match.
    No,
    /// The answer depends on a member that only the entry holds.
    NeedsEntry,
    /// To tell would take more steps than one entry may.
    TooLong,
}

/// What judging one entry may cost, apart from what depends on its META.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterCost {
    /// Values and operators.
    pub terms: u64,
    /// Of these, names that are looked up.
    pub reads: u64,
    /// Of these, `in` and `contains`, which look through arrays and text.
    pub looks: u64,
}

/// Bytes of a record that are passed in the time of a step while a name is looked up, and that an array or a text
/// has for each step of looking through it.
const READ_BYTES_PER_STEP: u64 = 64;
const LOOKED_BYTES_PER_STEP: u64 = 8;

impl FilterCost {
    /// Steps to judge an entry whose record has so many bytes, estimated from above.
    pub const fn steps(&self, record_bytes: u64) -> u64 {
        self.terms
            + self.reads * (record_bytes / READ_BYTES_PER_STEP)
            + self.looks * (record_bytes / LOOKED_BYTES_PER_STEP)
    }
}

/// Why an expression was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// Offset in bytes from the start of the expression.
    pub position: usize,
    /// What is wrong there.
    pub message: String,
}

impl FilterError {
    pub(super) fn at(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.position, self.message)
    }
}

impl std::error::Error for FilterError {}
