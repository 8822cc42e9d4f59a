//! What commands and background work do to keys: open caches and entries, store, remove, attach.
//!
//! Owns: the order of steps that keeps keyspace, index and replicas in agreement. A cache is
//! borrowed for single steps and never across opening a key. Main thread only.

mod attach;
mod caches;
mod entries;

pub use attach::{Attached, attach_arrival, attach_open};
pub use caches::{create_cache, open_cache, put_back_evicted};
pub use entries::{
    CommandKeyspace, NewEntry, OpenedEntry, enforce_limits, open_entry, put_entry, remove_entry,
    remove_entry_of, set_entry_expiry, touch,
};
