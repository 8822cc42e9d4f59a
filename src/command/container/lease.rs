//! `FAIL` and `EXTEND` of `LLMCACHE` and `EMBCACHE`: give up a lease, or extend it.

use super::need_container;
use crate::command::container::store::lease_lost;
use crate::command::parse::{ArgReader, set_once};
use crate::config;
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::{wake, watch_leases, with_known_flights};
use llmcache_core::cache::{Kind, LeaseToken};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;

/// Reads a token.
pub fn lease_token(args: &mut ArgReader<'_>) -> Result<LeaseToken> {
    LeaseToken::parse(args.next("the token")?)
        .ok_or_else(|| Error::err("a token has 16 hex digits, as FETCH gave it"))
}

const NO_LEASE: &str = "no lease has this token: it ended, or was given to somebody else";

/// Runs `LLMCACHE.FAIL`.
pub fn run_fail(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    fail(ctx, args, Kind::Answers)
}

/// Has the maker of an entry of a container of this kind give up.
pub fn fail(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let token = lease_token(&mut reader)?;
    let (mut backoff_ms, mut text) = (None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "BACKOFF" => {
                let most = limits::BACKOFF_MAX_MS;
                set_once(&mut backoff_ms, reader.integer(name, 0, most)?, name)?;
            }
            "ERR" => set_once(&mut text, reader.text(name, limits::FAILURE_MAX_BYTES)?, name)?,
            _ => return Err(word.unknown()),
        }
    }
    let cache = need_container(ctx, args, kind)?;
    let uid = cache.with(|cache| cache.uid());
    let backoff_ms = backoff_ms.unwrap_or_else(config::backoff_ms);
    let (now, breaker) = (ctx.monotonic_now(), config::breaker());
    let waiters = with_known_flights(uid, |flights| {
        flights.fail(token, backoff_ms, text.unwrap_or_default(), breaker, now)
    });
    let waiters = waiters.ok_or_else(|| lease_lost(NO_LEASE))?;
    cache.with(|cache| cache.stats.note_failure());
    wake(ctx, waiters);
    watch_leases(ctx);
    Reply::new(ctx).ok();
    Ok(())
}

/// Runs `LLMCACHE.EXTEND`.
pub fn run_extend(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    extend(ctx, args, Kind::Answers)
}

/// Prolongs a lease in a container of this kind.
pub fn extend(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let token = lease_token(&mut reader)?;
    let lease_ms = reader.integer("the lease", 1, limits::LEASE_MAX_MS)?;
    reader.finish()?;
    let uid = need_container(ctx, args, kind)?.with(|cache| cache.uid());
    let until = ctx.monotonic_now().after(lease_ms);
    if !with_known_flights(uid, |flights| flights.extend(token, until)) {
        return Err(lease_lost(NO_LEASE));
    }
    // A lease may be shortened too.
    watch_leases(ctx);
    Reply::new(ctx).ok();
    Ok(())
}
