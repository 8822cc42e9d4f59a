//! Finds the differences between two questions other than opposites: numbers, order, names, one exchanged word.
//!
//! Owns: those four rules. Each names the word of either question that it goes by. Any thread.

use super::NumberRule;
use super::tables::{Kinds, Tables, stem};
use super::words::{Compared, Words};
use hashbrown::{HashMap, HashSet};
use std::borrow::Cow;

/// Aims of a question that are compared with those of the other.
const AIMS_MAX: usize = 16;

/// What this question leads to where the other leads elsewhere, and the other way round: "from Rome to
/// Paris", "from Paris to Rome".
pub(super) fn reordered<'a>(
    asked: &'a Words,
    stored: &'a Words,
    tables: &Tables,
) -> Option<(&'a str, &'a str)> {
    let (mine, theirs) = (aims(asked, tables), aims(stored, tables));
    if mine.is_empty() || theirs.is_empty() {
        return None;
    }
    let (in_asked, in_stored) = (Places::of(asked), Places::of(stored));
    let moved = |aims: &[Aim<'a>], kept: &[Aim<'a>], there: &Places<'_>| {
        let kept: HashSet<_> = kept.iter().map(|aim| stem(aim.word)).collect();
        let gone = aims.iter().filter(|aim| !kept.contains(&stem(aim.word)));
        let gone = gone.filter(|aim| !tables.common.contains(aim.word) && there.have(aim));
        gone.copied().take(AIMS_MAX).collect::<Vec<_>>()
    };
    let (mine, theirs) = (moved(&mine, &theirs, &in_stored), moved(&theirs, &mine, &in_asked));
    let pairs = mine.iter().flat_map(|one| theirs.iter().map(move |other| (one, other)));
    let mut swapped = pairs
        .filter(|(one, other)| in_asked.lead(other.word, one) && in_stored.lead(one.word, other));
    swapped.next().map(|(one, other)| (one.word, other.word))
}

/// The names that do the deed where each question has the other's: "did France invade Spain", "did Spain invade France".
pub(super) fn swapped_subjects<'a>(
    asked: &'a Words,
    stored: &'a Words,
    tables: &Tables,
) -> Option<(&'a str, &'a str)> {
    let (mine, theirs) = (subject(asked, tables)?, subject(stored, tables)?);
    let has_behind = |words: &Words, name: &str| words.all[2..].iter().any(|word| word == name);
    let differs = mine != theirs && asked.all[0] == stored.all[0];
    (differs && has_behind(asked, theirs) && has_behind(stored, mine)).then_some((mine, theirs))
}

/// The name behind "did", "does" or "do" at the beginning, where what it does is not done mutually.
fn subject<'a>(words: &'a Words, tables: &Tables) -> Option<&'a str> {
    let [auxiliary, name, rest @ ..] = &words.all[..] else { return None };
    let asks = matches!(&**auxiliary, "did" | "does" | "do");
    let is_name = words.names.binary_search(name).is_ok();
    let joins = |word: &String| matches!(&**word, "and" | "or" | "with" | "between" | "each");
    let is_mutual = |word: &String| tables.mutual.contains(&*stem(word));
    let holds_both_ways = || rest.iter().any(|word| joins(word) || is_mutual(word));
    (asks && is_name && !holds_both_ways()).then_some(name)
}

/// Where a word of direction leads.
#[derive(Debug, Clone, Copy)]
struct Aim<'a> {
    word: &'a str,
    at: usize,
    /// Whether the direction is one from a thing to another, and not an order in time or of size. "To" also stands
    /// before verbs, which lead nowhere.
    is_of_place: bool,
}

/// Where the words of a question stand, by stem.
struct Places<'a> {
    first: HashMap<Cow<'a, str>, usize>,
    behind_from: HashSet<Cow<'a, str>>,
    words: HashSet<&'a str>,
    /// The stems of words that do not have the form of a verb.
    things: HashSet<Cow<'a, str>>,
}

impl<'a> Places<'a> {
    fn of(words: &'a Words) -> Self {
        let all = || words.all.iter().map(String::as_str);
        let mut first = HashMap::new();
        for (at, word) in all().enumerate() {
            first.entry(stem(word)).or_insert(at);
        }
        let behind_from = words.all.windows(2).filter(|pair| pair[0] == "from");
        Self {
            first,
            behind_from: behind_from.map(|pair| stem(&pair[1])).collect(),
            words: all().collect(),
            things: all().filter(|word| !is_verb(word)).map(stem).collect(),
        }
    }

    /// Whether an aim of the other question stands here too. A word that stands here as "travelling" is a verb there.
    fn have(&self, aim: &Aim<'_>) -> bool {
        let stem = stem(aim.word);
        match aim.is_of_place {
            true => {
                self.words.contains(aim.word) || !is_verb(aim.word) && self.things.contains(&stem)
            }
            false => self.first.contains_key(&stem),
        }
    }

