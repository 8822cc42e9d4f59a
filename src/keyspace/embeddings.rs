//! Texts that are embedded here: in threads while their client waits, and the command is run again when its vectors
//! are there.
//!
//! Owns: the models, the threads, who waits for which text, and the vectors that are remembered. A vector is an
//! argument that arrives late: the command that needs it ends without a reply, and is run again from its arguments
//! as if it had just come, so that whatever happened meanwhile (FLUSHALL, a dropped container, INVALIDATE) is met by
//! the same code as ever. What the server itself checked before the first run (role, memory, hash slot, pause) is
//! checked here before the second. Main thread only; a thread gets a model and tokens and knows no key and no client.

use crate::config;
use crate::ffi::{
    Arguments, BlockedId, CommandArgs, Ctx, Handler, Handles, MainCell, Reply, Threads, Waiter,
    Wake, Work, WritePermit, block_client, count_time_from_now, run_later, wake_blocked,
    work_in_rounds,
};
use crate::keyspace::search_rounds::{Answer, go_on_in_rounds};
use crate::keyspace::searches::Searches;
use crate::keyspace::slices::Resume;
use crate::keyspace::slots::redirection;
use hashbrown::{HashMap, HashSet};
use llmcache_core::cache::Settings;
use llmcache_core::cache::guard::{Sight, Unseen, UnseenDigest};
use llmcache_core::embed::{Engine, Model, Refusal, Role, Scratch, Tokens, engine, engines};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use llmcache_core::vector::Query;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// The model of a container as its settings name it: `name@digest`, and `/any` where every script is embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    name: String,
    digest: String,
    any_script: bool,
}

/// What follows the digest where texts of every script are embedded.
const ANY_SCRIPT: &str = "/any";

impl ModelId {
    /// A loaded model by name.
    pub fn of_loaded(name: &[u8], any_script: bool) -> Result<Self> {
        let model = SERVICE.with(|service| service.by_name(name).map(|(_, model)| model));
        let model = model.ok_or_else(|| no_model(name))?;
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Self { name, digest: hex(&model.digest()), any_script })
    }

    /// The model that a container's settings name, if texts are embedded for it.
    pub fn of(settings: &Settings) -> Option<Self> {
        Self::parse(&settings.model)
    }

    /// The model of such a text; `None` of one that names none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (text, any_script) = match text.strip_suffix(ANY_SCRIPT) {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (name, digest) = text.rsplit_once('@')?;
        let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| Self { name: name.into(), digest: digest.into(), any_script })
    }

    /// As settings keep it.
    pub fn text(&self) -> Box<[u8]> {
        let Self { name, digest, any_script } = self;
        let any = if *any_script { ANY_SCRIPT } else { "" };
        format!("{name}@{digest}{any}").into_bytes().into()
    }
}

/// Dimension of a model's vectors, and the similarity from which its texts mean the same, where that is known.
pub fn model_of(id: &ModelId) -> Result<(u32, Option<f64>)> {
    let (_, model) = SERVICE.with(|service| service.find(id))?;
    Ok((model.dim() as u32, model.threshold()))
}

/// The model of containers for which nothing else is said.
pub fn default_model() -> Option<ModelId> {
    let name = config::embed_default();
    if name.is_empty() { None } else { ModelId::of_loaded(name.as_bytes(), false).ok() }
}

