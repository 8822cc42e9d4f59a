//! What two questions differ by besides opposites: numbers, the order of things, names, one word.
//!
//! Owns: those four rules. Each names the word of either question that it goes by. Any thread.

use super::NumberRule;
use super::tables::{Tables, stem};
use super::words::{Compared, Words};
use hashbrown::HashSet;

/// What this question leads to where the other leads elsewhere, and the other way round: "from Rome to
/// Paris", "from Paris to Rome".
pub(super) fn reordered<'a>(
    asked: &'a Words,
    stored: &'a Words,
    tables: &Tables,
) -> Option<(&'a str, &'a str)> {
    let (mine, theirs) = (aims(asked, tables), aims(stored, tables));
    let moved = |aims: &[&'a str], kept: &[&'a str], there: &Words| {
        let kept: HashSet<_> = kept.iter().map(|aim| stem(aim)).collect();
        let there: HashSet<_> = there.all.iter().map(|word| stem(word)).collect();
        let gone = aims.iter().filter(|aim| !kept.contains(&stem(aim)));
        gone.copied().find(|aim| !tables.common.contains(aim) && there.contains(&stem(aim)))
    };
    Some((moved(&mine, &theirs, stored)?, moved(&theirs, &mine, asked)?))
}

/// The first word after each word of direction, articles passed over; none after a relation that holds
/// both ways.
fn aims<'a>(words: &'a Words, tables: &Tables) -> Vec<&'a str> {
    let all = &words.all;
    let leads = |&at: &usize| {
        let symmetric = at > 0 && tables.symmetric.contains(all[at - 1].as_str());
        tables.directions.contains(all[at].as_str()) && !symmetric
    };
    let after = |at: usize| {
        let mut after = all[at + 1..].iter().map(String::as_str);
        after.find(|word| !tables.articles.contains(word))
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
/// where they disagree by the rule. "One" counts where the other has a 1.
pub(super) fn numbers_disagree<'a>(
    asked: &'a Words,
    stored: &'a Words,
    rule: NumberRule,
) -> Option<(&'a str, &'a str)> {
    let speaks_of_one = |words: &Words| words.has_one || words.numbers.iter().any(|n| n == "1");
    let one_counts = !(speaks_of_one(asked) && speaks_of_one(stored));
    let lacking = |mine: &'a [String], theirs: &'a [String]| {
        let mine = mine.iter().filter(|number| one_counts || *number != "1");
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
