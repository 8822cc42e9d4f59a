//! Phrases: words that stand one behind the other in a text.
//!
//! Owns: the check of a text that was opened. Positions are not kept in the index: a phrase is looked for in texts
//! that have all its words, part by part, each word of the text once (Knuth, Morris and Pratt 1977). Any thread.

use super::analyser::Analyser;
use super::reading::Place;

/// A phrase, and where looking for it goes on when a word is not the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Phrase {
    words: Vec<String>,
    /// Of so many of its first words that a text has: of how many fewer it has the first at the same place.
    fewer: Vec<usize>,
    is_excluded: bool,
}

impl Phrase {
    fn new(words: Vec<String>, is_excluded: bool) -> Self {
        let mut fewer = vec![0; words.len()];
        let mut have = 0;
        for at in 1..words.len() {
            while have > 0 && words[at] != words[have] {
                have = fewer[have - 1];
            }
            have += usize::from(words[at] == words[have]);
            fewer[at] = have;
        }
        Self { words, fewer, is_excluded }
    }

    /// How many of its first words a text has up to this word, of which it had so many before.
    fn after(&self, mut have: usize, word: &str) -> usize {
        if have == self.words.len() {
            return have;
        }
        while have > 0 && self.words[have] != word {
            have = self.fewer[have - 1];
        }
        have + usize::from(self.words[have] == word)
    }
}

/// Phrases that a text must have, and such as it must not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Phrases(Vec<Phrase>);

/// How far a text was looked into for phrases.
#[derive(Debug, Clone, Default)]
pub struct PhraseReading {
    place: Place,
    /// Of each phrase how many words were found, all of them once it was found.
    have: Vec<usize>,
}

impl Phrases {
    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one of two words at least.
    pub(super) fn add(&mut self, words: Vec<String>, is_excluded: bool) {
        self.0.push(Phrase::new(words, is_excluded));
    }

    /// Looks into the next part of a text; tells whether it has those that it must have and none of the others, once that
    /// is known.
    pub fn read(
        &self,
        analyser: &Analyser,
        text: &[u8],
        reading: &mut PhraseReading,
    ) -> Option<bool> {
        reading.have.resize(self.len(), 0);
        let have = &mut reading.have;
        let Some(part) = reading.place.next(text) else {
            return Some(
                self.0
                    .iter()
                    .zip(have)
                    .all(|(phrase, have)| (*have == phrase.words.len()) != phrase.is_excluded),
            );
        };
        analyser.words(&part, |token| {
            if !token.is_code {
                for (phrase, have) in self.0.iter().zip(have.iter_mut()) {
                    *have = phrase.after(*have, token.term);
                }
            }
        });
        let (mut all_found, mut has_excluded) = (true, false);
        for (phrase, have) in self.0.iter().zip(have) {
            let is_found = *have == phrase.words.len();
            has_excluded |= is_found && phrase.is_excluded;
            all_found &= is_found && !phrase.is_excluded;
        }
        match (has_excluded, all_found) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> impl Iterator<Item = String> + '_ {
        let sign = |phrase: &Phrase| if phrase.is_excluded { '-' } else { '+' };
        self.0.iter().map(move |phrase| format!("{}\"{}\"", sign(phrase), phrase.words.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Language, WordQuery};
    use super::*;
    use proptest::prelude::*;

    fn accepts(phrases: &Phrases, analyser: &Analyser, text: &str) -> bool {
        let mut reading = PhraseReading::default();
        loop {
            if let Some(verdict) = phrases.read(analyser, text.as_bytes(), &mut reading) {
                return verdict;
            }
        }
    }

    #[test]
    fn words_stand_one_behind_the_other() {
        let analyser = Analyser::new(Language::parse(b"english").unwrap());
        let accepts = |query: &str, text: &str| {
            let query = WordQuery::parse(&analyser, query.as_bytes()).unwrap();
            accepts(&query.phrases, &analyser, text)
        };
        assert!(accepts("\"heat shields\"", "The Heat-Shield is hot."));
        assert!(!accepts("\"heat shield\"", "shield of heat"));
        assert!(!accepts("\"heat shield\"", "heat the shield"));
        assert!(accepts("\"heat the shield\"", "heat the shields"));
        assert!(!accepts("nose -\"heat shield\"", "a nose with a heat shield"));
        assert!(accepts("nose -\"heat shield\"", "a nose with a shield"));
        assert!(accepts("\"error ERR-4711 found\"", "an error: ERR-4711, found"));
        assert!(accepts("\"東京都\"", "ここは東京都です"));
        // Over the end of a part.
        let far = format!("{}heat{}shield", "nose ".repeat(2_000), " ".repeat(5_000));
        assert!(accepts("\"nose heat shield\"", &far));
        assert!(!accepts("\"heat nose\"", &far));
    }

    proptest! {
        #[test]
        fn is_what_looking_at_each_place_finds(
            phrases in proptest::collection::vec((proptest::collection::vec("[ab]", 2..5), any::<bool>()), 1..4),
            text in proptest::collection::vec("[abc]", 0..20),
        ) {
            let mut known = Phrases::default();
            for (words, is_excluded) in &phrases {
                known.add(words.clone(), *is_excluded);
            }
            let has = |words: &[String]| text.windows(words.len()).any(|window| window == words);
            let expected = phrases.iter().all(|(words, is_excluded)| has(words) != *is_excluded);
            prop_assert_eq!(accepts(&known, &Analyser::new(Language::NONE), &text.join(" ")), expected);
        }
    }
}
