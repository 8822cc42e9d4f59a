//! A walk over the whole keyspace that repairs what events did not report: entries and chunks that
//! their container does not know are added to it, those without a container are indexed for one that may come, and
//! removed after a grace. A cache with more rows than entries that were met has them looked at (`settle`). One walk after
//! each load, then one a minute or so, each in slices.

use super::count_reaped;
use crate::config;
use crate::ffi::{Ctx, KeyScan, MainCell, WritePermit};
use crate::keyspace::slots::{self, Ownership};
use crate::keyspace::{
    Attached, ChunkSeen, attach_arrival, attach_chunk, attach_open, remove_chunk, remove_entry_of,
};
use crate::keytype::cache_registry::CACHES;
use crate::keytype::container_registry::Round;
use crate::keytype::namespace_registry::NAMESPACES;
use crate::keytype::{ChunkValue, EntryValue, cache_registry, namespace_registry};
use hashbrown::{HashMap, HashSet};
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use std::ffi::c_int;
use std::sync::LazyLock;

/// Longest pause between two walks.
const PAUSE_MAX_MS: u64 = 60_000;

/// Entries of one uid in one database.
type Group = (c_int, ContainerUid);

#[derive(Debug, Default)]
struct Sweep {
    scan: Option<KeyScan>,
    db: c_int,
    /// When the last walk ended; none did before the first.
    ended_at: Option<MonotonicMs>,
    /// When entries of a uid were first seen without a container, since they had one.
    orphans: HashMap<Group, MonotonicMs>,
    seen: HashSet<Group>,
    /// Entries met of each cache that knows them.
    met: HashMap<Group, u64>,
    /// Caches whose index this walk fills.
    filling: HashSet<ContainerUid>,
    /// After a walk, the round in which rows are counted against entries.
    counting: Option<Round>,
}

static SWEEP: LazyLock<MainCell<Sweep>> = LazyLock::new(|| MainCell::new(Sweep::default()));

/// What one step of the walk found.
#[derive(Default)]
struct Found {
    unknown: Vec<Vec<u8>>,
    orphans: Vec<(ContainerUid, Vec<u8>)>,
    known: Vec<ContainerUid>,
}

/// How many uids of deleted caches still have entries.
pub fn orphan_groups() -> u64 {
    SWEEP.with(|sweep| sweep.orphans.len() as u64)
}

/// Continues the walk; returns whether a walk is under way that should not wait.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    let now = ctx.monotonic_now();
    let wanted = cache_registry::take_sweep_wanted();
    let returned = [CACHES.take_returned(), NAMESPACES.take_returned()];
    SWEEP.with(|sweep| {
        for group in returned.iter().flatten() {
            sweep.orphans.remove(group);
        }
    });
    let walking = SWEEP.with(|sweep| {
        if wanted || (sweep.scan.is_none() && is_due(sweep.ended_at, now)) {
            sweep.scan = Some(KeyScan::start());
            sweep.db = 0;
            sweep.seen.clear();
            sweep.met = HashMap::new();
            sweep.counting = None;
            // One that began again fills what the one before would have.
            sweep.filling.extend(cache_registry::take_filling());
            CACHES.walk_begins();
            NAMESPACES.walk_begins();
        }
        sweep.scan.is_some()
    });
    if !walking {
        return count(in_time);
    }
    while in_time() {
        if !step(ctx, now) {
            return false;
        }
    }
    true
}

