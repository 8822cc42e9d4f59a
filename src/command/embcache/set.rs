//! `EMBCACHE.SET` and `EMBCACHE.MSET`: keep embeddings.

use super::{Computed, Subject, compute, compute_all, key_of, model, open};
use crate::command::container::create::auto_create_as;
use crate::command::container::lease::lease_token;
use crate::command::container::no_container;
use crate::command::container::store::{
    Storing, check_dim, check_fits, check_lease, deadline, dim_mismatch, lease_lost,
};
use crate::command::container::texts::model_for;
use crate::command::parse::{
    ArgReader, Expiry, OptionWord, expiry, is_expiry_word, is_vector_word, numbers, set_once,
};
use crate::config;
use crate::ffi::{Access, CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{Again, Linking, NewEntry, Presence, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Entry, EntryKey, Kind, LeaseToken, Settings, pack_embedding};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::UnixMs;
use llmcache_core::limits;

/// An embedding and what it is of.
#[derive(Debug)]
struct Embedding<'a> {
    subject: Subject<'a>,
    numbers: Vec<f32>,
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
            set_once(&mut subject, asked, "what is stored")?;
        } else if is_vector_word(&word) {
            set_once(&mut vector, numbers(&word, &mut reader)?, "the vector")?;
        } else if word.as_str() == "LEASE" {
            set_once(&mut options.lease, lease_token(&mut reader)?, "LEASE")?;
        } else {
            return Err(word.unknown());
        }
    }
    let missing = || Error::err("syntax error: TEXT or DIGEST, and a vector, are needed");
    let subject = subject.ok_or_else(missing)?;
    let numbers = match (vector, open(ctx, args, options.model)?) {
        (Some(numbers), _) => numbers,
        (None, Some(cache)) => match compute(ctx, &cache, &subject, Again::Writes(run))? {
            Computed::Numbers(numbers) => numbers,
            Computed::Later => return Ok(()),
            Computed::None => return Err(missing()),
        },
        (None, None) => return Err(missing()),
    };
    store(ctx, args, &[Embedding { subject, numbers }], &options, now)?;
    Reply::new(ctx).ok();
    Ok(())
}

/// An embedding that was computed here, as it would be kept.
pub(super) fn as_kept(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    subject: Subject<'_>,
    numbers: Vec<f32>,
) -> Result<Box<Entry>> {
    let packed = Embedding { subject, numbers }.pack(cache, 0, UnixMs(ctx.now_ms()))?;
    Ok(packed.1)
}

/// Keeps embeddings that were computed here, at least one.
pub(super) fn keep(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    computed: Vec<(Subject<'_>, Vec<f32>)>,
    expiry: Option<Expiry>,
) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let embedding = |(subject, numbers)| Embedding { subject, numbers };
    let computed: Vec<_> = computed.into_iter().map(embedding).collect();
    store(ctx, args, &computed, &Options { expiry, ..Options::default() }, now)
}

/// Runs `EMBCACHE.MSET`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let now = UnixMs(ctx.now_ms());
    let most = limits::STORE_BATCH_MAX as u64;
    let count = reader.integer("the count of embeddings", 1, most)?;
    let missing = || Error::err("syntax error: fewer embeddings follow than were announced");
    let mut given = Vec::new();
    for _ in 0..count {
        let word = reader.option().filter(Subject::is_word).ok_or_else(missing)?;
        let subject = Subject::read(&word, &mut reader)?;
        let mut ahead = reader.clone();
        let word = ahead.option().filter(is_vector_word);
        let vector = word.map(|word| numbers(&word, &mut ahead)).transpose()?;
        if vector.is_some() {
            reader = ahead;
        }
        given.push((subject, vector));
    }
    let mut options = Options::default();
    while let Some(word) = reader.option() {
        if !options.read(&word, &mut reader, now)? {
            return Err(word.unknown());
        }
    }
    let Some(embeddings) = complete(ctx, args, given, &options)? else { return Ok(()) };
    store(ctx, args, &embeddings, &options, now)?;
    Reply::new(ctx).count(count);
    Ok(())
}

