//! The module's configs, `llmcache.*`: defaults of new caches and the pace of background work.
//!
//! Owns: names, bounds, defaults. Read on the main thread; changes take effect at once.

use crate::ffi::config::{
    ChoiceConfig, FlagConfig, NumberConfig, TextConfig, load_configs, register_choice,
    register_fixed_number, register_fixed_text, register_flag, register_number, register_text,
};
use crate::ffi::{Ctx, MainCell};
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::{BreakerSettings, Kind, Settings};
use llmcache_core::index::{EF_DEFAULT, EFC_DEFAULT, GraphSettings, IndexMode, M_DEFAULT};
use llmcache_core::limits;
use llmcache_core::vector::Quant;
use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

static THRESHOLD_BITS: AtomicU64 = AtomicU64::new(0.90f64.to_bits());

static THRESHOLD: TextConfig = TextConfig {
    name: c"threshold",
    default: c"0.90",
    accept: accept_threshold,
    shown: MainCell::new(None),
};

const fn number(name: &'static CStr, default: i64, min: i64, max: i64) -> NumberConfig {
    NumberConfig { name, default, min, max, value: AtomicI64::new(default) }
}

static TTL_S: NumberConfig = number(c"ttl", 0, 0, (limits::TTL_MAX_MS / 1_000) as i64);
static JITTER_PCT: NumberConfig = number(c"jitter", 0, 0, 100);
static GRACE_S: NumberConfig = number(c"grace", 0, 0, limits::GRACE_MAX_S as i64);
static LEASE_MS: NumberConfig = number(c"lease", 30_000, 1, limits::LEASE_MAX_MS as i64);
static WAIT_MS: NumberConfig = number(c"wait", 0, 0, limits::LEASE_MAX_MS as i64);
static BACKOFF_MS: NumberConfig = number(c"backoff", 1_000, 0, limits::BACKOFF_MAX_MS as i64);
static AUDIT_TTL_S: NumberConfig = number(c"audit-ttl", limits::AUDIT_TTL_S as i64, 1, 30 * 86_400);
static BREAKER_FAILURES: NumberConfig = number(c"breaker-failures", 10, 0, 1_000_000);
static BREAKER_WINDOW_S: NumberConfig = number(c"breaker-window", 60, 1, 86_400);
static BREAKER_COOLDOWN_S: NumberConfig = number(c"breaker-cooldown", 10, 1, 86_400);

static BETA_BITS: AtomicU64 = AtomicU64::new(0);

static BETA: TextConfig =
    TextConfig { name: c"beta", default: c"0", accept: accept_beta, shown: MainCell::new(None) };

static ORPHAN_GRACE_S: NumberConfig = number(c"orphan-grace", 600, 0, 86_400 * 365);
static SWEEP_INTERVAL_MS: NumberConfig = number(c"sweep-interval-ms", 100, 1, 60_000);

static QUANT: ChoiceConfig = ChoiceConfig {
    name: c"quant",
    words: &[c"none", c"f16", c"q8"],
    default: 1,
    value: AtomicI32::new(1),
};

static INDEX: ChoiceConfig = ChoiceConfig {
    name: c"index",
    words: &[c"auto", c"flat", c"hnsw"],
    default: 0,
    value: AtomicI32::new(0),
};
static M: NumberConfig =
    number(c"m", M_DEFAULT as i64, limits::GRAPH_M_MIN as i64, limits::GRAPH_M_MAX as i64);
static EFC: NumberConfig =
    number(c"efc", EFC_DEFAULT as i64, limits::EFC_MIN as i64, limits::EF_MAX as i64);
static EF: NumberConfig = number(c"ef", EF_DEFAULT as i64, 1, limits::EF_MAX as i64);

static GUARD: ChoiceConfig = ChoiceConfig {
    name: c"guard",
    words: &[c"off", c"on", c"strict"],
    default: 1,
    value: AtomicI32::new(1),
};

static AUTO_CREATE: FlagConfig =
    FlagConfig { name: c"auto-create", default: true, value: AtomicBool::new(true) };

static ACTIVE_EXPIRE: FlagConfig =
    FlagConfig { name: c"active-expire", default: true, value: AtomicBool::new(true) };

static KV_SHARE_PCT: NumberConfig = number(c"kv-share", 75, 0, 100);
static KV_IN_FLIGHT: NumberConfig = number(c"kv-in-flight", 1 << 30, 0, i64::MAX);
static REPLY_MAX_BYTES: NumberConfig = number(c"reply-max-bytes", 64 << 20, 1 << 20, i64::MAX);
static REPLY_IN_FLIGHT: NumberConfig = number(c"reply-in-flight", 1 << 30, 1 << 20, i64::MAX);

