//! The module's sections of `INFO`: sums over all containers of each kind, and over all namespaces of KV-cache
//! chunks, of this process. They are kept as containers change; nothing here visits one, and counts of what happened
//! do not fall when a container goes or its statistics are reset.

use crate::ffi::{InfoWriter, blocked_count, longest_run, watched};
use crate::keyspace::{embedding_counts, in_flight, pending_flights, search_counts, sliced_count};
use crate::keytype::cache_registry::{self, CACHES, Place};
use crate::keytype::container_registry::Round;
use crate::keytype::follower_table;
use crate::keytype::namespace_registry::{self, NAMESPACES};
use crate::{background, config, version};
use llmcache_core::cache::{FetchOutcome, Kind};
use llmcache_core::distance::kernels;
use llmcache_core::embed::Refusal;
use llmcache_core::limits;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;

/// Writes the sections.
pub fn write(info: &mut InfoWriter) {
    cache_registry::sum_up(SUMMED_UP);
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
    if info.section(c"containers") {
        write_each(info);
    }
    if info.section(c"sessions") {
        info.number(c"session_followers", follower_table::count() as u64);
    }
}

/// Caches whose index's memory is asked for again, at most: that of others is as of their last slice.
const SUMMED_UP: usize = 256;

fn write_texts(info: &mut InfoWriter) {
    let counts = embedding_counts();
    info.number(c"models", counts.models as u64);
    info.number(c"model_bytes", counts.model_bytes as u64);
    info.number(c"texts_embedded", counts.embedded);
    info.number(c"texts_embedded_inline", counts.inline);
    info.number(c"texts_remembered", counts.remembered);
    info.number(c"texts_memo", counts.memo.0 as u64);
    info.number(c"texts_memo_bytes", counts.memo.1 as u64);
    info.number(c"texts_coalesced", counts.coalesced);
    info.number(c"texts_shared", counts.shared);
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
    let totals = namespace_registry::totals();
    let [chunks, bytes, payload_bytes, leases] = totals.held.sums();
    info.number(c"namespaces", NAMESPACES.count() as u64);
    info.number(c"chunks", chunks);
    info.number(c"chunk_bytes", bytes);
    info.number(c"chunk_payload_bytes", payload_bytes);
    info.number(c"chunk_leases", leases);
    info.number(c"chunks_asked", totals.asked.get());
    info.number(c"chunks_matched", totals.matched.get());
    info.number(c"chunks_evicted", totals.evicted.get());
    info.number(c"chunk_bytes_in_flight", in_flight());
}

/// The first containers by name, so that whoever watches a server need not walk over all its keys: `container_0` and
/// so on, as `kind=answers,db=0,entries=3,bytes=4096,name=faq`.
fn write_each(info: &mut InfoWriter) {
    let (mut number, mut round) = (0, Round::default());
    for _ in 0..limits::INFO_CONTAINERS_MAX {
        let Some((cache, place)) = CACHES.step(&mut round) else { break };
        let (kind, entries, bytes) = cache.with(|cache| {
            let kind = match cache.settings.kind {
                Kind::Answers => "answers",
                Kind::Documents => "documents",
                Kind::Embeddings => "embeddings",
            };
            (kind, cache.index.totals().entries, cache.total_bytes())
        });
        write_one(info, &mut number, kind, entries, bytes, &place);
    }
    let mut round = Round::default();
    for _ in 0..limits::INFO_CONTAINERS_MAX {
        let Some((namespace, place)) = NAMESPACES.step(&mut round) else { break };
        let (chunks, bytes) =
            namespace.with(|namespace| (namespace.tree.chunks(), namespace.tree.chunk_bytes()));
        write_one(info, &mut number, "chunks", chunks, bytes, &place);
    }
}

fn write_one(
    info: &mut InfoWriter,
    number: &mut usize,
    kind: &str,
    entries: u64,
    bytes: u64,
    (db, name): &Place,
) {
    let field = CString::new(format!("container_{number}")).expect("no NUL in it");
    let name = percent_encoded(name);
    info.text(&field, &format!("kind={kind},db={db},entries={entries},bytes={bytes},name={name}"));
    *number += 1;
}

/// A name in characters that stand for themselves in INFO and in an address.
fn percent_encoded(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, &byte) in name.iter().enumerate() {
        // Clients take for a number what begins like one.
        let begins_a_number = at == 0 && (byte.is_ascii_digit() || b"-.".contains(&byte));
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~{}@/".contains(&byte);
        if is_plain && !begins_a_number {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
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
    let totals = cache_registry::totals(kind);
    let [entries, _, entry_bytes, index_bytes, count] = totals.held.sums();
    let hits = totals.did.hits_exact.get() + totals.did.hits_semantic.get();
    let lookups = totals.did.lookups.get();
    let sums = [count, entries, entry_bytes + index_bytes, index_bytes, lookups, hits];
    names.iter().zip(sums).for_each(|(name, sum)| info.number(name, sum));
}

fn write_caches(info: &mut InfoWriter) {
    let totals = cache_registry::totals(Kind::Answers);
    let [entries, hidden, entry_bytes, index_bytes, caches] = totals.held.sums();
    let bytes = entry_bytes + index_bytes;
    let did = &totals.did;
    let [leases, waiters, lease_bytes] = pending_flights();
    info.number(c"caches", caches);
    info.number(c"entries", entries);
    info.number(c"entries_hidden", hidden);
    info.number(c"bytes", bytes);
    info.number(c"index_bytes", index_bytes);
    info.number(c"lookups", did.lookups.get());
    info.number(c"hits", did.hits_exact.get() + did.hits_semantic.get());
    info.number(c"hits_exact", did.hits_exact.get());
    info.number(c"hits_semantic", did.hits_semantic.get());
    info.number(c"refused_by_guards", did.refused_by_guards.get());
    for outcome in FetchOutcome::ALL {
        let name = match outcome {
            FetchOutcome::Stale => c"fetch_stale",
            FetchOutcome::Lead => c"fetch_lead",
            FetchOutcome::Busy => c"fetch_busy",
            FetchOutcome::Coalesced => c"fetch_coalesced",
            FetchOutcome::Negative => c"fetch_negative",
            FetchOutcome::Open => c"fetch_open",
        };
        info.number(name, did.fetches[outcome as usize].get());
    }
    info.number(c"failures", did.failures.get());
    info.number(c"leases", leases);
    info.number(c"lease_bytes", lease_bytes);
    info.number(c"waiters", waiters);
    info.number(c"clients_blocked", blocked_count() as u64);
    let searches = search_counts();
    info.number(c"searches_in_threads", searches.given);
    info.number(c"searches_by_load", searches.by_load);
    info.number(c"searches_out", searches.out as u64);
    info.number(c"commands_in_slices", sliced_count() as u64);
    let (broken, [keys, path, reply]) = watched();
    info.number(c"bounds_broken", broken);
    info.number(c"last_command_keys", keys);
    info.number(c"last_command_steps", path);
    info.number(c"last_command_reply_bytes", reply);
    info.number(c"last_command_longest_run", longest_run());
    info.number(c"tokens_saved", did.tokens_saved.get());
    info.number(c"ms_saved", did.ms_saved.get());
    info.number(c"micro_usd_saved", did.nano_usd_saved.get() / 1_000);
    info.number(c"entries_reaped", background::reaped());
    info.number(c"caches_put_back", background::put_back());
    info.number(c"orphan_groups", background::orphan_groups());
}
