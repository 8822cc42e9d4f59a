//! Data structures and algorithms of llmcache, free of Redis.
//!
//! Owns: everything that can be decided without a server: ids, vectors, the index, the form of an
//! entry, settings, lookup order, statistics, eviction arithmetic. Must not know: Redis, a clock, a
//! source of randomness, threads; callers pass the time and random words in. Arrows inside run one
//! way: `distance <- vector <- index <- cache`, and `kvchunk`, `session`, `embed` and `words` beside them; `account`, `allocation`,
//! `cluster`, `codec`, `ids`, `error`, `limits`, `listing`, `load`, `sharded`, `sleepers` and `work` serve all.

pub mod account;
pub mod allocation;
pub mod cache;
pub mod cluster;
pub mod codec;
pub mod distance;
pub mod embed;
pub mod error;
pub mod evict;
pub mod filter;
pub mod ids;
pub mod index;
pub mod kvchunk;
pub mod limits;
pub mod listing;
pub mod load;
mod members;
pub mod session;
pub mod sharded;
pub mod sleepers;
mod sync;
mod top;
pub mod vector;
pub mod words;
pub mod work;
