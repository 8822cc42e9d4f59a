//! The `EMBCACHE.*` family: embeddings kept by the digest of their text.
//!
//! Owns: what is asked for and in which form it is answered. The containers, the entries, their leases
//! and limits are those of `LLMCACHE.*`, of another kind.

pub(super) mod admin;
pub(super) mod fetch;
pub(super) mod get;
pub(super) mod set;

use super::container::create::check_model;
use super::container::texts::{Meaning, meaning, model_for, no_vector};
use super::parse::{ArgReader, OptionWord, set_once};
use crate::ffi::{Access, Arguments, Ctx, Reply};
use crate::keyspace::{
    Again, Embedded, OpenedEntry, Texts, embed, find_container, open_container, open_entry,
};
use crate::keytype::cache_registry::SharedCache;
use llmcache_core::cache::{EntryKey, EntryView, Kind, raw_embedding, unpack_embedding};
use llmcache_core::embed::Role;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::EmbeddingDigest;
use llmcache_core::limits;
use llmcache_core::vector::normalise::{encode_fp16, encode_fp32};

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

/// `TEXTS n t…` or `DIGESTS n hex…`, and what holds for all of them.
#[derive(Debug, Default)]
struct Subjects<'a> {
    asked: Option<Vec<Subject<'a>>>,
    model: Option<&'a [u8]>,
}

impl<'a> Subjects<'a> {
    /// Reads the option that `word` opened; false when it is none of these.
    fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<bool> {
        let name = word.as_str();
        match name {
            "TEXTS" | "DIGESTS" => {
                let values = args.list(name, limits::EMBEDDINGS_MAX)?;
                let asked = values.iter().map(|value| Subject::new(name == "TEXTS", value));
                let asked = asked.collect::<Result<Vec<_>>>()?;
                set_once(&mut self.asked, asked, "what is asked for")?;
            }
            "TEXT" | "DIGEST" => return Err(word.unknown()),
            "MODEL" => set_once(&mut self.model, model(args)?, name)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take(self) -> Result<Vec<Subject<'a>>> {
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

/// What came of a text that was not stored.
enum Computed {
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
) -> Result<Computed> {
    let (Subject::Text(text), Some(model)) = (subject, model_for(cache)) else {
        return Ok(Computed::None);
    };
    match meaning(ctx, Some(&model), text, Role::Query, again)? {
        Meaning::Vector(meant) => Ok(Computed::Numbers(meant.query.normalised().to_vec())),
        Meaning::Later => Ok(Computed::Later),
        Meaning::None(refusal) => Err(no_vector(refusal)),
    }
}

/// Embeds many texts for a container with EMBED, all as one piece of work: of each its vector, or the error of a text
/// that has none of its own. `None` where the command is to end and is run again.
fn compute_all(
    ctx: Ctx<'_>,
    cache: &SharedCache,
    texts: &[&[u8]],
    again: Again<'_>,
) -> Result<Option<Vec<Result<Vec<f32>>>>> {
    let Some(model) = model_for(cache) else {
        return Ok(Some(texts.iter().map(|_| Err(no_vector(None))).collect()));
    };
    let texts = Texts { model: &model, role: Role::Query, texts, cut: &[] };
    let Embedded::Now(vectors) = embed(ctx, &texts, again)? else { return Ok(None) };
    let numbers = vectors.into_iter().map(|vector| match vector {
        Ok(meant) => Ok(meant.query.normalised().to_vec()),
        Err(refusal) => Err(no_vector(Some(refusal))),
    });
    Ok(Some(numbers.collect()))
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
        if let (Self::Fp32, Some(bytes)) = (self, embedding.and_then(|view| raw_embedding(&view))) {
            reply.bytes(bytes);
            return;
        }
        let Some(numbers) = embedding.and_then(|view| unpack_embedding(&view)) else {
            reply.null();
            return;
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
                numbers.iter().for_each(|&x| {
                    reply.single(x);
                });
            }
        }
    }
}