/// One bucket of the keyspace, and what follows from it; false when the walk is over.
fn step(ctx: Ctx<'_>, now: MonotonicMs) -> bool {
    let Some((mut scan, db)) = SWEEP.with(|sweep| Some((sweep.scan.take()?, sweep.db))) else {
        return false;
    };
    if !ctx.select_db(db) {
        end_walk(now);
        return false;
    }
    let mut found = Found::default();
    let more = scan.step(ctx, &mut |name, key| {
        if let Some(chunk) = key.value::<ChunkValue>() {
            match attach_chunk(db, name, chunk) {
                ChunkSeen::NoNamespace(uid) => found.orphans.push((uid, name.to_vec())),
                ChunkSeen::Stub => namespace_registry::note_stub((db, name.to_vec())),
                ChunkSeen::Known | ChunkSeen::Foreign => {}
            }
            return;
        }
        let Some(value) = key.value::<EntryValue>() else { return };
        match attach_open(db, name, value, key.expire_at_ms()) {
            Attached::Added => found.unknown.push(name.to_vec()),
            Attached::NoContainer => found.orphans.push((value.view().uid(), name.to_vec())),
            Attached::Known => found.known.push(value.view().uid()),
            Attached::Foreign | Attached::Absent => {}
        }
    });
    SWEEP.with(|sweep| {
        sweep.scan = Some(if more { scan } else { KeyScan::start() });
        sweep.db += c_int::from(!more);
        for uid in found.known {
            *sweep.met.entry((db, uid)).or_default() += 1;
        }
    });
    for name in found.unknown {
        attach_arrival(ctx, &name, false);
    }
    for (uid, name) in found.orphans {
        meet_orphan(ctx, uid, &name, now);
    }
    true
}

/// Whether the next walk begins. The settings count from when they are set, not from the walk after.
fn is_due(ended_at: Option<MonotonicMs>, now: MonotonicMs) -> bool {
    let pause = (config::orphan_grace_ms() / 2).clamp(config::sweep_interval_ms(), PAUSE_MAX_MS);
    ended_at.is_none_or(|ended_at| now.left(ended_at) >= pause)
}

fn end_walk(now: MonotonicMs) {
    let (seen, filled) = SWEEP.with(|sweep| {
        sweep.ended_at = Some(now);
        sweep.counting = Some(Round::default());
        let seen = std::mem::take(&mut sweep.seen);
        sweep.orphans.retain(|group, _| seen.contains(group));
        sweep.orphans.shrink_to(64);
        (seen, std::mem::take(&mut sweep.filling))
    });
    cache_registry::sweep_ended();
    CACHES.wait_only_for(|db, uid| seen.contains(&(db, uid)));
    NAMESPACES.wait_only_for(|db, uid| seen.contains(&(db, uid)));
    for uid in filled {
        if let Some(cache) = CACHES.any(uid) {
            cache.with(|cache| cache.set_filling(false));
        }
    }
}

/// Counts the rows of each cache against the entries that the walk met; returns whether there are more caches.
fn count(in_time: impl Fn() -> bool) -> bool {
    while in_time() {
        let next = SWEEP.with(|sweep| {
            let next = CACHES.step(sweep.counting.as_mut()?);
            if next.is_none() {
                (sweep.counting, sweep.met) = (None, HashMap::new());
            }
            let (cache, (db, _)) = next?;
            let uid = cache.with(|cache| cache.uid());
            Some((cache, sweep.met.get(&(db, uid)).copied().unwrap_or(0)))
        });
        let Some((cache, met)) = next else { return false };
        cache.with(|cache| cache.count_against(met));
    }
    true
}

fn meet_orphan(ctx: Ctx<'_>, uid: ContainerUid, name: &[u8], now: MonotonicMs) {
    let group = (ctx.db(), uid);
    let first_seen = SWEEP.with(|sweep| {
        sweep.seen.insert(group);
        *sweep.orphans.entry(group).or_insert(now)
    });
    let ripe = now.left(first_seen) >= config::orphan_grace_ms();
    if ripe
        && let Some(permit) = WritePermit::between_commands(ctx)
        && slots::of_key(ctx, name) == Ownership::Settled
    {
        let removed = remove_entry_of(permit, name, uid) || remove_chunk(permit, name, uid);
        count_reaped(u64::from(removed));
    } else if !CACHES.is_going(uid, group.0) {
        // Indexed for the cache that may come.
        attach_arrival(ctx, name, true);
    }
}
