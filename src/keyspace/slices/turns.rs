//! Whose turn it is: jobs that wait for a slice, and clients that wait for jobs.
//!
//! Clients take turns; one that leaves takes what it only wanted to read with it, and what it writes is finished. Main
//! thread only.

use super::pieces::{AnyPieces, Budget, Leave, Pieces, Resume, Slice};
use crate::ffi::{
    Arguments, BlockedId, CommandArgs, Ctx, MainCell, Reply, Waiter, Wake, block_for_rounds,
    count_time_from_now, end_rounds, in_round, is_cluster, run_later, wait_on, wake_blocked,
};
use crate::keyspace::slots::{self, Ownership, redirection, try_again};
use llmcache_core::error::{Error, ErrorWord};
use llmcache_core::limits;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock};

/// How the work of a waiting client came to its end.
enum Ended {
    Not,
    Done,
    /// It did not come to its end: this says why.
    Refused(Error),
}

/// What the work and its waiting client share.
struct Shared {
    pieces: Option<Box<dyn AnyPieces>>,
    ended: Ended,
    /// Whether some of a long reply is written.
    is_replying: bool,
    is_gone: bool,
}

impl Shared {
    fn of(pieces: impl Pieces + 'static) -> Arc<MainCell<Self>> {
        let pieces: Option<Box<dyn AnyPieces>> = Some(Box::new(pieces));
        Arc::new(MainCell::new(Self {
            pieces,
            ended: Ended::Not,
            is_replying: false,
            is_gone: false,
        }))
    }
}

struct Job {
    /// Nobody waits for what only follows from a command.
    client: Option<BlockedId>,
    /// Whether all is done but the reply.
    replies: bool,
    db: c_int,
    /// The key of the command.
    name: Box<[u8]>,
    shared: Arc<MainCell<Shared>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    armed: bool,
}

static QUEUE: LazyLock<MainCell<Queue>> = LazyLock::new(|| MainCell::new(Queue::default()));

/// Does all of it and replies: at once where it is little or the client may not wait, else in slices.
pub fn run_pieces<P: Pieces + 'static>(args: &CommandArgs<'_>, mut pieces: P) {
    let (ctx, leave) = (*args.permit(), P::Leave::of_command(args));
    let may_yield = || {
        let state = ctx.state();
        state.may_block() && !state.must_obey()
    };
    if pieces.known() > limits::UNBLOCKABLE_PIECES_MAX && !may_yield() && !ctx.state().must_obey() {
        Reply::new(ctx).error(&too_many_at_once(pieces.known()).to_string());
        return;
    }
    let is_over = first_slices(&mut pieces, leave, may_yield);
    pieces.tell(leave);
    let waits = is_over && pieces.awaits().is_some();
    if is_over && !waits && !(pieces.has_long_reply() && may_yield()) {
        pieces.reply(ctx);
        return;
    }
    let shared = Shared::of(pieces);
    let client = block_for_rounds(ctx, args, |_| Box::new(Sliced { shared: Arc::clone(&shared) }));
    count_time_from_now(client);
    let replies = is_over && !waits;
    let job = Job { client: Some(client), replies, ..Job::of(ctx, args.name(), shared) };
    if waits { park(ctx, job) } else { push(ctx, job) }
}

/// Has a job wait for what is done elsewhere.
fn park(ctx: Ctx<'_>, job: Job) {
    let Some(client) = job.client else { return };
    let shared = Arc::clone(&job.shared);
    let Some(mut pieces) = shared.with(|shared| shared.pieces.take()) else { return };
    let resume: Resume = Box::new(move |ctx| unpark(ctx, job));
    let begun = pieces.awaits().map(|awaited| {
        let most_ms = awaited.begin(ctx, client, resume)?;
        Ok((most_ms, awaited.too_late()))
    });
    shared.with(|shared| shared.pieces = Some(pieces));
    let refused = match begun {
        Some(Ok((most_ms, too_late))) => {
            wait_on(ctx, client, most_ms, Box::new(Parked { shared, too_late }));
            return;
        }
        Some(Err(error)) => Ended::Refused(error),
        None => Ended::Done,
    };
    shared.with(|shared| shared.ended = refused);
    wake_blocked(ctx, client);
}

