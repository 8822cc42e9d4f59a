//! `LLMCACHE.SETSEM` and `LLMCACHE.SET`: store an answer, with or without a vector.

use super::audit::Verdict;
use super::getsem::unless_alone_without_context;
use crate::command::container::create::auto_create;
use crate::command::container::lease::lease_token;
use crate::command::container::no_container;
use crate::command::container::store::{
    Storing, check_fits, check_lease, check_vector, deadline, lease_lost, linking,
};
use crate::command::container::streams::stream_of;
use crate::command::container::texts::{Meaning, meaning, model_for, model_for_new};
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, flag_once, is_expiry_word, is_vector_word, meta,
    set_once, tags, vector,
};
use crate::ffi::{Access, CommandArgs, Ctx, Key, RString, Reply, ServerString, WritePermit};
use crate::keyspace::{
    Again, Linking, NewEntry, Presence, StoreReply, open_cache, open_entry, remove_entry,
    reply_when_linked,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::guard::stands_alone;
use llmcache_core::cache::{
    Cache, Entry, EntryFields, EntryKey, Kind, LeaseToken, Outlet, Severity, parse_usd,
};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EntryId, PartitionKey, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// What is to be stored.
#[derive(Debug, Default)]
pub struct StoreRequest<'a> {
    prompt: Option<&'a [u8]>,
    response: Option<&'a [u8]>,
    query: Option<Query>,
    id: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    context: Option<&'a [u8]>,
    unless_alone: bool,
    tags: Option<&'a [&'a [u8]]>,
    meta: Option<&'a [u8]>,
    expiry: Option<Expiry>,
    tokens: Option<u64>,
    cost_nano_usd: Option<u64>,
    latency_ms: Option<u64>,
    lease: Option<LeaseToken>,
    verdict: Option<Verdict<'a>>,
    moved: Option<Moved>,
    nx: bool,
}

/// What an answer that is brought over from another cache was there.
#[derive(Debug, Clone, Copy)]
struct Moved {
    age_ms: u64,
    hits: u32,
    grace_s: u32,
    is_stale: bool,
}

impl Moved {
    /// Reads what follows MOVED.
    fn read(args: &mut ArgReader<'_>) -> Result<Self> {
        let age_ms = args.integer("the age of MOVED", 0, limits::AGE_MAX_MS)?;
        let hits = args.integer("the hits of MOVED", 0, u64::from(u32::MAX))? as u32;
        let most = u64::from(limits::GRACE_MAX_S) * 1_000;
        let grace_ms = args.integer("the grace of MOVED", 0, most)?;
        let is_stale = match args.option().as_ref().map(|word| word.as_str()) {
            Some("FRESH") => false,
            Some("STALE") => true,
            _ => return Err(Error::err("syntax error: FRESH or STALE is needed")),
        };
        Ok(Self { age_ms, hits, grace_s: grace_ms.div_ceil(1_000) as u32, is_stale })
    }
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
    let now = UnixMs(ctx.now_ms());
    let mut request = StoreRequest::parse(ArgReader::new(args.options()), with_vector, now)?;
    if with_vector && request.query.is_none() {
        let model = match open_cache(ctx, &args.key())? {
            Some(cache) => model_for(&cache),
            None if request.lease.is_some() => None,
            None => model_for_new(),
        };
        match meaning(ctx, model.as_ref(), request.prompt(), Role::Query, Again::Writes(run))? {
            Meaning::Vector(meant) => request.query = Some(meant.query),
            Meaning::Later => return Ok(()),
            // Found again by its own words alone.
            Meaning::None(_) => {}
        }
    }
    match store_answer(args.permit(), &args.key(), &request, now, linking(ctx))? {
        Some(Stored { id, cache, partition }) => {
            reply_when_linked(ctx, &cache, partition, StoreReply::Id(id.into()));
        }
        None => {
            Reply::new(ctx).null();
        }
    }
    Ok(())
}

/// An answer in its cache.
#[derive(Debug)]
pub struct Stored {
    id: Vec<u8>,
    cache: SharedCache,
    partition: PartitionKey,
}

