//! FILTER: a condition over the top-level members of an entry's META.
//!
//! Owns: the meaning of an expression. `lexer` cuts the text, `parser` orders it, `eval` computes it,
//! `record` keeps META's scalar members beside a slot so that a search rarely opens the entry. A
//! [`Filter`] is immutable once parsed; it may be shared and evaluated on any thread.
//!
//! The language is that of `VSIM ... FILTER` in Redis vector sets, checked against Redis 8.2.3:
//!
//! * Values: numbers, quoted text, `null`, a list `[1, "a"]`, and `.name` for a top-level member of
//!   META. Names are made of ASCII letters, digits, `_` and `-` (so `.n-4` names the member `n-4`).
//!   JSON booleans are the numbers 1 and 0.
//! * Loosest to tightest: `or` `||`; `and` `&&`; `== != < <= > >= in`; `+ -`; `* / %`; `**` (from the
//!   right, all others from the left); `not` `!`. So `not .n == 0` is `(not .n) == 0`.
//! * A member that is missing, is an object, or is an array holding an object makes the whole
//!   expression false wherever it stands, under `not` and beside `or` included. An entry without META
//!   matches nothing, not even `1`.
//! * False are 0, `""` and `null`; all else is true (`"0"`, NaN and the empty list too).
//! * Arithmetic and `< <= > >=` read both sides as numbers: text as C's `strtod` would when all of it
//!   is a number shorter than 256 bytes, else 0; `null` and lists as 0. Text is never ordered.
//! * `==`: text with text by bytes; `null` only with `null`; all else as numbers.
//! * `a in b`: `b` a list or array holds an element equal to `a`; or both are text and `b` contains
//!   `a`; else false.
//!
//! Differences on purpose, all of them in what Redis refuses or gets wrong without saying so:
//!
//! * Text in quotes takes JSON's escapes and `\'`, and any other backslash is refused. Redis keeps the
//!   backslash in the text, so an expression built with a JSON encoder silently matches nothing.
//! * META is decoded as JSON (`\u00e9` is `é`, the last of equal names counts); Redis compares the
//!   member's source text without decoding `\u`, `\b` and `\f`, and takes the first of equal names.
//! * An empty META object is the same as no META, which Redis tells apart only for expressions without
//!   a member, such as `1`.
//! * Operators out of place (`1 2 +`, `.n not in [1]`), a lone dot, and a NUL byte are refused, with the
//!   position; Redis computes something else than what was meant, or stops reading at the NUL.
//! * Accepted here and refused there: `true` and `false`, `null` in a list, `null` next to a parenthesis
//!   or symbol (`(.a == null)`), `not not`, a signed exponent (`1e-5`).
//! * Refused here only: text that is not UTF-8, and what passes the FILTER bounds of `limits`.

mod eval;
mod lexer;
mod parser;
mod record;

use std::fmt;

use serde_json::Value;

use crate::limits;
use eval::{Document, Program};
pub use record::FilterRecord;

/// A parsed FILTER expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The expression is true when all of these are; an `and` outside of `or` and `not` is cut here so
    /// that the first false part ends the evaluation.
    parts: Box<[Program]>,
}

/// What the members kept beside a slot say about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The entry matches.
    Yes,
    /// The entry does not match.
    No,
    /// The answer depends on a member that only the entry holds.
    NeedsEntry,
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
    fn at(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.position, self.message)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses an expression.
    ///
    /// # Errors
    ///
    /// The first thing that is not part of the language, or a bound that is passed, and its position.
    pub fn parse(expression: &[u8]) -> Result<Self, FilterError> {
        if expression.len() > limits::FILTER_MAX_BYTES {
            return Err(FilterError::at(
                limits::FILTER_MAX_BYTES,
                format!("longer than {} bytes", limits::FILTER_MAX_BYTES),
            ));
        }
        let text = std::str::from_utf8(expression)
            .map_err(|error| FilterError::at(error.valid_up_to(), "not UTF-8"))?;
        let steps = parser::parse(text)?;
        Ok(Self { parts: Program::split(steps).into_boxed_slice() })
    }

    /// Whether an entry with this META matches. Anything but a JSON object with members counts as no
    /// META.
    pub fn matches(&self, meta: &Value) -> bool {
        match meta {
            Value::Object(members) if !members.is_empty() => {
                self.verdict(&Document(members)) == Verdict::Yes
            }
            _ => false,
        }
    }

    /// What the record beside a slot says about its entry; `None` stands for an entry without META.
    /// Does not allocate.
    pub fn matches_record(&self, record: Option<&FilterRecord>) -> Verdict {
        match record {
            Some(record) => self.verdict(record),
            None => Verdict::No,
        }
    }

    fn verdict(&self, members: &impl eval::Members) -> Verdict {
        let mut verdict = Verdict::Yes;
        for part in &self.parts {
            match part.run(members) {
                Verdict::Yes => {}
                Verdict::No => return Verdict::No,
                Verdict::NeedsEntry => verdict = Verdict::NeedsEntry,
            }
        }
        verdict
    }
}
