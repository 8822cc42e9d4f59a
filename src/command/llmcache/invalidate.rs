//! `LLMCACHE.INVALIDATE`: removes answers, or marks them stale, by id, tag, scope, filter, age or similarity.

use super::{channel, need_cache};
use crate::command::container::picking::Target;
use crate::command::container::store::check_dim;
use crate::command::container::texts::{Meaning, meaning, model_for, no_vector};
use crate::command::parse::{
    ArgReader, OptionWord, flag_once, is_vector_word, parse_filter, set_once, vector,
};
use crate::ffi::{Access, CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{
    Again, Criterion, Meant, Presence, Take, check_walks, mark_stale, need_index, open_cache,
    open_entry, remove_entry, tell_ids, void_lease,
};
use crate::keytype::EPOCH_COMMAND;
use crate::keytype::cache_registry::{self, SharedCache};
use llmcache_core::cache::{EntryKey, Extent, Severity};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::filter::Filter;
use llmcache_core::ids::{EntryId, ScopeKey, Seq, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;
use std::ffi::c_int;

/// Which answers.
enum Which<'a> {
    Ids(&'a [&'a [u8]]),
    Extent(Extent<'a>),
    Near(Query, f64),
    /// The same of a text that is embedded.
    NearText(&'a [u8], f64),
    Filter(Filter),
    Older(u64),
}

struct InvalidateRequest<'a> {
    which: Which<'a>,
    soft: bool,
    dry_run: bool,
    limit: u64,
}

/// Runs `LLMCACHE.INVALIDATE`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut request = InvalidateRequest::parse(ArgReader::new(args.options()))?;
    let Some(cache) = open_cache(ctx, &args.key())? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    if !embed(ctx, args, &cache, &mut request)? {
        return Ok(());
    }
    if let Which::Near(query, _) = &request.which {
        check_dim(&cache, query.dim(), args.name())?;
    }
    let (channel, severity) = (channel_of(ctx.db(), args.name()), request.severity());
    let target = Target { ctx: args.permit(), cache, name: args.name(), channel, severity };
    match request.which {
        Which::Ids(ids) => {
            let count = target.ids(ids, request.limit)?;
            Reply::new(ctx).count(count);
        }
        Which::Extent(extent) => {
            let count = target.extent(extent)?;
            Reply::new(ctx).count(count);
        }
        Which::Near(query, least) => {
            target.pick(Criterion::Near(Box::new(query), least), request.limit)?;
        }
        // Its vector is in its place.
        Which::NearText(..) => return Err(no_vector(None)),
        Which::Filter(filter) => target.pick(Criterion::Filter(filter), request.limit)?,
        Which::Older(age_ms) => {
            let before = UnixMs(ctx.now_ms().saturating_sub(age_ms));
            target.pick(Criterion::Before(before), request.limit)?;
        }
    }
    Ok(())
}

/// Has the text of a NEAR embedded; false where the command is to end. When the vector is there the walk begins between
/// commands: within its second run the command could not leave it to slices.
fn embed(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    cache: &SharedCache,
    request: &mut InvalidateRequest<'_>,
) -> Result<bool> {
    let Which::NearText(text, least) = request.which else { return Ok(true) };
    let model = model_for(cache).ok_or_else(|| no_vector(None))?;
    let uid = cache.with(|cache| cache.uid());
    let (db, name, limit) = (ctx.db(), args.name().to_vec(), request.limit);
    let (model_again, text_again, severity) = (model.clone(), text.to_vec(), request.severity());
    let take: Take = Box::new(move |ctx, client| {
        let Some(permit) = WritePermit::between_commands(ctx) else { return false };
        let again = Again::Writes(run);
        let meaning = meaning(ctx, Some(&model_again), &text_again, Role::Query, again);
        let Some(cache) = cache_registry::CACHES.find(uid, db).filter(|_| ctx.select_db(db)) else {
            return false;
        };
        let Ok(Meaning::Vector(Meant { query, .. })) = meaning else { return false };
        let may = Presence::of(ctx, &name).need_all().and_then(|()| need_index(&cache));
        if may.is_err() || check_walks().is_err() {
            return false;
        }
        let channel = channel_of(db, &name);
        let target = Target { ctx: permit, cache, name: &name, channel, severity };
        target.begin(Criterion::Near(Box::new(query), least), limit, client)
    });
    match meaning(ctx, Some(&model), text, Role::Query, Again::Takes(run, take))? {
        Meaning::Later => return Ok(false),
        Meaning::Vector(Meant { query, .. }) => request.which = Which::Near(query, least),
        Meaning::None(refusal) => return Err(no_vector(refusal)),
    }
    Ok(true)
}

