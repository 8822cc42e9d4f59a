//! A text as words: where they begin and end, which of them count, and what is compared of each.
//!
//! Owns: the analysis that documents and questions share. Words end where Unicode (UAX 29) says so, are compared in
//! small letters and without their endings. A code such as `ERR-4711`, `v2.3.1` or `user_id` is one word and each of
//! its parts another. Scripts that write no spaces (Chinese, Japanese, Thai and the like) are cut into pairs of
//! characters. Any thread.

use super::language::Language;
use crate::limits::WORD_MAX_BYTES;
use hashbrown::HashSet;
use rust_stemmers::Stemmer;
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// A word of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What is compared: small letters, without the ending.
    pub term: &'a str,
    /// Which word of the text it is. A code stands where its first part stands.
    pub position: u32,
    /// Where it begins in the text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether it says nothing of what the text is about, and is not indexed.
    pub is_stop: bool,
    /// Whether it is a whole code, whose parts are words of their own.
    pub is_code: bool,
}

/// Who reads the words of a text.
pub(super) trait Reader {
    /// Whether a plain word, as it is written, is known, so that it need not be looked into. What was not taken as a
    /// plain word is not known.
    fn knows(&mut self, _word: &str) -> bool {
        false
    }

    /// Takes a word that is not.
    fn take(&mut self, token: Token<'_>);
}

impl<F: FnMut(Token<'_>)> Reader for F {
    fn take(&mut self, token: Token<'_>) {
        self(token);
    }
}

/// Cuts texts into words.
pub struct Analyser {
    language: Language,
    stemmer: Option<Stemmer>,
    stop_words: &'static HashSet<&'static str>,
}

impl std::fmt::Debug for Analyser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Analyser").field(&self.language).finish()
    }
}

/// Words with nothing, or one joint, between them.
struct Run {
    start: usize,
    end: usize,
    /// Whether it is of a script that writes no spaces.
    is_unspaced: bool,
}

impl Analyser {
    /// The analysis of a language.
    pub fn new(language: Language) -> Self {
        Self { language, stemmer: language.stemmer(), stop_words: language.stop_words() }
    }

