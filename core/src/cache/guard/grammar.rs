//! Closed classes of English grammar, from `grammar.txt`, for the rule of messages that stand alone.
//!
//! Owns: these tables, and the comparatives and superlatives made of adjectives. Any thread.

use super::sections::lines;
use hashbrown::HashSet;
use std::sync::LazyLock;

/// A class of words.
type Class = HashSet<&'static str>;

#[derive(Debug, Default)]
pub(super) struct Grammar {
    /// Phrases that point to nothing, the longest first.
    pub(super) fixed: Vec<Vec<&'static str>>,
    pub(super) anaphoric: Class,
    pub(super) determiners: Class,
    pub(super) indefinite: Class,
    pub(super) questions: Class,
    pub(super) modals: Class,
    auxiliaries: Class,
    pub(super) greetings: Class,
    pub(super) prepositions: Class,
    pub(super) extraposing: Class,
    pub(super) relatives: Class,
    /// Nouns that mean something only with another: "example" of something.
    pub(super) relational: HashSet<Box<str>>,
    pub(super) unique: Class,
    pub(super) spans: Class,
    /// Adjectives that have a comparative and a superlative of one word.
    pub(super) gradable: Vec<&'static str>,
    /// "More", "better": they also stand before a noun ("more memory") and compare nothing there.
    pub(super) irregular_comparatives: Class,
    /// "Cheaper".
    pub(super) comparatives: HashSet<Box<str>>,
    pub(super) superlatives: HashSet<Box<str>>,
}

/// The classes in use.
pub(super) fn grammar() -> &'static Grammar {
    static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| {
        let mut grammar = Grammar::default();
        grammar.read(include_str!("grammar.txt"));
        grammar
    });
    &GRAMMAR
}

impl Grammar {
    fn read(&mut self, text: &'static str) {
        for (section, line) in lines(text) {
            let words = line.split_whitespace();
            match section {
                "fixed" => self.fixed.extend(phrases(line)),
                "anaphoric" => self.anaphoric.extend(words),
                "determiner" => self.determiners.extend(words),
                "indefinite" => self.indefinite.extend(words),
                "question" => self.questions.extend(words),
                "modal" => self.modals.extend(words),
                "auxiliary" => self.auxiliaries.extend(words),
                "greeting" => self.greetings.extend(words),
                "preposition" => self.prepositions.extend(words),
                "extraposing" => self.extraposing.extend(words),
                "relative" => self.relatives.extend(words),
                "relational" => {
                    for noun in words {
                        self.relational.insert(noun.into());
                        self.relational.insert(plural(noun));
                    }
                }
                "unique" => self.unique.extend(words),
                "span" => self.spans.extend(words),
                "comparative" => self.irregular_comparatives.extend(words),
                "superlative" => self.superlatives.extend(words.map(Box::from)),
                "gradable" => {
                    for adjective in words {
                        self.gradable.push(adjective);
                        self.comparatives.insert(graded(adjective, "er"));
                        self.superlatives.insert(graded(adjective, "est"));
                    }
                }
                _ => {}
            }
        }
        self.fixed.sort_by_key(|phrase| std::cmp::Reverse(phrase.len()));
    }

    /// Whether the word is an auxiliary verb, also with "not" joined to it.
    pub(super) fn is_auxiliary(&self, word: &str) -> bool {
        self.modals.contains(word) || self.auxiliaries.contains(word) || word.ends_with("n't")
    }
}

fn phrases(line: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let phrases = line.split(',').map(|phrase| phrase.split_whitespace().collect::<Vec<_>>());
    phrases.filter(|phrase| !phrase.is_empty())
}

/// Examples, varieties.
fn plural(noun: &str) -> Box<str> {
    match noun.strip_suffix('y') {
        Some(stem) => format!("{stem}ies").into(),
        None => format!("{noun}s").into(),
    }
}

/// An adjective with "er" or "est": nicer, busier, bigger, cheaper.
pub(super) fn graded(adjective: &str, ending: &str) -> Box<str> {
    let is_vowel = |letter: u8| b"aeiou".contains(&letter);
    let stem = adjective.trim_end_matches('e');
    match *adjective.as_bytes() {
        [.., b'e'] => format!("{stem}{ending}").into(),
        [.., before, b'y'] if !is_vowel(before) => {
            format!("{}i{ending}", adjective.trim_end_matches('y')).into()
        }
        [first, vowel, last] if !is_vowel(first) && is_vowel(vowel) && !b"wxy".contains(&last) => {
            format!("{adjective}{}{ending}", char::from(last)).into()
        }
        _ => format!("{adjective}{ending}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjectives_are_graded_as_english_does() {
        for (adjective, comparative, superlative) in [
            ("nice", "nicer", "nicest"),
            ("busy", "busier", "busiest"),
            ("big", "bigger", "biggest"),
            ("new", "newer", "newest"),
            ("old", "older", "oldest"),
            ("cheap", "cheaper", "cheapest"),
        ] {
            assert_eq!(&*graded(adjective, "er"), comparative);
            assert_eq!(&*graded(adjective, "est"), superlative);
        }
    }

    #[test]
    fn every_class_is_read() {
        let grammar = grammar();
        assert!(grammar.fixed.contains(&vec!["by", "the", "way"]) && grammar.fixed.len() > 10);
        for (class, word) in [
            (&grammar.anaphoric, "else"),
            (&grammar.determiners, "any"),
            (&grammar.indefinite, "anybody"),
            (&grammar.questions, "whom"),
            (&grammar.modals, "shall"),
            (&grammar.greetings, "hello"),
            (&grammar.prepositions, "via"),
            (&grammar.extraposing, "safe"),
            (&grammar.relatives, "who"),
            (&grammar.unique, "sun"),
            (&grammar.spans, "week"),
            (&grammar.irregular_comparatives, "worse"),
        ] {
            assert!(class.contains(word), "{word}");
        }
        assert!(grammar.relational.contains("varieties") && grammar.relational.contains("example"));
        assert!(grammar.is_auxiliary("was") && grammar.is_auxiliary("can't"));
        assert!(grammar.comparatives.contains("older") && grammar.superlatives.contains("best"));
    }
}