fn no_model(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(64)]);
    Error::new(ErrorWord::NoModel, format!("no model \"{name}\" is loaded (llmcache.embed-models)"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names a text among those that one model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TextKey {
    model: usize,
    role: Role,
    digest: [u8; 16],
}

/// A vector, and how many microseconds it took to make for whoever waited; none for who finds it.
pub(super) type Made = (Vector, u64);
type Vector = Arc<[f32]>;

/// A text on its way through a thread.
struct Job {
    key: TextKey,
    model: Arc<Model>,
    tokens: Arc<Tokens>,
    is_wanted: Arc<AtomicBool>,
    outcome: Outcome,
}

enum Outcome {
    /// Nobody waited for it when its turn came.
    Skipped,
    /// The model gives no vector of finite numbers.
    None,
    /// Its vector, and how long that took.
    Vector(Vec<f32>, u64),
}

impl Work for Job {
    const THREAD: &'static str = "llmcache-embed";
    type Scratch = Scratch;
    type Ticket = TextKey;
    type Outcome = Outcome;

    fn ticket(&self) -> TextKey {
        self.key
    }

    fn slice(&mut self, scratch: &mut Scratch) -> bool {
        if self.is_wanted.load(Ordering::Relaxed) {
            let begin = Instant::now();
            self.outcome = match self.model.embed(&self.tokens, scratch) {
                Some(vector) => Outcome::Vector(vector, begin.elapsed().as_micros() as u64),
                None => Outcome::None,
            };
        }
        true
    }

    fn end(self) -> Outcome {
        self.outcome
    }
}

/// A text in the hands of the threads.
struct Pending {
    clients: Vec<BlockedId>,
    tokens: Arc<Tokens>,
    is_wanted: Arc<AtomicBool>,
    bytes: usize,
}

/// A client that waits for texts.
struct Awaited {
    missing: HashSet<TextKey>,
    found: Found,
    writes: bool,
    /// What only reads goes on in rounds, as if it had come with its vectors.
    reads: Option<Answer>,
    take: Option<Take>,
    /// What goes on with one that waits in the middle of its work.
    resume: Option<Resume>,
}

/// What was embedded for a command; no vector where the model gave none.
pub(super) type Found = Vec<(TextKey, Option<Made>)>;

/// What INFO shows.
#[derive(Debug, Default, Clone)]
pub struct EmbeddingCounts {
    /// Models that are loaded.
    pub models: usize,
    /// Their bytes.
    pub model_bytes: usize,
    /// Texts embedded, in threads and at once.
    pub embedded: u64,
    /// Those of them that held up the main thread.
    pub inline: u64,
    /// Texts whose vector was remembered.
    pub remembered: u64,
    /// Vectors that are remembered now, and their bytes.
    pub memo: (usize, usize),
    /// Texts that were being embedded for another client already.
    pub coalesced: u64,
    /// Texts refused because the queue was full or they waited too long.
    pub busy: u64,
    /// Texts that are not embedded, by `Refusal`.
    pub refused: [u64; Refusal::ALL.len()],
    /// Texts that wait or are at work now, and the most at once.
    pub queued: usize,
    /// See `queued`.
    pub queued_most: usize,
    /// Microseconds that embedding took.
    pub us: u64,
}

#[derive(Default)]
struct Service {
    models: Vec<(String, Arc<Model>)>,
    threads: Option<Threads<Job>>,
    texts: HashMap<TextKey, Pending>,
    clients: HashMap<BlockedId, Awaited>,
    queued_bytes: usize,
    memo: HashMap<TextKey, Vector>,
    /// Bytes of its vectors.
    memo_bytes: usize,
    /// The remembered in the order they came.
    order: VecDeque<TextKey>,
    scratch: Scratch,
    counts: EmbeddingCounts,
    /// What the running command was run again with.
    again: Option<Found>,
    /// Clients that may have to wait once more, in their order, and the one of them that is run again now.
    ready: VecDeque<BlockedId>,
    turn: Option<BlockedId>,
}

static SERVICE: LazyLock<MainCell<Service>> = LazyLock::new(|| MainCell::new(Service::default()));

/// Reads the models that the configuration names. Before the server serves: what is wrong with one refuses the module.
pub fn load_models(ctx: Ctx<'_>) -> std::result::Result<(), String> {
    let engine = chosen_engine()?;
    let text = config::embed_models();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, folder) = part.split_once('=').ok_or("embed-models must be name=folder;…")?;
        let (name, folder) = (name.trim(), folder.trim());
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > limits::EMBED_NAME_MAX_BYTES || !name.chars().all(fits) {
            return Err(format!("the model name {name:?} must be letters, digits, '-', '_', '.'"));
        }
        let begin = Instant::now();
        let model = Model::load(Path::new(folder), engine)
            .map_err(|error| format!("the model {name} in {folder}: {error}"))?;
        ctx.log_notice(&format!(
            "the model {name} is loaded: {} dimensions, {} KB, {} ms, engine {}",
            model.dim(),
            model.allocated_bytes() >> 10,
            begin.elapsed().as_millis(),
            engine.name
        ));
        SERVICE.with(|service| {
            if service.by_name(name.as_bytes()).is_some() {
                return Err(format!("the model {name} is named twice"));
            }
            if service.models.len() == limits::EMBED_MODELS_MAX {
                return Err(format!("more than {} models", limits::EMBED_MODELS_MAX));
            }
            service.counts.models += 1;
            service.counts.model_bytes += model.allocated_bytes();
            service.models.push((name.to_owned(), Arc::new(model)));
            Ok(())
        })?;
    }
    let default = config::embed_default();
    if !default.is_empty() && SERVICE.with(|s| s.by_name(default.as_bytes()).is_none()) {
        return Err(format!("embed-default names {default:?}, which embed-models does not"));
    }
    Ok(())
}

