//! Many entries stored by one command (`RAG.MADD`, `EMBCACHE.MSET`), in slices: texts without a vector are embedded, then
//! all are packed, which refuses the whole command where one cannot be stored, then the container is made if there is
//! none, then each is put into its key.
//!
//! Owns: the order of these steps. An entry is packed before its container and its place in the order of stores are
//! known, and told both when it is stored. Main thread only.

use super::create::auto_create_as;
use super::store::{Storing, check_dim, check_fits, check_lease, dim_mismatch};
use super::texts::no_vector;
use crate::command::parse::{GivenVector, bad_numbers, decode_given};
use crate::ffi::{
    Access, Arguments, CommandArgs, Ctx, HeldString, RString, Reply, ServerString, WritePermit,
};
use crate::keyspace::{
    Awaited, Linking, ModelId, NewEntry, Pieces, Presence, ReadTexts, open_container, open_entry,
    run_pieces,
};
use crate::keytype::cache_registry::{CACHES, SharedCache};
use llmcache_core::cache::{Entry, LeaseToken, Settings};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;
use llmcache_core::words::TextWords;
use llmcache_core::work::count_bytes;

/// Bytes of a long text that are read in one piece.
const READ_AT_ONCE_BYTES: usize = 4 << 10;

/// A vector on its way into an entry. A blob is decoded when its turn comes.
#[derive(Debug)]
pub enum Vector {
    /// Little-endian, of so many bytes a number.
    Blob(HeldString, usize),
    /// As written out.
    Numbers(Vec<f32>),
    /// At unit length.
    Query(Query),
}

impl Vector {
    /// What an argument gave, read from what follows the key.
    pub fn of(args: &Arguments<'_>, given: GivenVector) -> Self {
        match given {
            GivenVector::Numbers(numbers) => Self::Numbers(numbers),
            GivenVector::Blob { width, position } => Self::Blob(args.held(position), width),
        }
    }

    /// Numbers of it.
    pub fn dim(&self) -> usize {
        match self {
            Self::Blob(blob, width) => blob.as_bytes().len() / width,
            Self::Numbers(numbers) => numbers.len(),
            Self::Query(query) => query.dim(),
        }
    }

    /// Its numbers as they were given.
    pub fn numbers(self) -> Result<Vec<f32>> {
        match self {
            Self::Blob(blob, width) => decode_given(blob.as_bytes(), width),
            Self::Numbers(numbers) => Ok(numbers),
            Self::Query(query) => Ok(query.normalised().to_vec()),
        }
    }

    /// It at unit length.
    pub fn query(self) -> Result<Query> {
        match self {
            Self::Query(query) => Ok(query),
            other => Query::of(other.numbers()?).map_err(bad_numbers),
        }
    }
}

/// An entry that is to be packed.
pub trait Item: Send + 'static {
    /// Numbers of its vector, if it has one.
    fn dim(&self) -> Option<usize>;

    /// The text that is to be embedded for it, and whether its beginning will do.
    fn text(&self) -> Option<(&[u8], bool)>;

    /// That text, where it has no vector.
    fn wanted(&self) -> Option<(&[u8], bool)> {
        if self.dim().is_none() { self.text() } else { None }
    }

    /// Bytes of it whose words are indexed.
    fn read_bytes(&self, _settings: &Settings) -> usize {
        0
    }

    /// Gives it the vector of its text.
    fn embedded(&mut self, vector: Query);

    /// Packs it, of no container yet.
    fn pack(self, settings: &Settings, now: UnixMs) -> Result<Packed>;
}

/// An entry that is packed.
pub struct Packed {
    /// It.
    pub entry: Box<Entry>,
    /// Its response as it was given, where its words are indexed.
    pub text: Option<HeldString>,
    /// What names its key in its container.
    pub name: Vec<u8>,
    /// The question it answers.
    pub id: EntryId,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// Hits it had where it comes from.
    pub hits: u32,
}