/// Stores an answer in the cache of a key: the same for every command that does. `None` where `NX` found
/// one. An error leaves everything as it was. With `Linking::Later` the caller waits for the link.
pub fn store_answer(
    ctx: WritePermit<'_>,
    key: &impl ServerString,
    request: &StoreRequest<'_>,
    now: UnixMs,
    linking: Linking,
) -> Result<Option<Stored>> {
    let name = key.as_bytes();
    let cache = cache_to_store_in(ctx, key, request)?;
    let digest = request.digest();
    let hex = digest.hex();
    let id = request.id.unwrap_or(&hex);
    let presence = Presence::of(*ctx, name);
    let former = Former::look(*ctx, &cache, &presence, (id, digest))?;
    if request.id.is_some() && former.answers_at_new() {
        check_scope(*ctx, &former.new_key, request.scope())?;
    }
    if let Some(token) = request.lease {
        let tags = request.tags.unwrap_or_default();
        check_lease(*ctx, &cache, (request.scope(), tags), token, digest)?;
    }
    let report = request.verdict.map(|verdict| Ok((verdict, verdict.judge(*ctx, &cache)?)));
    let report = report.transpose()?;
    if request.nx && former.answers() {
        if let Some((verdict, report)) = report {
            verdict.count(ctx, &cache, name, report);
        }
        return Ok(None);
    }
    let expire_at = match (request.moved, request.expiry) {
        // Its grace is in it.
        (Some(_), Some(Expiry::At(at))) => at,
        (_, expiry) => deadline(&cache, expiry, now, ctx.random()),
    };
    let entry = cache.with(|cache| request.pack(cache, now));
    let hits = request.moved.map_or(0, |moved| moved.hits);
    let Former { new_key, old_key, at_new, at_old } = former;
    let (text, words) = (None, None);
    let new = NewEntry { key: new_key, entry, text, words, expire_at, linking, hits };
    check_fits(&cache, &new)?;
    if request.moved.is_none() {
        write_behind(ctx, &cache, &presence, request, name, id)?;
    }
    if let Some((verdict, report)) = report {
        verdict.count(ctx, &cache, name, report);
    }
    if at_old.is_some() {
        remove_entry(ctx, &old_key);
    }
    let replaces = at_new.is_some() || at_old.is_some();
    Storing { ctx, cache: &cache, name: key, now }.keep(new, digest, replaces, request.lease);
    let partition = PartitionKey::of(request.scope(), request.context());
    Ok(Some(Stored { id: id.to_vec(), cache, partition }))
}

/// The cache of a key, created with default settings where there is none.
fn cache_to_store_in(
    ctx: WritePermit<'_>,
    key: &impl ServerString,
    request: &StoreRequest<'_>,
) -> Result<SharedCache> {
    let name = key.as_bytes();
    match open_cache(*ctx, key)? {
        Some(cache) => {
            if let Some(query) = &request.query {
                check_vector(&cache, query, name)?;
            }
            Ok(cache)
        }
        None if request.lease.is_some() => Err(lease_lost("the cache is gone")),
        None if request.verdict.is_some() => Err(no_container(name, Kind::Answers)),
        None => auto_create(ctx, name, request.query.as_ref().map(Query::dim)),
    }
}

/// The entries that a store replaces: the one of its id, and the one of its question, which may have another id. One
/// question has one answer.
struct Former {
    new_key: EntryKey,
    old_key: EntryKey,
    /// How the entry of the id stands, if there is one; likewise the other, where that is not the same.
    at_new: Option<Option<Severity>>,
    at_old: Option<Option<Severity>>,
}

impl Former {
    fn look(
        ctx: Ctx<'_>,
        cache: &SharedCache,
        presence: &Presence,
        (id, digest): (&[u8], EntryId),
    ) -> Result<Self> {
        let (new_key, old_key) =
            cache.with(|cache| (cache.named_key(id), cache.entry_key(&digest)));
        let standing = |key: &[u8]| {
            let entry = presence.found(open_entry(ctx, key, Access::Probe))?;
            Ok(entry.map(|entry| cache.with(|cache| cache.epochs().standing(&entry.view()))))
        };
        let at_new = standing(&new_key)?;
        let at_old = if old_key == new_key { None } else { standing(&old_key)? };
        Ok(Self { new_key, old_key, at_new, at_old })
    }

    fn answers_at_new(&self) -> bool {
        self.at_new.is_some_and(|standing| standing != Some(Severity::Gone))
    }

