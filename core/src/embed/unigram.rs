//! Unigram: a text as the pieces of a SentencePiece model whose sum of scores is the highest, as XLM-R, multilingual-e5
//! and bge-m3 are read.
//!
//! Owns: normalising, words, the best pieces, and what a text looks like to the model. Reads `tokenizer.json` and
//! refuses, by name, what it does not do. Any thread; never written after loading.

use super::charsmap::{CharsMap, decode_base64};
use super::json::{Object, each_value};
use super::pieces::{Cut, Frame, Reading, Tokens, kind, need_kind, refused};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::limits::EMBED_PIECES_MAX;
use crate::members::Text;

/// What stands before each word, for the space there.
const SPACE: char = '\u{2581}';
/// What a character that no piece has costs besides the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;
/// Longest word, in bytes; of a longer one the rest is a word of its own.
const WORD_BYTES: usize = 4_096;

/// What becomes of spaces.
#[derive(Debug, Default, Clone, Copy)]
struct Spaces {
    /// Words end at any white space, which is left out; else at each space alone.
    splits_white: bool,
    /// White space at the end is left out first.
    strips_end: bool,
    /// Several spaces are one.
    joins: bool,
}

/// A tokenizer.
#[derive(Debug)]
pub(super) struct Unigram {
    charsmap: CharsMap,
    vocabulary: Vocabulary,
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
    spaces: Spaces,
    frame: Frame,
}

impl Unigram {
    pub(super) fn parse(file: &Object<'_>, model: &Object<'_>) -> Result<Self> {
        let mut spaces = Spaces::default();
        let charsmap = read_normalizer(&file.object("normalizer")?, &mut spaces)?;
        spaces.splits_white = read_words(&file.object("pre_tokenizer")?)?;
        if model.get::<bool>("byte_fallback")?.unwrap_or(false) {
            return Err(refused("byte_fallback is not supported"));
        }
        let (vocabulary, scores) = read_vocabulary(model)?;
        let unknown: u32 = model.need("unk_id")?;
        if unknown as usize >= scores.len() {
            return Err(refused("unk_id is not one of the vocabulary"));
        }
        let worst = scores.iter().fold(f64::INFINITY, |worst, score| worst.min(*score));
        Ok(Self {
            charsmap,
            unknown,
            unknown_score: worst - UNKNOWN_PENALTY,
            spaces,
            frame: Frame::read(file, &vocabulary, EMBED_PIECES_MAX)?,
            vocabulary,
            scores,
        })
    }

    /// One more than the highest number it gives.
    pub(super) fn len(&self) -> usize {
        self.vocabulary.len().max(self.frame.len())
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let own = self.charsmap.allocated_bytes() + 8 * self.scores.capacity();
        self.vocabulary.allocated_bytes() + own
    }

    /// The number that stands for what no piece has.
    pub(super) fn unknown(&self) -> u32 {
        self.unknown
    }

    /// The tokens of a text, of its beginning where they are more than `most` and it may be cut; else `None` then.
    pub(super) fn tokens(&self, text: &str, most: usize, cuts: bool) -> Option<Tokens> {
        let cutting = Cutting { of: self, paths: Vec::new(), pieces: Vec::new() };
        self.frame.tokens(text, most, cuts, cutting)
    }
}

fn read_normalizer(normalizer: &Object<'_>, spaces: &mut Spaces) -> Result<CharsMap> {
    if kind(normalizer)? != "Sequence" {
        need_kind(normalizer, "normalizer", "Precompiled")?;
        return read_charsmap(normalizer);
    }
    let mut parts = Vec::new();
    let raw = normalizer.raw("normalizers").unwrap_or("[]");
    each_value(raw, |part| {
        parts.push(part.get());
        if parts.len() > 8 { Err("too many normalizers") } else { Ok(()) }
    })
    .map_err(refused)?;
    let mut charsmap = None;
    for part in parts {
        let part = Object::parse(super::pieces::FILE, part.as_bytes())?;
        match kind(&part)?.as_ref() {
            "Precompiled" if charsmap.is_none() => charsmap = Some(read_charsmap(&part)?),
            "Strip" if part.get("strip_left")? == Some(false) => {
                spaces.strips_end = part.get("strip_right")?.unwrap_or(false);
            }
            "Replace" if part.raw("pattern").is_some_and(|p| p.contains("\" {2,}\"")) => {
                spaces.joins = true;
            }
            other => return Err(refused(format!("normalizer {other:?} is not supported"))),
        }
    }
    charsmap.ok_or_else(|| refused("there is no Precompiled normalizer"))
}

fn read_charsmap(part: &Object<'_>) -> Result<CharsMap> {
    let text: std::borrow::Cow<'_, str> = match part.get::<Text<'_>>("precompiled_charsmap")? {
        Some(text) => text.0,
        None => return Ok(CharsMap::default()),
    };
    let bytes = decode_base64(&text);
    let map = bytes.as_deref().and_then(CharsMap::parse);
    map.ok_or_else(|| refused("precompiled_charsmap is no table"))
}

