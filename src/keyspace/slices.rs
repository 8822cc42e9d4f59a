//! Commands on many things, done a few at a time: the first few at once, the rest in slices between other clients'
//! commands, while the client waits.
//!
//! Owns: whose turn it is, and the length of a slice. Clients take turns; one that goes away takes what it only
//! wanted to read with it, and what it writes is finished. Where a client may not wait (MULTI, scripts, AOF,
//! replicas) all is done at once. Main thread only.

use super::slots::{self, Ownership, redirection, try_again};
use crate::ffi::{
    Arguments, BlockedId, CommandArgs, Ctx, MainCell, Reply, Waiter, Wake, WritePermit,
    block_client, count_time_from_now, is_cluster, run_later, wake_blocked,
};
use llmcache_core::error::{Error, ErrorWord};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Things done before the client has to wait, and in a slice, at most.
pub const PIECES_PER_SLICE: usize = 512;
/// Length of a slice, at most.
const SLICE: Duration = Duration::from_micros(500);
/// Things done between two looks at the clock.
const PIECES_PER_LOOK: usize = 8;

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

    /// Answers the client: all is done.
    fn reply(&mut self, ctx: Ctx<'_>);
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
    fn reply(&mut self, ctx: Ctx<'_>);
}

impl<P: Pieces> AnyPieces for P {
    fn writes(&self) -> bool {
        P::Leave::WRITES
    }

    fn slice(&mut self, ctx: Ctx<'_>) -> Slice {
        let Some(leave) = P::Leave::between_commands(ctx) else { return Slice::Paused };
        let end = Instant::now() + SLICE;
        let mut came_to = Slice::More;
        for done in 0..PIECES_PER_SLICE {
            if done % PIECES_PER_LOOK == 0 && Instant::now() >= end {
                break;
            }
            if !Pieces::next(self, leave) {
                came_to = Slice::Over;
                break;
            }
        }
        Pieces::tell(self, leave);
        came_to
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Pieces::reply(self, ctx);
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
    is_gone: bool,
}

struct Job {
    client: BlockedId,
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
    let mut done = 0;
    let mut end = Instant::now() + SLICE;
    let is_over = loop {
        let looks = done % PIECES_PER_LOOK == PIECES_PER_LOOK - 1;
        if done == PIECES_PER_SLICE || (looks && Instant::now() >= end) {
            let state = ctx.state();
            if state.may_block() && !state.must_obey() {
                break false;
            }
            (done, end) = (0, Instant::now() + SLICE);
        }
        if !pieces.next(leave) {
            break true;
        }
        done += 1;
    };
    pieces.tell(leave);
    if is_over {
        pieces.reply(ctx);
        return;
    }
    let pieces: Option<Box<dyn AnyPieces>> = Some(Box::new(pieces));
    let shared = Shared { pieces, ended: Ended::Not, is_gone: false };
    let shared = Arc::new(MainCell::new(shared));
    let client = block_client(ctx, 0, |_| Box::new(Sliced { shared: Arc::clone(&shared) }));
    count_time_from_now(client);
    let job = Job { client, db: ctx.db(), name: args.name().into(), shared };
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
    let Some(job) = next else { return };
    // Out of the cell while it runs: what it opens may wake others.
    let pieces = job.shared.with(|shared| shared.pieces.take());
    if let Some(mut pieces) = pieces {
        let ended = slice(ctx, &job, &mut *pieces);
        let is_over = !matches!(ended, Ended::Not);
        let is_gone = job.shared.with(|shared| {
            (shared.pieces, shared.ended) = (Some(pieces), ended);
            shared.is_gone
        });
        if !is_over {
            QUEUE.with(|queue| queue.jobs.push_back(job));
        } else if !is_gone {
            wake_blocked(ctx, job.client);
        }
    }
    if QUEUE.with(|queue| !queue.jobs.is_empty()) {
        arm(ctx);
    }
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