/// What a job waited for is done.
fn unpark(ctx: Ctx<'_>, job: Job) {
    let waiter = Sliced { shared: Arc::clone(&job.shared) };
    // One that waits no more took its work along.
    if job.client.is_some_and(|client| wait_on(ctx, client, 0, Box::new(waiter))) {
        push(ctx, job);
    }
}

/// Does what only follows from a command, and what nobody waits for: a little of it at once, the rest in slices. It
/// must be of a kind that may be left undone.
pub fn run_detached<P>(ctx: Ctx<'_>, name: &[u8], mut pieces: P)
where
    P: for<'a> Pieces<Leave<'a> = Ctx<'a>> + 'static,
{
    let is_over = first_slices(&mut pieces, ctx, || true);
    pieces.tell(ctx);
    if is_over {
        return;
    }
    push(ctx, Job::of(ctx, name, Shared::of(pieces)));
}

/// Does the first slice, and those that follow where it may not yield; whether all is done.
fn first_slices<P: Pieces>(
    pieces: &mut P,
    leave: P::Leave<'_>,
    may_yield: impl Fn() -> bool,
) -> bool {
    let mut budget = Budget::new();
    while pieces.next(leave) {
        if budget.is_spent() {
            if may_yield() {
                return false;
            }
            budget = Budget::new();
        }
    }
    true
}

/// The error of more than can be done where nothing can wait.
fn too_many_at_once(count: usize) -> Error {
    let most = limits::UNBLOCKABLE_PIECES_MAX;
    let text = format!(
        "{count} things at once where the client cannot wait (MULTI, scripts), {most} at most; ask for fewer at a time"
    );
    Error::new(ErrorWord::Busy, text)
}

impl Job {
    fn of(ctx: Ctx<'_>, name: &[u8], shared: Arc<MainCell<Shared>>) -> Self {
        Self { client: None, replies: false, db: ctx.db(), name: name.into(), shared }
    }
}

fn push(ctx: Ctx<'_>, job: Job) {
    QUEUE.with(|queue| queue.jobs.push_back(job));
    arm(ctx);
}

/// Clients whose work goes on in slices.
pub fn sliced_count() -> usize {
    QUEUE.with(|queue| queue.jobs.len())
}

fn arm(ctx: Ctx<'_>) {
    if !QUEUE.with(|queue| std::mem::replace(&mut queue.armed, true)) {
        // A millisecond for everybody else between two slices.
        run_later(ctx, 1, Box::new(run_slice));
    }
}

/// One slice for whoever had the last one longest ago.
fn run_slice(ctx: Ctx<'_>) {
    let next = QUEUE.with(|queue| {
        queue.armed = false;
        queue.jobs.pop_front()
    });
    if let Some(job) = next {
        work_on(ctx, job);
    }
    if QUEUE.with(|queue| !queue.jobs.is_empty()) {
        arm(ctx);
    }
}

fn work_on(ctx: Ctx<'_>, mut job: Job) {
    // Out of the cell while it runs: what it opens may wake others.
    let Some(mut pieces) = job.shared.with(|shared| shared.pieces.take()) else { return };
    let (mut goes_on, mut waits) = (false, false);
    if job.replies {
        goes_on = reply_slice(ctx, &job, &mut *pieces);
    } else {
        let ended = slice(ctx, &job, &mut *pieces);
        let is_done = matches!(ended, Ended::Done);
        waits = is_done && pieces.awaits().is_some();
        job.replies = is_done && !waits && pieces.has_long_reply();
        let is_gone = job.shared.with(|shared| shared.is_gone);
        if matches!(ended, Ended::Not) || job.replies && !is_gone {
            goes_on = true;
        } else if !waits {
            job.shared.with(|shared| shared.ended = ended);
        }
    }
    let is_gone = job.shared.with(|shared| {
        shared.pieces = Some(pieces);
        shared.is_gone
    });
    match job.client {
        // Nobody is told of what is not begun.
        _ if waits && is_gone => {}
        _ if waits => park(ctx, job),
        _ if goes_on => QUEUE.with(|queue| queue.jobs.push_back(job)),
        Some(client) if job.replies => end_rounds(ctx, client),
        Some(client) if !is_gone => {
            wake_blocked(ctx, client);
        }
        _ => {}
    }
}

/// Writes some of a long reply; whether there is more.
fn reply_slice(ctx: Ctx<'_>, job: &Job, pieces: &mut dyn AnyPieces) -> bool {
    let Some(client) = job.client else { return false };
    let is_first = !job.shared.with(|shared| std::mem::replace(&mut shared.is_replying, true));
    let went = in_round(client, |round, args| {
        match redirection(ctx, args.name()).filter(|_| is_first && !pieces.writes()) {
            // What was read here may be elsewhere by now.
            Some(elsewhere) => {
                Reply::new(round).error(&elsewhere.to_string());
                false
            }
            None => pieces.reply_slice(round),
        }
    });
    went.unwrap_or(false)
}

fn slice(ctx: Ctx<'_>, job: &Job, pieces: &mut dyn AnyPieces) -> Ended {
    if pieces.writes() {
        if let Some(refused) = refusal(ctx, &job.name) {
            return Ended::Refused(refused);
        }
    } else if job.shared.with(|shared| shared.is_gone) {
        return Ended::Done;
    }
    if !ctx.select_db(job.db) {
        return Ended::Done;
    }
    match pieces.slice(ctx) {
        Slice::Over => Ended::Done,
        Slice::More | Slice::Paused => Ended::Not,
    }
}

/// Why what writes cannot come to its end here, if it cannot: some of it would be left out.
pub(in crate::keyspace) fn refusal(ctx: Ctx<'_>, name: &[u8]) -> Option<Error> {
    if ctx.state().is_replica() {
        let message = "this server became a replica before all was done; repeat the command";
        return Some(Error::new(ErrorWord::Unblocked, message));
    }
    if !is_cluster() {
        return None;
    }
    slots::ask_again();
    let moves = slots::of_key(ctx, name) != Ownership::Settled;
    moves.then(|| redirection(ctx, name).unwrap_or_else(try_again))
}

/// A client that waits for its work to be done.
struct Sliced {
    shared: Arc<MainCell<Shared>>,
}

impl Waiter for Sliced {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, _: Wake) {
        let (pieces, ended) = self.shared.with(|shared| {
            // One that another client unblocked lets what it writes be finished.
            shared.is_gone = true;
            match std::mem::replace(&mut shared.ended, Ended::Not) {
                Ended::Not => (None, Ended::Not),
                ended => (shared.pieces.take(), ended),
            }
        });
        match (pieces, ended) {
            (Some(mut pieces), Ended::Done) => match redirection(ctx, args.name()) {
                // What was read here may be elsewhere by now.
                Some(elsewhere) if !pieces.writes() => {
                    Reply::new(ctx).error(&elsewhere.to_string());
                }
                _ => pieces.reply(ctx),
            },
            (_, Ended::Refused(error)) => Reply::new(ctx).error(&error.to_string()),
            _ => {
                Reply::new(ctx).null();
            }
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {
        self.shared.with(|shared| shared.is_gone = true);
    }
}

/// A client whose work waits for what is done elsewhere.
struct Parked {
    shared: Arc<MainCell<Shared>>,
    too_late: fn() -> Error,
}

impl Parked {
    /// Drops the work, of which nothing shows yet.
    fn give_up(&self) {
        let work = self.shared.with(|shared| {
            shared.is_gone = true;
            shared.pieces.take()
        });
        // Out of the cell: it may have others to tell.
        drop(work);
    }
}

impl Waiter for Parked {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, _: Wake) {
        self.give_up();
        let error = redirection(ctx, args.name()).unwrap_or_else(self.too_late);
        Reply::new(ctx).error(&error.to_string());
    }

    fn gone(&mut self, _: Ctx<'_>) {
        self.give_up();
    }
}
