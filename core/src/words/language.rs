//! Languages of words: the name of each, its stemmer and its stop words.
//!
//! Owns: what WORDS may be set to. The stemmers and lists are those of the Snowball and NLTK projects. Any thread.

use hashbrown::HashSet;
use rust_stemmers::{Algorithm, Stemmer};
use std::sync::OnceLock;

/// The language that the texts of a container are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language(u8);

/// What is known of a language.
struct Row {
    name: &'static str,
    /// As in ISO 639-1; of the one without a language nothing.
    code: &'static str,
    algorithm: Option<Algorithm>,
}

const fn row(name: &'static str, code: &'static str, algorithm: Algorithm) -> Row {
    Row { name, code, algorithm: Some(algorithm) }
}

/// By their bytes in saved settings: append only.
const ROWS: [Row; 19] = [
    Row { name: "none", code: "", algorithm: None },
    row("arabic", "ar", Algorithm::Arabic),
    row("danish", "da", Algorithm::Danish),
    row("dutch", "nl", Algorithm::Dutch),
    row("english", "en", Algorithm::English),
    row("finnish", "fi", Algorithm::Finnish),
    row("french", "fr", Algorithm::French),
    row("german", "de", Algorithm::German),
    row("greek", "el", Algorithm::Greek),
    row("hungarian", "hu", Algorithm::Hungarian),
    row("italian", "it", Algorithm::Italian),
    row("norwegian", "no", Algorithm::Norwegian),
    row("portuguese", "pt", Algorithm::Portuguese),
    row("romanian", "ro", Algorithm::Romanian),
    row("russian", "ru", Algorithm::Russian),
    row("spanish", "es", Algorithm::Spanish),
    row("swedish", "sv", Algorithm::Swedish),
    row("tamil", "ta", Algorithm::Tamil),
    row("turkish", "tr", Algorithm::Turkish),
];

static STOP_WORDS: [OnceLock<HashSet<&'static str>>; ROWS.len()] =
    [const { OnceLock::new() }; ROWS.len()];

impl Language {
    /// No language: words are compared as they are, and none is left out.
    pub const NONE: Self = Self(0);

    /// The language of this name or ISO 639-1 code, in any case.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let is_it = |row: &Row| {
            name.eq_ignore_ascii_case(row.name.as_bytes())
                || (!row.code.is_empty() && name.eq_ignore_ascii_case(row.code.as_bytes()))
        };
        ROWS.iter().position(is_it).map(|place| Self(place as u8))
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        ROWS[usize::from(self.0)].name
    }

    /// The names of all, for the error that an unknown one gets.
    pub fn names() -> String {
        ROWS.map(|row| row.name).join(", ")
    }

    /// As saved.
    pub fn as_byte(self) -> u8 {
        self.0
    }

    /// The language of a saved byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        (usize::from(byte) < ROWS.len()).then_some(Self(byte))
    }

    /// What takes the endings off its words.
    pub(super) fn stemmer(self) -> Option<Stemmer> {
        ROWS[usize::from(self.0)].algorithm.map(Stemmer::create)
    }

    /// Words that say nothing of what a text is about, in small letters.
    pub(super) fn stop_words(self) -> &'static HashSet<&'static str> {
        let place = usize::from(self.0);
        STOP_WORDS[place].get_or_init(|| {
            let words = stop_words::lookup(ROWS[place].code).unwrap_or_default();
            words.iter().copied().collect()
        })
    }
}
