//! Commands on many things, done a few at a time: the first few at once, the rest in slices between other clients'
//! commands, while the client waits.
//!
//! Owns: whose turn it is, and the length of a slice, in things, steps and time. Clients take turns; one that leaves takes what it only
//! wanted to read with it, and what it writes is finished. Where a client may not wait (MULTI, scripts, AOF,
//! replicas) all is done at once, and more than `limits::UNBLOCKABLE_PIECES_MAX` is refused. A reply that takes long to
//! write is written in slices too. Main thread only.

use super::slots::{self, Ownership, redirection, try_again};
use crate::ffi::{
    Arguments, BlockedId, CommandArgs, Ctx, MainCell, RString, Reply, Waiter, Wake, WritePermit,
    block_for_rounds, count_time_from_now, end_rounds, in_round, is_cluster, run_later, wait_on,
    wake_blocked, work_so_far,
};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Things done before the client has to wait, and in a slice, at most.
const PIECES_PER_SLICE: usize = 512;
/// Length of a slice, at most.
const SLICE: Duration = Duration::from_micros(500);
/// Work of a slice, at most and the last thing aside: what no machine changes, so that tests hold each command to it.
const STEPS_PER_SLICE: u64 = 1 << 15;
/// Things done between two looks at the clock, and their work.
const PIECES_PER_LOOK: usize = 8;
const STEPS_PER_LOOK: u64 = 1 << 10;

/// What is left of a slice.
pub(super) struct Budget {
    end: Instant,
    pieces: usize,
    began: u64,
    looked: u64,
}

impl Budget {
    pub(super) fn new() -> Self {
        let began = work_so_far();
        Self { end: Instant::now() + SLICE, pieces: 0, began, looked: began }
    }

    /// Whether the slice is to end, now that another thing is done.
    pub(super) fn is_spent(&mut self) -> bool {
        self.pieces += 1;
        let now = work_so_far();
        if self.pieces == PIECES_PER_SLICE || now.saturating_sub(self.began) >= STEPS_PER_SLICE {
            return true;
        }
        let looks = self.pieces.is_multiple_of(PIECES_PER_LOOK)
            || now.saturating_sub(self.looked) >= STEPS_PER_LOOK;
        if looks {
            self.looked = now;
        }
        looks && Instant::now() >= self.end
    }
}

/// In what a piece is done: any context will do, or it needs leave to write.
pub trait Leave<'a>: Copy {
    /// Whether it is leave to write.
    const WRITES: bool;

    /// What a running command has.
    fn of_command(args: &CommandArgs<'a>) -> Self;

    /// What there is between commands, if anything.
    fn between_commands(ctx: Ctx<'a>) -> Option<Self>;
}

impl<'a> Leave<'a> for Ctx<'a> {
    const WRITES: bool = false;

    fn of_command(args: &CommandArgs<'a>) -> Self {
        *args.permit()
    }

    fn between_commands(ctx: Ctx<'a>) -> Option<Self> {
        Some(ctx)
    }
}

impl<'a> Leave<'a> for WritePermit<'a> {
    const WRITES: bool = true;

    fn of_command(args: &CommandArgs<'a>) -> Self {
        args.permit()
    }

    fn between_commands(ctx: Ctx<'a>) -> Option<Self> {
        WritePermit::between_commands(ctx)
    }
}

/// What a command has to do, thing by thing. It holds no key open in between, and finds what it works on gone or
/// changed as any other command would.
pub trait Pieces: Send {
    /// What it is done in. With leave to write it is finished without its client, and waits while writes are paused.
    type Leave<'a>: Leave<'a>;