    /// Its language.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Calls `each` with the words of a text in their order.
    pub fn words(&self, text: &str, mut each: impl FnMut(Token<'_>)) {
        self.read(text, &mut each);
    }

    /// Has a reader read the words of a text in their order.
    pub(super) fn read(&self, text: &str, reader: &mut impl Reader) {
        let mut position = 0;
        let mut run: Option<Run> = None;
        let mut end_run = |run: &Run, position: &mut u32| {
            let whole = &text[run.start..run.end];
            if !run.is_unspaced && reader.knows(whole) {
                *position += 1;
            } else {
                self.end_run(text, run, position, reader);
            }
        };
        each_word(text, |start, word| {
            let end = start + word.len();
            let is_unspaced =
                !word.as_bytes()[0].is_ascii() && word.chars().next().is_some_and(is_unspaced);
            let joins = run.as_ref().is_some_and(|run| {
                let gap = &text.as_bytes()[run.end..start];
                run.is_unspaced == is_unspaced
                    && if is_unspaced {
                        gap.is_empty()
                    } else {
                        matches!(gap, [joint] if is_joint(*joint))
                    }
            });
            match &mut run {
                Some(run) if joins => run.end = end,
                _ => {
                    if let Some(run) = run.take() {
                        end_run(&run, &mut position);
                    }
                    run = Some(Run { start, end, is_unspaced });
                }
            }
        });
        if let Some(run) = run {
            end_run(&run, &mut position);
        }
    }

    fn end_run(&self, text: &str, run: &Run, position: &mut u32, reader: &mut impl Reader) {
        if run.is_unspaced {
            pairs(text, run, position, reader);
            return;
        }
        let whole = &text[run.start..run.end];
        if !whole.bytes().any(is_splitter) {
            self.word(text, run.start, run.end, false, *position, reader);
            *position += 1;
            return;
        }
        // A chain of plain words, as `state-of-the-art`, is these words; one with a digit is a name.
        if whole.bytes().any(|byte| byte.is_ascii_digit() || byte == b'_') {
            self.word(text, run.start, run.end, true, *position, reader);
        }
        let mut start = run.start;
        for part in whole.split(|c: char| c.is_ascii() && is_splitter(c as u8)) {
            if !part.is_empty() {
                self.word(text, start, start + part.len(), false, *position, reader);
                *position += 1;
            }
            start += part.len() + 1;
        }
    }

    fn word(
        &self,
        text: &str,
        start: usize,
        end: usize,
        is_code: bool,
        position: u32,
        reader: &mut impl Reader,
    ) {
        let small = small(&text[start..end]);
        let is_stop = !is_code && self.stop_words.contains(&*small);
        let term = match &self.stemmer {
            Some(stemmer) if !is_code && !small.bytes().any(|b| b.is_ascii_digit()) => {
                stemmer.stem(&small)
            }
            _ => Cow::Borrowed(&*small),
        };
        if !term.is_empty() && term.len() <= WORD_MAX_BYTES {
            reader.take(Token { term: &term, position, start, end, is_stop, is_code });
        }
    }
}

/// Calls `each` with the words of a text as Unicode (UAX 29) cuts them, and where they begin. Each space ends a word, so
/// that the parts between them are cut on their own, and those in ASCII by the few rules that concern it. A combining
/// mark right behind a space, which Unicode counts with the space, is taken without it.
fn each_word(text: &str, mut each: impl FnMut(usize, &str)) {
    for part in text.split_ascii_whitespace() {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        if part.is_ascii() {
            ascii_words(part, |at, word| each(start + at, word));
        } else {
            part.unicode_word_indices().for_each(|(at, word)| each(start + at, word));
        }
    }
}

fn ascii_words(part: &str, mut each: impl FnMut(usize, &str)) {
    let bytes = part.as_bytes();
    let belongs = |at: usize| bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_';
    // What stands between two letters or two digits (MidNumLet and the like) divides no word.
    let joins = |at: usize| {
        let beside = bytes[at + 1..].first().map(|after| (bytes[at - 1], *after));
        let letters =
            || beside.is_some_and(|(a, b)| a.is_ascii_alphabetic() && b.is_ascii_alphabetic());
        let digits = || beside.is_some_and(|(a, b)| a.is_ascii_digit() && b.is_ascii_digit());
        match bytes[at] {
            b'.' | b'\'' => letters() || digits(),
            b':' => letters(),
            b',' | b';' => digits(),
            _ => false,
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && (belongs(at) || at > start && joins(at)) {
            at += 1;
        }
        if bytes[start..at].iter().any(u8::is_ascii_alphanumeric) {
            each(start, &part[start..at]);
        }
        at = at.max(start + 1);
    }
}

/// In small letters, in one form of Unicode, with one form of the apostrophe.
fn small(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(word.to_ascii_lowercase())
        } else {
            Cow::Borrowed(word)
        };
    }
    let composed: String = word.nfkc().map(|c| if c == '\u{2019}' { '\'' } else { c }).collect();
    Cow::Owned(composed.to_lowercase())
}

/// Pairs of neighbouring characters; a single one as it is.
fn pairs(text: &str, run: &Run, position: &mut u32, reader: &mut impl Reader) {
    // Where characters begin, and where the last ends.
    let whole = &text[run.start..run.end];
    let mut bounds: Vec<usize> = whole.char_indices().map(|(start, _)| run.start + start).collect();
    bounds.push(run.end);
    let width = bounds.len().min(3);
    for pair in bounds.windows(width) {
        let (start, end) = (pair[0], pair[width - 1]);
        let term = small(&text[start..end]);
        let token =
            Token { term: &term, position: *position, start, end, is_stop: false, is_code: false };
        *position += 1;
        reader.take(token);
    }
}

/// What may stand between the parts of a code.
#[inline]
fn is_joint(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.' | b'/' | b':' | b'#' | b'+' | b'@' | b'\\' | b'=')
}

/// What parts are split at: of the characters that words of Unicode may contain, and of joints, all but the apostrophe.
#[inline]
fn is_splitter(byte: u8) -> bool {
    byte.is_ascii_punctuation() && byte != b'\''
}

