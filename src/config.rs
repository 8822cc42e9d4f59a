//! The module's configs, `llmcache.*`: defaults of new caches and the pace of background work.
//!
//! Owns: names, bounds, defaults. Read on the main thread; changes take effect at once.

use crate::ffi::Ctx;
use crate::ffi::config::{
    ChoiceConfig, FlagConfig, NumberConfig, TextConfig, load_configs, register_choice,
    register_flag, register_number, register_text,
};
use llmcache_core::cache::Settings;
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::index::{EF_DEFAULT, EFC_DEFAULT, GraphSettings, IndexMode, M_DEFAULT};
use llmcache_core::limits;
use llmcache_core::vector::Quant;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

static THRESHOLD_BITS: AtomicU64 = AtomicU64::new(0.90f64.to_bits());

static THRESHOLD: TextConfig = TextConfig {
    name: c"threshold",
    default: c"0.90",
    accept: accept_threshold,
    shown: Mutex::new(None),
};

const fn number(name: &'static std::ffi::CStr, default: i64, min: i64, max: i64) -> NumberConfig {
    NumberConfig { name, default, min, max, value: AtomicI64::new(default) }
}

static TTL_S: NumberConfig = number(c"ttl", 0, 0, (limits::TTL_MAX_MS / 1_000) as i64);
static JITTER_PCT: NumberConfig = number(c"jitter", 0, 0, 100);
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

static KV_SHARE_PCT: NumberConfig = number(c"kv-share", 75, 0, 100);
static KV_IN_FLIGHT: NumberConfig = number(c"kv-in-flight", 1 << 30, 0, i64::MAX);

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

/// Registers every config and takes in what redis.conf says of them.
pub fn register(ctx: Ctx<'_>) -> bool {
    register_text(ctx, &THRESHOLD)
        && register_number(ctx, &TTL_S)
        && register_number(ctx, &JITTER_PCT)
        && register_choice(ctx, &QUANT)
        && register_choice(ctx, &INDEX)
        && register_choice(ctx, &GUARD)
        && register_number(ctx, &M)
        && register_number(ctx, &EFC)
        && register_number(ctx, &EF)
        && register_flag(ctx, &AUTO_CREATE)
        && register_number(ctx, &ORPHAN_GRACE_S)
        && register_number(ctx, &SWEEP_INTERVAL_MS)
        && register_number(ctx, &KV_SHARE_PCT)
        && register_number(ctx, &KV_IN_FLIGHT)
        && load_configs(ctx)
}

/// Settings of a cache for which nothing else was said.
pub fn default_settings() -> Settings {
    Settings {
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
        ..Settings::default()
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

/// Pause between slices of background work.
pub fn sweep_interval_ms() -> u64 {
    SWEEP_INTERVAL_MS.value.load(Ordering::Relaxed) as u64
}