/// Has the texts that came without a vector embedded; a text that has none refuses them all. `None` where the command is
/// to end and is run again.
fn complete<'a>(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    given: Vec<(Subject<'a>, Option<Vec<f32>>)>,
    options: &Options<'a>,
) -> Result<Option<Vec<Embedding<'a>>>> {
    let missing = || Error::err("syntax error: each embedding needs a vector, or a TEXT and EMBED");
    let mut texts = Vec::new();
    for (subject, vector) in &given {
        match (vector, subject) {
            (Some(_), _) => {}
            (None, Subject::Text(text)) => texts.push(*text),
            (None, Subject::Digest(_)) => return Err(missing()),
        }
    }
    let computed = if texts.is_empty() {
        Vec::new()
    } else {
        let cache = open(ctx, args, options.model)?.filter(|cache| model_for(cache).is_some());
        let cache = cache.ok_or_else(missing)?;
        match compute_all(ctx, &cache, &texts, Again::Writes(run_many))? {
            Some(computed) => computed,
            None => return Ok(None),
        }
    };
    let mut computed = computed.into_iter();
    let whole = given.into_iter().map(|(subject, vector)| {
        let numbers = match vector {
            Some(numbers) => numbers,
            None => computed.next().ok_or_else(missing)??,
        };
        Ok(Embedding { subject, numbers })
    });
    whole.collect::<Result<_>>().map(Some)
}

/// Checks all, then stores all.
fn store(
    ctx: Ctx<'_>,
    args: &CommandArgs<'_>,
    embeddings: &[Embedding<'_>],
    options: &Options<'_>,
    now: UnixMs,
) -> Result<()> {
    let name = args.name();
    let cache = open(ctx, args, options.model)?;
    let dim = embeddings[0].numbers.len();
    if let Some(other) = embeddings.iter().map(|e| e.numbers.len()).find(|&other| other != dim) {
        return Err(dim_mismatch(other, dim, name));
    }
    let cache = match cache {
        Some(cache) => cache,
        None if options.lease.is_some() => return Err(lease_lost("the embedding cache is gone")),
        None => create(args.permit(), name, dim, options)?,
    };
    check_dim(&cache, dim, name)?;
    let expire_at = deadline(&cache, options.expiry, now, 0);
    let mut ready = Vec::with_capacity(embeddings.len());
    for (place, embedding) in embeddings.iter().enumerate() {
        let (key, entry) = embedding.pack(&cache, place as u64, now)?;
        let new = NewEntry { key, entry, expire_at, linking: Linking::AlongTheWay, hits: 0 };
        check_fits(&cache, &new)?;
        ready.push(new);
    }
    let presence = Presence::of(ctx, name);
    let there =
        |new: &NewEntry| Ok(presence.found(open_entry(ctx, &new.key, Access::Probe))?.is_some());
    if !presence.is_whole() {
        ready.iter().try_for_each(|new| there(new).map(drop))?;
    }
    if let Some(token) = options.lease {
        let id = cache.with(|cache| embeddings[0].subject.digest(&cache.settings.model)).entry_id();
        check_lease(ctx, &cache, (b"", &[]), token, id)?;
    }
    for new in ready {
        let id = new.entry.view().id();
        let replaces = there(&new)?;
        Storing { ctx: args.permit(), cache: &cache, name: &args.key(), now }.keep(
            new,
            id,
            replaces,
            options.lease,
        );
    }
    Ok(())
}

/// A container of the model that the caller named: without one, digests would be of no model at all.
fn create(
    ctx: WritePermit<'_>,
    name: &[u8],
    dim: usize,
    options: &Options<'_>,
) -> Result<SharedCache> {
    let kind = Kind::Embeddings;
    let model = options.model.filter(|model| !model.is_empty());
    let Some(model) = model else { return Err(no_container(name, kind)) };
    let dim = Some(dim as u32);
    let settings = Settings { dim, model: model.into(), ..config::default_settings(kind) };
    auto_create_as(ctx, name, settings)
}

impl Embedding<'_> {
    /// Packs it as the one in this place of those that are stored together.
    fn pack(&self, cache: &SharedCache, place: u64, now: UnixMs) -> Result<(EntryKey, Box<Entry>)> {
        let (uid, seq, quant, digest) = cache.with(|cache| {
            let digest = self.subject.digest(&cache.settings.model);
            (cache.uid(), cache.seq_after(place), cache.settings.quant, digest)
        });
        let entry = pack_embedding(uid, seq, now, quant, &digest, &self.numbers)
            .map_err(|error| Error::new(ErrorWord::BadVector, error.to_string()))?;
        Ok((key_of(cache, &digest), entry))
    }
}
