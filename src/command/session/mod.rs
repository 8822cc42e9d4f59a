//! The `SESSION.*` family: conversations, windows of them, and messages that are read while written.
//!
//! Owns: one file for commands that belong together; `request` reads their arguments, `reply` writes messages,
//! `owner` keeps the lists of sessions.

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
mod request;
pub(super) mod stream;
mod texts;

use crate::ffi::{Access, Arguments, Ctx};
use crate::keyspace::{OpenSession, open_session};
use llmcache_core::error::Result;
use llmcache_core::session::Session;
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
fn find<'a>(ctx: Ctx<'a>, args: &Arguments<'_>, access: Access) -> Result<Found<'a>> {
    let found = open_session(ctx, &args.key(), access)?;
    Ok(found.map_or_else(|| Found::None(Session::new()), Found::Here))
}
