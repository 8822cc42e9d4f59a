//! The trait through which a lookup uses the server: opening entry keys, reaching the cache, counting work.
//!
//! Owns: the trait that the adapter implements and the errors of work that is refused. Main thread only.

use crate::cache::{Cache, Entry};
use crate::error::{Error, ErrorWord};
use crate::ids::{Seq, SlotId};
use crate::index::{Gate, SearchRequest, SearchResult};
use crate::words::{PhraseReading, WordQuery, WordSearch};
use crate::work::Steps;
use std::ops::Deref;

/// How entries are opened and the cache is reached.
pub trait Keyspace {
    /// An opened entry; reading it is valid while this lives.
    type Opened: Deref<Target = Entry>;

    /// Opens an entry key: `None` when there is no such key, it is due, or it holds something else.
    /// May delete a key that is due. Counts as a use of the key where it is `served` for certain; of
    /// the rest the caller of the lookup counts what it serves.
    fn open(&self, key: &[u8], served: bool) -> Option<Self::Opened>;

    /// Asks for the first bytes of an opened entry, ahead of their use.
    fn prefetch(&self, _opened: &Self::Opened, _bytes: usize) {}

    /// Works on the cache; must not be nested, and must not open keys.
    fn with_cache<R>(&self, work: impl FnOnce(&mut Cache) -> R) -> R;

    /// Searches the cache's index.
    fn search(&self, request: &SearchRequest<'_>) -> Looked<SearchResult> {
        Ok(self.with_cache(|cache| cache.index.search(request)))
    }

    /// Has the filter records of a partition answer what a filter asks for, because a search met many that do not;
    /// returns whether they do now.
    fn learn(&self, _request: &SearchRequest<'_>) -> Looked<bool> {
        Ok(false)
    }

    /// Searches the words of the cache's texts, to the end.
    fn search_words(&self, query: &WordQuery, limit: usize, gate: &Gate<'_>) -> Looked<WordSearch> {
        self.with_cache(|cache| {
            let mut steps = Steps::NONE;
            while cache.index.take_out_words(&mut steps) {}
            let words = cache.index.words().ok_or_else(no_words)?;
            let mut search = WordSearch::new(words, query, limit);
            while !run_words(cache, &mut search, gate, u64::MAX, &mut steps)? {}
            Ok(search)
        })
    }

    /// Whether the text of an entry has the phrases asked for; read part by part, and once, in however many rounds a command
    /// goes. `part` reads on and tells it once it is known.
    fn judged(
        &self,
        _slot: SlotId,
        _seq: Seq,
        mut part: impl FnMut(&mut PhraseReading) -> Option<bool>,
    ) -> Looked<bool> {
        let mut reading = PhraseReading::default();
        loop {
            if let Some(verdict) = part(&mut reading) {
                return Ok(verdict);
            }
        }
    }

    /// The similarity of an entry with a vector of so many numbers, where a question measures many: once, in however many
    /// rounds a command goes.
    fn measured(
        &self,
        _slot: SlotId,
        _seq: Seq,
        _numbers: usize,
        measure: impl FnOnce() -> f64,
    ) -> Looked<f64> {
        Ok(measure())
    }

    /// Counts work; refuses to go on where it is more than a command may do that cannot be made to wait.
    fn spend(&self, _steps: Steps) -> Looked<()> {
        Ok(())
    }
}

/// Why a question has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The work goes on elsewhere, and the question is to be asked again when it is done.
    Elsewhere,
    /// It is refused.
    Refused(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What may halt.
pub type Looked<T> = std::result::Result<T, Halt>;

/// The error of work that is too much for a client that cannot be made to wait, with what else helps.
pub fn too_much_at_once(advice: &str) -> Error {
    let message = format!(
        "this takes too long where the client cannot be made to wait; {advice}send it outside of MULTI and scripts"
    );
    Error::new(ErrorWord::Busy, message)
}

/// The error of a filter that takes too long on one entry.
pub fn too_many_steps() -> Error {
    let message = format!(
        "the expression takes more than {} steps on the META of one entry; compare shorter members, or fewer of them",
        crate::limits::FILTER_STEPS_MAX
    );
    Error::new(ErrorWord::BadFilter, message)
}

/// Goes on with a search of words; whether it is done.
///
/// # Errors
///
/// Where a filter takes too long.
pub fn run_words(
    cache: &Cache,
    search: &mut WordSearch,
    gate: &Gate<'_>,
    most_steps: u64,
    steps: &mut Steps,
) -> Looked<bool> {
    let mut too_long = 0;
    let is_done = cache.index.search_words(search, gate, most_steps, steps, &mut too_long);
    if too_long > 0 {
        return Err(too_many_steps().into());
    }
    Ok(is_done)
}

/// The error of a question of words where none are indexed.
pub fn no_words() -> Error {
    Error::err("the index has no words: it is made with WORDS and a language")
}
