//! The response cache: what an entry is, what a container is set to, how an answer is looked up and
//! what that saved.
//!
//! Owns: everything of `LLMCACHE.*` that needs no server. The adapter passes in the time, random
//! words and a way to open keys.

mod breaker;
mod container;
mod entry;
mod epochs;
mod flight;
pub mod guard;
mod lookup;
mod miss;
mod money;
mod settings;
mod stats;

pub use breaker::BreakerSettings;
pub use container::{Cache, EntryKey, TAG_HEAD};
pub use entry::{Entry, EntryFields, EntryView};
pub use epochs::{Epochs, Extent, Severity};
pub use flight::{Ask, Flights, Found, Lapse, LeaseToken, Verdict, WaiterId, refreshes_early};
pub use lookup::{Hit, Keyspace, LookupReport, LookupRequest, Tier, look_up};
pub use miss::{MissReason, Nearest};
pub use money::{format_usd, parse_usd};
pub use settings::Settings;
pub use stats::{FetchOutcome, HISTOGRAM_BUCKETS, Hot, ScopeStats, Stats};
