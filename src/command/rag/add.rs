//! `RAG.ADD` and `RAG.MADD`: documents, new or in the place of those of the same id.

use super::{check_id, digest, document_id, entry_name, key_name};
use crate::command::container::create::auto_create_as;
use crate::command::container::store::{
    Storing, check_dim, check_fits, deadline, dim_mismatch, linking,
};
use crate::command::container::texts::{model_for, model_for_new, no_vector, settings_for_new};
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, flag_once, is_expiry_word, is_vector_word, meta,
    set_once, tags, vector,
};
use crate::ffi::{Access, CommandArgs, Ctx};
use crate::keyspace::{
    Again, Embedded, NewEntry, Presence, StoreReply, Texts, embed, open_container, open_entry,
    reply_when_linked,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Entry, EntryFields, Kind};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{PartitionKey, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// A document that is to be stored.
struct Document<'a> {
    id: &'a [u8],
    /// Absent where the text is to be embedded, or nothing is.
    query: Option<Query>,
    /// Kept without a vector: found by its id and by filters, never by meaning.
    no_vector: bool,
    text: &'a [u8],
    rest: Rest<'a>,
}

/// What a document may have besides.
#[derive(Debug, Default)]
struct Rest<'a> {
    meta: Option<&'a [u8]>,
    tags: Option<&'a [&'a [u8]]>,
    tokens: Option<u64>,
    expiry: Option<Expiry>,
    /// Whether the beginning of a text is embedded where the model cannot read all.
    truncates: bool,
}

/// Runs `RAG.ADD`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let mut documents = [Document::read(&mut reader, now)?];
    reader.finish()?;
    if !embed_all(ctx, args, &mut documents, Again::Writes(run))? {
        return Ok(());
    }
    let (cache, new) = store(ctx, args, &documents, now)?;
    reply_when_linked(ctx, &cache, PartitionKey::default(), StoreReply::New(new[0]));
    Ok(())
}

/// Runs `RAG.MADD`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let most = limits::STORE_BATCH_MAX as u64;
    let count = reader.integer("the count of documents", 1, most)?;
    let mut documents = Vec::new();
    for _ in 0..count {
        documents.push(Document::read(&mut reader, now)?);
    }
    reader.finish()?;
    if !embed_all(ctx, args, &mut documents, Again::Writes(run_many))? {
        return Ok(());
    }
    let (cache, new) = store(ctx, args, &documents, now)?;
    reply_when_linked(ctx, &cache, PartitionKey::default(), StoreReply::EachNew(new.into()));
    Ok(())
}

