//! Statistics of a cache: what it did and what that saved, since this process started or since RESET.
//!
//! Owns: counters only. Process-local: neither persisted nor replicated. Main thread only.

use super::EntryView;
use super::Tier;
use super::miss_reason::MissReason;
use crate::account::Count;
use crate::ids::{ScopeKey, Seq, SlotId};
use crate::limits::STATS_SCOPES_MAX;
use hashbrown::HashMap;

/// Buckets of the similarity histogram: [-1, 0), then a hundred of 0.01 each, the last with 1.
pub const HISTOGRAM_BUCKETS: usize = 101;

/// What a FETCH was told, where it was no plain hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum FetchOutcome {
    /// An old answer.
    Stale,
    /// To make the answer.
    Lead,
    /// To ask again.
    Busy,
    /// The answer, after having waited for it.
    Coalesced,
    /// That making it failed.
    Negative,
    /// That making answers fails.
    Open,
}

impl FetchOutcome {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Stale, Self::Lead, Self::Busy, Self::Coalesced, Self::Negative, Self::Open];

    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Lead => "lead",
            Self::Busy => "busy",
            Self::Coalesced => "coalesced",
            Self::Negative => "negative",
            Self::Open => "open",
        }
    }
}

/// An entry often hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    /// Where the index keeps it.
    pub slot: SlotId,
    /// Its place in the store order.
    pub seq: Seq,
    /// Its hits.
    pub hits: u32,
}

/// The entries most often hit that are kept in view.
const HOTTEST: usize = 10;

/// Counters of one scope, or of all.
#[derive(Debug, Clone, PartialEq)]
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
    pub histogram: [u32; HISTOGRAM_BUCKETS],
    /// FETCH, by `FetchOutcome`.
    pub fetches: [u64; FetchOutcome::COUNT],
}

/// What all containers of a kind did since the process started: no RESET and no container that goes takes any of
/// it away.
#[derive(Debug, Default)]
pub struct Lifetime {
    /// Lookups answered.
    pub lookups: Count,
    /// Hits by the exact prompt.
    pub hits_exact: Count,
    /// Hits by meaning.
    pub hits_semantic: Count,
    /// Misses because a guard refused.
    pub refused_by_guards: Count,
    /// FETCH, by `FetchOutcome`.
    pub fetches: [Count; FetchOutcome::COUNT],
    /// Makers that gave up.
    pub failures: Count,
    /// Tokens not generated again.
    pub tokens_saved: Count,
    /// Milliseconds not waited again.
    pub ms_saved: Count,
    /// Nano-dollars not spent again.
    pub nano_usd_saved: Count,
}

impl Lifetime {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            lookups: Count::new(),
            hits_exact: Count::new(),
            hits_semantic: Count::new(),
            refused_by_guards: Count::new(),
            fetches: [const { Count::new() }; FetchOutcome::COUNT],
            failures: Count::new(),
            tokens_saved: Count::new(),
            ms_saved: Count::new(),
            nano_usd_saved: Count::new(),
        }
    }

    fn note_hit(&self, tier: Tier, entry: &EntryView<'_>) {
        match tier {
            Tier::Exact => self.hits_exact.add(1),
            Tier::Semantic => self.hits_semantic.add(1),
        }
        self.tokens_saved.add(entry.tokens().into());
        self.ms_saved.add(entry.latency_ms().into());
        self.nano_usd_saved.add(entry.cost_nano_usd());
    }
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
    /// Makers that gave up.
    pub failures: u64,
    /// Lookups in scopes beyond those kept apart.
    pub untracked_lookups: u64,
    empty_scope: ScopeStats,
    scopes: HashMap<ScopeKey, Box<ScopeStats>>,
    hottest: Vec<Hot>,
    /// Hits of the last of them; 0 while there is a place left.
    least_hot: u32,
    lifetime: Option<&'static Lifetime>,
}

impl Default for ScopeStats {
    fn default() -> Self {
        Self {
            lookups: 0,
            hits_exact: 0,
            hits_semantic: 0,
            misses: [0; MissReason::COUNT],
            tokens_saved: 0,
            ms_saved: 0,
            nano_usd_saved: 0,
            histogram: [0; HISTOGRAM_BUCKETS],
            fetches: [0; FetchOutcome::COUNT],
        }
    }
}

