//! `LLMCACHE.GET`: returns the answer to exactly this prompt, as one bulk string.

use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{OpenedEntry, find_container, now_min, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Kind, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::limits;

/// Runs the command: two key look-ups and one hash.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut prompt, mut scope, mut context) = (None, None, None);
    while let Some(word) = reader.option() {
        let option = word.as_str();
        let (place, max) = match option {
            "PROMPT" => (&mut prompt, limits::PROMPT_MAX_BYTES),
            "SCOPE" => (&mut scope, limits::SCOPE_MAX_BYTES),
            "CONTEXT" => (&mut context, limits::CONTEXT_MAX_BYTES),
            _ => return Err(word.unknown()),
        };
        set_once(place, reader.text(option, max)?, option)?;
    }
    let prompt = prompt.ok_or_else(|| Error::err("syntax error: PROMPT is needed"))?;
    let (scope, context) = (scope.unwrap_or_default(), context.unwrap_or_default());
    let reply = Reply::new(ctx);
    let Some(cache) = find_container(ctx, &args.key(), Kind::Answers)? else {
        reply.null();
        return Ok(());
    };
    let id = EntryId::of(scope, context, prompt);
    let (key, uid) = cache.with(|cache| (cache.entry_key(&id), cache.uid()));
    let entry = open_entry(ctx, &key, Access::Read).filter(|entry| {
        let view = entry.view();
        view.uid() == uid && view.answers(scope, context, prompt) && is_fresh(ctx, &cache, entry)
    });
    match entry {
        Some(entry) => {
            let view = entry.view();
            reply.bytes(&view.response());
            let now_min = now_min();
            cache.with(|cache| {
                cache.note_hit(&view, now_min);
                cache.stats.note_hit(scope, Tier::Exact, &view, None);
            });
        }
        None => {
            reply.null();
            cache.with(|cache| {
                // An entry with an ID of its own is found by a row of the index.
                let reason = cache.miss_of_key();
                cache.stats.note_miss(scope, reason, None);
            });
        }
    }
    Ok(())
}

/// Whether an answer may be served where it cannot be said that it is stale.
fn is_fresh(ctx: Ctx<'_>, cache: &SharedCache, entry: &OpenedEntry<'_>) -> bool {
    let view = entry.view();
    let (expire_at, now) = (|| UnixMs(entry.expire_at_ms()), || UnixMs(ctx.now_ms()));
    cache.with(|cache| cache.staleness(&view, expire_at, now)) == Some(false)
}