/// Has the texts without a vector embedded, all as one piece of work; false where the command is to end and is run
/// again. A text that has no vector refuses them all.
fn embed_all(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    documents: &mut [Document<'_>],
    again: Again,
) -> Result<bool> {
    let wants = |document: &&mut Document<'_>| document.query.is_none() && !document.no_vector;
    if !documents.iter_mut().any(|document| wants(&document)) {
        return Ok(true);
    }
    let model = match open_container(ctx, &args.key(), Kind::Documents)? {
        Some(cache) => model_for(&cache),
        None => model_for_new(),
    };
    let model = model.ok_or_else(|| no_vector(None))?;
    let without = documents.iter_mut().filter(wants);
    let without: Vec<&mut Document<'_>> = without.collect();
    let cut: Vec<bool> = without.iter().map(|document| document.rest.truncates).collect();
    let texts: Vec<&[u8]> = without.iter().map(|document| document.text).collect();
    let texts = Texts { model: &model, role: Role::Document, texts: &texts, cut: &cut };
    let Embedded::Now(vectors) = embed(ctx, &texts, again)? else { return Ok(false) };
    for (document, vector) in without.into_iter().zip(vectors) {
        let meant = vector.map_err(|refusal| no_vector(Some(refusal)))?;
        document.query = Some(meant.query);
    }
    Ok(true)
}

/// Checks all, then stores all. Answers the index, and of each whether it is new.
fn store(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    documents: &[Document<'_>],
    now: UnixMs,
) -> Result<(SharedCache, Vec<bool>)> {
    let name = args.name();
    let cache = open_container(ctx, &args.key(), Kind::Documents)?;
    let mut dims = documents.iter().filter_map(|document| document.query.as_ref()).map(Query::dim);
    let dim = dims.next();
    if let Some((other, dim)) = dims.find(|&other| Some(other) != dim).zip(dim) {
        return Err(dim_mismatch(other, dim, name));
    }
    let cache = match cache {
        Some(cache) => cache,
        None => auto_create_as(args.permit(), name, settings_for_new(Kind::Documents, dim))?,
    };
    if let Some(dim) = dim {
        check_dim(&cache, dim, name)?;
    }
    let mut ready = Vec::with_capacity(documents.len());
    for (place, document) in documents.iter().enumerate() {
        let expire_at = deadline(&cache, document.rest.expiry, now, 0);
        let key = cache.with(|cache| cache.named_key(&key_name(document.id)));
        let entry = document.pack(&cache, place as u64, now);
        let new = NewEntry { key, entry, expire_at, linking: linking(ctx) };
        check_fits(&cache, &new)?;
        ready.push(new);
    }
    let presence = Presence::of(ctx, name);
    let there =
        |new: &NewEntry| Ok(presence.found(open_entry(ctx, &new.key, Access::Probe))?.is_some());
    if !presence.is_whole() {
        ready.iter().try_for_each(|new| there(new).map(drop))?;
    }
    let mut news = Vec::with_capacity(documents.len());
    for (new, document) in ready.into_iter().zip(documents) {
        let replaces = there(&new)?;
        news.push(!replaces);
        Storing { ctx: args.permit(), cache: &cache, name: &args.key(), now }.keep(
            new,
            digest(document.id),
            replaces,
            None,
        );
    }
    Ok((cache, news))
}

impl<'a> Document<'a> {
    /// Reads an id and what belongs to it, up to the first word that does not.
    fn read(args: &mut ArgReader<'a>, now: UnixMs) -> Result<Self> {
        let id = document_id(args)?;
        let (mut query, mut text, mut rest) = (None, None, Rest::default());
        let mut no_vector = false;
        loop {
            let mut ahead = args.clone();
            let Some(word) = ahead.option() else { break };
            if is_vector_word(&word) {
                set_once(&mut query, vector(&word, &mut ahead)?, "the vector")?;
            } else if word.as_str() == "NOVECTOR" {
                flag_once(&mut no_vector, "NOVECTOR")?;
            } else if word.as_str() == "TEXT" {
                let body = ahead.text("TEXT", limits::RESPONSE_MAX_BYTES)?;
                set_once(&mut text, body, "TEXT")?;
            } else if !rest.read(&word, &mut ahead, now)? {
                break;
            }
            *args = ahead;
        }
        let missing = || Error::err("syntax error: an id and TEXT are needed");
        let text = text.ok_or_else(missing)?;
        if no_vector && query.is_some() {
            return Err(Error::err("syntax error: a vector and NOVECTOR are given"));
        }
        Ok(Self { id: check_id(id)?, query, no_vector, text, rest })
    }

    /// Packs it as the one in this place of those that are stored together.
    fn pack(&self, cache: &SharedCache, place: u64, now: UnixMs) -> Box<Entry> {
        let (uid, seq, quant) =
            cache.with(|cache| (cache.uid(), cache.seq_after(place), cache.settings.quant));
        let mut vector = Vec::new();
        if let Some(query) = &self.query {
            quant.encode(query.normalised(), &mut vector);
        }
        Entry::new(&EntryFields {
            uid,
            seq,
            created: now,
            quant,
            dim: self.query.as_ref().map_or(0, Query::dim) as u16,
            vector: &vector,
            prompt: self.id,
            response: self.text,
            name: entry_name(self.id),
            tags: self.rest.tags.unwrap_or_default(),
            meta: self.rest.meta.unwrap_or_default(),
            tokens: self.rest.tokens.unwrap_or(0) as u32,
            ..EntryFields::default()
        })
    }
}

impl<'a> Rest<'a> {
    /// Reads the option that `word` opened; false when it is none of these.
    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>, now: UnixMs) -> Result<bool> {
        let name = word.as_str();
        match name {
            "META" => set_once(&mut self.meta, meta(args)?, name)?,
            "TAGS" => set_once(&mut self.tags, tags(args)?, name)?,
            "TRUNCATE" => flag_once(&mut self.truncates, name)?,
            "TOKENS" => {
                let tokens = args.integer(name, 1, limits::TOKENS_MAX)?;
                set_once(&mut self.tokens, tokens, name)?;
            }
            _ if is_expiry_word(word) => {
                set_once(&mut self.expiry, expiry(word, args, now)?, "the expiry")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
