//! Answers that are being generated, by cache, and the clients that wait for them.
//!
//! Owns: the map from cache to flights, which outlives no process and no cache, what all of them together have, and the
//! one timer that looks after all leases. Main thread only.

use super::slots::Served;
use crate::ffi::{Alarm, BlockedId, Ctx, MainCell, wake_blocked};
use crate::keytype::cache_registry::{self, Bereft, CACHES, SharedCache};
use hashbrown::HashMap;
use llmcache_core::cache::{Flights, Room, WaiterId};
use llmcache_core::ids::{ContainerUid, EntryId, MonotonicMs};
use llmcache_core::limits;
use std::collections::BTreeSet;
use std::sync::LazyLock;

#[derive(Default)]
struct All {
    of: HashMap<ContainerUid, Flights>,
    /// When something of each cache is to be looked at.
    due: BTreeSet<(MonotonicMs, ContainerUid)>,
    /// Leases and waiters of all caches together, and their memory.
    pending: [u64; 3],
}

static FLIGHTS: LazyLock<MainCell<All>> = LazyLock::new(|| MainCell::new(All::default()));

impl All {
    /// Works on flights, and keeps the sums and the times.
    fn with<R>(&mut self, uid: ContainerUid, work: impl FnOnce(&mut Flights) -> R) -> Option<R> {
        let flights = self.of.get_mut(&uid)?;
        let (before, due) = (flights.held(), flights.next_due());
        let result = work(flights);
        let (after, next) = (flights.held(), flights.next_due());
        for ((sum, before), after) in self.pending.iter_mut().zip(before).zip(after) {
            *sum = *sum + after - before;
        }
        if due != next {
            if let Some(at) = due {
                self.due.remove(&(at, uid));
            }
            self.due.extend(next.map(|at| (at, uid)));
        }
        if flights.is_empty() {
            self.of.remove(&uid);
            if self.of.is_empty() {
                self.of.shrink_to_fit();
            }
        }
        Some(result)
    }
}

/// Works on the flights of a cache that may get one. `work` must not open keys.
pub fn with_flights<R>(uid: ContainerUid, work: impl FnOnce(&mut Flights) -> R) -> R {
    FLIGHTS.with(|all| {
        all.of.entry(uid).or_default();
        all.with(uid, work).expect("it was made a line above")
    })
}

/// Works on the flights of a cache, if there are any. `work` must not open keys.
pub fn with_known_flights<R: Default>(
    uid: ContainerUid,
    work: impl FnOnce(&mut Flights) -> R,
) -> R {
    FLIGHTS.with(|all| all.with(uid, work)).unwrap_or_default()
}

/// Leases and waiters of all caches together, and the memory of leases and failures in bytes.
pub fn pending_flights() -> [u64; 3] {
    FLIGHTS.with(|all| all.pending)
}

/// Memory for another lease.
pub fn room_for_lease(ctx: Ctx<'_>) -> Room {
    if ctx.state().is_out_of_memory() {
        return Room::OutOfMemory;
    }
    let [.., bytes] = pending_flights();
    Room::Bytes(limits::LEASE_BYTES_MAX.saturating_sub(bytes))
}

/// Leases, waiters, failures remembered and open breakers of a cache.
pub fn flight_counts(uid: ContainerUid) -> [usize; 4] {
    FLIGHTS.with(|all| all.of.get(&uid).map_or([0; 4], Flights::counts))
}

/// Has clients that wait look again, in their order, when the running command has ended.
pub fn wake(ctx: Ctx<'_>, waiters: impl IntoIterator<Item = WaiterId>) {
    for WaiterId(id) in waiters {
        wake_blocked(ctx, BlockedId(id));
    }
}

/// The entry of a question was removed or invalidated: an answer to it that is being made is refused
/// when it comes, and the oldest who waits is to make another.
pub fn void_lease(ctx: Ctx<'_>, cache: &SharedCache, question: EntryId) {
    let uid = cache.with(|cache| cache.uid());
    wake(ctx, with_known_flights(uid, |flights| flights.void(question)));
}

/// Nobody can tell what was invalidated meanwhile: no answer that is being made is taken when it comes.
pub fn void_all_leases() {
    FLIGHTS.with(|all| all.of.values_mut().for_each(Flights::note_picked));
}

/// Things looked at in one go.
const TENDED_AT_ONCE: usize = 256;

/// The alarm of all leases.
static ALARM: Alarm = Alarm::new(tend);

/// Looks after leases when their time is over: if nobody stored an answer, the oldest who waits is to make it. To be
/// called when one was granted or its time was changed.
pub fn watch_leases(ctx: Ctx<'_>) {
    if let Some(at) = FLIGHTS.with(|all| all.due.first().map(|&(at, _)| at)) {
        ALARM.set(ctx, at);
    }
}

fn tend(ctx: Ctx<'_>) {
    let now = ctx.monotonic_now();
    let mut woken = Vec::new();
    for _ in 0..TENDED_AT_ONCE {
        let first = FLIGHTS.with(|all| all.due.first().copied());
        let Some((_, uid)) = first.filter(|(at, _)| at.is_past(now)) else { break };
        woken.extend(with_known_flights(uid, |flights| flights.tend(now, TENDED_AT_ONCE)));
    }
    wake(ctx, woken);
    watch_leases(ctx);
}

/// Whether there are flights.
pub fn any_flights() -> bool {
    FLIGHTS.with(|all| !all.of.is_empty())
}

/// Ends the flights of caches that are no more, or are another server's, so that nobody waits for them.
pub fn end_flights_without_cache(ctx: Ctx<'_>, served: Option<&Served>) {
    let of_all = || FLIGHTS.with(|all| all.of.keys().copied().collect());
    let gone: Vec<ContainerUid> = match cache_registry::take_bereft() {
        Bereft::These(uids) if served.is_none() => uids,
        _ => of_all(),
    };
    for uid in gone {
        let place = CACHES.place_of(uid);
        if place.is_none_or(|(_, name)| served.is_some_and(|served| !served.has(&name))) {
            wake(ctx, with_known_flights(uid, Flights::end));
        }
    }
}
