//! FILTER: a condition over the members of an entry's META.
//!
//! Owns: the meaning of an expression, as `docs/filter.md` states it with a table that a test runs. `lexer` cuts the
//! text, `parser` orders it, `program` computes it on what `value` makes of operands (`operand`, `number`), `record`
//! keeps META's members beside a slot so that a search does not open the entry. A [`Filter`] is immutable once parsed; it may be shared
//! and evaluated on any thread.
//!
//! The grammar is that of `VSIM ... FILTER` in Redis vector sets, and its expressions keep their meaning but where
//! that would be wrong: numbers are exact, text is ordered, text is no number, what is absent is null. The page lists
//! each difference, and `core/tests/filter.rs` holds it against what Redis 8.2.3 answers.
//!
//! Judging one entry takes at most [`FILTER_STEPS_MAX`](limits::FILTER_STEPS_MAX) steps; where more would be needed
//! the verdict is [`Verdict::TooLong`], and who asked is told so.

mod asked;
mod lexer;
mod number;
mod operand;
mod parser;
mod program;
mod record;
mod value;
mod verdict;

use serde_json::Value;

use crate::limits;
use crate::work::Steps;
pub use asked::Asked;
use operand::Meter;
use program::{Document, Members, NoMembers, Program};
pub use record::FilterRecord;
pub use verdict::{FilterCost, FilterError, Verdict};

/// A parsed FILTER expression.
///
/// ```
/// use llmcache_core::filter::{Filter, Verdict};
/// use llmcache_core::work::Steps;
///
/// let filter = Filter::parse(br#".year >= 2025 and .lang in ["en", "de"]"#).unwrap();
/// let judge = |meta| filter.judge(&meta, &mut Steps::default());
/// assert_eq!(judge(serde_json::json!({"year": 2026, "lang": "en"})), Verdict::Yes);
/// assert_eq!(judge(serde_json::json!({"year": 2026})), Verdict::No);
///
/// let error = Filter::parse(b".year >=").unwrap_err();
/// assert_eq!(error.to_string(), "at byte 8: expected a value after \">=\"");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The expression is true when all of these are; an `and` outside of `or` and `not` is cut here so
    /// that the first false part ends the evaluation.
    parts: Box<[Program]>,
    /// What it is to an entry without META.
    of_nothing: Verdict,
}

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
        let parts = Program::split(parser::parse(text)?).into_boxed_slice();
        let mut filter = Self { parts, of_nothing: Verdict::No };
        filter.of_nothing = filter.verdict(&NoMembers, &mut Steps::default());
        Ok(filter)
    }

    /// What judging an entry may cost.
    pub fn cost(&self) -> FilterCost {
        self.parts.iter().map(Program::cost).fold(FilterCost::default(), |sum, part| FilterCost {
            terms: sum.terms + part.terms,
            reads: sum.reads + part.reads,
            looks: sum.looks + part.looks,
        })
    }

    /// The top-level members that it asks for, some more than once.
    pub fn heads(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().flat_map(Program::heads)
    }

    /// Whether an entry with this META matches; never [`Verdict::NeedsEntry`]. Anything but a JSON object counts as
    /// no META.
    pub fn judge(&self, meta: &Value, steps: &mut Steps) -> Verdict {
        match meta {
            Value::Object(members) => self.verdict(&Document(members), steps),
            _ => self.of_nothing,
        }
    }

    /// What the record beside a slot says about its entry; `None` stands for an entry without META.
    /// Does not allocate.
    pub fn judge_record(&self, record: Option<&FilterRecord>, steps: &mut Steps) -> Verdict {
        match record {
            Some(record) => self.verdict(record, steps),
            None => {
                steps.terms += 1;
                self.of_nothing
            }
        }
    }

    /// Whether an entry may match, as far as its record and so many steps tell.
    pub fn may_match(&self, record: Option<&FilterRecord>, most: u32, steps: &mut Steps) -> bool {
        let verdict = match record {
            Some(record) => self.verdict_within(record, most, steps),
            None => self.of_nothing,
        };
        verdict != Verdict::No
    }

    fn verdict(&self, members: &impl Members, steps: &mut Steps) -> Verdict {
        self.verdict_within(members, limits::FILTER_STEPS_MAX, steps)
    }

    fn verdict_within(&self, members: &impl Members, most: u32, steps: &mut Steps) -> Verdict {
        let mut meter = Meter::new(most);
        let mut verdict = Verdict::Yes;
        for part in &self.parts {
            match part.run(members, &mut meter) {
                Verdict::Yes => {}
                decided @ (Verdict::No | Verdict::TooLong) => {
                    verdict = decided;
                    break;
                }
                Verdict::NeedsEntry => verdict = Verdict::NeedsEntry,
            }
        }
        steps.terms += u64::from(most - meter.left());
        verdict
    }
}
