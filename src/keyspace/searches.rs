//! Searches that would hold up other clients: they go on in threads of their own while the client waits, and the
//! command is run again when what they found is there.
//!
//! Owns: the threads, who waits for which search, and what was found until it is used. A thread gets all it
//! reads with the task and knows no key and no client; entries are opened here, on the main thread, when the command
//! is run again. So whatever happened meanwhile (the client gone, the cache deleted or made anew, FLUSHALL) is met
//! by the same code as ever: what was found for a cache that is no more is dropped. Main thread only.

use super::slots::redirection;
use crate::config;
use crate::ffi::{
    Arguments, BlockedId, Ctx, MainCell, Reply, Threads, Waiter, Wake, Work, block_client,
    count_time_from_now, wake_blocked,
};
use crate::keytype::cache_registry::{CACHES, SharedCache};
use hashbrown::HashMap;
use llmcache_core::error::Result;
use llmcache_core::ids::{ContainerUid, PartitionKey};
use llmcache_core::index::{SearchRequest, SearchResult, SearchTask, Searched, TaskScratch};
use llmcache_core::limits;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// A command that searches: it may be run twice, and must do nothing that shows before all its searches are
/// answered.
pub type Answer = fn(Ctx<'_>, &Arguments<'_>, &Searches) -> Result<()>;

/// Names a search among those of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    uid: ContainerUid,
    partition: PartitionKey,
    limit: usize,
    code: Box<[i8]>,
}

impl Asked {
    fn of(uid: ContainerUid, request: &SearchRequest<'_>) -> Self {
        let SearchRequest { partition, limit, code, .. } = *request;
        Self { uid, partition, limit, code: code.into() }
    }
}

/// What tells the entry keys of a cache apart: their ends.
type KeyEnd = [u8; 16];

/// Keys that a command opened, and whether that counted as a use; without an allocation for as many as a lookup of
/// ten opens.
type OpenedKeys = SmallVec<[(KeyEnd, bool); 24]>;

/// What is there already when a command is run.
#[derive(Debug, Default)]
struct Before {
    found: Vec<(Asked, SearchResult)>,
    opened: OpenedKeys,
}

/// The searches of a running command.
#[derive(Debug)]
pub struct Searches {
    /// Whether the client may be made to wait.
    may_wait: bool,
    found: RefCell<Vec<(Asked, SearchResult)>>,
    tasks: RefCell<Vec<(Asked, Box<SearchTask>)>>,
    /// What was opened by the run that left the searches to threads, in order; in that run, what it opens.
    opened: RefCell<OpenedKeys>,
}

impl Searches {
    fn new(may_wait: bool, before: Before) -> Self {
        let Before { found, opened } = before;
        let (found, opened) = (RefCell::new(found), RefCell::new(opened));
        Self { may_wait, found, tasks: RefCell::default(), opened }
    }

    /// Whether a former run of the command opened a key, so that it must not count twice; and whether it
    /// counted as a use.
    pub fn opened_before(&self, key: &[u8]) -> Option<bool> {
        if self.may_wait {
            return None;
        }
        let (opened, end) = (self.opened.borrow(), key.last_chunk()?);
        let place = opened.binary_search_by_key(end, |&(end, _)| end).ok()?;
        Some(opened[place].1)
    }

    /// Notes that a key is opened, for a run to come.
    pub fn note_opened(&self, key: &[u8], is_used: bool) {
        if self.may_wait
            && let Some(&end) = key.last_chunk()
        {
            self.opened.borrow_mut().push((end, is_used));
        }
    }

    /// All done here and now.
    pub fn inline() -> Self {
        Self::new(false, Before::default())
    }

    /// Searches; `None` where that goes on in a thread, and the command is to end without a reply.
    pub fn search(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        request: &SearchRequest<'_>,
    ) -> Option<SearchResult> {
        let mut found = self.found.borrow_mut();
        if !found.is_empty() {
            let asked = Asked::of(cache.with(|cache| cache.uid()), request);
            if let Some(place) = found.iter().position(|(other, _)| *other == asked) {
                return Some(found.swap_remove(place).1);
            }
        }
        if !self.may_wait {
            return Some(cache.with(|cache| cache.index.search(request)));
        }
        let most_ns = config::search_inline_us() * 1_000;
        match cache.with(|cache| cache.index.search_or_task(request, most_ns)) {
            Searched::Done(result) => Some(result),
            // Asking the server what it does takes longer than a cheap search does.
            Searched::Task(task) if !has_threads(ctx) => {
                let found = cache.with(|cache| cache.index.finish(task, u64::MAX, || true));
                found.ok()
            }
            Searched::Task(task) => {
                let uid = cache.with(|cache| cache.uid());
                self.tasks.borrow_mut().push((Asked::of(uid, request), task));
                None
            }
        }
    }
}

/// A search on its way through a thread.
struct Job {
    client: BlockedId,
    asked: Asked,
    task: Box<SearchTask>,
    is_wanted: Arc<AtomicBool>,
}

impl Work for Job {
    type Scratch = TaskScratch;
    type Ticket = (BlockedId, Asked);
    type Outcome = SearchResult;

