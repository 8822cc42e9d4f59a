//! WordPiece: a text as the numbers of word pieces, as BERT's reference tokenizer has them.
//!
//! Owns: cleaning, accents, case, words, pieces, and what a text looks like to the model. Reads `tokenizer.json`
//! and refuses, by name, what it does not do. Any thread; never written after loading.

use super::json::{Object, each_number, each_value};
use super::scripts::{Known, script_of};
use super::tables::{IDEOGRAPHS, MARKS, PUNCTUATION, REMOVED, SPACES};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::limits::EMBED_PIECES_MAX;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

/// A tokenizer.
#[derive(Debug)]
pub(super) struct WordPiece {
    vocabulary: Vocabulary,
    /// What a piece that goes on with a word begins with.
    inside: String,
    unknown: u32,
    first: u32,
    last: u32,
    word_chars_max: usize,
    cleans: bool,
    parts_ideographs: bool,
    strips_accents: bool,
    lowers: bool,
    /// Texts that stand for a token wherever they are.
    special: Vec<(Box<str>, u32)>,
    scripts: Known,
}

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

const FILE: &str = "tokenizer.json";

fn refused(what: impl std::fmt::Display) -> Error {
    Error::err(format!("{FILE}: {what}"))
}

/// The `type` of a part.
fn kind<'a>(part: &Object<'a>) -> Result<Cow<'a, str>> {
    Ok(part.text("type")?.unwrap_or(Cow::Borrowed("none")))
}

fn need_kind(part: &Object<'_>, what: &str, wanted: &str) -> Result<()> {
    match kind(part)? {
        kind if kind == wanted => Ok(()),
        kind => Err(refused(format!("{what} {kind:?} is not supported, {wanted} is"))),
    }
}

impl WordPiece {
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let file = Object::parse(FILE, json)?;
        let model = file.object("model")?;
        need_kind(&model, "model", "WordPiece")?;
        let (normalizer, words) = (file.object("normalizer")?, file.object("pre_tokenizer")?);
        need_kind(&normalizer, "normalizer", "BertNormalizer")?;
        need_kind(&words, "pre_tokenizer", "BertPreTokenizer")?;
        let vocabulary = read_vocabulary(&model)?;
        let number = |piece: &str| {
            let missing = || refused(format!("the vocabulary has no {piece:?}"));
            vocabulary.number(piece.as_bytes()).ok_or_else(missing)
        };
        let unknown = number(&model.text("unk_token")?.unwrap_or(Cow::Borrowed("[UNK]")))?;
        let (first, last) = read_ends(&file.object("post_processor")?)?;
        let lowers = normalizer.get("lowercase")?.unwrap_or(true);
        let tokenizer = Self {
            inside: model.text("continuing_subword_prefix")?.unwrap_or(Cow::Borrowed("##")).into(),
            unknown,
            first: number(&first)?,
            last: number(&last)?,
            word_chars_max: model.get("max_input_chars_per_word")?.unwrap_or(100),
            cleans: normalizer.get("clean_text")?.unwrap_or(true),
            parts_ideographs: normalizer.get("handle_chinese_chars")?.unwrap_or(true),
            strips_accents: normalizer.get("strip_accents")?.unwrap_or(lowers),
            lowers,
            special: read_special(&file, vocabulary.len())?,
            scripts: Known::of(vocabulary.iter()),
            vocabulary,
        };
        if tokenizer.inside.len() > 16 || tokenizer.word_chars_max > 1_000 {
            return Err(refused("the model's prefix or its longest word is too long"));
        }
        Ok(tokenizer)
    }

    /// One more than the highest number it gives.
    pub(super) fn len(&self) -> usize {
        self.vocabulary.len()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.vocabulary.allocated_bytes()
    }

    /// The tokens of a text, of its beginning where they are more than `most` and it may be cut; else `None` then.
    pub(super) fn tokens(&self, text: &str, most: usize, cuts: bool) -> Option<Tokens> {
        let mut reading = Reading {
            of: self,
            most,
            word: Word::default(),
            unknown: None,
            tokens: Tokens::default(),
        };
        reading.tokens.ids.push(self.first);
        if reading.whole(text).is_none() {
            if !cuts {
                return None;
            }
            reading.tokens.ids.truncate(most - 1);
            reading.tokens.ids.push(self.last);
        }
        reading.tokens.unknown = reading.unknown.map(|unknown| {
            let whole: [u8; 32] = unknown.finalize().into();
            std::array::from_fn(|at| whole[at])
        });
        Some(reading.tokens)
    }

    fn next_special(&self, text: &str) -> Option<(usize, &str, u32)> {
        let found = self.special.iter().filter_map(|(special, number)| {
            text.find(&**special).map(|at| (at, &**special, *number))
        });
        // The first, and of those that begin there the longest.
        found.min_by_key(|(at, special, _)| (*at, usize::MAX - special.len()))
    }
}

