//! The bound on reply bytes: a client that asks for much and reads nothing must not fill the server's memory, which
//! would evict what others stored.
//!
//! Owns: the two bounds, of one reply and of all that are on their way. Every command that can answer much asks before
//! it replies and before it does what cannot be taken back. Main thread only.

use super::chunk_room::{in_flight, maxmemory};
use crate::config;
use crate::ffi::Ctx;
use llmcache_core::error::{Error, ErrorWord, Result};

/// Of `maxmemory`, what replies on their way may take, all together.
const SHARE_OF_MAXMEMORY: u64 = 8;

/// What is left of the bytes of a reply.
#[derive(Debug, Clone, Copy)]
pub struct AnswerRoom {
    most: u64,
    left: u64,
    is_empty: bool,
}

/// Room for a reply; an error where too much is on its way already.
pub fn answer_room(ctx: Ctx<'_>) -> Result<AnswerRoom> {
    let mut all = config::reply_in_flight();
    let share = maxmemory(ctx) / SHARE_OF_MAXMEMORY;
    if share > 0 {
        all = all.min(share);
    }
    if in_flight() >= all {
        return Err(Error::new(
            ErrorWord::Busy,
            "too many bytes of replies wait for clients to read them; see llmcache.reply-in-flight",
        ));
    }
    let most = config::reply_max_bytes().min(all);
    Ok(AnswerRoom { most, left: most, is_empty: true })
}

impl AnswerRoom {
    /// Bytes that still fit.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes room for one thing of a list; the first fits in any case.
    pub fn one(&mut self, bytes: u64) -> Result<()> {
        let fits = self.is_empty || bytes <= self.left;
        self.is_empty = false;
        self.left = self.left.saturating_sub(bytes);
        if fits { Ok(()) } else { Err(self.too_big()) }
    }

    /// Takes room for all of them, of which there may be one alone.
    pub fn all(&mut self, things: impl IntoIterator<Item = u64>) -> Result<()> {
        things.into_iter().try_for_each(|bytes| self.one(bytes))
    }

    fn too_big(&self) -> Error {
        let most = self.most;
        let text = format!(
            "the reply would have more than {most} bytes; ask for less at a time (llmcache.reply-max-bytes)"
        );
        Error::new(ErrorWord::TooBig, text)
    }
}
