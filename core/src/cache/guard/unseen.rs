//! Detects what the vector of a question cannot show: words without pieces in the vocabulary, and accents that the
//! tokenizer strips.
//!
//! Owns: the rule that two questions are near to each other only where these words are the same. All of them are one
//! unknown piece to the model, so that questions which differ in nothing else have equal vectors, whatever the threshold
//! and whatever the guards are set to; and that a word which both have has the same accents in both ("año" is not "ano").
//! Pure; any thread.

use std::fmt::Debug;
use std::sync::Arc;

/// Names the unknown words of a text, in their order.
pub type UnseenDigest = [u8; 16];

/// What tells which words of a text a model does not know.
pub trait Sight: Debug + Send + Sync {
    /// A digest of the words that the model has no pieces for; `None` where it knows all of them, or reads no such text.
    fn unseen(&self, text: &[u8]) -> Option<UnseenDigest>;

    /// Whether both texts have a word whose letters differ by what is stripped before the model sees it.
    fn strips_difference(&self, one: &[u8], other: &[u8]) -> bool;
}

/// What a vector does not show of its question.
#[derive(Debug, Clone)]
pub struct Unseen {
    sight: Arc<dyn Sight>,
    words: Option<UnseenDigest>,
    text: Arc<[u8]>,
}

impl Unseen {
    /// Those of a question that was embedded, `words` being what `sight` says of it.
    pub fn new(sight: Arc<dyn Sight>, words: Option<UnseenDigest>, text: &[u8]) -> Self {
        Self { sight, words, text: text.into() }
    }

    /// Whether what a vector does not show tells the question from this one.
    pub fn tells_from(&self, stored: &[u8]) -> bool {
        self.words != self.sight.unseen(stored) || self.sight.strips_difference(&self.text, stored)
    }
}