fn read_vocabulary(model: &Object<'_>) -> Result<Vocabulary> {
    let text = model.raw("vocab").ok_or_else(|| refused("there is no vocabulary"))?;
    let mut vocabulary = Vocabulary::default();
    each_number(text, |piece, number| {
        if number as usize >= EMBED_PIECES_MAX {
            return Err("the vocabulary is too large");
        }
        // A piece under two numbers, or the other way round, would be one that no model has.
        if vocabulary.insert(piece, number) { Ok(()) } else { Err("a piece is there twice") }
    })
    .map_err(refused)?;
    vocabulary.shrink();
    Ok(vocabulary)
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

fn read_special(file: &Object<'_>, pieces: usize) -> Result<Vec<(Box<str>, u32)>> {
    const MOST: usize = 64;
    let mut special = Vec::new();
    let Some(raw) = file.raw("added_tokens") else { return Ok(special) };
    each_value(raw, |token| {
        let token = Object::parse(FILE, token.get().as_bytes()).map_err(|_| "added_tokens")?;
        let flag = |name: &str| token.get::<bool>(name).ok().flatten().unwrap_or(false);
        if ["single_word", "lstrip", "rstrip", "normalized"].into_iter().any(flag) {
            return Err(
                "an added token with single_word, lstrip, rstrip or normalized is not supported",
            );
        }
        let content = token.text("content").ok().flatten();
        let number = token.get::<u32>("id").ok().flatten();
        match (content, number) {
            (Some(content), Some(number)) if !content.is_empty() && (number as usize) < pieces => {
                special.push((content.into(), number));
            }
            _ => return Err("an added token is not one of the vocabulary"),
        }
        if special.len() > MOST { Err("there are too many added tokens") } else { Ok(()) }
    })
    .map_err(refused)?;
    Ok(special)
}

/// A word on its way.
#[derive(Default)]
struct Word {
    text: String,
    chars: usize,
    /// What does not fit into `text`.
    rest: Option<Sha256>,
}

/// A text that is being read.
struct Reading<'a> {
    of: &'a WordPiece,
    most: usize,
    word: Word,
    unknown: Option<Sha256>,
    tokens: Tokens,
}

