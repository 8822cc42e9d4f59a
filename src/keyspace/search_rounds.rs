//! Commands that search in rounds: what a round leaves goes on in threads, or in slices on the main thread, while the
//! client waits; then the command is run again with what was found, until it has replied.
//!
//! Owns: the threads, who waits for what, and whose turn it is. A thread gets all it reads with the task and knows no
//! key and no client; entries are opened on the main thread, in the next round. So whatever happened meanwhile (the
//! client gone, the cache deleted or made anew, FLUSHALL) is met by the same code as ever: what was found for a cache
//! that is no more is dropped. Main thread only.
//!
//! Nobody waits for the end of another's searches: each client has as many in the threads' queue as there are threads,
//! a thread does some milliseconds of one and passes on to the next, and what a disconnected client had asked for is
//! dropped there.

use super::search_before::Before;
use super::search_load;
use super::search_rest::{Asked, Chore, Lesson, Rest};
use super::searches::Searches;
use super::slices::Budget;
use super::slots::redirection;
use crate::config;
use crate::ffi::{
    Arguments, BlockedId, Ctx, MainCell, Reply, Threads, Waiter, Wake, Work, block_for_rounds,
    count_time_from_now, end_rounds, in_round, run_later, wait_on,
};
use crate::keytype::cache_registry::CACHES;
use hashbrown::HashMap;
use llmcache_core::error::Result;
use llmcache_core::index::{SearchResult, SearchTask, TaskScratch};
use llmcache_core::limits;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// A command that searches: it may be run more than once, and must do nothing that shows before all its searches are
/// answered, but in rounds what `Searches::note_answered` counts.
pub type Answer = fn(Ctx<'_>, &Arguments<'_>, &Searches) -> Result<()>;

/// What the rounds of a command are run within: it has what the command has waited for at hand.
pub type Around = Arc<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// Runs one round of a command.
fn within(around: Option<&Around>, mut work: impl FnMut()) {
    match around {
        Some(around) => around(&mut work),
        None => work(),
    }
}

/// Steps of a search that a thread does before it passes on to another: some milliseconds.
const SLICE_STEPS: u64 = 1 << 17;
/// Length of a slice on the main thread, and a pause for everybody else after it.
const SLICE: Duration = Duration::from_micros(500);
const PAUSE_MS: u64 = 1;
/// A search on its way through a thread.
struct Job {
    client: BlockedId,
    asked: Asked,
    task: Box<SearchTask>,
    is_wanted: Arc<AtomicBool>,
}

impl Work for Job {
    const THREAD: &'static str = "llmcache-search";
    type Scratch = TaskScratch;
    type Ticket = (BlockedId, Asked);
    type Outcome = SearchResult;

    fn ticket(&self) -> Self::Ticket {
        (self.client, self.asked.clone())
    }

    fn nicer() -> i32 {
        5
    }

    fn slice(&mut self, scratch: &mut TaskScratch) -> bool {
        !self.is_wanted.load(Ordering::Relaxed) || self.task.slice(scratch, SLICE_STEPS)
    }

    fn end(self) -> SearchResult {
        self.task.end()
    }
}

/// What a client waits for.
struct Awaited {
    answer: Answer,
    around: Option<Around>,
    before: Before,
    /// Searches, lessons, chores and pauses that are not over.
    missing: usize,
    chore: Option<Chore>,
    /// Searches that are not given to threads yet.
    pending: VecDeque<(Asked, Box<SearchTask>)>,
    /// Searches in the threads' queue.
    out: usize,
    is_wanted: Arc<AtomicBool>,
}

