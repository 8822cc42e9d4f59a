//! Module configs: `CONFIG GET llmcache.*`, `CONFIG SET`, lines of redis.conf.
//!
//! Owns: registration of values that live in statics. Main thread.

use super::api::api;
use super::guard::guarded;
use super::string::bytes_of;
use super::{Ctx, MainBound, MainCell, RString, ServerString};
use redis_module::raw;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

const OK: c_int = raw::REDISMODULE_OK as c_int;
const ERR: c_int = raw::REDISMODULE_ERR as c_int;

/// A whole number with bounds.
#[derive(Debug)]
pub struct NumberConfig {
    /// Name after `llmcache.`.
    pub name: &'static CStr,
    /// Value when nothing is said.
    pub default: i64,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// The value.
    pub value: AtomicI64,
}

/// Yes or no.
#[derive(Debug)]
pub struct FlagConfig {
    /// Name after `llmcache.`.
    pub name: &'static CStr,
    /// Value when nothing is said.
    pub default: bool,
    /// The value.
    pub value: AtomicBool,
}

/// One of several words.
#[derive(Debug)]
pub struct ChoiceConfig {
    /// Name after `llmcache.`.
    pub name: &'static CStr,
    /// The words; their places are the values.
    pub words: &'static [&'static CStr],
    /// Value when nothing is said.
    pub default: i32,
    /// The value.
    pub value: AtomicI32,
}

/// A text that `accept` understands.
#[derive(Debug)]
pub struct TextConfig {
    /// Name after `llmcache.`.
    pub name: &'static CStr,
    /// Value when nothing is said.
    pub default: &'static CStr,
    /// Takes the value in, or says what is wrong with it.
    pub accept: fn(&[u8]) -> Result<(), &'static str>,
    /// The text as last set, as a server string that `CONFIG GET` shows.
    pub shown: MainCell<Option<MainBound<RString>>>,
}

/// Registers a number.
pub fn register_number(ctx: Ctx<'_>, config: &'static NumberConfig) -> bool {
    number(ctx, config, raw::REDISMODULE_CONFIG_DEFAULT)
}

/// Registers a number that is set before the server serves and never after.
pub fn register_fixed_number(ctx: Ctx<'_>, config: &'static NumberConfig) -> bool {
    number(ctx, config, raw::REDISMODULE_CONFIG_IMMUTABLE)
}

fn number(ctx: Ctx<'_>, config: &'static NumberConfig, flags: u32) -> bool {
    // SAFETY: name and config are static; the callbacks get the config back; so in all below.
    unsafe {
        api!(RedisModule_RegisterNumericConfig(
            ctx.as_ptr(),
            config.name.as_ptr(),
            config.default,
            flags,
            config.min,
            config.max,
            Some(get_number),
            Some(set_number),
            None,
            ptr::from_ref(config).cast_mut().cast(),
        )) == OK
    }
}

/// Registers a flag.
pub fn register_flag(ctx: Ctx<'_>, config: &'static FlagConfig) -> bool {
    // SAFETY: see `number`.
    unsafe {
        api!(RedisModule_RegisterBoolConfig(
            ctx.as_ptr(),
            config.name.as_ptr(),
            c_int::from(config.default),
            raw::REDISMODULE_CONFIG_DEFAULT,
            Some(get_flag),
            Some(set_flag),
            None,
            ptr::from_ref(config).cast_mut().cast(),
        )) == OK
    }
}

/// Registers a choice.
pub fn register_choice(ctx: Ctx<'_>, config: &'static ChoiceConfig) -> bool {
    let mut words: Vec<*const c_char> = config.words.iter().map(|word| word.as_ptr()).collect();
    let values: Vec<c_int> = (0..config.words.len() as c_int).collect();
    // SAFETY: see `number`; the server copies both arrays.
    unsafe {
        api!(RedisModule_RegisterEnumConfig(
            ctx.as_ptr(),
            config.name.as_ptr(),
            config.default,
            raw::REDISMODULE_CONFIG_DEFAULT,
            words.as_mut_ptr(),
            values.as_ptr(),
            config.words.len() as c_int,
            Some(get_choice),
            Some(set_choice),
            None,
            ptr::from_ref(config).cast_mut().cast(),
        )) == OK
    }
}

