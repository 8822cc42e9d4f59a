//! What the vector of a question does not show: words that the model has no pieces for.
//!
//! Owns: the rule that two questions are near to each other only where these words are the same. All of them are one
//! unknown piece to the model, so that questions which differ in nothing else have equal vectors, whatever the threshold
//! and whatever the guards are set to. Pure; any thread.

use std::fmt::Debug;
use std::sync::Arc;

/// Names the unknown words of a text, in their order.
pub type UnseenDigest = [u8; 16];

/// What tells which words of a text a model does not know.
pub trait Sight: Debug + Send + Sync {
    /// A digest of the words that the model has no pieces for; `None` where it knows all of them, or reads no such text.
    fn unseen(&self, text: &[u8]) -> Option<UnseenDigest>;
}

/// The words of a question that its vector does not show.
#[derive(Debug, Clone)]
pub struct Unseen {
    sight: Arc<dyn Sight>,
    words: Option<UnseenDigest>,
}

impl Unseen {
    /// Those of a question that was embedded, `words` being what `sight` says of it.
    pub fn new(sight: Arc<dyn Sight>, words: Option<UnseenDigest>) -> Self {
        Self { sight, words }
    }

    /// Whether the words that a vector does not show tell the question from this one.
    pub fn tells_from(&self, stored: &[u8]) -> bool {
        self.words != self.sight.unseen(stored)
    }
}
