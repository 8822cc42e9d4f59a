//! `EMBCACHE.MGET` and `MGETEX`: return many embeddings in one trip, in slices.
//!
//! Owns: the order of the work. Where a model embeds for the cache, all are looked for first, texts that are not kept are
//! embedded together, and `MGETEX` keeps them; then `MGETEX` moves deadlines; then all are answered, part by part.

use super::get::Asked;
use super::set::{Embedding, batch_of_computed};
use super::{Computed, Form, Named, NumbersLeft, Subjects, key_of, look_for};
use crate::command::container::batch::StoringBatch;
use crate::command::container::texts::model_for;
use crate::command::parse::{ArgReader, Expiry, expiry, is_expiry_word, set_once};
use crate::ffi::{CommandArgs, Ctx, RString, Reply, WritePermit};
use crate::keyspace::{
    Awaited, Pieces, ReadTexts, answer_room, remove_entry, reply_whole, run_pieces,
    set_entry_expiry,
};
use crate::keytype::cache_registry::{CACHES, SharedCache};
use hashbrown::HashMap;
use llmcache_core::cache::unpack_embedding;
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::{EmbeddingDigest, UnixMs};
use llmcache_core::limits;
use llmcache_core::work::{BYTES_PER_WEIGHT, KEY_WEIGHT, count_bytes};

/// Runs `EMBCACHE.MGET`.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let (subjects, form, _) = read(args, None)?;
    if let Some(many) = Many::begin(ctx, args, subjects, form, true)? {
        run_pieces(args, many);
    }
    Ok(())
}

/// Runs `EMBCACHE.MGETEX`: the same, moves the deadline of each that is there, and keeps what it computed.
pub fn run_touching(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    let now = UnixMs(ctx.now_ms());
    let (subjects, form, expires) = read(args, Some(now))?;
    let expires = expires.ok_or_else(|| Error::err("syntax error: an expiry is needed"))?;
    let is_past = matches!(expires, Expiry::At(at) if at.is_past(now));
    // Nothing is made that would be gone at once, or for which there is no memory.
    let computes = !is_past && !ctx.state().is_out_of_memory();
    if let Some(many) = Many::begin(ctx, args, subjects, form, computes)? {
        let name = args.name().to_vec();
        let touching = Touching {
            reading: Vec::with_capacity(many.subjects.len()),
            many,
            name,
            expires,
            now,
            storing: None,
            kept: Vec::new().into_iter(),
            moved: false,
        };
        run_pieces(args, touching);
    }
    Ok(())
}

