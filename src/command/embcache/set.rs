//! `EMBCACHE.SET` and `EMBCACHE.MSET`: store embeddings.

use super::{Computed, Computing, Named, Subject, compute, model, open};
use crate::command::container::batch::{Batch, Item, Packed, Vector, store_at_once, store_batch};
use crate::command::container::lease::lease_token;
use crate::command::container::no_container;
use crate::command::container::store::{deadline_by, lease_lost};
use crate::command::container::texts::model_for;
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, given_vector, is_expiry_word, is_vector_word, numbers,
    set_once,
};
use crate::config;
use crate::ffi::{CommandArgs, Ctx, Reply};
use crate::keyspace::{Again, Linking};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Entry, Kind, LeaseToken, Settings, pack_embedding};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{ContainerUid, Seq, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// An embedding that is to be kept, and what it is of.
pub(super) struct Embedding {
    named: Named,
    /// Absent where the text is to be embedded.
    vector: Option<Vector>,
    expiry: Option<Expiry>,
}

/// What holds for all that are stored.
#[derive(Debug, Default)]
struct Options<'a> {
    expiry: Option<Expiry>,
    model: Option<&'a [u8]>,
    lease: Option<LeaseToken>,
}

impl<'a> Options<'a> {
    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>, now: UnixMs) -> Result<bool> {
        match word.as_str() {
            "MODEL" => set_once(&mut self.model, model(args)?, "MODEL")?,
            _ if is_expiry_word(word) => {
                set_once(&mut self.expiry, expiry(word, args, now)?, "the expiry")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Runs `EMBCACHE.SET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let (mut subject, mut vector, mut options) = (None, None, Options::default());
    while let Some(word) = reader.option() {
        if options.read(&word, &mut reader, now)? {
            continue;
        }
        if Subject::is_word(&word) {
            let asked = Subject::read(&word, &mut reader)?;
            set_once(&mut subject, (asked, reader.position()), "what is stored")?;
        } else if is_vector_word(&word) {
            set_once(&mut vector, numbers(&word, &mut reader)?, "the vector")?;
        } else if word.as_str() == "LEASE" {
            set_once(&mut options.lease, lease_token(&mut reader)?, "LEASE")?;
        } else {
            return Err(word.unknown());
        }
    }
    let missing = || Error::err("syntax error: TEXT or DIGEST, and a vector, are needed");
    let (subject, position) = subject.ok_or_else(missing)?;
    let cache = open(ctx, args, options.model)?;
    let numbers = match (vector, &cache) {
        (Some(numbers), _) => numbers,
        (None, Some(cache)) => match compute(ctx, cache, &subject, Again::Writes(run))? {
            Computing::Numbers(numbers) => numbers,
            Computing::Later => return Ok(()),
            Computing::None => return Err(missing()),
        },
        (None, None) => return Err(missing()),
    };
    let named = Named::of(args, &subject, position);
    let one = Embedding { named, vector: Some(Vector::Numbers(numbers)), expiry: options.expiry };
    store_at_once(args, batch(args, cache, vec![one], &options, now)?)?;
    Reply::new(ctx).ok();
    Ok(())
}

/// An embedding that was computed here, as it would be kept.
pub(super) fn as_kept(ctx: Ctx<'_>, cache: &SharedCache, computed: Computed) -> Result<Box<Entry>> {
    let (embedding, now) = (Embedding::of(computed, None), UnixMs(ctx.now_ms()));
    cache.with(|cache| Ok(embedding.pack(&cache.settings, now)?.entry))
}

/// Keeps an embedding that was computed here.
pub(super) fn keep(args: &CommandArgs<'_>, cache: &SharedCache, computed: Computed) -> Result<()> {
    store_at_once(args, batch_of_computed(*args.permit(), cache, vec![computed], None))
}

/// Embeddings that were computed here, to be kept.
pub(super) fn batch_of_computed(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    computed: Vec<Computed>,
    expiry: Option<Expiry>,
) -> Batch<Embedding> {
    let settings = cache.with(|cache| cache.settings.clone());
    Batch {
        cache: Some(SharedCache::clone(cache)),
        settings,
        items: computed.into_iter().map(|computed| Embedding::of(computed, expiry)).collect(),
        embeds: None,
        lease: None,
        linking: Linking::AlongTheWay,
        now: UnixMs(ctx.now_ms()),
        reply: count_of,
    }
}

/// Runs `EMBCACHE.MSET`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let most = limits::STORE_BATCH_MAX as u64;
    let count = reader.integer("the count of embeddings", 1, most)?;
    let missing = || Error::err("syntax error: fewer embeddings follow than were announced");
    let mut embeddings = Vec::new();
    for _ in 0..count {
        let word = reader.option().filter(Subject::is_word).ok_or_else(missing)?;
        let subject = Subject::read(&word, &mut reader)?;
        let named = Named::of(args, &subject, reader.position());
        let mut ahead = reader.clone();
        let mut vector = None;
        if let Some(word) = ahead.option().filter(is_vector_word) {
            vector = Some(Vector::of(args, given_vector(&word, &mut ahead)?));
            reader = ahead;
        }
        embeddings.push(Embedding { named, vector, expiry: None });
    }
    let mut options = Options::default();
    while let Some(word) = reader.option() {
        if !options.read(&word, &mut reader, now)? {
            return Err(word.unknown());
        }
    }
    embeddings.iter_mut().for_each(|embedding| embedding.expiry = options.expiry);
    let missing = || Error::err("syntax error: each embedding needs a vector, or a TEXT and EMBED");
    let wants = |embedding: &Embedding| embedding.vector.is_none();
    if embeddings.iter().any(|embedding| wants(embedding) && embedding.text().is_none()) {
        return Err(missing());
    }
    let cache = open(ctx, args, options.model)?;
    let embeds = if embeddings.iter().any(wants) {
        let model = cache.as_ref().and_then(model_for).ok_or_else(missing)?;
        Some((model, Role::Query))
    } else {
        None
    };
    let batch = batch(args, cache, embeddings, &options, now)?;
    store_batch(ctx, args, Batch { embeds, ..batch })
}

/// What is to be stored, and in which container: without one, of the model that the caller named, since digests would be
/// of no model at all.
fn batch(
    args: &CommandArgs<'_>,
    cache: Option<SharedCache>,
    items: Vec<Embedding>,
    options: &Options<'_>,
    now: UnixMs,
) -> Result<Batch<Embedding>> {
    let kind = Kind::Embeddings;
    let settings = match &cache {
        Some(cache) => cache.with(|cache| cache.settings.clone()),
        None if options.lease.is_some() => return Err(lease_lost("the embedding cache is gone")),
        None => {
            let model = options.model.filter(|model| !model.is_empty());
            let Some(model) = model else { return Err(no_container(args.name(), kind)) };
            let dim = items.first().and_then(|first| Some(first.dim()? as u32));
            Settings { dim, model: model.into(), ..config::default_settings(kind) }
        }
    };
    let (lease, linking, reply) = (options.lease, Linking::AlongTheWay, count_of);
    Ok(Batch { cache, settings, items, embeds: None, lease, linking, now, reply })
}

fn count_of(ctx: Ctx<'_>, _: &SharedCache, news: &[bool]) {
    Reply::new(ctx).count(news.len() as u64);
}

impl Embedding {
    fn of((digest, vector): Computed, expiry: Option<Expiry>) -> Self {
        Self { named: Named::Digest(digest), vector: Some(Vector::Numbers(vector)), expiry }
    }
}

impl Item for Embedding {
    fn dim(&self) -> Option<usize> {
        self.vector.as_ref().map(Vector::dim)
    }

    fn text(&self) -> Option<(&[u8], bool)> {
        self.named.text().map(|text| (text, false))
    }

    fn embedded(&mut self, vector: Query) {
        self.vector = Some(Vector::Query(vector));
    }

    fn pack(self, settings: &Settings, now: UnixMs) -> Result<Packed> {
        let digest = self.named.digest(&settings.model);
        let (uid, seq) = (ContainerUid::default(), Seq::default());
        let missing = || Error::new(ErrorWord::BadVector, "an embedding has no vector");
        let numbers = self.vector.ok_or_else(missing)?.numbers()?;
        let entry = pack_embedding(uid, seq, now, settings.quant, &digest, &numbers)
            .map_err(|error| Error::new(ErrorWord::BadVector, error.to_string()))?;
        let (id, expire_at) = (digest.entry_id(), deadline_by(settings, self.expiry, now, 0));
        Ok(Packed { entry, text: None, name: id.hex().to_vec(), id, expire_at, hits: 0 })
    }
}
