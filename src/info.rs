//! The module's sections of `INFO`: sums over all containers of each kind, and over all namespaces of KV-cache
//! chunks, of this process.

use crate::ffi::{InfoWriter, blocked_count, watched};
use crate::keyspace::{embedding_counts, flight_counts, in_flight, search_counts, sliced_count};
use crate::keytype::cache_registry::CACHES;
use crate::keytype::follower_table;
use crate::keytype::namespace_registry::NAMESPACES;
use crate::{background, config, version};
use llmcache_core::cache::{FetchOutcome, Kind, MissReason, ScopeStats};
use llmcache_core::distance::kernels;
use llmcache_core::embed::Refusal;
use std::ffi::CStr;

/// Writes the sections.
pub fn write(info: &mut InfoWriter) {
    if info.section(c"module") {
        info.text(c"version", version::TEXT);
        info.text(c"kernels", kernels().name);
        info.text(c"settings_changed", &config::changed());
    }
    if info.section(c"caches") {
        write_caches(info);
    }
    if info.section(c"documents") {
        write_containers(info, Kind::Documents, &OF_DOCUMENTS);
    }
    if info.section(c"embeddings") {
        write_containers(info, Kind::Embeddings, &OF_EMBEDDINGS);
    }
    if info.section(c"texts") {
        write_texts(info);
    }
    if info.section(c"kvchunks") {
        write_chunks(info);
    }
    if info.section(c"sessions") {
        info.number(c"session_followers", follower_table::count() as u64);
    }
}

fn write_texts(info: &mut InfoWriter) {
    let counts = embedding_counts();
    info.number(c"models", counts.models as u64);
    info.number(c"model_bytes", counts.model_bytes as u64);
    info.number(c"texts_embedded", counts.embedded);
    info.number(c"texts_embedded_inline", counts.inline);
    info.number(c"texts_remembered", counts.remembered);
    info.number(c"texts_coalesced", counts.coalesced);
    info.number(c"texts_busy", counts.busy);
    for refusal in Refusal::ALL {
        let name = match refusal {
            Refusal::TooLong => c"texts_refused_too_long",
            Refusal::Script => c"texts_refused_script",
            Refusal::Empty => c"texts_refused_empty",
        };
        info.number(name, counts.refused[refusal as usize]);
    }
    info.number(c"texts_queued", counts.queued as u64);
    info.number(c"texts_queued_most", counts.queued_most as u64);
    info.number(c"embed_us", counts.us);
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
    info.number(c"chunk_bytes_in_flight", in_flight());
}

/// What the fields of a kind are called: containers, entries, bytes, bytes of indexes, lookups, hits.
type Names = [&'static CStr; 6];
const OF_DOCUMENTS: Names = [
    c"document_indexes",
    c"documents",
    c"document_bytes",
    c"document_index_bytes",
    c"document_lookups",
    c"document_hits",
];
const OF_EMBEDDINGS: Names = [
    c"embedding_caches",
    c"embeddings",
    c"embedding_bytes",
    c"embedding_index_bytes",
    c"embedding_lookups",
    c"embedding_hits",
];

fn write_containers(info: &mut InfoWriter, kind: Kind, names: &Names) {
    let mut sums = [0; 6];
    for (cache, _) in CACHES.all() {
        cache.with(|cache| {
            if cache.settings.kind != kind {
                return;
            }
            let (totals, stats) = (cache.index.totals(), &cache.stats.total);
            let (hits, index_bytes) = (stats.hits_exact + stats.hits_semantic, cache.index.bytes());
            let bytes = cache.total_bytes();
            let own = [1, totals.entries, bytes, index_bytes as u64, stats.lookups, hits];
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        });
    }
    names.iter().zip(sums).for_each(|(name, sum)| info.number(name, sum));
}

fn write_caches(info: &mut InfoWriter) {
    let (mut caches, mut entries, mut bytes, mut index_bytes, mut hidden) = (0, 0, 0, 0, 0);
    let (mut stats, mut failures, mut leases, mut waiters) = (ScopeStats::default(), 0, 0, 0);
    for (cache, _) in CACHES.all() {
        cache.with(|cache| {
            if cache.settings.kind != Kind::Answers {
                return;
            }
            let totals = cache.index.totals();
            caches += 1;
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
    info.number(c"caches", caches);
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
    let searches = search_counts();
    info.number(c"searches_in_threads", searches.given);
    info.number(c"searches_out", searches.out as u64);
    info.number(c"commands_in_slices", sliced_count() as u64);
    let (broken, [keys, path, reply]) = watched();
    info.number(c"bounds_broken", broken);
    info.number(c"last_command_keys", keys);
    info.number(c"last_command_steps", path);
    info.number(c"last_command_reply_bytes", reply);
    info.number(c"tokens_saved", stats.tokens_saved);
    info.number(c"ms_saved", stats.ms_saved);
    let micro_usd = stats.nano_usd_saved / 1_000;
    info.number(c"micro_usd_saved", u64::try_from(micro_usd).unwrap_or(u64::MAX));
    info.number(c"entries_reaped", background::reaped());
    info.number(c"caches_put_back", background::put_back());
    info.number(c"orphan_groups", background::orphan_groups());
}
