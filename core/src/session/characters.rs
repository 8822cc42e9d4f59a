//! Cuts text between UTF-8 characters, never within one.
//!
//! Owns: the rule. Payloads are opaque: bytes that are no UTF-8 are cut anywhere. Any thread.

/// Longest character in bytes.
const CHARACTER_MAX_BYTES: usize = 4;

/// How many of the first `most` bytes of a text to answer: as many as end between two characters, and a
/// whole character where not even one fits. `ended` tells that nothing follows `text`; while that is
/// open, a character that has begun at its end is held back, so that the answer may be 0.
pub fn cut(text: &[u8], most: usize, ended: bool) -> usize {
    let head = &text[..text.len().min(most)];
    let start = match std::str::from_utf8(head) {
        // No length: the bytes are right as far as they go, and end within a character.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => return head.len(),
    };
    let begun = &text[start..text.len().min(start + CHARACTER_MAX_BYTES)];
    match std::str::from_utf8(begun) {
        // What follows goes on with it: it comes whole, later or, where it is the first, now.
        Ok(_) if start > 0 => start,
        Ok(character) => character.chars().next().map_or(head.len(), char::len_utf8),
        Err(error) if error.valid_up_to() > 0 => match start {
            0 => first_character(begun, error.valid_up_to()),
            _ => start,
        },
        Err(error) if error.error_len().is_none() && !ended => start,
        Err(_) => head.len(),
    }
}

/// Length of the first of the whole characters that `valid` bytes are.
fn first_character(bytes: &[u8], valid: usize) -> usize {
    let text = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
    text.chars().next().map_or(valid, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_text_is_between_characters_and_gets_to_its_end() {
        let text = "aé€😀z\u{7ff}\u{800}\u{10ffff}é".as_bytes();
        for most in 1..=text.len() {
            let (mut at, mut pieces) = (0, Vec::new());
            while at < text.len() {
                let length = cut(&text[at..], most, true);
                assert!(length > 0 && length <= most.max(CHARACTER_MAX_BYTES));
                pieces.push(std::str::from_utf8(&text[at..at + length]).expect("whole characters"));
                at += length;
            }
            assert_eq!(pieces.concat().as_bytes(), text);
        }
    }

    #[test]
    fn a_character_that_has_begun_waits_for_its_end_unless_there_is_none() {
        let text = "ab€".as_bytes();
        for end in 3..5 {
            assert_eq!(cut(&text[..end], 99, false), 2);
            assert_eq!(cut(&text[2..end], 99, false), 0);
            assert_eq!(cut(&text[..end], 99, true), end);
        }
        assert_eq!(cut(text, 99, false), 5);
        assert_eq!(cut(b"", 9, false), 0);
    }

    #[test]
    fn opaque_bytes_are_cut_where_they_are_asked_to_be() {
        for bytes in [
            &b"\x80\x80\x80\x80\x80"[..],
            b"\xff\xfe\xfd\xfc",
            b"ab\xe2a\xe2b",
            b"\xc0\x80\xc0\x80",
            b"\xed\xa0\x80\xed\xa0\x80",
        ] {
            for most in 1..=bytes.len() {
                let got = cut(bytes, most, true);
                assert!(got == most, "{bytes:?} {most} {got}");
            }
        }
    }
}
