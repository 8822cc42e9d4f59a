//! `RAG.CREATE`, `RAG.SCAN`, `RAG.INFO`, `RAG.DROP`.

use crate::command::container::settings::{write_info, write_setting};
use crate::command::container::{create, drop, need_container, scan};
use crate::command::parse::ArgReader;
use crate::ffi::{CommandArgs, Ctx, Reply};
use llmcache_core::cache::Kind;
use llmcache_core::error::Result;

/// Runs `RAG.CREATE`.
pub fn run_create(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    create::create(ctx, args, Kind::Documents)
}

/// Runs `RAG.SCAN`.
pub fn run_scan(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    scan::scan(ctx, args, Kind::Documents)
}

/// Runs `RAG.DROP`.
pub fn run_drop(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    drop::drop_container(ctx, args, Kind::Documents)
}

/// What INFO shows of an index and of its settings.
const INFO: [&str; 20] = [
    "name",
    "uid",
    "prefix",
    "entries",
    "vectors",
    "hidden",
    "filling",
    "bytes",
    "index_bytes",
    "entry_bytes",
    "mode",
    "linked",
    "tail",
    "tombstones",
    "levels",
    "link_bytes",
    "terms",
    "word_bytes",
    "unread_texts",
    "kernels",
];
const SETTINGS: [&str; 12] = [
    "dim",
    "matryoshka",
    "model",
    "quant",
    "index",
    "m",
    "efc",
    "ef",
    "ttl",
    "maxentries",
    "maxmemory",
    "words",
];
/// What was done since the process started.
const USE: [&str; 4] = ["lookups", "hits", "stores", "evicted"];

/// Runs `RAG.INFO`.
pub fn run_info(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    ArgReader::new(args.options()).finish()?;
    let shared = need_container(ctx, args, Kind::Documents)?;
    let reply = Reply::new(ctx).map(INFO.len() + USE.len() + SETTINGS.len());
    shared.with(|cache| {
        INFO.iter().for_each(|field| write_info(reply, args.name(), cache, field));
        let (stats, total) = (&cache.stats, &cache.stats.total);
        let hits = total.hits_exact + total.hits_semantic;
        let counts = [total.lookups, hits, stats.stores, stats.evicted];
        for (field, count) in USE.iter().zip(counts) {
            reply.text(field).count(count);
        }
        SETTINGS.iter().for_each(|setting| write_setting(reply, &cache.settings, setting));
    });
    Ok(())
}
