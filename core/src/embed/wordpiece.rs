//! WordPiece: a text as the numbers of word pieces, as BERT's reference tokenizer has them.
//!
//! Owns: cleaning, accents, case, words, pieces, and what a text looks like to the model. Reads `tokenizer.json`
//! and refuses, by name, what it does not do. Any thread; never written after loading.

use super::json::{Object, each_number};
use super::pieces::{Cut, Frame, Reading, Tokens, need_kind, number_of, refused};
use super::ranges::is_in;
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
    word_chars_max: usize,
    cleans: bool,
    parts_ideographs: bool,
    strips_accents: bool,
    lowers: bool,
    frame: Frame,
}

impl WordPiece {
    pub(super) fn parse(file: &Object<'_>, model: &Object<'_>) -> Result<Self> {
        let (normalizer, words) = (file.object("normalizer")?, file.object("pre_tokenizer")?);
        need_kind(&normalizer, "normalizer", "BertNormalizer")?;
        need_kind(&words, "pre_tokenizer", "BertPreTokenizer")?;
        let vocabulary = read_vocabulary(model)?;
        let unknown = model.text("unk_token")?.unwrap_or(Cow::Borrowed("[UNK]"));
        let lowers = normalizer.get("lowercase")?.unwrap_or(true);
        let tokenizer = Self {
            inside: model.text("continuing_subword_prefix")?.unwrap_or(Cow::Borrowed("##")).into(),
            unknown: number_of(&vocabulary, &unknown)?,
            word_chars_max: model.get("max_input_chars_per_word")?.unwrap_or(100),
            cleans: normalizer.get("clean_text")?.unwrap_or(true),
            parts_ideographs: normalizer.get("handle_chinese_chars")?.unwrap_or(true),
            strips_accents: normalizer.get("strip_accents")?.unwrap_or(lowers),
            lowers,
            frame: Frame::read(file, &vocabulary, vocabulary.len())?,
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
        self.frame.tokens(text, most, cuts, Cutting { of: self, word: Word::default() })
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

/// A text on its way into pieces.
struct Cutting<'a> {
    of: &'a WordPiece,
    word: Word,
}

impl Cut for Cutting<'_> {
    fn part(&mut self, text: &str, into: &mut Reading) -> Option<()> {
        let of = self.of;
        let cleaned = text.chars().filter_map(|c| if of.cleans { clean(c) } else { Some(c) });
        let parted = cleaned.flat_map(|c| {
            let parts = of.parts_ideographs && is_in(&IDEOGRAPHS, c);
            let space = parts.then_some(' ');
            space.into_iter().chain([c]).chain(space)
        });
        if of.strips_accents {
            self.lower(parted.nfd().filter(|&c| !is_in(&MARKS, c)), into)?;
        } else {
            self.lower(parted, into)?;
        }
        self.end_word(into)
    }
}

impl Cutting<'_> {
    fn lower(&mut self, chars: impl Iterator<Item = char>, into: &mut Reading) -> Option<()> {
        if self.of.lowers {
            self.words(chars.flat_map(char::to_lowercase), into)
        } else {
            self.words(chars, into)
        }
    }

    fn words(&mut self, chars: impl Iterator<Item = char>, into: &mut Reading) -> Option<()> {
        for c in chars {
            if c.is_whitespace() {
                self.end_word(into)?;
            } else if is_in(&PUNCTUATION, c) {
                self.end_word(into)?;
                self.add(c);
                self.end_word(into)?;
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

    fn end_word(&mut self, into: &mut Reading) -> Option<()> {
        if self.word.chars == 0 {
            return Some(());
        }
        let mut word = std::mem::take(&mut self.word);
        into.tokens.words += 1;
        let before = into.tokens.ids.len();
        if word.chars > self.of.word_chars_max || !self.pieces(&word.text, into)? {
            into.tokens.ids.truncate(before);
            into.tokens.unknown_words += 1;
            let rest = word.rest.take().map(Sha256::finalize).unwrap_or_default();
            into.unknown.add_with(&word.text, rest.into());
            into.push(self.of.unknown)?;
        }
        self.word.text = word.text;
        self.word.text.clear();
        Some(())
    }

    /// The longest piece at the start, then the longest that goes on; false where there is none. Pieces of a word
    /// that come to nothing do not count: what is over the bound by them alone is found out by the unknown one.
    fn pieces(&self, word: &str, into: &mut Reading) -> Option<bool> {
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
            into.tokens.ids.push(number);
            start = end;
        }
        into.fits().map(|()| true)
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