/// What a command wants stored.
pub struct Batch<I> {
    /// The container, if it is there.
    pub cache: Option<SharedCache>,
    /// Its settings, or those of the one that is made.
    pub settings: Settings,
    /// The entries, one at least.
    pub items: Vec<I>,
    /// What embeds the texts among them that have no vector.
    pub embeds: Option<(ModelId, Role)>,
    /// The lease of the only one.
    pub lease: Option<LeaseToken>,
    /// When the graph is brought up.
    pub linking: Linking,
    /// The time.
    pub now: UnixMs,
    /// Answers, from the container and which were new.
    pub reply: fn(Ctx<'_>, &SharedCache, &[bool]),
}

/// Stores them all, or refuses the command.
pub fn store_batch<I: Item>(ctx: Ctx<'_>, args: &CommandArgs<'_>, batch: Batch<I>) -> Result<()> {
    run_pieces(args, StoringBatch::new(ctx, args.name(), batch)?);
    Ok(())
}

/// Stores them before this returns, and leaves the reply to the caller: for one, or very few, that have vectors.
pub fn store_at_once<I: Item>(args: &CommandArgs<'_>, batch: Batch<I>) -> Result<()> {
    let mut storing = StoringBatch::new(*args.permit(), args.name(), batch)?;
    while storing.next(args.permit()) {}
    storing.outcome()
}

/// The work of storing a batch.
pub struct StoringBatch<I> {
    /// The container's key.
    name: Vec<u8>,
    cache: Option<SharedCache>,
    settings: Settings,
    known: usize,
    /// What embeds texts, until none are left to read, and how many entries were passed.
    reading: Option<ReadTexts>,
    passed: usize,
    items: std::vec::IntoIter<I>,
    /// Those that are packed, until all are.
    packed: Vec<Packed>,
    /// Those that are to be stored.
    ready: std::vec::IntoIter<(NewEntry, EntryId)>,
    /// The words of the next of them, where its text is long, while they are read.
    words: Option<Box<TextWords>>,
    is_settled: bool,
    /// Whether the command's own call goes on, so that its client may be made to wait for the graph.
    is_first_call: bool,
    /// Whether what is not here is nowhere.
    whole: bool,
    lease: Option<LeaseToken>,
    linking: Linking,
    now: UnixMs,
    news: Vec<bool>,
    refused: Option<Error>,
    reply: fn(Ctx<'_>, &SharedCache, &[bool]),
}

impl<I: Item> Pieces for StoringBatch<I> {
    type Leave<'a> = WritePermit<'a>;

    fn next(&mut self, ctx: WritePermit<'_>) -> bool {
        let goes_on = self.step(ctx);
        goes_on.unwrap_or_else(|error| {
            self.refused = Some(error);
            false
        })
    }

    fn awaits(&mut self) -> Option<&mut dyn Awaited> {
        let is_refused = self.refused.is_some();
        let reading = self.reading.as_mut().filter(|reading| !is_refused && reading.must_wait());
        reading.map(|reading| reading as &mut dyn Awaited)
    }

    fn tell(&mut self, _: WritePermit<'_>) {
        self.is_first_call = false;
    }

    fn reply(&mut self, ctx: Ctx<'_>) {
        match (&self.refused, &self.cache) {
            (None, Some(cache)) => (self.reply)(ctx, cache, &self.news),
            (Some(error), _) => Reply::new(ctx).error(&error.to_string()),
            (None, None) => Reply::new(ctx).internal_error(),
        }
    }

    fn known(&self) -> usize {
        self.known
    }
}

impl<I: Item> StoringBatch<I> {
    /// The work on a batch for the container of this name.
    pub fn new(ctx: Ctx<'_>, name: &[u8], batch: Batch<I>) -> Result<Self> {
        let Batch { cache, settings, items, embeds, lease, linking, now, reply } = batch;
        let embeds = embeds.filter(|_| items.iter().any(|item| item.wanted().is_some()));
        let reading = embeds.map(|(model, role)| ReadTexts::new(ctx, &model, role)).transpose()?;
        let mut dims =
            items.iter().filter_map(Item::dim).chain(reading.as_ref().map(ReadTexts::dim));
        let dim = dims.next();
        if let Some(dim) = dim {
            if let Some(other) = dims.find(|&other| other != dim) {
                return Err(dim_mismatch(other, dim, name));
            }
            if let Some(cache) = &cache {
                check_dim(cache, dim, name)?;
            }
        }
        let whole = Presence::of(ctx, name).is_whole();
        let count = items.len();
        let read_bytes: usize = items.iter().map(|item| item.read_bytes(&settings)).sum();
        Ok(Self {
            name: name.to_vec(),
            cache,
            settings,
            // Long vectors and texts are as good as several things.
            known: count * (1 + dim.unwrap_or(0) / limits::UNBLOCKABLE_PIECE_NUMBERS)
                + read_bytes / limits::UNBLOCKABLE_PIECE_READ_BYTES,
            reading,
            passed: 0,
            items: items.into_iter(),
            packed: Vec::with_capacity(count),
            ready: Vec::new().into_iter(),
            words: None,
            is_settled: false,
            is_first_call: true,
            whole,
            lease,
            linking,
            now,
            news: Vec::with_capacity(count),
            refused: None,
            reply,
        })
    }

    /// How it ended.
    pub fn outcome(&mut self) -> Result<()> {
        self.refused.take().map_or(Ok(()), Err)
    }

    /// Does the next thing; false when there was none, or what comes next waits.
    fn step(&mut self, ctx: WritePermit<'_>) -> Result<bool> {
        if let Some(reading) = &mut self.reading {
            if let Some(item) = self.items.as_slice().get(self.passed) {
                self.passed += 1;
                if let Some((text, cut)) = item.wanted() {
                    reading.read(text, cut)?;
                }
                return Ok(true);
            }
            if reading.must_wait() {
                return Ok(false);
            }
            self.embed(ctx)?;
            return Ok(true);
        }
        match self.items.next() {
            Some(item) => self.pack(item)?,
            None if !self.is_settled => self.settle(ctx)?,
            None => self.store_next(ctx)?,
        }
        Ok(!self.is_settled || self.ready.len() > 0)
    }

