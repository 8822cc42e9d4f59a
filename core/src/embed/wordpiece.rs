//! WordPiece: a text as the numbers of word pieces, as BERT's reference tokenizer has them.
//!
//! Owns: cleaning, accents, case, words, pieces, and what a text looks like to the model. Reads `tokenizer.json`
//! and refuses, by name, what it does not do. Any thread; never written after loading.

use super::json::{Object, each_number};
use super::pieces::{Special, Tokens, Unknown, need_kind, read_ends, read_special, refused};
use super::ranges::is_in;
use super::scripts::{Known, script_of};
use super::tables::{IDEOGRAPHS, MARKS, PUNCTUATION, REMOVED, SPACES};
use super::vocabulary::Vocabulary;
use crate::error::Result;
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
    special: Special,
    scripts: Known,
}

impl WordPiece {
    pub(super) fn parse(file: &Object<'_>, model: &Object<'_>) -> Result<Self> {
        let (normalizer, words) = (file.object("normalizer")?, file.object("pre_tokenizer")?);
        need_kind(&normalizer, "normalizer", "BertNormalizer")?;
        need_kind(&words, "pre_tokenizer", "BertPreTokenizer")?;
        let vocabulary = read_vocabulary(model)?;
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
            special: read_special(file, vocabulary.len())?,
            scripts: Known::of(vocabulary.iter()),
            vocabulary,
        };
        if tokenizer.inside.len() > 16 || tokenizer.word_chars_max > 1_000 {
            return Err(refused("the model's prefix or its longest word is too long"));
        }
        Ok(tokenizer)
    }

    /// Whether words lose their accents before pieces are looked for.
    pub(super) fn strips_accents(&self) -> bool {
        self.strips_accents
    }

    /// The number that stands for what no piece has.
    pub(super) fn unknown(&self) -> u32 {
        self.unknown
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
            unknown: Unknown::default(),
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
        reading.tokens.unknown = reading.unknown.finish();
        Some(reading.tokens)
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
    unknown: Unknown,
    tokens: Tokens,
}

impl Reading<'_> {
    /// Reads a text to its end; `None` where that is too long.
    fn whole(&mut self, text: &str) -> Option<()> {
        let mut rest = text;
        while let Some((at, special)) = self.of.special.next(rest) {
            self.part(&rest[..at])?;
            self.tokens.words += 1;
            self.push(special.number)?;
            rest = &rest[at + special.text.len()..];
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
            let rest = word.rest.take().map(Sha256::finalize).unwrap_or_default();
            self.unknown.add_with(&word.text, rest.into());
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
