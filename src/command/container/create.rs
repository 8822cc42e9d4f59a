//! `LLMCACHE.CREATE`, `RAG.CREATE`, `EMBCACHE.CREATE`: make a container; and making one of defaults where a
//! store finds none.

use super::no_container;
use crate::command::container::store::{dim_mismatch, shown};
use crate::command::container::texts::{embed_with, settings_for_new};
use crate::command::parse::{ArgReader, OptionWord, flag_once, set_once};
use crate::config;
use crate::ffi::{CommandArgs, Ctx, Reply, WritePermit};
use crate::keyspace::{ModelId, create_cache, default_model, open_container};
use crate::keytype::CREATE_COMMAND;
use crate::keytype::cache_registry::SharedCache;
use crate::keytype::container_registry::shared;
use llmcache_core::cache::guard::{GuardLevel, NumberRule};
use llmcache_core::cache::maxerror::{Cold, MaxError, SimilarityE4, TicketSecret};
use llmcache_core::cache::{Cache, Kind, Settings};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::ids::ContainerUid;
use llmcache_core::index::{GraphSettings, IndexMode};
use llmcache_core::limits;
use llmcache_core::vector::Quant;
use llmcache_core::words::Language;

/// Runs the command.
pub fn run(ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<()> {
    create(ctx, args, Kind::Answers)
}

/// Makes a container of this kind, or finds it as it was asked for.
pub fn create(ctx: Ctx<'_>, args: &CommandArgs<'_>, kind: Kind) -> Result<()> {
    let name = args.name();
    let asked = parse_settings(ArgReader::new(args.options()), kind)?;
    match open_container(ctx, &args.key(), kind)? {
        Some(existing) => existing.with(|cache| {
            // The default model may be another than when it was made.
            let plain = asked.plain.map(|plain| check_same(&cache.settings, plain, name));
            match plain {
                Some(Ok(())) => Ok(()),
                _ => check_same(&cache.settings, asked.settings, name),
            }
        })?,
        None => drop(make(args.permit(), name, asked.settings)?),
    }
    Reply::new(ctx).ok();
    Ok(())
}

/// Refuses settings that an existing container does not have. A dimension that was not given is the one
/// that the first vector has set.
fn check_same(existing: &Settings, mut asked: Settings, name: &[u8]) -> Result<()> {
    asked.dim = asked.dim.or(existing.dim);
    if *existing == asked {
        return Ok(());
    }
    let kind = existing.kind;
    if kind != Kind::Answers {
        check_model(existing, &asked.model, name)?;
    }
    if let (Kind::Embeddings, Some(dim), Some(have)) = (kind, asked.dim, existing.dim)
        && dim != have
    {
        return Err(dim_mismatch(dim as usize, have as usize, name));
    }
    let noun = kind.noun();
    Err(Error::err(format!("the {noun} \"{}\" exists with other settings", shown(name))))
}

/// Refuses another embedding model than the container's.
pub fn check_model(settings: &Settings, model: &[u8], name: &[u8]) -> Result<()> {
    if *settings.model == *model {
        return Ok(());
    }
    let (have, name) = (shown(&settings.model), shown(name));
    let message = format!("\"{name}\" holds vectors of the model \"{have}\"");
    Err(Error::new(ErrorWord::ModelMismatch, message))
}

/// Makes a cache with the defaults of the module's configs, if those allow it, for vectors of a dimension where one
/// is known.
pub fn auto_create(ctx: WritePermit<'_>, name: &[u8], dim: Option<usize>) -> Result<SharedCache> {
    auto_create_as(ctx, name, settings_for_new(Kind::Answers, dim))
}

/// Makes a container that nobody asked for by name, if the module's configs allow it.
pub fn auto_create_as(
    ctx: WritePermit<'_>,
    name: &[u8],
    settings: Settings,
) -> Result<SharedCache> {
    if !config::auto_create() {
        return Err(no_container(name, settings.kind));
    }
    make(ctx, name, settings)
}

fn make(ctx: WritePermit<'_>, name: &[u8], settings: Settings) -> Result<SharedCache> {
    let secret = TicketSecret([ctx.random(), ctx.random()]);
    let cache = Cache::new(name, ContainerUid(ctx.random()), settings, secret)?;
    let head = cache.save_head();
    if ctx.evicts_at_random() {
        ctx.log_warning(
            "maxmemory-policy is random: it evicts answers without regard to their use, and cache keys, \
             which are then put back; allkeys-lfu or volatile-lfu do neither",
        );
    }
    let shared = shared(cache);
    create_cache(ctx, name, &shared);
    ctx.replicate(CREATE_COMMAND, &[name, &head]);
    Ok(shared)
}

#[derive(Default)]
struct Given {
    dim: Option<u32>,
    model: Option<Box<[u8]>>,
    threshold: Option<f64>,
    ttl_ms: Option<u64>,
    jitter_pct: Option<u8>,
    max_entries: Option<u64>,
    max_memory_bytes: Option<u64>,
    quant: Option<Quant>,
    matryoshka: Option<u32>,
    mode: Option<IndexMode>,
    m: Option<u32>,
    efc: Option<u32>,
    ef: Option<u32>,
    guard: Option<GuardLevel>,
    numbers: Option<NumberRule>,
    exchange: Option<bool>,
    max_error_ppm: Option<u32>,
    confidence_ppm: Option<u32>,
    audit_ppm: Option<u32>,
    cold: Option<Cold>,
    min_similarity: Option<SimilarityE4>,
    near_misses: Option<u32>,
    grace_s: Option<u32>,
    /// The model that embeds; empty for none.
    embed: Option<Box<[u8]>>,
    any_script: bool,
    words: Option<Option<Language>>,
}

/// What CREATE takes for documents.
const OF_DOCUMENTS: [&str; 14] = [
    "DIM",
    "MATRYOSHKA",
    "MODEL",
    "TTL",
    "QUANT",
    "INDEX",
    "M",
    "EFC",
    "EF",
    "MAXENTRIES",
    "MAXMEMORY",
    "EMBED",
    "SCRIPT",
    "WORDS",
];
/// What CREATE takes for embeddings.
const OF_EMBEDDINGS: [&str; 8] =
    ["DIM", "MODEL", "TTL", "QUANT", "MAXENTRIES", "MAXMEMORY", "EMBED", "SCRIPT"];

/// What CREATE asks for.
struct Wanted {
    settings: Settings,
    /// The same without the default model, where that embeds because nothing else was said.
    plain: Option<Settings>,
}

fn parse_settings(mut args: ArgReader<'_>, kind: Kind) -> Result<Wanted> {
    let mut given = Given::default();
    while let Some(word) = args.option() {
        let known = match kind {
            Kind::Answers => word.as_str() != "WORDS",
            Kind::Documents => OF_DOCUMENTS.contains(&word.as_str()),
            Kind::Embeddings => OF_EMBEDDINGS.contains(&word.as_str()),
        };
        if !known {
            return Err(word.unknown());
        }
        given.read(&word, &mut args)?;
    }
    let model = given.checked_embedder(kind)?;
    let by_default = given.embed.is_none() && model.is_some();
    let defaults = config::default_settings(kind);
    let has_threshold = given.threshold.is_some();
    let settings = Settings {
        dim: given.dim,
        model: given.model.unwrap_or_default(),
        threshold: given.threshold.unwrap_or(defaults.threshold),
        ttl_ms: given.ttl_ms.unwrap_or(defaults.ttl_ms),
        jitter_pct: given.jitter_pct.unwrap_or(defaults.jitter_pct),
        max_entries: given.max_entries.unwrap_or(0),
        max_memory_bytes: given.max_memory_bytes.unwrap_or(0),
        quant: given.quant.unwrap_or(defaults.quant),
        matryoshka: given.matryoshka,
        graph: GraphSettings {
            mode: given.mode.unwrap_or(defaults.graph.mode),
            m: given.m.unwrap_or(defaults.graph.m),
            efc: given.efc.unwrap_or(defaults.graph.efc),
            ef: given.ef.unwrap_or(defaults.graph.ef),
        },
        guard: given.guard.unwrap_or(defaults.guard),
        numbers: given.numbers.unwrap_or(defaults.numbers),
        exchange: given.exchange.unwrap_or(defaults.exchange),
        max_error: MaxError {
            max_error_ppm: given.max_error_ppm.unwrap_or(defaults.max_error.max_error_ppm),
            confidence_ppm: given.confidence_ppm.unwrap_or(defaults.max_error.confidence_ppm),
            audit_ppm: given.audit_ppm.unwrap_or(defaults.max_error.audit_ppm),
            cold: given.cold.unwrap_or(defaults.max_error.cold),
            min_similarity: given.min_similarity,
        },
        near_misses: given.near_misses.unwrap_or(defaults.near_misses),
        grace_s: given.grace_s.unwrap_or(defaults.grace_s),
        words: given.words.flatten(),
        ..defaults
    };
    settings.check()?;
    let plain = by_default.then(|| settings.clone());
    let settings = match model {
        Some(model) => {
            let settings = embed_with(settings, &model, has_threshold)?;
            settings.check()?;
            settings
        }
        None => settings,
    };
    Ok(Wanted { settings, plain })
}

impl Given {
    /// The model that is to embed, where what was given fits together.
    fn checked_embedder(&self, kind: Kind) -> Result<Option<ModelId>> {
        let named = self.model.as_ref().is_some_and(|model| !model.is_empty());
        if self.embed.is_some() && self.model.is_some() {
            return Err(Error::err("syntax error: EMBED names the model, MODEL is left out"));
        }
        let model = self.embedder(kind)?;
        if kind == Kind::Embeddings && model.is_none() && (self.dim.is_none() || !named) {
            return Err(Error::err("syntax error: MODEL and DIM are needed, or EMBED"));
        }
        if self.any_script && model.is_none() {
            return Err(Error::err("syntax error: SCRIPT is for containers with EMBED"));
        }
        Ok(model)
    }

    /// The model that is to embed.
    fn embedder(&self, kind: Kind) -> Result<Option<ModelId>> {
        match &self.embed {
            Some(name) if name.eq_ignore_ascii_case(b"none") => Ok(None),
            Some(name) => ModelId::of_loaded(name, self.any_script).map(Some),
            // Whoever says what the vectors are makes them.
            None if self.model.is_some() || self.dim.is_some() => Ok(None),
            None if kind == Kind::Embeddings => Ok(None),
            None => Ok(default_model()),
        }
    }

    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'_>) -> Result<()> {
        let name = word.as_str();
        match name {
            "DIM" => {
                let (min, max) = (u64::from(limits::DIM_MIN), u64::from(limits::DIM_MAX));
                set_once(&mut self.dim, args.integer(name, min, max)? as u32, name)
            }
            "MATRYOSHKA" => {
                let (min, max) = (limits::MATRYOSHKA_STEP, limits::DIM_MAX);
                let dims = args.integer(name, min.into(), max.into())? as u32;
                set_once(&mut self.matryoshka, dims, name)
            }
            "MODEL" => {
                let model = args.text(name, limits::MODEL_MAX_BYTES)?;
                set_once(&mut self.model, model.into(), name)
            }
            "THRESHOLD" => set_once(&mut self.threshold, args.similarity(name)?, name),
            "TTL" => {
                let seconds = args.integer(name, 0, limits::TTL_MAX_MS / 1_000)?;
                set_once(&mut self.ttl_ms, seconds * 1_000, name)
            }
            "JITTER" => set_once(
                &mut self.jitter_pct,
                args.integer(name, 0, limits::JITTER_MAX_PCT)? as u8,
                name,
            ),
            "MAXENTRIES" => {
                let most = args.integer(name, 0, limits::MAXENTRIES_MAX)?;
                set_once(&mut self.max_entries, most, name)
            }
            "MAXMEMORY" => {
                let most = args.memory(name)?;
                set_once(&mut self.max_memory_bytes, most, name)
            }
            "QUANT" => {
                let quant = Quant::parse(args.next(name)?)
                    .ok_or_else(|| Error::err("QUANT must be NONE, F16 or Q8"))?;
                set_once(&mut self.quant, quant, name)
            }
            "INDEX" => set_once(&mut self.mode, index_mode(args)?, name),
            "M" => {
                let (min, max) = (limits::GRAPH_M_MIN, limits::GRAPH_M_MAX);
                set_once(&mut self.m, args.integer(name, min.into(), max.into())? as u32, name)
            }
            "EFC" => set_once(&mut self.efc, efc(args)?, name),
            "EF" => set_once(&mut self.ef, ef(args)?, name),
            "GRACE" => set_once(&mut self.grace_s, grace_s(args)?, name),
            "EMBED" => {
                let model = args.text(name, limits::EMBED_NAME_MAX_BYTES)?;
                set_once(&mut self.embed, model.into(), name)
            }
            "SCRIPT" => match args.next(name)? {
                any if any.eq_ignore_ascii_case(b"any") => flag_once(&mut self.any_script, name),
                _ => Err(Error::err("SCRIPT must be ANY")),
            },
            "WORDS" => set_once(&mut self.words, language(args)?, name),
            _ => self.read_judgement(word, args),
        }
    }

    /// Reads an option of guards and MAXERROR.
    fn read_judgement(&mut self, word: &OptionWord, args: &mut ArgReader<'_>) -> Result<()> {
        let name = word.as_str();
        match name {
            "GUARD" => set_once(&mut self.guard, guard_level(args)?, name),
            "NUMBERS" => set_once(&mut self.numbers, number_rule(args)?, name),
            "EXCHANGE" => set_once(&mut self.exchange, args.on_or_off(name)?, name),
            "MAXERROR" => set_once(&mut self.max_error_ppm, max_error(args)?, name),
            "CONFIDENCE" => set_once(&mut self.confidence_ppm, confidence(args)?, name),
            "AUDIT" => set_once(&mut self.audit_ppm, audit(args)?, name),
            "COLD" => set_once(&mut self.cold, cold(args)?, name),
            "MINSIM" => set_once(&mut self.min_similarity, min_similarity(args)?, name),
            "NEARMISSES" => set_once(&mut self.near_misses, near_misses(args)?, name),
            _ => Err(word.unknown()),
        }
    }
}

