//! Decides whether a message can be understood without the conversation before it.
//!
//! Owns: that rule (`UNLESS-ALONE`). It is declared for English and built of closed classes of grammar (`grammar.txt`):
//! what points back, what is left out, what compares with something unsaid. In other languages no message counts
//! as standing alone, so that its answer stays with its context. Any thread.

use super::grammar::{Grammar, grammar};
use super::language::Language;
use super::tables::{Tables, tables};
use super::words::{Words, split};
use crate::limits::GUARDED_MAX_BYTES;
use hashbrown::HashSet;

/// Fewest words that say something in a message that stands alone.
const CONTENT_WORDS_MIN: usize = 3;
/// Most words of a sentence that only reacts to what was said ("Interesting."), or asks for more of it ("Why?").
const REACTION_WORDS_MAX: usize = 2;

/// Why a message needs the conversation before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is too long, no text, or not in English.
    Unjudged,
    /// It has too few words that say something.
    Little,
    /// It begins as what goes on from something does: "but", "what about", "Interesting.".
    Continues,
    /// A word of it points back: "it", "others", "else".
    Points,
    /// Something is left out: "Why?", "How much?", "can I?", "with cheese", "some examples".
    Ellipsis,
    /// It compares with something unsaid: "is there a cheaper flight".
    Compares,
    /// "The band": it was said which.
    Definite,
}

/// Whether the message stands alone: it points to nothing said earlier, does not go on from it, leaves
/// nothing out, and has enough words that say something.
pub fn stands_alone(message: &[u8]) -> bool {
    need(message).is_none()
}

fn need(message: &[u8]) -> Option<Need> {
    let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= GUARDED_MAX_BYTES);
    let Some(text) = text else { return Some(Need::Unjudged) };
    let (tables, grammar) = (tables(), grammar());
    let words = Words::new(text, tables);
    if words.language != Language::English {
        return Some(Need::Unjudged);
    }
    let sentences = sentences(text, grammar);
    let said: Vec<Vec<&str>> = sentences.iter().map(Sentence::words).collect();
    let by_sentence = |holds: fn(&[&str], &Grammar, &Tables) -> bool| {
        said.iter().any(|sentence| holds(sentence, grammar, tables))
    };
    let clauses = || sentences.iter().flat_map(|sentence| &sentence.clauses);
    let cases = [
        (Need::Continues, continues(&words, &said, grammar, tables)),
        (Need::Points, by_sentence(points_back)),
        (Need::Little, telling(&words, grammar, tables) < CONTENT_WORDS_MIN),
        (Need::Continues, clauses().any(|clause| suggests(clause))),
        (Need::Ellipsis, by_sentence(leaves_out) || is_fragment(&sentences, grammar, tables)),
        (Need::Ellipsis, words.names.is_empty() && by_sentence(leaves_out_of_what)),
        (Need::Compares, by_sentence(compares)),
        (
            Need::Definite,
            clauses().any(|clause| has_bare_definite(clause, &words.names, grammar, tables)),
        ),
    ];
    cases.into_iter().find(|(_, holds)| *holds).map(|(need, _)| need)
}

/// A sentence in clauses: what stands between commas, colons and brackets.
struct Sentence {
    clauses: Vec<Vec<String>>,
}

impl Sentence {
    fn words(&self) -> Vec<&str> {
        self.clauses.iter().flatten().map(String::as_str).collect()
    }
}

/// The sentences that have words, without the phrases that mean no more than themselves.
fn sentences(text: &str, grammar: &Grammar) -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for sentence in parts(text, &['.', '?', '!', ';', '\n']) {
        let mut clauses = Vec::new();
        for clause in parts(sentence, &[',', ':', '(', ')']) {
            let (mut words, _) = split(clause);
            cut_fixed(&mut words, grammar);
            if !words.is_empty() {
                clauses.push(words);
            }
        }
        if !clauses.is_empty() {
            sentences.push(Sentence { clauses });
        }
    }
    sentences
}

