//! What a cache did and what that saved, since this process started or since RESET.
//!
//! Owns: counters only. Process-local: neither persisted nor replicated. Main thread only.

use super::EntryView;
use super::lookup::Tier;
use super::miss::MissReason;
use crate::ids::PartitionKey;
use crate::limits::STATS_SCOPES_MAX;
use hashbrown::HashMap;

/// Buckets of the similarity histogram: [-1, 0), then twenty of 0.05 each up to and with 1.
pub const HISTOGRAM_BUCKETS: usize = 21;

/// Counters of one scope, or of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeStats {
    /// Lookups answered.
    pub lookups: u64,
    /// Hits by the exact prompt.
    pub hits_exact: u64,
    /// Hits by meaning.
    pub hits_semantic: u64,
    /// Misses, by `MissReason`.
    pub misses: [u64; MissReason::COUNT],
    /// Tokens not generated again.
    pub tokens_saved: u64,
    /// Milliseconds not waited again.
    pub ms_saved: u64,
    /// Nano-dollars not spent again.
    pub nano_usd_saved: u128,
    /// Similarity of the nearest entry, of every lookup by meaning that found one.
    pub histogram: [u64; HISTOGRAM_BUCKETS],
}

/// Counters of a container.
#[derive(Debug, Default)]
pub struct Stats {
    /// All scopes together.
    pub total: ScopeStats,
    /// Entries stored.
    pub stores: u64,
    /// Of these, how many replaced an entry.
    pub replaced: u64,
    /// Entries removed to stay within MAXENTRIES or MAXMEMORY.
    pub evicted: u64,
    /// Lookups in scopes beyond those kept apart.
    pub untracked_lookups: u64,
    empty_scope: ScopeStats,
    scopes: HashMap<u64, Box<ScopeStats>>,
}

impl ScopeStats {
    /// All misses.
    pub fn misses_total(&self) -> u64 {
        self.misses.iter().sum()
    }

    fn note_hit(&mut self, tier: Tier, entry: &EntryView<'_>) {
        match tier {
            Tier::Exact => self.hits_exact += 1,
            Tier::Semantic => self.hits_semantic += 1,
        }
        self.tokens_saved += u64::from(entry.tokens());
        self.ms_saved += u64::from(entry.latency_ms());
        self.nano_usd_saved += u128::from(entry.cost_nano_usd());
    }

    fn note_similarity(&mut self, similarity: f64) {
        let last = HISTOGRAM_BUCKETS - 1;
        let bucket = if similarity < 0.0 { 0 } else { 1 + (similarity * 20.0) as usize };
        self.histogram[bucket.min(last)] += 1;
    }
}

impl Stats {
    /// Counts a hit; `similarity` is that of the nearest entry where a search by meaning was made.
    pub fn note_hit(
        &mut self,
        scope: &[u8],
        tier: Tier,
        entry: &EntryView<'_>,
        similarity: Option<f64>,
    ) {
        self.each(scope, |stats| {
            stats.lookups += 1;
            stats.note_hit(tier, entry);
            if let Some(similarity) = similarity {
                stats.note_similarity(similarity);
            }
        });
    }

    /// Counts a miss and why it was one.
    pub fn note_miss(&mut self, scope: &[u8], reason: MissReason, similarity: Option<f64>) {
        self.each(scope, |stats| {
            stats.lookups += 1;
            stats.misses[reason as usize] += 1;
            if let Some(similarity) = similarity {
                stats.note_similarity(similarity);
            }
        });
    }

    fn each(&mut self, scope: &[u8], mut note: impl FnMut(&mut ScopeStats)) {
        note(&mut self.total);
        if scope.is_empty() {
            // The usual case costs no hash.
            note(&mut self.empty_scope);
            return;
        }
        let key = PartitionKey::of(scope, b"").0;
        if let Some(stats) = self.scopes.get_mut(&key) {
            note(stats);
        } else if self.scopes.len() < STATS_SCOPES_MAX {
            note(self.scopes.entry(key).or_default());
        } else {
            self.untracked_lookups += 1;
        }
    }

    /// Counters of one scope, if it was looked up in and is kept apart.
    pub fn scope(&self, scope: &[u8]) -> Option<&ScopeStats> {
        if scope.is_empty() {
            return Some(&self.empty_scope);
        }
        self.scopes.get(&PartitionKey::of(scope, b"").0).map(AsRef::as_ref)
    }

    /// Scopes kept apart, the empty one not counted.
    pub fn scope_count(&self) -> usize {
        self.scopes.len()
    }

    /// Starts counting anew, for all or for one scope.
    pub fn reset(&mut self, scope: Option<&[u8]>) {
        match scope {
            None => *self = Self::default(),
            Some(b"") => self.empty_scope = ScopeStats::default(),
            Some(scope) => {
                self.scopes.remove(&PartitionKey::of(scope, b"").0);
            }
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.scopes.allocation_size() + self.scopes.len() * size_of::<ScopeStats>()
    }
}
