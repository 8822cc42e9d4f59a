//! Work that can be cut into slices: what a command implements for it, and how long a slice is.
//!
//! Owns: the length of a slice, in things, steps and time. Main thread only.

use crate::ffi::{BlockedId, CommandArgs, Ctx, WritePermit, work_so_far};
use llmcache_core::error::{Error, Result};
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
pub(in crate::keyspace) struct Budget {
    end: Instant,
    pieces: usize,
    began: u64,
    looked: u64,
}

impl Budget {
    pub(in crate::keyspace) fn new() -> Self {
        let began = work_so_far();
        Self { end: Instant::now() + SLICE, pieces: 0, began, looked: began }
    }

    /// Whether the slice is to end, now that another thing is done.
    pub(in crate::keyspace) fn is_spent(&mut self) -> bool {
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

/// What a slice came to.
pub(super) enum Slice {
    /// Nothing may be written at the moment.
    Paused,
    More,
    Over,
}

/// `Pieces` of any command.
pub(super) trait AnyPieces: Send {
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

/// Writes a long reply in one piece.
pub fn reply_whole<P: Pieces>(pieces: &mut P, ctx: Ctx<'_>) {
    while pieces.reply_part(ctx) {}
}