    /// Whether a word can be where an aim of this question is reached from: it stands before, or behind "from".
    fn lead(&self, start: &str, aim: &Aim<'_>) -> bool {
        let start = stem(start);
        let stands_before = || self.first.get(&start).is_some_and(|&at| at < aim.at);
        !aim.is_of_place || stands_before() || self.behind_from.contains(&start)
    }
}

/// Whether a word has the form of a verb that no verb has behind "to".
fn is_verb(word: &str) -> bool {
    word.ends_with("ing") || word.ends_with("ed")
}

/// The first word after each word of direction, articles passed over; none after a relation that holds
/// both ways.
fn aims<'a>(words: &'a Words, tables: &Tables) -> Vec<Aim<'a>> {
    let all = &words.all;
    let is_of = |at: usize, kind| words.kinds[at].any(kind);
    let joins = (0..all.len()).position(|at| is_of(at, Kinds::JOINING));
    let leads = |&at: &usize| {
        let symmetric = || at > 0 && tables.symmetric.contains(all[at - 1].as_str());
        let joined = joins.is_some_and(|verb| verb < at);
        is_of(at, Kinds::DIRECTION) && !joined && !symmetric()
    };
    let after = |at: usize| {
        let is_of_place = matches!(&*all[at], "to" | "into" | "onto");
        let mut after = (at + 1..all.len()).filter(|&at| !is_of(at, Kinds::ARTICLE));
        after.next().map(|at| Aim { word: &all[at], at, is_of_place })
    };
    (0..all.len()).filter(leads).filter_map(after).collect()
}

/// A name of each question that the other does not have, in any letter case.
pub(super) fn swapped_names<'a>(
    asked: &'a Words,
    stored: &'a Words,
    compared: &Compared<'a>,
) -> Option<(&'a str, &'a str)> {
    let lacking = |names: &'a [String], other: &HashSet<&str>| {
        names.iter().map(String::as_str).find(|name| !other.contains(name))
    };
    Some((lacking(&asked.names, &compared.stored)?, lacking(&stored.names, &compared.asked)?))
}

/// The two words, where the questions have the same words that say something but for one in each.
pub(super) fn exchanged<'a>(
    compared: &Compared<'a>,
    tables: &Tables,
) -> Option<(&'a str, &'a str)> {
    let canonical =
        |word: &&'a str| stem(tables.same.get(*word).copied().unwrap_or(word)).into_owned();
    let left = |words: &[&'a str]| {
        let told = words.iter().filter(|word| tables.is_content(word));
        told.map(|word| (*word, canonical(word))).collect::<Vec<_>>()
    };
    let (mine, theirs) = (left(&compared.only_asked), left(&compared.only_stored));
    let alone = |mine: &[(&'a str, String)], theirs: &[(&'a str, String)]| {
        let stems: HashSet<&str> = theirs.iter().map(|(_, stem)| stem.as_str()).collect();
        let mut alone = mine.iter().filter(|(_, stem)| !stems.contains(stem.as_str()));
        alone.next().filter(|_| alone.next().is_none()).map(|(word, _)| *word)
    };
    let pair = (alone(&mine, &theirs)?, alone(&theirs, &mine)?);
    // Where they share none of these words, nothing else may differ: "who wrote it", "who is the author".
    let shares = compared.asked.intersection(&compared.stored).any(|word| tables.is_content(word));
    let nothing_else = (compared.only_asked.len(), compared.only_stored.len()) == (1, 1);
    (shares || nothing_else).then_some(pair)
}

/// A number, date or day of each question that the other lacks, empty for a question that lacks none,
/// where they disagree by the rule. "One" counts where the other has a 1, "today" where the other says another time.
pub(super) fn numbers_disagree<'a>(
    asked: &'a Words,
    stored: &'a Words,
    rule: NumberRule,
    tables: &Tables,
) -> Option<(&'a str, &'a str)> {
    let speaks_of_one = |words: &Words| words.has_one || words.numbers.iter().any(|n| n == "1");
    let one_counts = !(speaks_of_one(asked) && speaks_of_one(stored));
    let names_a_time = |n: &String| !n.starts_with(|first: char| first.is_ascii_digit());
    let lacking = |mine: &'a [String], theirs: &'a [String]| {
        let now_counts = theirs.iter().any(names_a_time);
        let mine = mine.iter().filter(|number| one_counts || *number != "1");
        let mine = mine.filter(|number| now_counts || !tables.now.contains(number.as_str()));
        mine.map(String::as_str).find(|number| !theirs.iter().any(|other| other == number))
    };
    let words =
        (lacking(&asked.numbers, &stored.numbers), lacking(&stored.numbers, &asked.numbers));
    let disagree = match rule {
        NumberRule::Equal => words.0.is_some() || words.1.is_some(),
        NumberRule::Conflict => words.0.is_some() && words.1.is_some(),
    };
    disagree.then(|| (words.0.unwrap_or(""), words.1.unwrap_or("")))
}
