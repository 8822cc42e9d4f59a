//! The normaliser of SentencePiece: a table of texts and what stands for each, compiled into a trie.
//!
//! Owns: reading the table, which is hostile, and replacing as the reference does. Any thread; never written after
//! loading.

use unicode_segmentation::UnicodeSegmentation;

/// What stands for some short texts.
#[derive(Debug, Default)]
pub(super) struct CharsMap {
    /// A double array: each unit has an offset, a label, and whether a value follows.
    units: Vec<u32>,
    /// The values, each of which ends with a zero.
    texts: String,
}

/// A cluster of more bytes is looked up character by character.
const CLUSTER_BYTES: usize = 6;

impl CharsMap {
    /// Reads a table: the bytes of its trie, the trie, the texts. `None` of bytes that are none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk()?;
        let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let (units, []) = trie.as_chunks() else { return None };
        let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        (!units.is_empty())
            .then(|| Some(Self { units, texts: std::str::from_utf8(texts).ok()?.to_owned() }))?
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        4 * self.units.capacity() + self.texts.capacity()
    }

    /// A text as the model's words are written.
    pub(super) fn normalise(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for cluster in text.graphemes(true) {
            if cluster.len() < CLUSTER_BYTES
                && let Some(instead) = self.instead_of(cluster)
            {
                out.push_str(instead);
                continue;
            }
            for (at, c) in cluster.char_indices() {
                let part = &cluster[at..at + c.len_utf8()];
                out.push_str(self.instead_of(part).unwrap_or(part));
            }
        }
        out
    }

    /// What stands for the shortest beginning of a text that is in the table, and, as models were trained with it, for all of it.
    fn instead_of(&self, text: &str) -> Option<&str> {
        if self.units.is_empty() {
            return None;
        }
        let mut at = offset(self.units[0]);
        for &byte in text.as_bytes() {
            if byte == 0 {
                return None;
            }
            at ^= usize::from(byte);
            let unit = *self.units.get(at)?;
            if unit & (1 << 31 | 0xFF) != u32::from(byte) {
                return None;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let start = (*self.units.get(at)? & !(1 << 31)) as usize;
                let rest = self.texts.get(start..)?;
                return rest.split('\0').next();
            }
        }
        None
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

/// Bytes of a text in base 64; `None` of one that is none.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len() / 4 * 3 + 3), 0_u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}