fn chosen_engine() -> std::result::Result<Engine, String> {
    let name = config::embed_engine();
    if name.is_empty() {
        return Ok(engine());
    }
    let engines = engines();
    let found = engines.iter().find(|engine| engine.name == name).copied();
    let names: Vec<&str> = engines.iter().map(|engine| engine.name).collect();
    found.ok_or_else(|| format!("embed-engine must be one of {}, not {name:?}", names.join(", ")))
}

/// What was done and what waits, for INFO.
pub fn embedding_counts() -> EmbeddingCounts {
    SERVICE.with(|service| {
        let bytes = service.memo_bytes
            + service.memo.allocation_size()
            + service.order.capacity() * size_of::<TextKey>();
        let memo = (service.memo.len(), bytes);
        EmbeddingCounts { queued: service.texts.len(), memo, ..service.counts.clone() }
    })
}

/// Whether the running command waited for its texts and is run again, so that it must not wait once more.
pub fn is_running_again() -> bool {
    SERVICE.with(|service| service.again.is_some())
}

impl Service {
    fn by_name(&self, name: &[u8]) -> Option<(usize, Arc<Model>)> {
        let place = self.models.iter().position(|(other, _)| other.as_bytes() == name)?;
        Some((place, Arc::clone(&self.models[place].1)))
    }

    fn find(&self, id: &ModelId) -> Result<(usize, Arc<Model>)> {
        let (place, model) =
            self.by_name(id.name.as_bytes()).ok_or_else(|| no_model(id.name.as_bytes()))?;
        if hex(&model.digest()) != id.digest {
            let name = &id.name;
            let message =
                format!("the model \"{name}\" loaded here is another than the container's");
            return Err(Error::new(ErrorWord::ModelMismatch, message));
        }
        Ok((place, model))
    }

    /// A vector that is there already.
    fn known(&mut self, key: &TextKey) -> Option<Option<Made>> {
        if let Some(found) = &self.again
            && let Some((_, vector)) = found.iter().find(|(other, _)| other == key)
        {
            return Some(vector.clone());
        }
        let vector = self.memo.get(key)?;
        self.counts.remembered += 1;
        Some(Some((Arc::clone(vector), 0)))
    }

    fn remember(&mut self, key: TextKey, vector: &Vector) {
        let most = config::embed_memo();
        if most > 0 && self.memo.insert(key, Arc::clone(vector)).is_none() {
            self.order.push_back(key);
            self.memo_bytes += size_of_val(&**vector);
        }
        while self.memo.len() > most {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.memo.remove(&oldest);
            self.memo_bytes -= gone.map_or(0, |vector| size_of_val(&*vector));
        }
    }

    fn embed_now(&mut self, key: TextKey, model: &Model, tokens: &Tokens) -> Option<Made> {
        let begin = Instant::now();
        let vector: Vector = model.embed(tokens, &mut self.scratch)?.into();
        self.counts.embedded += 1;
        self.counts.inline += 1;
        let us = begin.elapsed().as_micros() as u64;
        self.counts.us += us;
        self.remember(key, &vector);
        Some((vector, us))
    }

    /// Takes a client off the texts it waits for, and what was found for it.
    fn end(&mut self, client: BlockedId) -> Option<Awaited> {
        let awaited = self.clients.remove(&client)?;
        for key in &awaited.missing {
            if let Some(pending) = self.texts.get_mut(key) {
                pending.clients.retain(|other| *other != client);
                if pending.clients.is_empty() {
                    pending.is_wanted.store(false, Ordering::Relaxed);
                }
            }
        }
        Some(awaited)
    }
}

