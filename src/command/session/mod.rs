//! The `SESSION.*` family: conversations, windows of them, and messages that are read while written.
//!
//! Owns: one file for commands that belong together; `reply` writes messages, `owner` keeps the lists of
//! sessions.

pub(super) mod append;
pub(super) mod change;
pub(super) mod copy;
pub(super) mod follow;
pub(super) mod info;
pub(super) mod internal;
pub(super) mod owner;
pub(super) mod read;
pub(super) mod recall;
mod reply;
pub(super) mod stream;

use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx};
use crate::keyspace::{OpenSession, open_session};
use llmcache_core::error::Result;
use llmcache_core::limits;
use llmcache_core::session::{MessageRef, MessageSeq, Session};
use llmcache_core::vector::Query;
use std::ops::Deref;

/// The session of a command, or an empty one in the place of none.
enum Found<'a> {
    Here(OpenSession<'a>),
    None(Session),
}

impl Deref for Found<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Here(session) => session,
            Self::None(session) => session,
        }
    }
}

impl Found<'_> {
    fn exists(&self) -> bool {
        matches!(self, Self::Here(_))
    }
}

/// Opens the session of the running command to answer from it.
fn find<'a>(ctx: Ctx<'a>, args: &CommandArgs<'_>, access: Access) -> Result<Found<'a>> {
    let found = open_session(ctx, &args.key(), access)?;
    Ok(found.map_or_else(|| Found::None(Session::new()), Found::Here))
}

/// Reads the place of a message.
fn seq(args: &mut ArgReader<'_>, what: &str) -> Result<MessageSeq> {
    Ok(MessageSeq(args.integer(what, 1, limits::SESSION_SEQ_MAX.into())? as u32))
}

/// Reads a role.
fn role<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    let role = args.next("the role")?;
    llmcache_core::session::check_role(role)?;
    Ok(role)
}

/// Reads a list of roles.
fn roles<'a>(args: &mut ArgReader<'a>) -> Result<&'a [&'a [u8]]> {
    let roles = args.list("ROLES", limits::SESSION_ROLES_MAX)?;
    roles.iter().try_for_each(|role| llmcache_core::session::check_role(role))?;
    Ok(roles)
}

/// Reads an id.
fn id<'a>(args: &mut ArgReader<'a>, what: &str) -> Result<&'a [u8]> {
    let id = args.text(what, limits::ID_MAX_BYTES)?;
    llmcache_core::session::check_id(id, what)?;
    Ok(id)
}

/// A message by its place or by its ID.
#[derive(Debug, Clone, Copy)]
enum Which<'a> {
    Seq(MessageSeq),
    Id(&'a [u8]),
}

impl<'a> Which<'a> {
    /// Reads `seq` or `ID id`.
    fn read(args: &mut ArgReader<'a>) -> Result<Self> {
        let mut ahead = args.clone();
        if ahead.option().is_some_and(|word| word.as_str() == "ID") {
            *args = ahead;
            return id(args, "ID").map(Self::Id);
        }
        seq(args, "seq").map(Self::Seq)
    }

    fn locate(self, session: &Session) -> Option<MessageRef> {
        match self {
            Self::Seq(seq) => session.locate(seq),
            Self::Id(id) => session.find_id(id),
        }
    }
}

/// Reads a payload.
fn payload<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    args.text("the payload", limits::SESSION_PAYLOAD_MAX_BYTES)
}

/// Reads how long a session lives after its last use.
fn ttl_ms(args: &mut ArgReader<'_>) -> Result<u64> {
    Ok(args.integer("TTL", 0, limits::TTL_MAX_MS / 1_000)? * 1_000)
}

/// Reads a number of tokens.
fn tokens(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("TOKENS", 0, limits::TOKENS_MAX)? as u32)
}

/// The form in which a session keeps a vector.
fn stored(query: &Query) -> Vec<u8> {
    let mut out = Vec::new();
    llmcache_core::session::VECTOR_QUANT.encode(query.normalised(), &mut out);
    out
}
