//! `LLMCACHE.SETSEM` and `LLMCACHE.SET`: store an answer, with or without a vector.

use super::create::auto_create;
use super::lease::{lease_lost, lease_token};
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, flag_once, is_expiry_word, is_vector_word, set_once,
    vector,
};
use crate::ffi::{Access, CommandArgs, Ctx, Reply};
use crate::keyspace::{
    Linking, NewEntry, enforce_limits, open_cache, open_entry, put_entry, remove_entry,
    reply_when_linked, wake, with_known_flights,
};
use crate::keytype::registry::SharedCache;
use llmcache_core::cache::{Cache, Entry, EntryFields, LeaseToken, Severity, parse_usd};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{EntryId, PartitionKey, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// What is to be stored.
#[derive(Debug, Default)]
struct StoreRequest<'a> {
    prompt: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    query: Option<Query>,
    id: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    context: Option<&'a [u8]>,
    tags: Option<&'a [&'a [u8]]>,
    meta: Option<&'a [u8]>,
    expiry: Option<Expiry>,
    tokens: Option<u64>,
    cost_nano_usd: Option<u64>,
    latency_ms: Option<u64>,
    lease: Option<LeaseToken>,
    nx: bool,
}

/// Runs `LLMCACHE.SETSEM`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    store(ctx, args, true)
}

/// Runs `LLMCACHE.SET`: the exact tier alone.
pub fn run_exact(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    store(ctx, args, false)
}

fn store(ctx: Ctx<'_>, args: &CommandArgs<'_>, with_vector: bool) -> Result<()> {
    let name = args.name();
    let reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let request = StoreRequest::parse(reader, with_vector, now)?;
    let cache = open_cache(ctx, &args.key())?;
    if let (Some(cache), Some(query)) = (&cache, &request.query) {
        check_dim(cache, query, name)?;
    }
    let cache = match cache {
        Some(cache) => cache,
        None if request.lease.is_some() => return Err(lease_lost("the cache is gone")),
        None => auto_create(ctx, name)?,
    };
    let digest = EntryId::of(request.scope(), request.context(), request.prompt());
    let hex = digest.hex();
    let id = request.id.unwrap_or(&hex);
    let (new_key, old_key) = cache.with(|cache| (cache.named_key(id), cache.entry_key(&digest)));
    if let Some(token) = request.lease {
        check_lease(ctx, &cache, &request, token, digest)?;
    }
    // The digest may have been stored under another name: one question has one answer.
    let moved = old_key != new_key;
    let replaces = open_entry(ctx, &new_key, Access::Probe).is_some();
    let removes = moved && open_entry(ctx, &old_key, Access::Probe).is_some();
    let answered = |key: &[u8]| {
        open_entry(ctx, key, Access::Probe).is_some_and(|entry| {
            let view = entry.view();
            cache.with(|cache| cache.epochs().standing(&view)) != Some(Severity::Gone)
        })
    };
    if request.nx && (answered(&new_key) || (moved && answered(&old_key))) {
        Reply::new(ctx).null();
        return Ok(());
    }
    let expire_at = request.deadline(&cache, now, ctx.random());
    let entry = cache.with(|cache| request.pack(cache, now));
    let obeys = ctx.state().must_obey();
    let may_wait = ctx.state().may_block() && !obeys;
    let linking = if may_wait { Linking::Later } else { Linking::AlongTheWay };
    let new = NewEntry { key: new_key, entry, expire_at, linking };
    check_fits(&cache, &new)?;
    write_behind(ctx, &cache, &request, name, id)?;
    if removes {
        remove_entry(ctx, &old_key);
    }
    cache.with(|cache| {
        cache.stats.stores += 1;
        cache.stats.replaced += u64::from(replaces || removes);
    });
    if expire_at.is_past(now) {
        // As with SET … PXAT in the past: what was there is gone, what came is gone already.
        remove_entry(ctx, &new.key);
    } else {
        let slot = put_entry(ctx, Some(&cache), new);
        if !obeys {
            enforce_limits(ctx, &cache, slot);
        }
    }
    ctx.signal_modified(&args.key());
    let uid = cache.with(|cache| cache.uid());
    wake(ctx, with_known_flights(uid, |flights| flights.stored(digest, request.lease)));
    let partition = PartitionKey::of(request.scope(), request.context());
    reply_when_linked(ctx, &cache, partition, id);
    Ok(())
}