/// Texts that a command needs the vectors of.
#[derive(Debug)]
pub struct Texts<'a> {
    /// Whose model.
    pub model: &'a ModelId,
    /// What they are embedded as.
    pub role: Role,
    /// The texts.
    pub texts: &'a [&'a [u8]],
    /// Those of them of which the beginning will do where the model cannot read all; none where this is empty.
    pub cut: &'a [bool],
}

/// What a text means.
#[derive(Debug)]
pub struct Meant {
    /// Its vector.
    pub query: Query,
    /// What that does not show of it.
    pub unseen: Unseen,
    /// Tokens that the model reads.
    pub tokens: usize,
    /// Microseconds that it took to embed; 0 where the vector was remembered.
    pub us: u64,
}

/// Has a client whose vectors are there go on waiting for something else, between commands; false where its command is to
/// be run again.
pub type Take = Box<dyn Fn(Ctx<'_>, BlockedId) -> bool + Send>;

/// How a command goes on.
pub enum Again<'a> {
    /// One that only reads: it goes on in rounds, so that what takes long is left to the threads that search.
    Reads(Answer, Handles<'a>),
    /// One that stores: what the server checked before its first run is checked before its second, memory too.
    Writes(Handler),
    /// One that would store what it computes where there is memory, and looks to that itself.
    Fills(Handler),
    /// One that writes, stores nothing that the server would refuse without memory, and may have to wait once more, which nothing can in its second run. One of these is run again
    /// at a time, so that the next sees what it did.
    Takes(Handler, Take),
    /// One that has to wait for something else, which nothing can in a second run: texts are embedded at once.
    Never,
}

/// How a command that waits is run once more.
struct SecondRun<'a> {
    second: Second,
    take: Option<Take>,
    /// Where it may go on in rounds: by what, and its arguments.
    rounds: Option<(Answer, Handles<'a>)>,
}

impl<'a> Again<'a> {
    /// The second run, where there may be one.
    fn second(self) -> Option<SecondRun<'a>> {
        let (second, take, rounds) = match self {
            Self::Reads(answer, args) => (Second::Reads(answer), None, Some((answer, args))),
            Self::Writes(handler) => (Second::Writes(handler, Memory::Needed), None, None),
            Self::Fills(handler) => (Second::Writes(handler, Memory::Spared), None, None),
            Self::Takes(handler, take) => {
                (Second::Writes(handler, Memory::Spared), Some(take), None)
            }
            Self::Never => return None,
        };
        Some(SecondRun { second, take, rounds })
    }
}

/// The words that a model does not know.
#[derive(Debug)]
struct ModelSight {
    model: Arc<Model>,
    role: Role,
}

impl Sight for ModelSight {
    fn unseen(&self, text: &[u8]) -> Option<UnseenDigest> {
        self.model.unseen(std::str::from_utf8(text).ok()?, self.role)
    }

    fn strips_difference(&self, one: &[u8], other: &[u8]) -> bool {
        match (std::str::from_utf8(one), std::str::from_utf8(other)) {
            (Ok(one), Ok(other)) => self.model.strips_difference(one, other),
            _ => false,
        }
    }
}

/// Reads texts for a model.
pub(super) struct Reader {
    place: usize,
    pub(super) model: Arc<Model>,
    role: Role,
    any_script: bool,
}

impl Reader {
    pub(super) fn new(id: &ModelId, role: Role) -> Result<Self> {
        let (place, model) = SERVICE.with(|service| service.find(id))?;
        let role = if model.reads_alike() { Role::Query } else { role };
        Ok(Self { place, model, role, any_script: id.any_script })
    }

