//! `LLMCACHE.SCAN`: the ids of a cache, page by page.
//!
//! The cursor is a slot number. An entry keeps its slot from store to removal, so one that is there
//! from the first page to the last is seen exactly once.

use crate::command::parse::{ArgReader, PageRequest, page_request};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{open_cache, open_entry};
use crate::keytype::registry::SharedCache;
use llmcache_core::error::Result;
use llmcache_core::ids::UnixMs;
use llmcache_core::index::filter::{Filter, Verdict};

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let PageRequest { cursor, count, filter } = page_request(ArgReader::new(args.options()))?;
    let (next, ids) = match open_cache(ctx, &args.key())? {
        Some(cache) => page(ctx, &cache, cursor, count, filter.as_ref()),
        None => (0, Vec::new()),
    };
    let reply = Reply::new(ctx).array(2);
    reply.text(&next.to_string()).array(ids.len());
    for id in &ids {
        reply.bytes(id);
    }
    Ok(())
}

/// Visits `count` entries from `cursor` on; answers where to go on (0 at the end) and the ids that
/// pass the filter.
fn page(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    cursor: u32,
    count: usize,
    filter: Option<&Filter>,
) -> (u32, Vec<Vec<u8>>) {
    let now = UnixMs(ctx.now_ms());
    let (mut from, mut ids) = (cursor, Vec::new());
    for _ in 0..count {
        let visited = cache.with(|cache| {
            let (id, slot) = cache.index.next_occupied(from)?;
            let name = cache.index.name_of(&slot.id).map_or(slot.id.hex().to_vec(), <[u8]>::to_vec);
            let gone = slot.seq() < cache.epochs().min_seq_of(slot.partition.scope())
                || cache.index.is_gone_by_tag(id, slot);
            let verdict = if slot.is_visible(now) && !gone {
                filter.map_or(Verdict::Yes, |filter| filter.matches_record(slot.record.as_ref()))
            } else {
                Verdict::No
            };
            Some((id, name, verdict))
        });
        let Some((slot, id, verdict)) = visited else { return (0, ids) };
        let passes = match verdict {
            Verdict::Yes => true,
            Verdict::No => false,
            Verdict::NeedsEntry => passes_opened(ctx, cache, &id, filter),
        };
        if passes {
            ids.push(id);
        }
        from = slot.0 + 1;
    }
    let more = cache.with(|cache| cache.index.next_occupied(from).is_some());
    (if more { from } else { 0 }, ids)
}

fn passes_opened(ctx: Ctx<'_>, cache: &SharedCache, id: &[u8], filter: Option<&Filter>) -> bool {
    let key = cache.with(|cache| cache.named_key(id));
    let meta = open_entry(ctx, &key, Access::Probe).and_then(|entry| entry.view().meta_object());
    filter.is_none_or(|filter| meta.is_some_and(|meta| filter.matches(&meta)))
}
