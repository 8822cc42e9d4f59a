//! One answer that is being generated, and a remembered failure.
//!
//! Owns: what is kept of each, its size in memory, and when a lease still counts as held. Main thread only.

use super::ask::{Ask, LeaseToken, WaiterId};
use crate::ids::{EntryId, MonotonicMs, PartitionKey, ScopeKey, Seq};
use crate::limits;
use crate::vector::Query;
use crate::vector::quantise::{Code, quantise};
use std::collections::VecDeque;

/// Who makes an answer.
#[derive(Debug)]
pub struct Holder {
    pub token: LeaseToken,
    /// The question it was asked, which may be another's than the flight's first.
    pub question: EntryId,
    pub until: MonotonicMs,
    /// The place of the store order at the grant: what is invalidated from there on voids the lease.
    pub since: Seq,
    /// How often entries had been picked out and invalidated by then.
    pub picks: u64,
    /// Where it stands in the agenda.
    pub due: (MonotonicMs, Due),
}

/// One answer in the making.
#[derive(Debug)]
pub struct Flight {
    pub partition: PartitionKey,
    /// Digest of scope and context.
    pub place: EntryId,
    /// The code of the first question's vector, if it has one.
    pub code: Option<Code>,
    /// That question, where it has a vector and is short enough for guards to compare it with a near one.
    pub judged: Box<[u8]>,
    pub holder: Option<Holder>,
    /// The one who was woken to become the holder.
    pub heir: Option<WaiterId>,
    pub waiters: VecDeque<WaiterId>,
}

impl Flight {
    pub fn is_held(&self, now: MonotonicMs) -> bool {
        // A lease that lapsed is good until somebody else is given it.
        self.holder.as_ref().is_some_and(|holder| !holder.until.is_past(now))
            || (self.holder.is_some() && !self.waiters.is_empty())
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> u64 {
        let code = self.code.as_ref().map_or(0, |code| code.codes.len());
        FLIGHT_BYTES + (self.judged.len() + code) as u64
    }

    pub fn is_idle(&self, now: MonotonicMs) -> bool {
        !self.is_held(now) && self.heir.is_none() && self.waiters.is_empty()
    }

    pub fn of(ask: &Ask<'_>) -> Self {
        let is_judged = ask.query.is_some() && ask.prompt.len() <= limits::GUARDED_MAX_BYTES;
        Self {
            partition: ask.partition(),
            place: ask.place(),
            code: ask.query.map(|query| quantise(query.normalised())),
            judged: if is_judged { ask.prompt.into() } else { Box::default() },
            holder: None,
            heir: None,
            waiters: VecDeque::new(),
        }
    }

    /// What guards compare a near question with.
    pub fn judged(&self) -> &[u8] {
        if self.judged.is_empty() { UNJUDGED } else { &self.judged }
    }

    /// All who wait, the heir first.
    pub fn everybody(self) -> Vec<WaiterId> {
        self.heir.into_iter().chain(self.waiters).collect()
    }
}

/// Memory of a flight beside what it keeps of its question: its rows in three maps and in the agenda.
const FLIGHT_BYTES: u64 = 512;

/// Memory of a failure beside its text.
const NEGATIVE_BYTES: u64 = 160;

/// A failure that is remembered.
#[derive(Debug)]
pub struct Negative {
    pub until: MonotonicMs,
    pub text: Box<[u8]>,
}

impl Negative {
    pub fn bytes(&self) -> u64 {
        NEGATIVE_BYTES + self.text.len() as u64
    }
}

/// What is to be looked at when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A lease whose time is over.
    Lease(LeaseToken),
    /// A lease that lapsed a long while ago.
    Lapsed(LeaseToken),
    /// A failure that is remembered no longer.
    Failure(EntryId),
    /// A scope whose failures may count no longer.
    Breaker(ScopeKey),
}

/// What stands for a question that was not kept: guards treat it as any that they cannot read.
const UNJUDGED: &[u8] = b"\xff";

/// Similarity of a question to the one of a code: 1 where both have the same code, else the cosine.
pub fn similarity(code: &Code, query: &Query) -> f64 {
    if code.scale == query.scale() && code.codes == query.code() {
        return 1.0;
    }
    let (mut dot, mut norm) = (0.0, 0.0);
    for (&a, &b) in code.codes.iter().zip(query.normalised()) {
        let a = f64::from(a);
        dot += a * f64::from(b);
        norm += a * a;
    }
    if norm > 0.0 { dot / norm.sqrt() } else { 0.0 }
}
