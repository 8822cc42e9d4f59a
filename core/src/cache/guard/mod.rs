//! Guards: rules that refuse a semantic hit when two questions differ in meaning although their embeddings are close.
//!
//! Owns: the comparison of the question asked with the question answered, before an answer found by
//! meaning is served. Exact hits need none. Pure; any thread. The rules are general, the words are data
//! (`english.txt`, `antonyms.txt`): numbers and dates must agree, neither may say the opposite of the
//! other, what is first may not have become last, and neither may have a name where the other has
//! another.
//!
//! A guard refuses; it never makes an answer a hit. All rules but that of numbers are declared for
//! English and stand aside where either question is in another language (`language`).

mod alone;
mod differences;
mod grammar;
mod language;
mod numbers;
mod polarity;
mod sections;
mod tables;
mod unseen;
mod words;

pub use alone::stands_alone;
pub use unseen::{Sight, Unseen, UnseenDigest};

use crate::limits::GUARDED_MAX_BYTES;
use std::cell::OnceCell;
use tables::tables;
use words::{Compared, Words};

/// Reads the tables of words, which takes milliseconds: when the module is loaded, so that no question waits for it.
pub fn prepare() {
    tables::tables();
    language::prepare();
}

/// How strictly an answer found by meaning is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum GuardLevel {
    /// Not at all.
    Off,
    /// By numbers and dates, opposites, order, and names.
    #[default]
    On,
    /// The same, and what cannot be judged is refused.
    Strict,
}

impl GuardLevel {
    /// Every level, in the order of their bytes and of their strictness.
    pub const ALL: [Self; 3] = [Self::Off, Self::On, Self::Strict];

    /// As written in arguments and replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::On => "ON",
            Self::Strict => "STRICT",
        }
    }

    /// As saved.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The inverse of `as_byte`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// When numbers and dates of two questions disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NumberRule {
    /// When they are not the same.
    #[default]
    Equal,
    /// When each question has one that the other lacks: a number that one side alone mentions passes.
    Conflict,
}

impl NumberRule {
    /// Every rule, in the order of their bytes.
    pub const ALL: [Self; 2] = [Self::Equal, Self::Conflict];

    /// As written in arguments and replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "EQUAL",
            Self::Conflict => "CONFLICT",
        }
    }

    /// As saved.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The inverse of `as_byte`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What is asked of an answer found by meaning before it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How strictly.
    pub level: GuardLevel,
    /// How numbers are compared.
    pub numbers: NumberRule,
    /// Whether an answer to a question in which one word is exchanged for another must be nearer, by
    /// [`EXCHANGE_PENALTY`].
    pub exchange: bool,
}

impl Rules {
    /// Nothing is asked.
    pub const OFF: Self =
        Self { level: GuardLevel::Off, numbers: NumberRule::Equal, exchange: false };
}

/// By how much one exchanged word lowers the similarity that is held against the threshold.
pub const EXCHANGE_PENALTY: f64 = 0.05;

/// Which guard refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Numbers, dates or days differ.
    Number,
    /// One is negated, or uses the opposite word.
    Polarity,
    /// The same things stand in another order.
    Order,
    /// Each has a name that the other lacks.
    Name,
    /// One word was exchanged for another, and the similarity less [`EXCHANGE_PENALTY`] is too small.
    Exchange,
    /// The words that the model does not know differ, which their vectors do not show.
    Unseen,
    /// There was nothing to judge by (STRICT): no question asked, or one too long.
    Unjudged,
}

impl Refusal {
    /// As in replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Polarity => "polarity",
            Self::Order => "order",
            Self::Name => "name",
            Self::Exchange => "exchange",
            Self::Unseen => "unseen",
            Self::Unjudged => "unjudged",
        }
    }
}

/// A guard that refused, and the words it went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The guard.
    pub refusal: Refusal,
    /// What the question asked has, empty where it has nothing that counts.
    pub asked: String,
    /// What the question answered has.
    pub stored: String,
}

