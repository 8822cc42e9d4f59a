//! `LLMCACHE.CONFIG` and `LLMCACHE.INFO`: settings and contents of a cache.

use super::audit::{new_secret, tell_epoch};
use super::need_cache;
use crate::command::container::create::{
    audit, cold, confidence, ef, efc, grace_s, guard_level, index_mode, max_error, min_similarity,
    near_misses, number_rule,
};
use crate::command::container::settings::{write_info, write_setting};
use crate::command::container::streams::check_permission;
use crate::command::parse::ArgReader;
use crate::ffi::{Access, CommandArgs, Ctx, Key, RString, Reply};
use crate::keyspace::{Presence, enforce_limits};
use crate::keytype::{CONFIG_COMMAND, cache_registry};
use llmcache_core::cache::{Outlet, Settings};
use llmcache_core::cluster::key_slot;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::SlotId;
use llmcache_core::limits;

/// Runs `LLMCACHE.CONFIG`.
pub fn run_config(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let word = reader.option().ok_or_else(|| Error::err("syntax error: GET or SET is needed"))?;
    match word.as_str() {
        "GET" => {
            let wanted = reader.option();
            reader.finish()?;
            let settings = need_cache(ctx, args)?.with(|cache| cache.settings.clone());
            let known = |setting: &str| SETTINGS.contains(&setting);
            if let Some(word) = &wanted
                && !known(&word.as_str().to_ascii_lowercase())
            {
                return Err(word.unknown());
            }
            let shown = |setting: &str| {
                wanted.as_ref().is_none_or(|word| word.as_str().eq_ignore_ascii_case(setting))
            };
            let names: Vec<&str> = SETTINGS.iter().copied().filter(|name| shown(name)).collect();
            let reply = Reply::new(ctx).map(names.len());
            names.iter().for_each(|setting| write_setting(reply, &settings, setting));
        }
        "SET" => {
            set(ctx, args, reader)?;
            Reply::new(ctx).ok();
        }
        _ => return Err(word.unknown()),
    }
    Ok(())
}

/// `CONFIG SET`, and `_CONFIG`: reads setting and value, changes the cache, tells the replicas.
fn set(ctx: Ctx<'_>, args: &CommandArgs<'_>, mut reader: ArgReader<'_>) -> Result<()> {
    let word = reader
        .option()
        .ok_or_else(|| Error::err("syntax error: the name of a setting and a value are needed"))?;
    let value = reader.clone().next("the setting")?;
    let shared = need_cache(ctx, args)?;
    let changed = change(shared.with(|cache| cache.settings.clone()), word.as_str(), reader)?;
    if matches!(word.as_str(), "LOADER" | "SINK") && !ctx.state().must_obey() && !value.is_empty() {
        check_stream(ctx, args.name(), value)?;
    }
    let name = args.name();
    let setting = word.as_str().to_ascii_lowercase();
    let secret = new_secret(ctx);
    let is_new_epoch = shared.with(|cache| {
        let is_new_epoch = cache.change_settings(changed, secret);
        cache_registry::note_work(cache);
        is_new_epoch
    });
    ctx.signal_modified(&args.key());
    args.permit().replicate(CONFIG_COMMAND, &[name, setting.as_bytes(), value]);
    if is_new_epoch && !ctx.state().must_obey() {
        tell_epoch(args.permit(), &shared, name);
    }
    if !ctx.state().must_obey() {
        enforce_limits(args.permit(), &shared, SlotId::NONE);
    }
    Ok(())
}

/// Refuses a stream that the caller may not use, or that is not where the cache is.
fn check_stream(ctx: Ctx<'_>, name: &[u8], stream: &[u8]) -> Result<()> {
    if ctx.state().is_cluster() && key_slot(name) != key_slot(stream) {
        let message = "the stream must be in the hash slot of the cache";
        return Err(Error::new(ErrorWord::CrossSlot, message));
    }
    let stream = RString::new(stream);
    check_permission(ctx, &stream)?;
    let found = Presence::of(ctx, name).found(Key::open(ctx, &stream, Access::Probe))?;
    let fits = found.is_none_or(|key| key.is_stream());
    let wrong = || Error::new(ErrorWord::WrongType, "the key holds something else than a stream");
    if fits { Ok(()) } else { Err(wrong()) }
}

