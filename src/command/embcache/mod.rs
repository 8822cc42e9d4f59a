//! The `EMBCACHE.*` family: embeddings kept by the digest of their text.
//!
//! Owns: what is asked for and in which form it is answered. The containers, the entries, their leases
//! and limits are those of `LLMCACHE.*`, of another kind.

pub(super) mod admin;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod many;
pub(super) mod set;

use super::container::create::check_model;
use super::container::texts::{Meaning, meaning, model_for, no_vector};
use super::parse::{ArgReader, OptionWord, set_once};
use crate::ffi::{Access, Arguments, Ctx, HeldString, Reply, ServerString};
use crate::keyspace::{Again, OpenedEntry, find_container, open_container, open_entry};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryKey, EntryView, Kind, raw_embedding, unpack_embedding};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::EmbeddingDigest;
use llmcache_core::limits;
use llmcache_core::vector::normalise::{encode_fp16, encode_fp32};
use llmcache_core::work::count_bytes;

/// What an embedding is asked for by.
#[derive(Debug, Clone, Copy)]
enum Subject<'a> {
    Text(&'a [u8]),
    Digest(EmbeddingDigest),
}

impl<'a> Subject<'a> {
    /// Whether the word opens one.
    fn is_word(word: &OptionWord) -> bool {
        matches!(word.as_str(), "TEXT" | "DIGEST")
    }

    /// The rest of `TEXT t` or `DIGEST hex`.
    fn read(word: &OptionWord, args: &mut ArgReader<'a>) -> Result<Self> {
        let value = args.next(word.as_str())?;
        Self::new(word.as_str() == "TEXT", value)
    }

    fn new(is_text: bool, value: &'a [u8]) -> Result<Self> {
        if is_text {
            let (got, max) = (value.len(), limits::PROMPT_MAX_BYTES);
            return if got <= max {
                Ok(Self::Text(value))
            } else {
                Err(Error::too_big("TEXT", got, max, "bytes"))
            };
        }
        EmbeddingDigest::from_hex(value)
            .map(Self::Digest)
            .ok_or_else(|| Error::err("a digest has 64 lower-case hex digits"))
    }

    fn digest(&self, model: &[u8]) -> EmbeddingDigest {
        match self {
            Self::Text(text) => EmbeddingDigest::of(model, text),
            Self::Digest(digest) => *digest,
        }
    }

    fn text(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text,
            Self::Digest(_) => b"",
        }
    }
}

/// The same for work that goes on after the command's call.
#[derive(Debug)]
enum Named {
    Text(HeldString),
    Digest(EmbeddingDigest),
}

impl Named {
    /// Of a subject that was read as the last of so many arguments.
    fn of(args: &Arguments<'_>, subject: &Subject<'_>, position: usize) -> Self {
        match subject {
            Subject::Text(_) => Self::Text(args.held(position)),
            Subject::Digest(digest) => Self::Digest(*digest),
        }
    }

    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            Self::Digest(_) => None,
        }
    }

    fn digest(&self, model: &[u8]) -> EmbeddingDigest {
        match self {
            Self::Text(text) => {
                count_bytes(text.as_bytes().len());
                EmbeddingDigest::of(model, text.as_bytes())
            }
            Self::Digest(digest) => *digest,
        }
    }
}

/// `TEXTS n t…` or `DIGESTS n hex…`, and what holds for all of them.
#[derive(Debug, Default)]
struct Subjects<'a> {
    asked: Option<Vec<Named>>,
    model: Option<&'a [u8]>,
}

