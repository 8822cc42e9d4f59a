//! Decides whether a message can be understood without the conversation before it.
//!
//! Owns: that rule (`UNLESS-ALONE`). It is declared for English; in other languages no message counts as
//! standing alone, so that its answer stays with its context. Any thread.

use super::language::Language;
use super::tables::{Tables, tables};
use super::words::Words;
use crate::limits::GUARDED_MAX_BYTES;

/// Fewest words that say something in a message that stands alone.
const CONTENT_WORDS_MIN: usize = 3;

/// Whether the message stands alone: it points to nothing said earlier, does not go on from it, and has
/// enough words that say something.
pub fn stands_alone(message: &[u8]) -> bool {
    if message.len() > GUARDED_MAX_BYTES {
        return false;
    }
    let Ok(text) = std::str::from_utf8(message) else { return false };
    let tables = tables();
    let words = Words::new(text, tables);
    let continues = words.all.first().is_some_and(|word| tables.continuing.contains(word.as_str()));
    let refers = words.all.iter().any(|word| tables.referring.contains(base(word)));
    let told = words.set().into_iter().filter(|word| names_something(word, tables)).count();
    words.language == Language::English && !continues && !refers && told >= CONTENT_WORDS_MIN
}

/// Whether a word helps to say what a message is about: numbers and "anything" do not.
fn names_something(word: &str, tables: &Tables) -> bool {
    let counts = word.starts_with(|first: char| first.is_ascii_digit())
        || tables.numbers.contains_key(word)
        || tables.vague.contains(word);
    !counts && tables.is_content(word)
}

/// A word without what an apostrophe joins to it: "it's", "that'll".
fn base(word: &str) -> &str {
    word.split('\'').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_alone() {
        for message in [
            "How do I reset the password of my account?",
            "What are the opening hours of the museum in Leeds?",
            "Cancel my gym membership",
        ] {
            assert!(stands_alone(message.as_bytes()), "{message}");
        }
        for message in [
            "",
            "yes please",
            "and what about the second one?",
            "How long does it take to ship the parcel?",
            "That's the order number 70452 from Monday",
            "But my parcel arrived broken on Monday",
            "thanks",
            "How long does delivery take?",
            "Could anyone deliver at 10am?",
            "Two tables for seven",
            "How many guests may we invite?",
            "Wie kann ich mein Passwort für das Konto zurücksetzen?",
            "注文をキャンセルしたい",
        ] {
            assert!(!stands_alone(message.as_bytes()), "{message}");
        }
        assert!(!stands_alone(b"\xff reset account password"));
        assert!(!stands_alone("reset account password ".repeat(400).as_bytes()));
    }
}
