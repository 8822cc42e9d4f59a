//! What tokenizers have in common: what a text looks like to a model, special tokens, and the parts of `tokenizer.json` that
//! all of them have.
//!
//! Owns: reading these parts, and refusing by name. Must not know: how words are cut. Any thread.

use super::json::{Object, each_value};
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
pub(super) fn read_ends(post: &Object<'_>) -> Result<(String, String)> {
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

/// A text that stands for a token wherever it is.
#[derive(Debug)]
pub(super) struct SpecialToken {
    pub(super) text: Box<str>,
    pub(super) number: u32,
    /// White space before it belongs to it.
    pub(super) strips_before: bool,
}

/// All such texts.
#[derive(Debug, Default)]
pub(super) struct Special(Vec<SpecialToken>);

impl Special {
    /// The first in a text, of those that begin there the longest, and where.
    pub(super) fn next(&self, text: &str) -> Option<(usize, &SpecialToken)> {
        let found = self.0.iter().filter_map(|token| Some((text.find(&*token.text)?, token)));
        found.min_by_key(|(at, token)| (*at, usize::MAX - token.text.len()))
    }

    /// One more than the highest number of one.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|token| token.number as usize + 1).max().unwrap_or(0)
    }
}

pub(super) fn read_special(file: &Object<'_>, pieces: usize) -> Result<Special> {
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
