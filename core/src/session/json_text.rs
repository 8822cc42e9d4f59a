//! Text as a JSON string, at the speed of copying it.
//!
//! Owns: escaping. Text that needs none, which is nearly all of it, is looked at 32 bytes at a time.

const CHUNK: usize = 32;

/// Appends text, which is UTF-8, as a JSON string.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_inner(text, out);
    out.push(b'"');
}

/// The same without the quotes.
pub(super) fn write_inner(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((chunk, behind)) = rest.split_first_chunk::<CHUNK>() {
        if chunk.iter().fold(false, |any, &byte| any | is_special(byte)) {
            write_escaped(chunk, out);
        } else {
            out.extend_from_slice(chunk);
        }
        rest = behind;
    }
    write_escaped(rest, out);
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate().filter(|(_, byte)| is_special(**byte)) {
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_reads_back() {
        let mut texts: Vec<String> = vec![String::new(), "é\u{1f600}\u{7f}".repeat(20)];
        for length in 0..70 {
            for special in ['"', '\\', '\n', '\r', '\t', '\u{0}', '\u{1f}', '\u{8}', 'é'] {
                let mut text: Vec<char> = "plain text".chars().cycle().take(length).collect();
                text.insert(length * 7 % (length + 1), special);
                texts.push(text.into_iter().collect());
            }
        }
        for text in texts {
            let mut out = Vec::new();
            write_string(text.as_bytes(), &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).expect("a JSON string"), text);
            assert!(out.iter().all(|byte| *byte >= 0x20), "no line end");
        }
    }
}