static CHECK_WORK: FlagConfig =
    FlagConfig { name: c"check-work", default: false, value: AtomicBool::new(false) };

static SEARCH_THREADS: NumberConfig =
    number(c"search-threads", 2, 0, limits::SEARCH_THREADS_MAX as i64);
static SEARCH_INLINE_US: NumberConfig =
    number(c"search-inline-us", 400, 0, limits::SEARCH_INLINE_MAX_US as i64);

static EMBED_MODELS_TEXT: Mutex<String> = Mutex::new(String::new());
static EMBED_DEFAULT_TEXT: Mutex<String> = Mutex::new(String::new());
static EMBED_ENGINE_TEXT: Mutex<String> = Mutex::new(String::new());

static EMBED_MODELS: TextConfig = TextConfig {
    name: c"embed-models",
    default: c"",
    accept: |text| keep_text(&EMBED_MODELS_TEXT, text),
    shown: MainCell::new(None),
};
static EMBED_DEFAULT: TextConfig = TextConfig {
    name: c"embed-default",
    default: c"",
    accept: |text| keep_text(&EMBED_DEFAULT_TEXT, text),
    shown: MainCell::new(None),
};
static EMBED_ENGINE: TextConfig = TextConfig {
    name: c"embed-engine",
    default: c"",
    accept: |text| keep_text(&EMBED_ENGINE_TEXT, text),
    shown: MainCell::new(None),
};
static EMBED_THREADS: NumberConfig =
    number(c"embed-threads", 2, 0, limits::EMBED_THREADS_MAX as i64);
static EMBED_SHARE_TOKENS: NumberConfig =
    number(c"embed-share-tokens", 8, 0, limits::EMBED_TOKENS_MAX as i64);
static EMBED_NICE: NumberConfig = number(c"embed-nice", 15, 0, 19);
static EMBED_QUEUE: NumberConfig = number(c"embed-queue", 1_024, 1, limits::EMBED_QUEUE_MAX as i64);
static EMBED_TIMEOUT_MS: NumberConfig =
    number(c"embed-timeout-ms", 1_000, 1, limits::EMBED_TIMEOUT_MAX_MS as i64);
static EMBED_INLINE_TOKENS: NumberConfig =
    number(c"embed-inline-tokens", 32, 0, limits::EMBED_TOKENS_MAX as i64);
static EMBED_MEMO: NumberConfig = number(c"embed-memo", 1_024, 0, limits::EMBED_MEMO_MAX as i64);

fn keep_text(place: &Mutex<String>, text: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "must be UTF-8")?;
    let mut place = place.lock().map_err(|_| "is being read")?;
    text.clone_into(&mut place);
    Ok(())
}

fn kept_text(place: &Mutex<String>) -> String {
    place.lock().map(|text| text.clone()).unwrap_or_default()
}

fn accept_threshold(text: &[u8]) -> Result<(), &'static str> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(number) if (-1.0..=1.0).contains(&number) => {
            THRESHOLD_BITS.store(number.to_bits(), Ordering::Relaxed);
            Ok(())
        }
        _ => Err("threshold must be a similarity between -1 and 1"),
    }
}

fn accept_beta(text: &[u8]) -> Result<(), &'static str> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(number) if (0.0..=limits::BETA_MAX).contains(&number) => {
            BETA_BITS.store(number.to_bits(), Ordering::Relaxed);
            Ok(())
        }
        _ => Err("beta must be a number between 0 and 100"),
    }
}

static NUMBERS: [&NumberConfig; 27] = [
    &TTL_S,
    &JITTER_PCT,
    &M,
    &EFC,
    &EF,
    &GRACE_S,
    &LEASE_MS,
    &WAIT_MS,
    &BACKOFF_MS,
    &AUDIT_TTL_S,
    &BREAKER_FAILURES,
    &BREAKER_WINDOW_S,
    &BREAKER_COOLDOWN_S,
    &ORPHAN_GRACE_S,
    &SWEEP_INTERVAL_MS,
    &KV_SHARE_PCT,
    &KV_IN_FLIGHT,
    &REPLY_MAX_BYTES,
    &REPLY_IN_FLIGHT,
    &SEARCH_THREADS,
    &SEARCH_INLINE_US,
    &EMBED_THREADS,
    &EMBED_SHARE_TOKENS,
    &EMBED_QUEUE,
    &EMBED_TIMEOUT_MS,
    &EMBED_INLINE_TOKENS,
    &EMBED_MEMO,
];
static CHOICES: [&ChoiceConfig; 3] = [&QUANT, &INDEX, &GUARD];
static FLAGS: [&FlagConfig; 3] = [&AUTO_CREATE, &ACTIVE_EXPIRE, &CHECK_WORK];
static TEXTS: [&TextConfig; 3] = [&THRESHOLD, &BETA, &EMBED_DEFAULT];
/// Those that are read once.
static FIXED_NUMBERS: [&NumberConfig; 1] = [&EMBED_NICE];
static FIXED_TEXTS: [&TextConfig; 2] = [&EMBED_MODELS, &EMBED_ENGINE];

