//! Containers of answers, documents and embeddings: what an entry is, what a container is set to, how an
//! answer is looked up and what that saved.
//!
//! Owns: everything of `LLMCACHE.*`, `RAG.*` and `EMBCACHE.*` that needs no server. The adapter passes in the time, random
//! words and a way to open keys.

mod breaker;
mod container;
mod embedding;
mod entry;
mod epochs;
mod flight;
pub mod guard;
mod hybrid;
mod kind;
mod lookup;
mod matryoshka;
pub mod maxerror;
mod miss_reason;
mod mmr;
mod money;
mod near_misses;
mod settings;
mod stats;
mod tier;

pub use breaker::BreakerSettings;
pub use container::{Cache, EntryKey, KindTotals, TAG_HEAD};
pub use embedding::{kept_bytes, pack_embedding, raw_embedding, unpack_embedding};
pub use entry::{Entry, EntryFields, EntryView};
pub use epochs::{Epochs, Extent, Severity};
pub use flight::{
    Ask, Flights, Found, Lapse, LeaseToken, Room, Verdict, WaiterId, refreshes_early,
};
pub use hybrid::{Fused, WordsRequest, look_up_words};
pub use kind::Kind;
pub use lookup::{
    Halt, Hit, Keyspace, Looked, LookupReport, LookupRequest, Near, look_up, no_words, run_words,
    too_many_steps, too_much_at_once,
};
pub use miss_reason::{MissReason, Nearest};
pub use mmr::{Diversity, estimated_tokens, pick_diverse, within_budget};
pub use money::{format_usd, parse_usd};
pub use near_misses::{NearMiss, NearMisses};
pub use settings::{Outlet, Settings};
pub use stats::{FetchOutcome, HISTOGRAM_BUCKETS, Hot, Lifetime, ScopeStats, Stats};
pub use tier::Tier;
