//! `EMBCACHE.GET`, `MGET` and `MGETEX`: embeddings computed before, one or many in one trip.

use super::set::{as_kept, keep};
use super::{
    Computed, Form, Subject, Subjects, compute, compute_all, find, key_of, look_for, model,
};
use crate::command::container::texts::model_for;
use crate::command::parse::{ArgReader, Expiry, expiry, is_expiry_word, set_once};
use crate::ffi::{Access, Arguments, CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{Again, Searches, answer_room, now_min, remove_entry, set_entry_expiry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{MissReason, Tier};
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EmbeddingDigest, UnixMs};
use llmcache_core::limits;
use std::collections::BTreeMap;

/// Runs `EMBCACHE.GET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer(ctx, args, &Searches::inline())
}

fn answer(ctx: Ctx<'_>, args: &Arguments<'_>, _: &Searches) -> Result<()> {
    let mut reader = ArgReader::new(args.options());
    let (mut subject, mut form, mut named) = (None, None, None);
    while let Some(word) = reader.option() {
        match word.as_str() {
            _ if Subject::is_word(&word) => {
                let asked = Subject::read(&word, &mut reader)?;
                set_once(&mut subject, asked, "what is asked for")?;
            }
            "AS" => set_once(&mut form, Form::read(&mut reader)?, "AS")?,
            "MODEL" => set_once(&mut named, model(&mut reader)?, "MODEL")?,
            _ => return Err(word.unknown()),
        }
    }
    let subject = subject.ok_or_else(|| Error::err("syntax error: TEXT or DIGEST is needed"))?;
    match look_for(ctx, args, named)? {
        Some(cache) => {
            let asked = Asked::new(ctx, &cache, form.unwrap_or_default());
            if asked.has(&subject) {
                asked.answer(&subject);
                return Ok(());
            }
            // Computed and not kept: what only reads stores nothing. The memo and FETCH remember.
            match compute(ctx, &cache, &subject, Again::Reads(answer, args.handles()))? {
                Computed::Numbers(numbers) => asked.answer_computed(subject, numbers)?,
                Computed::Later => {}
                Computed::None => {
                    asked.answer(&subject);
                }
            }
        }
        None => {
            Reply::new(ctx).null();
        }
    }
    Ok(())
}

/// Runs `EMBCACHE.MGET`.
pub fn run_many(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    answer_many(ctx, args, &Searches::inline())
}

fn answer_many(ctx: Ctx<'_>, args: &Arguments<'_>, _: &Searches) -> Result<()> {
    let asked = Many::read(args, None)?;
    let Some(cache) = asked.container(ctx, args)? else { return Ok(()) };
    // Computed and not kept, as GET does.
    let Some(mut computed) =
        asked.compute(ctx, &cache, Again::Reads(answer_many, args.handles()))?
    else {
        return Ok(());
    };
    let of = Asked::new(ctx, &cache, asked.form);
    Reply::new(ctx).array(asked.subjects.len());
    for (place, subject) in asked.subjects.iter().enumerate() {
        match computed.remove(&place) {
            Some(numbers) if !of.has(subject) => of.answer_computed(*subject, numbers)?,
            _ => {
                of.answer(subject);
            }
        }
    }
    Ok(())
}

/// Runs `EMBCACHE.MGETEX`: the same, moves the deadline of each that is there, and keeps what it computed.
pub fn run_many_touching(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let asked = Many::read(args, Some(now))?;
    let expires = asked.expires.ok_or_else(|| Error::err("syntax error: an expiry is needed"))?;
    let Some(cache) = asked.container(ctx, args)? else { return Ok(()) };
    let is_past = matches!(expires, Expiry::At(at) if at.is_past(now));
    // Nothing is made that would be gone at once, or for which there is no memory.
    if !is_past && !ctx.state().is_out_of_memory() {
        let again = Again::Fills(run_many_touching);
        let Some(computed) = asked.compute(ctx, &cache, again)? else { return Ok(()) };
        let computed: Vec<_> =
            computed.into_iter().map(|(place, numbers)| (asked.subjects[place], numbers)).collect();
        if !computed.is_empty() {
            keep(ctx, args, computed, Some(expires))?;
        }
    }
    let of = Asked::new(ctx, &cache, asked.form);
    Reply::new(ctx).array(asked.subjects.len());
    let found: Vec<_> = asked.subjects.iter().filter_map(|subject| of.answer(subject)).collect();
    if touch(args.permit(), &cache, &found, expires, now) {
        ctx.signal_modified(&args.key());
    }
    Ok(())
}

/// Many that are asked for at once.
struct Many<'a> {
    subjects: Vec<Subject<'a>>,
    model: Option<&'a [u8]>,
    form: Form,
    expires: Option<Expiry>,
}

impl<'a> Many<'a> {
    /// Reads them; an expiry may be among them where it is said what time it is.
    fn read(args: &'a Arguments<'_>, now: Option<UnixMs>) -> Result<Self> {
        let mut reader = ArgReader::new(args.options());
        let (mut subjects, mut form, mut expires) = (Subjects::default(), None, None);
        while let Some(word) = reader.option() {
            if subjects.read(&word, &mut reader)? {
                continue;
            }
            match now {
                _ if word.as_str() == "AS" => set_once(&mut form, Form::read(&mut reader)?, "AS")?,
                Some(now) if is_expiry_word(&word) => {
                    set_once(&mut expires, expiry(&word, &mut reader, now)?, "the expiry")?;
                }
                _ => return Err(word.unknown()),
            }
        }
        let model = subjects.model;
        Ok(Self { subjects: subjects.take()?, model, form: form.unwrap_or_default(), expires })
    }