    /// What names a text, and what the model sees of it; counts one that it does not read.
    pub(super) fn read(
        &self,
        bytes: &[u8],
        cuts: bool,
    ) -> std::result::Result<(TextKey, Tokens), Refusal> {
        let digest = Sha256::digest(bytes);
        let mut key = TextKey { model: self.place, role: self.role, digest: [0; 16] };
        key.digest.copy_from_slice(&digest[..16]);
        // What is not UTF-8 would lose the bytes that tell it from others.
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Script);
        let tokens = text.and_then(|text| match cuts {
            true => self.model.read_beginning(text, self.role, self.any_script),
            false => self.model.read(text, self.role, self.any_script),
        });
        match tokens {
            Ok(tokens) => Ok((key, tokens)),
            Err(refusal) => {
                SERVICE.with(|service| service.counts.refused[refusal as usize] += 1);
                Err(refusal)
            }
        }
    }

    /// A vector that is remembered.
    pub(super) fn known(key: &TextKey) -> Option<Made> {
        SERVICE.with(|service| service.known(key)).flatten()
    }

    /// Embeds a text here and now.
    pub(super) fn embed_now(&self, key: TextKey, tokens: &Tokens) -> Result<Made> {
        let made = SERVICE.with(|service| service.embed_now(key, &self.model, tokens));
        made.ok_or_else(no_vector)
    }
}

/// What a text that waits takes: of a longer one only the beginning is read.
pub(super) fn held_bytes(text: &[u8]) -> usize {
    text.len().min(limits::EMBED_TEXT_MAX_BYTES)
}

/// What came of texts.
#[derive(Debug)]
pub enum Embedded {
    /// Of each text its vector and what that does not show, or why it has none.
    Now(Vec<std::result::Result<Meant, Refusal>>),
    /// They are being embedded: the command is to end without a reply, and is run again.
    Later,
}

/// The vectors of texts. `again` is the running command, which is called once more where this answers `Later`.
pub fn embed(ctx: Ctx<'_>, texts: &Texts<'_>, again: Again<'_>) -> Result<Embedded> {
    let reader = Reader::new(texts.model, texts.role)?;
    let (model, role) = (Arc::clone(&reader.model), reader.role);
    let sight: Arc<dyn Sight> = Arc::new(ModelSight { model: Arc::clone(&model), role });
    let meant = |made: Option<Made>, tokens: &Tokens, text: &[u8]| -> Result<_> {
        let (vector, us) = made.ok_or_else(no_vector)?;
        let unseen = Unseen::new(Arc::clone(&sight), tokens.unknown, text);
        let query = Query::of(vector.to_vec()).map_err(|_| no_vector())?;
        Ok(Some(Ok(Meant { query, unseen, tokens: tokens.ids.len(), us })))
    };
    let (mut known, mut missing) = (Vec::with_capacity(texts.texts.len()), Vec::new());
    for (number, bytes) in texts.texts.iter().enumerate() {
        let cuts = texts.cut.get(number).is_some_and(|cuts| *cuts);
        let (key, tokens) = match reader.read(bytes, cuts) {
            Ok(read) => read,
            Err(refusal) => {
                known.push(Some(Err(refusal)));
                continue;
            }
        };
        match SERVICE.with(|service| service.known(&key)) {
            Some(made) => known.push(meant(made, &tokens, bytes)?),
            None => {
                known.push(None);
                missing.push((number, key, tokens, held_bytes(bytes)));
            }
        }
    }
    if !missing.is_empty()
        && !model.is_static()
        && has_threads(ctx)
        && let Some(second) = again.second()
    {
        let wanted = missing.into_iter().map(|(_, key, tokens, bytes)| (key, tokens, bytes));
        return wait_for(ctx, &model, wanted.collect(), second);
    }
    let inline: usize = missing.iter().map(|(_, _, tokens, _)| tokens.ids.len()).sum();
    // A static model takes microseconds.
    let most = if model.is_static() { usize::MAX } else { config::embed_inline_tokens() };
    if inline > most && is_running_again() {
        // What was kept when the command came is gone.
        return Err(busy("a text has to be embedded that did not when the command came"));
    }
    if inline > most {
        return Err(too_long_inline(inline, most));
    }
    for (number, key, tokens, _) in missing {
        let made = SERVICE.with(|service| service.embed_now(key, &model, &tokens));
        known[number] = meant(made, &tokens, texts.texts[number])?;
    }
    Ok(Embedded::Now(known.into_iter().flatten().collect()))
}