    fn ticket(&self) -> Self::Ticket {
        (self.client, self.asked.clone())
    }

    fn run(self, scratch: &mut TaskScratch) -> SearchResult {
        if self.is_wanted.load(Ordering::Relaxed) {
            self.task.run(scratch)
        } else {
            SearchResult::default()
        }
    }
}

/// What a client waits for.
struct Awaited {
    before: Before,
    missing: usize,
    is_wanted: Arc<AtomicBool>,
}

#[derive(Default)]
struct Pool {
    threads: Option<Threads<Job>>,
    awaited: HashMap<BlockedId, Awaited>,
    /// Searches given to threads and not back yet.
    out: usize,
    /// Searches ever given to threads.
    given: u64,
}

static POOL: LazyLock<MainCell<Pool>> = LazyLock::new(|| MainCell::new(Pool::default()));

/// Searches given to threads, for INFO.
#[derive(Debug)]
pub struct SearchCounts {
    /// Since the start.
    pub given: u64,
    /// Not back yet.
    pub out: usize,
}

/// Searches given to threads.
pub fn search_counts() -> SearchCounts {
    POOL.with(|pool| SearchCounts { given: pool.given, out: pool.out })
}

/// Runs a command that searches. Where its client may wait, a search that is estimated to take longer than
/// `llmcache.search-inline-us` goes on in a thread.
pub fn answer_searching(ctx: Ctx<'_>, args: &Arguments<'_>, answer: Answer) -> Result<()> {
    let searches = Searches::new(true, Before::default());
    let answered = answer(ctx, args, &searches);
    let tasks = searches.tasks.into_inner();
    if !tasks.is_empty() && answered.is_ok() {
        wait_for(ctx, tasks, searches.opened.into_inner(), answer);
    }
    answered
}

/// Whether the running command may leave a search to a thread.
fn has_threads(ctx: Ctx<'_>) -> bool {
    let (state, wanted) = (ctx.state(), config::search_threads());
    if wanted == 0 || !state.may_block() || state.must_obey() {
        return false;
    }
    POOL.with(|pool| {
        if pool.out >= limits::SEARCHES_OUT_MAX {
            return false;
        }
        if pool.threads.is_none() {
            pool.threads = Threads::new(ctx, on_done);
        }
        pool.threads.as_mut().is_some_and(|threads| threads.have(wanted) > 0)
    })
}

fn wait_for(
    ctx: Ctx<'_>,
    tasks: Vec<(Asked, Box<SearchTask>)>,
    mut opened: OpenedKeys,
    answer: Answer,
) {
    // Of one that was opened twice, what counted.
    opened.sort_unstable_by(|one, other| other.cmp(one));
    opened.dedup_by_key(|&mut (end, _)| end);
    opened.reverse();
    let client = block_client(ctx, 0, |client| Box::new(Searching { client, answer }));
    count_time_from_now(client);
    let is_wanted = Arc::new(AtomicBool::new(true));
    POOL.with(|pool| {
        let missing = tasks.len();
        let before = Before { found: Vec::new(), opened };
        let awaited = Awaited { before, missing, is_wanted: Arc::clone(&is_wanted) };
        pool.awaited.insert(client, awaited);
        pool.out += missing;
        pool.given += missing as u64;
        let Some(threads) = &pool.threads else { return };
        for (asked, task) in tasks {
            threads.submit(Job { client, asked, task, is_wanted: Arc::clone(&is_wanted) });
        }
    });
}

/// Takes in what threads have found, and wakes the clients who have all they wait for.
fn on_done(ctx: Ctx<'_>) {
    while let Some(((client, asked), found)) =
        POOL.with(|pool| pool.threads.as_ref().and_then(Threads::take_done))
    {
        let uid = asked.uid;
        let is_complete = POOL.with(|pool| {
            pool.out -= 1;
            let Some(awaited) = pool.awaited.get_mut(&client) else { return false };
            // One that panicked is searched again, here.
            awaited.before.found.extend(found.map(|found| (asked, found)));
            awaited.missing -= 1;
            awaited.missing == 0
        });
        if is_complete {
            wake_blocked(ctx, client);
        }
        if let Some(cache) = CACHES.any(uid) {
            cache.with(|cache| cache.index.tidy());
        }
    }
}

/// A client that waits for searches.
struct Searching {
    client: BlockedId,
    answer: Answer,
}

impl Searching {
    /// Ends the wait; answers what was found, nothing unless all was.
    fn end(&self) -> Before {
        let awaited = POOL.with(|pool| pool.awaited.remove(&self.client));
        let Some(awaited) = awaited else { return Before::default() };
        awaited.is_wanted.store(false, Ordering::Relaxed);
        awaited.before
    }
}

impl Waiter for Searching {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, _: Wake) {
        if let Some(elsewhere) = redirection(ctx, args.name()) {
            self.end();
            Reply::new(ctx).error(&elsewhere.to_string());
            return;
        }
        // What is still missing, as for a client that was unblocked by another, is searched here.
        let searches = Searches::new(false, self.end());
        if let Err(error) = (self.answer)(ctx, args, &searches) {
            Reply::new(ctx).error(&error.to_string());
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {
        self.end();
    }
}
