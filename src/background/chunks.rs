//! Background work on KV-cache chunks: removes chunks of deleted namespaces, stubs and orphans, restores deadlines of
//! leaves, ends expired leases, enforces lowered budgets, protects namespace keys.

use super::count_reaped;
use crate::config;
use crate::ffi::{Ctx, MainCell, WritePermit, run_once};
use crate::keyspace::slots::{self, Ownership};
use crate::keyspace::{
    arm_new_leaves, chunk_arrived, note_buffered, note_maxmemory, remove_chunk, remove_node,
    remove_stub, room_of, shield, shrink_to,
};
use crate::keytype::NamespaceValue;
use crate::keytype::container_registry::{Place, Round};
use crate::keytype::namespace_registry::{self, KeylessNamespace, NAMESPACES, SharedNamespace};
use llmcache_core::ids::{MonotonicMs, UnixMs};
use llmcache_core::kvchunk::NodeId;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pause between rounds over all namespaces.
const ROUND_MS: u64 = 1_000;
/// Chunks a round looks at in one namespace for deadlines that nothing enforced.
const WALK_PER_ROUND: usize = 2_048;
/// Chunks evicted from one namespace in a round, at most.
const EVICT_PER_ROUND: usize = 1_024;
/// Chunks that no prefix reaches, removed from one namespace in a round, at most.
const ORPHANS_PER_ROUND: usize = 1_024;
/// How long past its deadline a chunk is left to the server's own expiry.
const OVERDUE_MS: u64 = 2_000;
/// How long a replica keeps the tree of a deleted namespace.
const KEPT_BY_REPLICA_MS: u64 = 10_000;

#[derive(Default)]
struct Rounds {
    round: Round,
    under_way: bool,
    next_at: MonotonicMs,
}

static ROUNDS: LazyLock<MainCell<Rounds>> = LazyLock::new(|| MainCell::new(Rounds::default()));

/// Brings chunks together with their namespaces; returns whether some are left.
pub fn attach_arrivals(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    while in_time() {
        let Some((db, key)) = NAMESPACES.next_arrival() else { return false };
        if ctx.select_db(db) {
            chunk_arrived(ctx, &key);
        }
    }
    true
}

/// The server evicted a key: where that was a leaf, the chunk before it is one now, and is given its
/// deadline as soon as the command that runs has ended, so that `volatile-*` finds it.
pub fn arm_soon(ctx: Ctx<'_>) {
    if NAMESPACES.count() > 0 && !ARMING.swap(true, Ordering::Relaxed) {
        run_once(ctx, arm_now);
    }
}

static ARMING: AtomicBool = AtomicBool::new(false);

fn arm_now(ctx: Ctx<'_>) {
    ARMING.store(false, Ordering::Relaxed);
    let Some(permit) = WritePermit::between_commands(ctx) else { return };
    arm(permit, || true);
}

/// Gives the keys of chunks that became leaves their deadlines back, in namespaces where some did; returns whether
/// there is more that should not wait.
fn arm(permit: WritePermit<'_>, in_time: impl Fn() -> bool) -> bool {
    // Each once: one whose hash slot is moving stays on the list.
    for _ in 0..namespace_registry::with_leaves() {
        if !in_time() {
            return true;
        }
        let Some((namespace, (db, name))) = namespace_registry::take_with_leaves() else { break };
        if permit.select_db(db) && slots::of_key(*permit, &name) == Ownership::Settled {
            arm_new_leaves(permit, &namespace, &in_time);
        }
        namespace.with(|namespace| namespace_registry::note_work(namespace));
    }
    false
}

/// One slice; returns whether more is to do at once.
pub fn run(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    note_buffered(ctx);
    let now = ctx.now_ms();
    let permit = WritePermit::between_commands(ctx);
    let mut backlog = attach_arrivals(ctx, &in_time) | reap(ctx, &in_time);
    while in_time() && namespace_registry::lapse_one(ctx.monotonic_now()) {}
    if let Some(permit) = permit {
        backlog |= remove_stubs(permit, &in_time);
        backlog |= arm(permit, &in_time);
    }
    while in_time()
        && let Some((namespace, place)) = next_of_round(ctx)
    {
        if !ctx.select_db(place.0) {
            continue;
        }
        shield(ctx, &NAMESPACES, &place, |key| Some(key.value::<NamespaceValue>()?.0.clone()));
        if let Some(permit) = permit
            && slots::of_key(ctx, &place.1) == Ownership::Settled
        {
            clean(permit, &namespace, now);
        }
    }
    backlog
}

