//! `LLMCACHE.ENTRY`, `LLMCACHE.DEL`, `LLMCACHE.EXPIRE`: single entries by their id.

use super::hit_reply::{Served, ttl_ms, write_vector};
use crate::command::parse::{ArgReader, Expiry, expiry, flag_once, is_expiry_word, set_once};
use crate::ffi::{Access, CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{
    OpenedEntry, Pieces, Presence, Removals, open_cache, open_container, open_entry, remove_entry,
    run_pieces, set_entry_expiry, void_lease,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryKey, Kind, Severity, format_usd};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;
use smallvec::SmallVec;

/// Opens the entry of an id, if it belongs to the cache; an error where it may be on another server.
pub fn open_by_id<'a>(
    ctx: Ctx<'a>,
    cache: &SharedCache,
    presence: &Presence<'_>,
    id: &[u8],
) -> Result<Option<(EntryKey, OpenedEntry<'a>)>> {
    let key = cache.with(|cache| cache.named_key(id));
    let entry = presence.found(open_entry(ctx, &key, Access::Probe))?;
    Ok(entry.filter(|entry| belongs(cache, entry)).map(|entry| (key, entry)))
}

/// Opens the entry of an id that is here.
fn open_here<'a>(
    ctx: Ctx<'a>,
    cache: &SharedCache,
    id: &[u8],
) -> Option<(EntryKey, OpenedEntry<'a>)> {
    let key = cache.with(|cache| cache.named_key(id));
    let entry = open_entry(ctx, &key, Access::Probe)?;
    belongs(cache, &entry).then_some((key, entry))
}

fn belongs(cache: &SharedCache, entry: &OpenedEntry<'_>) -> bool {
    cache.with(|cache| {
        let standing = cache.epochs().standing(&entry.view());
        entry.view().uid() == cache.uid() && standing != Some(Severity::Gone)
    })
}

/// Runs `LLMCACHE.ENTRY`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = reader.text("the id", limits::ID_MAX_BYTES)?;
    let (mut with_vector, mut cut) = (false, None);
    while let Some(word) = reader.option() {
        match word.as_str() {
            "VECTOR" => flag_once(&mut with_vector, "VECTOR")?,
            "CUT" => {
                let most = limits::RESPONSE_MAX_BYTES as u64;
                set_once(&mut cut, reader.integer("CUT", 0, most)? as usize, "CUT")?;
            }
            _ => return Err(word.unknown()),
        }
    }
    let reply = Reply::new(ctx);
    let presence = Presence::of(ctx, args.name());
    let opened = match open_cache(ctx, &args.key())? {
        Some(cache) => open_by_id(ctx, &cache, &presence, id)?.map(|opened| (cache, opened)),
        None => None,
    };
    let found = opened.map(|(cache, (key, entry))| {
        let view = entry.view();
        let (expire_at, now) = (|| UnixMs(entry.expire_at_ms()), || UnixMs(ctx.now_ms()));
        let served = cache.with(|cache| Served {
            hits: cache.index.slot_of(view.slot(), view.seq()).map_or(0, |slot| slot.hits),
            stale: cache.staleness(&view, expire_at, now).unwrap_or(true),
            verified: None,
        });
        (key, entry, served)
    });
    match found {
        Some((key, entry, served)) => {
            reply.map(23 + usize::from(with_vector) + if cut.is_some() { 4 } else { 0 });
            write_entry(reply, &key, &entry, served, ctx.now_ms(), cut);
            if with_vector {
                reply.text("vector");
                write_vector(reply, &entry.view());
            }
            if cut.is_some() {
                write_lengths(reply, &entry);
            }
        }
        None => {
            reply.null();
        }
    }
    Ok(())
}

/// How long the texts are that CUT may have cut.
fn write_lengths(reply: Reply<'_>, entry: &OpenedEntry<'_>) {
    let view = entry.view();
    reply.text("prompt_bytes").count(view.prompt().len() as u64);
    reply.text("response_bytes").count(view.response_len() as u64);
    reply.text("context_bytes").count(view.context().len() as u64);
    reply.text("meta_bytes").count(view.meta().map_or(0, <[u8]>::len) as u64);
}