/// A question made ready to be compared with others.
#[derive(Debug)]
pub struct Question {
    /// Nothing where there is nothing to judge by.
    text: Option<Box<str>>,
    /// Made of the text when the first answer is near enough to be judged.
    words: OnceCell<Words>,
    unseen: Option<Unseen>,
}

/// A text that guards can judge.
fn judged(prompt: Option<&[u8]>) -> Option<&str> {
    let short = prompt.filter(|prompt| prompt.len() <= GUARDED_MAX_BYTES)?;
    std::str::from_utf8(short).ok()
}

impl Question {
    /// Takes a question apart; `None` asked by vector alone.
    pub fn new(prompt: Option<&[u8]>) -> Self {
        Self { text: judged(prompt).map(Box::from), words: OnceCell::new(), unseen: None }
    }

    /// The question, embedded by a model that does not know all words.
    #[must_use]
    pub fn with_unseen(self, unseen: Option<&Unseen>) -> Self {
        Self { unseen: unseen.cloned(), ..self }
    }

    /// Why an answer to `stored` should not be served for this question, if it should not. `headroom`
    /// is how far their similarity lies above the threshold.
    pub fn refuses(&self, stored: &[u8], rules: Rules, headroom: f64) -> Option<Finding> {
        let nameless = |refusal| Finding { refusal, asked: String::new(), stored: String::new() };
        if self.unseen.as_ref().is_some_and(|unseen| unseen.tells_from(stored)) {
            return Some(nameless(Refusal::Unseen));
        }
        if rules.level == GuardLevel::Off {
            return None;
        }
        let (Some(asked), Some(stored)) = (self.text.as_deref(), judged(Some(stored))) else {
            let is_strict = rules.level == GuardLevel::Strict;
            return is_strict.then(|| nameless(Refusal::Unjudged));
        };
        let asked = self.words.get_or_init(|| Words::new(asked, tables()));
        let stored = Words::new(stored, tables());
        let (refusal, (asked, stored)) = difference(asked, &stored, rules, headroom)?;
        Some(Finding { refusal, asked: asked.to_owned(), stored: stored.to_owned() })
    }
}

/// The first rule that refuses, and the words it goes by.
fn difference<'a>(
    asked: &'a Words,
    stored: &'a Words,
    rules: Rules,
    headroom: f64,
) -> Option<(Refusal, (&'a str, &'a str))> {
    let tables = tables();
    if let Some(words) = differences::numbers_disagree(asked, stored, rules.numbers, tables) {
        return Some((Refusal::Number, words));
    }
    if !asked.language.is_english_with(stored.language) {
        return None;
    }
    let compared = Compared::new(asked, stored);
    if compared.only_asked.is_empty() && compared.only_stored.is_empty() {
        // The same words: only their order can differ.
        return reordered(asked, stored).map(|words| (Refusal::Order, words));
    }
    let polarity =
        || Some((Refusal::Polarity, polarity::opposite(asked, stored, &compared, tables)?));
    let order = || Some((Refusal::Order, reordered(asked, stored)?));
    let name = || Some((Refusal::Name, differences::swapped_names(asked, stored, &compared)?));
    let exchange = || {
        let counts = rules.exchange && headroom < EXCHANGE_PENALTY;
        counts.then(|| differences::exchanged(&compared, tables)).flatten()
    };
    let exchange = || Some((Refusal::Exchange, exchange()?));
    polarity().or_else(order).or_else(name).or_else(exchange)
}

