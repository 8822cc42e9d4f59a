//! `RAG.ADD` and `RAG.MADD`: store documents; one of the same id is replaced.

use super::{check_id, digest, document_id, entry_name, key_name};
use crate::command::container::batch::{Batch, Item, Packed, Vector, store_batch};
use crate::command::container::store::{check_first, deadline_by, linking};
use crate::command::container::texts::{model_for, model_for_new, no_vector, settings_for_new};
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, check_meta, expiry, flag_once, given_vector, is_expiry_word,
    is_vector_word, set_once, tags, unchecked_meta,
};
use crate::ffi::{Arguments, CommandArgs, Ctx, HeldString, ServerString};
use crate::keyspace::{
    Again, Embedded, ModelId, StoreReply, Texts, embed, open_container, reply_when_linked,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Entry, EntryFields, Kind, Settings};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{PartitionKey, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// A document that is to be stored.
struct Document<'a> {
    id: &'a [u8],
    /// Absent where the text is to be embedded, or nothing is.
    vector: Option<Vector>,
    /// Kept without a vector: found by its id and by filters, never by meaning.
    no_vector: bool,
    text: Held<'a>,
    rest: Rest<'a>,
}

/// An argument, and a handle of it that outlives the command's call.
#[derive(Debug)]
struct Held<'a> {
    bytes: &'a [u8],
    held: HeldString,
}

impl<'a> Held<'a> {
    /// The argument that was read last.
    fn of(given: &Arguments<'_>, args: &ArgReader<'_>, bytes: &'a [u8]) -> Self {
        Self { bytes, held: given.held(args.position()) }
    }
}

/// What a document may have besides.
#[derive(Debug, Default)]
struct Rest<'a> {
    meta: Option<Held<'a>>,
    tags: Option<&'a [&'a [u8]]>,
    tokens: Option<u64>,
    expiry: Option<Expiry>,
    /// Whether the beginning of a text is embedded where the model cannot read all.
    truncates: bool,
    /// Age in milliseconds and hits, of one that is brought over from another index.
    moved: Option<(u64, u32)>,
}

/// Runs `RAG.ADD`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let mut document = Document::read(args, &mut reader, now)?;
    // In a batch the word would be the next document's id.
    document.rest.read_moved(&mut reader)?;
    let mut documents = vec![document];
    reader.finish()?;
    let model = model_of(ctx, args, &documents)?;
    if !embed_one(ctx, &mut documents[0], model.as_ref(), Again::Writes(run))? {
        return Ok(());
    }
    store(ctx, args, (documents, None), now, |ctx, cache, news| {
        reply_when_linked(ctx, cache, PartitionKey::default(), StoreReply::New(news[0]));
    })
}

/// Runs `RAG.MADD`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let most = limits::STORE_BATCH_MAX as u64;
    let count = reader.integer("the count of documents", 1, most)?;
    let mut documents = Vec::new();
    for _ in 0..count {
        documents.push(Document::read(args, &mut reader, now)?);
    }
    reader.finish()?;
    let model = model_of(ctx, args, &documents)?;
    store(ctx, args, (documents, model), now, |ctx, cache, news| {
        let reply = StoreReply::EachNew(news.into());
        reply_when_linked(ctx, cache, PartitionKey::default(), reply);
    })
}

