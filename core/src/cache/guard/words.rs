//! The words of a question and what two questions' words say of each other.
//!
//! Owns: where words begin and end (letters and digits of any script; an apostrophe or a hyphen between
//! letters joins), what is negated, what is the opposite of what, what an order leads to.

use super::numbers::{digit, numbers_of};
use super::tables::Tables;
use hashbrown::HashSet;

/// Shortest word that a prefix turns into another: "in" and "into" are no pair.
const STEM_MIN_BYTES: usize = 4;

/// A question in words.
#[derive(Debug)]
pub(super) struct Words {
    all: Vec<String>,
    pub(super) numbers: Vec<String>,
    /// Words written with a capital inside a sentence, sorted, each once.
    pub(super) names: Vec<String>,
    negations: usize,
    /// Whether "one" stands in it, which is a number in "one minute" and none in "a new one".
    has_one: bool,
}

impl Words {
    pub(super) fn new(text: &str, tables: &Tables) -> Self {
        let (mut all, mut names) = split(text);
        names.sort_unstable();
        names.dedup();
        cut_idioms(&mut all, tables);
        let numbers = numbers_of(&all, tables);
        let negates =
            |word: &&String| tables.negations.contains(word.as_str()) || word.ends_with("n't");
        let negations = all.iter().filter(negates).count();
        let has_one = all.iter().any(|word| word == "one");
        Self { all, numbers, names, negations, has_one }
    }

    /// Whether both speak of the same numbers, dates and days. "One" counts where the other has a 1.
    pub(super) fn has_numbers_of(&self, other: &Self) -> bool {
        let (mine, theirs) = (&self.numbers, &other.numbers);
        let besides_one = |numbers: &'_ [String]| -> Vec<String> {
            numbers.iter().filter(|number| *number != "1").cloned().collect()
        };
        let speaks_of_one = |words: &Self| words.has_one || words.numbers.iter().any(|n| n == "1");
        mine == theirs
            || (speaks_of_one(self)
                && speaks_of_one(other)
                && besides_one(mine) == besides_one(theirs))
    }

    fn set(&self) -> HashSet<&str> {
        self.all.iter().map(String::as_str).collect()
    }

    /// Whether one question is negated and the other is not, or one has the opposite of a word of the
    /// other. Two turns in one question turn it back.
    pub(super) fn says_the_opposite(&self, other: &Self, tables: &Tables) -> bool {
        let (mine, theirs) = (self.set(), other.set());
        let one_is_negated = self.negations % 2 != other.negations % 2;
        let negated = one_is_negated && are_about_the_same(&mine, &theirs, tables);
        let only_mine: Vec<&str> = mine.difference(&theirs).copied().collect();
        let only_theirs: Vec<&str> = theirs.difference(&mine).copied().collect();
        let turned = only_mine
            .iter()
            .flat_map(|a| only_theirs.iter().map(move |b| (*a, *b)))
            .filter(|&(a, b)| tables.opposites.contains(&(a, b)) || differ_by_prefix(a, b, tables))
            .count();
        (negated || turned > 0) && !(one_is_negated && turned % 2 == 1)
    }

    /// Whether what this question leads to stands elsewhere in the other, and the other way round:
    /// "from Rome to Paris", "from Paris to Rome".
    pub(super) fn is_reordered(&self, other: &Self, tables: &Tables) -> bool {
        let (mine, theirs) = (self.aims(tables), other.aims(tables));
        let moved = |aims: &HashSet<&str>, kept: &HashSet<&str>, there: &Self| {
            aims.difference(kept)
                .any(|aim| !tables.common.contains(aim) && there.all.iter().any(|word| word == aim))
        };
        moved(&mine, &theirs, other) && moved(&theirs, &mine, self)
    }

    /// The first word after each word of direction, articles passed over.
    fn aims(&self, tables: &Tables) -> HashSet<&str> {
        let places = self.all.iter().enumerate();
        places
            .filter(|(_, word)| tables.directions.contains(word.as_str()))
            .filter_map(|(at, _)| {
                let mut after = self.all[at + 1..].iter().map(String::as_str);
                after.find(|word| !tables.articles.contains(word))
            })
            .collect()
    }
}

/// Whether most of the words that say something are the same: only then is a negation in the one a
/// negation of the other.
fn are_about_the_same(mine: &HashSet<&str>, theirs: &HashSet<&str>, tables: &Tables) -> bool {
    let tells = |word: &&&str| {
        !tables.common.contains(**word)
            && !tables.negations.contains(**word)
            && !word.ends_with("n't")
    };
    let shared = mine.intersection(theirs).filter(tells).count();
    let union = mine.union(theirs).filter(tells).count();
    // Two of five: questions in other words share about that.
    5 * shared >= 2 * union
}

fn differ_by_prefix(a: &str, b: &str, tables: &Tables) -> bool {
    let (stem, longer) = if a.len() < b.len() { (a, b) } else { (b, a) };
    // One that negates by itself is counted as that: "not able", "unable".
    !tables.negations.contains(longer)
        && stem.len() >= STEM_MIN_BYTES
        && longer.strip_suffix(stem).is_some_and(|prefix| tables.prefixes.contains(&prefix))
}

/// The words in lower case, and those that begin with a capital other than at the start of a sentence.
fn split(text: &str) -> (Vec<String>, Vec<String>) {
    let letters: Vec<char> = text.chars().map(|c| if c == '\u{2019}' { '\'' } else { c }).collect();
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
            let word: String = letters[at..end].iter().flat_map(|c| c.to_lowercase()).collect();
            let word = word.strip_suffix("'s").map(str::to_owned).unwrap_or(word);
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
fn cut_idioms(words: &mut Vec<String>, tables: &Tables) {
    let mut at = 0;
    while at < words.len() {
        let here = &words[at..];
        let idiom = tables.idioms.iter().find(|idiom| {
            here.len() >= idiom.len() && here.iter().zip(*idiom).all(|(a, b)| a == b)
        });
        match idiom {
            Some(idiom) => drop(words.drain(at..at + idiom.len())),
            None => at += 1,
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
        cut_idioms(&mut words, super::super::tables::tables());
        assert_eq!(words, ["tell", "me", "it", "is", "not", "open"]);
    }
}
