//! The word tables of the guards, read once from the text files beside this one.
//!
//! Owns: the form of those files, the stem by which words are compared across inflections. Any thread.

use super::grammar::{graded, grammar};
use super::sections::lines;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use rust_stemmers::{Algorithm, Stemmer};
use std::borrow::Cow;
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// What the tables say of a word, by one look instead of one for each table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) const COMMON: Self = Self(1);
    pub(super) const NEGATION: Self = Self(1 << 1);
    pub(super) const ARTICLE: Self = Self(1 << 2);
    pub(super) const DIRECTION: Self = Self(1 << 3);
    pub(super) const REFERRING: Self = Self(1 << 4);
    pub(super) const JOINING: Self = Self(1 << 5);
    /// A number, a month or a day, or another word for one.
    pub(super) const NUMBER: Self = Self(1 << 6);
    /// The first word of a phrase that holds a negation and means none.
    pub(super) const IDIOM: Self = Self(1 << 7);
    /// Words that speak for English.
    pub(super) const FUNCTION: Self = Self(
        Self::COMMON.0 | Self::NEGATION.0 | Self::ARTICLE.0 | Self::DIRECTION.0 | Self::REFERRING.0,
    );

    /// Whether the word is of one of these.
    pub(super) fn any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }
}

/// What is known of English.
#[derive(Default)]
pub(super) struct Tables {
    /// Of the words of the tables that are asked for every word.
    kinds: HashMap<&'static str, Kinds>,
    pub(super) negations: HashSet<&'static str>,
    /// By their first words, the longest first: "or no" before "or".
    pub(super) idioms: HashMap<&'static str, Vec<Vec<&'static str>>>,
    pub(super) common: HashSet<&'static str>,
    pub(super) articles: HashSet<&'static str>,
    pub(super) directions: HashSet<&'static str>,
    pub(super) symmetric: HashSet<&'static str>,
    pub(super) joining: HashSet<&'static str>,
    /// By stem.
    pub(super) mutual: HashSet<Box<str>>,
    pub(super) scales: HashSet<&'static str>,
    pub(super) particles: HashSet<&'static str>,
    /// Two sides of one deed, both ways round, by stem.
    converse: HashSet<(Box<str>, Box<str>)>,
    pub(super) undoing: HashSet<&'static str>,
    pub(super) now: HashSet<&'static str>,
    pub(super) referring: HashSet<&'static str>,
    pub(super) continuing: HashSet<&'static str>,
    pub(super) prefixes: Vec<&'static str>,
    /// The letters that these begin with, a bit each.
    prefix_letters: u32,
    pub(super) numbers: HashMap<&'static str, f64>,
    pub(super) months: HashMap<&'static str, u8>,
    pub(super) days: HashSet<&'static str>,
    pub(super) same: HashMap<&'static str, &'static str>,
    /// The opposites of a word, all by stem.
    opposites: HashMap<Box<str>, Vec<Box<str>>>,
}

/// The tables in use.
pub(super) fn tables() -> &'static Tables {
    static TABLES: LazyLock<Tables> = LazyLock::new(|| {
        let mut tables = Tables::default();
        tables.read(include_str!("english.txt"));
        tables.read(include_str!("antonyms.txt"));
        tables.grade_opposites();
        tables.note_kinds();
        tables
    });
    &TABLES
}

/// What inflections of an English word share: "starts" and "starting" have the stem of "start".
pub(super) fn stem(word: &str) -> Cow<'_, str> {
    thread_local! {
        static STEMS: RefCell<Stems> = RefCell::new(Stems::new());
    }
    STEMS.with_borrow_mut(|stems| stems.of(word))
}

/// A word, and its stem where that is another.
type Remembered = (Box<str>, Option<Box<str>>);

/// A stemmer that remembers the stems of words that come again and again.
struct Stems {
    stemmer: Stemmer,
    /// By the hash of the word: word and stem, where they are not the same.
    places: Vec<Option<Remembered>>,
    hasher: DefaultHashBuilder,
}

impl Stems {
    /// Words remembered at most. One of the same place takes it.
    const PLACES: usize = 1_024;
    /// Longest word that is remembered.
    const BYTES_MAX: usize = 24;

    fn new() -> Self {
        let places = vec![None; Self::PLACES];
        Self { stemmer: Stemmer::create(Algorithm::English), places, hasher: Default::default() }
    }