    /// All texts are embedded: gives them their vectors, or refuses the command for one that has none.
    fn embed(&mut self, ctx: WritePermit<'_>) -> Result<()> {
        let Some(reading) = self.reading.take() else { return Ok(()) };
        if reading.has_waited() && ctx.state().is_out_of_memory() {
            // As the server does with one that did not wait.
            return Err(Error::out_of_memory());
        }
        let items = self.items.as_mut_slice().iter_mut();
        let without = items.filter(|item| item.wanted().is_some());
        for (item, vector) in without.zip(reading.finish()?) {
            item.embedded(vector.map_err(|refusal| no_vector(Some(refusal)))?);
        }
        Ok(())
    }

    fn pack(&mut self, item: I) -> Result<()> {
        let packed = item.pack(&self.settings, self.now)?;
        count_bytes(packed.entry.as_bytes().len());
        let (most, bytes) = (self.settings.max_memory_bytes, packed.entry.as_bytes().len());
        if self.cache.is_none() && most > 0 && bytes as u64 > most {
            return Err(Error::too_big("the entry", bytes, most as usize, "bytes (MAXMEMORY)"));
        }
        self.packed.push(packed);
        Ok(())
    }

    /// All are packed: makes the container if it is still not there, and checks what only it can tell.
    fn settle(&mut self, ctx: WritePermit<'_>) -> Result<()> {
        let cache = match &self.cache {
            Some(cache) => SharedCache::clone(cache),
            None => self.container(ctx)?,
        };
        let presence = Presence::of(*ctx, &self.name);
        let mut ready = Vec::with_capacity(self.packed.len());
        for Packed { entry, text, name, id, expire_at, hits } in self.packed.drain(..) {
            let key = cache.with(|cache| cache.named_key(&name));
            if !self.whole {
                let there = open_entry(*ctx, &key, Access::Probe).is_some();
                presence.found(there.then_some(()))?;
            }
            let (words, linking) = (None, self.linking);
            let new = NewEntry { key, entry, text, words, expire_at, linking, hits };
            check_fits(&cache, &new)?;
            ready.push((new, id));
        }
        if let (Some(token), Some((_, id))) = (self.lease, ready.first()) {
            check_lease(*ctx, &cache, (b"", &[]), token, *id)?;
        }
        (self.cache, self.ready, self.is_settled) = (Some(cache), ready.into_iter(), true);
        Ok(())
    }

    /// The container that was not there when the command came.
    fn container(&self, ctx: WritePermit<'_>) -> Result<SharedCache> {
        let made = open_container(*ctx, &RString::new(&self.name), self.settings.kind)?;
        let Some(made) = made else {
            return auto_create_as(ctx, &self.name, self.settings.clone());
        };
        let fits = made.with(|cache| {
            let of = |s: &Settings| (s.quant, s.dim, s.matryoshka);
            of(&cache.settings) == of(&self.settings) && cache.settings.model == self.settings.model
        });
        if fits { Ok(made) } else { Err(changed("another client made the container meanwhile")) }
    }

    /// Reads of the next text, if that is long; whether it is read to its end.
    fn read_words(&self, cache: &SharedCache, words: &mut Option<Box<TextWords>>) -> bool {
        let text = self.ready.as_slice().first().and_then(|(new, _)| new.text.as_ref());
        let text = text.map(HeldString::as_bytes).unwrap_or_default();
        if text.len() <= limits::WORDS_AT_ONCE_BYTES {
            return true;
        }
        cache.with(|cache| match cache.index.words() {
            Some(index) => {
                let words = words.get_or_insert_default();
                words.read(index.analyser(), text, READ_AT_ONCE_BYTES)
            }
            None => true,
        })
    }

    fn store_next(&mut self, ctx: WritePermit<'_>) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let uid = cache.with(|cache| cache.uid());
        if CACHES.find(uid, ctx.db()).is_none() {
            return Err(changed("the container was removed before all was stored"));
        }
        let mut words = self.words.take();
        if !self.read_words(cache, &mut words) {
            self.words = words;
            return Ok(());
        }
        let Some((mut new, id)) = self.ready.next() else { return Ok(()) };
        new.words = words;
        new.entry.adopt(uid, cache.with(|cache| cache.seq_after(0)));
        if !self.is_first_call {
            new.linking = Linking::AlongTheWay;
        }
        let replaces = open_entry(*ctx, &new.key, Access::Probe).is_some();
        self.news.push(!replaces);
        let name = RString::new(&self.name);
        Storing { ctx, cache, name: &name, now: self.now }.keep(new, id, replaces, self.lease);
        Ok(())
    }
}

/// The error of a command that others got in the way of.
fn changed(why: &'static str) -> Error {
    Error::new(ErrorWord::Busy, format!("{why}; repeat the command"))
}