/// What stands between marks. A mark before a letter or a digit is within a word or a number, but for a bracket.
fn parts<'t>(text: &'t str, marks: &[char]) -> Vec<&'t str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, mark) in text.char_indices().filter(|(_, letter)| marks.contains(letter)) {
        let next = at + mark.len_utf8();
        let is_joined = text[next..].starts_with(char::is_alphanumeric);
        if matches!(mark, '(' | ')' | '\n') || !is_joined {
            parts.push(&text[start..at]);
            start = next;
        }
    }
    parts.push(&text[start..]);
    parts
}

fn cut_fixed(words: &mut Vec<String>, grammar: &Grammar) {
    let mut at = 0;
    while at < words.len() {
        let here = &words[at..];
        let is_here = |phrase: &&Vec<&str>| {
            here.len() >= phrase.len()
                && here.iter().zip(*phrase).all(|(word, other)| word == other)
        };
        match grammar.fixed.iter().find(is_here) {
            Some(phrase) => drop(words.drain(at..at + phrase.len())),
            None => at += 1,
        }
    }
}

/// How many words help to say what a message is about, each once. Numbers, "anything", "several" do not, nor does the
/// word that "how" asks for: "how long", "how secure".
fn telling(words: &Words, grammar: &Grammar, tables: &Tables) -> usize {
    let all = &words.all;
    let tells = |at: &usize| {
        let word = all[*at].as_str();
        let counts = word.starts_with(|first: char| first.is_ascii_digit())
            || tables.numbers.contains_key(word)
            || grammar.determiners.contains(word)
            || grammar.indefinite.contains(word);
        let is_degree = *at > 0 && all[*at - 1] == "how";
        tables.is_content(word) && !counts && !is_degree
    };
    let telling: HashSet<&str> = (0..all.len()).filter(tells).map(|at| all[at].as_str()).collect();
    telling.len()
}

/// A word without what an apostrophe joins to it: "it's", "that'll".
fn base(word: &str) -> &str {
    word.split('\'').next().unwrap_or(word)
}

/// Whether a message begins as an answer or an addition does, or with a sentence that only reacts.
fn continues(words: &Words, said: &[Vec<&str>], grammar: &Grammar, tables: &Tables) -> bool {
    let first = words.all.first();
    let reacts = |sentence: &Vec<&str>| {
        sentence.len() <= REACTION_WORDS_MAX
            && !sentence.iter().any(|word| grammar.greetings.contains(word))
    };
    first.is_some_and(|word| tables.continuing.contains(word.as_str()))
        || said.len() > 1 && said.first().is_some_and(reacts)
}

/// "What about Rome", "how about a red one".
fn suggests(clause: &[String]) -> bool {
    matches!(clause, [first, second, ..] if matches!(&**first, "what" | "how") && second == "about")
}

fn points_back(sentence: &[&str], grammar: &Grammar, tables: &Tables) -> bool {
    let last_to = sentence.iter().rposition(|word| *word == "to");
    (0..sentence.len()).any(|at| {
        let word = base(sentence[at]);
        let before = at.checked_sub(1).and_then(|before| sentence.get(before)).copied();
        let after = sentence.get(at + 1).copied();
        match word {
            "there" if is_be(before) || is_be(after) => false,
            "it" if last_to > Some(at) && points_forwards(before, &sentence[at + 1..], grammar) => {
                false
            }
            "such" => !matches!(after, Some("as" | "a" | "an")),
            // "Make sure", "I am not sure": an answer only where a message begins so.
            "sure" => false,
            "last" => before == Some("the") && !counts_time(&sentence[at + 1..], grammar, tables),
            "similar" => last_to.is_none(),
            _ => tables.referring.contains(word) || grammar.anaphoric.contains(word),
        }
    })
}

fn is_be(word: Option<&str>) -> bool {
    matches!(word, Some("is" | "are" | "was" | "were" | "be" | "been" | "isn't" | "aren't"))
}

/// "How long does it take to …", "is it safe to …", of a sentence with "to": the word fills the place of what comes later.
fn points_forwards(before: Option<&str>, after: &[&str], grammar: &Grammar) -> bool {
    match after {
        ["take" | "takes" | "cost" | "costs", ..] => true,
        [adjective, "to", ..] => is_be(before) && grammar.extraposing.contains(adjective),
        _ => false,
    }
}