/// Refuses an answer whose lease is none any more; whoever waits longest is to make another.
fn check_lease(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    request: &StoreRequest<'_>,
    token: LeaseToken,
    question: EntryId,
) -> Result<()> {
    let uid = cache.with(|cache| cache.uid());
    let since = with_known_flights(uid, |flights| flights.granted_at(token, question));
    let tags = request.tags.unwrap_or_default();
    let changed = |since| {
        let tags = tags.iter().copied();
        cache.with(|cache| cache.epochs().changed_since(since, request.scope(), tags))
    };
    if since.is_some_and(|since| !changed(since)) {
        return Ok(());
    }
    wake(ctx, with_known_flights(uid, |flights| flights.lose(token)));
    Err(lease_lost("the lease ended, is another question's, or what it is for was invalidated"))
}

/// Appends the answer to the sink, in one step with storing it. Done first: a sink that cannot take it
/// refuses the store.
fn write_behind(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    request: &StoreRequest<'_>,
    name: &[u8],
    id: &[u8],
) -> Result<()> {
    let sink = cache.with(|cache| cache.settings.sink.to_vec());
    if sink.is_empty() {
        return Ok(());
    }
    let seq = cache.with(|cache| cache.next_seq()).0.to_string();
    let fields: [(&str, &[u8]); 8] = [
        ("cache", name),
        ("id", id),
        ("seq", seq.as_bytes()),
        ("prompt", request.prompt()),
        ("response", request.response.unwrap_or_default()),
        ("scope", request.scope()),
        ("context", request.context()),
        ("meta", request.meta.unwrap_or_default()),
    ];
    if ctx.append_to_stream(&sink, &fields) {
        Ok(())
    } else {
        Err(Error::err("the sink cannot be appended to: nothing was stored"))
    }
}

/// Refuses a vector of another dimension than the container's.
pub fn check_dim(cache: &SharedCache, query: &Query, name: &[u8]) -> Result<()> {
    let have = cache.with(|cache| cache.settings.dim);
    match have {
        Some(have) if have as usize != query.dim() => {
            let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
            let message = format!("vector has {} dimensions, \"{name}\" holds {have}", query.dim());
            Err(Error::new(ErrorWord::DimMismatch, message))
        }
        _ => Ok(()),
    }
}

/// Refuses an entry for which the whole cache would have to go, and more.
fn check_fits(cache: &SharedCache, new: &NewEntry) -> Result<()> {
    let most = cache.with(|cache| cache.settings.max_memory_bytes);
    let bytes = new.memory_bytes();
    if most > 0 && bytes as u64 > most {
        return Err(Error::too_big("the entry", bytes, most as usize, "bytes (MAXMEMORY)"));
    }
    Ok(())
}

impl<'a> StoreRequest<'a> {
    fn parse(mut args: ArgReader<'a>, with_vector: bool, now: UnixMs) -> Result<Self> {
        let mut request = Self::default();
        while let Some(word) = args.option() {
            if with_vector && is_vector_word(&word) {
                set_once(&mut request.query, vector(&word, &mut args)?, "the vector")?;
            } else if is_expiry_word(&word) {
                let at = expiry(&word, &mut args, now)?;
                set_once(&mut request.expiry, at, "the expiry")?;
            } else {
                request.read(&word, &mut args)?;
            }
        }
        if request.prompt.is_none() || request.response.is_none() {
            return Err(Error::err("syntax error: PROMPT and RESPONSE are needed"));
        }
        Ok(request)
    }

    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<()> {
        let name = word.as_str();
        match name {
            "PROMPT" => {
                set_once(&mut self.prompt, args.text(name, limits::PROMPT_MAX_BYTES)?, name)
            }
            "RESPONSE" => {
                set_once(&mut self.response, args.text(name, limits::RESPONSE_MAX_BYTES)?, name)
            }
            "ID" => set_once(&mut self.id, parse_id(args)?, name),
            "SCOPE" => set_once(&mut self.scope, args.text(name, limits::SCOPE_MAX_BYTES)?, name),
            "CONTEXT" => {
                set_once(&mut self.context, args.text(name, limits::CONTEXT_MAX_BYTES)?, name)
            }
            "TAGS" => set_once(&mut self.tags, parse_tags(args)?, name),
            "META" => set_once(&mut self.meta, parse_meta(args)?, name),
            "TOKENS" => {
                set_once(&mut self.tokens, args.integer(name, 0, limits::TOKENS_MAX)?, name)
            }
            "COST" => {
                let cost = parse_usd(args.next(name)?).ok_or_else(|| {
                    Error::err("COST must be a decimal of US dollars with at most nine decimals")
                })?;
                set_once(&mut self.cost_nano_usd, cost, name)
            }
            "LATENCY" => {
                let latency = args.integer(name, 0, limits::LATENCY_MAX_MS)?;
                set_once(&mut self.latency_ms, latency, name)
            }
            "LEASE" => set_once(&mut self.lease, lease_token(args)?, name),
            "NX" => flag_once(&mut self.nx, name),
            _ => Err(word.unknown()),
        }
    }

