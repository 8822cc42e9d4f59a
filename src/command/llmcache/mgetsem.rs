//! `LLMCACHE.MGETSEM`: many questions in one trip, each answered as `GETSEM` answers it.

use super::getsem::{Asking, Found, Question};
use crate::command::container::store::check_dim;
use crate::command::container::texts::{model_for, no_vector};
use crate::command::parse::{ArgReader, is_vector_word, vector};
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Embedded, Searches, Texts, answer_searching, embed, find_container};
use llmcache_core::cache::{Halt, Kind, Looked};
use llmcache_core::embed::Role;
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
        let given = asked.iter().filter_map(|(query, _)| query.as_ref());
        given.map(Query::dim).try_for_each(|dim| check_dim(cache, dim, args.name()))?;
    }
    let asking = Asking { ctx, name: args.name(), cache: cache.as_ref(), searches };
    if !embed_all(&asking, &mut question, &mut asked)? {
        return Ok(());
    }
    let (questions, mut found) = (asked.len(), Vec::new());
    for (query, prompt) in asked {
        (question.query, question.prompt) = (query, prompt);
        question.settle_context()?;
        match asking.look_up(&question) {
            Err(Halt::Elsewhere) => {}
            looked => found.push((looked, question.alone)),
        }
    }
    // Nothing shows before all are looked up.
    if found.len() == questions {
        let there = found.iter().filter_map(|(looked, _)| looked.as_ref().ok());
        asking.check_room(&question, there)?;
        Reply::new(ctx).array(questions);
        for (looked, alone) in found {
            question.alone = alone;
            write(&asking, &question, looked);
        }
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

/// A question: its vector, its prompt, or both.
type Asked<'a> = (Option<Query>, Option<&'a [u8]>);

/// Has the prompts without a vector embedded that were not stored word for word; false where the command is to end
/// and is run again.
fn embed_all<'a>(
    asking: &Asking<'_, '_>,
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
        (question.query, question.prompt) = (None, Some(prompt));
        if !is_enough || asking.stored(question).is_none() {
            wanted.push((place, prompt));
        }
    }
    let texts: Vec<&[u8]> = wanted.iter().map(|(_, text)| *text).collect();
    let texts = Texts { model: &model, role: Role::Query, texts: &texts };
    let Embedded::Now(vectors) = embed(asking.ctx, &texts, Again::Reads(answer))? else {
        return Ok(false);
    };
    for ((place, _), vector) in wanted.into_iter().zip(vectors) {
        asked[place].0 = vector.ok();
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
        return Ok((Some(query), None));
    }
    *reader = ahead;
    Ok((Some(query), Some(reader.text("PROMPT", limits::PROMPT_MAX_BYTES)?)))
}
