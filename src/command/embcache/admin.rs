//! `EMBCACHE.CREATE`, `EMBCACHE.DEL`, `EMBCACHE.INFO`.

use super::{Named, Subjects, open};
use crate::command::container::entry::EntryName;
use crate::command::container::settings::{write_info, write_setting};
use crate::command::container::{create, entry, need_container};
use crate::command::parse::ArgReader;
use crate::ffi::{CommandArgs, Ctx, Reply};
use llmcache_core::cache::{Cache, FetchOutcome, Kind, kept_bytes};
use llmcache_core::error::Result;
use llmcache_core::vector::Quant;

/// Runs `EMBCACHE.CREATE`.
pub fn run_create(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    create::create(ctx, args, Kind::Embeddings)
}

/// Runs `EMBCACHE.DEL`.
pub fn run_del(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut subjects = Subjects::default();
    while let Some(word) = reader.option() {
        if !subjects.read(args, &word, &mut reader)? {
            return Err(word.unknown());
        }
    }
    let named = subjects.model;
    let subjects = subjects.take()?;
    let cache = open(ctx, args, named)?;
    let model = cache.map_or(Box::default(), |c| c.with(|cache| cache.settings.model.clone()));
    let name = move |subject: Named| EntryName::from(&subject.digest(&model).entry_id().hex()[..]);
    entry::remove_named(ctx, args, Kind::Embeddings, subjects.into_iter().map(name))
}

/// What INFO shows of a container, of its use and of its settings.
const HEAD: [&str; 6] = ["name", "uid", "prefix", "entries", "bytes", "index_bytes"];
const USE: [&str; 11] = [
    "lookups",
    "hits",
    "misses",
    "hit_ratio",
    "bytes_saved",
    "bytes_served",
    "stores",
    "evicted",
    "lead",
    "busy",
    "coalesced",
];
const FLIGHTS: [&str; 2] = ["leases", "waiters"];
const SETTINGS: [&str; 6] = ["model", "dim", "quant", "ttl", "maxentries", "maxmemory"];

/// Runs `EMBCACHE.INFO`.
pub fn run_info(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    ArgReader::new(args.options()).finish()?;
    let shared = need_container(ctx, args, Kind::Embeddings)?;
    let reply = Reply::new(ctx).map(HEAD.len() + USE.len() + FLIGHTS.len() + SETTINGS.len());
    shared.with(|cache| {
        let shown = HEAD.iter().chain(&FLIGHTS);
        shown.for_each(|field| write_info(reply, args.name(), cache, field));
        USE.iter().for_each(|field| write_use(reply, cache, field));
        SETTINGS.iter().for_each(|setting| write_setting(reply, &cache.settings, setting));
    });
    Ok(())
}

fn write_use(reply: Reply<'_>, cache: &Cache, field: &str) {
    let (stats, settings) = (&cache.stats, &cache.settings);
    let total = &stats.total;
    let dim = settings.dim.unwrap_or(0) as usize;
    let raw_bytes = Quant::None.encoded_len(dim) as u64;
    let kept_bytes = kept_bytes(settings.quant, dim) as u64;
    let fetched = |outcome: FetchOutcome| total.fetches[outcome as usize];
    reply.text(field);
    match field {
        "lookups" => reply.count(total.lookups),
        "hits" => reply.count(total.hits_exact),
        "misses" => reply.count(total.misses_total()),
        "hit_ratio" => match total.lookups {
            0 => reply.null(),
            lookups => reply.double(total.hits_exact as f64 / lookups as f64),
        },
        "bytes_saved" => {
            reply.count(cache.index.totals().entries * raw_bytes.saturating_sub(kept_bytes))
        }
        "bytes_served" => reply.count(total.hits_exact * raw_bytes),
        "stores" => reply.count(stats.stores),
        "evicted" => reply.count(stats.evicted),
        "lead" => reply.count(fetched(FetchOutcome::Lead)),
        "busy" => reply.count(fetched(FetchOutcome::Busy)),
        _ => reply.count(fetched(FetchOutcome::Coalesced)),
    };
}
