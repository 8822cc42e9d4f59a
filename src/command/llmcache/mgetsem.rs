//! `LLMCACHE.MGETSEM`: many questions in one trip, each with the reply of `GETSEM`.

use super::getsem::{Asking, Found, Question};
use crate::command::container::store::check_vector;
use crate::command::container::texts::{model_for, no_vector};
use crate::command::parse::{ArgReader, is_vector_word, skip_vector, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Embedded, Searches, Texts, answer_searching, embed, find_container};
use llmcache_core::cache::guard::Unseen;
use llmcache_core::cache::{Halt, Kind, Looked};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// Questions of one round, at most.
const QUESTIONS_PER_ROUND: usize = 128;

/// Runs the command. All is read and checked before the first question is answered; where it takes long, the rest is
/// answered in rounds between other clients' commands, each question as of its own moment.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_searching(ctx, args, answer)
}

/// The questions of a round.
struct Round<'a> {
    /// All, and how many were answered before.
    count: usize,
    first: usize,
    /// Vector and prompt of those to be answered, from the first on.
    asked: Vec<Asked<'a>>,
    /// What holds for all.
    question: Question<'a>,
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, searches: &Searches) -> Result<()> {
    let mut round = Round::parse(args, searches)?;
    let cache = find_container(ctx, &args.key(), Kind::Answers).and_then(|cache| {
        if let Some(cache) = &cache {
            for (query, _) in round.asked.iter().filter_map(|(vector, _)| vector.as_ref()) {
                check_vector(cache, query, args.name())?;
            }
        }
        Ok(cache)
    });
    let cache = match cache {
        // What was refused at once is refused whole.
        Err(error) if !searches.is_round() => return Err(error),
        Err(error) => {
            round.refuse(Reply::new(ctx), &error);
            return Ok(());
        }
        Ok(cache) => cache,
    };
    let asking = Asking { ctx, name: args.name(), cache: cache.as_ref(), searches };
    match embed_all(&asking, args, &mut round.question, &mut round.asked) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) if !searches.is_round() => return Err(error),
        Err(error) => {
            round.refuse(Reply::new(ctx), &error);
            return Ok(());
        }
    }
    if searches.is_round() {
        round.go_on(&asking);
        return Ok(());
    }
    round.begin(&asking)
}

impl<'a> Round<'a> {
    fn parse(args: &'a Arguments<'_>, searches: &Searches) -> Result<Self> {
        let mut reader = ArgReader::new(args.options());
        let count = reader.integer("the count of questions", 1, limits::MGETSEM_MAX.into())?;
        let (count, first) = (count as usize, searches.answered());
        let mut asked = Vec::new();
        for number in 0..count {
            // What is not of this round was checked in the first.
            let is_asked = number >= first && asked.len() < QUESTIONS_PER_ROUND;
            if is_asked || !searches.is_round() {
                asked.push(read_question(&mut reader)?);
            } else {
                skip_question(&mut reader)?;
            }
        }
        let question = Question::parse(reader, None)?;
        if question.prompt.is_some() || question.query.is_some() {
            return Err(Error::err("syntax error: more questions follow than were announced"));
        }
        let results = count * question.count.unwrap_or(1);
        if results > limits::MGETSEM_RESULTS_MAX {
            let max = limits::MGETSEM_RESULTS_MAX;
            return Err(Error::too_big("COUNT times the questions", results, max, "results"));
        }
        searches.expect(count - first);
        Ok(Self { count, first, asked, question })
    }

    /// Answers all in one go, or nothing: where some is left to threads or time is up, rounds begin again.
    fn begin(self, asking: &Asking<'_, '_>) -> Result<()> {
        let Self { count, asked, mut question, .. } = self;
        let searches = asking.searches;
        let (mut found, mut is_whole) = (Vec::new(), true);
        for (query, prompt) in asked {
            put(&mut question, query, prompt);
            question.settle_context()?;
            match asking.look_up(&question) {
                Err(Halt::Elsewhere) => is_whole = false,
                looked if is_whole => found.push((looked, question.alone)),
                _ => {}
            }
            let is_rest = !is_whole || found.len() < count;
            if is_rest && searches.is_spent() && searches.yields() && searches.pause(asking.ctx) {
                return Ok(());
            }
        }
        if is_whole {
            let there = found.iter().filter_map(|(looked, _)| looked.as_ref().ok());
            asking.check_room(&question, 0, there)?;
            Reply::new(asking.ctx).array(count);
            for (looked, alone) in found {
                question.alone = alone;
                write(asking, &question, looked);
            }
        }
        Ok(())
    }