/// Reads what is asked for and in which form; an expiry may be there where it is said what time it is.
fn read<'a>(
    args: &'a CommandArgs<'_>,
    now: Option<UnixMs>,
) -> Result<(Subjects<'a>, Form, Option<Expiry>)> {
    let mut reader = ArgReader::new(args.options());
    let (mut subjects, mut form, mut expires) = (Subjects::default(), None, None);
    while let Some(word) = reader.option() {
        if subjects.read(args, &word, &mut reader)? {
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
    Ok((subjects, form.unwrap_or_default(), expires))
}

/// Refuses what would make too large a reply, were all of them there.
fn check_room(ctx: Ctx<'_>, dim: usize, count: usize, form: Form) -> Result<()> {
    let numbers = dim * count;
    if form == Form::Values && numbers > limits::VALUES_MAX {
        let max = limits::VALUES_MAX;
        return Err(Error::too_big("the reply", numbers, max, "numbers as text; use FP32 or FP16"));
    }
    answer_room(ctx)?.all(std::iter::repeat_n((dim * form.number_bytes()) as u64, count))
}

/// Steps of a reply that is written in one piece.
const SHORT_REPLY: u64 = 1 << 15;
/// Steps of a number written as text.
const TEXT_NUMBER: u64 = 6;

/// Embeddings that are asked for together.
struct Many {
    cache: SharedCache,
    model: Box<[u8]>,
    form: Form,
    dim: usize,
    subjects: Vec<Named>,
    /// Those that are answered.
    answered: usize,
    /// What is missing, until it is embedded.
    missing: Option<Missing>,
    /// What was embedded, by its place.
    computed: HashMap<usize, Vec<f32>>,
    /// Whether the reply is begun.
    is_begun: bool,
    /// What is left of the one that is being written.
    left: Option<NumbersLeft>,
    refused: Option<Error>,
}

/// Texts that are not kept.
struct Missing {
    texts: ReadTexts,
    /// How many were looked for.
    looked: usize,
    /// Places of those that are not there, and how many of these were read.
    places: Vec<usize>,
    read: usize,
}

/// What a step of looking for what is missing came to.
enum Step {
    More,
    Waits,
    Over,
}

impl Many {
    /// What is asked for in a container; where there is none, nulls were answered.
    fn begin(
        ctx: Ctx<'_>,
        args: &CommandArgs<'_>,
        subjects: Subjects<'_>,
        form: Form,
        computes: bool,
    ) -> Result<Option<Self>> {
        let named = subjects.model;
        let subjects = subjects.take()?;
        let Some(cache) = look_for(ctx, args, named)? else {
            let reply = Reply::new(ctx).array(subjects.len());
            subjects.iter().for_each(|_| {
                reply.null();
            });
            return Ok(None);
        };
        let (model, dim) = cache.with(|cache| (cache.settings.model.clone(), cache.settings.dim));
        let dim = dim.unwrap_or(0) as usize;
        check_room(ctx, dim, subjects.len(), form)?;
        let has_texts = subjects.iter().any(|subject| subject.text().is_some());
        let embeds = model_for(&cache).filter(|_| computes && has_texts);
        let texts = embeds.map(|model| ReadTexts::new(ctx, &model, Role::Query)).transpose()?;
        let of = |texts| Missing { texts, looked: 0, places: Vec::new(), read: 0 };
        Ok(Some(Self {
            cache,
            model,
            form,
            dim,
            subjects,
            answered: 0,
            missing: texts.map(of),
            computed: HashMap::new(),
            is_begun: false,
            left: None,
            refused: None,
        }))
    }

    /// Does the next thing towards the vectors of what is missing.
    fn step(&mut self, ctx: Ctx<'_>) -> Result<Step> {
        let Some(missing) = &mut self.missing else { return Ok(Step::Over) };
        if let Some(subject) = self.subjects.get(missing.looked) {
            if subject.text().is_some() {
                let asked = Asked { ctx, cache: &self.cache, form: self.form };
                if !asked.has(&subject.digest(&self.model)) {
                    missing.places.push(missing.looked);
                }
            }
            missing.looked += 1;
            return Ok(Step::More);
        }
        let (count, most) = (missing.places.len(), limits::STORE_BATCH_MAX);
        if count > most {
            return Err(Error::too_big("the command", count, most, "texts to embed"));
        }
        if let Some(&place) = missing.places.get(missing.read) {
            missing.read += 1;
            missing.texts.read(self.subjects[place].text().unwrap_or_default(), false)?;
            return Ok(Step::More);
        }
        if missing.texts.must_wait() {
            return Ok(Step::Waits);
        }
        let Some(missing) = self.missing.take() else { return Ok(Step::Over) };
        let uid = self.cache.with(|cache| cache.uid());
        if CACHES.find(uid, ctx.db()).is_none() {
            // Nothing embeds for a cache that went meanwhile.
            return Ok(Step::Over);
        }
        // A text that the model does not read has none.
        for (place, vector) in missing.places.into_iter().zip(missing.texts.finish()?) {
            if let Ok(query) = vector {
                self.computed.insert(place, query.normalised().to_vec());
            }
        }
        Ok(Step::Over)
    }

    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        let is_refused = self.refused.is_some();
        let missing = self.missing.as_mut().filter(|missing| {
            !is_refused && missing.read == missing.places.len() && missing.texts.must_wait()
        })?;
        Some(&mut missing.texts)
    }

    fn known(&self) -> usize {
        self.subjects.len() * (1 + self.dim / limits::UNBLOCKABLE_PIECE_NUMBERS)
    }

    fn has_long_reply(&self) -> bool {
        let numbers = match self.form {
            Form::Values => self.dim as u64 * TEXT_NUMBER,
            Form::Fp32 | Form::Fp16 => self.dim as u64 * 4 / BYTES_PER_WEIGHT,
        };
        self.refused.is_none() && self.subjects.len() as u64 * (KEY_WEIGHT + numbers) > SHORT_REPLY
    }

    /// Goes on with a reply that is begun: false where the next embedding is to be written.
    fn goes_on(&mut self, ctx: Ctx<'_>) -> bool {
        if !std::mem::replace(&mut self.is_begun, true) {
            Reply::new(ctx).array(self.subjects.len());
        }
        let Some(left) = &mut self.left else { return false };
        if !left.write(Reply::new(ctx)) {
            self.left = None;
        }
        true
    }

    /// Writes the error that refuses all of it, if any does.
    fn refuse(&self, ctx: Ctx<'_>) -> bool {
        if let Some(refused) = &self.refused {
            Reply::new(ctx).error(&refused.to_string());
        }
        self.refused.is_some()
    }
}

impl Pieces for Many {
    type Leave<'a> = Ctx<'a>;

    /// What is kept is looked up when it is answered: whatever happened meanwhile, it is as it is then.
    fn next(&mut self, ctx: Ctx<'_>) -> bool {
        match self.step(ctx) {
            Ok(step) => matches!(step, Step::More),
            Err(error) => {
                self.refused = Some(error);
                false
            }
        }
    }

    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        Self::awaits(self)
    }

    fn known(&self) -> usize {
        Self::known(self)
    }

    fn has_long_reply(&self) -> bool {
        Self::has_long_reply(self)
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        if self.refuse(ctx) {
            return false;
        }
        if self.goes_on(ctx) {
            return true;
        }
        let place = self.answered;
        let Some(subject) = self.subjects.get(place) else { return false };
        self.answered += 1;
        let digest = subject.digest(&self.model);
        let asked = Asked { ctx, cache: &self.cache, form: self.form };
        self.left = match self.computed.remove(&place) {
            Some(numbers) if !asked.has(&digest) => match asked.begin_computed((digest, numbers)) {
                Ok(left) => left,
                // One that no entry can hold is none.
                Err(_) => asked.begin_answer(&digest),
            },
            _ => asked.begin_answer(&digest),
        };
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}

/// Embeddings that are asked for together, each of which gets another deadline.
struct Touching {
    many: Many,
    /// The container's key.
    name: Vec<u8>,
    expires: Expiry,
    now: UnixMs,
    /// Those that were computed, on their way into their keys.
    storing: Option<StoringBatch<Embedding>>,
    /// Those that are read: what is due already is answered, and gone by then.
    reading: Vec<Option<Vec<f32>>>,
    /// Those that are to be answered.
    kept: std::vec::IntoIter<Option<Vec<f32>>>,
    /// Whether a deadline moved that WATCH and client-side caching were not told of.
    moved: bool,
}

impl Touching {
    /// Does the next thing; false where there was none, or what comes next waits.
    fn step(&mut self, ctx: WritePermit<'_>) -> Result<bool> {
        match self.many.step(*ctx)? {
            Step::More => return Ok(true),
            Step::Waits => return Ok(false),
            Step::Over => {}
        }
        if !self.many.computed.is_empty() {
            self.begin_storing(ctx)?;
        }
        if let Some(storing) = &mut self.storing {
            if !storing.next(ctx) {
                storing.outcome()?;
                self.storing = None;
            }
            return Ok(true);
        }
        let Some(subject) = self.many.subjects.get(self.reading.len()) else {
            self.kept = std::mem::take(&mut self.reading).into_iter();
            return Ok(false);
        };
        let Many { cache, model, form, .. } = &self.many;
        let digest = subject.digest(model);
        let asked = Asked { ctx: *ctx, cache, form: *form };
        let numbers = asked.look_up(&digest, |view| view.and_then(|v| unpack_embedding(&v)));
        if numbers.is_some() {
            self.moved |= self.touch(ctx, &digest);
        }
        self.reading.push(numbers);
        Ok(true)
    }

    /// Has what was computed kept, where there is still memory for it.
    fn begin_storing(&mut self, ctx: WritePermit<'_>) -> Result<()> {
        let computed = std::mem::take(&mut self.many.computed);
        if ctx.state().is_out_of_memory() {
            return Ok(());
        }
        let Many { cache, model, subjects, .. } = &self.many;
        let named = |(place, numbers): (usize, _)| (subjects[place].digest(model), numbers);
        let computed: Vec<Computed> = computed.into_iter().map(named).collect();
        let batch = batch_of_computed(*ctx, cache, computed, Some(self.expires));
        self.storing = Some(StoringBatch::new(*ctx, &self.name, batch)?);
        Ok(())
    }

    /// Moves a deadline; returns whether it moved.
    fn touch(&self, ctx: WritePermit<'_>, digest: &EmbeddingDigest) -> bool {
        let (cache, key) = (&self.many.cache, key_of(&self.many.cache, digest));
        match self.expires {
            Expiry::Persist => set_entry_expiry(ctx, cache, &key, UnixMs::NEVER),
            // As GETEX does: what is due already is answered, and gone.
            Expiry::At(at) if at.is_past(self.now) => remove_entry(ctx, &key),
            Expiry::At(at) => set_entry_expiry(ctx, cache, &key, at),
        }
    }
}

impl Pieces for Touching {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        match self.step(ctx) {
            Ok(goes_on) => goes_on,
            Err(error) => {
                self.many.refused = Some(error);
                false
            }
        }
    }

    fn tell(&mut self, ctx: WritePermit<'_>) {
        if std::mem::take(&mut self.moved) {
            ctx.signal_modified(&RString::new(&self.name));
        }
    }

    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        self.many.awaits()
    }

    fn known(&self) -> usize {
        self.many.known()
    }

    fn has_long_reply(&self) -> bool {
        self.many.has_long_reply()
    }

    fn reply_part(&mut self, ctx: Ctx<'_>) -> bool {
        if self.many.refuse(ctx) {
            return false;
        }
        if self.many.goes_on(ctx) {
            return true;
        }
        let Some(numbers) = self.kept.next() else { return false };
        count_bytes(numbers.as_ref().map_or(0, |numbers| size_of_val(&**numbers)));
        self.many.left = self.many.form.begin_numbers(Reply::new(ctx), numbers);
        true
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        reply_whole(self, ctx);
    }
}
