//! The keyspace that lookups of a command use: keys opened for it, searches that may continue elsewhere.
//!
//! Owns: the implementation of `Keyspace` for commands. Main thread.

use super::entries::{OpenedEntry, open_entry};
use super::searches::Searches;
use crate::ffi::{Access, Ctx};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{Cache, Keyspace, Looked};
use llmcache_core::ids::{Seq, SlotId};
use llmcache_core::index::{Gate, SearchRequest, SearchResult};
use llmcache_core::words::{PhraseReading, WordQuery, WordSearch};
use llmcache_core::work::Steps;

/// What a command looks up in.
#[derive(Debug)]
pub struct CommandKeyspace<'a, 'c> {
    /// The running command.
    pub ctx: Ctx<'a>,
    /// The cache asked.
    pub cache: &'c SharedCache,
    /// How it searches.
    pub searches: &'c Searches,
}

impl<'a> Keyspace for CommandKeyspace<'a, '_> {
    type Opened = OpenedEntry<'a>;

    fn open(&self, key: &[u8], served: bool) -> Option<OpenedEntry<'a>> {
        if let Some(is_used) = self.searches.opened_before(key) {
            let opened = open_entry(self.ctx, key, Access::Unasked)?;
            return Some(OpenedEntry { is_used, ..opened });
        }
        self.searches.note_opened(key, served);
        open_entry(self.ctx, key, if served { Access::Read } else { Access::Probe })
    }

    fn prefetch(&self, opened: &OpenedEntry<'a>, bytes: usize) {
        opened.key.prefetch(bytes);
    }

    fn with_cache<R>(&self, work: impl FnOnce(&mut Cache) -> R) -> R {
        self.cache.with(work)
    }

    fn search(&self, request: &SearchRequest<'_>) -> Looked<SearchResult> {
        self.searches.search(self.ctx, self.cache, request)
    }

    fn search_words(&self, query: &WordQuery, limit: usize, gate: &Gate<'_>) -> Looked<WordSearch> {
        self.searches.search_words(self.ctx, self.cache, query, limit, gate)
    }

    fn judged(
        &self,
        slot: SlotId,
        seq: Seq,
        part: impl FnMut(&mut PhraseReading) -> Option<bool>,
    ) -> Looked<bool> {
        self.searches.judged(self.ctx, (slot, seq), part)
    }

    fn measured(
        &self,
        slot: SlotId,
        seq: Seq,
        numbers: usize,
        measure: impl FnOnce() -> f64,
    ) -> Looked<f64> {
        self.searches.measured(self.ctx, (slot, seq), numbers, measure)
    }

    fn learn(&self, request: &SearchRequest<'_>) -> Looked<bool> {
        match request.filter {
            Some(filter) => self.searches.learn(self.ctx, self.cache, request.partition, filter),
            None => Ok(false),
        }
    }

    fn spend(&self, steps: Steps) -> Looked<()> {
        self.searches.spend(self.ctx, steps)
    }
}
