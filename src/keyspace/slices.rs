//! Commands on many things, done a few at a time: the first few at once, the rest in slices between other clients'
//! commands, while the client waits.
//!
//! Owns: whose turn it is, and the length of a slice. Clients take turns; one that goes away takes what it only
//! wanted to read with it, and what it writes is finished. Where a client may not wait (MULTI, scripts, AOF,
//! replicas) all is done at once. Main thread only.

use crate::ffi::{
    BlockedId, CommandArgs, Ctx, MainCell, Reply, Waiter, Wake, block_client, count_time_from_now,
    run_later, wake_blocked,
};
use crate::keyspace::may_write;
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

/// What a command has to do, thing by thing. It holds no key open in between, and finds what it works on gone or
/// changed as any other command would.
pub trait Pieces: Send {
    /// Whether it writes, so that it is to be finished without its client, and waits while writes are paused.
    const WRITES: bool;

    /// Does the next thing; false when there was none.
    fn next(&mut self, ctx: Ctx<'_>) -> bool;

    /// Tells AOF and replicas what was done since this was called last; after each slice that did something.
    fn tell(&mut self, _ctx: Ctx<'_>) {}

    /// Answers the client: all is done.
    fn reply(&mut self, ctx: Ctx<'_>);
}

/// `Pieces` of any command.
trait AnyPieces: Send {
    fn writes(&self) -> bool;
    fn next(&mut self, ctx: Ctx<'_>) -> bool;
    fn tell(&mut self, ctx: Ctx<'_>);
    fn reply(&mut self, ctx: Ctx<'_>);
}

impl<P: Pieces> AnyPieces for P {
    fn writes(&self) -> bool {
        P::WRITES
    }

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        Pieces::next(self, ctx)
    }

    fn tell(&mut self, ctx: Ctx<'_>) {
        Pieces::tell(self, ctx);
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Pieces::reply(self, ctx);
    }
}

/// How the work of a waiting client came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Not,
    Done,
    /// The server became a replica in the middle.
    Demoted,
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
    shared: Arc<MainCell<Shared>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    armed: bool,
}

static QUEUE: LazyLock<MainCell<Queue>> = LazyLock::new(|| MainCell::new(Queue::default()));

/// Does all of it and replies: at once where it is little or the client may not wait, else in slices.
pub fn run_pieces<P: Pieces + 'static>(ctx: Ctx<'_>, mut pieces: P) {
    let mut done = 0;
    let is_over = loop {
        if done == PIECES_PER_SLICE {
            let state = ctx.state();
            if state.may_block() && !state.must_obey() {
                break false;
            }
            done = 0;
        }
        if !pieces.next(ctx) {
            break true;
        }
        done += 1;
    };
    pieces.tell(ctx);
    if is_over {
        pieces.reply(ctx);
        return;
    }
    let pieces: Option<Box<dyn AnyPieces>> = Some(Box::new(pieces));
    let shared = Shared { pieces, ended: Ended::Not, is_gone: false };
    let shared = Arc::new(MainCell::new(shared));
    let client = block_client(ctx, 0, |_| Box::new(Sliced { shared: Arc::clone(&shared) }));
    count_time_from_now(client);
    QUEUE.with(|queue| queue.jobs.push_back(Job { client, db: ctx.db(), shared }));
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
        let is_gone = job.shared.with(|shared| {
            (shared.pieces, shared.ended) = (Some(pieces), ended);
            shared.is_gone
        });
        if ended == Ended::Not {
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
    let is_gone = job.shared.with(|shared| shared.is_gone);
    if pieces.writes() {
        if ctx.state().is_replica() {
            return Ended::Demoted;
        }
        if !may_write(ctx) {
            return Ended::Not;
        }
    } else if is_gone {
        return Ended::Done;
    }
    if !ctx.select_db(job.db) {
        return Ended::Done;
    }
    let end = Instant::now() + SLICE;
    for done in 0..PIECES_PER_SLICE {
        if done % PIECES_PER_LOOK == 0 && Instant::now() >= end {
            break;
        }
        if !pieces.next(ctx) {
            pieces.tell(ctx);
            return Ended::Done;
        }
    }
    pieces.tell(ctx);
    Ended::Not
}

/// A client that waits for its work to be done.
struct Sliced {
    shared: Arc<MainCell<Shared>>,
}

impl Waiter for Sliced {
    fn reply(&mut self, ctx: Ctx<'_>, _: &CommandArgs<'_>, _: Wake) {
        let (pieces, ended) = self.shared.with(|shared| {
            // One that another client unblocked lets what it writes be finished.
            shared.is_gone = true;
            match shared.ended {
                Ended::Not => (None, Ended::Not),
                ended => (shared.pieces.take(), ended),
            }
        });
        match (pieces, ended) {
            (Some(mut pieces), Ended::Done) => pieces.reply(ctx),
            (_, Ended::Demoted) => Reply::new(ctx).error(
                "UNBLOCKED the server became a replica before all was done; repeat the command",
            ),
            _ => {
                Reply::new(ctx).null();
            }
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {
        self.shared.with(|shared| shared.is_gone = true);
    }
}
