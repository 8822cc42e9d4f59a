//! `SESSION.RECALL`: finds messages by meaning.

use super::request::roles;
use super::{find, reply, texts};
use crate::command::parse::{ArgReader, is_vector_word, set_once, vector};
use crate::ffi::{Access, Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, AnswerRoom, Pieces, Searches, answer_room, run_pieces};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use llmcache_core::session::{MessageRef, MessageSeq, Recall, Recalled, Session};
use llmcache_core::vector::Query;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    if let Some(recalling) = begin(ctx, args)? {
        run_pieces(args, recalling);
    }
    Ok(())
}

/// The second run, when the question was embedded.
fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, _: &Searches) -> Result<()> {
    if let Some(mut recalling) = begin(ctx, args)? {
        while recalling.next(ctx) {}
        recalling.reply(ctx);
    }
    Ok(())
}

/// Reads what is asked; `None` where the question is being embedded, and where it was answered.
fn begin(ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<Option<Recalling>> {
    let mut reader = ArgReader::new(args.options());
    let mut text = None;
    let (mut query, mut count, mut least, mut wanted, mut around) = (None, None, None, None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "COUNT" => {
                set_once(&mut count, reader.integer(name, 1, limits::COUNT_MAX.into())?, name)?;
            }
            "TEXT" => set_once(&mut text, reader.text(name, limits::PROMPT_MAX_BYTES)?, name)?,
            "SIMILARITY" => set_once(&mut least, reader.similarity(name)?, name)?,
            "ROLES" => set_once(&mut wanted, roles(&mut reader)?, name)?,
            "AROUND" => {
                let most = limits::SESSION_AROUND_MAX;
                set_once(&mut around, reader.integer(name, 0, most)?, name)?;
            }
            _ if is_vector_word(&word) => {
                set_once(&mut query, vector(&word, &mut reader)?, "the vector")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let (count, around) = (count.unwrap_or(1) as usize, around.map(|around| around as usize));
    let (messages, most) =
        (count * (1 + 2 * around.unwrap_or(0)), limits::SESSION_REPLY_MESSAGES_MAX);
    if messages > most {
        return Err(Error::too_big("COUNT with AROUND", messages, most, "messages"));
    }
    let query = match (query, text) {
        (Some(query), None) => query,
        (None, Some(text)) => match embedded(ctx, args, text)? {
            Some(query) => query,
            None => return Ok(None),
        },
        (Some(_), Some(_)) => return Err(Error::err("syntax error: a vector and TEXT are given")),
        (None, None) => return Err(Error::err("syntax error: RECALL needs a vector or TEXT")),
    };
    let session = find(ctx, args, Access::Read)?;
    session.check_query(&query, args.name())?;
    // What is compared is the session as it is now: a copy shares all its blocks.
    let copy = session.fork(MessageSeq(u32::MAX));
    drop(session);
    let recall = Recall::new(&copy, query, count, least.unwrap_or(-1.0), wanted);
    Ok(Some(Recalling { copy, recall: Some(recall), around, room: answer_room(ctx)? }))
}

/// The vector of a question; `None` where it is being embedded, and where there is nothing to compare it with.
fn embedded(ctx: Ctx<'_>, args: &Arguments<'_>, text: &[u8]) -> Result<Option<Query>> {
    let session = find(ctx, args, Access::Probe)?;
    if session.is_empty() {
        Reply::new(ctx).array(0);
        return Ok(None);
    }
    let model = texts::model_for(&session, None)?;
    let totals = session.totals();
    let numbers = totals.vectors * u64::from(session.dim().unwrap_or(0));
    drop(session);
    // A second run compares all at once: in a large session the client waits for that, and not for its question.
    let is_small = numbers <= limits::SESSION_RECALL_AT_ONCE_NUMBERS
        && totals.messages <= limits::SESSION_RECALL_AT_ONCE_MESSAGES;
    let again = if is_small { Again::Reads(answer, args.handles()) } else { Again::Never };
    texts::vector_of_question(ctx, model.as_ref(), text, again)
}

struct Recalling {
    copy: Session,
    recall: Option<Recall>,
    around: Option<usize>,
    room: AnswerRoom,
}

impl Recalling {
    /// The hits, each with its neighbours.
    fn hits(&mut self) -> Vec<(Recalled, Vec<MessageRef>, Vec<MessageRef>)> {
        let found = self.recall.take().map_or_else(Vec::new, |recall| recall.finish(&self.copy));
        let around = |hit: Recalled| {
            let seq = self.copy.seq_at(hit.message);
            let (older, newer) = self.copy.around(seq, self.around.unwrap_or(0));
            (hit, older, newer)
        };
        found.into_iter().map(around).collect()
    }
}

impl Pieces for Recalling {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, _: Ctx<'_>) -> bool {
        self.recall.as_mut().is_some_and(|recall| recall.step(&self.copy))
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        let hits = self.hits();
        for (hit, older, newer) in &hits {
            let own = [hit.message];
            for list in [&own[..], older, newer] {
                if let Err(error) = self.room.all(self.copy.reply_bytes(list)) {
                    Reply::new(ctx).error(&error.to_string());
                    return;
                }
            }
        }
        let now = UnixMs(ctx.now_ms());
        let reply = Reply::new(ctx).array(hits.len());
        for (hit, older, newer) in hits {
            let message = self.copy.message(hit.message);
            reply.array(if self.around.is_some() { 4 } else { 2 }).double(hit.similarity);
            reply::short(reply, &message, now);
            if self.around.is_some() {
                reply::list(reply, &self.copy, &older, now);
                reply::list(reply, &self.copy, &newer, now);
            }
        }
    }
}