impl<'a> Subjects<'a> {
    /// Reads the option that `word` opened; false when it is none of these.
    fn read(
        &mut self,
        given: &Arguments<'_>,
        word: &OptionWord,
        args: &mut ArgReader<'a>,
    ) -> Result<bool> {
        let name = word.as_str();
        match name {
            "TEXTS" | "DIGESTS" => {
                let values = args.list(name, limits::EMBEDDINGS_MAX)?;
                let first = args.position() - values.len() + 1;
                let asked = values.iter().enumerate().map(|(place, value)| {
                    let subject = Subject::new(name == "TEXTS", value)?;
                    Ok(Named::of(given, &subject, first + place))
                });
                let asked = asked.collect::<Result<Vec<_>>>()?;
                set_once(&mut self.asked, asked, "what is asked for")?;
            }
            "TEXT" | "DIGEST" => return Err(word.unknown()),
            "MODEL" => set_once(&mut self.model, model(args)?, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take(self) -> Result<Vec<Named>> {
        self.asked.ok_or_else(|| Error::err("syntax error: TEXTS or DIGESTS is needed"))
    }
}

/// Reads a model.
fn model<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    args.text("MODEL", limits::MODEL_MAX_BYTES)
}

/// The container, which must be of the model the caller says it uses, if it does.
fn open(ctx: Ctx<'_>, args: &Arguments<'_>, model: Option<&[u8]>) -> Result<Option<SharedCache>> {
    of_model(open_container(ctx, &args.key(), Kind::Embeddings)?, args, model)
}

/// The same for a look-up, which may miss.
fn look_for(
    ctx: Ctx<'_>,
    args: &Arguments<'_>,
    model: Option<&[u8]>,
) -> Result<Option<SharedCache>> {
    of_model(find_container(ctx, &args.key(), Kind::Embeddings)?, args, model)
}

fn of_model(
    cache: Option<SharedCache>,
    args: &Arguments<'_>,
    model: Option<&[u8]>,
) -> Result<Option<SharedCache>> {
    if let (Some(cache), Some(model)) = (&cache, model) {
        cache.with(|cache| check_model(&cache.settings, model, args.name()))?;
    }
    Ok(cache)
}

/// An embedding that was computed here.
type Computed = (EmbeddingDigest, Vec<f32>);

/// What came of a text that was not stored.
enum Computing {
    /// Its vector.
    Numbers(Vec<f32>),
    /// It is being embedded: the command is to end without a reply, and is run again.
    Later,
    /// Nothing embeds for the container, or only a digest was given.
    None,
}

/// Embeds a text for a container with EMBED; refuses one that has no vector of its own.
fn compute(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    subject: &Subject<'_>,
    again: Again<'_>,
) -> Result<Computing> {
    let (Subject::Text(text), Some(model)) = (subject, model_for(cache)) else {
        return Ok(Computing::None);
    };
    match meaning(ctx, Some(&model), text, Role::Query, again)? {
        Meaning::Vector(meant) => Ok(Computing::Numbers(meant.query.normalised().to_vec())),
        Meaning::Later => Ok(Computing::Later),
        Meaning::None(refusal) => Err(no_vector(refusal)),
    }
}

/// The name of an embedding's key.
fn key_of(cache: &SharedCache, digest: &EmbeddingDigest) -> EntryKey {
    cache.with(|cache| cache.named_key(&digest.entry_id().hex()))
}

/// Opens the embedding of a digest.
fn find<'c>(
    ctx: Ctx<'c>,
    cache: &SharedCache,
    digest: &EmbeddingDigest,
    access: Access,
) -> Option<OpenedEntry<'c>> {
    let entry = open_entry(ctx, &key_of(cache, digest), access)?;
    let view = entry.view();
    let own = view.uid() == cache.with(|cache| cache.uid());
    (own && view.is_embedding() && view.prompt() == digest.0).then_some(entry)
}

/// The form a vector is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    #[default]
    Fp32,
    Fp16,
    Values,
}

impl Form {
    /// The rest of `AS form`.
    fn read(args: &mut ArgReader<'_>) -> Result<Self> {
        let word = args.option().ok_or_else(|| Error::err("syntax error: AS needs a value"))?;
        match word.as_str() {
            "FP32" => Ok(Self::Fp32),
            "FP16" => Ok(Self::Fp16),
            "VALUES" => Ok(Self::Values),
            _ => Err(Error::err("AS must be FP32, FP16 or VALUES")),
        }
    }

    /// Bytes of a number in a reply.
    const fn number_bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Fp16 => 2,
            // A sign, nine digits, a point, an exponent, and the protocol's lengths.
            Self::Values => 24,
        }
    }

    /// Writes an embedding, or null.
    fn write(self, reply: Reply<'_>, embedding: Option<EntryView<'_>>) {
        if let Some(mut rest) = self.begin(reply, embedding) {
            while rest.write(reply) {}
        }
    }

    /// Writes an embedding, or null, but for numbers as text, of which the rest is to be written part by part.
    fn begin(self, reply: Reply<'_>, embedding: Option<EntryView<'_>>) -> Option<NumbersLeft> {
        if let (Self::Fp32, Some(bytes)) = (self, embedding.and_then(|view| raw_embedding(&view))) {
            reply.bytes(bytes);
            return None;
        }
        self.begin_numbers(reply, embedding.and_then(|view| unpack_embedding(&view)))
    }

    /// The same of numbers.
    fn begin_numbers(self, reply: Reply<'_>, numbers: Option<Vec<f32>>) -> Option<NumbersLeft> {
        let Some(numbers) = numbers else {
            reply.null();
            return None;
        };
        match self {
            Self::Fp32 => {
                reply.bytes(&encode_fp32(&numbers));
            }
            Self::Fp16 => {
                reply.bytes(&encode_fp16(&numbers));
            }
            Self::Values => {
                reply.array(numbers.len());
                return Some(NumbersLeft { numbers, next: 0 });
            }
        }
        None
    }
}

/// Numbers that are written as text at once: some fifty microseconds.
const NUMBERS_AT_ONCE: usize = 256;

/// Numbers of which some are still to be written as text.
#[derive(Debug)]
struct NumbersLeft {
    numbers: Vec<f32>,
    next: usize,
}

impl NumbersLeft {
    /// Writes some; false when those were the last.
    fn write(&mut self, reply: Reply<'_>) -> bool {
        let end = self.numbers.len().min(self.next + NUMBERS_AT_ONCE);
        for &number in &self.numbers[self.next..end] {
            reply.single(number);
        }
        self.next = end;
        end < self.numbers.len()
    }
}
