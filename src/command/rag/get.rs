//! `RAG.GET` and `RAG.MGET`: documents by their id.

use super::{check_id, document_id, key_name};
use crate::command::container::hit_reply::{self, Field, Served};
use crate::command::parse::{ArgReader, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{OpenedEntry, Presence, answer_room, now_min, open_container, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Hit, Kind, MissReason, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;

/// What RETURN of `RAG.MGET` knows; without it the first eight are answered, as by `RAG.GET`.
const FIELDS: [Field; 9] = [
    Field::Document,
    Field::Text,
    Field::Meta,
    Field::Tags,
    Field::Tokens,
    Field::Age,
    Field::Ttl,
    Field::Hits,
    Field::Vector,
];
const USUAL: usize = 8;

/// Runs `RAG.GET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = document_id(&mut reader)?;
    reader.finish()?;
    let reply = Reply::new(ctx);
    let Some(cache) = open_container(ctx, &args.key(), Kind::Documents)? else {
        reply.null();
        return Ok(());
    };
    let entry = find(ctx, &cache, args.name(), id)?;
    answer(ctx, reply, &cache, entry, &FIELDS[..USUAL]);
    Ok(())
}

/// Runs `RAG.MGET`.
pub fn run_mget(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (ids, fields) = parse_mget(ArgReader::new(args.options()))?;
    let cache = open_container(ctx, &args.key(), Kind::Documents)?;
    // All are found before the first is answered: an error is the whole reply.
    let found = match &cache {
        Some(cache) => {
            let found = ids.iter().map(|id| find(ctx, cache, args.name(), id));
            found.collect::<Result<Vec<_>>>()?
        }
        None => Vec::new(),
    };
    let bytes = |entry: &Option<OpenedEntry<'_>>| {
        entry.as_ref().map_or(0, |entry| hit_reply::bytes_of(&entry.view(), &fields))
    };
    answer_room(ctx)?.all(found.iter().map(bytes))?;
    let reply = Reply::new(ctx).array(ids.len());
    match &cache {
        Some(cache) => {
            found.into_iter().for_each(|entry| answer(ctx, reply, cache, entry, &fields))
        }
        None => ids.iter().for_each(|_| {
            reply.null();
        }),
    }
    Ok(())
}

fn parse_mget<'a>(mut args: ArgReader<'a>) -> Result<(Vec<&'a [u8]>, Vec<Field>)> {
    let (mut ids, mut fields) = (None, None);
    while let Some(word) = args.option() {
        match word.as_str() {
            "IDS" => set_once(&mut ids, args.list("IDS", limits::STORE_BATCH_MAX)?, "IDS")?,
            "RETURN" => {
                let named = hit_reply::parse_fields(args.list("RETURN", FIELDS.len())?, &FIELDS)?;
                set_once(&mut fields, named, "RETURN")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let ids = ids.ok_or_else(|| Error::err("syntax error: IDS is needed"))?;
    let ids = ids.iter().map(|id| check_id(id)).collect::<Result<Vec<_>>>()?;
    Ok((ids, fields.unwrap_or_else(|| FIELDS[..USUAL].to_vec())))
}

/// Answers a document that was found or not, and counts that.
fn answer(
    ctx: Ctx<'_>,
    reply: Reply<'_>,
    cache: &SharedCache,
    entry: Option<OpenedEntry<'_>>,
    fields: &[Field],
) {
    let Some(entry) = entry else {
        cache.with(|cache| cache.stats.note_miss(b"", MissReason::Empty, None));
        reply.null();
        return;
    };
    let hits = cache.with(|cache| {
        cache.stats.note_hit(b"", Tier::Exact, &entry.view(), None);
        cache.note_hit(&entry.view(), now_min())
    });
    let hit = Hit { tier: Tier::Exact, similarity: 1.0, entry };
    let served = Served { hits, stale: false, verified: None };
    hit_reply::write(reply, &hit, fields, served, UnixMs(ctx.now_ms()));
}

fn find<'c>(
    ctx: Ctx<'c>,
    cache: &SharedCache,
    name: &[u8],
    id: &[u8],
) -> Result<Option<OpenedEntry<'c>>> {
    let (key, uid) = cache.with(|cache| (cache.named_key(&key_name(id)), cache.uid()));
    let entry = Presence::of(ctx, name).found(open_entry(ctx, &key, Access::Read))?;
    Ok(entry.filter(|entry| {
        let view = entry.view();
        view.uid() == uid && view.answers(b"", b"", id)
    }))
}
