//! `SESSION.RECALL`: what was said, by meaning.

use super::{find, reply, roles};
use crate::command::parse::{ArgReader, is_vector_word, set_once, vector};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use llmcache_core::error::{Error, Result};
use llmcache_core::limits;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut query, mut count, mut least, mut wanted, mut around) = (None, None, None, None, None);
    while let Some(word) = reader.option() {
        let name = word.as_str();
        match name {
            "COUNT" => {
                set_once(&mut count, reader.integer(name, 1, limits::COUNT_MAX.into())?, name)?;
            }
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
    let query = query.ok_or_else(|| Error::err("syntax error: RECALL needs a vector"))?;
    let session = find(ctx, args, Access::Read)?;
    session.check_query(&query, args.name())?;
    let count = count.unwrap_or(1) as usize;
    let found = session.recall(&query, count, least.unwrap_or(-1.0), wanted);
    let reply = Reply::new(ctx).array(found.len());
    for hit in found {
        let message = session.message(hit.message);
        reply.array(if around.is_some() { 4 } else { 2 }).double(hit.similarity);
        reply::short(reply, &message);
        if let Some(around) = around {
            let (older, newer) = session.around(message.seq, around as usize);
            reply::list(reply, &session, &older);
            reply::list(reply, &session, &newer);
        }
    }
    Ok(())
}
