//! Decides whether two questions say the opposite of each other.
//!
//! Owns: negations and opposites, and how they add up. A word that negates and takes part in a pair of
//! opposites ("with", "without") counts once, as an opposite: counted as a negation too it would cancel
//! itself. Linear in the words of both questions. Any thread.

use super::tables::{Kinds, Tables, stem};
use super::words::{Compared, Words};
use hashbrown::{HashMap, HashSet};
use std::borrow::Cow;

/// Shortest word that a prefix turns into another: "in" and "into" are no pair.
const STEM_MIN_BYTES: usize = 4;

/// The word of each question that turns it against the other; empty where that question has none.
pub(super) type Turn<'a> = (&'a str, &'a str);

/// What makes one question say the opposite of the other. Two turns turn back: "is it not allowed" asks
/// what "is it forbidden" does.
pub(super) fn opposite<'a>(
    asked: &'a Words,
    stored: &'a Words,
    compared: &Compared<'a>,
    tables: &Tables,
) -> Option<Turn<'a>> {
    let mut pairs = opposites_between(compared, tables);
    pairs.retain(|pair| is_turn(asked, stored, *pair, tables));
    let paired = |word: &str| pairs.iter().any(|(a, b)| *a == word || *b == word);
    let negations = |words: &'a Words| {
        let all = words.all.iter().map(String::as_str).zip(&words.kinds);
        let negated = all.filter(|(word, kinds)| kinds.any(Kinds::NEGATION) && !paired(word));
        negated.map(|(word, _)| word).collect::<Vec<_>>()
    };
    let (in_asked, in_stored) = (negations(asked), negations(stored));
    let one_is_negated = in_asked.len() % 2 != in_stored.len() % 2;
    if one_is_negated && pairs.len() % 2 == 1 {
        return None;
    }
    if let Some(pair) = pairs.first() {
        return Some(*pair);
    }
    let undoes = |words: &[&str]| words.iter().any(|word| tables.undoing.contains(word));
    let is_undone = if in_asked.is_empty() {
        undoes(&compared.only_asked)
    } else {
        undoes(&compared.only_stored)
    };
    let negated = one_is_negated && !is_undone && compared.are_about_the_same(tables);
    negated.then(|| odd_one(&in_asked, &in_stored))
}

/// Whether two opposite words turn the questions against each other where they stand.
fn is_turn(asked: &Words, stored: &Words, (mine, theirs): Turn<'_>, tables: &Tables) -> bool {
    let stems = (stem(mine), stem(theirs));
    let has = |words: &Words, wanted: &str| words.all.iter().any(|word| stem(word) == wanted);
    // "Is it safe or is it dangerous" says neither.
    let one_names_both = has(asked, &stems.1) || has(stored, &stems.0);
    let are_measures = tables.scales.contains(mine) && always_follows(asked, mine, "how")
        || tables.scales.contains(theirs) && always_follows(stored, theirs, "how");
    let are_particles = tables.particles.contains(mine) && tables.particles.contains(theirs);
    let stand_apart =
        are_particles && !stand_beside_the_same(asked, stored, (mine, theirs), tables);
    let (for_me, for_them) = (is_done_for_us(asked, mine), is_done_for_us(stored, theirs));
    let is_one_deed = for_me != for_them && tables.are_converse(&stems.0, &stems.1);
    !(one_names_both || are_measures || stand_apart || is_one_deed)
}

/// Whether a word stands behind this one wherever it stands.
fn always_follows(words: &Words, word: &str, before: &str) -> bool {
    let mut places = (0..words.all.len()).filter(|&at| words.all[at] == word);
    places.all(|at| at > 0 && words.all[at - 1] == before)
}

/// "Teach me", "lend us".
fn is_done_for_us(words: &Words, verb: &str) -> bool {
    words.all.windows(2).any(|pair| pair[0] == verb && matches!(&*pair[1], "me" | "us"))
}

/// Whether two words have a neighbour in common, articles passed over: "turn the light on", "switch off the light".
fn stand_beside_the_same(asked: &Words, stored: &Words, pair: Turn<'_>, tables: &Tables) -> bool {
    let neighbours = |words: &Words, word: &str| -> HashSet<String> {
        let told: Vec<&str> = words.all.iter().map(String::as_str).collect();
        let told: Vec<&str> = told.into_iter().filter(|w| !tables.articles.contains(w)).collect();
        let is_it = |&at: &usize| told[at] == word;
        let places = (0..told.len()).filter(is_it).flat_map(|at| [at.checked_sub(1), Some(at + 1)]);
        let beside = places.flatten().filter_map(|at| told.get(at));
        beside.map(|word| stem(tables.same.get(word).unwrap_or(word)).into_owned()).collect()
    };
    let (mine, theirs) = (neighbours(asked, pair.0), neighbours(stored, pair.1));
    mine.intersection(&theirs).next().is_some()
}

