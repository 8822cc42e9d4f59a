//! `LLMCACHE.STATS`: statistics of a cache and what it saved.

use super::{audit_stats, need_cache};
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{CommandArgs, Ctx, Reply};
use llmcache_core::cache::{Cache, FetchOutcome, Hot, MissReason, ScopeStats, format_usd};
use llmcache_core::error::Result;
use llmcache_core::limits;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut scope, mut reset) = (None, false);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "SCOPE" => {
                set_once(&mut scope, reader.text("SCOPE", limits::SCOPE_MAX_BYTES)?, "SCOPE")?;
            }
            "RESET" => flag_once(&mut reset, "RESET")?,
            _ => return Err(word.unknown()),
        }
    }
    let shared = need_cache(ctx, args)?;
    let reply = Reply::new(ctx);
    shared.with(|cache| {
        match scope {
            None => write_all(reply, cache),
            Some(scope) => {
                reply.map(SCOPE_FIELDS);
                let none = ScopeStats::default();
                write_scope(reply, cache.stats.scope(scope).unwrap_or(&none));
            }
        }
        if reset {
            cache.stats.reset(scope);
        }
    });
    Ok(())
}

fn write_all(reply: Reply<'_>, cache: &Cache) {
    let stats = &cache.stats;
    reply.map(SCOPE_FIELDS + 7 + audit_stats::FIELDS);
    write_scope(reply, &stats.total);
    reply.text("stores").count(stats.stores);
    reply.text("replaced").count(stats.replaced);
    reply.text("evicted").count(stats.evicted);
    reply.text("failures").count(stats.failures);
    write_hottest(reply, cache);
    reply.text("scopes").count(stats.scope_count() as u64);
    reply.text("untracked_lookups").count(stats.untracked_lookups);
    audit_stats::write(reply, cache);
}

const SCOPE_FIELDS: usize = 19 + FetchOutcome::COUNT;

fn write_scope(reply: Reply<'_>, stats: &ScopeStats) {
    let hits = stats.hits_exact + stats.hits_semantic;
    let ratio = if stats.lookups == 0 { 0.0 } else { hits as f64 / stats.lookups as f64 };
    reply.text("lookups").count(stats.lookups);
    reply.text("hits").count(hits);
    reply.text("hits_exact").count(stats.hits_exact);
    reply.text("hits_semantic").count(stats.hits_semantic);
    reply.text("hit_ratio").double(rounded(ratio));
    reply.text("misses").count(stats.misses_total());
    for reason in MissReason::ALL {
        let name = match reason {
            MissReason::Empty => "misses_empty",
            MissReason::BelowThreshold => "misses_threshold",
            MissReason::Filter => "misses_filter",
            MissReason::Expired => "misses_expired",
            MissReason::MaxAge => "misses_maxage",
            MissReason::Guard => "misses_guard",
            MissReason::Unproven => "misses_unproven",
            MissReason::Filling => "misses_filling",
        };
        reply.text(name).count(stats.misses[reason as usize]);
    }
    for outcome in FetchOutcome::ALL {
        reply.text(outcome.as_str()).count(stats.fetches[outcome as usize]);
    }
    reply.text("tokens_saved").count(stats.tokens_saved);
    reply.text("ms_saved").count(stats.ms_saved);
    reply.text("usd_saved").text(&format_usd(stats.nano_usd_saved));
    write_histogram(reply, stats);
    write_what_ifs(reply, stats);
}

/// Pairs of a bucket's lower edge and its count, empty buckets left out.
fn write_histogram(reply: Reply<'_>, stats: &ScopeStats) {
    let filled: Vec<_> =
        stats.histogram.iter().enumerate().filter(|(_, count)| **count > 0).collect();
    reply.text("similarity_histogram").array(filled.len());
    for (bucket, &count) in filled {
        let edge = if bucket == 0 { -1.0 } else { (bucket - 1) as f64 / 100.0 };
        reply.array(2).double(edge).count(count.into());
    }
}

/// Thresholds, in hundredths, for which it is told what they would serve.
const WHAT_IFS: [usize; 10] = [75, 80, 85, 88, 90, 92, 94, 96, 98, 99];

/// Pairs of a threshold and the share of lookups by meaning that it would serve, guards aside.
fn write_what_ifs(reply: Reply<'_>, stats: &ScopeStats) {
    let shares: Vec<(usize, f64)> =
        WHAT_IFS.into_iter().filter_map(|at| Some((at, stats.served_at(at)?))).collect();
    reply.text("thresholds").array(shares.len());
    for (hundredths, share) in shares {
        reply.array(2).double(hundredths as f64 / 100.0).double(rounded(share));
    }
}

/// The entries most often hit: id and hits.
fn write_hottest(reply: Reply<'_>, cache: &Cache) {
    let living = |hot: &Hot| {
        let slot = cache.index.slot_of(hot.slot, hot.seq)?;
        Some((cache.id_text(&slot.id), slot.hits))
    };
    let hottest: Vec<_> = cache.stats.hottest().iter().filter_map(living).collect();
    reply.text("hottest").array(hottest.len());
    for (id, hits) in hottest {
        reply.array(2).bytes(&id).count(hits.into());
    }
}

/// To four decimals: shares are for people.
fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}
