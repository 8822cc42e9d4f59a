//! A text as the numbers of pieces, by the tokenizer that a folder names.
//!
//! Owns: the choice between them. Any thread; never written after loading.

use super::json::Object;
use super::marks;
use super::pieces::{FILE, Tokens, kind, refused};
use super::unigram::Unigram;
use super::wordpiece::WordPiece;
use crate::error::Result;

/// A tokenizer.
#[derive(Debug)]
pub(super) enum Tokenizer {
    WordPiece(WordPiece),
    Unigram(Box<Unigram>),
}

impl Tokenizer {
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        let file = Object::parse(FILE, json)?;
        let model = file.object("model")?;
        match kind(&model)?.as_ref() {
            "WordPiece" => WordPiece::parse(&file, &model).map(Self::WordPiece),
            "Unigram" => Unigram::parse(&file, &model).map(|own| Self::Unigram(Box::new(own))),
            other => {
                let supported = "WordPiece and Unigram are";
                Err(refused(format!("model {other:?} is not supported, {supported}")))
            }
        }
    }

    /// One more than the highest number it gives.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::WordPiece(own) => own.len(),
            Self::Unigram(own) => own.len(),
        }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        match self {
            Self::WordPiece(own) => own.allocated_bytes(),
            Self::Unigram(own) => own.allocated_bytes(),
        }
    }

    /// The number that stands for what no piece has.
    pub(super) fn unknown(&self) -> u32 {
        match self {
            Self::WordPiece(own) => own.unknown(),
            Self::Unigram(own) => own.unknown(),
        }
    }

    /// The tokens of a text, of its beginning where they are more than `most` and it may be cut; else `None` then.
    pub(super) fn tokens(&self, text: &str, most: usize, cuts: bool) -> Option<Tokens> {
        match self {
            Self::WordPiece(own) => own.tokens(text, most, cuts),
            Self::Unigram(own) => own.tokens(text, most, cuts),
        }
    }

    /// Whether two texts have a word whose letters differ by what is stripped before pieces are looked for.
    pub(super) fn strips_difference(&self, one: &str, other: &str) -> bool {
        match self {
            Self::WordPiece(own) => own.strips_accents() && marks::differ(one, other),
            Self::Unigram(_) => false,
        }
    }
}
