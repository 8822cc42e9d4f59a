//! Opens the key of a session.

use crate::ffi::{Access, Ctx, Key, KeyOf, ServerString};
use crate::keytype::SessionValue;
use llmcache_core::error::{Error, Result};
use llmcache_core::session::Session;
use std::ops::Deref;

/// An opened session.
#[derive(Debug)]
pub struct OpenSession<'a>(KeyOf<'a, SessionValue>);

impl Deref for OpenSession<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0.0
    }
}

/// The session in a key: `None` when there is no such key, an error when it holds something else.
pub fn open_session<'a>(
    ctx: Ctx<'a>,
    name: &impl ServerString,
    access: Access,
) -> Result<Option<OpenSession<'a>>> {
    let Some(key) = Key::open(ctx, name, access) else { return Ok(None) };
    if key.is_empty() {
        return Ok(None);
    }
    match key.into_typed() {
        Some(key) => Ok(Some(OpenSession(key))),
        None => Err(Error::wrong_type()),
    }
}