/// The channel that tells of a cache. Caches of one name in two databases have two.
fn channel_of(db: c_int, name: &[u8]) -> Option<Vec<u8>> {
    Some(channel("invalidate", db, name))
}

impl Target<'_> {
    fn ids(&self, ids: &[&[u8]], limit: u64) -> Result<u64> {
        let presence = Presence::of(*self.ctx, self.name);
        if !presence.is_whole() {
            let keys = self.cache.with(|cache| ids.iter().map(|id| cache.named_key(id)).collect());
            let keys: Vec<EntryKey> = keys;
            for key in keys {
                presence.found(open_entry(*self.ctx, &key, Access::Probe))?;
            }
        }
        self.signal();
        let mut told = Vec::new();
        for id in ids {
            if told.len() as u64 >= limit {
                break;
            }
            let digest = EntryId::from_hex(id);
            let there = self.entry_of(id);
            let digest = there.as_ref().map(|(_, digest)| *digest).or(digest);
            if let (Some(digest), Some(_)) = (digest, self.severity) {
                void_lease(*self.ctx, &self.cache, digest);
            }
            let Some((key, _)) = there else { continue };
            match self.severity {
                None => {}
                Some(Severity::Gone) => {
                    remove_entry(self.ctx, &key);
                }
                Some(Severity::Stale) => mark_stale(self.ctx, &key),
            }
            told.push(String::from_utf8_lossy(id).into_owned());
        }
        if let (Some(severity), Some(channel)) = (self.severity, &self.channel) {
            for ids in told.chunks(limits::INVALIDATED_IDS_MAX) {
                tell_ids(*self.ctx, channel, ids, severity == Severity::Stale);
            }
        }
        Ok(told.len() as u64)
    }

    /// The key of an id whose entry would be served, and its digest.
    fn entry_of(&self, id: &[u8]) -> Option<(EntryKey, EntryId)> {
        let (key, uid) = self.cache.with(|cache| (cache.named_key(id), cache.uid()));
        let entry = open_entry(*self.ctx, &key, Access::Probe)?;
        let view = entry.view();
        let standing = self.cache.with(|cache| cache.epochs().standing(&view));
        let already = self.severity == Some(Severity::Stale) && view.is_marked_stale();
        let counts = view.uid() == uid && standing != Some(Severity::Gone) && !already;
        counts.then(|| (key, view.id()))
    }

    fn extent(&self, extent: Extent<'_>) -> Result<u64> {
        let count = self.cache.with(|cache| match extent {
            Extent::Tag(tag) => cache.index.tag_count(tag),
            Extent::Scope(scope) => cache.index.scope_count(ScopeKey::of(scope)),
            Extent::All => cache.index.totals().entries,
        });
        let Some(severity) = self.severity else { return Ok(count) };
        let bound = self.cache.with(|cache| {
            let bound = cache.invalidate(extent, severity);
            cache_registry::note_work(cache);
            bound
        })?;
        self.signal();
        replicate_epoch(self.ctx, self.name, extent, severity, bound);
        let (kind, name) = words(extent);
        let message = serde_json::json!({
            "kind": kind.to_ascii_lowercase(),
            "name": String::from_utf8_lossy(name),
            "epoch": bound.0,
            "soft": severity == Severity::Stale,
        });
        if let Some(channel) = &self.channel {
            self.ctx.publish(channel, message.to_string().as_bytes());
        }
        Ok(count)
    }
}

fn words<'a>(extent: Extent<'a>) -> (&'static str, &'a [u8]) {
    match extent {
        Extent::Tag(name) => ("TAG", name),
        Extent::Scope(name) => ("SCOPE", name),
        Extent::All => ("ALL", b""),
    }
}

fn replicate_epoch(
    ctx: WritePermit<'_>,
    key: &[u8],
    extent: Extent<'_>,
    severity: Severity,
    bound: Seq,
) {
    let (kind, name) = words(extent);
    let severity: &[u8] = match severity {
        Severity::Gone => b"HARD",
        Severity::Stale => b"SOFT",
    };
    let bound = bound.0.to_string();
    ctx.replicate(EPOCH_COMMAND, &[key, kind.as_bytes(), name, bound.as_bytes(), severity]);
}

