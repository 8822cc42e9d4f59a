//! The requests that callers make of the flights of a container, and their outcomes.
//!
//! Owns: plain data; time, random words and the token come from the caller. Main thread only.

use crate::cache::breaker::BreakerSettings;
use crate::cache::guard::{Rules, Unseen};
use crate::ids::{EntryId, MonotonicMs, PartitionKey, Seq};
use crate::vector::Query;
use std::fmt;

/// What a maker shows to store its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseToken(pub u64);

impl LeaseToken {
    /// Reads 16 hex digits, as `Display` writes them.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 16)?;
        let plain = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| plain).map(Self)
    }
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Somebody who waits, as the caller numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaiterId(pub u64);

/// What may be kept for leases and failures now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many bytes.
    Bytes(u64),
    /// The server uses more memory than it may: the answer could not be stored either.
    OutOfMemory,
}

/// A question on its way to an answer.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Digest of scope, context and prompt.
    pub id: EntryId,
    /// Scope.
    pub scope: &'a [u8],
    /// Context.
    pub context: &'a [u8],
    /// Prompt.
    pub prompt: &'a [u8],
    /// Its vector, if there is one.
    pub query: Option<&'a Query>,
    /// What that vector does not show of the prompt, where a model made it of the prompt.
    pub unseen: Option<&'a Unseen>,
    /// Least similarity of a pending question whose answer will do.
    pub threshold: f64,
    /// What guards ask of that question.
    pub rules: Rules,
    /// Memory for another lease.
    pub room: Room,
    /// The next place of the store order.
    pub seq: Seq,
    /// The time.
    pub now: MonotonicMs,
    /// How long a lease lasts.
    pub lease_ms: u64,
    /// The token of the lease, should one be granted.
    pub token: LeaseToken,
    /// A random word, for spreading retries.
    pub random: u64,
    /// When makers are given a rest.
    pub breaker: BreakerSettings,
    /// Whether the asker would wait.
    pub waits: bool,
    /// The asker, where it has waited already.
    pub waiter: Option<WaiterId>,
}

impl Ask<'_> {
    /// Digest of scope and context.
    pub(super) fn place(&self) -> EntryId {
        EntryId::of(self.scope, self.context, b"")
    }

    /// The partition it asks in.
    pub(super) fn partition(&self) -> PartitionKey {
        PartitionKey::of(self.scope, self.context)
    }
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A fresh answer; `early` when it should be made anew before its time.
    Fresh {
        /// Whether the draw of BETA fell so.
        early: bool,
    },
    /// A stale one.
    Stale,
    /// None.
    Missing,
}

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Here is the answer.
    Hit,
    /// Here is an old answer; somebody makes a new one, or nobody may now.
    Stale,
    /// Make the answer; with an old one where one was found.
    Lead,
    /// Wait for the answer of this flight.
    Wait(EntryId),
    /// Ask again.
    Busy {
        /// In so many milliseconds.
        retry_ms: u64,
    },
    /// Making it failed a moment ago.
    Negative {
        /// What the maker said.
        text: Box<[u8]>,
        /// When to ask again.
        retry_ms: u64,
    },
    /// Making answers of this scope fails.
    Open {
        /// When to ask again.
        retry_ms: u64,
    },
    /// There is no memory for a lease, nor for the answer.
    OutOfMemory,
}

/// What became of a lease whose time may be over.
#[derive(Debug, PartialEq, Eq)]
pub enum Lapse {
    /// It was ended, or given to somebody else.
    Ended,
    /// It was prolonged until then.
    Until(MonotonicMs),
    /// It is over, and nobody waits.
    Unwanted,
    /// It is over: wake this one, who is to make the answer.
    Heir(WaiterId),
}