/// Registers a text.
pub fn register_text(ctx: Ctx<'_>, config: &'static TextConfig) -> bool {
    // SAFETY: see `number`.
    unsafe {
        api!(RedisModule_RegisterStringConfig(
            ctx.as_ptr(),
            config.name.as_ptr(),
            config.default.as_ptr(),
            raw::REDISMODULE_CONFIG_DEFAULT,
            Some(get_text),
            Some(set_text),
            None,
            ptr::from_ref(config).cast_mut().cast(),
        )) == OK
    }
}

/// Registers a text that is set before the server serves and never after.
pub fn register_fixed_text(ctx: Ctx<'_>, config: &'static TextConfig) -> bool {
    // SAFETY: see `number`.
    unsafe {
        api!(RedisModule_RegisterStringConfig(
            ctx.as_ptr(),
            config.name.as_ptr(),
            config.default.as_ptr(),
            raw::REDISMODULE_CONFIG_IMMUTABLE,
            Some(get_text),
            Some(set_text),
            None,
            ptr::from_ref(config).cast_mut().cast(),
        )) == OK
    }
}

/// Applies what redis.conf says of the registered configs; to be called after the last one.
pub fn load_configs(ctx: Ctx<'_>) -> bool {
    // SAFETY: the context is OnLoad's.
    unsafe { api!(RedisModule_LoadConfigs(ctx.as_ptr())) == OK }
}

/// # Safety
/// `data` is the config of type `T` that was registered with the callback.
unsafe fn config_of<'a, T>(data: *mut c_void) -> &'a T {
    // SAFETY: by the contract.
    unsafe { &*data.cast::<T>() }
}

unsafe extern "C" fn get_number(_: *const c_char, data: *mut c_void) -> c_longlong {
    // SAFETY: registered with a `NumberConfig`; likewise below.
    unsafe { config_of::<NumberConfig>(data) }.value.load(Ordering::Relaxed)
}

unsafe extern "C" fn set_number(
    _: *const c_char,
    value: c_longlong,
    data: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: see `get_number`.
    unsafe { config_of::<NumberConfig>(data) }.value.store(value, Ordering::Relaxed);
    OK
}

unsafe extern "C" fn get_flag(_: *const c_char, data: *mut c_void) -> c_int {
    // SAFETY: see `get_number`.
    c_int::from(unsafe { config_of::<FlagConfig>(data) }.value.load(Ordering::Relaxed))
}

unsafe extern "C" fn set_flag(
    _: *const c_char,
    value: c_int,
    data: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: see `get_number`.
    unsafe { config_of::<FlagConfig>(data) }.value.store(value != 0, Ordering::Relaxed);
    OK
}

unsafe extern "C" fn get_choice(_: *const c_char, data: *mut c_void) -> c_int {
    // SAFETY: see `get_number`.
    unsafe { config_of::<ChoiceConfig>(data) }.value.load(Ordering::Relaxed)
}

unsafe extern "C" fn set_choice(
    _: *const c_char,
    value: c_int,
    data: *mut c_void,
    _: *mut *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: see `get_number`.
    unsafe { config_of::<ChoiceConfig>(data) }.value.store(value, Ordering::Relaxed);
    OK
}

unsafe extern "C" fn get_text(_: *const c_char, data: *mut c_void) -> *mut raw::RedisModuleString {
    let shown = guarded("a config", || {
        // SAFETY: see `get_number`.
        let config = unsafe { config_of::<TextConfig>(data) };
        config.shown.with(|shown| shown.as_ref().map(|text| text.get().as_ptr()))
    });
    shown.flatten().unwrap_or(ptr::null_mut())
}

unsafe extern "C" fn set_text(
    _: *const c_char,
    value: *mut raw::RedisModuleString,
    data: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    let refused = guarded("a config", || {
        // SAFETY: see `get_number`; the value is valid for this call.
        let (config, text) = unsafe { (config_of::<TextConfig>(data), bytes_of(value)) };
        let verdict = (config.accept)(text);
        if verdict.is_ok() {
            config.shown.with(|shown| *shown = Some(MainBound::new(RString::new(text))));
        }
        verdict.err()
    });
    let Some(message) = refused.unwrap_or(Some("internal error")) else { return OK };
    // SAFETY: the server takes over the string it is handed here.
    unsafe { *error = RString::new(message.as_bytes()).into_raw() };
    ERR
}