/// Whether a character belongs to a script that writes no spaces.
fn is_unspaced(c: char) -> bool {
    matches!(c as u32,
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x2E80..=0x2FDF | 0x3005..=0x3007
        | 0x3040..=0x30FF | 0x31F0..=0x31FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF
        | 0xFF66..=0xFF9F | 0x20000..=0x323AF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(language: Language, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        Analyser::new(language).words(text, |token| {
            assert!(token.start < token.end && token.end <= text.len(), "{token:?}");
            if !token.is_stop {
                terms.push(token.term.to_owned());
            }
        });
        terms
    }

    fn english(text: &str) -> Vec<String> {
        terms(Language::parse(b"english").unwrap(), text)
    }

    #[test]
    fn words_lose_their_endings_and_stop_words_are_left_out() {
        assert_eq!(english("The wings were Running, and it runs!"), ["wing", "run", "run"]);
        assert_eq!(terms(Language::NONE, "The wings"), ["the", "wings"]);
        assert_eq!(english("state-of-the-art"), ["state", "art"]);
        assert_eq!(english("don't \u{2018}don\u{2019}t\u{2019}"), Vec::<String>::new());
        assert_eq!(terms(Language::parse(b"de").unwrap(), "die Häuser"), ["haus"]);
    }

    #[test]
    fn codes_stay_whole_and_are_found_by_their_parts() {
        assert_eq!(english("see ERR-4711."), ["see", "err-4711", "err", "4711"]);
        assert_eq!(english("v2.3.1"), ["v2.3.1", "v2", "3", "1"]);
        assert_eq!(english("user_id"), ["user_id", "user", "id"]);
        assert_eq!(english("ISO/IEC 27001"), ["iso", "iec", "27001"]);
        assert_eq!(english("a@example.com x7"), ["exampl", "com", "x7"]);
    }

    #[test]
    fn scripts_without_spaces_are_pairs() {
        assert_eq!(terms(Language::NONE, "東京都 に"), ["東京", "京都", "に"]);
        assert_eq!(terms(Language::NONE, "東京2020"), ["東京", "2020"]);
        assert_eq!(terms(Language::NONE, "서울 특별시"), ["서울", "특별시"]);
        assert_eq!(terms(Language::NONE, "ＡＢＣ１"), ["abc1"]);
    }

    #[test]
    fn positions_count_words_and_a_code_stands_at_its_first_part() {
        let mut seen = Vec::new();
        let analyser = Analyser::new(Language::NONE);
        analyser
            .words("get ERR-4711 now", |token| seen.push((token.term.to_owned(), token.position)));
        let expected = [("get", 0), ("err-4711", 1), ("err", 1), ("4711", 2), ("now", 3)];
        assert_eq!(seen, expected.map(|(term, position)| (term.to_owned(), position)));
    }

    proptest! {
        #[test]
        fn words_are_those_of_unicode(text in "[a-c0-2_.:,;'\"@/ \\-]{0,24}|[ -~\\n\\t]{0,40}|\\PC{0,20}|[a-b é\u{301}\u{200d}\u{2019}東 .]{0,12}") {
            prop_assert_eq!(words_of(&text), words_of_unicode(&text));
        }
    }

    fn words_of(text: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        each_word(text, |start, word| found.push((start, word.to_owned())));
        found
    }

    fn words_of_unicode(text: &str) -> Vec<(usize, String)> {
        let bare = |(at, word): (usize, &str)| {
            let bare = word.trim_start_matches(|c: char| c.is_ascii_whitespace());
            (at + word.len() - bare.len(), bare.to_owned())
        };
        text.unicode_word_indices().map(bare).collect()
    }

    #[test]
    fn a_mark_behind_a_space_is_taken_without_it() {
        let text = "a \u{113c2} b";
        assert_eq!(words_of(text), words_of_unicode(text));
        assert_eq!(words_of(text)[1], (2, "\u{113c2}".to_owned()));
    }

    #[test]
    fn what_is_too_long_is_no_word() {
        assert_eq!(english(&"x".repeat(WORD_MAX_BYTES + 1)), Vec::<String>::new());
        assert_eq!(english(&"7".repeat(WORD_MAX_BYTES)).len(), 1);
    }
}