#[derive(Default)]
struct Pool {
    threads: Option<Threads<Job>>,
    awaited: HashMap<BlockedId, Awaited>,
    /// Clients with searches that are not given to threads yet, who had a turn longest ago first.
    turns: VecDeque<BlockedId>,
    lessons: VecDeque<(BlockedId, Lesson)>,
    /// Clients with a chore, who had a slice longest ago first.
    chores: VecDeque<BlockedId>,
    /// Clients whose command is to go on although they wait for nothing.
    paused: VecDeque<BlockedId>,
    /// Clients who wait for nothing more.
    ready: VecDeque<BlockedId>,
    /// Whether a slice on the main thread is due.
    is_armed: bool,
    /// Searches in the threads' queue.
    in_threads: usize,
    /// Searches left to threads and not back yet.
    out: usize,
    /// Searches ever left to threads.
    given: u64,
}

static POOL: LazyLock<MainCell<Pool>> = LazyLock::new(|| MainCell::new(Pool::default()));

/// Searches left to threads, for INFO.
#[derive(Debug)]
pub struct SearchCounts {
    /// Since the start.
    pub given: u64,
    /// Those of them that were short, by load.
    pub by_load: u64,
    /// Not back yet.
    pub out: usize,
}

/// Searches left to threads.
pub fn search_counts() -> SearchCounts {
    let by_load = search_load::handed_over();
    POOL.with(|pool| SearchCounts { given: pool.given, by_load, out: pool.out })
}

/// Runs a command that searches. Where its client may wait, a search that is estimated to take longer than
/// `llmcache.search-inline-us` goes on in a thread, and a shorter one where the main thread has enough to do
/// (`search_load`).
pub fn answer_searching(ctx: Ctx<'_>, args: &Arguments<'_>, answer: Answer) -> Result<()> {
    let began = Instant::now();
    let asker = search_load::searches(ctx, began, under_way);
    let searches = Searches::first(can_yield, began, asker);
    let answered = answer(ctx, args, &searches);
    search_load::spent(began);
    answered?;
    let (rest, before) = searches.into_rest();
    if !rest.is_empty() {
        let client = block_for_rounds(ctx, args, |client| {
            Box::new(Searching { client, answer, around: None })
        });
        count_time_from_now(client);
        wait(ctx, client, (answer, None), rest, before);
    }
    Ok(())
}

/// Has the command of a client that waits for something else go on in rounds, from now on; false where nothing can be left
/// to a later round, or the client waits no more. `before` is run between.
pub fn go_on_in_rounds(
    ctx: Ctx<'_>,
    client: BlockedId,
    answer: Answer,
    around: Around,
    before: impl FnOnce(),
) -> bool {
    let waiter = Searching { client, answer, around: Some(Arc::clone(&around)) };
    if !has_threads(ctx) || !wait_on(ctx, client, 0, Box::new(waiter)) {
        return false;
    }
    before();
    wait(ctx, client, (answer, Some(around)), Rest::default(), Before::default());
    run_round(ctx, client);
    true
}

/// Whether the running command may leave something to a later round.
fn can_yield(ctx: Ctx<'_>) -> bool {
    let state = ctx.state();
    state.may_block() && !state.must_obey() && has_threads(ctx)
}

/// Whether there are threads that search.
fn has_threads(ctx: Ctx<'_>) -> bool {
    let wanted = config::search_threads();
    if wanted == 0 {
        return false;
    }
    POOL.with(|pool| {
        if pool.threads.is_none() {
            pool.threads = Threads::new(ctx, on_done);
        }
        pool.threads.as_mut().is_some_and(|threads| threads.have(wanted) > 0)
    })
}

/// Searches that threads have and are not done with.
fn under_way() -> usize {
    POOL.with(|pool| pool.threads.as_ref().map_or(0, Threads::under_way))
}

/// Has a client wait for what is left.
fn wait(
    ctx: Ctx<'_>,
    client: BlockedId,
    (answer, around): (Answer, Option<Around>),
    rest: Rest,
    before: Before,
) {
    let Rest { tasks, lesson, chore, is_paused } = rest;
    POOL.with(|pool| {
        pool.out += tasks.len();
        pool.given += tasks.len() as u64;
        let others = [lesson.is_some(), chore.is_some(), is_paused];
        pool.chores.extend(chore.is_some().then_some(client));
        let awaited = Awaited {
            answer,
            around,
            before,
            missing: tasks.len() + others.into_iter().map(usize::from).sum::<usize>(),
            chore,
            pending: tasks.into(),
            out: 0,
            is_wanted: Arc::new(AtomicBool::new(true)),
        };
        if !awaited.pending.is_empty() {
            pool.turns.push_back(client);
        }
        pool.awaited.insert(client, awaited);
        pool.lessons.extend(lesson.map(|lesson| (client, lesson)));
        pool.paused.extend(is_paused.then_some(client));
        pool.feed();
    });
    arm(ctx);
}

