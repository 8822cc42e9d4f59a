//! The only code that calls the server. Everything unsafe of the module is here; what leaves this
//! folder is safe to use by the rules its types state.
//!
//! Owns: the allocator, the panic guard, wrappers of contexts, keys, strings, replies, types,
//! commands, events, timers, configs. Unless a file says otherwise, every function here is called on
//! the server's main thread (or in its forked child, which is single-threaded), because that is
//! where the server calls the module; `MainCell` checks it.

mod acl;
mod alloc;
mod api;
mod block;
mod call;
pub mod command;
mod command_spec;
pub mod config;
mod context;
mod event;
mod event_loop_hook;
mod guard;
mod info;
mod io;
mod key;
mod keys;
mod load;
mod log;
mod main_cell;
mod open_values;
mod permit;
mod reclaim;
mod reply;
mod scope;
mod steps;
mod string;
mod threads;
mod timer;
mod value;
mod zset;

pub use block::{
    BlockedId, Waiter, Wake, block_client, block_for_rounds, blocked_count, count_time_from_now,
    end_rounds, in_round, wait_on, wake_blocked, work_in_rounds,
};
pub use call::{Arguments, CommandArgs, Handler, Handles, before_next_command, take_command_count};
pub use context::{Ctx, ServerState, is_cluster, is_replica};
pub use event::{ServerEvents, once_loaded, subscribe};
pub use event_loop_hook::{Loop, run_each_turn, watch_sleep};
pub use info::{InfoWriter, register_info};
pub use io::{Digest, RdbReader, RdbWriter};
pub use key::{Access, Key, KeyOf, KeyScan};
pub use load::{has_settings_left, load};
pub use main_cell::{MainBound, MainCell};
pub use permit::WritePermit;
pub use reclaim::reclaim;
pub use reply::{Reply, Tape, bytes_replied};
pub use steps::{Done, judge_commands, longest_run, watched, work_so_far};
pub use string::{ArgString, HeldString, RString, ServerString};
pub use threads::{Threads, Work};
pub use timer::{Alarm, run_later, run_once, start_timer};
pub use value::{ModuleValue, TellsLength, Thin, TypeHandle, register_type};
pub use zset::From as ZsetFrom;

/// The raw bindings, for the entry point's signature alone.
pub use redis_module::raw::{RedisModuleCtx, RedisModuleString};