/// The next namespace of the round over all, which begins once a second.
fn next_of_round(ctx: Ctx<'_>) -> Option<(SharedNamespace, Place)> {
    let now = ctx.monotonic_now();
    let begins = ROUNDS.with(|rounds| {
        let begins = !rounds.under_way && now >= rounds.next_at;
        if begins {
            (rounds.under_way, rounds.next_at) = (true, now.after(ROUND_MS));
        }
        begins
    });
    if begins && NAMESPACES.count() > 0 {
        note_maxmemory(ctx);
    }
    ROUNDS.with(|rounds| {
        if !rounds.under_way {
            return None;
        }
        let found = NAMESPACES.step(&mut rounds.round);
        rounds.under_way = found.is_some();
        found
    })
}

/// A round over one namespace: what no prefix reaches for too long, what is past its deadline or
/// damaged, what is over the budget.
fn clean(ctx: WritePermit<'_>, namespace: &SharedNamespace, now: u64) {
    let grace = config::orphan_grace_ms();
    let since_now = ctx.monotonic_now();
    let orphans = namespace.with(|n| {
        n.tree.orphans(ORPHANS_PER_ROUND, |since| {
            since_now.left(*since.get_or_insert(since_now)) >= grace
        })
    });
    let overdue = walk(namespace, now);
    for id in orphans.into_iter().chain(overdue) {
        let may_go = namespace.with(|n| n.tree.is_current(id));
        if may_go {
            count_reaped(u64::from(remove_node(ctx, namespace, id)));
        }
    }
    let room = room_of(namespace);
    if room > 0 {
        shrink_to(ctx, namespace, room, EVICT_PER_ROUND);
    }
    namespace.with(|n| n.adapt_to(room));
}

/// Looks at the next chunks for what should not be there any more.
fn walk(namespace: &SharedNamespace, now: u64) -> Vec<NodeId> {
    let late = UnixMs(now.saturating_sub(OVERDUE_MS));
    namespace.with(|n| {
        let mut found = Vec::new();
        for _ in 0..WALK_PER_ROUND {
            let Some((next, id)) = n.tree.next_from(n.round_at) else {
                n.round_at = 0;
                break;
            };
            n.round_at = next;
            let Some(id) = id else { continue };
            let node = n.tree.node(id);
            if node.damaged || node.expire_at.is_past(late) {
                found.push(id);
            }
        }
        found
    })
}

fn remove_stubs(ctx: WritePermit<'_>, in_time: impl Fn() -> bool) -> bool {
    while in_time() {
        let Some((db, name)) = namespace_registry::next_stub() else { return false };
        if !ctx.select_db(db) {
            continue;
        }
        match slots::of_key(*ctx, &name) {
            Ownership::Settled => remove_stub(ctx, &name),
            Ownership::Moving => {
                namespace_registry::note_stub((db, name));
                return false;
            }
            Ownership::Foreign => {}
        }
    }
    true
}

/// Removes the chunks of the oldest deleted namespace.
fn reap(ctx: Ctx<'_>, in_time: impl Fn() -> bool) -> bool {
    let Some(mut gone) = NAMESPACES.take_remains() else { return false };
    if ctx.state().is_replica() {
        keep_for_primary(ctx, gone);
        return false;
    }
    let (prefix, uid) = gone.container.with(|n| (n.prefix().to_vec(), n.uid()));
    let ownership = slots::of_key(ctx, &prefix);
    if ownership == Ownership::Foreign {
        NAMESPACES.let_wait(&gone);
        return true;
    }
    let permit = WritePermit::between_commands(ctx)
        .filter(|_| ownership == Ownership::Settled && ctx.select_db(gone.place.0));
    let Some(permit) = permit else {
        NAMESPACES.put_back_remains(&gone, true);
        return false;
    };
    while in_time() {
        let next = gone.container.with(|n| {
            let (next, id) = n.tree.next_from(gone.next_slot)?;
            let digest = id.map(|id| n.tree.node(id).digest.clone());
            Some((next, digest.map(|digest| (n.chunk_key(&digest), digest))))
        });
        let Some((next, found)) = next else {
            NAMESPACES.let_wait(&gone);
            return true;
        };
        gone.next_slot = next;
        let Some((key, digest)) = found else { continue };
        count_reaped(u64::from(remove_chunk(permit, &key, uid)));
        gone.container.with(|n| n.tree.remove(&digest));
    }
    NAMESPACES.put_back_remains(&gone, false);
    true
}

/// The primary sends every removal, or makes the namespace again where its server evicted it.
fn keep_for_primary(ctx: Ctx<'_>, mut gone: KeylessNamespace) {
    let now = ctx.monotonic_now();
    if !gone.since.get_or_insert(now).after(KEPT_BY_REPLICA_MS).is_past(now) {
        NAMESPACES.put_back_remains(&gone, true);
    } else {
        NAMESPACES.let_wait(&gone);
    }
}