/// "Week", "few weeks", "4 months", "Monday".
fn counts_time(words: &[&str], grammar: &Grammar, tables: &Tables) -> bool {
    let is_count = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_digit())
            || tables.numbers.contains_key(word)
            || grammar.determiners.contains(word)
    };
    let counted = words.iter().find(|word| !is_count(word));
    counted.is_some_and(|word| {
        grammar.spans.contains(word)
            || tables.days.contains(word)
            || tables.months.contains_key(word)
    })
}

/// Whether a sentence ends where something has to follow, or is no more than a question word.
fn leaves_out(sentence: &[&str], grammar: &Grammar, _: &Tables) -> bool {
    let is_bare_question = sentence.len() <= REACTION_WORDS_MAX
        && sentence.first().is_some_and(|word| grammar.questions.contains(word));
    let ends = match *sentence {
        [.., verb, "i" | "you" | "we"] => {
            grammar.modals.contains(verb) || matches!(verb, "do" | "does" | "did")
        }
        // The month, not the verb.
        [.., before, "may"] if grammar.prepositions.contains(before) => false,
        [.., last] => grammar.modals.contains(last) || grammar.determiners.contains(last),
        [] => false,
    };
    is_bare_question || ends
}

/// "What are some examples?": a noun that means something only with another, which nothing after it says. A name or what
/// is the speaker's own can stand for it.
fn leaves_out_of_what(sentence: &[&str], grammar: &Grammar, _: &Tables) -> bool {
    let noun = sentence.iter().position(|word| grammar.relational.contains(*word));
    let Some(noun) = noun else { return false };
    let is_own = sentence.iter().any(|word| matches!(*word, "my" | "our"));
    let tells = |word: &&str| is_link(word, grammar) || matches!(*word, "i" | "you" | "we");
    !is_own && !sentence[noun + 1..].iter().any(tells)
}

/// "With cheese", "from Rome to Oslo, please": one clause that says something, which begins with a preposition and asks
/// and states nothing.
fn is_fragment(sentences: &[Sentence], grammar: &Grammar, tables: &Tables) -> bool {
    let clauses = sentences.iter().flat_map(|sentence| &sentence.clauses);
    let mut telling = clauses.filter(|clause| clause.iter().any(|word| tables.is_content(word)));
    let (Some(clause), None) = (telling.next(), telling.next()) else { return false };
    let begins = clause.first().is_some_and(|word| grammar.prepositions.contains(&**word));
    let is_verb = |word: &String| grammar.questions.contains(&**word) || grammar.is_auxiliary(word);
    begins && !clause.iter().any(is_verb)
}

/// A comparative without "than". "More" compares where no noun follows: not in "more memory".
fn compares(sentence: &[&str], grammar: &Grammar, tables: &Tables) -> bool {
    let holds = |at: usize| {
        let (word, after) = (sentence[at], sentence.get(at + 1));
        let is_free =
            at.checked_sub(1).is_some_and(|at| matches!(sentence[at], "no" | "any" | "or"))
                || word == "later" && counts_time(&sentence[at + 1..], grammar, tables);
        let by_itself = || after.is_none_or(|word| ends_phrase(word, grammar, tables));
        let compares = grammar.comparatives.contains(word)
            || grammar.irregular_comparatives.contains(word) && by_itself();
        compares && !is_free
    };
    !sentence.contains(&"than") && (0..sentence.len()).any(holds)
}

/// Whether a word cannot belong to the noun phrase before it.
fn ends_phrase(word: &str, grammar: &Grammar, tables: &Tables) -> bool {
    !tables.is_content(word)
        || grammar.prepositions.contains(word)
        || grammar.is_auxiliary(word)
        || tables.articles.contains(word)
}

