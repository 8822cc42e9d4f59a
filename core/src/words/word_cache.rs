//! Words as they are written, and the numbers they have: what is frequent in texts is not taken apart again and again.
//!
//! Owns: a table of fixed size in which each word has one place; one that comes later takes it. A number counts until any
//! word that was here is forgotten ([`WordCache::clear`]). Main thread.

use hashbrown::DefaultHashBuilder;
use std::hash::BuildHasher;

/// Places: the words that make up four fifths of a text of any length.
const PLACES: usize = 4_096;
/// Longest word that is kept.
const BYTES_MAX: usize = 19;

/// What a word is to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is not indexed.
    Stop,
    /// It is the word of this number.
    Term(u32),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    bytes: [u8; BYTES_MAX],
    length: u8,
    /// The clearance after which it was written.
    clearance: u32,
    /// Of a word that is not indexed `STOP`.
    number: u32,
}

const STOP: u32 = u32::MAX;

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
        crate::allocation::allocated_bytes(self.places.capacity() * size_of::<Place>())
    }

    /// Forgets all, in one step.
    pub(super) fn clear(&mut self) {
        match self.clearance.checked_add(1) {
            Some(next) => self.clearance = next,
            None => *self = Self::default(),
        }
    }

    /// What is known of a word as it is written.
    pub(super) fn find(&self, word: &str) -> Option<Known> {
        let place = self.places.get(self.place_of(word)).filter(|place| place.length > 0)?;
        let is_it = place.clearance == self.clearance
            && place.bytes.get(..usize::from(place.length)) == Some(word.as_bytes());
        let known = || if place.number == STOP { Known::Stop } else { Known::Term(place.number) };
        is_it.then(known)
    }

    /// Notes it.
    pub(super) fn note(&mut self, word: &str, known: Known) {
        if word.len() > BYTES_MAX || word.is_empty() {
            return;
        }
        if self.places.is_empty() {
            let empty = Place { bytes: [0; BYTES_MAX], length: 0, clearance: 0, number: STOP };
            self.places = vec![empty; PLACES];
        }
        let at = self.place_of(word);
        let place = &mut self.places[at];
        place.bytes[..word.len()].copy_from_slice(word.as_bytes());
        place.length = word.len() as u8;
        place.clearance = self.clearance;
        place.number = match known {
            Known::Stop => STOP,
            Known::Term(number) => number,
        };
    }

    fn place_of(&self, word: &str) -> usize {
        self.hasher.hash_one(word) as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_until_they_are_cleared() {
        let mut cache = WordCache::default();
        assert_eq!(cache.find("wing"), None);
        cache.note("wing", Known::Term(7));
        cache.note("the", Known::Stop);
        assert_eq!(
            (cache.find("wing"), cache.find("the")),
            (Some(Known::Term(7)), Some(Known::Stop))
        );
        assert_eq!((cache.find("Wing"), cache.find("win"), cache.find("")), (None, None, None));
        let long = "x".repeat(BYTES_MAX + 1);
        cache.note(&long, Known::Term(1));
        assert_eq!(cache.find(&long), None);
        let all: Vec<String> = (0..3 * PLACES).map(|number| format!("w{number}")).collect();
        for (number, word) in all.iter().enumerate() {
            cache.note(word, Known::Term(number as u32));
        }
        let known = all.iter().enumerate().filter_map(|(n, word)| Some((n, cache.find(word)?)));
        let known: Vec<_> = known.collect();
        assert!(known.iter().all(|&(n, found)| found == Known::Term(n as u32)));
        assert!(known.len() > PLACES / 2, "{} of the last", known.len());
        cache.clear();
        assert!(all.iter().all(|word| cache.find(word).is_none()));
    }
}