/// How words are cut; whether at any white space.
fn read_words(words: &Object<'_>) -> Result<bool> {
    let metaspace = |part: &Object<'_>| -> Result<()> {
        need_kind(part, "pre_tokenizer", "Metaspace")?;
        let is_plain = part.text("replacement")?.as_deref() == Some("\u{2581}")
            && part.get::<bool>("add_prefix_space")?.unwrap_or(true)
            && part.text("prepend_scheme")?.as_deref().unwrap_or("always") == "always"
            && part.get::<bool>("split")?.unwrap_or(true);
        if is_plain { Ok(()) } else { Err(refused("Metaspace in this form is not supported")) }
    };
    if kind(words)? != "Sequence" {
        return metaspace(words).map(|()| false);
    }
    let mut parts = Vec::new();
    each_value(words.raw("pretokenizers").unwrap_or("[]"), |part| {
        parts.push(part.get());
        if parts.len() > 2 { Err("too many pretokenizers") } else { Ok(()) }
    })
    .map_err(refused)?;
    let [white, meta] = parts[..] else {
        return Err(refused("pre_tokenizer: WhitespaceSplit and Metaspace are supported"));
    };
    let part = |text: &'_ str| -> Result<()> {
        need_kind(
            &Object::parse(super::pieces::FILE, text.as_bytes())?,
            "pre_tokenizer",
            "WhitespaceSplit",
        )
    };
    part(white)?;
    metaspace(&Object::parse(super::pieces::FILE, meta.as_bytes())?).map(|()| true)
}

fn read_vocabulary(model: &Object<'_>) -> Result<(Vocabulary, Vec<f64>)> {
    let text = model.raw("vocab").ok_or_else(|| refused("there is no vocabulary"))?;
    let (mut vocabulary, mut scores) = (Vocabulary::default(), Vec::new());
    each_value(text, |piece| {
        if scores.len() == EMBED_PIECES_MAX {
            return Err("the vocabulary is too large");
        }
        let (piece, score): (Text<'_>, f64) =
            serde_json::from_str(piece.get()).map_err(|_| "a piece is no text and score")?;
        // An empty piece, or one that is there twice, would be found by nobody.
        if !(-1e6..=1e6).contains(&score) || !vocabulary.insert(&piece.0, scores.len() as u32) {
            return Err("a piece is there twice, or its score is out of range");
        }
        scores.push(score);
        Ok(())
    })
    .map_err(refused)?;
    if scores.is_empty() {
        return Err(Error::err("tokenizer.json: there is no vocabulary"));
    }
    vocabulary.shrink();
    vocabulary.sort();
    scores.shrink_to_fit();
    Ok((vocabulary, scores))
}

/// The best way to a place in a word.
#[derive(Clone, Copy)]
struct Path {
    score: f64,
    start: usize,
    piece: u32,
}

/// A text on its way into pieces, and room for the ways through a word.
struct Cutting<'a> {
    of: &'a Unigram,
    paths: Vec<Option<Path>>,
    pieces: Vec<u32>,
}

impl Cut for Cutting<'_> {
    fn part(&mut self, text: &str, into: &mut Reading) -> Option<()> {
        let of = self.of;
        let text = of.charsmap.normalise(text);
        if of.spaces.splits_white {
            return text.split_whitespace().try_for_each(|part| self.section(part, into));
        }
        self.section(if of.spaces.strips_end { text.trim_end() } else { &text }, into)
    }
}

impl Cutting<'_> {
    /// A stretch that begins with a space, its own or one that is put there; each space begins a word.
    fn section(&mut self, text: &str, into: &mut Reading) -> Option<()> {
        if text.is_empty() {
            return Some(());
        }
        let mut word = String::from(SPACE);
        // Its own first space is the one that is there already.
        let mut begins = text.starts_with([' ', SPACE]);
        let mut before = None;
        for c in text.chars() {
            let is_space = c == ' ' || c == SPACE;
            if c == ' ' && before == Some(' ') && self.of.spaces.joins {
                continue;
            }
            before = Some(c);
            if is_space && std::mem::take(&mut begins) {
                continue;
            }
            if is_space {
                self.word(&word, into)?;
                word.clear();
            }
            word.push(if is_space { SPACE } else { c });
        }
        self.word(&word, into)
    }

    fn word(&mut self, word: &str, into: &mut Reading) -> Option<()> {
        let mut rest = word;
        while !rest.is_empty() {
            let mut end = rest.len().min(WORD_BYTES);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            into.tokens.words += 1;
            if self.pieces(&rest[..end]) {
                into.tokens.unknown_words += 1;
                into.unknown.add(&rest[..end]);
            }
            self.pieces.iter().try_for_each(|piece| into.push(*piece))?;
            rest = &rest[end..];
        }
        Some(())
    }

    /// Finds the pieces of the highest sum of scores; whether one of them is the unknown.
    fn pieces(&mut self, word: &str) -> bool {
        let of = self.of;
        self.paths.clear();
        self.paths.resize(word.len() + 1, None);
        self.paths[0] = Some(Path { score: 0.0, start: 0, piece: 0 });
        for (start, c) in word.char_indices() {
            // Every place between characters is reached, by the unknown if by nothing else.
            let Some(here) = self.paths[start] else { continue };
            let (paths, mut single) = (&mut self.paths, false);
            let mut reach = |end: usize, score: f64, piece: u32| {
                let score = score + here.score;
                if paths[end].is_none_or(|other| score > other.score) {
                    paths[end] = Some(Path { score, start, piece });
                }
            };
            of.vocabulary.each_beginning(&word.as_bytes()[start..], |length, piece| {
                single |= length == c.len_utf8();
                reach(start + length, of.scores[piece as usize], piece);
            });
            if !single {
                reach(start + c.len_utf8(), of.unknown_score, of.unknown);
            }
        }
        self.pieces.clear();
        let (mut end, mut has_unknown) = (word.len(), false);
        while end > 0
            && let Some(path) = self.paths[end]
        {
            // Several unknown ones in a row are one.
            let is_unknown = path.piece == of.unknown;
            if !is_unknown || self.pieces.last() != Some(&of.unknown) {
                self.pieces.push(path.piece);
            }
            has_unknown |= is_unknown;
            end = path.start;
        }
        self.pieces.reverse();
        has_unknown
    }
}
