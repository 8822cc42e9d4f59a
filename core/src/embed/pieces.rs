//! What tokenizers have in common: what a text looks like to a model, special tokens, and the parts of `tokenizer.json` that
//! all of them have.
//!
//! Owns: reading these parts, and refusing by name; the way through a text from one special token to the next. Must not
//! know: how words are cut. Any thread.

use super::json::{Object, each_value};
use super::scripts::{Known, script_of};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// A text as the model sees it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The numbers of its pieces, from the first special token to the last.
    pub ids: Vec<u32>,
    /// Words, and those of them that no pieces make up.
    pub words: usize,
    /// See `words`.
    pub unknown_words: usize,
    /// A digest of those words, in their order; `None` where there are none. The ids do not tell them apart.
    pub unknown: Option<[u8; 16]>,
    /// Letters, and those of scripts that the model does not know.
    pub letters: usize,
    /// See `letters`.
    pub foreign_letters: usize,
}

pub(super) const FILE: &str = "tokenizer.json";

pub(super) fn refused(what: impl std::fmt::Display) -> Error {
    Error::err(format!("{FILE}: {what}"))
}

/// The `type` of a part.
pub(super) fn kind<'a>(part: &Object<'a>) -> Result<Cow<'a, str>> {
    Ok(part.text("type")?.unwrap_or(Cow::Borrowed("none")))
}

pub(super) fn need_kind(part: &Object<'_>, what: &str, wanted: &str) -> Result<()> {
    match kind(part)? {
        kind if kind == wanted => Ok(()),
        kind => Err(refused(format!("{what} {kind:?} is not supported, {wanted} is"))),
    }
}

/// What stands before and after each text.
fn read_ends(post: &Object<'_>) -> Result<(String, String)> {
    let of_pair = |name: &str| -> Result<String> {
        let raw = post.raw(name).filter(|raw| raw.len() <= 1_024);
        let pair: Option<(String, u32)> = raw.and_then(|raw| serde_json::from_str(raw).ok());
        pair.map(|pair| pair.0).ok_or_else(|| refused(format!("post_processor has no {name:?}")))
    };
    match kind(post)?.as_ref() {
        "BertProcessing" => Ok((of_pair("cls")?, of_pair("sep")?)),
        "TemplateProcessing" => {
            let odd =
                || refused("post_processor: only one token, the text, one token is supported");
            let raw = post.raw("single").filter(|raw| raw.len() <= 4_096).ok_or_else(odd)?;
            let mut parts = Vec::new();
            each_value(raw, |part| {
                parts.push(part.get());
                Ok(())
            })
            .map_err(refused)?;
            let special = |part: &str| -> Result<String> {
                let part = Object::parse(FILE, part.as_bytes())?.object("SpecialToken")?;
                part.text("id")?.map(Cow::into_owned).ok_or_else(odd)
            };
            match parts[..] {
                [first, text, last] if text.contains("\"Sequence\"") => {
                    Ok((special(first)?, special(last)?))
                }
                _ => Err(odd()),
            }
        }
        other => Err(refused(format!("post_processor {other:?} is not supported"))),
    }
}

/// The number of a piece that there must be.
pub(super) fn number_of(vocabulary: &Vocabulary, piece: &str) -> Result<u32> {
    let missing = || refused(format!("the vocabulary has no {piece:?}"));
    vocabulary.number(piece.as_bytes()).ok_or_else(missing)
}

/// What stands around the pieces of a text and between them, and which letters the model knows.
#[derive(Debug)]
pub(super) struct Frame {
    first: u32,
    last: u32,
    special: Special,
    scripts: Known,
}

/// How a tokenizer cuts what has no special tokens in it.
pub(super) trait Cut {
    /// Adds the pieces of a stretch; `None` where they are too many.
    fn part(&mut self, text: &str, into: &mut Reading) -> Option<()>;
}

/// What is read of a text so far.
pub(super) struct Reading {
    most: usize,
    pub(super) tokens: Tokens,
    pub(super) unknown: Unknown,
}

impl Reading {
    /// Adds a piece; `None` where that is one too many.
    pub(super) fn push(&mut self, number: u32) -> Option<()> {
        self.tokens.ids.push(number);
        self.fits()
    }

    /// `None` where there are too many.
    pub(super) fn fits(&self) -> Option<()> {
        // The last special token needs a place too.
        (self.tokens.ids.len() <= self.most).then_some(())
    }
}

impl Frame {
    /// That of a file; special tokens have numbers below `pieces`.
    pub(super) fn read(file: &Object<'_>, vocabulary: &Vocabulary, pieces: usize) -> Result<Self> {
        let (first, last) = read_ends(&file.object("post_processor")?)?;
        Ok(Self {
            first: number_of(vocabulary, &first)?,
            last: number_of(vocabulary, &last)?,
            special: read_special(file, pieces)?,
            scripts: Known::of(vocabulary.iter()),
        })
    }

