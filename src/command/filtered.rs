//! FILTER over META text at hand, shared by the commands that list entries or chunks.
//!
//! Owns: the verdict on one META, and how much work a page of them may be. Main thread only.

use llmcache_core::cache::too_many_steps;
use llmcache_core::error::Result;
use llmcache_core::filter::{Filter, Verdict};
use llmcache_core::limits;
use llmcache_core::work::{self, Counter, Steps};

/// A filter, if one was given, and what judging by it has cost.
#[derive(Debug)]
pub struct Sieve {
    filter: Option<Filter>,
    steps: Counter,
}

impl Sieve {
    /// Nothing judged yet.
    pub fn new(filter: Option<Filter>) -> Self {
        Self { filter, steps: Counter::default() }
    }

    /// The filter.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Whether this META passes; an empty one is none.
    pub fn passes(&self, meta: &[u8]) -> Result<bool> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let mut steps = Steps { bytes: meta.len() as u64, ..Steps::NONE };
        let meta = serde_json::from_slice(meta).unwrap_or(serde_json::Value::Null);
        let verdict = filter.judge(&meta, &mut steps);
        self.steps.add(steps);
        work::count(steps);
        decided(verdict)
    }

    /// Counts work beside judging.
    pub fn count(&self, steps: Steps) {
        self.steps.add(steps);
    }

    /// Whether a page has cost so much that it is to end.
    pub fn is_spent(&self) -> bool {
        self.steps.get().weight() >= limits::COMMAND_STEPS_MAX
    }
}

/// What a verdict on whole META says.
pub fn decided(verdict: Verdict) -> Result<bool> {
    match verdict {
        Verdict::Yes => Ok(true),
        Verdict::No | Verdict::NeedsEntry => Ok(false),
        Verdict::TooLong => Err(too_many_steps()),
    }
}
