//! The context of a call into the module: time, database, role, log, replication.

use super::api::api;
use super::log::log;
use super::scope::Scope;
use super::string::{RString, ServerString};
use llmcache_core::ids::MonotonicMs;
use redis_module::raw;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Instant;

/// The option of a module whose keys may be sent with their slot by `CLUSTER MIGRATESLOTS` (Valkey 9).
const ATOMIC_SLOT_MIGRATION: c_int = 1 << 5;

/// A context, valid for the call `'a` that the server passed it to.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    raw: *mut raw::RedisModuleCtx,
    /// Of a client that waits: whether it speaks RESP3, which its context does not tell.
    waits_as_resp3: bool,
    call: PhantomData<&'a ()>,
}

/// What the server is and does at the moment.
#[derive(Debug, Clone, Copy)]
pub struct ServerState(c_int);

impl ServerState {
    fn has(self, flag: u32) -> bool {
        self.0 & flag as c_int != 0
    }

    /// Reading RDB, AOF or a primary's data set.
    pub fn is_loading(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LOADING)
    }

    /// A replica of another server.
    pub fn is_replica(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_SLAVE)
    }

    /// The call comes from the primary or from the AOF: obey, decide nothing.
    pub fn must_obey(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_REPLICATED) || self.is_loading()
    }

    /// The client speaks RESP3.
    pub fn is_resp3(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_RESP3)
    }

    /// Whether the client of the running command may be made to wait: not in MULTI, in a script or in
    /// a call of another module, and not a second time.
    pub fn may_block(self) -> bool {
        !REPLYING.is_open()
            && !self.has(
                raw::REDISMODULE_CTX_FLAGS_MULTI
                    | raw::REDISMODULE_CTX_FLAGS_LUA
                    | raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING,
            )
    }

    /// The running command is part of a transaction.
    fn is_transaction(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_MULTI)
    }

    /// The running command was called by a script.
    pub(super) fn is_script(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LUA)
    }

    /// More memory is used than `maxmemory` allows.
    pub fn is_out_of_memory(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_OOM)
    }

    /// Member of a cluster.
    pub fn is_cluster(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
    }
}

impl<'a> Ctx<'a> {
    /// # Safety
    /// `raw` is the context of the running call and valid for `'a`.
    pub(super) unsafe fn from_raw(raw: *mut raw::RedisModuleCtx) -> Self {
        Self { raw, waits_as_resp3: false, call: PhantomData }
    }

    /// # Safety
    /// `raw` is the context of a client that waits, valid for `'a`, and `is_resp3` says what it speaks.
    pub(super) unsafe fn from_waiting_raw(raw: *mut raw::RedisModuleCtx, is_resp3: bool) -> Self {
        Self { raw, waits_as_resp3: is_resp3, call: PhantomData }
    }

    pub(super) fn as_ptr(self) -> *mut raw::RedisModuleCtx {
        self.raw
    }

    /// The client of the running command.
    pub fn client_id(self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { api!(RedisModule_GetClientId(self.raw)) }
    }

