//! Words as they are written, and the numbers they have: what is frequent in texts is not taken apart again and again.
//!
//! Owns: a table in which each word has one place; one that comes later takes it, unless the first is asked for again and
//! again. A number counts until any word that was here is forgotten ([`WordCache::clear`]). Main thread.

use crate::allocation::allocated_bytes;
use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasher;

/// Places of a small index, and of one with many words: of texts of any length nine words of ten are known then.
const PLACES_MIN: usize = 4_096;
const PLACES_MAX: usize = 32_768;
/// Longest word that is kept.
const BYTES_MAX: usize = 15;

/// What a word is to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is not indexed.
    Stop,
    /// It is the word of this number.
    Term(u32),
}

/// A word in one number: its bytes, and its length in the last, so that no two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word([u64; 2]);

impl Word {
    const NONE: Self = Self([0; 2]);

    #[inline]
    fn of(word: &str) -> Option<Self> {
        let bytes = word.as_bytes();
        if bytes.is_empty() || bytes.len() > BYTES_MAX {
            return None;
        }
        // First and last bytes overlap, so that no loop of an unforeseeable length is needed.
        let length = bytes.len();
        let (low, high) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => {
                let behind = 8 * (length as u32 - 8);
                let last = u64::from_le_bytes(*last);
                (u64::from_le_bytes(*first), last.checked_shr(64 - behind).unwrap_or(0))
            }
            _ => (up_to_seven(bytes), 0),
        };
        Some(Self([low, high | (length as u64) << 56]))
    }
}

/// One to seven bytes in one number.
#[inline]
fn up_to_seven(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last));
            u64::from(u32::from_le_bytes(*first)) | last << (8 * (length - 4))
        }
        _ => [0, length / 2, length - 1]
            .into_iter()
            .fold(0, |all, at| all | u64::from(bytes[at]) << (8 * at)),
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    word: Word,
    /// Of a word that is not indexed `STOP`.
    number: u32,
    /// The clearance after which it was written, and whether it was asked for since another wanted its place.
    clearance: u32,
}

const STOP: u32 = u32::MAX;
/// The bit of a place that was asked for.
const ASKED: u32 = 1 << 31;

/// The table.
#[derive(Debug, Default)]
pub(super) struct WordCache {
    /// None until the first word.
    places: Vec<Place>,
    clearance: u32,
    hasher: DefaultHashBuilder,
}

impl WordCache {
    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        allocated_bytes(self.places.capacity() * size_of::<Place>())
    }

    /// Forgets all, in one step.
    pub(super) fn clear(&mut self) {
        if self.clearance + 1 == ASKED {
            *self = Self::default();
        } else {
            self.clearance += 1;
        }
    }

    /// What is known of a word as it is written.
    #[inline]
    pub(super) fn find(&mut self, word: &str) -> Option<Known> {
        let word = Word::of(word)?;
        let at = self.place_of(word);
        let place = self.places.get_mut(at)?;
        if place.word != word || place.clearance & !ASKED != self.clearance {
            return None;
        }
        place.clearance |= ASKED;
        Some(if place.number == STOP { Known::Stop } else { Known::Term(place.number) })
    }

    /// Notes it, for an index of so many words. One that was asked for lately keeps its place once.
    pub(super) fn note(&mut self, word: &str, known: Known, words: usize) {
        let Some(word) = Word::of(word) else { return };
        let wanted = words.next_power_of_two().clamp(PLACES_MIN, PLACES_MAX);
        if self.places.len() < wanted {
            let empty = Place { word: Word::NONE, number: STOP, clearance: 0 };
            self.places = vec![empty; wanted];
        }
        let at = self.place_of(word);
        let place = &mut self.places[at];
        let is_wanted = place.clearance == self.clearance | ASKED && place.word != word;
        if is_wanted {
            place.clearance &= !ASKED;
            return;
        }
        let number = match known {
            Known::Stop => STOP,
            Known::Term(number) => number,
        };
        *place = Place { word, number, clearance: self.clearance };
    }

    #[inline]
    fn place_of(&self, word: Word) -> usize {
        // The number of places is a power of two, or 0.
        self.hasher.hash_one(word.0) as usize & self.places.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_asked_for_keeps_its_place_once() {
        let mut cache = WordCache::default();
        cache.note("wing", Known::Term(7), 1);
        let place = cache.place_of(Word::of("wing").unwrap());
        let mut others = (0..).map(|number| format!("w{number}"));
        let other = others.find(|other| cache.place_of(Word::of(other).unwrap()) == place).unwrap();
        assert_eq!(cache.find("wing"), Some(Known::Term(7)));
        cache.note(&other, Known::Term(8), 2);
        assert_eq!((cache.find(&other), cache.places[place].number), (None, 7));
        cache.note(&other, Known::Term(8), 2);
        assert_eq!((cache.find(&other), cache.find("wing")), (Some(Known::Term(8)), None));
    }

    #[test]
    fn a_number_has_the_bytes_of_a_word_and_its_length() {
        let text = "q\u{e4}zwsxedcrfvtg";
        assert_eq!(text.len(), BYTES_MAX);
        for word in text.char_indices().map(|(at, _)| &text[..at]).chain([text]) {
            let mut bytes = [0; BYTES_MAX + 1];
            bytes[..word.len()].copy_from_slice(word.as_bytes());
            bytes[BYTES_MAX] = word.len() as u8;
            let expected = Word(bytemuck::cast(bytes));
            assert_eq!(Word::of(word), (!word.is_empty()).then_some(expected), "{word}");
        }
    }

    #[test]
    fn words_are_known_until_they_are_cleared() {
        let mut cache = WordCache::default();
        assert_eq!(cache.find("wing"), None);
        cache.note("wing", Known::Term(7), 1);
        cache.note("the", Known::Stop, 2);
        assert_eq!(
            (cache.find("wing"), cache.find("the")),
            (Some(Known::Term(7)), Some(Known::Stop))
        );
        assert_eq!((cache.find("Wing"), cache.find("win"), cache.find("")), (None, None, None));
        let long = "x".repeat(BYTES_MAX + 1);
        cache.note(&long, Known::Term(1), 3);
        assert_eq!(cache.find(&long), None);
        let all: Vec<String> = (0..3 * PLACES_MIN).map(|number| format!("w{number}")).collect();
        for words in [0, 10 * PLACES_MAX] {
            for (number, word) in all.iter().enumerate() {
                cache.note(word, Known::Term(number as u32), words);
            }
            let known = all.iter().enumerate().filter_map(|(n, word)| Some((n, cache.find(word)?)));
            let known: Vec<_> = known.collect();
            assert!(known.iter().all(|&(n, found)| found == Known::Term(n as u32)));
            assert!(known.len() > cache.places.len() / 4, "{} of the last", known.len());
        }
        assert_eq!(cache.places.len(), PLACES_MAX);
        cache.clear();
        assert!(all.iter().all(|word| cache.find(word).is_none()));
    }
}