/// Registers every config and takes in what redis.conf says of them.
pub fn register(ctx: Ctx<'_>) -> bool {
    TEXTS.iter().all(|text| register_text(ctx, text))
        && FIXED_TEXTS.iter().all(|text| register_fixed_text(ctx, text))
        && FIXED_NUMBERS.iter().all(|number| register_fixed_number(ctx, number))
        && NUMBERS.iter().all(|number| register_number(ctx, number))
        && CHOICES.iter().all(|choice| register_choice(ctx, choice))
        && FLAGS.iter().all(|flag| register_flag(ctx, flag))
        && load_configs(ctx)
}

/// The settings that differ from their defaults, as `name=value` separated by commas.
pub fn changed() -> String {
    let mut out = Vec::new();
    let mut note = |name: &CStr, differs: bool, value: String| {
        if differs {
            out.push(format!("{}={value}", name.to_string_lossy()));
        }
    };
    let threshold = f64::from_bits(THRESHOLD_BITS.load(Ordering::Relaxed));
    note(THRESHOLD.name, threshold != 0.90, threshold.to_string());
    note(BETA.name, beta() != 0.0, beta().to_string());
    for (text, value) in [
        (&EMBED_MODELS, kept_text(&EMBED_MODELS_TEXT)),
        (&EMBED_DEFAULT, kept_text(&EMBED_DEFAULT_TEXT)),
        (&EMBED_ENGINE, kept_text(&EMBED_ENGINE_TEXT)),
    ] {
        note(text.name, !value.is_empty(), value);
    }
    for number in NUMBERS.iter().chain(&FIXED_NUMBERS) {
        let value = number.value.load(Ordering::Relaxed);
        note(number.name, value != number.default, value.to_string());
    }
    for choice in CHOICES {
        let value = choice.value.load(Ordering::Relaxed);
        let word = choice.words.get(value as usize).map(|word| word.to_string_lossy());
        note(choice.name, value != choice.default, word.unwrap_or_default().into_owned());
    }
    for flag in FLAGS {
        let value = flag.value.load(Ordering::Relaxed);
        note(flag.name, value != flag.default, if value { "yes" } else { "no" }.into());
    }
    out.join(",")
}

/// Settings of a container for which nothing else was said. What concerns answers alone (threshold,
/// guards, grace, jitter) is neutral where there are none.
pub fn default_settings(kind: Kind) -> Settings {
    let of_answers = Settings {
        kind,
        threshold: f64::from_bits(THRESHOLD_BITS.load(Ordering::Relaxed)),
        ttl_ms: TTL_S.value.load(Ordering::Relaxed) as u64 * 1_000,
        jitter_pct: JITTER_PCT.value.load(Ordering::Relaxed) as u8,
        quant: Quant::from_byte(QUANT.value.load(Ordering::Relaxed) as u8).unwrap_or(Quant::F16),
        graph: GraphSettings {
            mode: IndexMode::from_byte(INDEX.value.load(Ordering::Relaxed) as u8)
                .unwrap_or_default(),
            m: M.value.load(Ordering::Relaxed) as u32,
            efc: EFC.value.load(Ordering::Relaxed) as u32,
            ef: EF.value.load(Ordering::Relaxed) as u32,
        },
        guard: GuardLevel::from_byte(GUARD.value.load(Ordering::Relaxed) as u8).unwrap_or_default(),
        grace_s: GRACE_S.value.load(Ordering::Relaxed) as u32,
        ..Settings::default()
    };
    match kind {
        Kind::Answers => of_answers,
        // Documents are data, not a cache: they expire only where a command says so.
        Kind::Documents => Settings { ttl_ms: 0, ..without_answers(of_answers) },
        Kind::Embeddings => without_answers(of_answers),
    }
}

/// The same without what concerns answers alone.
fn without_answers(of_answers: Settings) -> Settings {
    Settings { threshold: -1.0, jitter_pct: 0, guard: GuardLevel::Off, grace_s: 0, ..of_answers }
}

/// How long the lease to make an answer lasts when FETCH does not say.
pub fn lease_ms() -> u64 {
    LEASE_MS.value.load(Ordering::Relaxed) as u64
}

/// How long FETCH waits for an answer that somebody makes when it does not say.
pub fn wait_ms() -> u64 {
    WAIT_MS.value.load(Ordering::Relaxed) as u64
}

/// How eagerly answers are regenerated early when FETCH does not say; 0: never.
pub fn beta() -> f64 {
    f64::from_bits(BETA_BITS.load(Ordering::Relaxed))
}

