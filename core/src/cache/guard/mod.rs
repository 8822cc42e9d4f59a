//! Guards: what tells two questions apart that an embedding takes for the same.
//!
//! Owns: the comparison of the question asked with the question answered, before an answer found by
//! meaning is served. Exact hits need none. Pure; any thread. The rules are general, the words are data
//! (`english.txt`): numbers and dates must be equal, neither may say the opposite of the other, and
//! what is first may not have become last.
//!
//! A guard refuses; it never makes an answer a hit. Text in a language without a table is compared by
//! its numbers alone.

mod numbers;
mod tables;
mod words;

use crate::limits::GUARDED_MAX_BYTES;
use tables::tables;
use words::Words;

/// How strictly an answer found by meaning is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum GuardLevel {
    /// Not at all.
    Off,
    /// By numbers and dates, opposites, and order.
    #[default]
    On,
    /// By names too, and what cannot be judged is refused.
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

/// Which guard refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Numbers, dates or days differ.
    Number,
    /// One is negated, or uses the opposite word.
    Polarity,
    /// The same things stand in another order.
    Order,
    /// Names differ (STRICT).
    Name,
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
            Self::Unjudged => "unjudged",
        }
    }
}

/// A question made ready to be compared with others.
#[derive(Debug)]
pub struct Question {
    words: Option<Words>,
}

impl Question {
    /// Takes a question apart; `None` asked by vector alone.
    pub fn new(prompt: Option<&[u8]>) -> Self {
        let judged = prompt.filter(|prompt| prompt.len() <= GUARDED_MAX_BYTES);
        let text = judged.and_then(|prompt| std::str::from_utf8(prompt).ok());
        Self { words: text.map(|text| Words::new(text, tables())) }
    }

    /// Why an answer to `stored` should not be served for this question, if it should not.
    pub fn refuses(&self, stored: &[u8], level: GuardLevel) -> Option<Refusal> {
        if level == GuardLevel::Off {
            return None;
        }
        let strict = level == GuardLevel::Strict;
        let Some(asked) = &self.words else { return strict.then_some(Refusal::Unjudged) };
        let Some(stored) = &Self::new(Some(stored)).words else {
            return strict.then_some(Refusal::Unjudged);
        };
        if !asked.has_numbers_of(stored) {
            return Some(Refusal::Number);
        }
        if asked.says_the_opposite(stored, tables()) {
            return Some(Refusal::Polarity);
        }
        if asked.is_reordered(stored, tables()) {
            return Some(Refusal::Order);
        }
        (strict && asked.names != stored.names).then_some(Refusal::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(asked: &str, stored: &str, level: GuardLevel) -> Option<Refusal> {
        let refusal = Question::new(Some(asked.as_bytes())).refuses(stored.as_bytes(), level);
        let mirrored = Question::new(Some(stored.as_bytes())).refuses(asked.as_bytes(), level);
        assert_eq!(refusal, mirrored, "{asked} / {stored}");
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
    fn strict_compares_names_and_refuses_what_it_cannot_judge() {
        let (london, leeds) = ("Rent in London?", "Rent in Leeds?");
        assert_eq!(judge(london, leeds, GuardLevel::On), None);
        assert_eq!(judge(london, leeds, GuardLevel::Strict), Some(Refusal::Name));
        assert_eq!(judge("Rent in London?", "rent in London", GuardLevel::Strict), None);
        let long = "x ".repeat(GUARDED_MAX_BYTES);
        assert_eq!(judge(&long, &long, GuardLevel::On), None);
        assert_eq!(judge(&long, &long, GuardLevel::Strict), Some(Refusal::Unjudged));
        let vector_alone = Question::new(None);
        assert_eq!(vector_alone.refuses(b"7", GuardLevel::On), None);
        assert_eq!(vector_alone.refuses(b"7", GuardLevel::Strict), Some(Refusal::Unjudged));
        assert_eq!(Question::new(Some(b"\xff")).refuses(b"7", GuardLevel::On), None);
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
