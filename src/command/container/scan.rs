//! `LLMCACHE.SCAN` and `RAG.SCAN`: the ids of a container, page by page.
//!
//! The cursor is a place in the listing of ids, which an entry keeps however often it is replaced: one that is
//! there from the first page to the last is seen exactly once.

use crate::command::filtered::{Sieve, decided};
use crate::command::parse::{ArgReader, PageRequest, page_request};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{
    Pieces, Presence, need_index, open_container, open_entry, reply_whole, run_pieces,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Cache, Kind};
use llmcache_core::error::{Error, Result};
use llmcache_core::filter::{Filter, Verdict};
use llmcache_core::ids::UnixMs;
use llmcache_core::work::{Steps, count};

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    scan(ctx, args, Kind::Answers)
}

/// Lists a container of this kind.
pub fn scan(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    let PageRequest { cursor, count, filter } = page_request(ArgReader::new(args.options()))?;
    let Some(cache) = open_container(ctx, &args.key(), kind)? else {
        Reply::new(ctx).array(2).text("0").array(0);
        return Ok(());
    };
    let name = args.name().to_vec();
    check_whole(ctx, &name, &cache)?;
    let page = Page {
        name,
        cache,
        from: Some(cursor),
        left: count,
        sieve: Sieve::new(filter),
        ids: Vec::new(),
        refused: None,
        told: None,
    };
    run_pieces(args, page);
    Ok(())
}

/// Refuses to list where some may not be here, or not be known yet.
fn check_whole(ctx: Ctx<'_>, name: &[u8], cache: &SharedCache) -> Result<()> {
    Presence::of(ctx, name).need_all()?;
    need_index(cache)
}

/// An entry of a page.
struct Listed {
    id: Vec<u8>,
    /// A document whose id cannot name a key is named by the digest, and tells its id itself.
    tells: bool,
    verdict: Verdict,
}

/// Ids that are written as one part of the reply.
const IDS_AT_ONCE: usize = 256;

/// A page: as many entries as were asked for, fewer where judging them takes long.
struct Page {
    /// The container's key.
    name: Vec<u8>,
    cache: SharedCache,
    /// Where it goes on; none at the end of the listing.
    from: Option<u32>,
    /// Entries that are still to be visited.
    left: usize,
    sieve: Sieve,
    /// Those that pass the filter.
    ids: Vec<Vec<u8>>,
    refused: Option<Error>,
    /// How many of them are written.
    told: Option<usize>,
}

impl Pieces for Page {
    type Leave<'a> = Ctx<'a>;

    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        if self.left == 0 || self.sieve.is_spent() {
            return false;
        }
        let Some(from) = self.from else { return false };
        if let Err(error) = self.visit(ctx, from) {
            self.refused = Some(error);
            return false;
        }
        true
    }

    fn has_long_reply(&self) -> bool {
        self.ids.len() > IDS_AT_ONCE
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        let reply = Reply::new(ctx);
        let told = match self.told {
            Some(told) => told,
            None => {
                // An entry that left meanwhile was not listed.
                let whole = check_whole(ctx, &self.name, &self.cache);
                if let Some(error) = self.refused.take().or(whole.err()) {
                    reply.error(&error.to_string());
                    return false;
                }
                let next = self.next_cursor().to_string();
                reply.array(2).text(&next).array(self.ids.len());
                0
            }
        };
        let end = self.ids.len().min(told + IDS_AT_ONCE);
        self.ids[told..end].iter().for_each(|id| {
            reply.bytes(id);
        });
        self.told = Some(end);
        end < self.ids.len()
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}

impl Page {
    /// Visits the next place of the listing.
    fn visit(&mut self, ctx: Ctx<'_>, from: u32) -> Result<()> {
        let Self { cache, sieve, .. } = self;
        let now = UnixMs(ctx.now_ms());
        let next = cache.with(|cache| next_listed(cache, from, sieve, now));
        let Some((place, listed)) = next else {
            self.from = None;
            return Ok(());
        };
        self.left = self.left.saturating_sub(listed.len());
        for Listed { id, tells, verdict } in listed {
            let passes = match verdict {
                Verdict::NeedsEntry => passes_opened(ctx, cache, &id, sieve)?,
                verdict => decided(verdict)?,
            };
            if passes && tells {
                self.ids.extend(document_id(ctx, cache, &id));
            } else if passes {
                self.ids.push(id);
            }
        }
        self.from = place.checked_add(1);
        Ok(())
    }

    /// Where the next page begins; 0 where this was the last.
    fn next_cursor(&self) -> u32 {
        let Some(from) = self.from else { return 0 };
        let place = |cache: &mut Cache| Some(cache.index.listed_from(from).next()?.0);
        self.cache.with(place).unwrap_or(0)
    }
}

/// The next place of the listing and who stands there: one entry, now and then two, which are told together, since
/// a page ends between two places.
fn next_listed(cache: &Cache, from: u32, sieve: &Sieve, now: UnixMs) -> Option<(u32, Vec<Listed>)> {
    let first = cache.index.listed_from(from).next()?.0;
    let same = cache.index.listed_from(first).take_while(|&(place, ..)| place == first);
    let listed = same.map(|(_, id, slot)| {
        let tells = !slot.is_named() && cache.settings.kind == Kind::Documents;
        let gone = slot.seq() < cache.epochs().min_seq_of(slot.partition.scope())
            || cache.index.is_gone_by_tag(id, &slot);
        let mut steps = Steps { rows: 1, ..Steps::NONE };
        let verdict = if slot.is_visible(now) && !gone {
            let judge = |filter: &Filter| filter.judge_record(slot.record, &mut steps);
            sieve.filter().map_or(Verdict::Yes, judge)
        } else {
            Verdict::No
        };
        sieve.count(steps);
        count(steps);
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