/// Reads a value that is one of several words.
fn one_of<T: Copy>(
    args: &mut ArgReader<'_>,
    name: &str,
    all: &[T],
    word_of: fn(T) -> &'static str,
    words: &str,
) -> Result<T> {
    let word = args.next(name)?;
    let found = all.iter().find(|&&one| word_of(one).as_bytes().eq_ignore_ascii_case(word));
    found.copied().ok_or_else(|| Error::err(format!("{name} must be {words}")))
}

/// Reads the value of INDEX.
pub fn index_mode(args: &mut ArgReader<'_>) -> Result<IndexMode> {
    one_of(args, "INDEX", &IndexMode::ALL, IndexMode::as_str, "AUTO, FLAT or HNSW")
}

/// Reads the value of GUARD.
pub fn guard_level(args: &mut ArgReader<'_>) -> Result<GuardLevel> {
    one_of(args, "GUARD", &GuardLevel::ALL, GuardLevel::as_str, "OFF, ON or STRICT")
}

/// Reads the value of NUMBERS.
pub fn number_rule(args: &mut ArgReader<'_>) -> Result<NumberRule> {
    one_of(args, "NUMBERS", &NumberRule::ALL, NumberRule::as_str, "EQUAL or CONFLICT")
}

/// A share between two bounds, in millionths.
fn share(args: &mut ArgReader<'_>, name: &str, least: f64, most: f64) -> Result<u32> {
    Ok((args.decimal(name, least, most)? * 1e6).round() as u32)
}

