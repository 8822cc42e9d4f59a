//! The vectors of a command's texts: remembered, embedded at once, or left to threads while the client waits.
//!
//! Main thread only.

use super::model_id::ModelId;
use super::queue::{Wanted, busy, enlist, room_for};
use super::reader::{ModelSight, Reader, held_bytes, no_vector, too_long_inline};
use super::service::{Awaited, Found, SERVICE, Take, is_running_again};
use super::waiting::{Embedding, Memory, Second, on_done};
use super::work::{Came, Made, Text, TextKey};
use crate::config;
use crate::ffi::{
    Ctx, Handler, Handles, Threads, block_client, count_time_from_now, work_in_rounds,
};
use crate::keyspace::search_rounds::Answer;
use llmcache_core::cache::guard::{Sight, Unseen};
use llmcache_core::embed::{Model, Refusal, Role};
use llmcache_core::error::Result;
use llmcache_core::vector::Query;
use std::cell::LazyCell;
use std::sync::Arc;

/// Texts that a command needs the vectors of.
#[derive(Debug)]
pub struct Texts<'a> {
    /// Whose model.
    pub model: &'a ModelId,
    /// What they are embedded as.
    pub role: Role,
    /// The texts.
    pub texts: &'a [&'a [u8]],
    /// Those of them of which the beginning will do where the model cannot read all; none where this is empty.
    pub cut: &'a [bool],
}

/// What a text means.
#[derive(Debug)]
pub struct Meant {
    /// Its vector.
    pub query: Query,
    /// What that does not show of it.
    pub unseen: Unseen,
    /// Tokens that the model reads.
    pub tokens: usize,
    /// Microseconds that it took to embed; 0 where the vector was remembered.
    pub us: u64,
}

/// How a command goes on.
pub enum Again<'a> {
    /// One that only reads: it goes on in rounds, so that what takes long is left to the threads that search.
    Reads(Answer, Handles<'a>),
    /// One that stores: what the server checked before its first run is checked before its second, memory too.
    Writes(Handler),
    /// One that would store what it computes where there is memory, and looks to that itself.
    Fills(Handler),
    /// One that writes, stores nothing that the server would refuse without memory, and may have to wait once more, which nothing can in its second run. One of these is run again
    /// at a time, so that the next sees what it did.
    Takes(Handler, Take),
    /// One that has to wait for something else, which nothing can in a second run: texts are embedded at once.
    Never,
}

/// How a command that waits is run once more.
struct SecondRun<'a> {
    pub(super) second: Second,
    pub(super) take: Option<Take>,
    /// Where it may go on in rounds: by what, and its arguments.
    pub(super) rounds: Option<(Answer, Handles<'a>)>,
}

impl<'a> Again<'a> {
    /// The second run, where there may be one.
    fn second(self) -> Option<SecondRun<'a>> {
        let (second, take, rounds) = match self {
            Self::Reads(answer, args) => (Second::Reads(answer), None, Some((answer, args))),
            Self::Writes(handler) => (Second::Writes(handler, Memory::Needed), None, None),
            Self::Fills(handler) => (Second::Writes(handler, Memory::Spared), None, None),
            Self::Takes(handler, take) => {
                (Second::Writes(handler, Memory::Spared), Some(take), None)
            }
            Self::Never => return None,
        };
        Some(SecondRun { second, take, rounds })
    }
}

/// What came of texts.
#[derive(Debug)]
pub enum Embedded {
    /// Of each text its vector and what that does not show, or why it has none.
    Now(Vec<std::result::Result<Meant, Refusal>>),
    /// They are being embedded: the command is to end without a reply, and is run again.
    Later,
}

/// Bytes of the texts that are read at once. Where there are threads, these read the rest.
const READ_AT_ONCE_BYTES: usize = 16 << 10;

