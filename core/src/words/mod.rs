//! The words of a container's texts: which texts have a word, and how often, so that texts are found by BM25.
//!
//! Owns: an index that is derived from the stored texts and, as the index of vectors, a hint: a search names rows, and
//! the entry that is opened tells whether it counts. `analyser` cuts a text into words, `reading` a long text into parts, `postings` keeps the texts of
//! a word, `search` finds the best, `walk` is its way over lists, `feedback` what the best texts add to a question, `word_cache` spares stemming, `query` is what a user writes, `phrase` and `snippet` look into a text that was
//! opened, `fuse` makes one order of two, `persist` saves. Main thread.

mod analyser;
mod bm25;
mod dictionary;
mod feedback;
mod fuse;
mod index;
mod language;
mod packed;
mod persist;
mod phrase;
mod postings;
mod query;
mod reading;
mod search;
mod snippet;
mod walk;
mod word_cache;

pub use analyser::{Analyser, Token};
pub use bm25::Scored;
pub use fuse::{Fusion, Ranked, fuse};
pub use index::WordIndex;
pub use language::Language;
pub use phrase::{PhraseReading, Phrases};
pub use query::{Clause, Means, Need, WordQuery};
pub use reading::TextWords;
pub use search::WordSearch;
pub use snippet::{Snippet, snippet};