/// What leads elsewhere, or who does what was done to them.
fn reordered<'a>(asked: &'a Words, stored: &'a Words) -> Option<(&'a str, &'a str)> {
    let tables = tables();
    differences::reordered(asked, stored, tables)
        .or_else(|| differences::swapped_subjects(asked, stored, tables))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(asked: &str, stored: &str, level: GuardLevel) -> Option<Refusal> {
        let rules = Rules { level, ..Rules::OFF };
        let verdict = |asked: &str, stored: &str| {
            let question = Question::new(Some(asked.as_bytes()));
            question.refuses(stored.as_bytes(), rules, 0.0)
        };
        let (refusal, mirrored) = (verdict(asked, stored), verdict(stored, asked));
        let refusal = refusal.map(|verdict| verdict.refusal);
        assert_eq!(refusal, mirrored.map(|verdict| verdict.refusal), "{asked} / {stored}");
        refusal
    }

    #[test]
    fn what_differs_is_named() {
        use Refusal::{Number, Order, Polarity};
        for (asked, stored, wanted) in [
            ("for a 6-year-old", "for a 16-year-old", Some(Number)),
            ("in 2023?", "in 2024?", Some(Number)),
            ("by March 3rd", "by 4 march", Some(Number)),
            ("by March 3rd", "by 3 Mar.", None),
            ("by March 3rd", "by the 3rd of march", None),
            ("open on Sunday?", "open on Monday?", Some(Number)),
            ("1,000 euros", "1000 euros", None),
            ("two tickets", "2 tickets", None),
            ("twenty five days", "25 days", None),
            ("may I come", "can I come", None),
            ("set a one minute timer", "set a 1 minute timer", None),
            ("set a one minute timer", "set a 2 minute timer", Some(Number)),
            ("which one is it", "which is it", None),
            ("my annual income", "my yearly income", None),
            ("my annual income", "my monthly income", Some(Number)),
            ("quit talking", "stop talking", None),
            ("why can't I log in", "why am I unable to log in", None),
            ("I am not able to say", "I am unable to say", None),
            ("are you able to fly", "are you unable to fly", Some(Polarity)),
            ("add eggs to the list", "add eggs to the list if not already there", None),
            ("how to stop my hair falling", "how to prevent my hair falling", None),
            ("on 4 May", "on 4 June", Some(Number)),
            ("wake me at 7am", "wake me at 7pm", Some(Polarity)),
            ("Can I cancel my order?", "Can't I cancel my order?", Some(Polarity)),
            ("Cancel my order", "Don\u{2019}t cancel my order", Some(Polarity)),
            ("Is it safe with alcohol?", "Is it unsafe with alcohol?", Some(Polarity)),
            ("Are dogs allowed inside?", "Are dogs banned inside?", Some(Polarity)),
            ("refundable deposit", "non-refundable deposit", Some(Polarity)),
            ("fly from Rome to Paris", "fly from Paris to Rome", Some(Order)),
            ("convert a PDF to Word", "convert Word to a PDF", Some(Order)),
            ("How do I get my money back?", "How can I get a refund?", None),
            ("do you know whether or not it opens", "can you tell me if it opens", None),
            ("", "", None),
            ("\u{7b2c}3\u{7ae0}", "\u{7b2c}4\u{7ae0}", Some(Number)),
            (
                "\u{0663} \u{0623}\u{064a}\u{0627}\u{0645}",
                "3 \u{0623}\u{064a}\u{0627}\u{0645}",
                None,
            ),
        ] {
            assert_eq!(judge(asked, stored, GuardLevel::On), wanted, "{asked} / {stored}");
            assert_eq!(judge(asked, stored, GuardLevel::Off), None);
        }
    }

    #[test]
    fn strict_refuses_what_it_cannot_judge() {
        let long = "x ".repeat(GUARDED_MAX_BYTES);
        assert_eq!(judge(&long, &long, GuardLevel::On), None);
        assert_eq!(judge(&long, &long, GuardLevel::Strict), Some(Refusal::Unjudged));
        let by = |prompt, level| {
            let rules = Rules { level, ..Rules::OFF };
            Question::new(prompt).refuses(b"7", rules, 0.0).map(|verdict| verdict.refusal)
        };
        assert_eq!(by(None, GuardLevel::On), None);
        assert_eq!(by(None, GuardLevel::Strict), Some(Refusal::Unjudged));
        assert_eq!(by(Some(b"\xff"), GuardLevel::On), None);
    }

    #[test]
    fn levels_are_ordered_and_round_trip() {
        assert!(GuardLevel::Off < GuardLevel::On && GuardLevel::On < GuardLevel::Strict);
        for level in GuardLevel::ALL {
            assert_eq!(GuardLevel::from_byte(level.as_byte()), Some(level));
        }
        assert_eq!(GuardLevel::from_byte(3), None);
    }
}
