//! How much there is to do, by which short searches are left to threads.
//!
//! Owns: the watch over the event loop, begun with the first search, and over who searches (`llmcache_core::load`
//! decides). Main thread only.

use crate::config;
use crate::ffi::{Ctx, Loop, MainCell, watch_sleep};
use llmcache_core::load::{Load, threads_of_use};
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::Instant;

#[derive(Default)]
struct Watch {
    load: Load,
    /// Whether it was tried to watch, and whether the server tells.
    tells: Option<bool>,
    /// Short searches ever left to threads.
    handed_over: u64,
}

static WATCH: LazyLock<MainCell<Watch>> = LazyLock::new(|| MainCell::new(Watch::default()));
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Cores that the server may use, when the first command searches.
static CORES: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(1, |cores| cores.get()));

fn nanoseconds(now: Instant) -> u64 {
    1 + now.saturating_duration_since(*EPOCH).as_nanos() as u64
}

/// Who asks a search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    client: u64,
    /// How many searches threads have that they are not done with.
    out: fn() -> usize,
}

/// A command searches, by threads that have so many `out`.
pub(super) fn searches(ctx: Ctx<'_>, now: Instant, out: fn() -> usize) -> Asker {
    let client = ctx.client_id();
    let is_watching = WATCH.with(|watch| {
        watch.load.searches(client, nanoseconds(now));
        watch.tells.is_some()
    });
    if !is_watching && config::search_threads() > 0 {
        let tells = watch_sleep(ctx, note_loop);
        WATCH.with(|watch| watch.tells = Some(tells));
    }
    Asker { client, out }
}

/// It has taken the main thread from then on.
pub(super) fn spent(since: Instant) {
    let now = nanoseconds(Instant::now());
    WATCH.with(|watch| watch.load.spent(nanoseconds(since), now));
}

/// Whether a short search, in a command that began at `now`, is better left to threads.
pub(super) fn hands_over(Asker { client, out }: Asker, now: Instant) -> bool {
    let threads = threads_of_use(config::search_threads(), *CORES);
    threads > 0
        && WATCH.with(|watch| watch.load.hands_over(client, nanoseconds(now), threads, out()))
}

/// Counts short searches that were left to threads.
pub(super) fn note_handed_over(searches: u64) {
    WATCH.with(|watch| watch.handed_over += searches);
}

/// Short searches ever left to threads, for INFO.
pub(super) fn handed_over() -> u64 {
    WATCH.with(|watch| watch.handed_over)
}

fn note_loop(what: Loop) {
    let now = nanoseconds(Instant::now());
    WATCH.with(|watch| match what {
        Loop::Sleeps => watch.load.sleeps(now),
        Loop::Wakes => watch.load.wakes(now),
    });
}