impl ScopeStats {
    /// The share of lookups by meaning whose nearest entry is at least this similar: what a threshold
    /// there would serve, guards and filters aside. To a hundredth; `None` before there was one.
    pub fn served_at(&self, hundredths: usize) -> Option<f64> {
        let all: u64 = self.histogram.iter().map(|&count| u64::from(count)).sum();
        let from = (1 + hundredths).min(HISTOGRAM_BUCKETS - 1);
        let near: u64 = self.histogram[from..].iter().map(|&count| u64::from(count)).sum();
        (all > 0).then(|| near as f64 / all as f64)
    }

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
        let bucket = if similarity < 0.0 { 0 } else { 1 + (similarity * 100.0 + 1e-9) as usize };
        let count = &mut self.histogram[bucket.min(last)];
        *count = count.saturating_add(1);
    }
}

impl Stats {
    /// Counts with those of its kind, too.
    pub fn count_with(&mut self, lifetime: &'static Lifetime) {
        self.lifetime = Some(lifetime);
    }

    /// A maker gave up.
    pub fn note_failure(&mut self) {
        self.failures += 1;
        if let Some(lifetime) = self.lifetime {
            lifetime.failures.add(1);
        }
    }

    /// Counts a hit; `similarity` is that of the nearest entry where a search by meaning was made.
    pub fn note_hit(
        &mut self,
        scope: &[u8],
        tier: Tier,
        entry: &EntryView<'_>,
        similarity: Option<f64>,
    ) {
        if let Some(lifetime) = self.lifetime {
            lifetime.lookups.add(1);
            lifetime.note_hit(tier, entry);
        }
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
        if let Some(lifetime) = self.lifetime {
            lifetime.lookups.add(1);
            lifetime.refused_by_guards.add(u64::from(reason == MissReason::Guard));
        }
        self.each(scope, |stats| {
            stats.lookups += 1;
            stats.misses[reason as usize] += 1;
            if let Some(similarity) = similarity {
                stats.note_similarity(similarity);
            }
        });
    }

    /// Counts what a FETCH was told.
    pub fn note_fetch(&mut self, scope: &[u8], outcome: FetchOutcome) {
        if let Some(lifetime) = self.lifetime {
            lifetime.fetches[outcome as usize].add(1);
        }
        self.each(scope, |stats| stats.fetches[outcome as usize] += 1);
    }

    /// Keeps an entry in view if it is among those most often hit.
    pub fn note_hot(&mut self, hot: Hot) {
        // Hits only grow: what has no more than the least of a full list is not in it, and takes no place.
        if hot.hits <= self.least_hot {
            return;
        }
        let known = self.hottest.iter_mut().find(|known| known.seq == hot.seq);
        if let Some(known) = known {
            *known = hot;
        } else if self.hottest.len() < HOTTEST {
            self.hottest.push(hot);
        } else if let Some(least) = self.hottest.iter_mut().min_by_key(|known| known.hits) {
            *least = hot;
        }
        if self.hottest.len() == HOTTEST {
            self.least_hot = self.hottest.iter().map(|known| known.hits).min().unwrap_or(0);
        }
    }

    /// The entries most often hit, of those that were hit since this process started; some may be gone.
    pub fn hottest(&self) -> Vec<Hot> {
        let mut hottest = self.hottest.clone();
        hottest.sort_by_key(|hot| (std::cmp::Reverse(hot.hits), hot.seq));
        hottest
    }

    fn each(&mut self, scope: &[u8], mut note: impl FnMut(&mut ScopeStats)) {
        note(&mut self.total);
        if scope.is_empty() {
            // The usual case costs no hash.
            note(&mut self.empty_scope);
            return;
        }
        let key = ScopeKey::of(scope);
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
        self.scopes.get(&ScopeKey::of(scope)).map(AsRef::as_ref)
    }

    /// Scopes kept apart, the empty one not counted.
    pub fn scope_count(&self) -> usize {
        self.scopes.len()
    }

    /// Starts counting again, for all or for one scope.
    pub fn reset(&mut self, scope: Option<&[u8]>) {
        match scope {
            None => *self = Self { lifetime: self.lifetime, ..Self::default() },
            Some(b"") => self.empty_scope = ScopeStats::default(),
            Some(scope) => {
                self.scopes.remove(&ScopeKey::of(scope));
            }
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.scopes.allocation_size() + self.scopes.len() * size_of::<ScopeStats>()
    }
}
