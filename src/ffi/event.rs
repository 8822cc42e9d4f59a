//! Keyspace notifications and server events.
//!
//! Handlers run inside the server's own work, on the main thread: they note what happened and write
//! nothing to the keyspace.

use super::api::api;
use super::guard::guarded;
use super::string::bytes_of;
use super::timer::catch_up;
use super::{Ctx, MainCell};
use redis_module::raw;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the module wants to hear.
#[derive(Debug, Clone, Copy)]
pub struct ServerEvents {
    /// A keyspace event of the generic class (`restore`, `rename_to`, `expire`, …), of the evicted or
    /// of the expired class, with the key.
    pub keyspace: fn(Ctx<'_>, event: &[u8], key: &[u8]),
    /// The data set is about to be loaded, by whatever way.
    pub loading_started: fn(Ctx<'_>),
    /// It was loaded, or loading failed.
    pub loading_ended: fn(Ctx<'_>),
    /// A database was emptied; `None` for all of them.
    pub flushed: fn(Ctx<'_>, db: Option<c_int>),
    /// Two databases changed places.
    pub swapped: fn(Ctx<'_>, c_int, c_int),
    /// A replica became a primary or the reverse.
    pub role_changed: fn(Ctx<'_>),
}

/// What runs once the module is loaded.
type Begin = fn(Ctx<'_>);

static BEGIN: MainCell<Option<Begin>> = MainCell::new(None);

/// Has `begin` run as soon as the server is about its own rounds, which it is only when OnLoad is over and no fault
/// was found after it: a server may unload the code then, so nothing must run by itself before.
pub fn once_loaded(ctx: Ctx<'_>, begin: Begin) -> bool {
    BEGIN.with(|slot| *slot = Some(begin));
    let event = raw::RedisModuleEvent { id: raw::REDISMODULE_EVENT_CRON_LOOP, dataver: 1 };
    // SAFETY: the callback keeps the server's contract; the context is valid.
    let status =
        unsafe { api!(RedisModule_SubscribeToServerEvent(ctx.as_ptr(), event, Some(on_round))) };
    status == raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_round(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    guarded("a round", || {
        // SAFETY: see `on_keyspace`.
        let ctx = unsafe { Ctx::from_raw(ctx) };
        if let Some(begin) = BEGIN.with(Option::take) {
            begin(ctx);
        }
        catch_up(ctx);
    });
}

static EVENTS: OnceLock<ServerEvents> = OnceLock::new();

/// Subscribes. The last step of loading: the server crashes when a module with subscriptions fails
/// to load.
pub fn subscribe(ctx: Ctx<'_>, events: ServerEvents) -> bool {
    EVENTS.get_or_init(|| events);
    let ok = raw::REDISMODULE_OK as c_int;
    let event = |id| raw::RedisModuleEvent { id, dataver: 1 };
    // SAFETY: the callbacks keep the server's contracts; the context is valid.
    unsafe {
        let classes = raw::REDISMODULE_NOTIFY_GENERIC
            | raw::REDISMODULE_NOTIFY_EVICTED
            | raw::REDISMODULE_NOTIFY_EXPIRED;
        let role = event(raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED);
        let loading = event(raw::REDISMODULE_EVENT_LOADING);
        let flush = event(raw::REDISMODULE_EVENT_FLUSHDB);
        let swap = event(raw::REDISMODULE_EVENT_SWAPDB);
        let saving = event(raw::REDISMODULE_EVENT_PERSISTENCE);
        let ctx = ctx.as_ptr();
        api!(RedisModule_SubscribeToKeyspaceEvents(ctx, classes, Some(on_keyspace))) == ok
            && api!(RedisModule_SubscribeToServerEvent(ctx, loading, Some(on_loading))) == ok
            && api!(RedisModule_SubscribeToServerEvent(ctx, flush, Some(on_flush))) == ok
            && api!(RedisModule_SubscribeToServerEvent(ctx, swap, Some(on_swap))) == ok
            && api!(RedisModule_SubscribeToServerEvent(ctx, role, Some(on_role))) == ok
            && api!(RedisModule_SubscribeToServerEvent(ctx, saving, Some(on_saving))) == ok
    }
}

fn heard(what: &'static str, tell: impl FnOnce(&ServerEvents)) {
    guarded(what, || {
        if let Some(events) = EVENTS.get() {
            tell(events);
        }
    });
}

unsafe extern "C" fn on_keyspace(
    ctx: *mut raw::RedisModuleCtx,
    _class: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: the server's arguments are valid for this call; so below.
    heard("a keyspace event", |events| unsafe {
        let (event, key) = (CStr::from_ptr(event).to_bytes(), bytes_of(key));
        (events.keyspace)(Ctx::from_raw(ctx), event, key);
    });
    raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_loading(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    phase: u64,
    _: *mut c_void,
) {
    // SAFETY: see `on_keyspace`.
    let ctx = unsafe { Ctx::from_raw(ctx) };
    heard("a loading event", |events| match phase {
        raw::REDISMODULE_SUBEVENT_LOADING_ENDED | raw::REDISMODULE_SUBEVENT_LOADING_FAILED => {
            (events.loading_ended)(ctx);
        }
        _ => (events.loading_started)(ctx),
    });
}

/// Whether this process writes the whole data set. The server tells who writes it, so while a forked child does, that
/// alone knows, and a `DUMP` meanwhile is one.
static SAVING: AtomicBool = AtomicBool::new(false);

/// Whether what is saved now is part of the whole data set: RDB, full synchronisation or the preamble of an AOF.
pub(super) fn is_saving() -> bool {
    SAVING.load(Ordering::Relaxed)
}

unsafe extern "C" fn on_saving(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    phase: u64,
    _: *mut c_void,
) {
    let ended =
        [raw::REDISMODULE_SUBEVENT_PERSISTENCE_ENDED, raw::REDISMODULE_SUBEVENT_PERSISTENCE_FAILED];
    SAVING.store(!ended.contains(&phase), Ordering::Relaxed);
}

unsafe extern "C" fn on_flush(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    phase: u64,
    data: *mut c_void,
) {
    if phase != raw::REDISMODULE_SUBEVENT_FLUSHDB_START {
        return;
    }
    // SAFETY: `data` is the flush event's struct; see `on_keyspace`.
    let (ctx, db) =
        unsafe { (Ctx::from_raw(ctx), (*data.cast::<raw::RedisModuleFlushInfo>()).dbnum) };
    heard("a flush event", |events| (events.flushed)(ctx, (db >= 0).then_some(db)));
}

unsafe extern "C" fn on_swap(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    data: *mut c_void,
) {
    // SAFETY: `data` is the swap event's struct; see `on_keyspace`.
    let (ctx, swap) = unsafe { (Ctx::from_raw(ctx), *data.cast::<raw::RedisModuleSwapDbInfo>()) };
    heard("a swap event", |events| {
        (events.swapped)(ctx, swap.dbnum_first, swap.dbnum_second);
    });
}

unsafe extern "C" fn on_role(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    // SAFETY: see `on_keyspace`.
    let ctx = unsafe { Ctx::from_raw(ctx) };
    heard("a change of role", |events| (events.role_changed)(ctx));
}