fn write_entry(
    reply: Reply<'_>,
    key: &[u8],
    entry: &OpenedEntry<'_>,
    served: Served,
    now_ms: u64,
    cut: Option<usize>,
) {
    let view = entry.view();
    let shown = |text: &'_ [u8]| text.len().min(cut.unwrap_or(usize::MAX));
    let fresh_until = view.fresh_until(UnixMs(entry.expire_at_ms()));
    reply.text("id");
    match view.name() {
        Some(name) => reply.bytes(name),
        None => reply.bytes(&view.id().hex()),
    };
    reply.text("key").bytes(key);
    reply.text("digest").bytes(&view.id().hex());
    reply.text("prompt").bytes(&view.prompt()[..shown(view.prompt())]);
    let response = view.response();
    reply.text("response").bytes(&response[..shown(&response)]);
    reply.text("scope").bytes(view.scope());
    reply.text("context").bytes(&view.context()[..shown(view.context())]);
    reply.text("tags").array(view.tag_count());
    view.tags().for_each(|tag| {
        reply.bytes(tag);
    });
    reply.text("meta");
    match view.meta() {
        Some(meta) => reply.bytes(&meta[..shown(meta)]),
        None => reply.null(),
    };
    reply.text("tokens").count(u64::from(view.tokens()));
    reply.text("cost").text(&format_usd(u128::from(view.cost_nano_usd())));
    reply.text("latency").count(u64::from(view.latency_ms()));
    reply.text("created").count(view.created().0);
    reply.text("age").count(now_ms.saturating_sub(view.created().0));
    reply.text("ttl").int(ttl_ms(fresh_until, UnixMs(now_ms)));
    reply.text("grace").count(u64::from(view.grace_s()) * 1_000);
    reply.text("deadline").count(entry.expire_at_ms());
    reply.text("stale").int(i64::from(served.stale));
    reply.text("hits").count(u64::from(served.hits));
    reply.text("dim").count(u64::from(view.dim()));
    reply.text("quant").text(view.quant().as_str());
    reply.text("vector_bytes").count(view.vector_bytes().len() as u64);
    reply.text("bytes").count(view.len() as u64);
}

/// Runs `LLMCACHE.DEL`.
pub fn run_del(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let mut ids = vec![reader.text("the id", limits::ID_MAX_BYTES)?];
    while let Some(id) = reader.maybe_next() {
        ids.push(id);
    }
    remove(ctx, args, Kind::Answers, ids)
}

/// Removes the entries of these names from a container of this kind, and returns how many there were.
pub fn remove<N: AsRef<[u8]>>(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    kind: Kind,
    ids: impl IntoIterator<Item = N>,
) -> Result<()> {
    let named: Vec<EntryName> = ids.into_iter().map(|id| id.as_ref().into()).collect();
    remove_named(ctx, args, kind, named.into_iter())
}

/// The same of names that take long to make: each is made when its turn comes.
pub fn remove_named(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    kind: Kind,
    named: impl ExactSizeIterator<Item = EntryName> + Send + 'static,
) -> Result<()> {
    let Some(cache) = open_container(ctx, &args.key(), kind)? else {
        Reply::new(ctx).int(0);
        return Ok(());
    };
    let mut named: Names = Box::new(named);
    let presence = Presence::of(ctx, args.name());
    if !presence.is_whole() {
        // All are looked for before the first goes: a refused command changes nothing.
        let all: Vec<EntryName> = named.collect();
        let look = |id: &EntryName| open_by_id(ctx, &cache, &presence, id).map(drop);
        all.iter().try_for_each(look)?;
        named = Box::new(all.into_iter());
    }
    let name = args.name().to_vec();
    run_pieces(args, Removing { cache, name, named, removals: Removals::default() });
    Ok(())
}

/// What names an entry in its container.
pub type EntryName = SmallVec<[u8; 32]>;

type Names = Box<dyn ExactSizeIterator<Item = EntryName> + Send>;

/// Entries on their way out.
struct Removing {
    cache: SharedCache,
    /// The container's key.
    name: Vec<u8>,
    /// What is still to go.
    named: Names,
    removals: Removals,
}

impl Pieces for Removing {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        let Some(id) = self.named.next() else { return false };
        let opened = open_here(*ctx, &self.cache, &id);
        let found = opened.map(|(key, entry)| (key, entry.view().id()));
        if let Some((key, digest)) = found {
            self.removals.note(remove_entry(ctx, &key));
            void_lease(*ctx, &self.cache, digest);
        }
        true
    }

    fn tell(&mut self, ctx: WritePermit<'_>) {
        self.removals.tell(ctx, &self.name);
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        Reply::new(ctx).count(self.removals.count());
    }

    fn known(&self) -> usize {
        self.named.len()
    }
}

/// Runs `LLMCACHE.EXPIRE`.
pub fn run_expire(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let id = reader.text("the id", limits::ID_MAX_BYTES)?;
    let now = UnixMs(ctx.now_ms());
    let word = reader.option().ok_or_else(|| Error::err("syntax error: an expiry is needed"))?;
    if !is_expiry_word(&word) {
        return Err(word.unknown());
    }
    let at = match expiry(&word, &mut reader, now)? {
        Expiry::Persist => UnixMs::NEVER,
        Expiry::At(at) => at,
    };
    reader.finish()?;
    let mut changed = false;
    let presence = Presence::of(ctx, args.name());
    if let Some(cache) = open_cache(ctx, &args.key())?
        && let Some((key, entry)) = open_by_id(ctx, &cache, &presence, id)?
    {
        let grace_ms = u64::from(entry.view().grace_s()) * 1_000;
        drop(entry);
        changed = if at.is_past(now) {
            remove_entry(args.permit(), &key)
        } else {
            let deadline = if at == UnixMs::NEVER { at } else { UnixMs(at.0 + grace_ms) };
            set_entry_expiry(args.permit(), &cache, &key, deadline)
        };
    }
    if changed {
        ctx.signal_modified(&args.key());
    }
    Reply::new(ctx).int(i64::from(changed));
    Ok(())
}
