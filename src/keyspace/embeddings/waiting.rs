//! Clients whose commands wait for texts: when they are woken, and how their commands are run again.
//!
//! A command is run again from its arguments as if it had just come. What the server itself checked before the first
//! run (role, memory, hash slot, pause) is checked here before the second. Main thread only.

use super::queue::{busy, waited_too_long};
use super::service::{Found, SERVICE};
use crate::ffi::{
    Arguments, BlockedId, CommandArgs, Ctx, Handler, Reply, Threads, Waiter, Wake, WritePermit,
    run_later, wake_blocked,
};
use crate::keyspace::search_rounds::{Answer, go_on_in_rounds};
use crate::keyspace::searches::Searches;
use crate::keyspace::slots::redirection;
use llmcache_core::error::{Error, ErrorWord, Result};
use std::sync::Arc;

/// How long a command that writes waits for writes to be allowed again, each time it asks.
const PAUSE_MS: u64 = 5;

pub(super) fn on_done(ctx: Ctx<'_>) {
    while let Some((key, outcome)) =
        SERVICE.with(|service| service.threads.as_ref().and_then(Threads::take_done))
    {
        let Some(key) = key else { continue };
        for client in SERVICE.with(|service| service.take_in(key, outcome)) {
            let resume = SERVICE.with(|service| service.clients.get_mut(&client)?.resume.take());
            if let Some(resume) = resume {
                resume(ctx);
                continue;
            }
            let takes = SERVICE.with(|service| {
                let takes = service.clients.get(&client).is_some_and(|c| c.take.is_some());
                if takes {
                    service.ready.push_back(client);
                }
                takes
            });
            if !takes && !read_in_rounds(ctx, client) {
                wake_when_allowed(ctx, client);
            }
        }
        take_turns(ctx);
    }
}

/// Has a command that only reads go on in rounds, each of which has its vectors at hand; false for any other, and where
/// there are no threads that search.
fn read_in_rounds(ctx: Ctx<'_>, client: BlockedId) -> bool {
    let reads = SERVICE.with(|service| {
        let awaited = service.clients.get(&client)?;
        Some((awaited.reads?, awaited.found.clone()))
    });
    let Some((answer, found)) = reads else { return false };
    let around = move |work: &mut dyn FnMut()| {
        let _ended = again_with(found.clone());
        work();
    };
    go_on_in_rounds(ctx, client, answer, Arc::new(around), || {
        SERVICE.with(|service| service.end(client));
    })
}

/// Has those who may have to wait once more do so, up to the first whose command is to be run again.
fn take_turns(ctx: Ctx<'_>) {
    while let Some((client, found, take)) = SERVICE.with(|service| {
        if service.turn.is_some() {
            return None;
        }
        while let Some(client) = service.ready.pop_front() {
            if let Some(awaited) = service.clients.get_mut(&client)
                && let Some(take) = awaited.take.take()
            {
                return Some((client, awaited.found.clone(), take));
            }
        }
        None
    }) {
        let taken = {
            let _ended = again_with(found);
            take(ctx, client)
        };
        if taken {
            SERVICE.with(|service| service.end(client));
        } else {
            SERVICE.with(|service| service.turn = Some(client));
            wake_when_allowed(ctx, client);
        }
    }
}

/// The turn of a client is over.
fn end_turn(ctx: Ctx<'_>, client: BlockedId) {
    let ended = SERVICE.with(|service| service.turn.take_if(|turn| *turn == client).is_some());
    if ended {
        take_turns(ctx);
    }
}

/// Wakes a client; one whose command writes only when writes are not paused (a failover, CLIENT PAUSE).
fn wake_when_allowed(ctx: Ctx<'_>, client: BlockedId) {
    let writes = SERVICE.with(|service| service.clients.get(&client).is_some_and(|c| c.writes));
    let paused = !WritePermit::are_allowed(ctx) && !ctx.state().is_replica();
    if writes && paused {
        run_later(ctx, PAUSE_MS, Box::new(move |ctx| wake_when_allowed(ctx, client)));
    } else {
        wake_blocked(ctx, client);
    }
}

/// A client that waits for texts.
pub(super) struct Embedding {
    pub(super) client: BlockedId,
    pub(super) second: Second,
}

/// The second run of a command.
#[derive(Clone, Copy)]
pub(super) enum Second {
    Reads(Answer),
    Writes(Handler, Memory),
}

/// Whether the server refuses a command where memory ran out (the flag `deny-oom` of its row).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Needed,
    Spared,
}

impl Waiter for Embedding {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, wake: Wake) {
        let awaited = SERVICE.with(|service| service.end(self.client));
        let answered = match awaited {
            Some(awaited) if wake == Wake::Ready && awaited.missing.is_empty() => {
                self.run_again(ctx, args, awaited.found)
            }
            _ => Err(waited_too_long()),
        };
        if let Err(error) = answered {
            Reply::new(ctx).error(&error.to_string());
        }
        end_turn(ctx, self.client);
    }

    fn gone(&mut self, ctx: Ctx<'_>) {
        SERVICE.with(|service| service.end(self.client));
        end_turn(ctx, self.client);
    }
}

/// Begins the second run of a command, with what was found for it.
fn again_with(found: Found) -> Ended {
    SERVICE.with(|service| service.again = Some(found));
    Ended
}

/// Ends the second run of a command, also where it panics.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        SERVICE.with(|service| service.again = None);
    }
}

impl Embedding {
    fn run_again(&self, ctx: Ctx<'_>, args: &Arguments<'_>, found: Found) -> Result<()> {
        if let Some(elsewhere) = redirection(ctx, args.name()) {
            return Err(elsewhere);
        }
        match self.second {
            Second::Reads(answer) => {
                let _ended = again_with(found);
                answer(ctx, args, &Searches::after_wait())
            }
            Second::Writes(handler, memory) => {
                let args = CommandArgs::again(args, permit(ctx, memory)?);
                let _ended = again_with(found);
                handler(ctx, &args)
            }
        }
    }
}

/// What the server checked before the command was run first.
fn permit(ctx: Ctx<'_>, memory: Memory) -> Result<WritePermit<'_>> {
    let state = ctx.state();
    if state.is_replica() {
        let why = "You can't write against a read only replica.";
        return Err(Error::new(ErrorWord::ReadOnly, why));
    }
    if memory == Memory::Needed && state.is_out_of_memory() {
        return Err(Error::out_of_memory());
    }
    let paused = || busy("writes were paused while the text was embedded");
    WritePermit::between_commands(ctx).ok_or_else(paused)
}