/// How long a failure is remembered when FAIL does not say.
pub fn backoff_ms() -> u64 {
    BACKOFF_MS.value.load(Ordering::Relaxed) as u64
}

/// How long after its issue a ticket counts, in seconds.
pub fn audit_ttl_s() -> u32 {
    AUDIT_TTL_S.value.load(Ordering::Relaxed) as u32
}

/// When the makers of a scope's answers are given a rest.
pub fn breaker() -> BreakerSettings {
    BreakerSettings {
        failures: BREAKER_FAILURES.value.load(Ordering::Relaxed) as u32,
        window_ms: BREAKER_WINDOW_S.value.load(Ordering::Relaxed) as u64 * 1_000,
        cooldown_ms: BREAKER_COOLDOWN_S.value.load(Ordering::Relaxed) as u64 * 1_000,
    }
}

/// Whether a store makes a cache that does not exist.
pub fn auto_create() -> bool {
    AUTO_CREATE.value.load(Ordering::Relaxed)
}

/// How long an entry without a container is left alone.
pub fn orphan_grace_ms() -> u64 {
    ORPHAN_GRACE_S.value.load(Ordering::Relaxed) as u64 * 1_000
}

/// Percent of `maxmemory` that all KV-cache chunks together may take; 0 for no such bound.
pub fn kv_share_pct() -> u64 {
    KV_SHARE_PCT.value.load(Ordering::Relaxed) as u64
}

/// Payload bytes that may wait for clients before a FETCH is refused; 0 for no bound.
pub fn kv_in_flight() -> u64 {
    KV_IN_FLIGHT.value.load(Ordering::Relaxed) as u64
}

/// Bytes that one reply may have.
pub fn reply_max_bytes() -> u64 {
    REPLY_MAX_BYTES.value.load(Ordering::Relaxed) as u64
}

/// Bytes of replies that may wait for clients before a command that answers much is refused.
pub fn reply_in_flight() -> u64 {
    REPLY_IN_FLIGHT.value.load(Ordering::Relaxed) as u64
}

/// Whether each command is compared with what is stated of its cost: for tests.
pub fn check_work() -> bool {
    CHECK_WORK.value.load(Ordering::Relaxed)
}

/// Threads that searches go on in; 0 for none.
pub fn search_threads() -> usize {
    SEARCH_THREADS.value.load(Ordering::Relaxed) as usize
}

/// How long a search may be estimated to take on the main thread.
pub fn search_inline_us() -> u64 {
    SEARCH_INLINE_US.value.load(Ordering::Relaxed) as u64
}

/// Pause between slices of background work.
pub fn sweep_interval_ms() -> u64 {
    SWEEP_INTERVAL_MS.value.load(Ordering::Relaxed) as u64
}

/// Whether entries that are due are expired before the server's own cycle comes to them.
pub fn active_expire() -> bool {
    ACTIVE_EXPIRE.value.load(Ordering::Relaxed)
}

/// The models to read: `name=folder`, separated by `;`.
pub fn embed_models() -> String {
    kept_text(&EMBED_MODELS_TEXT)
}

/// The model of containers for which nothing else is said; empty for none.
pub fn embed_default() -> String {
    kept_text(&EMBED_DEFAULT_TEXT)
}

/// The instruction set that texts are embedded with; empty for the best there is.
pub fn embed_engine() -> String {
    kept_text(&EMBED_ENGINE_TEXT)
}

/// Threads that embed texts; 0 for none.
pub fn embed_threads() -> usize {
    EMBED_THREADS.value.load(Ordering::Relaxed) as usize
}

/// Tokens from which a text that is alone is embedded by all threads together; 0 for never.
pub fn embed_share_tokens() -> usize {
    EMBED_SHARE_TOKENS.value.load(Ordering::Relaxed) as usize
}

/// By how much threads that embed are nicer than the server.
pub fn embed_nice() -> i32 {
    EMBED_NICE.value.load(Ordering::Relaxed) as i32
}

/// Texts that may wait to be embedded.
pub fn embed_queue() -> usize {
    EMBED_QUEUE.value.load(Ordering::Relaxed) as usize
}

/// How long a client waits for its text to be embedded.
pub fn embed_timeout_ms() -> u64 {
    EMBED_TIMEOUT_MS.value.load(Ordering::Relaxed) as u64
}

/// Tokens up to which a text is embedded at once where its client may not be made to wait.
pub fn embed_inline_tokens() -> usize {
    EMBED_INLINE_TOKENS.value.load(Ordering::Relaxed) as usize
}

/// Vectors of texts that are remembered.
pub fn embed_memo() -> usize {
    EMBED_MEMO.value.load(Ordering::Relaxed) as usize
}
