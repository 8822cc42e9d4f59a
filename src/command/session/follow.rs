//! `SESSION.FOLLOW`: reads a message from an offset, and waits for it to begin and to grow.

use super::find;
use super::request::Which;
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{
    Access, Arguments, BlockedId, CommandArgs, Ctx, RString, Reply, Waiter, Wake, block_client,
};
use crate::keyspace::{followers as wakers, open_session, redirection};
use crate::keytype::follower_table::{self, Follower, Place, Target};
use llmcache_core::error::Result;
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::{Followed, Session, Status};

/// What a follower asked.
#[derive(Debug, Clone)]
struct FollowRequest {
    target: Target,
    offset: u64,
    block_ms: Option<u64>,
    max: usize,
    linger_ms: u64,
}

impl FollowRequest {
    fn parse(mut args: ArgReader<'_>) -> Result<Self> {
        let target = match Which::read(&mut args)? {
            Which::Seq(seq) => Target::Seq(seq),
            Which::Id(id) => Target::Id(id.into()),
        };
        let offset = args.integer("offset", 0, u64::from(u32::MAX))?;
        let (mut block_ms, mut max, mut linger_ms) = (None, None, None);
        while let Some(word) = args.option() {
            let name = word.as_str();
            match name {
                "BLOCK" => {
                    let most = limits::SESSION_BLOCK_MAX_MS;
                    set_once(&mut block_ms, args.integer(name, 0, most)?, name)?;
                }
                "MAX" => {
                    let most = limits::SESSION_PAYLOAD_MAX_BYTES as u64;
                    set_once(&mut max, args.integer(name, 1, most)? as usize, name)?;
                }
                "LINGER" => {
                    let most = limits::SESSION_LINGER_MAX_MS;
                    set_once(&mut linger_ms, args.integer(name, 0, most)?, name)?;
                }
                _ => return Err(word.unknown()),
            }
        }
        let max = max.unwrap_or(limits::SESSION_PAYLOAD_MAX_BYTES);
        Ok(Self { target, offset, block_ms, max, linger_ms: linger_ms.unwrap_or(0) })
    }

    fn look<'s>(&self, session: &'s Session, now_ms: u64) -> Result<Option<Followed<'s>>> {
        let seq = match &self.target {
            Target::Seq(seq) => Some(*seq),
            Target::Id(id) => session.find_id(id).map(|at| session.seq_at(at)),
        };
        match seq {
            Some(seq) => session.follow(seq, self.offset, self.max, UnixMs(now_ms)),
            None => Ok(None),
        }
    }

    /// Whether there is something to wait for: a message without more text yet, or one named by an ID that has
    /// not begun.
    fn waits(&self, seen: Option<Followed<'_>>) -> bool {
        match seen {
            Some(seen) => seen.data.is_empty() && seen.status == Status::Open,
            None => matches!(self.target, Target::Id(_)),
        }
    }

    /// What the table of followers waits for.
    fn awaited(&self, session: &Session) -> Target {
        match &self.target {
            Target::Id(id) => match session.find_id(id) {
                Some(at) => Target::Seq(session.seq_at(at)),
                None => Target::Id(id.clone()),
            },
            seq => seq.clone(),
        }
    }
}

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let request = FollowRequest::parse(ArgReader::new(args.options()))?;
    let session = find(ctx, args, Access::Read)?;
    let seen = request.look(&session, ctx.now_ms())?;
    let waits = request.waits(seen) && ctx.state().may_block();
    let (Some(block_ms), true) = (request.block_ms, waits) else {
        write(Reply::new(ctx), seen);
        return Ok(());
    };
    let lease_until = seen.and_then(|seen| seen.lease_until).unwrap_or(UnixMs::NEVER);
    let target = request.awaited(&session);
    drop(session);
    let place = (ctx.db(), args.name().to_vec());
    let (offset, max, linger_ms) = (request.offset, request.max as u64, request.linger_ms);
    let client = block_client(ctx, block_ms, |client| {
        Box::new(FollowWaiter { place: place.clone(), client, request })
    });
    let follower =
        Follower { client, target, offset, max, linger_ms, linger_due: None, lease_until };
    wakers::add(ctx, place, follower);
    Ok(())
}

/// Writes `[status, next offset, data]`; null where there is no such message.
fn write(reply: Reply<'_>, seen: Option<Followed<'_>>) {
    match seen {
        Some(seen) => {
            reply.array(3).text(seen.status.as_str()).count(seen.next).bytes(seen.data);
        }
        None => {
            reply.null();
        }
    }
}

/// A client that follows.
#[derive(Debug)]
struct FollowWaiter {
    place: Place,
    client: BlockedId,
    request: FollowRequest,
}

impl FollowWaiter {
    fn answer(&self, ctx: Ctx<'_>) -> Result<()> {
        if let Some(elsewhere) = redirection(ctx, &self.place.1) {
            return Err(elsewhere);
        }
        let key = RString::new(&self.place.1);
        // What took the place of the session is no message either.
        let session = open_session(ctx, &key, Access::Read).unwrap_or(None);
        let seen = match &session {
            Some(session) => self.request.look(session, ctx.now_ms())?,
            None => None,
        };
        write(Reply::new(ctx), seen);
        Ok(())
    }
}

impl Waiter for FollowWaiter {
    fn reply(&mut self, ctx: Ctx<'_>, _: &Arguments<'_>, _: Wake) {
        follower_table::remove(&self.place, self.client);
        if let Err(error) = self.answer(ctx) {
            Reply::new(ctx).error(&error.to_string());
        }
    }

    fn gone(&mut self, _: Ctx<'_>) {
        follower_table::remove(&self.place, self.client);
    }
}