    /// What the server is and does.
    pub fn state(self) -> ServerState {
        // SAFETY: the context is valid.
        let flags = unsafe { api!(RedisModule_GetContextFlags(self.raw)) };
        let resp3 = raw::REDISMODULE_CTX_FLAGS_RESP3 as c_int;
        ServerState(if self.waits_as_resp3 { flags | resp3 } else { flags })
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(self) -> u64 {
        // SAFETY: takes nothing. A clock before 1970 would be negative.
        unsafe { api!(RedisModule_Milliseconds()) }.max(0) as u64
    }

    /// Milliseconds of a clock that only goes forward, whatever the server's clock is set to.
    pub fn monotonic_now(self) -> MonotonicMs {
        monotonic_now()
    }

    /// A random word from the server's seeded generator.
    pub fn random(self) -> u64 {
        let mut word = [0u8; 8];
        // SAFETY: writes `len` bytes.
        unsafe { api!(RedisModule_GetRandomBytes(word.as_mut_ptr(), word.len())) }
        u64::from_ne_bytes(word)
    }

    /// The database that keys are opened in.
    ///
    /// Within MULTI, Valkey 9.1 returns a number of the transaction for it, which `SelectDb` does not change. The handle
    /// of a key has the true one there.
    pub fn db(self) -> c_int {
        if IS_VALKEY.load(Ordering::Relaxed) && self.state().is_transaction() {
            return self.db_of_a_key();
        }
        // SAFETY: the context is valid.
        unsafe { api!(RedisModule_GetSelectedDb(self.raw)) }
    }

    fn db_of_a_key(self) -> c_int {
        let name = RString::new(b"llmcache:no-key");
        // SAFETY: context and name are valid. A key opened for writing has a handle although it is absent; nothing is
        // written, and the handle is closed here.
        unsafe {
            let mode = raw::REDISMODULE_WRITE as c_int;
            let key = api!(RedisModule_OpenKey(self.raw, name.as_ptr(), mode));
            let db = api!(RedisModule_GetDbIdFromModuleKey(key));
            api!(RedisModule_CloseKey(key));
            db
        }
    }

    /// Selects a database; false where there is none of that number.
    pub fn select_db(self, db: c_int) -> bool {
        // SAFETY: the context is valid; numbers out of range are refused.
        unsafe { api!(RedisModule_SelectDb(self.raw, db)) == raw::REDISMODULE_OK as c_int }
    }

    /// Tells the server what the module can do: failed reads of RDB are handed to it instead of ending the process;
    /// slots with its keys may migrate atomically, where the server does that. Notes which server it is, and whether
    /// there is a cluster.
    pub(super) fn set_options(self) {
        CLUSTER.store(self.state().is_cluster(), Ordering::Relaxed);
        let is_valkey = self.info_text(c"server", c"valkey_version").is_some();
        IS_VALKEY.store(is_valkey, Ordering::Relaxed);
        let mut options = raw::REDISMODULE_OPTIONS_HANDLE_IO_ERRORS as c_int;
        // SAFETY: reads the binding by value; the function takes nothing.
        let known = unsafe { raw::RedisModule_GetModuleOptionsAll.map_or(0, |all| all()) };
        // The same bit may mean something else on another server.
        if known & ATOMIC_SLOT_MIGRATION != 0 && is_valkey {
            options |= ATOMIC_SLOT_MIGRATION;
        }
        // SAFETY: the context is valid.
        unsafe { api!(RedisModule_SetModuleOptions(self.raw, options)) };
    }

    /// A text of `INFO <section>`; `None` where the server has none of that name.
    fn info_text(self, section: &CStr, field: &CStr) -> Option<Vec<u8>> {
        // SAFETY: the info data is freed on the one path there is; the field is copied.
        unsafe {
            let (get, text, free) = (
                raw::RedisModule_GetServerInfo?,
                raw::RedisModule_ServerInfoGetFieldC?,
                raw::RedisModule_FreeServerInfo?,
            );
            let data = get(self.raw, section.as_ptr());
            let start = text(data, field.as_ptr());
            let copy = (!start.is_null()).then(|| CStr::from_ptr(start).to_bytes().to_vec());
            free(self.raw, data);
            copy
        }
    }

    /// Whether `maxmemory-policy` evicts keys at random, so that no hint protects one.
    pub fn evicts_at_random(self) -> bool {
        self.info_text(c"memory", c"maxmemory_policy").is_some_and(|p| p == b"allkeys-random")
    }

    /// A number of `INFO <section>`; `None` where the server has none of that name.
    pub fn info_number(self, section: &CStr, field: &CStr) -> Option<u64> {
        // SAFETY: the bindings are read by value; the data is freed on the one path there is.
        unsafe {
            let (get, number, free) = (
                raw::RedisModule_GetServerInfo?,
                raw::RedisModule_ServerInfoGetFieldUnsigned?,
                raw::RedisModule_FreeServerInfo?,
            );
            let data = get(self.raw, section.as_ptr());
            let mut failed = 0;
            let value = number(data, field.as_ptr(), &mut failed);
            free(self.raw, data);
            (failed == raw::REDISMODULE_OK as c_int).then_some(value)
        }
    }

    /// Whether replicas should be spared traffic now (a failover or a manual pause is under way).
    pub(super) fn avoid_replica_traffic(self) -> bool {
        // SAFETY: reads the binding by value; the function takes nothing.
        unsafe { raw::RedisModule_AvoidReplicaTraffic.is_some_and(|ask| ask() != 0) }
    }

    /// Tells WATCH and client-side caching that a key changed, where the change is in other keys.
    pub fn signal_modified(self, key: &impl ServerString) {
        // SAFETY: context and key are valid for the call.
        unsafe { api!(RedisModule_SignalModifiedKey(self.raw, key.as_ptr())) };
    }

    /// Publishes a keyspace event of the generic class.
    pub fn notify_generic(self, event: &CStr, key: &impl ServerString) {
        // SAFETY: all three are valid for the call. An error means that nobody listens.
        unsafe {
            api!(RedisModule_NotifyKeyspaceEvent(
                self.raw,
                raw::REDISMODULE_NOTIFY_GENERIC,
                event.as_ptr(),
                key.as_ptr()
            ));
        }
    }

    /// Publishes a keyspace event of the sorted-set class.
    pub fn notify_zset(self, event: &CStr, key: &impl ServerString) {
        // SAFETY: as above.
        unsafe {
            api!(RedisModule_NotifyKeyspaceEvent(
                self.raw,
                raw::REDISMODULE_NOTIFY_ZSET,
                event.as_ptr(),
                key.as_ptr()
            ));
        }
    }

    /// Publishes a keyspace event of the module class.
    pub fn notify_module(self, event: &CStr, key: &impl ServerString) {
        // SAFETY: as above.
        unsafe {
            api!(RedisModule_NotifyKeyspaceEvent(
                self.raw,
                raw::REDISMODULE_NOTIFY_MODULE,
                event.as_ptr(),
                key.as_ptr()
            ));
        }
    }

    /// Writes a line to the server's log.
    pub fn log_warning(self, message: &str) {
        log(self.raw, c"warning", message);
    }

    /// Writes a line to the server's log.
    pub fn log_notice(self, message: &str) {
        log(self.raw, c"notice", message);
    }

    /// Publishes a message to who subscribed to a channel on this server, and in a cluster on any.
    pub fn publish(self, channel: &[u8], message: &[u8]) {
        let (channel, message) = (RString::new(channel), RString::new(message));
        // SAFETY: all three are valid for the call; the strings are copied.
        unsafe {
            api!(RedisModule_PublishMessage(self.raw, channel.as_ptr(), message.as_ptr()));
        }
    }

    /// Whether a command with these keys would be run here and now for the client that this call is for: in a
    /// cluster, the server refuses a call with keys of a slot that it does not serve, or of which it has not all
    /// while the slot is moving. Where the server can be asked without running the command, it is, and counts no call.
    pub fn serves(self, keys: &[&RString]) -> bool {
        let is_dry = self.calls_dry();
        let mut pointers: Vec<_> = keys.iter().map(|key| key.as_ptr()).collect();
        // SAFETY: the format "v" takes an array of strings and its length; both outlive the call. The reply is
        // freed on the one path there is.
        unsafe {
            let (array, count) = (pointers.as_mut_ptr(), pointers.len());
            let format = if is_dry { c"Dv" } else { c"v" };
            let (command, format) = (c"EXISTS".as_ptr(), format.as_ptr());
            let reply = api!(RedisModule_Call(self.raw, command, format, array, count));
            if reply.is_null() {
                // Of a dry run only a refusal need be answered.
                return is_dry;
            }
            let kind = api!(RedisModule_CallReplyType(reply));
            api!(RedisModule_FreeCallReply(reply));
            kind != raw::REDISMODULE_REPLY_ERROR as c_int
        }
    }

    /// Whether the server checks a call without running it ("D", since 7.2): it answers the error of one that lacks
    /// its arguments, where older servers take the format for an error of their own and answer nothing.
    fn calls_dry(self) -> bool {
        static KNOWN: OnceLock<bool> = OnceLock::new();
        *KNOWN.get_or_init(|| {
            // SAFETY: the format takes no arguments. The reply is freed on the one path there is.
            unsafe {
                let reply = api!(RedisModule_Call(self.raw, c"EXISTS".as_ptr(), c"D".as_ptr()));
                if reply.is_null() {
                    return false;
                }
                api!(RedisModule_FreeCallReply(reply));
                true
            }
        })
    }

    /// Runs a command without arguments that answers text, as `CLUSTER NODES` does; `None` when it
    /// fails.
    pub fn call_text(self, command: &CStr, argument: &CStr) -> Option<Vec<u8>> {
        // SAFETY: the format "c" takes one C string; the reply is freed on every path.
        unsafe {
            let reply = api!(RedisModule_Call(
                self.raw,
                command.as_ptr(),
                c"c".as_ptr(),
                argument.as_ptr()
            ));
            if reply.is_null() {
                return None;
            }
            let mut length = 0;
            let start = api!(RedisModule_CallReplyStringPtr(reply, &mut length));
            let text = (!start.is_null())
                .then(|| std::slice::from_raw_parts(start.cast::<u8>(), length).to_vec());
            api!(RedisModule_FreeCallReply(reply));
            text
        }
    }
}

/// Whether the server is a member of a cluster, which is for the life of the process.
pub fn is_cluster() -> bool {
    CLUSTER.load(Ordering::Relaxed)
}

/// Whether a client that has waited is being answered: it cannot be made to wait once more.
static REPLYING: Scope = Scope::new();

/// Answers a client that has waited, or waits, by `reply`.
pub(super) fn answering<R>(reply: impl FnOnce() -> R) -> R {
    REPLYING.within(reply)
}

static CLUSTER: AtomicBool = AtomicBool::new(false);
static IS_VALKEY: AtomicBool = AtomicBool::new(false);

/// The clock that only goes forward; see `Ctx::monotonic_now`.
pub(super) fn monotonic_now() -> MonotonicMs {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // An hour before the process began, so that no time is 0, which stands for none.
    MonotonicMs(3_600_000 + START.elapsed().as_millis() as u64)
}

/// Whether this server is a replica, where no context is at hand.
pub fn is_replica() -> bool {
    // SAFETY: the server tells its own flags without a context.
    ServerState(unsafe { api!(RedisModule_GetContextFlags(std::ptr::null_mut())) }).is_replica()
}
