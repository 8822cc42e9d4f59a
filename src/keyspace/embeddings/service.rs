//! The models, the threads, who waits for which text, and the vectors that are remembered.
//!
//! Owns: the one `Service`. Main thread only.

use super::model_id::{ModelId, hex};
use super::work::{Came, Job, Made, Outcome, Seen, Share, Text, TextKey, Vector};
use crate::config;
use crate::ffi::{BlockedId, Ctx, MainCell, Threads};
use crate::keyspace::search_rounds::Answer;
use crate::keyspace::slices::Resume;
use hashbrown::{HashMap, HashSet};
use llmcache_core::embed::{Engine, Model, Refusal, Scratch, Shared, Tokens, engine, engines};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Has a client whose vectors are there go on waiting for something else, between commands; false where its command is to
/// be run again.
pub type Take = Box<dyn Fn(Ctx<'_>, BlockedId) -> bool + Send>;

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

/// A text in the hands of the threads.
pub(super) struct Pending {
    pub(super) clients: Vec<BlockedId>,
    pub(super) text: Arc<Text>,
    pub(super) is_wanted: Arc<AtomicBool>,
    pub(super) bytes: usize,
}

/// A client that waits for texts.
pub(super) struct Awaited {
    pub(super) missing: HashSet<TextKey>,
    pub(super) found: Found,
    pub(super) writes: bool,
    /// What only reads goes on in rounds, as if it had come with its vectors.
    pub(super) reads: Option<Answer>,
    pub(super) take: Option<Take>,
    /// What goes on with one that waits in the middle of its work.
    pub(super) resume: Option<Resume>,
}

/// What came of the texts of a command.
pub(in crate::keyspace) type Found = HashMap<TextKey, Came>;

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
    /// Texts that idle threads computed together.
    pub shared: u64,
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
pub(super) struct Service {
    models: Vec<(String, Arc<Model>)>,
    pub(super) threads: Option<Threads<Job>>,
    pub(super) texts: HashMap<TextKey, Pending>,
    pub(super) clients: HashMap<BlockedId, Awaited>,
    pub(super) queued_bytes: usize,
    memo: HashMap<TextKey, (Vector, Seen)>,
    /// Bytes of its vectors.
    memo_bytes: usize,
    /// The remembered in the order they came.
    order: VecDeque<TextKey>,
    pub(super) scratch: Scratch,
    pub(super) counts: EmbeddingCounts,
    /// What the running command was run again with.
    pub(super) again: Option<Found>,
    /// Clients that may have to wait once more, in their order, and the one of them that is run again now.
    pub(super) ready: VecDeque<BlockedId>,
    pub(super) turn: Option<BlockedId>,
}

pub(super) static SERVICE: LazyLock<MainCell<Service>> =
    LazyLock::new(|| MainCell::new(Service::default()));

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

impl ModelId {
    /// A loaded model by name.
    pub fn of_loaded(name: &[u8], any_script: bool) -> Result<Self> {
        let model = SERVICE.with(|service| service.by_name(name).map(|(_, model)| model));
        let model = model.ok_or_else(|| no_model(name))?;
        let name = String::from_utf8_lossy(name).into_owned();
        Ok(Self { name, digest: hex(&model.digest()), any_script })
    }
}

impl Service {
    fn by_name(&self, name: &[u8]) -> Option<(usize, Arc<Model>)> {
        let place = self.models.iter().position(|(other, _)| other.as_bytes() == name)?;
        Some((place, Arc::clone(&self.models[place].1)))
    }

    pub(super) fn find(&self, id: &ModelId) -> Result<(usize, Arc<Model>)> {
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

    /// What came of a text already: for the command that waited for it, or a vector that is remembered.
    pub(super) fn known(&mut self, key: &TextKey) -> Option<Came> {
        if let Some(came) = self.again.as_ref().and_then(|found| found.get(key)) {
            return Some(came.clone());
        }
        let (vector, seen) = self.memo.get(key)?;
        self.counts.remembered += 1;
        Some(Came::Vector(Made { vector: Arc::clone(vector), us: 0, seen: *seen }))
    }

    fn remember(&mut self, key: TextKey, made: &Made) {
        let most = config::embed_memo();
        let kept = (Arc::clone(&made.vector), made.seen);
        if most > 0 && self.memo.insert(key, kept).is_none() {
            self.order.push_back(key);
            self.memo_bytes += size_of_val(&*made.vector);
        }
        while self.memo.len() > most {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.memo.remove(&oldest);
            self.memo_bytes -= gone.map_or(0, |(vector, _)| size_of_val(&*vector));
        }
    }

    pub(super) fn embed_now(
        &mut self,
        key: TextKey,
        model: &Model,
        tokens: &Tokens,
    ) -> Option<Made> {
        let begin = Instant::now();
        let vector: Vector = model.embed(tokens, &mut self.scratch)?.into();
        self.counts.embedded += 1;
        self.counts.inline += 1;
        let us = begin.elapsed().as_micros() as u64;
        self.counts.us += us;
        let made = Made { vector, us, seen: Seen::of(tokens) };
        self.remember(key, &made);
        Some(made)
    }

    /// Takes a client off the texts it waits for, and what was found for it.
    pub(super) fn end(&mut self, client: BlockedId) -> Option<Awaited> {
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

impl Service {
    /// Gives a text to a thread; one that is `alone` and long to all that are idle, which compute it together.
    pub(super) fn submit(
        &mut self,
        key: TextKey,
        model: &Arc<Model>,
        pending: &Pending,
        alone: bool,
    ) {
        let Some(threads) = &self.threads else { return };
        let helpers = if alone { self.helpers(model, &pending.text) } else { 0 };
        let job = |share| Job {
            key,
            model: Arc::clone(model),
            text: Arc::clone(&pending.text),
            share,
            is_wanted: Arc::clone(&pending.is_wanted),
            outcome: Outcome::Skipped,
        };
        match &*pending.text {
            Text::Read(tokens) if helpers > 0 => {
                self.counts.shared += 1;
                let shared = Arc::new(Shared::new(tokens.ids.len(), helpers + 1));
                threads.submit(job(Share::Led(Arc::clone(&shared))));
                for _ in 0..helpers {
                    threads.submit(job(Share::Helped(Arc::clone(&shared), 0)));
                }
            }
            _ => threads.submit(job(Share::Whole)),
        }
    }

    /// Threads that have nothing else to do than to help with a text, which is not among those on their way yet.
    fn helpers(&self, model: &Model, text: &Text) -> usize {
        let least = config::embed_share_tokens();
        match text {
            Text::Read(tokens) if least > 0 && tokens.ids.len() >= least && !model.is_static() => {
                let threads = self.threads.as_ref().map_or(0, Threads::count);
                threads.min(config::embed_threads()).saturating_sub(self.texts.len() + 1)
            }
            _ => 0,
        }
    }

    /// Takes in what a thread did; answers the clients that have all they wait for.
    pub(super) fn take_in(&mut self, key: TextKey, outcome: Option<Outcome>) -> Vec<BlockedId> {
        let Some(pending) = self.texts.remove(&key) else { return Vec::new() };
        let came = match outcome {
            // Somebody came to want it just then.
            Some(Outcome::Skipped) if !pending.clients.is_empty() => {
                let model = Arc::clone(&self.models[key.model].1);
                self.submit(key, &model, &pending, false);
                self.texts.insert(key, pending);
                return Vec::new();
            }
            Some(Outcome::Came(came)) => came,
            // One that panicked gives none either.
            Some(Outcome::Skipped) | None => Came::Nothing,
        };
        match &came {
            Came::Vector(made) => {
                self.counts.embedded += 1;
                self.counts.us += made.us;
                self.remember(key, made);
            }
            Came::Refused(refusal) => self.counts.refused[*refusal as usize] += 1,
            Came::Nothing => {}
        }
        self.queued_bytes -= pending.bytes;
        let mut complete = Vec::new();
        for client in pending.clients {
            let Some(awaited) = self.clients.get_mut(&client) else { continue };
            awaited.missing.remove(&key);
            awaited.found.insert(key, came.clone());
            if awaited.missing.is_empty() {
                complete.push(client);
            }
        }
        complete
    }
}
