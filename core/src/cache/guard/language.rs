//! Detects the language of a question as far as guards need it: whether the English rules apply.
//!
//! Owns: the evidence. Function words of English speak for it; function words of other languages
//! (`languages.txt`), letters that English words do not have, and other scripts speak against it. A word
//! that English shares with another language speaks for both; a shared negation ("no") does not speak for
//! English. Other words of English count only where nothing speaks against it. Any thread.

use super::sections::lines;
use super::tables::{Kinds, Tables};
use hashbrown::HashMap;
use std::sync::LazyLock;

/// What a question's words say of its language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    /// Nothing speaks for any language.
    Unknown,
    Other,
}

/// The function words that tell other languages from English.
struct Others {
    /// For each word, the languages that have it, a bit each.
    words: HashMap<&'static str, u32>,
    /// Beginnings of elided words, with their apostrophe.
    elided: Vec<(&'static str, u32)>,
    languages: usize,
}

/// Pronouns that other languages write with a capital inside a sentence.
const POLITE: [&str; 8] = ["sie", "ihnen", "ihr", "ihre", "ihren", "ihrem", "lei", "de"];

static OTHERS: LazyLock<Others> = LazyLock::new(|| {
    let mut others = Others { words: HashMap::new(), elided: Vec::new(), languages: 0 };
    let mut names: Vec<&str> = Vec::new();
    for (language, line) in lines(include_str!("languages.txt")) {
        let at = names.iter().position(|name| *name == language).unwrap_or_else(|| {
            names.push(language);
            names.len() - 1
        });
        for word in line.split_whitespace() {
            if word.ends_with('\'') {
                others.elided.push((word, 1 << at));
            } else {
                *others.words.entry(word).or_default() |= 1 << at;
            }
        }
    }
    others.languages = names.len();
    others
});

/// Reads the words of other languages.
pub(super) fn prepare() {
    LazyLock::force(&OTHERS);
}

impl Language {
    /// Weighs the words, in lower case and of these kinds. Names, sorted, speak for no other language: "Is La Paz safe?"
    /// is English.
    pub(super) fn of(words: &[String], kinds: &[Kinds], names: &[String], tables: &Tables) -> Self {
        let others = &*OTHERS;
        let (mut english, mut foreign, mut foreign_letters) = (0_usize, 0_usize, 0_usize);
        let mut counts = [0_usize; 32];
        let is_digits = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
        for (word, kinds) in words.iter().zip(kinds).filter(|(word, _)| !is_digits(word)) {
            let languages = match names.binary_search(word) {
                Ok(_) if !POLITE.contains(&word.as_str()) => 0,
                _ => others.of_word(word),
            };
            let is_english = kinds.any(Kinds::FUNCTION);
            let is_shared = is_english && languages != 0;
            english += usize::from(is_english && !(is_shared && kinds.any(Kinds::NEGATION)));
            foreign += usize::from(languages != 0 && !is_shared);
            foreign_letters += usize::from(!word.is_ascii());
            if languages != 0 {
                for (at, count) in counts.iter_mut().enumerate().take(others.languages) {
                    *count += usize::from(languages >> at & 1 == 1);
                }
            }
        }
        let likeliest = counts.into_iter().max().unwrap_or(0);
        let speaks_against = foreign + foreign_letters > 0;
        // Asked for only where nothing else tells, as it takes longest.
        let says_something_english = || {
            let mut unshared = words.iter().filter(|word| others.of_word(word) == 0);
            unshared.any(|word| !is_digits(word) && tables.is_known(word))
        };
        let speaks_for = english > 0 || !speaks_against && says_something_english();
        match (speaks_against, speaks_for) {
            (false, false) => Self::Unknown,
            (false, true) => Self::English,
            (true, _) if english > likeliest + foreign_letters => Self::English,
            (true, _) => Self::Other,
        }
    }

    /// Whether rules for English can judge two questions in these languages.
    pub(super) fn is_english_with(self, other: Self) -> bool {
        let both = [self, other];
        both.contains(&Self::English) && !both.contains(&Self::Other)
    }
}

impl Others {
    fn of_word(&self, word: &str) -> u32 {
        let known = self.words.get(word).copied().unwrap_or(0);
        if !word.contains('\'') {
            return known;
        }
        let elided = self.elided.iter().filter(|(start, _)| word.starts_with(start));
        elided.fold(known, |all, (_, languages)| all | languages)
    }
}

impl Tables {
    /// Whether the word is in a table of English words that say something.
    fn is_known(&self, word: &str) -> bool {
        self.days.contains(word)
            || self.months.contains_key(word)
            || self.numbers.contains_key(word)
            || self.has_opposite(word)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::tables;
    use super::super::words::Words;
    use super::*;

    fn language(text: &str) -> Language {
        Words::new(text, tables()).language
    }

    #[test]
    fn english_is_told_from_others() {
        for text in [
            "How do I get my money back?",
            "Can't I cancel my order?",
            "Is there a café near the station?",
            "install Python",
            "hotel in Berlin",
            "Is La Paz safe at night?",
            "Open the El Paso office",
            "Is MIT open?",
            "Is Anna older than Ben?",
            "start Die Hard",
            "What does \"c'est la vie\" mean in English, and who said it?",
        ] {
            assert_eq!(language(text), Language::English, "{text}");
        }
        for text in [
            "Wie kann ich mein Abo cancel?",
            "¿Puedo pagar con stop loss?",
            "no puedo entrar",
            "Können Sie den Shop open lassen?",
            "Ist Ihr Shop open?",
            "Le magasin est Open Le Week-End Avec Stop",
            "WIE KANN ICH MEIN ABO STOP",
            "Comment annuler l'abonnement ?",
            "Como posso cancelar o pedido?",
            "Hoe kan ik mijn bestelling annuleren?",
            "jak mogę anulować zamówienie",
            "siparişimi nasıl iptal ederim",
            "как отменить заказ",
            "注文をキャンセルしたい",
            "주문을 취소하는 방법",
        ] {
            assert_eq!(language(text), Language::Other, "{text}");
        }
        for text in ["", "no", "12 13", "Berlin hotel", "no carga"] {
            assert_eq!(language(text), Language::Unknown, "{text}");
        }
    }

    #[test]
    fn all_languages_have_a_bit() {
        assert!(OTHERS.languages > 10 && OTHERS.languages <= 32);
    }
}
