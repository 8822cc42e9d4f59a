//! `LLMCACHE.MGETSEM`: many questions in one trip, each answered as `GETSEM` answers it.

use super::getsem::{Asking, Found, Question};
use crate::command::container::store::check_dim;
use crate::command::parse::{ArgReader, is_vector_word, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Searches, answer_searching, find_container};
use llmcache_core::cache::{Halt, Kind, Looked};

use llmcache_core::error::{Error, Result};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// Runs the command. All is read and checked before the first question is answered.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_searching(ctx, args, answer)
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, searches: &Searches) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let count = reader.integer("the count of questions", 1, limits::MGETSEM_MAX.into())?;
    let mut asked = Vec::new();
    for _ in 0..count {
        asked.push(read_question(&mut reader)?);
    }
    let mut question = Question::parse(reader)?;
    if question.prompt.is_some() || question.query.is_some() {
        return Err(Error::err("syntax error: more questions follow than were announced"));
    }
    let results = asked.len() * question.count.unwrap_or(1);
    if results > limits::MGETSEM_RESULTS_MAX {
        let max = limits::MGETSEM_RESULTS_MAX;
        return Err(Error::too_big("COUNT times the questions", results, max, "results"));
    }
    let cache = find_container(ctx, &args.key(), Kind::Answers)?;
    if let Some(cache) = &cache {
        asked.iter().try_for_each(|(query, _)| check_dim(cache, query.dim(), args.name()))?;
    }
    let reply = Reply::new(ctx);
    let asking = Asking { ctx, name: args.name(), cache: cache.as_ref(), searches };
    let (questions, mut found) = (asked.len(), Vec::new());
    if !searches.may_wait() {
        reply.array(questions);
    }
    for (query, prompt) in asked {
        (question.query, question.prompt) = (Some(query), prompt);
        match asking.look_up(&question) {
            // Nothing shows before all are looked up.
            Err(Halt::Elsewhere) => {}
            looked if searches.may_wait() => found.push(looked),
            looked => write(&asking, &question, looked),
        }
    }
    if searches.may_wait() && found.len() == questions {
        reply.array(questions);
        found.into_iter().for_each(|looked| write(&asking, &question, looked));
    }
    Ok(())
}

/// Answers one question; one that is refused has its error in its place.
fn write<'c>(asking: &Asking<'c, '_>, question: &Question<'_>, looked: Looked<Found<'c>>) {
    match looked {
        Ok(found) => asking.reply(question, found),
        Err(Halt::Refused(error)) => Reply::new(asking.ctx).error(&error.to_string()),
        Err(Halt::Elsewhere) => Reply::new(asking.ctx).internal_error(),
    }
}

/// A vector, and the prompt if one follows.
fn read_question<'a>(reader: &mut ArgReader<'a>) -> Result<(Query, Option<&'a [u8]>)> {
    let missing = || Error::err("syntax error: fewer questions follow than were announced");
    let word = reader.option().filter(is_vector_word).ok_or_else(missing)?;
    let query = vector(&word, reader)?;
    let mut ahead = reader.clone();
    if ahead.option().is_none_or(|word| word.as_str() != "PROMPT") {
        return Ok((query, None));
    }
    *reader = ahead;
    Ok((query, Some(reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?)))
}
