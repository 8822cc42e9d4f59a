//! Splits a question into words, and aligns the words of two questions.
//!
//! Owns: where words begin and end (letters and digits of any script; an apostrophe or a hyphen between
//! letters joins), which words are names. Any thread.

use super::language::Language;
use super::numbers::{digit, numbers_of};
use super::tables::{Kinds, Tables};
use hashbrown::HashSet;

/// A question in words.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) all: Vec<String>,
    /// What the tables say of each.
    pub(super) kinds: Vec<Kinds>,
    pub(super) numbers: Vec<String>,
    /// Words written with a capital inside a sentence, sorted, each once.
    pub(super) names: Vec<String>,
    pub(super) language: Language,
    /// Whether "one" stands in it, which is a number in "one minute" and none in "a new one".
    pub(super) has_one: bool,
}

impl Words {
    pub(super) fn new(text: &str, tables: &Tables) -> Self {
        let (mut all, names) = split(text);
        let names = names_among(names, all.len(), tables);
        let mut kinds: Vec<_> = all.iter().map(|word| tables.kinds_of(word)).collect();
        let language = Language::of(&all, &kinds, &names, tables);
        cut_idioms(&mut all, &mut kinds, tables);
        let mut exchange = |at: usize, words: &mut [String], word: &str| {
            words[at] = word.to_owned();
            kinds[at] = tables.kinds_of(word);
        };
        join_keep_from(&mut all, &mut exchange);
        join_fail_to(&mut all, &mut exchange);
        let numbers = numbers_of(&all, &kinds, tables);
        let has_one = all.iter().any(|word| word == "one");
        Self { all, kinds, numbers, names, language, has_one }
    }

    /// The words, each once.
    pub(super) fn set(&self) -> HashSet<&str> {
        self.all.iter().map(String::as_str).collect()
    }
}

/// The words of each of two questions, each once, and those that only one of them has.
pub(super) struct Compared<'a> {
    pub(super) asked: HashSet<&'a str>,
    pub(super) stored: HashSet<&'a str>,
    /// In the order of the question, so that what a guard names does not depend on a hash.
    pub(super) only_asked: Vec<&'a str>,
    pub(super) only_stored: Vec<&'a str>,
}

impl<'a> Compared<'a> {
    pub(super) fn new(asked: &'a Words, stored: &'a Words) -> Self {
        let (in_asked, in_stored) = (asked.set(), stored.set());
        let only = |words: &'a Words, other: &HashSet<&str>| {
            let mut taken = HashSet::new();
            let alone = words.all.iter().map(String::as_str);
            alone.filter(|word| !other.contains(word) && taken.insert(*word)).collect()
        };
        let (only_asked, only_stored) = (only(asked, &in_stored), only(stored, &in_asked));
        Self { asked: in_asked, stored: in_stored, only_asked, only_stored }
    }

    /// Whether most of the words that say something are the same: only then is a negation in the one a
    /// negation of the other.
    pub(super) fn are_about_the_same(&self, tables: &Tables) -> bool {
        let tells = |word: &&&str| tables.is_content(word);
        let shared = self.asked.intersection(&self.stored).filter(tells).count();
        let union = self.asked.union(&self.stored).filter(tells).count();
        // Two of five: questions in other words share about that.
        5 * shared >= 2 * union
    }
}

/// Of the capitalised words, those that can be names: not the words that say little, and none where
/// most words have a capital, as in a title.
fn names_among(mut names: Vec<String>, words: usize, tables: &Tables) -> Vec<String> {
    if names.len() > 2 && 2 * names.len() > words {
        return Vec::new();
    }
    let is_date = |name: &str| tables.days.contains(name) || tables.months.contains_key(name);
    names.retain(|name| tables.is_content(name) && !is_date(name));
    names.sort_unstable();
    names.dedup();
    names
}

/// The words in lower case, and those that begin with a capital other than at the start of a sentence.
pub(super) fn split(text: &str) -> (Vec<String>, Vec<String>) {
    let letters = letters_of(text);
    let (mut all, mut names): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut at, mut starts_sentence) = (0, true);
    while at < letters.len() {
        let first = letters[at];
        if digit(first).is_some() {
            let (number, next) = read_number(&letters, at);
            all.push(number);
            at = skip_ordinal(&letters, next);
        } else if first.is_alphabetic() {
            let end = word_end(&letters, at);
            let mut word = in_small_letters(&letters[at..end]);
            if word.ends_with("'s") {
                word.truncate(word.len() - 2);
            }
            if first.is_uppercase() && !starts_sentence && word != "i" && !word.starts_with("i'") {
                names.push(word.clone());
            }
            all.push(word);
            at = end;
        } else {
            starts_sentence |= matches!(first, '.' | '?' | '!' | '\n' | ':');
            at += 1;
            continue;
        }
        starts_sentence = false;
    }
    (all, names)
}

/// The letters, with one apostrophe for both.
fn letters_of(text: &str) -> Vec<char> {
    if text.is_ascii() {
        // Their number is known, so that the memory is asked for once.
        return text.bytes().map(char::from).collect();
    }
    text.chars().map(|c| if c == '\u{2019}' { '\'' } else { c }).collect()
}