    fn prompt(&self) -> &'a [u8] {
        self.prompt.unwrap_or_default()
    }

    fn scope(&self) -> &'a [u8] {
        self.scope.unwrap_or_default()
    }

    fn context(&self) -> &'a [u8] {
        self.context.unwrap_or_default()
    }

    fn deadline(&self, cache: &SharedCache, now: UnixMs, random: u64) -> UnixMs {
        match self.expiry {
            None => cache.with(|cache| {
                let settings = &cache.settings;
                settings.deadline(settings.fresh_until(now, random))
            }),
            Some(Expiry::Persist) => UnixMs::NEVER,
            // What is due already is not kept for its grace.
            Some(Expiry::At(at)) if at.is_past(now) => at,
            Some(Expiry::At(at)) => cache.with(|cache| cache.settings.deadline(at)),
        }
    }

    fn pack(&self, cache: &Cache, now: UnixMs) -> Entry {
        let quant = cache.settings.quant;
        let mut vector = Vec::new();
        if let Some(query) = &self.query {
            quant.encode(query.normalised(), &mut vector);
        }
        Entry::new(&EntryFields {
            uid: cache.uid(),
            seq: cache.next_seq(),
            created: now,
            quant,
            dim: self.query.as_ref().map_or(0, |query| query.dim() as u16),
            vector: &vector,
            scope: self.scope(),
            context: self.context(),
            prompt: self.prompt(),
            response: self.response.unwrap_or_default(),
            name: self.id.unwrap_or_default(),
            tags: self.tags.unwrap_or_default(),
            meta: self.meta.unwrap_or_default(),
            tokens: self.tokens.unwrap_or(0) as u32,
            cost_nano_usd: self.cost_nano_usd.unwrap_or(0),
            latency_ms: self.latency_ms.unwrap_or(0) as u32,
            grace_s: cache.settings.grace_s,
        })
    }
}

fn parse_id<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    let id = args.text("ID", limits::ID_MAX_BYTES)?;
    if id.is_empty() || id.iter().any(u8::is_ascii_control) {
        return Err(Error::err("ID must have 1 to 128 bytes and no control characters"));
    }
    if EntryId::from_hex(id).is_some() {
        // It would stand where the digest of another question belongs.
        return Err(Error::err("ID must not look like a digest (32 lower-case hex digits)"));
    }
    Ok(id)
}

fn parse_tags<'a>(args: &mut ArgReader<'a>) -> Result<&'a [&'a [u8]]> {
    let tags = args.list("TAGS", limits::TAGS_MAX)?;
    if tags.iter().any(|tag| tag.is_empty()) {
        return Err(Error::err("a tag must not be empty"));
    }
    match tags.iter().find(|tag| tag.len() > limits::TAG_MAX_BYTES) {
        Some(tag) => Err(Error::too_big("a tag", tag.len(), limits::TAG_MAX_BYTES, "bytes")),
        None => Ok(tags),
    }
}

fn parse_meta<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    let meta = args.text("META", limits::META_MAX_BYTES)?;
    match serde_json::from_slice::<serde_json::Value>(meta) {
        Ok(value) if value.is_object() => Ok(meta),
        Ok(_) => Err(Error::err("META must be a JSON object")),
        // The parser's own message may quote the document; its place does not.
        Err(error) => Err(Error::err(format!(
            "META is not valid JSON at line {} column {}",
            error.line(),
            error.column()
        ))),
    }
}
