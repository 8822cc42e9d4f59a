//! Finds numbers and dates in a question and brings them into one form.
//!
//! Owns: reading digits of any script the Unicode standard calls decimal that is in wide use, thousands
//! separators, numbers as words, months and days.

use super::tables::{Kinds, Tables};

/// Zeros of the decimal digits of scripts in wide use; the nine others follow each (Unicode, general
/// category Nd).
const ZEROS: [u32; 22] = [
    0x0030, 0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6,
    0x0d66, 0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0xa9d0, 0xff10,
];

/// The digit that a character stands for.
pub(super) fn digit(letter: char) -> Option<char> {
    if letter.is_ascii() {
        return letter.is_ascii_digit().then_some(letter);
    }
    let code = u32::from(letter);
    let zero = ZEROS.iter().find(|&&zero| (zero..zero + 10).contains(&code))?;
    char::from_digit(code - zero, 10)
}

/// What a number is compared by: without separators of thousands, leading zeros and an empty fraction.
fn canonical(digits: &str) -> String {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

fn of_word(value: f64) -> String {
    canonical(&value.to_string())
}

/// Whether a word stands where a month does and a verb does not: "the 1st of May", "in May".
fn is_behind_of(words: &[String], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| &*words[before]);
    matches!(
        before,
        Some(
            "of" | "in" | "since" | "until" | "by" | "last" | "next" | "during" | "early" | "late"
        )
    )
}

/// Numbers, months and days among the words of a question, which are of these kinds, sorted, each once.
pub(super) fn numbers_of(words: &[String], kinds: &[Kinds], tables: &Tables) -> Vec<String> {
    let is_digits = |word: &String| word.starts_with(|letter: char| letter.is_ascii_digit());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if !is_digits(word) && !kinds[at].any(Kinds::NUMBER) {
            at += 1;
            continue;
        }
        let text = tables.same.get(word.as_str()).copied().unwrap_or(word);
        let beside_number =
            || words.get(at + 1).is_some_and(is_digits) || (at > 0 && is_digits(&words[at - 1]));
        if is_digits(word) {
            found.push(canonical(word));
        } else if let Some(&value) = tables.numbers.get(text) {
            let unit = words.get(at + 1).and_then(|next| tables.numbers.get(next.as_str()));
            let tens = (20.0..100.0).contains(&value);
            if let Some(unit) = unit.filter(|unit| tens && (1.0..10.0).contains(*unit)) {
                found.push(of_word(value + unit));
                at += 1;
            } else {
                found.push(of_word(value));
            }
        } else if let Some(month) = tables.months.get(text)
            && (text != "may" || beside_number() || is_behind_of(words, at))
        {
            found.push(format!("month {month}"));
        } else if tables.days.contains(text) {
            // "on Sundays" asks what "on Sunday" does.
            found.push(text.strip_suffix('s').unwrap_or(text).to_owned());
        }
        at += 1;
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_each() {
        for (given, wanted) in
            [("007", "7"), ("1.50", "1.5"), ("2.0", "2"), ("0", "0"), ("0.5", "0.5")]
        {
            assert_eq!(canonical(given), wanted);
        }
        assert_eq!(of_word(0.5), "0.5");
        assert_eq!(of_word(1_000.0), "1000");
    }

    #[test]
    fn digits_of_many_scripts() {
        assert_eq!(
            [digit('7'), digit('\u{0667}'), digit('\u{096d}'), digit('\u{ff17}')],
            [Some('7'); 4]
        );
        assert_eq!([digit('a'), digit('\u{00b2}')], [None; 2]);
        assert!(ZEROS.is_sorted());
    }
}
