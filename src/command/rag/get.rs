//! `RAG.GET` and `RAG.DEL`: documents by their id.

use super::{check_id, document_id, key_name};
use crate::command::container::entry;
use crate::command::container::hit_reply::{self, Field, Served};
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{OpenedEntry, Presence, now_min, open_container, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Hit, Kind, MissReason, Tier};
use llmcache_core::error::Result;
use llmcache_core::ids::UnixMs;

/// What is answered of a document.
const FIELDS: [Field; 8] = [
    Field::Document,
    Field::Text,
    Field::Meta,
    Field::Tags,
    Field::Tokens,
    Field::Age,
    Field::Ttl,
    Field::Hits,
];

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
    let Some(entry) = find(ctx, &cache, args.name(), id)? else {
        cache.with(|cache| cache.stats.note_miss(b"", MissReason::Empty, None));
        reply.null();
        return Ok(());
    };
    let hits = cache.with(|cache| {
        cache.stats.note_hit(b"", Tier::Exact, &entry.view(), None);
        cache.note_hit(&entry.view(), now_min())
    });
    let hit = Hit { tier: Tier::Exact, similarity: 1.0, entry };
    let served = Served { hits, stale: false };
    hit_reply::write(reply, &hit, &FIELDS, served, UnixMs(ctx.now_ms()));
    Ok(())
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

/// Runs `RAG.DEL`.
pub fn run_del(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let ids = args.options().iter().map(|id| check_id(id)).collect::<Result<Vec<_>>>()?;
    entry::remove(ctx, args, Kind::Documents, ids.into_iter().map(key_name))
}