/// The vectors of texts. `again` is the running command, which is called once more where this answers `Later`.
pub fn embed(ctx: Ctx<'_>, texts: &Texts<'_>, again: Again<'_>) -> Result<Embedded> {
    let reader = Reader::new(texts.model, texts.role)?;
    let (model, role) = (Arc::clone(&reader.model), reader.role);
    let sight: Arc<dyn Sight> = Arc::new(ModelSight { model: Arc::clone(&model), role });
    let meant = |came: Came, text: &[u8]| -> Result<_> {
        let Made { vector, us, seen } = match came {
            Came::Vector(made) => made,
            Came::Refused(refusal) => return Ok(Err(refusal)),
            Came::Nothing => return Err(no_vector()),
        };
        let unseen = Unseen::new(Arc::clone(&sight), seen.unknown, text);
        let query = Query::of(vector.to_vec()).map_err(|_| no_vector())?;
        Ok(Ok(Meant { query, unseen, tokens: seen.tokens, us }))
    };
    let second = again.second();
    let may_wait = LazyCell::new(|| second.is_some() && has_threads(ctx));
    let mut missing = Missing::default();
    let mut known = Vec::with_capacity(texts.texts.len());
    for (number, bytes) in texts.texts.iter().enumerate() {
        let cuts = texts.cut.get(number).is_some_and(|cuts| *cuts);
        let key = reader.key(bytes, cuts);
        let came = match Reader::known(&key) {
            Some(came) => Some(came),
            None if missing.is_full(bytes) && *may_wait => {
                missing.push(number, key, Text::Unread((*bytes).into()), bytes);
                None
            }
            None => match reader.read(&key, bytes) {
                Ok(tokens) => {
                    missing.inline_tokens += tokens.ids.len();
                    missing.push(number, key, Text::Read(tokens), bytes);
                    None
                }
                Err(refusal) => Some(Came::Refused(refusal)),
            },
        };
        known.push(came.map(|came| meant(came, bytes)).transpose()?);
        if missing.is_full(b"") && !*may_wait {
            missing.check_inline(&model)?;
        }
    }
    if missing.must_wait(&model) && *may_wait {
        let second = second.ok_or_else(no_vector)?;
        let wanted = missing.texts.into_iter().map(|(_, key, text, bytes)| (key, text, bytes));
        return wait_for(ctx, &model, wanted.collect(), second);
    }
    missing.check_inline(&model)?;
    for (number, key, text, _) in missing.texts {
        let Text::Read(tokens) = text else { return Err(no_vector()) };
        let made = reader.embed_now(key, &tokens)?;
        known[number] = Some(meant(Came::Vector(made), texts.texts[number])?);
    }
    Ok(Embedded::Now(known.into_iter().flatten().collect()))
}

/// The texts of a command that have no vector yet.
#[derive(Default)]
struct Missing {
    /// Number among the texts, name, what is embedded, bytes that it takes while it waits.
    texts: Vec<(usize, TextKey, Text, usize)>,
    read_bytes: usize,
    inline_tokens: usize,
}

impl Missing {
    fn push(&mut self, number: usize, key: TextKey, text: Text, bytes: &[u8]) {
        if matches!(text, Text::Read(_)) {
            self.read_bytes += bytes.len();
        }
        self.texts.push((number, key, text, held_bytes(bytes)));
    }

    /// Whether another text is too much to be read at once.
    fn is_full(&self, bytes: &[u8]) -> bool {
        self.read_bytes > 0 && self.read_bytes + bytes.len() > READ_AT_ONCE_BYTES
    }

    /// Whether threads are to embed them. A static model takes microseconds for each.
    fn must_wait(&self, model: &Model) -> bool {
        let mut texts = self.texts.iter();
        match model.is_static() {
            true => texts.any(|(_, _, text, _)| matches!(text, Text::Unread(_))),
            false => texts.len() > 0,
        }
    }

    /// Refuses to embed more at once than may hold up others.
    fn check_inline(&self, model: &Model) -> Result<()> {
        let (inline, most) = (self.inline_tokens, config::embed_inline_tokens());
        if model.is_static() || inline <= most {
            return Ok(());
        }
        if is_running_again() {
            // What was kept when the command came is gone.
            return Err(busy("a text has to be embedded that did not when the command came"));
        }
        Err(too_long_inline(inline, most))
    }
}

/// Whether the running command may leave texts to threads.
pub(in crate::keyspace) fn has_threads(ctx: Ctx<'_>) -> bool {
    let (state, wanted) = (ctx.state(), config::embed_threads());
    if wanted == 0 || !state.may_block() || state.must_obey() {
        return false;
    }
    SERVICE.with(|service| {
        if service.threads.is_none() {
            service.threads = Threads::new(ctx, on_done);
        }
        service.threads.as_mut().is_some_and(|threads| threads.have(wanted) > 0)
    })
}

fn wait_for(
    ctx: Ctx<'_>,
    model: &Arc<Model>,
    wanted: Wanted,
    again: SecondRun<'_>,
) -> Result<Embedded> {
    let timeout_ms = room_for(&wanted)?;
    let SecondRun { second, take, rounds } = again;
    let reads = rounds.map(|(answer, _)| answer);
    let writes = matches!(second, Second::Writes(..));
    let client = block_client(ctx, timeout_ms, |client| Box::new(Embedding { client, second }));
    count_time_from_now(client);
    if let Some((_, args)) = rounds {
        work_in_rounds(ctx, client, args);
    }
    enlist(client, model, wanted, |missing| Awaited {
        missing,
        found: Found::new(),
        writes,
        reads,
        take,
        resume: None,
    });
    Ok(Embedded::Later)
}
