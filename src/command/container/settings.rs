//! The fields that INFO and CONFIG show for a container of any kind.

use crate::ffi::Reply;
use crate::keyspace::flight_counts;
use llmcache_core::cache::{Cache, Settings};
use llmcache_core::distance::kernels;
use llmcache_core::words::Language;

/// Writes a setting.
pub fn write_setting(reply: Reply<'_>, settings: &Settings, name: &str) {
    reply.text(name);
    let share = |ppm: u32| reply.double(f64::from(ppm) / 1e6);
    match name {
        "dim" => reply.count(u64::from(settings.dim.unwrap_or(0))),
        "model" => reply.bytes(&settings.model),
        "quant" => reply.text(settings.quant.as_str()),
        "matryoshka" => reply.count(settings.matryoshka.unwrap_or(0).into()),
        "index" => reply.text(settings.graph.mode.as_str()),
        "m" => reply.count(settings.graph.m.into()),
        "efc" => reply.count(settings.graph.efc.into()),
        "ef" => reply.count(settings.graph.ef.into()),
        "guard" => reply.text(settings.guard.as_str()),
        "numbers" => reply.text(settings.numbers.as_str()),
        "exchange" => reply.text(if settings.exchange { "ON" } else { "OFF" }),
        "maxerror" => share(settings.max_error.max_error_ppm),
        "confidence" => share(settings.max_error.confidence_ppm),
        "audit" => share(settings.max_error.audit_ppm),
        "cold" => reply.text(settings.max_error.cold.as_str()),
        "minsim" => reply.double(settings.max_error.least_similarity(settings.threshold).as_f64()),
        "nearmisses" => reply.count(settings.near_misses.into()),
        "threshold" => reply.double(settings.threshold),
        "ttl" => reply.count(settings.ttl_ms / 1_000),
        "jitter" => reply.count(u64::from(settings.jitter_pct)),
        "grace" => reply.count(settings.grace_s.into()),
        "loader" => reply.bytes(&settings.loader),
        "sink" => reply.bytes(&settings.sink),
        "words" => reply.text(settings.words.map_or("off", Language::as_str)),
        "maxentries" => reply.count(settings.max_entries),
        _ => reply.count(settings.max_memory_bytes),
    };
}

/// Writes a field of INFO, of containers of any kind.
pub fn write_info(reply: Reply<'_>, name: &[u8], cache: &Cache, field: &str) {
    let totals = cache.index.totals();
    let graphs = cache.index.graph_info();
    let flight = |which: usize| flight_counts(cache.uid())[which] as u64;
    reply.text(field);
    match field {
        "name" => reply.bytes(name),
        "uid" => reply.text(&cache.uid().to_string()),
        "prefix" => reply.bytes(cache.prefix()),
        "entries" => reply.count(totals.entries),
        "vectors" => reply.count(totals.vectors),
        "partitions" => reply.count(cache.index.partition_count() as u64),
        "hidden" => reply.count(totals.hidden),
        "bytes" => reply.count(cache.total_bytes()),
        "index_bytes" => reply.count(cache.index.bytes() as u64),
        "entry_bytes" => reply.count(totals.entry_bytes),
        "filling" => reply.int(i64::from(cache.is_filling())),
        "mode" => reply.text(match (totals.vectors, graphs.linked) {
            (0, _) => "none",
            (_, 0) => "flat",
            _ => "graph",
        }),
        "graphs" => reply.count(graphs.graphs),
        "linked" => reply.count(graphs.linked),
        "tail" => reply.count(graphs.tail),
        "tombstones" => reply.count(graphs.tombstones),
        "levels" => reply.count(graphs.levels.into()),
        "link_bytes" => reply.count(graphs.link_bytes),
        "terms" => reply.count(cache.index.words().map_or(0, |words| words.term_count()) as u64),
        "word_bytes" => reply.count(cache.index.words().map_or(0, |words| words.bytes()) as u64),
        "unread_texts" => reply.int(i64::from(cache.index.has_unread_texts())),
        "invalidations" => reply.count(cache.epochs().len() as u64),
        "invalidating" => reply.int(i64::from(cache.has_invalidated())),
        "leases" => reply.count(flight(0)),
        "waiters" => reply.count(flight(1)),
        "failures_remembered" => reply.count(flight(2)),
        "open_breakers" => reply.count(flight(3)),
        _ => reply.text(kernels().name),
    };
}