    /// Whether one of them is not invalidated.
    fn answers(&self) -> bool {
        let at_old = self.at_old.is_some_and(|standing| standing != Some(Severity::Gone));
        at_old || self.answers_at_new()
    }
}

/// Refuses an ID that names an entry of another scope: one tenant does not replace what is another's.
fn check_scope(ctx: Ctx<'_>, key: &[u8], scope: &[u8]) -> Result<()> {
    match open_entry(ctx, key, Access::Probe) {
        Some(entry) if entry.view().scope() != scope => {
            Err(Error::err("ID names an entry of another scope: nothing was stored"))
        }
        _ => Ok(()),
    }
}

/// Appends the answer to the sink, in one step with storing it. Done first: a sink that cannot take it
/// refuses the store.
fn write_behind(
    ctx: WritePermit<'_>,
    cache: &SharedCache,
    presence: &Presence<'_>,
    request: &StoreRequest<'_>,
    name: &[u8],
    id: &[u8],
) -> Result<()> {
    let Some(sink) = stream_of(*ctx, cache, Outlet::Sink)? else { return Ok(()) };
    // One that is on its way would be made a second time here.
    presence.found(Key::open(*ctx, &RString::new(&sink), Access::Probe))?;
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

impl<'a> StoreRequest<'a> {
    /// Reads an option of `SESSION.END … CACHE`, where the response and its tokens are those of the message.
    /// Returns whether the word is such an option.
    pub fn read_of_message(
        &mut self,
        word: &OptionWord,
        args: &mut ArgReader<'a>,
        now: UnixMs,
    ) -> Result<bool> {
        match word.as_str() {
            "PROMPT" | "SCOPE" | "CONTEXT" | "UNLESS-ALONE" | "TAGS" | "COST" | "LATENCY"
            | "LEASE" => self.read(word, args)?,
            _ if is_vector_word(word) => {
                set_once(&mut self.query, vector(word, args)?, "the vector")?;
            }
            _ if is_expiry_word(word) => {
                set_once(&mut self.expiry, expiry(word, args, now)?, "the expiry")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Applies `UNLESS-ALONE`, once all options are read.
    pub fn settle_context(&mut self) -> Result<()> {
        if self.unless_alone {
            let context = self.context.ok_or_else(unless_alone_without_context)?;
            self.context = Some(context).filter(|_| !stands_alone(self.prompt()));
        }
        Ok(())
    }

    /// The same with its response.
    pub fn responding<'b>(self, response: &'b [u8], tokens: Option<u64>) -> StoreRequest<'b>
    where
        'a: 'b,
    {
        StoreRequest { response: Some(response), tokens, ..self }
    }

    /// Whether there is a prompt.
    pub fn has_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// The digest that the exact tier finds it by.
    pub fn digest(&self) -> EntryId {
        EntryId::of(self.scope(), self.context(), self.prompt())
    }

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
        if request.moved.is_some() && (request.lease.is_some() || request.verdict.is_some()) {
            return Err(Error::err("syntax error: MOVED goes without LEASE and TICKET"));
        }
        request.settle_context()?;
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
            "TAGS" => set_once(&mut self.tags, tags(args)?, name),
            "META" => set_once(&mut self.meta, meta(args)?, name),
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
            "TICKET" => set_once(&mut self.verdict, Verdict::read(args)?, name),
            "MOVED" => set_once(&mut self.moved, Moved::read(args)?, name),
            "UNLESS-ALONE" => flag_once(&mut self.unless_alone, name),
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

    fn pack(&self, cache: &Cache, now: UnixMs) -> Box<Entry> {
        let quant = cache.settings.quant;
        let mut vector = Vec::new();
        if let Some(query) = &self.query {
            quant.encode(query.normalised(), &mut vector);
        }
        let moved = self.moved;
        let mut entry = Entry::new(&EntryFields {
            uid: cache.uid(),
            seq: cache.next_seq(),
            created: UnixMs(now.0.saturating_sub(moved.map_or(0, |moved| moved.age_ms))),
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
            grace_s: moved.map_or(cache.settings.grace_s, |moved| moved.grace_s),
            is_embedding: false,
        });
        if moved.is_some_and(|moved| moved.is_stale) {
            entry.set_stale();
        }
        entry
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
