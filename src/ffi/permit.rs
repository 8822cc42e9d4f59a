//! The write permit, which every function that writes to the keyspace demands.
//!
//! Owns: who may write when. What opens a key for writing, appends to AOF and replicas or calls a command that
//! writes asks for a permit, so that a timer, an event or the continuation of a client that waited cannot write
//! without having asked: it has none to hand over. There are two ways to come by one. A command that the server
//! runs has it, since the server refuses or postpones commands that must not write at the moment. Everything else
//! asks between commands, each time anew. Main thread only.

use super::api::api;
use super::event_loop_hook::is_outside_a_unit;
use super::{Ctx, RString, ServerString, is_cluster};
use llmcache_core::cluster::Role;
use redis_module::raw;
use std::ffi::{CStr, c_int};
use std::ops::Deref;

/// Leave to write, for the time of the call `'a`.
#[derive(Debug, Clone, Copy)]
pub struct WritePermit<'a>(Ctx<'a>);

impl<'a> WritePermit<'a> {
    /// The permit of a running command.
    pub(super) fn of_command(ctx: Ctx<'a>) -> Self {
        Self(ctx)
    }

    /// Leave to write between commands: where writes are allowed, and whatever is written is told to replicas and AOF.
    pub fn between_commands(ctx: Ctx<'a>) -> Option<Self> {
        (!is_outside_a_unit() && Self::are_allowed(ctx)).then_some(Self(ctx))
    }

    /// Whether writes are allowed: on a primary only, not while loading, and not while replicas must be spared, as
    /// during a failover or while writes are paused.
    pub fn are_allowed(ctx: Ctx<'_>) -> bool {
        let state = ctx.state();
        let role = Role {
            is_loading: state.is_loading(),
            is_replica: state.is_replica(),
            spares_replicas: ctx.avoid_replica_traffic(),
        };
        role.may_write()
    }

    /// Appends a command of byte-string arguments to AOF and replication stream, after what the
    /// running call already appended, in one transaction with it.
    pub fn replicate(self, command: &CStr, args: &[&[u8]]) {
        let strings: Vec<RString> = args.iter().map(|arg| RString::new(arg)).collect();
        self.replicate_strings(command, &strings);
    }

    /// The same with strings that exist already, which are not copied.
    pub fn replicate_strings(self, command: &CStr, strings: &[RString]) {
        let mut pointers: Vec<_> = strings.iter().map(ServerString::as_ptr).collect();
        // SAFETY: the format "v" takes an array of strings and its length; both outlive the call.
        let status = unsafe {
            let (array, count) = (pointers.as_mut_ptr(), pointers.len());
            api!(RedisModule_Replicate(
                self.as_ptr(),
                command.as_ptr(),
                c"v".as_ptr(),
                array,
                count
            ))
        };
        assert_eq!(status, raw::REDISMODULE_OK as c_int, "a command of the table is replicated");
    }

    /// Publishes a message to who subscribed to a channel, here and on replicas. In a cluster the server tells all nodes
    /// itself. AOF is not told: nobody listens while it is read.
    pub fn publish(self, channel: &[u8], message: &[u8]) {
        Ctx::publish(*self, channel, message);
        if is_cluster() {
            return;
        }
        let strings = [RString::new(channel), RString::new(message)];
        let mut pointers: Vec<_> = strings.iter().map(ServerString::as_ptr).collect();
        // SAFETY: the format "v" takes an array of strings and its length, "A" leaves AOF out; both outlive the call.
        let status = unsafe {
            let (array, count) = (pointers.as_mut_ptr(), pointers.len());
            let (command, format) = (c"PUBLISH".as_ptr(), c"Av".as_ptr());
            api!(RedisModule_Replicate(self.as_ptr(), command, format, array, count))
        };
        assert_eq!(status, raw::REDISMODULE_OK as c_int, "PUBLISH is replicated");
    }

    /// Appends to a stream, and has AOF and replicas do so; false when the key holds something else.
    pub fn append_to_stream(self, stream: &[u8], fields: &[(&str, &[u8])]) -> bool {
        let mut strings = vec![RString::new(stream), RString::new(b"*")];
        for (field, value) in fields {
            strings.push(RString::new(field.as_bytes()));
            strings.push(RString::new(value));
        }
        let mut pointers: Vec<_> = strings.iter().map(ServerString::as_ptr).collect();
        // SAFETY: the format "v" takes an array of strings and its length; both outlive the call. The
        // reply is freed on every path.
        unsafe {
            let (array, count) = (pointers.as_mut_ptr(), pointers.len());
            let (command, format) = (c"XADD".as_ptr(), c"!v".as_ptr());
            let reply = api!(RedisModule_Call(self.as_ptr(), command, format, array, count));
            if reply.is_null() {
                return false;
            }
            let kind = api!(RedisModule_CallReplyType(reply));
            api!(RedisModule_FreeCallReply(reply));
            kind != raw::REDISMODULE_REPLY_ERROR as c_int
        }
    }
}

impl<'a> Deref for WritePermit<'a> {
    type Target = Ctx<'a>;

    fn deref(&self) -> &Ctx<'a> {
        &self.0
    }
}
