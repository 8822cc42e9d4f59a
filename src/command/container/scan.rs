//! `LLMCACHE.SCAN` and `RAG.SCAN`: the ids of a container, page by page.
//!
//! The cursor is a place in the listing of ids, which an entry keeps however often it is replaced: one that is
//! there from the first page to the last is seen exactly once.

use crate::command::filtered::{Sieve, decided};
use crate::command::parse::{ArgReader, PageRequest, page_request};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{Presence, need_index, open_container, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Cache, Kind};
use llmcache_core::error::Result;
use llmcache_core::filter::{Filter, Verdict};
use llmcache_core::ids::UnixMs;
use llmcache_core::work::Steps;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    scan(ctx, args, Kind::Answers)
}

/// Lists a container of this kind.
pub fn scan(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    let PageRequest { cursor, count, filter } = page_request(ArgReader::new(args.options()))?;
    let (next, ids) = match open_container(ctx, &args.key(), kind)? {
        Some(cache) => {
            Presence::of(ctx, args.name()).need_all()?;
            need_index(&cache)?;
            page(ctx, &cache, cursor, count, filter.as_ref())?
        }
        None => (0, Vec::new()),
    };
    let reply = Reply::new(ctx).array(2);
    reply.text(&next.to_string()).array(ids.len());
    for id in &ids {
        reply.bytes(id);
    }
    Ok(())
}

/// An entry of a page.
struct Listed {
    id: Vec<u8>,
    /// A document whose id cannot name a key is named by the digest, and tells its id itself.
    tells: bool,
    verdict: Verdict,
}

/// Visits `count` entries from `cursor` on, fewer where judging them takes long; answers where to go on (0 at the end)
/// and the ids that pass the filter.
fn page(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    cursor: u32,
    count: usize,
    filter: Option<&Filter>,
) -> Result<(u32, Vec<Vec<u8>>)> {
    let sieve = Sieve::new(filter.cloned());
    let now = UnixMs(ctx.now_ms());
    let (mut from, mut visited, mut ids) = (cursor, 0, Vec::new());
    while visited < count && !sieve.is_spent() {
        let next = cache.with(|cache| next_listed(cache, from, &sieve, filter, now));
        let Some((place, listed)) = next else { return Ok((0, ids)) };
        visited += listed.len();
        for Listed { id, tells, verdict } in listed {
            let passes = match verdict {
                Verdict::NeedsEntry => passes_opened(ctx, cache, &id, &sieve)?,
                verdict => decided(verdict)?,
            };
            if passes && tells {
                ids.extend(document_id(ctx, cache, &id));
            } else if passes {
                ids.push(id);
            }
        }
        let Some(behind) = place.checked_add(1) else { return Ok((0, ids)) };
        from = behind;
    }
    let more = cache.with(|cache| cache.index.listed_from(from).next().map(|(place, ..)| place));
    Ok((more.unwrap_or(0), ids))
}

/// The next place of the listing and who stands there: one entry, now and then two, which are told together, since
/// a page ends between two places.
fn next_listed(
    cache: &Cache,
    from: u32,
    sieve: &Sieve,
    filter: Option<&Filter>,
    now: UnixMs,
) -> Option<(u32, Vec<Listed>)> {
    let first = cache.index.listed_from(from).next()?.0;
    let same = cache.index.listed_from(first).take_while(|&(place, ..)| place == first);
    let listed = same.map(|(_, id, slot)| {
        let tells = !slot.is_named() && cache.settings.kind == Kind::Documents;
        let gone = slot.seq() < cache.epochs().min_seq_of(slot.partition.scope())
            || cache.index.is_gone_by_tag(id, &slot);
        let mut steps = Steps { rows: 1, ..Steps::NONE };
        let verdict = if slot.is_visible(now) && !gone {
            let judge = |filter: &Filter| filter.judge_record(slot.record, &mut steps);
            filter.map_or(Verdict::Yes, judge)
        } else {
            Verdict::No
        };
        sieve.count(steps);
        Listed { id: cache.id_text(&slot.id), tells, verdict }
    });
    Some((first, listed.collect()))
}

fn document_id(ctx: Ctx<'_>, cache: &SharedCache, digest: &[u8]) -> Option<Vec<u8>> {
    let key = cache.with(|cache| cache.named_key(digest));
    Some(open_entry(ctx, &key, Access::Probe)?.view().prompt().to_vec())
}

fn passes_opened(ctx: Ctx<'_>, cache: &SharedCache, id: &[u8], sieve: &Sieve) -> Result<bool> {
    let key = cache.with(|cache| cache.named_key(id));
    sieve.count(Steps { keys: 1, ..Steps::NONE });
    match open_entry(ctx, &key, Access::Probe) {
        Some(entry) => sieve.passes(entry.view().meta().unwrap_or_default()),
        None => Ok(false),
    }
}