/// The error of so many tokens to embed where so many are the most.
pub(super) fn too_long_inline(tokens: usize, most: usize) -> Error {
    let text = format!("{tokens} tokens to embed, at most {most} where no client may wait");
    Error::new(ErrorWord::EmbedLong, text)
}

pub(super) fn no_vector() -> Error {
    Error::new(ErrorWord::BadVector, "the model gives no vector for the text")
}

/// Whether the running command may leave texts to threads.
pub(super) fn has_threads(ctx: Ctx<'_>) -> bool {
    let (state, wanted) = (ctx.state(), config::embed_threads());
    if wanted == 0 || !state.may_block() || state.must_obey() {
        return false;
    }
    SERVICE.with(|service| {
        if service.threads.is_none() {
            service.threads = Threads::new(ctx, on_done);
        }
        service.threads.as_mut().is_some_and(|threads| threads.have(wanted) > 0)
    })
}

fn busy(what: &'static str) -> Error {
    Error::new(ErrorWord::Busy, what)
}

/// Texts that have no vector yet, and the bytes that each takes.
pub(super) type Wanted = Vec<(TextKey, Tokens, usize)>;

/// Refuses more texts than may wait; how long a client waits for these.
fn room_for(wanted: &Wanted) -> Result<u64> {
    SERVICE.with(|service| {
        let is_new = |key: &TextKey| !service.texts.contains_key(key);
        let new = wanted.iter().filter(|(key, ..)| is_new(key));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), part| (count + 1, bytes + part.2));
        let full = service.texts.len() + count > config::embed_queue().max(count.min(1))
            || service.queued_bytes + bytes > limits::EMBED_QUEUE_MAX_BYTES;
        if full {
            service.counts.busy += 1;
            return Err(busy("too many texts wait to be embedded"));
        }
        Ok(())
    })?;
    let more = wanted.len().saturating_sub(1) as u64;
    Ok(config::embed_timeout_ms() + more * limits::EMBED_TIMEOUT_PER_TEXT_MS)
}

fn wait_for(
    ctx: Ctx<'_>,
    model: &Arc<Model>,
    wanted: Wanted,
    again: SecondRun<'_>,
) -> Result<Embedded> {
    let timeout_ms = room_for(&wanted)?;
    let SecondRun { second, take, rounds } = again;
    let reads = rounds.map(|(answer, _)| answer);
    let writes = matches!(second, Second::Writes(..));
    let client = block_client(ctx, timeout_ms, |client| Box::new(Embedding { client, second }));
    count_time_from_now(client);
    if let Some((_, args)) = rounds {
        work_in_rounds(ctx, client, args);
    }
    enlist(client, model, wanted, |missing| Awaited {
        missing,
        found: Vec::new(),
        writes,
        reads,
        take,
        resume: None,
    });
    Ok(Embedded::Later)
}

/// Has a client that waits already wait for texts: `resume` is called when all are embedded. How long it waits at most.
pub(super) fn wait_between(
    client: BlockedId,
    model: &Arc<Model>,
    wanted: Wanted,
    resume: Resume,
) -> Result<u64> {
    let timeout_ms = room_for(&wanted)?;
    enlist(client, model, wanted, |missing| Awaited {
        missing,
        found: Vec::new(),
        writes: false,
        reads: None,
        take: None,
        resume: Some(resume),
    });
    Ok(timeout_ms)
}

/// Takes a client off the texts it waits for; what was found for it.
pub(super) fn end_wait(client: BlockedId) -> Found {
    let awaited = SERVICE.with(|service| service.end(client));
    awaited.map(|awaited| awaited.found).unwrap_or_default()
}

/// The error of a client that waited too long.
pub(super) fn waited_too_long() -> Error {
    SERVICE.with(|service| service.counts.busy += 1);
    busy("the text waited too long to be embedded")
}