fn in_small_letters(letters: &[char]) -> String {
    let mut word = String::with_capacity(letters.len());
    for letter in letters {
        match letter.is_ascii() {
            true => word.push(letter.to_ascii_lowercase()),
            false => word.extend(letter.to_lowercase()),
        }
    }
    word
}

/// One past a word: letters, and apostrophes or hyphens between letters.
fn word_end(letters: &[char], start: usize) -> usize {
    let is_letter = |at: usize| letters.get(at).is_some_and(|c| c.is_alphabetic());
    let mut at = start;
    while is_letter(at) || (matches!(letters.get(at), Some('\'' | '-')) && is_letter(at + 1)) {
        at += 1;
    }
    at
}

/// A number and where it ends. A comma before three digits separates thousands; a point between digits
/// begins a fraction.
fn read_number(letters: &[char], start: usize) -> (String, usize) {
    let digit_at = |at: usize| letters.get(at).copied().and_then(digit);
    let (mut number, mut at, mut fraction) = (String::new(), start, false);
    loop {
        if let Some(digit) = digit_at(at) {
            number.push(digit);
        } else if letters.get(at) == Some(&',') && !fraction {
            let group = (1..4).all(|n| digit_at(at + n).is_some()) && digit_at(at + 4).is_none();
            if !group {
                break;
            }
        } else if letters.get(at) == Some(&'.') && !fraction && digit_at(at + 1).is_some() {
            number.push('.');
            fraction = true;
        } else {
            break;
        }
        at += 1;
    }
    (number, at)
}

/// Passes over the ending of 1st, 2nd, 3rd, 4th.
fn skip_ordinal(letters: &[char], at: usize) -> usize {
    let ending: String = letters.iter().skip(at).take(2).flat_map(|c| c.to_lowercase()).collect();
    let ends = letters.get(at + 2).is_none_or(|c| !c.is_alphanumeric());
    if ends && matches!(ending.as_str(), "st" | "nd" | "rd" | "th") { at + 2 } else { at }
}

/// Takes out phrases that hold a negation and mean none.
fn cut_idioms(words: &mut Vec<String>, kinds: &mut Vec<Kinds>, tables: &Tables) {
    let mut at = 0;
    while at < words.len() {
        if !kinds[at].any(Kinds::IDIOM) {
            at += 1;
            continue;
        }
        let here = &words[at..];
        let begun = tables.idioms.get(here[0].as_str()).map_or(&[][..], Vec::as_slice);
        let idiom = begun.iter().find(|idiom| {
            here.len() >= idiom.len() && here.iter().zip(*idiom).all(|(a, b)| a == b)
        });
        match idiom {
            Some(idiom) => {
                let cut = at..at + idiom.len();
                kinds.drain(cut.clone());
                words.drain(cut);
            }
            None => at += 1,
        }
    }
}

/// "Keep the dog from barking" says what "prevent" does.
fn join_keep_from(words: &mut [String], exchange: &mut impl FnMut(usize, &mut [String], &str)) {
    /// Words between the two at most, and the two.
    const SPAN: usize = 7;
    for at in 0..words.len() {
        let is_keep = matches!(&*words[at], "keep" | "keeps" | "keeping" | "kept");
        let within = &words[at..words.len().min(at + SPAN)];
        if is_keep && within.iter().any(|word| word == "from") {
            exchange(at, words, "prevent");
        }
    }
}

/// "Fail to pay" says what "not pay" does.
fn join_fail_to(words: &mut [String], exchange: &mut impl FnMut(usize, &mut [String], &str)) {
    for at in 1..words.len() {
        let is_fail = matches!(
            &*words[at - 1],
            "fail"
                | "fails"
                | "failed"
                | "failing"
                | "neglect"
                | "neglects"
                | "neglected"
                | "neglecting"
        );
        if is_fail && words[at] == "to" {
            exchange(at - 1, words, "not");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_question() {
        let (all, names) =
            split("Can't I fly to New York by 1,250.50 EUR? I'm Jo\u{2019}s 3rd self-made cat.");
        assert_eq!(
            all,
            [
                "can't",
                "i",
                "fly",
                "to",
                "new",
                "york",
                "by",
                "1250.50",
                "eur",
                "i'm",
                "jo",
                "3",
                "self-made",
                "cat"
            ]
        );
        assert_eq!(names, ["new", "york", "eur", "jo"]);
        assert_eq!(split("1,25 2.x 3,000,000").0, ["1", "25", "2", "x", "3000000"]);
        assert_eq!(split("").0, Vec::<String>::new());
    }

    #[test]
    fn idioms_are_cut_the_longest_first() {
        let (mut words, _) = split("tell me whether or not it is not open or not");
        let tables = super::super::tables::tables();
        let mut kinds = words.iter().map(|word| tables.kinds_of(word)).collect();
        cut_idioms(&mut words, &mut kinds, tables);
        assert_eq!(kinds.len(), words.len());
        assert_eq!(words, ["tell", "me", "it", "is", "not", "open"]);
    }
}