/// The model that embeds the texts without a vector, if there are any.
fn model_of(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    documents: &[Document<'_>],
) -> Result<Option<ModelId>> {
    if !documents.iter().any(Document::wants_vector) {
        return Ok(None);
    }
    let cache = open_container(ctx, &args.key(), Kind::Documents)?;
    let model = match &cache {
        Some(cache) => model_for(cache),
        None => model_for_new(),
    };
    // Where words are indexed, a text is found by them.
    let has_words = || cache.is_some_and(|c| c.with(|cache| cache.index.words().is_some()));
    if model.is_none() && !has_words() {
        return Err(no_vector(None));
    }
    Ok(model)
}

/// Has the text of a document embedded; false where the command is to end and is run again.
fn embed_one(
    ctx: Ctx<'_>,
    document: &mut Document<'_>,
    model: Option<&ModelId>,
    again: Again<'_>,
) -> Result<bool> {
    let Some(model) = model else { return Ok(true) };
    let (texts, cut) = ([document.text.bytes], [document.rest.truncates]);
    let texts = Texts { model, role: Role::Document, texts: &texts, cut: &cut };
    let Embedded::Now(vectors) = embed(ctx, &texts, again)? else { return Ok(false) };
    for vector in vectors {
        let meant = vector.map_err(|refusal| no_vector(Some(refusal)))?;
        document.vector = Some(Vector::Query(meant.query));
    }
    Ok(true)
}

/// Checks all, then stores all.
fn store(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    (documents, model): (Vec<Document<'_>>, Option<ModelId>),
    now: UnixMs,
    reply: fn(Ctx<'_>, &SharedCache, &[bool]),
) -> Result<()> {
    let cache = open_container(ctx, &args.key(), Kind::Documents)?;
    let dim = documents.iter().find_map(|document| Some(document.vector.as_ref()?.dim()));
    let settings = match &cache {
        Some(cache) => cache.with(|cache| cache.settings.clone()),
        None => settings_for_new(Kind::Documents, dim),
    };
    let ready = |document: Document<'_>| document.ready(&settings, now);
    let items = documents.into_iter().map(ready).collect();
    let (linking, embeds) = (linking(ctx), model.map(|model| (model, Role::Document)));
    let batch = Batch { cache, settings, items, embeds, lease: None, linking, now, reply };
    store_batch(ctx, args, batch)
}

/// A document that is packed when its turn comes.
struct Ready {
    id: Box<[u8]>,
    vector: Option<Vector>,
    /// Where its text is to be embedded: whether the beginning will do.
    wants: Option<bool>,
    text: HeldString,
    meta: Option<HeldString>,
    tags: Box<[Box<[u8]>]>,
    tokens: u32,
    created: UnixMs,
    expire_at: UnixMs,
    hits: u32,
}

impl Item for Ready {
    fn dim(&self) -> Option<usize> {
        self.vector.as_ref().map(Vector::dim)
    }

    fn text(&self) -> Option<(&[u8], bool)> {
        self.wants.map(|cut| (self.text.as_bytes(), cut))
    }

    fn read_bytes(&self, settings: &Settings) -> usize {
        if settings.words.is_some() { self.text.as_bytes().len() } else { 0 }
    }

    fn embedded(&mut self, vector: Query) {
        self.vector = Some(Vector::Query(vector));
    }

    fn pack(self, settings: &Settings, _: UnixMs) -> Result<Packed> {
        let meta = self.meta.as_ref().map(HeldString::as_bytes);
        meta.map_or(Ok(()), check_meta)?;
        let tags: Vec<&[u8]> = self.tags.iter().map(|tag| &**tag).collect();
        let mut entry = Entry::new(&EntryFields {
            created: self.created,
            quant: settings.quant,
            prompt: &self.id,
            response: self.text.as_bytes(),
            name: entry_name(&self.id),
            tags: &tags,
            meta: meta.unwrap_or_default(),
            tokens: self.tokens,
            ..EntryFields::default()
        });
        if settings.words.is_some() {
            // Beside its words, a text is most of what an index of words takes.
            entry = entry.with_packed_response();
        }
        if let Some(vector) = self.vector {
            let (dim, mut bytes) = (vector.dim() as u16, Vec::new());
            let query = vector.query()?;
            check_first(settings, &query)?;
            settings.quant.encode(query.normalised(), &mut bytes);
            entry = entry.with_vector(dim, &bytes);
        }
        let (name, id) = (key_name(&self.id).into_owned(), digest(&self.id));
        let text = settings.words.is_some().then_some(self.text);
        Ok(Packed { entry, text, name, id, expire_at: self.expire_at, hits: self.hits })
    }
}

impl<'a> Document<'a> {
    /// Reads an id and what belongs to it, up to the first word that does not.
    fn read(given: &Arguments<'_>, args: &mut ArgReader<'a>, now: UnixMs) -> Result<Self> {
        let id = document_id(args)?;
        let (mut vector, mut text, mut rest) = (None, None, Rest::default());
        let mut no_vector = false;
        loop {
            let mut ahead = args.clone();
            let Some(word) = ahead.option() else { break };
            if is_vector_word(&word) {
                let read = given_vector(&word, &mut ahead)?;
                set_once(&mut vector, Vector::of(given, read), "the vector")?;
            } else if word.as_str() == "NOVECTOR" {
                flag_once(&mut no_vector, "NOVECTOR")?;
            } else if word.as_str() == "TEXT" {
                let body = ahead.text("TEXT", limits::RESPONSE_MAX_BYTES)?;
                set_once(&mut text, Held::of(given, &ahead, body), "TEXT")?;
            } else if !rest.read(given, &word, &mut ahead, now)? {
                break;
            }
            *args = ahead;
        }
        let missing = || Error::err("syntax error: an id and TEXT are needed");
        let text = text.ok_or_else(missing)?;
        if no_vector && vector.is_some() {
            return Err(Error::err("syntax error: a vector and NOVECTOR are given"));
        }
        Ok(Self { id: check_id(id)?, vector, no_vector, text, rest })
    }

    fn wants_vector(&self) -> bool {
        self.vector.is_none() && !self.no_vector
    }

    /// The same for work that goes on after the command's call.
    fn ready(self, settings: &Settings, now: UnixMs) -> Ready {
        let wants = self.wants_vector().then_some(self.rest.truncates);
        let Self { id, vector, text, rest, .. } = self;
        let (age_ms, hits) = rest.moved.unwrap_or_default();
        Ready {
            id: id.into(),
            vector,
            wants,
            text: text.held,
            meta: rest.meta.map(|meta| meta.held),
            tags: rest.tags.unwrap_or_default().iter().map(|&tag| tag.into()).collect(),
            tokens: rest.tokens.unwrap_or(0) as u32,
            created: UnixMs(now.0.saturating_sub(age_ms)),
            expire_at: deadline_by(settings, rest.expiry, now, 0),
            hits,
        }
    }
}

impl<'a> Rest<'a> {
    /// Reads `MOVED age hits`, which comes last.
    fn read_moved(&mut self, args: &mut ArgReader<'a>) -> Result<()> {
        let mut ahead = args.clone();
        if ahead.option().is_some_and(|word| word.as_str() == "MOVED") {
            let age_ms = ahead.integer("the age of MOVED", 0, limits::AGE_MAX_MS)?;
            let hits = ahead.integer("the hits of MOVED", 0, u64::from(u32::MAX))? as u32;
            self.moved = Some((age_ms, hits));
            *args = ahead;
        }
        Ok(())
    }

    /// Reads the option that `word` opened; false when it is none of these.
    fn read(
        &mut self,
        given: &Arguments<'_>,
        word: &OptionWord,
        args: &mut ArgReader<'a>,
        now: UnixMs,
    ) -> Result<bool> {
        let name = word.as_str();
        match name {
            "META" => {
                let value = unchecked_meta(args)?;
                set_once(&mut self.meta, Held::of(given, args, value), name)?;
            }
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