/// Gives texts to the threads that are not on their way yet.
fn enlist(
    client: BlockedId,
    model: &Arc<Model>,
    wanted: Wanted,
    awaited: impl FnOnce(HashSet<TextKey>) -> Awaited,
) {
    SERVICE.with(|service| {
        let mut missing = HashSet::with_capacity(wanted.len());
        for (key, tokens, bytes) in wanted {
            // A command may have one text twice.
            if !missing.insert(key) {
                continue;
            }
            if let Some(pending) = service.texts.get_mut(&key) {
                pending.clients.push(client);
                pending.is_wanted.store(true, Ordering::Relaxed);
                service.counts.coalesced += 1;
                continue;
            }
            let is_wanted = Arc::new(AtomicBool::new(true));
            let tokens = Arc::new(tokens);
            let pending = Pending { clients: vec![client], tokens, is_wanted, bytes };
            service.queued_bytes += bytes;
            service.submit(key, model, &pending);
            service.texts.insert(key, pending);
        }
        service.counts.queued_most = service.counts.queued_most.max(service.texts.len());
        service.clients.insert(client, awaited(missing));
    });
}

impl Service {
    fn submit(&self, key: TextKey, model: &Arc<Model>, pending: &Pending) {
        let Some(threads) = &self.threads else { return };
        let (tokens, is_wanted) = (Arc::clone(&pending.tokens), Arc::clone(&pending.is_wanted));
        let (model, outcome) = (Arc::clone(model), Outcome::Skipped);
        threads.submit(Job { key, model, tokens, is_wanted, outcome });
    }

    /// Takes in what a thread did; answers the clients that have all they wait for.
    fn take_in(&mut self, key: TextKey, outcome: Option<Outcome>) -> Vec<BlockedId> {
        let Some(pending) = self.texts.remove(&key) else { return Vec::new() };
        let made = match outcome {
            // Somebody came to want it just then.
            Some(Outcome::Skipped) if !pending.clients.is_empty() => {
                let model = Arc::clone(&self.models[key.model].1);
                self.submit(key, &model, &pending);
                self.texts.insert(key, pending);
                return Vec::new();
            }
            Some(Outcome::Vector(vector, us)) => {
                let vector: Vector = vector.into();
                self.counts.embedded += 1;
                self.counts.us += us;
                self.remember(key, &vector);
                Some((vector, us))
            }
            // One that panicked gives none either.
            Some(Outcome::Skipped | Outcome::None) | None => None,
        };
        self.queued_bytes -= pending.bytes;
        let mut complete = Vec::new();
        for client in pending.clients {
            let Some(awaited) = self.clients.get_mut(&client) else { continue };
            awaited.missing.remove(&key);
            awaited.found.push((key, made.clone()));
            if awaited.missing.is_empty() {
                complete.push(client);
            }
        }
        complete
    }
}

/// How long a command that writes waits for writes to be allowed again, each time it asks.
const PAUSE_MS: u64 = 5;

fn on_done(ctx: Ctx<'_>) {
    while let Some((key, outcome)) =
        SERVICE.with(|service| service.threads.as_ref().and_then(Threads::take_done))
    {
        for client in SERVICE.with(|service| service.take_in(key, outcome)) {
            let resume = SERVICE.with(|service| service.clients.get_mut(&client)?.resume.take());
            if let Some(resume) = resume {
                resume(ctx);
                continue;
            }
            let takes = SERVICE.with(|service| {
                let takes = service.clients.get(&client).is_some_and(|c| c.take.is_some());
                if takes {
                    service.ready.push_back(client);
                }
                takes
            });
            if !takes && !read_in_rounds(ctx, client) {
                wake_when_allowed(ctx, client);
            }
        }
        take_turns(ctx);
    }
}

/// Has a command that only reads go on in rounds, each of which has its vectors at hand; false for any other, and where
/// there are no threads that search.
fn read_in_rounds(ctx: Ctx<'_>, client: BlockedId) -> bool {
    let reads = SERVICE.with(|service| {
        let awaited = service.clients.get(&client)?;
        Some((awaited.reads?, awaited.found.clone()))
    });
    let Some((answer, found)) = reads else { return false };
    let around = move |work: &mut dyn FnMut()| {
        SERVICE.with(|service| service.again = Some(found.clone()));
        let _ended = Ended;
        work();
    };
    go_on_in_rounds(ctx, client, answer, Arc::new(around), || {
        SERVICE.with(|service| service.end(client));
    })
}

