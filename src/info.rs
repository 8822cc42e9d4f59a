//! The module's sections of `INFO`: sums over all caches, and over all namespaces of KV-cache chunks, of
//! this process.

use crate::background;
use crate::ffi::{InfoWriter, blocked_count};
use crate::keyspace::flight_counts;
use crate::keytype::followers;
use crate::keytype::namespaces::NAMESPACES;
use crate::keytype::registry::CACHES;
use llmcache_core::cache::{FetchOutcome, MissReason, ScopeStats};

/// Writes the sections.
pub fn write(info: &mut InfoWriter) {
    if info.section(c"caches") {
        write_caches(info);
    }
    if info.section(c"kvchunks") {
        write_chunks(info);
    }
    if info.section(c"sessions") {
        info.number(c"session_followers", followers::count() as u64);
    }
}

fn write_chunks(info: &mut InfoWriter) {
    let (mut count, mut chunks, mut bytes, mut payload_bytes) = (0, 0, 0, 0);
    let (mut asked, mut matched, mut evicted, mut leases) = (0, 0, 0, 0);
    for (namespace, _) in NAMESPACES.all() {
        namespace.with(|namespace| {
            let (tree, stats) = (&namespace.tree, &namespace.stats);
            count += 1;
            chunks += tree.chunks();
            bytes += tree.chunk_bytes();
            payload_bytes += tree.payload_bytes();
            leases += namespace.leases.len() as u64;
            asked += stats.asked;
            matched += stats.matched;
            evicted += stats.evicted;
        });
    }
    info.number(c"namespaces", count);
    info.number(c"chunks", chunks);
    info.number(c"chunk_bytes", bytes);
    info.number(c"chunk_payload_bytes", payload_bytes);
    info.number(c"chunk_leases", leases);
    info.number(c"chunks_asked", asked);
    info.number(c"chunks_matched", matched);
    info.number(c"chunks_evicted", evicted);
    info.number(c"chunk_bytes_in_flight", background::chunks::in_flight());
}

fn write_caches(info: &mut InfoWriter) {
    let (mut entries, mut bytes, mut index_bytes, mut hidden) = (0, 0, 0, 0);
    let (mut stats, mut failures, mut leases, mut waiters) = (ScopeStats::default(), 0, 0, 0);
    for (cache, _) in CACHES.all() {
        cache.with(|cache| {
            let totals = cache.index.totals();
            entries += totals.entries;
            hidden += totals.hidden;
            bytes += cache.total_bytes();
            index_bytes += cache.index.bytes() as u64;
            stats.add(&cache.stats.total);
            failures += cache.stats.failures;
            let [held, waiting, ..] = flight_counts(cache.uid());
            leases += held as u64;
            waiters += waiting as u64;
        });
    }
    info.number(c"caches", CACHES.count() as u64);
    info.number(c"entries", entries);
    info.number(c"entries_hidden", hidden);
    info.number(c"bytes", bytes);
    info.number(c"index_bytes", index_bytes);
    info.number(c"lookups", stats.lookups);
    info.number(c"hits", stats.hits_exact + stats.hits_semantic);
    info.number(c"hits_exact", stats.hits_exact);
    info.number(c"hits_semantic", stats.hits_semantic);
    info.number(c"refused_by_guards", stats.misses[MissReason::Guard as usize]);
    for outcome in FetchOutcome::ALL {
        let name = match outcome {
            FetchOutcome::Stale => c"fetch_stale",
            FetchOutcome::Lead => c"fetch_lead",
            FetchOutcome::Busy => c"fetch_busy",
            FetchOutcome::Coalesced => c"fetch_coalesced",
            FetchOutcome::Negative => c"fetch_negative",
            FetchOutcome::Open => c"fetch_open",
        };
        info.number(name, stats.fetches[outcome as usize]);
    }
    info.number(c"failures", failures);
    info.number(c"leases", leases);
    info.number(c"waiters", waiters);
    info.number(c"clients_blocked", blocked_count() as u64);
    info.number(c"tokens_saved", stats.tokens_saved);
    info.number(c"ms_saved", stats.ms_saved);
    let micro_usd = stats.nano_usd_saved / 1_000;
    info.number(c"micro_usd_saved", u64::try_from(micro_usd).unwrap_or(u64::MAX));
    info.number(c"entries_reaped", background::reaped());
    info.number(c"caches_put_back", background::put_back());
    info.number(c"orphan_groups", background::orphan_groups());
}