    /// Replies to what comes next, up to the first question that continues elsewhere.
    fn go_on(self, asking: &Asking<'_, '_>) {
        let Self { count, first, asked, mut question } = self;
        let (searches, mut answered, mut is_next) = (asking.searches, first, true);
        for (query, prompt) in asked {
            put(&mut question, query, prompt);
            let looked = match question.settle_context() {
                Ok(()) => asking.look_up(&question),
                Err(error) => Err(Halt::Refused(error)),
            };
            match looked {
                Err(Halt::Elsewhere) => is_next = false,
                looked if is_next => {
                    let reply = Reply::new(asking.ctx);
                    if answered == 0 {
                        reply.array(count);
                    }
                    let there = looked.as_ref().ok();
                    match asking.check_room(&question, searches.replied_bytes(), there) {
                        Ok(bytes) => searches.note_replied(bytes),
                        Err(error) => {
                            // The reply has as many parts as were announced.
                            (answered..count).for_each(|_| reply.error(&error.to_string()));
                            return;
                        }
                    }
                    write(asking, &question, looked);
                    answered += 1;
                    let code = question.query.as_ref().map_or(&[][..], Query::code);
                    searches.note_answered(code);
                }
                // It is looked up again when those before it are answered.
                _ => {}
            }
            if searches.is_spent() {
                break;
            }
        }
        if is_next && answered < count {
            searches.pause(asking.ctx);
        }
    }

    /// Answers all that is left with an error.
    fn refuse(&self, reply: Reply<'_>, error: &Error) {
        if self.first == 0 {
            reply.array(self.count);
        }
        for _ in self.first..self.count {
            reply.error(&error.to_string());
        }
    }
}

/// Answers one question; one that is refused has its error in its place.
fn write<'c>(asking: &Asking<'c, '_>, question: &Question<'_>, looked: Looked<Found<'c>>) {
    match looked {
        Ok(found) => asking.reply(question, found, false),
        Err(Halt::Refused(error)) => Reply::new(asking.ctx).error(&error.to_string()),
        Err(Halt::Elsewhere) => Reply::new(asking.ctx).internal_error(),
    }
}

/// A question: its vector, its prompt, or both.
type Asked<'a> = (Option<Vector>, Option<&'a [u8]>);

/// A vector, and what it does not show of the prompt where it was made of that here.
type Vector = (Query, Option<Unseen>);

/// Makes a question one of those that are asked.
fn put<'a>(question: &mut Question<'a>, vector: Option<Vector>, prompt: Option<&'a [u8]>) {
    let (query, unseen) = vector.unzip();
    (question.query, question.unseen, question.prompt) = (query, unseen.flatten(), prompt);
}

/// Has the prompts without a vector embedded that were not stored word for word; false where the command is to end
/// and is run again.
fn embed_all<'a>(
    asking: &Asking<'_, '_>,
    args: &Arguments<'_>,
    question: &mut Question<'a>,
    asked: &mut [Asked<'a>],
) -> Result<bool> {
    if asking.cache.is_none() || asked.iter().all(|(query, _)| query.is_some()) {
        return Ok(true);
    }
    let model = asking.cache.and_then(model_for).ok_or_else(|| no_vector(None))?;
    let is_enough = question.count.unwrap_or(1) == 1;
    let mut wanted = Vec::new();
    for (place, (query, prompt)) in asked.iter().enumerate() {
        let (None, &Some(prompt)) = (query, prompt) else { continue };
        put(question, None, Some(prompt));
        if !is_enough || asking.stored(question).is_none() {
            wanted.push((place, prompt));
        }
    }
    let texts: Vec<&[u8]> = wanted.iter().map(|(_, text)| *text).collect();
    let texts = Texts { model: &model, role: Role::Query, texts: &texts, cut: &[] };
    let Embedded::Now(vectors) = embed(asking.ctx, &texts, Again::Reads(answer, args.handles()))?
    else {
        return Ok(false);
    };
    for ((place, _), vector) in wanted.into_iter().zip(vectors) {
        asked[place].0 = vector.ok().map(|meant| (meant.query, Some(meant.unseen)));
    }
    Ok(true)
}

/// A vector, and the prompt if one follows; or a prompt.
fn read_question<'a>(reader: &mut ArgReader<'a>) -> Result<Asked<'a>> {
    let missing = || Error::err("syntax error: fewer questions follow than were announced");
    let word = reader.option().ok_or_else(missing)?;
    if word.as_str() == "PROMPT" {
        return Ok((None, Some(reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?)));
    }
    if !is_vector_word(&word) {
        return Err(missing());
    }
    let query = vector(&word, reader)?;
    let mut ahead = reader.clone();
    if ahead.option().is_none_or(|word| word.as_str() != "PROMPT") {
        return Ok((Some((query, None)), None));
    }
    *reader = ahead;
    Ok((Some((query, None)), Some(reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?)))
}

/// Passes over a question that was read before.
fn skip_question(reader: &mut ArgReader<'_>) -> Result<()> {
    let missing = || Error::err("syntax error: fewer questions follow than were announced");
    let word = reader.option().ok_or_else(missing)?;
    if word.as_str() == "PROMPT" {
        reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?;
        return Ok(());
    }
    skip_vector(&word, reader)?;
    let mut ahead = reader.clone();
    if ahead.option().is_some_and(|word| word.as_str() == "PROMPT") {
        *reader = ahead;
        reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?;
    }
    Ok(())
}
