//! Replies with many hits in parts, after the search that found them.
//!
//! Owns: that each is answered as it was found: its key is opened once more when its turn comes, and one that has gone or
//! was replaced meanwhile is left out. Main thread only.

use super::hit_reply::{Field, Served, bytes_of};
use crate::ffi::{Access, Ctx, Reply, Tape};
use crate::keyspace::{OpenedEntry, Place, Presence, Searches, Told, key_of_found, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryKey, Fused, Hit, LookupReport, Tier};
use llmcache_core::ids::UnixMs;

/// What is known of a hit beside its entry.
#[derive(Debug, Default)]
pub struct Beside {
    /// What words and fusion say of it.
    pub fused: Option<Fused>,
    /// The place of its text with most of the words asked for.
    pub snippet: Option<Vec<u8>>,
}

/// Writes a hit.
pub type WriteHit = fn(Reply<'_>, &Hit<OpenedEntry<'_>>, &[Field], &Beside, Served, UnixMs);

/// Elements of a reply up to which it is written in one part, and bytes.
const SHORT_ELEMENTS: usize = 2_048;
const SHORT_BYTES: u64 = 256 << 10;
/// Elements that are written as one part.
const ELEMENTS_AT_ONCE: usize = 128;

/// What is answered.
pub struct Answer<'r, 'c> {
    /// The container's key.
    pub name: &'r [u8],
    /// The container.
    pub cache: &'r SharedCache,
    /// What was found.
    pub report: &'r LookupReport<OpenedEntry<'c>>,
    /// Of each what is told beside its entry.
    pub served: &'r [Served],
    /// The fields wanted.
    pub fields: &'r [Field],
    /// When it was found.
    pub now: UnixMs,
    /// Whether one that is missing here may be on another server, so that the answer would be incomplete.
    pub needs_all: bool,
    /// Writes one of them.
    pub write: WriteHit,
}

impl Answer<'_, '_> {
    /// Answers an array of the hits: at once where they are few, else in parts if the command may go on.
    pub fn give(self, ctx: Ctx<'_>, searches: &Searches, beside: Vec<Beside>) {
        let Self { report, served, fields, now, write, .. } = self;
        if self.is_long() && searches.may_go_on(ctx) {
            searches.reply_in_parts(Box::new(self.later(beside)));
            return;
        }
        let reply = Reply::new(ctx).array(report.hits.len());
        for ((hit, &served), beside) in report.hits.iter().zip(served).zip(&beside) {
            write(reply, hit, fields, beside, served, now);
        }
    }

    fn is_long(&self) -> bool {
        let hits = &self.report.hits;
        let bytes = || hits.iter().map(|hit| bytes_of(&hit.entry.view(), self.fields)).sum::<u64>();
        2 * hits.len() * self.fields.len() > SHORT_ELEMENTS || bytes() > SHORT_BYTES
    }

    fn later(&self, beside: Vec<Beside>) -> Hits {
        let found = |((hit, &served), beside): ((&Hit<OpenedEntry<'_>>, &Served), Beside)| {
            let (key, place) = key_of_found(self.cache, &hit.entry.view());
            Found { key, place, tier: hit.tier, similarity: hit.similarity, served, beside }
        };
        let hits: Vec<Found> =
            self.report.hits.iter().zip(self.served).zip(beside).map(found).collect();
        Hits {
            name: self.name.to_vec(),
            left: hits.into_iter(),
            fields: self.fields.to_vec(),
            now: self.now,
            needs_all: self.needs_all,
            write: self.write,
            tape: Tape::default(),
            told: 0,
            missing: 0,
            is_begun: false,
        }
    }
}

struct Found {
    key: EntryKey,
    place: Place,
    tier: Tier,
    similarity: f64,
    served: Served,
    beside: Beside,
}

struct Hits {
    name: Vec<u8>,
    left: std::vec::IntoIter<Found>,
    fields: Vec<Field>,
    now: UnixMs,
    needs_all: bool,
    write: WriteHit,
    tape: Tape,
    /// Hits on the tape.
    told: usize,
    /// Those that went.
    missing: usize,
    is_begun: bool,
}

impl Hits {
    fn keep(&mut self, ctx: Ctx<'_>, found: Found) {
        let Found { key, place: (slot, seq), tier, similarity, served, beside } = found;
        let entry = open_entry(ctx, &key, Access::Unasked);
        let Some(entry) = entry.filter(|entry| entry.view().is_at(slot, seq)) else {
            self.missing += 1;
            return;
        };
        let hit = Hit { tier, similarity, id: None, entry };
        let reply = Reply::taped(ctx, &self.tape);
        (self.write)(reply, &hit, &self.fields, &beside, served, self.now);
        self.told += 1;
    }
}

impl Told for Hits {
    fn part(&mut self, ctx: Ctx<'_>) -> bool {
        if let Some(found) = self.left.next() {
            self.keep(ctx, found);
            return true;
        }
        let reply = Reply::new(ctx);
        if !std::mem::replace(&mut self.is_begun, true) {
            let missing = self.needs_all && self.missing > 0;
            if missing && let Err(error) = Presence::of(ctx, &self.name).need_all() {
                reply.error(&error.to_string());
                return false;
            }
            reply.array(self.told);
        }
        self.tape.play(reply, ELEMENTS_AT_ONCE)
    }
}