    fn of<'w>(&mut self, word: &'w str) -> Cow<'w, str> {
        if word.len() > Self::BYTES_MAX {
            return self.stemmer.stem(word);
        }
        let place = &mut self.places[self.hasher.hash_one(word) as usize % Self::PLACES];
        if let Some((known, stem)) = place
            && **known == *word
        {
            return stem.as_ref().map_or(Cow::Borrowed(word), |stem| Cow::Owned(stem.to_string()));
        }
        let stem = self.stemmer.stem(word);
        *place = Some((word.into(), (stem != word).then(|| Box::from(&*stem))));
        stem
    }
}

impl Tables {
    /// Reads the form that `english.txt` describes. A line that says nothing is skipped: the tests hold
    /// the files to what they should say.
    fn read(&mut self, text: &'static str) {
        let mut idioms = String::new();
        for (section, line) in lines(text) {
            let words = line.split_whitespace();
            let pair = line.split_once(' ');
            match section {
                "negation" => self.negations.extend(words),
                "common" => self.common.extend(words),
                "article" => self.articles.extend(words),
                "direction" => self.directions.extend(words),
                "symmetric" => self.symmetric.extend(words),
                "joining" => self.joining.extend(words),
                "mutual" => self.mutual.extend(words.map(|word| Box::from(&*stem(word)))),
                "scale" => self.scales.extend(words),
                "particle" => self.particles.extend(words),
                "undoing" => self.undoing.extend(words),
                "now" => self.now.extend(words),
                "converse" => self.converse.extend(both_ways(pair)),
                "referring" => self.referring.extend(words),
                "continuing" => self.continuing.extend(words),
                "prefix" => self.prefixes.extend(words),
                "day" => self.days.extend(words),
                "idiom" => {
                    idioms.push(' ');
                    idioms.push_str(line);
                }
                "number" => self.numbers.extend(pair.and_then(|(w, n)| Some((w, n.parse().ok()?)))),
                "month" => self.months.extend(pair.and_then(|(w, n)| Some((w, n.parse().ok()?)))),
                "same" => self.same.extend(pair),
                "opposite" => self.add_opposites(pair),
                _ => {}
            }
        }
        self.add_idioms(idioms.leak());
    }

    fn note_kinds(&mut self) {
        let Self { common, negations, articles, directions, referring, joining, .. } = self;
        let sets = [
            (Kinds::COMMON, &*common),
            (Kinds::NEGATION, negations),
            (Kinds::ARTICLE, articles),
            (Kinds::DIRECTION, directions),
            (Kinds::REFERRING, referring),
            (Kinds::JOINING, joining),
            (Kinds::NUMBER, &self.days),
        ];
        let in_sets = sets.into_iter().flat_map(|(kind, set)| set.iter().map(move |w| (*w, kind)));
        let (numbers, months) = (self.numbers.keys(), self.months.keys());
        let in_maps = numbers.chain(months).chain(self.same.keys()).map(|w| (*w, Kinds::NUMBER));
        let idioms = self.idioms.keys().map(|word| (*word, Kinds::IDIOM));
        for (word, kind) in in_sets.chain(in_maps).chain(idioms) {
            self.kinds.entry(word).or_default().0 |= kind.0;
        }
        for first in self.prefixes.iter().filter_map(|prefix| prefix.bytes().next()) {
            self.prefix_letters |= letter_bit(first);
        }
    }

    /// What the tables say of a word.
    pub(super) fn kinds_of(&self, word: &str) -> Kinds {
        let known = self.kinds.get(word).copied().unwrap_or_default();
        match word.ends_with("n't") {
            true => Kinds(known.0 | Kinds::NEGATION.0),
            false => known,
        }
    }

    /// Whether a word may have one of the prefixes, by its first letter.
    pub(super) fn may_have_prefix(&self, word: &str) -> bool {
        word.bytes().next().is_some_and(|first| self.prefix_letters & letter_bit(first) != 0)
    }

    fn add_idioms(&mut self, idioms: &'static str) {
        let phrases = idioms.split(',').map(|idiom| idiom.split_whitespace().collect::<Vec<_>>());
        for idiom in phrases.filter(|idiom| !idiom.is_empty()) {
            let begun = self.idioms.entry(idiom[0]).or_default();
            begun.push(idiom);
            begun.sort_by_key(|idiom| std::cmp::Reverse(idiom.len()));
        }
    }