impl Pool {
    /// Gives searches to the threads, a client after the other.
    fn feed(&mut self) {
        let Some(threads) = &self.threads else { return };
        let each = config::search_threads().max(1);
        while self.in_threads < limits::SEARCHES_OUT_MAX {
            let Some(client) = self.turns.pop_front() else { break };
            let Some(awaited) = self.awaited.get_mut(&client) else { continue };
            if awaited.out >= each {
                // It comes back when one of its own does.
                continue;
            }
            let Some((asked, task)) = awaited.pending.pop_front() else { continue };
            awaited.out += 1;
            self.in_threads += 1;
            threads.submit(Job { client, asked, task, is_wanted: Arc::clone(&awaited.is_wanted) });
            if !awaited.pending.is_empty() {
                self.turns.push_back(client);
            }
        }
    }

    /// One thing that a client waits for is over; whether that was the last.
    fn is_last(&mut self, client: BlockedId) -> bool {
        let Some(awaited) = self.awaited.get_mut(&client) else { return false };
        awaited.missing = awaited.missing.saturating_sub(1);
        awaited.missing == 0
    }

    fn end(&mut self, client: BlockedId) -> Option<Awaited> {
        let awaited = self.awaited.remove(&client)?;
        awaited.is_wanted.store(false, Ordering::Relaxed);
        self.out -= awaited.pending.len();
        self.lessons.retain(|(other, _)| *other != client);
        self.chores.retain(|other| *other != client);
        Some(awaited)
    }
}

/// Takes in what threads have found, and goes on with the commands that have all they wait for.
fn on_done(ctx: Ctx<'_>) {
    while let Some(((client, asked), found)) =
        POOL.with(|pool| pool.threads.as_ref().and_then(Threads::take_done))
    {
        let uid = asked.uid;
        let is_complete = POOL.with(|pool| {
            pool.in_threads -= 1;
            pool.out -= 1;
            if let Some(awaited) = pool.awaited.get_mut(&client) {
                awaited.out -= 1;
                // One that panicked is searched again.
                awaited.before.found.extend(found.map(|found| (asked, found)));
                if !awaited.pending.is_empty() {
                    pool.turns.push_back(client);
                }
            }
            pool.feed();
            pool.is_last(client)
        });
        if is_complete {
            POOL.with(|pool| pool.ready.push_back(client));
        }
        if let Some(cache) = CACHES.any(uid) {
            cache.with(|cache| cache.index.tidy());
        }
    }
    run_rounds(ctx, Instant::now() + SLICE);
    arm(ctx);
}

fn arm(ctx: Ctx<'_>) {
    let is_due = POOL.with(|pool| {
        let is_idle = pool.lessons.is_empty()
            && pool.chores.is_empty()
            && pool.paused.is_empty()
            && pool.ready.is_empty();
        let is_due = !pool.is_armed && !is_idle;
        pool.is_armed |= is_due;
        is_due
    });
    if is_due {
        run_later(ctx, PAUSE_MS, Box::new(run_slice));
    }
}

