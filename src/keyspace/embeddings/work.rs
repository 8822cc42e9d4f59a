//! The work of embedding threads: a model and tokens, no key and no client.
//!
//! Owns: the job. Made on the main thread, done on a thread.

use crate::ffi::Work;
use llmcache_core::embed::{Model, Role, Scratch, Tokens};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Names a text among those that one model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::keyspace) struct TextKey {
    pub(super) model: usize,
    pub(super) role: Role,
    pub(super) digest: [u8; 16],
}

/// A vector, and how many microseconds it took to make for whoever waited; none for who finds it.
pub(in crate::keyspace) type Made = (Vector, u64);

pub(super) type Vector = Arc<[f32]>;

/// A text on its way through a thread.
pub(super) struct Job {
    pub(super) key: TextKey,
    pub(super) model: Arc<Model>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) is_wanted: Arc<AtomicBool>,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    /// Nobody waited for it when its turn came.
    Skipped,
    /// The model gives no vector of finite numbers.
    None,
    /// Its vector, and how long that took.
    Vector(Vec<f32>, u64),
}

impl Work for Job {
    const THREAD: &'static str = "llmcache-embed";
    type Scratch = Scratch;
    type Ticket = TextKey;
    type Outcome = Outcome;

    fn ticket(&self) -> TextKey {
        self.key
    }

    fn slice(&mut self, scratch: &mut Scratch) -> bool {
        if self.is_wanted.load(Ordering::Relaxed) {
            let begin = Instant::now();
            self.outcome = match self.model.embed(&self.tokens, scratch) {
                Some(vector) => Outcome::Vector(vector, begin.elapsed().as_micros() as u64),
                None => Outcome::None,
            };
        }
        true
    }

    fn end(self) -> Outcome {
        self.outcome
    }
}
