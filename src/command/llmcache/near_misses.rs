//! `LLMCACHE.NEARMISSES`: lookups by meaning that came near and were not served.

use super::need_cache;
use crate::command::parse::{ArgReader, flag_once, set_once};
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::answer_room;
use llmcache_core::cache::NearMiss;
use llmcache_core::error::Result;
use llmcache_core::limits;

/// Shown unless COUNT says otherwise.
const COUNT: usize = 10;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut count, mut reset) = (None, false);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "COUNT" => {
                let most = u64::from(limits::NEAR_MISSES_MAX);
                set_once(&mut count, reader.integer("COUNT", 0, most)? as usize, "COUNT")?;
            }
            "RESET" => flag_once(&mut reset, "RESET")?,
            _ => return Err(word.unknown()),
        }
    }
    let cache = need_cache(ctx, args)?;
    let bytes = cache.with(|cache| cache.near_misses.memory_bytes());
    answer_room(ctx)?.one(bytes as u64)?;
    let reply = Reply::new(ctx);
    cache.with(|cache| {
        let misses = cache.near_misses.newest(count.unwrap_or(COUNT));
        reply.array(misses.len());
        misses.for_each(|miss| write(reply, miss));
        if reset {
            cache.near_misses.clear();
        }
    });
    Ok(())
}

fn write(reply: Reply<'_>, miss: &NearMiss) {
    reply.map(8);
    reply.text("number").count(miss.number);
    reply.text("time").count(miss.at.0);
    reply.text("question").bytes(&miss.question);
    reply.text("id").bytes(&miss.id);
    reply.text("candidate").bytes(&miss.candidate);
    reply.text("similarity").double(miss.similarity);
    reply.text("reason").text(miss.reason);
    reply.text("guard");
    match miss.guard {
        Some(guard) => reply.text(guard),
        None => reply.null(),
    };
}