/// The negation that one question has and the other lacks; it stands in the question that has it.
fn odd_one<'a>(asked: &[&'a str], stored: &[&'a str]) -> Turn<'a> {
    let lacking = |mine: &[&'a str], theirs: &[&'a str]| {
        mine.iter().copied().find(|word| !theirs.contains(word)).or(mine.last().copied())
    };
    if asked.len() > stored.len() {
        (lacking(asked, stored).unwrap_or(""), "")
    } else {
        ("", lacking(stored, asked).unwrap_or(""))
    }
}

/// Each word of the question asked that has an opposite among the words of the other, with that.
fn opposites_between<'a>(compared: &Compared<'a>, tables: &Tables) -> Vec<Turn<'a>> {
    let stems: Vec<(&str, Cow<'_, str>)> = with_stems(&compared.only_stored);
    let by_word: HashSet<&str> = compared.only_stored.iter().copied().collect();
    let by_stem: HashMap<&str, &'a str> = stems.iter().map(|(w, s)| (s.as_ref(), *w)).collect();
    // What a word of the other question is without a prefix.
    let mut shortened: HashMap<&str, &'a str> = HashMap::new();
    for (word, stem) in &stems {
        for short in [*word, stem.as_ref()].into_iter().flat_map(|w| without_prefix(w, tables)) {
            if !tables.negates(word) {
                shortened.entry(short).or_insert(word);
            }
        }
    }
    let compounds: HashMap<String, &'a str> = compared
        .only_stored
        .iter()
        .filter_map(|word| Some((parts(word)?.join("-"), *word)))
        .collect();
    // "short-term" has the opposite that "short" has.
    let of_compound = |word: &str| -> Option<&'a str> {
        let parts = parts(word).filter(|_| !compounds.is_empty())?;
        let opposite = |at: usize, opposite: &str| {
            let mut turned: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
            turned[at] = opposite;
            compounds.get(&turned.join("-")).copied()
        };
        let of_part = |(at, part): (usize, &Cow<'_, str>)| {
            tables.opposites(part).iter().find_map(|other| opposite(at, other))
        };
        parts.iter().enumerate().find_map(of_part)
    };
    let of_word = |word: &'a str| -> Option<&'a str> {
        let stem = stem(word);
        let named = tables.opposites(&stem).iter().find_map(|opposite| by_stem.get(&**opposite));
        let negates = tables.negates(word);
        let prefixed = || {
            let shorter =
                without_prefix(word, tables).find_map(|short| by_word.get(short).copied());
            let by_stem = || without_prefix(&stem, tables).find_map(|s| by_stem.get(s).copied());
            shorter.or_else(by_stem).filter(|_| !negates)
        };
        let longer = || shortened.get(word).or_else(|| shortened.get(stem.as_ref())).copied();
        named.copied().or_else(prefixed).or_else(longer).or_else(|| of_compound(word))
    };
    compared.only_asked.iter().filter_map(|word| Some((*word, of_word(word)?))).collect()
}

fn with_stems<'a>(words: &[&'a str]) -> Vec<(&'a str, Cow<'a, str>)> {
    words.iter().map(|word| (*word, stem(word))).collect()
}

/// The parts that a hyphen joins, by stem; `None` where there are none, or more than a word of the language has.
fn parts(word: &str) -> Option<Vec<Cow<'_, str>>> {
    const MOST: usize = 4;
    if !word.as_bytes().contains(&b'-') {
        return None;
    }
    let parts: Vec<_> = word.split('-').take(MOST + 1).map(stem).collect();
    (2..=MOST).contains(&parts.len()).then_some(parts)
}

/// The rest of a word behind each prefix that makes another word of it. A word that negates by itself
/// is counted as that: "not able", "unable".
fn without_prefix<'w>(word: &'w str, tables: &Tables) -> impl Iterator<Item = &'w str> {
    let prefixes = if tables.may_have_prefix(word) { &tables.prefixes[..] } else { &[] };
    let rests = prefixes.iter().filter_map(move |prefix| word.strip_prefix(prefix));
    rests.filter(|rest| rest.len() >= STEM_MIN_BYTES)
}
