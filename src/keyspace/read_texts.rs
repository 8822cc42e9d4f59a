//! Reads the texts of a batch one at a time, so that the work can be cut into slices, then has them embedded together
//! in threads.
//!
//! Owns: which of them have a vector, and what becomes of those that have none: they are embedded at once where the
//! model takes microseconds or the client cannot wait, up to a bound, else its client waits (`slices::Awaited`). Main
//! thread only.

use super::embeddings::{
    Came, Made, ModelId, Reader, Text, TextKey, Wanted, end_wait, has_threads, held_bytes,
    no_vector, too_long_inline, wait_between, waited_too_long,
};
use super::slices::{Awaited, Resume};
use crate::config;
use crate::ffi::{BlockedId, Ctx};
use llmcache_core::embed::{Refusal, Role};
use llmcache_core::error::{Error, Result};
use llmcache_core::vector::Query;
use llmcache_core::work::count_path;

/// Numbers of a table that are added in the time of a step.
const NUMBERS_PER_STEP: usize = 64;

/// Texts of a command that are to be embedded.
pub struct ReadTexts {
    reader: Reader,
    read: Vec<std::result::Result<Read, Refusal>>,
    may_wait: bool,
    /// Tokens embedded at once so far.
    inline_tokens: usize,
    /// Texts without a vector, until they are given to threads.
    wanted: Wanted,
    /// Who waits for them.
    client: Option<BlockedId>,
}

enum Read {
    Vector(Made),
    /// In threads.
    Waits(TextKey),
}

impl std::fmt::Debug for ReadTexts {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "ReadTexts({})", self.read.len())
    }
}

impl ReadTexts {
    /// None yet, of the running command.
    pub fn new(ctx: Ctx<'_>, model: &ModelId, role: Role) -> Result<Self> {
        let reader = Reader::new(model, role)?;
        let may_wait = !reader.model.is_static() && has_threads(ctx);
        let (read, wanted) = (Vec::new(), Vec::new());
        Ok(Self { reader, read, may_wait, inline_tokens: 0, wanted, client: None })
    }

    /// Dimensions of their vectors.
    pub fn dim(&self) -> usize {
        self.reader.model.dim()
    }

    /// Reads the next text; of one that is `cut` the beginning will do where the model cannot read all.
    pub fn read(&mut self, text: &[u8], cut: bool) -> Result<()> {
        let key = self.reader.key(text, cut);
        let read = match Reader::known(&key) {
            Some(Came::Vector(made)) => Ok(Read::Vector(made)),
            Some(Came::Refused(refusal)) => Err(refusal),
            Some(Came::Nothing) => return Err(no_vector()),
            None => match self.reader.read(&key, text) {
                Err(refusal) => Err(refusal),
                Ok(tokens) if self.may_wait => {
                    self.wanted.push((key, Text::Read(tokens), held_bytes(text)));
                    Ok(Read::Waits(key))
                }
                Ok(tokens) => {
                    self.check_inline(tokens.ids.len())?;
                    Ok(Read::Vector(self.reader.embed_now(key, &tokens)?))
                }
            },
        };
        self.read.push(read);
        Ok(())
    }

    /// Refuses to embed more at once than may hold up others.
    fn check_inline(&mut self, tokens: usize) -> Result<()> {
        self.inline_tokens += tokens;
        if self.reader.model.is_static() {
            count_path(tokens * (1 + self.dim() / NUMBERS_PER_STEP));
            return Ok(());
        }
        let most = config::embed_inline_tokens();
        if self.inline_tokens > most {
            return Err(too_long_inline(self.inline_tokens, most));
        }
        Ok(())
    }

    /// Whether some are to be embedded in threads before there is more to do.
    pub fn must_wait(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whether a client has waited for them.
    pub fn has_waited(&self) -> bool {
        self.client.is_some()
    }

    /// Of each its vector, or why it has none, in the order they were read.
    pub fn finish(mut self) -> Result<Vec<std::result::Result<Query, Refusal>>> {
        let found = self.client.take().map(end_wait).unwrap_or_default();
        let vector = |read| {
            let made = match read {
                Err(refusal) => return Ok(Err(refusal)),
                Ok(Read::Vector(made)) => made,
                Ok(Read::Waits(key)) => match found.get(&key) {
                    Some(Came::Vector(made)) => made.clone(),
                    _ => return Err(no_vector()),
                },
            };
            Query::of(made.vector.to_vec()).map(Ok).map_err(|_| no_vector())
        };
        std::mem::take(&mut self.read).into_iter().map(vector).collect()
    }
}

impl Awaited for ReadTexts {
    fn begin(&mut self, _: Ctx<'_>, client: BlockedId, resume: Resume) -> Result<u64> {
        let wanted = std::mem::take(&mut self.wanted);
        let most_ms = wait_between(client, &self.reader.model, wanted, resume)?;
        self.client = Some(client);
        Ok(most_ms)
    }

    fn too_late(&self) -> fn() -> Error {
        waited_too_long
    }
}

impl Drop for ReadTexts {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            end_wait(client);
        }
    }
}