    /// One more than the highest number of a special token.
    pub(super) fn len(&self) -> usize {
        self.special.len()
    }

    /// The tokens of a text, of its beginning where they are more than `most` and it may be cut; else `None` then.
    pub(super) fn tokens(
        &self,
        text: &str,
        most: usize,
        cuts: bool,
        mut cut: impl Cut,
    ) -> Option<Tokens> {
        let (tokens, unknown) = (Tokens::default(), Unknown::default());
        let mut reading = Reading { most, tokens, unknown };
        reading.tokens.ids.push(self.first);
        if self.whole(text, &mut cut, &mut reading).is_none() {
            if !cuts {
                return None;
            }
            reading.tokens.ids.truncate(most - 1);
            reading.tokens.ids.push(self.last);
        }
        reading.tokens.unknown = reading.unknown.finish();
        Some(reading.tokens)
    }

    /// Reads a text to its end; `None` where that is too long.
    fn whole(&self, text: &str, cut: &mut impl Cut, into: &mut Reading) -> Option<()> {
        let mut rest = text;
        while let Some((at, special)) = self.special.next(rest) {
            let before = &rest[..at];
            self.part(if special.strips_before { before.trim_end() } else { before }, cut, into)?;
            into.tokens.words += 1;
            into.push(special.number)?;
            rest = &rest[at + special.text.len()..];
        }
        self.part(rest, cut, into)?;
        into.push(self.last)
    }

    fn part(&self, text: &str, cut: &mut impl Cut, into: &mut Reading) -> Option<()> {
        for letter in text.chars().filter_map(script_of) {
            into.tokens.letters += 1;
            into.tokens.foreign_letters += usize::from(!self.scripts.has(letter));
        }
        cut.part(text, into)
    }
}

/// A text that stands for a token wherever it is.
#[derive(Debug)]
struct SpecialToken {
    text: Box<str>,
    number: u32,
    /// White space before it belongs to it.
    strips_before: bool,
}

/// All such texts.
#[derive(Debug, Default)]
struct Special(Vec<SpecialToken>);

impl Special {
    /// The first in a text, of those that begin there the longest, and where.
    fn next(&self, text: &str) -> Option<(usize, &SpecialToken)> {
        let found = self.0.iter().filter_map(|token| Some((text.find(&*token.text)?, token)));
        found.min_by_key(|(at, token)| (*at, usize::MAX - token.text.len()))
    }

    /// One more than the highest number of one.
    fn len(&self) -> usize {
        self.0.iter().map(|token| token.number as usize + 1).max().unwrap_or(0)
    }
}

fn read_special(file: &Object<'_>, pieces: usize) -> Result<Special> {
    const MOST: usize = 64;
    let mut special = Vec::new();
    let Some(raw) = file.raw("added_tokens") else { return Ok(Special(special)) };
    each_value(raw, |token| {
        let token = Object::parse(FILE, token.get().as_bytes()).map_err(|_| "added_tokens")?;
        let flag = |name: &str| token.get::<bool>(name).ok().flatten().unwrap_or(false);
        if ["single_word", "rstrip", "normalized"].into_iter().any(flag) {
            return Err("an added token with single_word, rstrip or normalized is not supported");
        }
        let content = token.text("content").ok().flatten();
        let number = token.get::<u32>("id").ok().flatten();
        match (content, number) {
            (Some(content), Some(number)) if !content.is_empty() && (number as usize) < pieces => {
                let strips_before = flag("lstrip");
                special.push(SpecialToken { text: content.into(), number, strips_before });
            }
            _ => return Err("an added token is not one of the vocabulary"),
        }
        if special.len() > MOST { Err("there are too many added tokens") } else { Ok(()) }
    })
    .map_err(refused)?;
    Ok(Special(special))
}

/// A digest of unknown words, as they come.
#[derive(Default)]
pub(super) struct Unknown(Option<Sha256>);

impl Unknown {
    pub(super) fn add(&mut self, word: &str) {
        self.add_with(word, [0; 32]);
    }

    /// Adds a word of which the rest is known by its digest.
    pub(super) fn add_with(&mut self, word: &str, rest: [u8; 32]) {
        let digest = self.0.get_or_insert_default();
        digest.update((word.len() as u64).to_le_bytes());
        digest.update(word);
        digest.update(rest);
    }

    pub(super) fn finish(self) -> Option<[u8; 16]> {
        let whole: [u8; 32] = self.0?.finalize().into();
        Some(std::array::from_fn(|at| whole[at]))
    }
}