/// A slice of a lesson, and rounds of commands, of whoever had one longest ago.
fn run_slice(ctx: Ctx<'_>) {
    let lesson = POOL.with(|pool| {
        pool.is_armed = false;
        while let Some(client) = pool.paused.pop_front() {
            if pool.is_last(client) {
                pool.ready.push_back(client);
            }
        }
        pool.lessons.pop_front()
    });
    if let Some((client, mut lesson)) = lesson {
        let end = Instant::now() + SLICE;
        let mut goes_on = ctx.select_db(lesson.db);
        while goes_on && Instant::now() < end {
            goes_on = lesson.step(ctx).is_some();
        }
        POOL.with(|pool| {
            if !pool.awaited.contains_key(&client) {
                return;
            }
            if goes_on {
                pool.lessons.push_back((client, lesson));
            } else if pool.is_last(client) {
                pool.ready.push_back(client);
            }
        });
    }
    run_chore(ctx);
    run_rounds(ctx, Instant::now() + SLICE);
    arm(ctx);
}

/// A slice of a chore, of whoever had one longest ago.
fn run_chore(ctx: Ctx<'_>) {
    let next = POOL.with(|pool| {
        let client = pool.chores.pop_front()?;
        Some((client, pool.awaited.get_mut(&client)?.chore.take()?))
    });
    let Some((client, mut chore)) = next else { return };
    let goes_on = in_round(client, |round, _| {
        let mut budget = Budget::new();
        while chore.step(round) {
            if budget.is_spent() {
                return true;
            }
        }
        false
    });
    match (goes_on, chore) {
        (Some(true), chore) => POOL.with(|pool| {
            if let Some(awaited) = pool.awaited.get_mut(&client) {
                awaited.chore = Some(chore);
                pool.chores.push_back(client);
            }
        }),
        (Some(false), Chore::Choice(choice)) => POOL.with(|pool| {
            if let Some(awaited) = pool.awaited.get_mut(&client) {
                awaited.before.picks = Some(choice.into_picks());
            }
            if pool.is_last(client) {
                pool.ready.push_back(client);
            }
        }),
        // Its reply is whole, or says that it failed.
        _ => {
            POOL.with(|pool| pool.end(client));
            end_rounds(ctx, client);
        }
    }
}

/// Goes on with commands that have all they wait for, until time is up.
fn run_rounds(ctx: Ctx<'_>, end: Instant) {
    while let Some(client) = POOL.with(|pool| pool.ready.pop_front()) {
        run_round(ctx, client);
        if Instant::now() >= end {
            break;
        }
    }
}

/// Runs the command of a client again.
fn run_round(ctx: Ctx<'_>, client: BlockedId) {
    let Some(awaited) = POOL.with(|pool| pool.end(client)) else { return };
    let began = Instant::now();
    let Awaited { answer, around, before, .. } = awaited;
    let went_on = in_round(client, |round, args| {
        let searches = Searches::again(can_yield, began, before);
        let mut answered = Ok(());
        match redirection(round, args.name()) {
            Some(elsewhere) if searches.answered() == 0 => answered = Err(elsewhere),
            _ => within(around.as_ref(), || answered = answer(round, args, &searches)),
        }
        match answered {
            Ok(()) => searches.into_rest(),
            Err(error) => {
                Reply::new(round).error(&error.to_string());
                Default::default()
            }
        }
    });
    match went_on {
        Some((rest, before)) if !rest.is_empty() => {
            wait(ctx, client, (answer, around), rest, before)
        }
        _ => end_rounds(ctx, client),
    }
    search_load::spent(began);
}

/// A client that waits for its command to go on.
struct Searching {
    client: BlockedId,
    answer: Answer,
    around: Option<Around>,
}

impl Waiter for Searching {
    /// Another client unblocked it: what rounds replied is thrown away, and all is answered here.
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, _: Wake) {
        let awaited = POOL.with(|pool| pool.end(self.client));
        if let Some(elsewhere) = redirection(ctx, args.name()) {
            Reply::new(ctx).error(&elsewhere.to_string());
            return;
        }
        let before = awaited.map(|awaited| awaited.before).unwrap_or_default();
        let (searches, mut answered) = (Searches::at_last(before), Ok(()));
        within(self.around.as_ref(), || answered = (self.answer)(ctx, args, &searches));
        if let Err(error) = answered {
            Reply::new(ctx).error(&error.to_string());
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {
        POOL.with(|pool| pool.end(self.client));
    }
}
