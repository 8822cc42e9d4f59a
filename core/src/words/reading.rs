//! Texts read part by part, so that a long one holds nobody up.
//!
//! Owns: where a text is cut, which is the same for every reader, and the words of a text that is being read. A part ends
//! at a space; where none is near, behind a mark of a script without spaces, else behind a character, so that a word there
//! is two. Any thread.

use super::analyser::Analyser;
use crate::allocation::allocated_bytes;
use crate::limits::WORDS_TEXT_TERMS_MAX;
use crate::work::{Steps, count};
use hashbrown::HashMap;
use std::borrow::Cow;

/// Longest part: some tenths of a millisecond.
const PART_BYTES: usize = 4 << 10;

/// Counts that the words of so many bytes were looked for.
pub(super) fn count_read(bytes: usize) {
    count(Steps { rows: bytes as u64, ..Steps::NONE });
}

/// Where the part of a text that begins somewhere in it ends.
pub(super) fn part_end(text: &[u8], start: usize) -> usize {
    let rest = &text[start..];
    if rest.len() <= PART_BYTES {
        return text.len();
    }
    let part = &rest[..PART_BYTES];
    if let Some(space) = part.iter().rposition(u8::is_ascii_whitespace) {
        return start + space + 1;
    }
    // Scripts without spaces have marks between their sentences.
    if let Some(mark) = part.windows(3).rposition(is_mark) {
        return start + mark + 3;
    }
    // Three bytes at most continue a character.
    let begins = |at: &usize| rest[*at] & 0xC0 != 0x80;
    start + (PART_BYTES - 3..=PART_BYTES).rev().find(begins).unwrap_or(PART_BYTES)
}

/// Whether a character is a mark of a script without spaces, which ends a word: U+3000 to U+303F but for letters, and the
/// wide forms of ASCII's.
fn is_mark(bytes: &[u8]) -> bool {
    matches!(bytes, [0xE3, 0x80, 0x80..=0x84 | 0x88..=0xBF] | [0xEF, 0xBC, 0x81..=0x8F | 0x9A..=0xA0])
}

/// How far a text is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    at: usize,
}

impl Place {
    /// The next part of a text, if there is one.
    pub(super) fn next<'t>(&mut self, text: &'t [u8]) -> Option<Cow<'t, str>> {
        if self.at >= text.len() {
            return None;
        }
        let end = part_end(text, self.at);
        let part = &text[self.at..end];
        self.at = end;
        count_read(part.len());
        Some(String::from_utf8_lossy(part))
    }
}

/// The words of a text, while it is read and when it is.
#[derive(Debug, Default)]
pub struct TextWords {
    place: Place,
    counts: HashMap<Box<str>, u32>,
    length: u32,
}

impl TextWords {
    /// Reads about so many bytes more; whether that was the last.
    pub fn read(&mut self, analyser: &Analyser, text: &[u8], most_bytes: usize) -> bool {
        let end = self.place.at.saturating_add(most_bytes);
        while self.place.at < end {
            let Some(part) = self.place.next(text) else { return true };
            analyser.words(&part, |token| {
                if !token.is_stop {
                    self.take(token.term);
                }
            });
        }
        self.place.at >= text.len()
    }

    /// Of more different words than a text may have, the first count.
    fn take(&mut self, term: &str) {
        let is_full = self.counts.len() == WORDS_TEXT_TERMS_MAX;
        let count = match self.counts.get_mut(term) {
            Some(count) => count,
            None if is_full => return,
            None => self.counts.entry(term.into()).or_default(),
        };
        *count += 1;
        self.length += 1;
    }

    /// The different words, and how often each stands in the text.
    pub(super) fn counts(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        self.counts.iter().map(|(term, count)| (&**term, *count))
    }

    /// Memory of them.
    pub(super) fn bytes(&self) -> usize {
        // A short word each.
        const WORD_BYTES: usize = 24;
        allocated_bytes(self.counts.allocation_size()) + self.counts.len() * WORD_BYTES
    }

    /// How many words there are.
    pub(super) fn length(&self) -> u32 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::super::Language;
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &[u8]) -> Vec<String> {
        let mut place = Place::default();
        std::iter::from_fn(|| place.next(text).map(Cow::into_owned)).collect()
    }

    #[test]
    fn parts_end_at_spaces_or_behind_a_character() {
        let text = "word ".repeat(2_000);
        assert!(parts(text.as_bytes()).iter().all(|part| part.ends_with("word ")));
        for text in
            ["東".repeat(5_000), "x".repeat(9_000), "é".repeat(4_097), "a\u{1F468}".repeat(3_000)]
        {
            let parts = parts(text.as_bytes());
            assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= PART_BYTES));
            assert_eq!(parts.concat(), text);
        }
        // What is no text at all comes to an end too.
        assert!(parts(&[0x80; 10_000]).len() > 1);
    }

    #[test]
    fn words_beyond_the_most_do_not_count() {
        let words: Vec<_> = (0..WORDS_TEXT_TERMS_MAX + 10).map(|at| format!("w{at}")).collect();
        let mut read = TextWords::default();
        assert!(read.read(&Analyser::new(Language::NONE), words.join(" ").as_bytes(), usize::MAX));
        assert_eq!(
            (read.counts().len(), read.length()),
            (WORDS_TEXT_TERMS_MAX, WORDS_TEXT_TERMS_MAX as u32)
        );
    }

    proptest! {
        #[test]
        fn parts_have_the_words_of_the_whole(
            words in proptest::collection::vec("[a-c]{1,3}|[a-b]-[0-9]|東京|é", 0..3_000),
            between in " |。|、",
        ) {
            let text = words.join(&between);
            let analyser = Analyser::new(Language::NONE);
            let (mut whole, mut read) = (HashMap::<Box<str>, u32>::new(), TextWords::default());
            analyser.words(&text, |token| *whole.entry(token.term.into()).or_default() += 1);
            while !read.read(&analyser, text.as_bytes(), 1) {}
            prop_assert_eq!(read.counts, whole);
        }
    }
}