/// Has those who may have to wait once more do so, up to the first whose command is to be run again.
fn take_turns(ctx: Ctx<'_>) {
    while let Some((client, found, take)) = SERVICE.with(|service| {
        if service.turn.is_some() {
            return None;
        }
        while let Some(client) = service.ready.pop_front() {
            if let Some(awaited) = service.clients.get_mut(&client)
                && let Some(take) = awaited.take.take()
            {
                return Some((client, awaited.found.clone(), take));
            }
        }
        None
    }) {
        let taken = {
            SERVICE.with(|service| service.again = Some(found));
            let _ended = Ended;
            take(ctx, client)
        };
        if taken {
            SERVICE.with(|service| service.end(client));
        } else {
            SERVICE.with(|service| service.turn = Some(client));
            wake_when_allowed(ctx, client);
        }
    }
}

/// The turn of a client is over.
fn end_turn(ctx: Ctx<'_>, client: BlockedId) {
    let ended = SERVICE.with(|service| service.turn.take_if(|turn| *turn == client).is_some());
    if ended {
        take_turns(ctx);
    }
}

/// Wakes a client; one whose command writes only when writes are not paused (a failover, CLIENT PAUSE).
fn wake_when_allowed(ctx: Ctx<'_>, client: BlockedId) {
    let writes = SERVICE.with(|service| service.clients.get(&client).is_some_and(|c| c.writes));
    let paused = WritePermit::between_commands(ctx).is_none() && !ctx.state().is_replica();
    if writes && paused {
        run_later(ctx, PAUSE_MS, Box::new(move |ctx| wake_when_allowed(ctx, client)));
    } else {
        wake_blocked(ctx, client);
    }
}

/// A client that waits for texts.
struct Embedding {
    client: BlockedId,
    second: Second,
}

/// The second run of a command.
#[derive(Clone, Copy)]
enum Second {
    Reads(Answer),
    Writes(Handler, Memory),
}

/// Whether the server refuses a command where memory ran out (the flag `deny-oom` of its row).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Needed,
    Spared,
}

impl Waiter for Embedding {
    fn reply(&mut self, ctx: Ctx<'_>, args: &Arguments<'_>, wake: Wake) {
        let awaited = SERVICE.with(|service| service.end(self.client));
        let answered = match awaited {
            Some(awaited) if wake == Wake::Ready && awaited.missing.is_empty() => {
                self.run_again(ctx, args, awaited.found)
            }
            _ => Err(waited_too_long()),
        };
        if let Err(error) = answered {
            Reply::new(ctx).error(&error.to_string());
        }
        end_turn(ctx, self.client);
    }

    fn gone(&mut self, ctx: Ctx<'_>) {
        SERVICE.with(|service| service.end(self.client));
        end_turn(ctx, self.client);
    }
}

/// Ends the second run of a command, also where it panics.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        SERVICE.with(|service| service.again = None);
    }
}

impl Embedding {
    fn run_again(&self, ctx: Ctx<'_>, args: &Arguments<'_>, found: Found) -> Result<()> {
        if let Some(elsewhere) = redirection(ctx, args.name()) {
            return Err(elsewhere);
        }
        let again_with = |found| {
            SERVICE.with(|service| service.again = Some(found));
            Ended
        };
        match self.second {
            Second::Reads(answer) => {
                let _ended = again_with(found);
                answer(ctx, args, &Searches::after_wait())
            }
            Second::Writes(handler, memory) => {
                let args = CommandArgs::again(args, permit(ctx, memory)?);
                let _ended = again_with(found);
                handler(ctx, &args)
            }
        }
    }
}

/// What the server checked before the command was run first.
fn permit(ctx: Ctx<'_>, memory: Memory) -> Result<WritePermit<'_>> {
    let state = ctx.state();
    if state.is_replica() {
        let why = "You can't write against a read only replica.";
        return Err(Error::new(ErrorWord::ReadOnly, why));
    }
    if memory == Memory::Needed && state.is_out_of_memory() {
        let why = "command not allowed when used memory > 'maxmemory'.";
        return Err(Error::new(ErrorWord::Oom, why));
    }
    let paused = || busy("writes were paused while the text was embedded");
    WritePermit::between_commands(ctx).ok_or_else(paused)
}