/// Runs the internal `LLMCACHE._EPOCH`: as the primary invalidated.
pub fn run_epoch(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let missing = || Error::err("bad epoch");
    let kind = reader.option().ok_or_else(missing)?;
    let extent = match kind.as_str() {
        "TAG" => Extent::Tag(reader.text("TAG", limits::TAG_MAX_BYTES)?),
        "SCOPE" => Extent::Scope(reader.text("SCOPE", limits::SCOPE_MAX_BYTES)?),
        "ALL" => {
            reader.text("ALL", 0)?;
            Extent::All
        }
        _ => return Err(kind.unknown()),
    };
    let bound = Seq(reader.integer("the epoch", 1, limits::SEQ_MAX)?);
    let word = reader.option().ok_or_else(missing)?;
    let severity = match word.as_str() {
        "HARD" => Severity::Gone,
        "SOFT" => Severity::Stale,
        _ => return Err(word.unknown()),
    };
    reader.finish()?;
    need_cache(ctx, args)?.with(|cache| {
        let obeyed = cache.obey_epoch(extent, severity, bound);
        cache_registry::note_work(cache);
        obeyed
    })?;
    replicate_epoch(args.permit(), args.name(), extent, severity, bound);
    ctx.signal_modified(&args.key());
    Reply::new(ctx).ok();
    Ok(())
}

impl<'a> InvalidateRequest<'a> {
    /// `None` where nothing is to change.
    fn severity(&self) -> Option<Severity> {
        let severity = if self.soft { Severity::Stale } else { Severity::Gone };
        (!self.dry_run).then_some(severity)
    }

    fn parse(mut args: ArgReader<'a>) -> Result<Self> {
        let (mut which, mut soft, mut dry_run, mut limit) = (None, false, false, None);
        while let Some(word) = args.option() {
            match word.as_str() {
                "SOFT" => flag_once(&mut soft, "SOFT")?,
                "DRYRUN" => flag_once(&mut dry_run, "DRYRUN")?,
                "LIMIT" => {
                    let most = limits::INVALIDATE_MAX;
                    set_once(&mut limit, args.integer("LIMIT", 1, most)?, "LIMIT")?;
                }
                _ => {
                    let one = Which::parse(&word, &mut args)?;
                    set_once(&mut which, one, "what is to be invalidated")?;
                }
            }
        }
        let which = which.ok_or_else(|| {
            Error::err("syntax error: IDS, TAG, SCOPE, NEAR, FILTER, OLDER or ALL is needed")
        })?;
        if limit.is_some() && matches!(which, Which::Extent(_)) {
            return Err(Error::err("syntax error: LIMIT goes with IDS, NEAR, FILTER and OLDER"));
        }
        Ok(Self { which, soft, dry_run, limit: limit.unwrap_or(limits::INVALIDATE_MAX) })
    }
}

impl<'a> Which<'a> {
    fn parse(word: &OptionWord, args: &mut ArgReader<'a>) -> Result<Self> {
        let name = word.as_str();
        Ok(match name {
            "IDS" => {
                let ids = args.list(name, limits::INVALIDATE_IDS_MAX)?;
                if let Some(id) = ids.iter().find(|id| id.len() > limits::ID_MAX_BYTES) {
                    return Err(Error::too_big("an id", id.len(), limits::ID_MAX_BYTES, "bytes"));
                }
                Self::Ids(ids)
            }
            "TAG" => match args.text(name, limits::TAG_MAX_BYTES)? {
                b"" => return Err(Error::err("a tag must not be empty")),
                tag => Self::Extent(Extent::Tag(tag)),
            },
            "SCOPE" => Self::Extent(Extent::Scope(args.text(name, limits::SCOPE_MAX_BYTES)?)),
            "ALL" => Self::Extent(Extent::All),
            "FILTER" => Self::Filter(parse_filter(args)?),
            "OLDER" => Self::Older(args.integer(name, 0, limits::TTL_MAX_MS / 1_000)? * 1_000),
            "NEAR" => {
                let missing =
                    || Error::err("syntax error: NEAR needs a vector or PROMPT, then SIMILARITY");
                let word = args.option().ok_or_else(missing)?;
                let (query, text) = match word.as_str() {
                    "PROMPT" => (None, args.text("PROMPT", limits::PROMPT_MAX_BYTES)?),
                    _ if is_vector_word(&word) => (Some(vector(&word, args)?), &b""[..]),
                    _ => return Err(missing()),
                };
                let word = args.option().filter(|word| word.as_str() == "SIMILARITY");
                word.ok_or_else(missing)?;
                let least = args.similarity("SIMILARITY")?;
                query.map_or(Self::NearText(text, least), |query| Self::Near(query, least))
            }
            _ => return Err(word.unknown()),
        })
    }
}