/// Runs the internal `LLMCACHE._CONFIG`: as `CONFIG SET`, obeyed without a reply of its own kind.
pub fn run_internal_config(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let reader = ArgReader::new(args.options());
    set(ctx, args, reader)?;
    Reply::new(ctx).ok();
    Ok(())
}

/// Settings that CONFIG shows; all but `dim`, `matryoshka`, `model`, `quant` and `m` can be changed.
const SETTINGS: [&str; 25] = [
    "dim",
    "matryoshka",
    "model",
    "quant",
    "index",
    "m",
    "efc",
    "ef",
    "guard",
    "numbers",
    "exchange",
    "maxerror",
    "confidence",
    "audit",
    "cold",
    "minsim",
    "nearmisses",
    "threshold",
    "ttl",
    "jitter",
    "grace",
    "loader",
    "sink",
    "maxentries",
    "maxmemory",
];

fn change(mut settings: Settings, name: &str, mut args: ArgReader<'_>) -> Result<Settings> {
    match name {
        "THRESHOLD" => settings.threshold = args.similarity(name)?,
        "TTL" => settings.ttl_ms = args.integer(name, 0, limits::TTL_MAX_MS / 1_000)? * 1_000,
        "JITTER" => settings.jitter_pct = args.integer(name, 0, limits::JITTER_MAX_PCT)? as u8,
        "MAXENTRIES" => {
            settings.max_entries = args.integer(name, 0, limits::MAXENTRIES_MAX)?;
        }
        "MAXMEMORY" => settings.max_memory_bytes = args.memory(name)?,
        "INDEX" => settings.graph.mode = index_mode(&mut args)?,
        "EFC" => settings.graph.efc = efc(&mut args)?,
        "EF" => settings.graph.ef = ef(&mut args)?,
        "GUARD" => settings.guard = guard_level(&mut args)?,
        "NUMBERS" => settings.numbers = number_rule(&mut args)?,
        "EXCHANGE" => settings.exchange = args.on_or_off(name)?,
        "MAXERROR" => settings.max_error.max_error_ppm = max_error(&mut args)?,
        "CONFIDENCE" => settings.max_error.confidence_ppm = confidence(&mut args)?,
        "AUDIT" => settings.max_error.audit_ppm = audit(&mut args)?,
        "COLD" => settings.max_error.cold = cold(&mut args)?,
        "MINSIM" => settings.max_error.min_similarity = Some(min_similarity(&mut args)?),
        "NEARMISSES" => settings.near_misses = near_misses(&mut args)?,
        "GRACE" => settings.grace_s = grace_s(&mut args)?,
        "LOADER" | "SINK" => {
            let outlet = if name == "SINK" { Outlet::Sink } else { Outlet::Loader };
            settings.set_stream(outlet, args.text(name, limits::STREAM_NAME_MAX_BYTES)?);
        }
        "DIM" | "MATRYOSHKA" | "MODEL" | "QUANT" | "M" => {
            return Err(Error::err(format!("{name} is fixed when the cache is made")));
        }
        _ => return Err(Error::err("syntax error: no setting of that name")),
    }
    args.finish()?;
    settings.check()?;
    Ok(settings)
}

/// Runs `LLMCACHE.INFO`.
pub fn run_info(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let name = args.name();
    let reader = ArgReader::new(args.options());
    reader.finish()?;
    let shared = need_cache(ctx, args)?;
    let reply = Reply::new(ctx).map(INFO.len() + SETTINGS.len());
    shared.with(|cache| {
        INFO.iter().for_each(|field| write_info(reply, name, cache, field));
        SETTINGS.iter().for_each(|setting| write_setting(reply, &cache.settings, setting));
    });
    Ok(())
}

/// What INFO shows of a cache beside its settings.
const INFO: [&str; 25] = [
    "name",
    "uid",
    "prefix",
    "entries",
    "vectors",
    "partitions",
    "hidden",
    "filling",
    "bytes",
    "index_bytes",
    "entry_bytes",
    "mode",
    "graphs",
    "linked",
    "tail",
    "tombstones",
    "levels",
    "link_bytes",
    "invalidations",
    "invalidating",
    "leases",
    "waiters",
    "failures_remembered",
    "open_breakers",
    "kernels",
];