impl Reading<'_> {
    /// Reads a text to its end; `None` where that is too long.
    fn whole(&mut self, text: &str) -> Option<()> {
        let mut rest = text;
        while let Some((at, special, number)) = self.of.next_special(rest) {
            let length = special.len();
            self.part(&rest[..at])?;
            self.tokens.words += 1;
            self.push(number)?;
            rest = &rest[at + length..];
        }
        self.part(rest)?;
        self.push(self.of.last)
    }

    fn push(&mut self, number: u32) -> Option<()> {
        self.tokens.ids.push(number);
        // The last special token needs a place too.
        (self.tokens.ids.len() <= self.most).then_some(())
    }

    /// A stretch without special tokens.
    fn part(&mut self, text: &str) -> Option<()> {
        let of = self.of;
        for letter in text.chars().filter_map(script_of) {
            self.tokens.letters += 1;
            self.tokens.foreign_letters += usize::from(!of.scripts.has(letter));
        }
        let cleaned = text.chars().filter_map(|c| if of.cleans { clean(c) } else { Some(c) });
        let parted = cleaned.flat_map(|c| {
            let parts = of.parts_ideographs && is_in(&IDEOGRAPHS, c);
            let space = parts.then_some(' ');
            space.into_iter().chain([c]).chain(space)
        });
        if of.strips_accents {
            self.lower(parted.nfd().filter(|&c| !is_in(&MARKS, c)))?;
        } else {
            self.lower(parted)?;
        }
        self.end_word()
    }

    fn lower(&mut self, chars: impl Iterator<Item = char>) -> Option<()> {
        if self.of.lowers {
            self.words(chars.flat_map(char::to_lowercase))
        } else {
            self.words(chars)
        }
    }

    fn words(&mut self, chars: impl Iterator<Item = char>) -> Option<()> {
        for c in chars {
            if c.is_whitespace() {
                self.end_word()?;
            } else if is_in(&PUNCTUATION, c) {
                self.end_word()?;
                self.add(c);
                self.end_word()?;
            } else {
                self.add(c);
            }
        }
        Some(())
    }

    fn add(&mut self, c: char) {
        self.word.chars += 1;
        // Of a word that is too long for pieces a digest is enough.
        if self.word.chars <= self.of.word_chars_max {
            self.word.text.push(c);
        } else {
            let rest = self.word.rest.get_or_insert_default();
            rest.update(c.encode_utf8(&mut [0; 4]));
        }
    }

    fn end_word(&mut self) -> Option<()> {
        if self.word.chars == 0 {
            return Some(());
        }
        let mut word = std::mem::take(&mut self.word);
        self.tokens.words += 1;
        let before = self.tokens.ids.len();
        if word.chars > self.of.word_chars_max || !self.pieces(&word.text)? {
            self.tokens.ids.truncate(before);
            self.tokens.unknown_words += 1;
            let unknown = self.unknown.get_or_insert_default();
            unknown.update((word.text.len() as u64).to_le_bytes());
            unknown.update(&word.text);
            unknown.update(word.rest.take().map(Sha256::finalize).unwrap_or_default());
            self.push(self.of.unknown)?;
        }
        self.word.text = word.text;
        self.word.text.clear();
        Some(())
    }

    /// The longest piece at the start, then the longest that goes on; false where there is none. Pieces of a word
    /// that come to nothing do not count: what is over the bound by them alone is found out by the unknown one.
    fn pieces(&mut self, word: &str) -> Option<bool> {
        let (vocabulary, mut inside) = (&self.of.vocabulary, self.of.inside.clone());
        let prefix = inside.len();
        let mut start = 0;
        while start < word.len() {
            let beginning = if start == 0 { 0 } else { prefix };
            let mut end = word.len().min(start + vocabulary.longest().saturating_sub(beginning));
            let found = loop {
                while !word.is_char_boundary(end) {
                    end -= 1;
                }
                if end <= start {
                    break None;
                }
                let number = if start == 0 {
                    vocabulary.number(&word.as_bytes()[..end])
                } else {
                    inside.truncate(prefix);
                    inside.push_str(&word[start..end]);
                    vocabulary.number(inside.as_bytes())
                };
                if number.is_some() {
                    break number;
                }
                end -= 1;
            };
            let Some(number) = found else { return Some(false) };
            self.tokens.ids.push(number);
            start = end;
        }
        (self.tokens.ids.len() <= self.most).then_some(true)
    }
}

/// A character after cleaning.
fn clean(c: char) -> Option<char> {
    match c {
        ' '..='~' => Some(c),
        _ if is_in(&SPACES, c) => Some(' '),
        _ if is_in(&REMOVED, c) => None,
        _ => Some(c),
    }
}

fn is_in(ranges: &[(u32, u32)], c: char) -> bool {
    let point = u32::from(c);
    let at = ranges.partition_point(|&(_, last)| last < point);
    ranges.get(at).is_some_and(|&(first, _)| first <= point)
}
