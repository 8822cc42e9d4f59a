//! Words that a model reads as one though their letters differ: a tokenizer that strips accents reads "año" (year) as
//! "ano", and questions that differ in nothing else have equal vectors.
//!
//! Owns: the rule by which two texts are told apart by what is stripped: where both have a word of the same bare form,
//! its letters are the same in both, case aside. A word that only one of them has is shown by the vector, and tells
//! nothing here. Pure; any thread.

use super::ranges::is_in;
use super::tables::{IDEOGRAPHS, MARKS, PUNCTUATION, REMOVED};
use std::collections::{BTreeMap, BTreeSet};
use unicode_normalization::UnicodeNormalization;

/// The letters of each word, by its bare form.
type Words = BTreeMap<String, BTreeSet<String>>;

/// Whether a word that both texts have is written with other marks in one of them.
pub(super) fn differ(one: &str, other: &str) -> bool {
    // Without marks there is nothing to strip.
    if one.is_ascii() && other.is_ascii() {
        return false;
    }
    let (one, other) = (words(one), words(other));
    one.iter().any(|(bare, letters)| other.get(bare).is_some_and(|others| others != letters))
}

fn words(text: &str) -> Words {
    let mut words = Words::new();
    let parts = |c: char| c.is_whitespace() || is_in(&PUNCTUATION, c) || is_in(&IDEOGRAPHS, c);
    for word in text.split(parts).filter(|word| !word.is_empty()) {
        let kept = || word.chars().filter(|&c| !is_in(&REMOVED, c));
        let bare = kept().nfd().filter(|&c| !is_in(&MARKS, c)).flat_map(char::to_lowercase);
        let letters = kept().flat_map(char::to_lowercase).nfc();
        words.entry(bare.collect()).or_default().insert(letters.collect());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::differ;

    #[test]
    fn words_that_differ_by_marks_alone_are_told_apart() {
        for (one, other, apart) in [
            // Spanish, French, German, Portuguese, Polish, Czech, Swedish, Turkish, Romanian.
            ("cuántos años tiene", "cuantos anos tiene", true),
            ("¿Cuántos años tiene?", "cuántos AÑOS tiene", false),
            ("le pêcheur", "le pécheur", true),
            ("das ist schön", "das ist schon", true),
            ("minha avó", "minha avô", true),
            ("robić łaskę", "robić łaske", true),
            ("být doma", "byt doma", true),
            ("får jag", "far jag", true),
            ("kül", "kul", true),
            ("fată", "fata", true),
            // Vietnamese, whose tones are marks, and English loans.
            ("con mà", "con mả", true),
            ("my résumé", "my resume", true),
            // Russian, Greek, Japanese, Hindi, Thai, Hebrew, Arabic.
            ("все дома", "всё дома", true),
            ("πότε", "ποτέ", true),
            ("かき", "かぎ", true),
            ("कुल", "कल", true),
            ("กิน", "กัน", true),
            ("שָׁם", "שֵׁם", true),
            ("كَتَبَ", "كُتِبَ", true),
            // The same letters in another form of Unicode.
            ("año", "an\u{303}o", false),
            ("\u{212B}ngström", "ångström", false),
            // Other words are the vector's to tell.
            ("¿Cómo recupero mi dinero?", "¿De qué manera recupero mi dinero?", false),
            ("Wie kündige ich?", "Kündigung, aber wie?", false),
            ("plain words", "Plain words!", false),
            ("plain words", "café words", false),
            // A word that is there in both ways in one of them.
            ("el año y el ano", "el año", true),
            ("el año y el ano", "el ano y el año", false),
        ] {
            assert_eq!(differ(one, other), apart, "{one} / {other}");
            assert_eq!(differ(other, one), apart, "{other} / {one}");
        }
    }
}