    /// "Taller" and "shorter" are opposites as "tall" and "short" are.
    fn grade_opposites(&mut self) {
        let gradable = &grammar().gradable;
        let pairs =
            gradable.iter().flat_map(|one| gradable.iter().map(move |other| (*one, *other)));
        let are_opposites = |(one, other): &(&str, &str)| {
            let (one, other) = (stem(one), stem(other));
            self.opposites(&one).iter().any(|opposite| opposite.as_ref() == other.as_ref())
        };
        let pairs: Vec<_> = pairs.filter(are_opposites).collect();
        for (one, other) in pairs {
            for ending in ["er", "est"] {
                self.add_opposites(Some((&graded(one, ending), &graded(other, ending))));
            }
        }
    }

    fn add_opposites(&mut self, pair: Option<(&str, &str)>) {
        for (word, opposite) in both_ways(pair) {
            let known = self.opposites.entry(word.clone()).or_default();
            if word != opposite && !known.contains(&opposite) {
                known.push(opposite);
            }
        }
    }

    /// The stems of the opposites of a word with this stem.
    pub(super) fn opposites(&self, stem: &str) -> &[Box<str>] {
        self.opposites.get(stem).map_or(&[], Vec::as_slice)
    }

    /// Whether two words, by stem, are the two sides of one deed.
    pub(super) fn are_converse(&self, one: &str, other: &str) -> bool {
        self.converse.contains(&(Box::from(one), Box::from(other)))
    }

    /// Whether the word turns a statement round by itself.
    pub(super) fn negates(&self, word: &str) -> bool {
        self.kinds_of(word).any(Kinds::NEGATION)
    }

    /// Whether the word says what a question is about.
    pub(super) fn is_content(&self, word: &str) -> bool {
        !self.kinds_of(word).any(Kinds(Kinds::COMMON.0 | Kinds::NEGATION.0))
    }

    /// Whether some opposite of the word is known.
    pub(super) fn has_opposite(&self, word: &str) -> bool {
        self.opposites.contains_key(stem(word).as_ref())
    }
}

/// A bit for each of 32 groups of bytes, in which no two small letters are together.
fn letter_bit(byte: u8) -> u32 {
    1 << (byte % 32)
}

/// The stems of a pair of words, either first.
fn both_ways(pair: Option<(&str, &str)>) -> impl Iterator<Item = (Box<str>, Box<str>)> {
    let stems = pair.map(|(one, other)| (Box::from(&*stem(one)), Box::from(&*stem(other))));
    stems
        .into_iter()
        .flat_map(|(one, other): (Box<str>, Box<str>)| [(one.clone(), other.clone()), (other, one)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_read() {
        let tables = tables();
        assert!(tables.negations.contains("never") && tables.negations.len() > 15);
        assert!(tables.idioms["whether"].contains(&vec!["whether", "or", "not"]));
        assert!(tables.common.contains("the") && tables.articles.contains("the"));
        assert!(tables.directions.contains("to") && tables.prefixes.contains(&"un"));
        assert!(tables.symmetric.contains("married") && tables.referring.contains("those"));
        assert!(tables.mutual.contains("marri"));
        assert!(tables.continuing.contains("but"));
        assert_eq!(tables.numbers.get("twelve"), Some(&12.0));
        assert_eq!((tables.months.len(), tables.months.get("dec")), (24, Some(&12)));
        assert!(tables.days.contains("tomorrow"));
        // Those of english.txt and those of antonyms.txt, in both directions and every inflection.
        for (word, opposite) in [("open", "closing"), ("starts", "stopping"), ("wisdom", "folly")] {
            for (word, opposite) in [(word, opposite), (opposite, word)] {
                let known = tables.opposites(&stem(word));
                assert!(known.iter().any(|other| **other == *stem(opposite)), "{word} {opposite}");
            }
        }
    }

    #[test]
    fn opposites_are_single_words() {
        for text in [include_str!("english.txt"), include_str!("antonyms.txt")] {
            for (_, line) in lines(text).filter(|(section, _)| *section == "opposite") {
                let words: Vec<&str> = line.split_whitespace().collect();
                assert!(words.len() == 2 && words[0] != words[1], "{line}");
            }
        }
    }
}