    /// Does the next thing; false when there was none.
    fn next(&mut self, ctx: Self::Leave<'_>) -> bool;

    /// Tells AOF and replicas what was done since this was called last; after each slice that did something.
    fn tell(&mut self, _ctx: Self::Leave<'_>) {}

    /// Replies to the client: all is done.
    fn reply(&mut self, ctx: Ctx<'_>);

    /// Whether the reply itself takes long to write, so that it is written part by part.
    fn has_long_reply(&self) -> bool {
        false
    }

    /// Writes the next part of a long reply; false when that was the last. A part is a few hundred elements at most.
    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        self.reply(ctx);
        false
    }

    /// What it waits for before it goes on, where `next` had nothing to do: only in what may wait (`Awaited`).
    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        None
    }

    /// How many things there are at least, as far as that is known before the first is done: more than
    /// `limits::UNBLOCKABLE_PIECES_MAX` are refused where they cannot be done in slices.
    fn known(&self) -> usize {
        0
    }
}

/// Goes on with work that has waited.
pub type Resume = Box<dyn FnOnce(Ctx<'_>) + Send>;

/// What is done elsewhere, while no slice of a command's work is to come. Only a command whose client may wait has any; what
/// it has written by then is none, so that it may end without its client.
pub trait Awaited {
    /// Has it done for a client: `resume` is called once, later. How long that may take, in milliseconds.
    fn begin(&mut self, ctx: Ctx<'_>, client: BlockedId, resume: Resume) -> Result<u64>;

    /// Makes the error of a client that waited as long, or waits no more.
    fn too_late(&self) -> fn() -> Error;
}

/// Things that a command has removed, and whether WATCH and client-side caching were told of them.
#[derive(Debug, Default)]
pub struct Removals {
    untold: u64,
    told: u64,
}

impl Removals {
    /// Counts one, if it was removed.
    pub fn note(&mut self, is_removed: bool) {
        self.untold += u64::from(is_removed);
    }

    /// Tells that the key of this name changed, where anything was removed since.
    pub fn tell(&mut self, ctx: WritePermit<'_>, name: &[u8]) {
        if self.untold > 0 {
            ctx.signal_modified(&RString::new(name));
            self.told += std::mem::take(&mut self.untold);
        }
    }

    /// How many there were that were told.
    pub fn count(&self) -> u64 {
        self.told
    }
}

/// Writes a long reply in one piece.
pub fn reply_whole<P: Pieces>(pieces: &mut P, ctx: Ctx<'_>) {
    while pieces.reply_part(ctx) {}
}

/// What a slice came to.
enum Slice {
    /// Nothing may be written at the moment.
    Paused,
    More,
    Over,
}

/// `Pieces` of any command.
trait AnyPieces: Send {
    fn writes(&self) -> bool;
    fn slice(&mut self, ctx: Ctx<'_>) -> Slice;
    fn awaits(&mut self) -> Option<&mut dyn Awaited>;
    fn has_long_reply(&self) -> bool;
    fn reply(&mut self, ctx: Ctx<'_>);
    /// Writes of a long reply what fits into a slice; false when that was the last.
    fn reply_slice(&mut self, ctx: Ctx<'_>) -> bool;
}

impl<P: Pieces> AnyPieces for P {
    fn writes(&self) -> bool {
        P::Leave::WRITES
    }

    fn slice(&mut self, ctx: Ctx<'_>) -> Slice {
        let Some(leave) = P::Leave::between_commands(ctx) else { return Slice::Paused };
        let mut budget = Budget::new();
        let came_to = loop {
            if !Pieces::next(self, leave) {
                break Slice::Over;
            }
            if budget.is_spent() {
                break Slice::More;
            }
        };
        Pieces::tell(self, leave);
        came_to
    }

    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        Pieces::awaits(self)
    }

    fn has_long_reply(&self) -> bool {
        Pieces::has_long_reply(self)
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Pieces::reply(self, ctx);
    }

    fn reply_slice(&mut self, ctx: Ctx<'_>) -> bool {
        let mut budget = Budget::new();
        while self.reply_part(ctx) {
            if budget.is_spent() {
                return true;
            }
        }
        false
    }
}

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
pub(super) fn refusal(ctx: Ctx<'_>, name: &[u8]) -> Option<Error> {
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
