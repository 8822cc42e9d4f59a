//! The answers that are being made, by cache, and the clients that wait for them.
//!
//! Owns: the map from cache to flights, which outlives no process and no cache, and the timers of
//! leases. Main thread only.

use super::slots::Served;
use crate::ffi::{BlockedId, Ctx, MainCell, run_later, wake_blocked};
use crate::keytype::cache_registry::{CACHES, SharedCache};
use hashbrown::HashMap;
use llmcache_core::cache::{Flights, Lapse, LeaseToken, WaiterId};
use llmcache_core::ids::{ContainerUid, EntryId, UnixMs};
use std::sync::LazyLock;

static FLIGHTS: LazyLock<MainCell<HashMap<ContainerUid, Flights>>> =
    LazyLock::new(|| MainCell::new(HashMap::new()));

/// Works on the flights of a cache that may get one. `work` must not open keys.
pub fn with_flights<R>(uid: ContainerUid, work: impl FnOnce(&mut Flights) -> R) -> R {
    FLIGHTS.with(|all| work(all.entry(uid).or_default()))
}

/// Works on the flights of a cache, if there are any. `work` must not open keys.
pub fn with_known_flights<R: Default>(
    uid: ContainerUid,
    work: impl FnOnce(&mut Flights) -> R,
) -> R {
    FLIGHTS.with(|all| all.get_mut(&uid).map(work)).unwrap_or_default()
}

/// Leases, waiters, failures remembered and open breakers of a cache.
pub fn flight_counts(uid: ContainerUid) -> [usize; 4] {
    FLIGHTS.with(|all| all.get(&uid).map_or([0; 4], Flights::counts))
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

/// Looks after a lease when its time is over: if nobody stored an answer, the oldest who waits is to
/// make it.
pub fn watch_lease(ctx: Ctx<'_>, uid: ContainerUid, token: LeaseToken, lease_ms: u64) {
    run_later(
        ctx,
        lease_ms,
        Box::new(move |ctx| {
            let now = UnixMs(ctx.now_ms());
            let known = FLIGHTS.with(|all| all.get_mut(&uid).map(|own| own.lapse(token, now)));
            match known.unwrap_or(Lapse::Ended) {
                Lapse::Ended | Lapse::Unwanted => {}
                Lapse::Until(until) => {
                    watch_lease(ctx, uid, token, until.0.saturating_sub(now.0).max(1));
                }
                Lapse::Heir(heir) => wake(ctx, Some(heir)),
            }
        }),
    );
}

/// Whether there are flights.
pub fn any_flights() -> bool {
    FLIGHTS.with(|all| !all.is_empty())
}

/// Ends the flights of caches that are no more, or are another server's, so that nobody waits for them; and forgets
/// those of caches where nothing is pending.
pub fn end_flights_without_cache(ctx: Ctx<'_>, served: Option<&Served>) {
    let ended = FLIGHTS.with(|all| {
        let mut ended = Vec::new();
        all.retain(|uid, flights| {
            let place = CACHES.place_of(*uid);
            if place.is_none_or(|(_, name)| served.is_some_and(|served| !served.has(&name))) {
                ended.extend(flights.end());
            }
            !flights.is_empty()
        });
        if all.is_empty() {
            all.shrink_to_fit();
        }
        ended
    });
    wake(ctx, ended);
}