/// Whether "the" begins a phrase that does not say itself which thing is meant: it names none, nothing of it follows
/// ("the band", not "the band of my school"), and no adjective or second noun describes it. "The best" without a
/// noun is such a phrase in any case.
fn has_bare_definite(
    clause: &[String],
    names: &[String],
    grammar: &Grammar,
    tables: &Tables,
) -> bool {
    let starts = (0..clause.len()).filter(|at| clause[*at] == "the");
    let mut bare = starts.filter(|&start| {
        let (phrase, joined, rest) = noun_phrase(&clause[start + 1..], grammar, tables);
        let (Some(first), Some(last)) = (phrase.first(), phrase.last()) else { return false };
        let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
        let is_known = grammar.unique.contains(first)
            || phrase.iter().any(|word| names.binary_search_by(|name| (**name).cmp(word)).is_ok())
            || phrase.iter().all(|word| is_number(word));
        if is_known {
            return false;
        }
        // A preposition with nothing behind it belongs to the verb: "when did the band break up".
        let is_told = matches!(rest, [word, _, ..] if is_link(word, grammar));
        let counts = phrase.iter().filter(|word| tables.numbers.contains_key(**word)).count();
        // Behind an auxiliary the phrase and the verb after it cannot be told apart: "did the band break up".
        let is_subject = start > 0 && grammar.is_auxiliary(&clause[start - 1]);
        let is_described = phrase.len() > 1 && counts == 0 && !joined && !is_subject;
        grammar.superlatives.contains(*last) || !is_told && !is_described
    });
    bare.next().is_some()
}

/// Whether a word joins to a noun what says which is meant.
fn is_link(word: &str, grammar: &Grammar) -> bool {
    grammar.prepositions.contains(word) || grammar.relatives.contains(word)
}

/// The words that can belong to a noun phrase, whether it is two joined by "and", and the words after it.
fn noun_phrase<'c>(
    words: &'c [String],
    grammar: &Grammar,
    tables: &Tables,
) -> (Vec<&'c str>, bool, &'c [String]) {
    let (mut phrase, mut joined, mut at) = (Vec::new(), false, 0);
    while let Some(word) = words.get(at) {
        let joins = matches!(&**word, "and" | "or")
            && !phrase.is_empty()
            && words.get(at + 1).is_some_and(|word| !ends_phrase(word, grammar, tables));
        joined |= joins;
        if !joins {
            if ends_phrase(word, grammar, tables) {
                break;
            }
            phrase.push(&**word);
        }
        at += 1;
    }
    (phrase, joined, &words[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of each section of the table.
    fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
        let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
        for line in include_str!("../../../tests/data/alone.txt").lines() {
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(name) => sections.push((name, Vec::new())),
                None if line.is_empty() || line.starts_with('#') => {}
                None => sections.last_mut().unwrap().1.push(line),
            }
        }
        sections
    }

    #[test]
    fn each_kind_of_need_is_seen_and_no_other() {
        let mut wrong = Vec::new();
        let mut kinds = 0;
        for (section, messages) in sections() {
            let wanted = match section {
                "alone" => None,
                "unjudged" => Some(Need::Unjudged),
                "little" => Some(Need::Little),
                "continues" => Some(Need::Continues),
                "points" => Some(Need::Points),
                "ellipsis" => Some(Need::Ellipsis),
                "compares" => Some(Need::Compares),
                "definite" => Some(Need::Definite),
                other => panic!("{other}"),
            };
            kinds += 1;
            assert!(messages.len() >= if wanted.is_none() { 30 } else { 6 }, "{section}");
            let found = messages.into_iter().map(|message| (need(message.as_bytes()), message));
            wrong.extend(found.filter(|(found, _)| *found != wanted).map(|found| (section, found)));
        }
        assert_eq!(kinds, 8);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn what_is_no_message_does_not_stand_alone() {
        for message in ["", "yes please", "?", "... ,, ()"] {
            assert!(!stands_alone(message.as_bytes()), "{message}");
        }
        assert!(!stands_alone(b"\xff reset account password"));
        assert!(!stands_alone("reset account password ".repeat(400).as_bytes()));
    }

    #[test]
    fn marks_within_words_and_numbers_part_nothing() {
        let marks = ['.', ',', '('];
        assert_eq!(
            parts("at 10.30, pay 1,250.50 (net)", &marks),
            ["at 10.30", " pay 1,250.50 ", "net)"]
        );
        assert_eq!(parts("", &marks), [""]);
        assert_eq!(parts("é. ü", &marks), ["é", " ü"]);
    }
}
