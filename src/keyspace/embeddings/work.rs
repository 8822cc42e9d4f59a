//! The work of embedding threads: a model and a text, no key and no client.
//!
//! Owns: the job. Made on the main thread, done on a thread.

use crate::config;
use crate::ffi::Work;
use llmcache_core::embed::{Model, Refusal, Role, Scratch, Shared, Tokens, Turn, rest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Names a text among those that one model reads, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::keyspace) struct TextKey {
    pub(super) model: usize,
    pub(super) role: Role,
    pub(super) digest: [u8; 16],
    /// Whether words of scripts that the model does not know are taken.
    pub(super) any_script: bool,
    /// Whether the beginning will do where the model cannot read all.
    pub(super) cuts: bool,
}

impl TextKey {
    /// What the model sees of the text.
    pub(super) fn read(&self, model: &Model, bytes: &[u8]) -> Result<Tokens, Refusal> {
        // What is not UTF-8 would lose the bytes that tell it from others.
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Script)?;
        match self.cuts {
            true => model.read_beginning(text, self.role, self.any_script),
            false => model.read(text, self.role, self.any_script),
        }
    }
}

pub(super) type Vector = Arc<[f32]>;

/// The vector of a text, and what it does not show.
#[derive(Debug, Clone)]
pub(in crate::keyspace) struct Made {
    pub(in crate::keyspace) vector: Vector,
    /// Microseconds it took to make for whoever waited; 0 for who finds it.
    pub(super) us: u64,
    pub(super) seen: Seen,
}

/// What the model saw of a text: how many tokens, and a digest of the words that it does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) tokens: usize,
    pub(super) unknown: Option<[u8; 16]>,
}

impl Seen {
    pub(super) fn of(tokens: &Tokens) -> Self {
        Self { tokens: tokens.ids.len(), unknown: tokens.unknown }
    }
}

/// What came of a text.
#[derive(Debug, Clone)]
pub(in crate::keyspace) enum Came {
    Vector(Made),
    /// The model does not read it.
    Refused(Refusal),
    /// The model gives no vector of finite numbers.
    Nothing,
}

/// A text that is to be embedded. One that is not read yet is read in the thread.
pub(in crate::keyspace) enum Text {
    Read(Tokens),
    Unread(Box<[u8]>),
}

/// Who computes a text.
pub(super) enum Share {
    /// One thread alone.
    Whole,
    /// One thread, with those that help.
    Led(Arc<Shared>),
    /// One of those that help, and how often it found nothing to do of late.
    Helped(Arc<Shared>, u32),
}

/// A text on its way through a thread.
pub(super) struct Job {
    pub(super) key: TextKey,
    pub(super) model: Arc<Model>,
    pub(super) text: Arc<Text>,
    pub(super) share: Share,
    pub(super) is_wanted: Arc<AtomicBool>,
    pub(super) outcome: Outcome,
}

pub(super) enum Outcome {
    /// Nobody waited for it when its turn came.
    Skipped,
    Came(Came),
}

impl Work for Job {
    const THREAD: &'static str = "llmcache-embed";
    type Scratch = Scratch;
    /// None of who helped: the text comes from whom it was given to.
    type Ticket = Option<TextKey>;
    type Outcome = Outcome;

    fn ticket(&self) -> Option<TextKey> {
        (!matches!(self.share, Share::Helped(..))).then_some(self.key)
    }

    /// A pass keeps a core busy for as long as it is let run.
    fn nicer() -> i32 {
        config::embed_nice()
    }

    fn slice(&mut self, scratch: &mut Scratch) -> bool {
        let is_wanted = self.is_wanted.load(Ordering::Relaxed);
        match &mut self.share {
            Share::Helped(shared, idle) => {
                let Text::Read(tokens) = &*self.text else { return true };
                match self.model.help(tokens, shared, scratch) {
                    Turn::Done => *idle = 0,
                    Turn::Wait => rest(idle),
                    Turn::Over => return true,
                }
                // After each step: a text that came meanwhile goes before.
                return false;
            }
            Share::Led(shared) if !is_wanted => shared.give_up(),
            Share::Led(_) | Share::Whole => {}
        }
        if is_wanted {
            self.outcome = Outcome::Came(match &*self.text {
                Text::Read(tokens) => self.embed(tokens, scratch),
                Text::Unread(bytes) => match self.key.read(&self.model, bytes) {
                    Ok(tokens) => self.embed(&tokens, scratch),
                    Err(refusal) => Came::Refused(refusal),
                },
            });
        }
        true
    }

    fn end(self) -> Outcome {
        self.outcome
    }
}

impl Job {
    fn embed(&self, tokens: &Tokens, scratch: &mut Scratch) -> Came {
        let begin = Instant::now();
        let vector = match &self.share {
            Share::Led(shared) => self.model.embed_shared(tokens, shared, scratch),
            Share::Whole | Share::Helped(..) => self.model.embed(tokens, scratch),
        };
        let Some(vector) = vector else { return Came::Nothing };
        let us = begin.elapsed().as_micros() as u64;
        Came::Vector(Made { vector: vector.into(), us, seen: Seen::of(tokens) })
    }
}
