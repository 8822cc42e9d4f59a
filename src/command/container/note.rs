//! Records the outcome of a lookup: statistics, hits of entries, use of their keys.

use super::hit_reply::Served;
use crate::ffi::Ctx;
use crate::keyspace::OpenedEntry;
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::maxerror::SimilarityE4;
use llmcache_core::cache::{Cache, LookupReport, MissReason, NearMiss};
use llmcache_core::evict::minute;
use llmcache_core::ids::UnixMs;

/// Where the outcome of a lookup is counted.
pub struct Note<'c, 'r> {
    pub ctx: Ctx<'c>,
    pub cache: &'r SharedCache,
    pub scope: &'r [u8],
    /// What was asked, where that was said.
    pub question: Option<&'r [u8]>,
    pub now: UnixMs,
}

/// Whether a key may fall due before the command that holds it open has replied: to open it once more could
/// delete it, since the server's clock goes on while a client that waited is answered.
fn is_due_soon(entry: &OpenedEntry<'_>, now: UnixMs) -> bool {
    const SOON_MS: u64 = 10_000;
    (1..now.0 + SOON_MS).contains(&entry.expire_at_ms())
}

impl Note<'_, '_> {
    /// Remembers a lookup that came near and was not served.
    fn remember(&self, cache: &mut Cache, report: &LookupReport<OpenedEntry<'_>>) {
        let (Some(nearest), Some(reason)) = (&report.nearest, report.reason) else { return };
        let settings = &cache.settings;
        let (most, threshold) = (settings.near_misses, settings.threshold);
        let least = settings.max_error.least_similarity(threshold);
        if SimilarityE4::of(nearest.similarity) < least {
            return;
        }
        let guard = report.guard.as_ref().filter(|_| reason == MissReason::Guard);
        let miss = NearMiss {
            number: 0,
            at: self.now,
            question: self.question.unwrap_or_default().to_vec(),
            id: nearest.id.clone(),
            candidate: nearest.prompt.clone(),
            similarity: nearest.similarity,
            reason: reason.as_str(),
            guard: guard.map(|finding| finding.refusal.as_str()),
        };
        cache.near_misses.add(miss, most);
    }

    /// Counts it, and fills in the hits of what is served.
    pub fn lookup(&self, report: &LookupReport<OpenedEntry<'_>>, served: &mut [Served]) {
        let now_min = minute(self.now);
        let similarity = report.nearest_similarity;
        // What replicas see fixes nothing.
        let decides = !self.ctx.state().is_replica();
        self.cache.with(|cache| {
            if let (Some(near), Some(audit)) = (&report.near, cache.audit_mut()) {
                audit.note_near(near.similarity, decides);
            }
            if cache.settings.near_misses > 0 {
                self.remember(cache, report);
            }
            match (report.hits.first(), report.reason) {
                (Some(first), _) => {
                    let view = first.entry.view();
                    cache.stats.note_hit(self.scope, first.tier, &view, similarity);
                }
                (None, reason) => {
                    let reason = reason.unwrap_or(MissReason::Empty);
                    cache.stats.note_miss(self.scope, reason, similarity);
                }
            }
            for (hit, served) in report.hits.iter().zip(served) {
                let view = hit.entry.view();
                served.hits = cache.note_hit(&view, now_min);
            }
        });
        // Candidates that might have been refused were opened without counting as used; what is served
        // counts.
        for hit in &report.hits {
            if !hit.entry.is_used() && !is_due_soon(&hit.entry, self.now) {
                hit.entry.touch();
            }
        }
    }
}
