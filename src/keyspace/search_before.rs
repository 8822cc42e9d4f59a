//! What a command that is run in rounds knows of the rounds before.
//!
//! Owns: the form of it; `searches` fills it in and reads it. Main thread only.

use super::choice::Place;
use super::search_rest::Asked;
use hashbrown::HashMap;
use llmcache_core::ids::ContainerUid;
use llmcache_core::index::SearchResult;
use llmcache_core::vector::Query;
use llmcache_core::words::{PhraseReading, WordQuery, WordSearch};
use smallvec::SmallVec;

/// What tells the entry keys of a cache apart: their ends.
pub(super) type KeyEnd = [u8; 16];

/// Keys that a command opened, and whether that counted as a use; without an allocation for as many as a lookup of
/// ten opens.
pub(super) type OpenedKeys = SmallVec<[(KeyEnd, bool); 24]>;

/// What is there already when a command is run again.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) found: Vec<(Asked, SearchResult)>,
    /// In order, each once.
    pub(super) opened: OpenedKeys,
    pub(super) answered: usize,
    pub(super) replied_bytes: u64,
    pub(super) has_learned: bool,
    /// The vector asked, which need not be read again.
    pub(super) query: Option<Query>,
    /// Whether all that the command asks is left to threads.
    pub(super) is_long: bool,
    /// What was chosen of what was found.
    pub(super) picks: Option<Vec<Place>>,
    /// Similarities of entries of which many are compared with the question.
    pub(super) similarities: HashMap<Place, f64>,
    /// A search of words, of which container, and whether it is done.
    pub(super) words: Option<(ContainerUid, WordSearch, bool)>,
    /// The question of words, for which container.
    pub(super) question: Option<(ContainerUid, WordQuery)>,
    /// Snippets of entries.
    pub(super) snippets: HashMap<Place, Vec<u8>>,
    /// Whether entries have the phrases asked for.
    pub(super) verdicts: HashMap<Place, bool>,
    /// The entry that was being looked into for them.
    pub(super) reading: Option<(Place, PhraseReading)>,
}
