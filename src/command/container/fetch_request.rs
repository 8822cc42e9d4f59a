//! The parsed request of a FETCH.
//!
//! Owns: the trait of what is fetched, and the options that every FETCH has. Main thread.

use crate::command::container::hit_reply::Served;
use crate::command::parse::{ArgReader, OptionWord, flag_once, set_once};
use crate::config;
use crate::ffi::{Arguments, CommandArgs, Ctx, Reply};
use crate::keyspace::{Meant, OpenedEntry, Searches};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::guard::GuardLevel;
use llmcache_core::cache::guard::Unseen;
use llmcache_core::cache::{Hit, Looked, LookupReport};
use llmcache_core::error::Result;
use llmcache_core::ids::{EntryId, UnixMs};
use llmcache_core::limits;
use llmcache_core::vector::Query;

/// What is fetched: the answer to a question, or an embedding.
pub trait Wanted {
    /// The container, which is made where it may be; refuses what does not fit it.
    fn container(&self, ctx: Ctx<'_>, args: &CommandArgs<'_>) -> Result<SharedCache>;
    /// The container a client waited at, if it is still there.
    fn reopen(&self, ctx: Ctx<'_>, args: &Arguments<'_>) -> Result<Option<SharedCache>>;
    /// The id of the entry that would answer it.
    fn id(&self, cache: &SharedCache) -> EntryId;
    /// Scope, context and prompt, empty where there are none.
    fn identity(&self) -> (&[u8], &[u8], &[u8]);
    /// Its vector, where near ones will do.
    fn query(&self) -> Option<&Query>;
    /// The text that is embedded where there is no vector, and why it was not.
    fn text(&self) -> Option<&[u8]> {
        None
    }
    /// Takes the vector of that text, and what it does not show of it.
    fn set_meaning(&mut self, _meant: Meant) {}
    /// What its vector does not show of the prompt, where it was made of the prompt here.
    fn unseen(&self) -> Option<&Unseen> {
        None
    }
    /// How strictly near ones are judged.
    fn guard(&self) -> GuardLevel;
    /// Looks it up.
    fn look_up<'c>(
        &self,
        ctx: Ctx<'c>,
        cache: &SharedCache,
        searches: &Searches,
        now: UnixMs,
    ) -> Looked<LookupReport<OpenedEntry<'c>>>;
    /// Writes what was found, and the name it has in the reply.
    fn write_hit(
        &self,
        reply: Reply<'_>,
        hit: &Hit<OpenedEntry<'_>>,
        served: (Served, UnixMs),
        ticket: Option<&str>,
    );
    /// A ticket for the lookup, where its caller can tell right from wrong and it is audited.
    fn ticket(
        &self,
        _ctx: Ctx<'_>,
        _cache: &SharedCache,
        _report: &LookupReport<OpenedEntry<'_>>,
    ) -> Option<String> {
        None
    }
}

/// On which terms something is fetched.
#[derive(Debug, Default)]
pub struct Terms {
    lease_ms: Option<u64>,
    wait_ms: Option<u64>,
    beta: Option<f64>,
    via: bool,
}

impl Terms {
    /// Reads the option that `word` opened; false when it is none of these.
    pub fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'_>) -> Result<bool> {
        let name = word.as_str();
        let most = limits::LEASE_MAX_MS;
        match name {
            "LEASE" => set_once(&mut self.lease_ms, args.integer(name, 1, most)?, name)?,
            "WAIT" => set_once(&mut self.wait_ms, args.integer(name, 0, most)?, name)?,
            "BETA" => set_once(&mut self.beta, args.decimal(name, 0.0, limits::BETA_MAX)?, name)?,
            "VIA" => flag_once(&mut self.via, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The request with these terms.
    pub fn of(self, wanted: Box<dyn Wanted + '_>) -> FetchRequest<'_> {
        FetchRequest {
            wanted,
            lease_ms: self.lease_ms.unwrap_or_else(config::lease_ms),
            wait_ms: self.wait_ms.unwrap_or_else(config::wait_ms),
            beta: self.beta.unwrap_or_else(config::beta),
            via: self.via,
        }
    }
}

/// What is asked.
pub struct FetchRequest<'a> {
    pub(super) wanted: Box<dyn Wanted + 'a>,
    pub(super) lease_ms: u64,
    pub(super) wait_ms: u64,
    pub(super) beta: f64,
    pub(super) via: bool,
}

/// Reads the arguments, when the command comes and again when a client that waited is woken.
pub type ParseFetch = for<'a> fn(ArgReader<'a>) -> Result<FetchRequest<'a>>;
