//! Stores an entry of any kind: the checks before the first write, and the steps after it.
//!
//! Owns: the checks and the order that `LLMCACHE.SETSEM`, `RAG.ADD` and `EMBCACHE.SET` share.

use crate::command::parse::Expiry;
use crate::ffi::{Ctx, ServerString, WritePermit};
use crate::keyspace::{
    Linking, NewEntry, enforce_limits, put_entry, remove_entry, wake, with_known_flights,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{LeaseToken, Settings};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::vector::Query;

/// Refuses a vector of another dimension than the container's.
pub fn check_dim(cache: &SharedCache, dim: usize, name: &[u8]) -> Result<()> {
    match cache.with(|cache| (cache.settings.dim, cache.settings.matryoshka)) {
        (Some(have), _) if have as usize != dim => Err(dim_mismatch(dim, have as usize, name)),
        (None, Some(first)) if dim <= first as usize => {
            let name = shown(name);
            let message =
                format!("vector has {dim} dimensions, \"{name}\" compares the first {first}");
            Err(Error::new(ErrorWord::DimMismatch, message))
        }
        _ => Ok(()),
    }
}

/// The same, and one that has nothing in the dimensions that the container compares.
pub fn check_vector(cache: &SharedCache, query: &Query, name: &[u8]) -> Result<()> {
    check_dim(cache, query.dim(), name)?;
    cache.with(|cache| check_first(&cache.settings, query))
}

/// Refuses a vector whose first dimensions, which alone are compared by MATRYOSHKA, are zeros or nearly.
pub fn check_first(settings: &Settings, query: &Query) -> Result<()> {
    match settings.matryoshka {
        Some(first) if !query.has_prefix(first as usize) => {
            let message = format!(
                "the first {first} dimensions, which MATRYOSHKA compares, are zero or nearly"
            );
            Err(Error::new(ErrorWord::BadVector, message))
        }
        _ => Ok(()),
    }
}

/// The error of a vector of another dimension than the container's.
pub fn dim_mismatch(dim: usize, have: usize, name: &[u8]) -> Error {
    let name = shown(name);
    let message = format!("vector has {dim} dimensions, \"{name}\" holds {have}");
    Error::new(ErrorWord::DimMismatch, message)
}

/// A key's name in an error.
pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned()
}

/// Rejects an entry larger than the container's MAXMEMORY.
pub fn check_fits(cache: &SharedCache, new: &NewEntry) -> Result<()> {
    let most = cache.with(|cache| cache.settings.max_memory_bytes);
    let bytes = new.memory_bytes();
    if most > 0 && bytes as u64 > most {
        return Err(Error::too_big("the entry", bytes, most as usize, "bytes (MAXMEMORY)"));
    }
    Ok(())
}

/// Rejects an entry whose lease has ended; the client that waits longest is to generate another. `what` is
/// the scope and the tags it is to be stored with.
pub fn check_lease(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    (scope, tags): (&[u8], &[&[u8]]),
    token: LeaseToken,
    question: EntryId,
) -> Result<()> {
    let uid = cache.with(|cache| cache.uid());
    let since = with_known_flights(uid, |flights| flights.granted_at(token, question));
    let changed = |since| {
        let tags = tags.iter().copied();
        cache.with(|cache| cache.epochs().changed_since(since, scope, tags))
    };
    if since.is_some_and(|since| !changed(since)) {
        return Ok(());
    }
    wake(ctx, with_known_flights(uid, |flights| flights.lose(token)));
    Err(lease_lost("the lease ended, is another question's, or what it is for was invalidated"))
}

/// The error of a lease that has ended.
pub fn lease_lost(why: &'static str) -> Error {
    Error::new(ErrorWord::LeaseLost, why)
}

/// The deadline of an entry stored now, by what was said and by the container's settings.
pub fn deadline(cache: &SharedCache, expiry: Option<Expiry>, now: UnixMs, random: u64) -> UnixMs {
    cache.with(|cache| deadline_by(&cache.settings, expiry, now, random))
}

/// The same by these settings.
pub fn deadline_by(
    settings: &Settings,
    expiry: Option<Expiry>,
    now: UnixMs,
    random: u64,
) -> UnixMs {
    match expiry {
        None => settings.deadline(settings.fresh_until(now, random)),
        Some(Expiry::Persist) => UnixMs::NEVER,
        // What is due already is not kept for its grace.
        Some(Expiry::At(at)) if at.is_past(now) => at,
        Some(Expiry::At(at)) => settings.deadline(at),
    }
}

/// When the graph is brought up that an entry stored now joins: a client that may be made to wait is held
/// to its pace.
pub fn linking(ctx: Ctx<'_>) -> Linking {
    let state = ctx.state();
    let may_wait = state.may_block() && !state.must_obey();
    if may_wait { Linking::Later } else { Linking::AlongTheWay }
}

/// A store whose checks are done.
pub struct Storing<'c, 'r, N> {
    /// Leave to write of the running command.
    pub ctx: WritePermit<'c>,
    /// The container.
    pub cache: &'r SharedCache,
    /// Its key.
    pub name: &'r N,
    /// The time.
    pub now: UnixMs,
}

impl<N: ServerString> Storing<'_, '_, N> {
    /// Stores an entry, makes room where a limit is passed, and wakes who waits for it.
    pub fn keep(&self, new: NewEntry, id: EntryId, replaces: bool, lease: Option<LeaseToken>) {
        let Self { ctx, cache, name, now } = *self;
        cache.with(|cache| {
            cache.stats.stores += 1;
            cache.stats.replaced += u64::from(replaces);
        });
        if new.expire_at.is_past(now) {
            // As with SET … PXAT in the past: what was there is gone, what came is gone already.
            remove_entry(ctx, &new.key);
        } else {
            let slot = put_entry(ctx, Some(cache), new);
            if !ctx.state().must_obey() {
                enforce_limits(ctx, cache, slot);
            }
        }
        ctx.signal_modified(name);
        let uid = cache.with(|cache| cache.uid());
        wake(*ctx, with_known_flights(uid, |flights| flights.stored(id, lease)));
    }
}