/// Reads the value of MAXERROR, in millionths; 0 for no promise.
pub fn max_error(args: &mut ArgReader<'_>) -> Result<u32> {
    let mut ahead = args.clone();
    let is_off = ahead.decimal("MAXERROR", 0.0, 0.5)? == 0.0;
    match share(args, "MAXERROR", 0.0, 0.5)? {
        0 if !is_off => Err(Error::err("MAXERROR must be 0 or at least 0.000001")),
        ppm => Ok(ppm),
    }
}

/// Reads the value of CONFIDENCE, in millionths.
pub fn confidence(args: &mut ArgReader<'_>) -> Result<u32> {
    share(args, "CONFIDENCE", 0.5, 0.999_999)
}

/// Reads the value of AUDIT, in millionths.
pub fn audit(args: &mut ArgReader<'_>) -> Result<u32> {
    share(args, "AUDIT", 0.0, 1.0)
}

/// Reads the value of COLD.
pub fn cold(args: &mut ArgReader<'_>) -> Result<Cold> {
    one_of(args, "COLD", &Cold::ALL, Cold::as_str, "EXACT or STATIC")
}

/// Reads the value of MINSIM.
pub fn min_similarity(args: &mut ArgReader<'_>) -> Result<SimilarityE4> {
    Ok(SimilarityE4::of(args.decimal("MINSIM", 0.0, 0.99)?))
}

/// Reads the value of NEARMISSES.
pub fn near_misses(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("NEARMISSES", 0, limits::NEAR_MISSES_MAX.into())? as u32)
}

/// Reads the value of WORDS.
fn language(args: &mut ArgReader<'_>) -> Result<Option<Language>> {
    let word = args.next("WORDS")?;
    if word.eq_ignore_ascii_case(b"off") {
        return Ok(None);
    }
    Language::parse(word).map(Some).ok_or_else(|| {
        Error::err(format!("WORDS must be OFF or a language: {}", Language::names()))
    })
}

/// Reads the value of GRACE, in seconds.
pub fn grace_s(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("GRACE", 0, limits::GRACE_MAX_S.into())? as u32)
}

/// Reads the value of EFC.
pub fn efc(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("EFC", limits::EFC_MIN.into(), limits::EF_MAX.into())? as u32)
}

/// Reads the value of EF.
pub fn ef(args: &mut ArgReader<'_>) -> Result<u32> {
    Ok(args.integer("EF", 1, limits::EF_MAX.into())? as u32)
}