    /// The container; where there is none, nulls were answered.
    fn container(&self, ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<Option<SharedCache>> {
        let cache = look_for(ctx, args, self.model)?;
        match &cache {
            Some(cache) => check_room(ctx, cache, self.subjects.len(), self.form)?,
            None => {
                let reply = Reply::new(ctx).array(self.subjects.len());
                self.subjects.iter().for_each(|_| {
                    reply.null();
                });
            }
        }
        Ok(cache)
    }

    /// The vectors of texts that are not kept, by their places, where a model embeds for the cache: a text that it does not
    /// read has none. `None` where the command is to end and is run again.
    fn compute(
        &self,
        ctx: Ctx<'_>,
        cache: &SharedCache,
        again: Again<'_>,
    ) -> Result<Option<BTreeMap<usize, Vec<f32>>>> {
        if model_for(cache).is_none() {
            return Ok(Some(BTreeMap::new()));
        }
        let of = Asked::new(ctx, cache, self.form);
        let (mut places, mut texts) = (Vec::new(), Vec::new());
        for (place, subject) in self.subjects.iter().enumerate() {
            if let Subject::Text(text) = subject
                && !of.has(subject)
            {
                places.push(place);
                texts.push(*text);
            }
        }
        let most = limits::STORE_BATCH_MAX;
        if texts.len() > most {
            return Err(Error::too_big("the command", texts.len(), most, "texts to embed"));
        }
        if texts.is_empty() {
            return Ok(Some(BTreeMap::new()));
        }
        let vectors = compute_all(ctx, cache, &texts, again)?;
        let by_place = |vectors: Vec<Result<Vec<f32>>>| {
            let both = places.into_iter().zip(vectors);
            both.filter_map(|(place, vector)| Some((place, vector.ok()?))).collect()
        };
        Ok(vectors.map(by_place))
    }
}

/// Refuses what would make too large a reply, were all of them there.
fn check_room(ctx: Ctx<'_>, cache: &SharedCache, count: usize, form: Form) -> Result<()> {
    let dim = cache.with(|cache| cache.settings.dim.unwrap_or(0)) as usize;
    let numbers = dim * count;
    if form == Form::Values && numbers > limits::VALUES_MAX {
        let max = limits::VALUES_MAX;
        return Err(Error::too_big("the reply", numbers, max, "numbers as text; use FP32 or FP16"));
    }
    answer_room(ctx)?.all(std::iter::repeat_n((dim * form.number_bytes()) as u64, count))
}

/// Moves deadlines; returns whether one moved.
fn touch(
    ctx: WritePermit<'_>,
    cache: &SharedCache,
    found: &[EmbeddingDigest],
    expires: Expiry,
    now: UnixMs,
) -> bool {
    let mut moved = false;
    for digest in found {
        let key = key_of(cache, digest);
        moved |= match expires {
            Expiry::Persist => set_entry_expiry(ctx, cache, &key, UnixMs::NEVER),
            // As GETEX does: what is due already is answered, and gone.
            Expiry::At(at) if at.is_past(now) => remove_entry(ctx, &key),
            Expiry::At(at) => set_entry_expiry(ctx, cache, &key, at),
        };
    }
    moved
}

/// A container that is asked for embeddings.
struct Asked<'c, 'r> {
    ctx: Ctx<'c>,
    cache: &'r SharedCache,
    model: Box<[u8]>,
    form: Form,
}

impl<'c, 'r> Asked<'c, 'r> {
    fn new(ctx: Ctx<'c>, cache: &'r SharedCache, form: Form) -> Self {
        let model = cache.with(|cache| cache.settings.model.clone());
        Self { ctx, cache, model, form }
    }

    fn has(&self, subject: &Subject<'_>) -> bool {
        find(self.ctx, self.cache, &subject.digest(&self.model), Access::Probe).is_some()
    }

    /// Answers one that was not there and was computed, to the bits that keeping it would have given.
    fn answer_computed(&self, subject: Subject<'_>, numbers: Vec<f32>) -> Result<()> {
        let entry = as_kept(self.ctx, self.cache, subject, numbers)?;
        self.form.write(Reply::new(self.ctx), Some(entry.view()));
        self.cache.with(|cache| cache.stats.note_miss(b"", MissReason::Empty, None));
        Ok(())
    }

    /// Answers one, or null, and counts it. The digest of one that was there.
    fn answer(&self, subject: &Subject<'_>) -> Option<EmbeddingDigest> {
        let digest = subject.digest(&self.model);
        let entry = find(self.ctx, self.cache, &digest, Access::Read);
        let view = entry.as_ref().map(|entry| entry.view());
        self.form.write(Reply::new(self.ctx), view);
        let now_min = now_min();
        self.cache.with(|cache| match &view {
            Some(view) => {
                cache.note_hit(view, now_min);
                cache.stats.note_hit(b"", Tier::Exact, view, None);
            }
            None => cache.stats.note_miss(b"", MissReason::Empty, None),
        });
        view.is_some().then_some(digest)
    }
}
