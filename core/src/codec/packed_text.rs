//! Texts in fewer bytes: each byte as a code of 1 to 11 bits, short for what is frequent in the text (Huffman).
//!
//! Owns: the form, which is saved (`docs/formats.md`). A text is packed on its own, with the lengths of its codes in front,
//! so that it can be read without anything else. Codes are canonical; every byte of a packed text is checked where it
//! comes from outside. Any thread.

use super::{put_varint, take_varint};

/// Longest code, in bits.
const BITS_MAX: u32 = 11;
/// All codes together, in units of the longest: no bits lead nowhere.
const WHOLE: u32 = 1 << BITS_MAX;
/// Texts below this are not worth it.
const TEXT_MIN_BYTES: usize = 64;
/// Bytes that are read between two looks at the end: their codes fit into what is loaded at once.
const STRIDE: usize = 5;
/// In place of a length: some bytes that do not occur, and all others that do not.
const GAP: u8 = 0;
const REST: u8 = 15;
/// Bytes of the longest gap that one nibble tells.
const SHORT_GAP: usize = 15;

type Lengths = [u8; 256];

/// A text in fewer bytes; nothing where that spares less than an eighth.
pub fn pack_text(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < TEXT_MIN_BYTES {
        return None;
    }
    let mut counts = [0u32; 256];
    for &byte in text {
        counts[usize::from(byte)] += 1;
    }
    let lengths = lengths_for(&counts);
    let bits: u64 =
        counts.iter().zip(lengths).map(|(&n, length)| u64::from(n) * u64::from(length)).sum();
    let most = text.len() - text.len() / 8;
    let code_bytes = bits.div_ceil(8) as usize;
    if code_bytes >= most {
        return None;
    }
    let mut out = Vec::with_capacity(code_bytes + 96);
    put_varint(text.len() as u64, &mut out);
    put_lengths(&lengths, &mut out);
    let codes = codes_of(&lengths);
    let (mut held, mut count) = (0u64, 0u32);
    for part in text.chunks(STRIDE) {
        for &byte in part {
            let place = usize::from(byte);
            held |= u64::from(codes[place]) << count;
            count += u32::from(lengths[place]);
        }
        let whole = (count / 8) as usize;
        out.extend_from_slice(&held.to_le_bytes()[..whole]);
        held = held.checked_shr(8 * whole as u32).unwrap_or(0);
        count %= 8;
    }
    if count > 0 {
        out.push(held as u8);
    }
    (out.len() <= most).then_some(out)
}

/// How long the text is that was packed; `None` where the bytes begin otherwise.
pub fn packed_text_len(mut packed: &[u8]) -> Option<usize> {
    usize::try_from(take_varint(&mut packed)?).ok()
}

/// The text that was packed. `None` where the bytes are not what `pack_text` makes of a text of at most so many.
pub fn unpack_text(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut bytes = packed;
    let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
    let lengths = take_lengths(&mut bytes)?;
    // No code has less than a bit.
    if length > most || length > 8 * bytes.len() {
        return None;
    }
    let table = table_of(&lengths);
    let mut text = vec![0; length];
    let (mut parts, mut at) = (text.chunks_exact_mut(STRIDE), 0);
    let read = |part: &mut [u8], mut held: u64| {
        let mut bits = 0;
        for place in part {
            let [byte, length] = table[held as usize % WHOLE as usize].to_le_bytes();
            *place = byte;
            held >>= length;
            bits += usize::from(length);
        }
        bits
    };
    for part in &mut parts {
        let held = load(bytes, at / 8) >> (at % 8);
        at += read(part, held);
    }
    let held = load(bytes, at / 8) >> (at % 8);
    at += read(parts.into_remainder(), held);
    let is_whole = at.div_ceil(8) == bytes.len() && load(bytes, at / 8) >> (at % 8) == 0;
    is_whole.then_some(text)
}

/// Eight bytes from a place on, with zeros behind the end.
#[inline]
fn load(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).unwrap_or_default() {
        rest if rest.len() >= 8 => rest.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight)),
        rest => {
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(eight)
        }
    }
}

/// How long the code of each byte is, 0 for one that does not occur. At least two have one.
fn lengths_for(counts: &[u32; 256]) -> Lengths {
    let mut lengths = [0; 256];
    let mut leaves: Vec<(u32, u8)> = (0..=255)
        .filter(|&byte: &u8| counts[usize::from(byte)] > 0)
        .map(|byte| (counts[usize::from(byte)], byte))
        .collect();
    if let [(_, only)] = leaves[..] {
        leaves.push((0, only.wrapping_add(1)));
    }
    leaves.sort_unstable();
    for (&(_, byte), depth) in leaves.iter().zip(depths(&leaves)) {
        lengths[usize::from(byte)] = depth.min(BITS_MAX) as u8;
    }
    fit(&mut lengths, &leaves);
    lengths
}

/// How deep each leaf lies in the tree of Huffman. Leaves come by their counts, the least first.
fn depths(leaves: &[(u32, u8)]) -> Vec<u32> {
    let mut weights: Vec<u64> = Vec::with_capacity(leaves.len());
    // Of leaves, and behind them of nodes: which node they hang from.
    let mut parents = vec![0usize; 2 * leaves.len() - 1];
    let (mut leaf, mut node) = (0, 0);
    while weights.len() + 1 < leaves.len() {
        let parent = weights.len();
        let mut sum = 0;
        for _ in 0..2 {
            let is_leaf = match (leaves.get(leaf), weights.get(node)) {
                (Some(&(count, _)), Some(&weight)) => u64::from(count) <= weight,
                (found, _) => found.is_some(),
            };
            if is_leaf {
                sum += u64::from(leaves[leaf].0);
                parents[leaf] = parent;
                leaf += 1;
            } else {
                sum += weights[node];
                parents[leaves.len() + node] = parent;
                node += 1;
            }
        }
        weights.push(sum);
    }
    let mut of_nodes = vec![0u32; weights.len()];
    for node in (0..weights.len().saturating_sub(1)).rev() {
        of_nodes[node] = of_nodes[parents[leaves.len() + node]] + 1;
    }
    (0..leaves.len()).map(|leaf| of_nodes[parents[leaf]] + 1).collect()
}

/// Makes lengths that were cut at the longest such that codes of them exist, and none is left over.
fn fit(lengths: &mut Lengths, leaves: &[(u32, u8)]) {
    let room = |length: u8| 1u32 << (BITS_MAX - u32::from(length));
    let mut used: u32 = leaves.iter().map(|&(_, byte)| room(lengths[usize::from(byte)])).sum();
    for &(_, byte) in leaves {
        let length = &mut lengths[usize::from(byte)];
        while used > WHOLE && u32::from(*length) < BITS_MAX {
            used -= room(*length) / 2;
            *length += 1;
        }
    }
    while used < WHOLE {
        for &(_, byte) in leaves.iter().rev() {
            let length = &mut lengths[usize::from(byte)];
            if *length > 1 && used + room(*length) <= WHOLE {
                used += room(*length);
                *length -= 1;
            }
        }
    }
}

/// Calls `each` with every byte that has a code, and its code: the first bit lowest.
fn each_code(lengths: &Lengths, mut each: impl FnMut(usize, u32, u32)) {
    // The first code of each length, by how many there are.
    let mut next = [0u32; BITS_MAX as usize + 2];
    for &length in lengths.iter().filter(|&&length| length > 0) {
        next[usize::from(length) + 1] += 1;
    }
    for length in 2..next.len() {
        next[length] = (next[length - 1] + next[length]) << 1;
    }
    for (byte, &length) in lengths.iter().enumerate().filter(|&(_, &length)| length > 0) {
        let code = next[usize::from(length)];
        next[usize::from(length)] += 1;
        each(byte, code.reverse_bits() >> (u32::BITS - u32::from(length)), u32::from(length));
    }
}

fn codes_of(lengths: &Lengths) -> [u16; 256] {
    let mut codes = [0; 256];
    each_code(lengths, |byte, code, _| codes[byte] = code as u16);
    codes
}

/// By the bits that come next: the byte, and how many of them are its code.
fn table_of(lengths: &Lengths) -> [u16; WHOLE as usize] {
    let mut table = [0; WHOLE as usize];
    each_code(lengths, |byte, code, length| {
        let entry = u16::from_le_bytes([byte as u8, length as u8]);
        for place in table[code as usize..].iter_mut().step_by(1 << length) {
            *place = entry;
        }
    });
    table
}

/// Four bits each: a length; or a gap, and of how many bytes it is.
fn put_lengths(lengths: &Lengths, out: &mut Vec<u8>) {
    let mut nibbles = Vec::with_capacity(256);
    let mut at = 0;
    while let Some(gap) = lengths[at..].iter().position(|&length| length > 0) {
        if gap > 0 {
            nibbles.push(GAP);
            match gap.checked_sub(SHORT_GAP + 1) {
                None => nibbles.push(gap as u8 - 1),
                Some(more) => nibbles.extend([SHORT_GAP as u8, more as u8 >> 4, more as u8 & 15]),
            }
        }
        nibbles.push(lengths[at + gap]);
        at += gap + 1;
        if at == lengths.len() {
            break;
        }
    }
    nibbles.push(REST);
    out.extend(nibbles.chunks(2).map(|two| two[0] | two.get(1).unwrap_or(&0) << 4));
}

/// Reads four bits at a time, the lower ones first.
struct Nibbles<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl Nibbles<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.taken / 2)?;
        self.taken += 1;
        Some(if self.taken % 2 == 1 { byte & 15 } else { byte >> 4 })
    }
}

/// The lengths in front; nothing where no codes have them.
fn take_lengths(bytes: &mut &[u8]) -> Option<Lengths> {
    let (mut lengths, mut at, mut used) = ([0; 256], 0, 0);
    let mut nibbles = Nibbles { bytes, taken: 0 };
    loop {
        match nibbles.next()? {
            REST => break,
            GAP => {
                at += match usize::from(nibbles.next()?) {
                    SHORT_GAP => {
                        let more = (nibbles.next()? << 4) | nibbles.next()?;
                        SHORT_GAP + 1 + usize::from(more)
                    }
                    short => short + 1,
                }
            }
            length if u32::from(length) <= BITS_MAX => {
                *lengths.get_mut(at)? = length;
                (at, used) = (at + 1, used + (WHOLE >> length));
            }
            _ => return None,
        }
    }
    if nibbles.taken % 2 == 1 && nibbles.next()? != 0 {
        return None;
    }
    *bytes = &bytes[nibbles.taken / 2..];
    (used == WHOLE).then_some(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(text: &[u8]) -> Option<usize> {
        let packed = pack_text(text)?;
        assert!(packed.len() <= text.len() - text.len() / 8);
        assert_eq!(packed_text_len(&packed), Some(text.len()));
        assert_eq!(unpack_text(&packed, text.len()).as_deref(), Some(text));
        assert_eq!(unpack_text(&packed, text.len() - 1), None);
        for end in 0..packed.len() {
            assert_eq!(unpack_text(&packed[..end], text.len()), None, "{end}");
        }
        let more = [&packed[..], &[0]].concat();
        assert_eq!(unpack_text(&more, text.len()), None);
        Some(packed.len())
    }

    #[test]
    fn a_text_takes_little_more_than_its_entropy() {
        let text =
            "The pump of the boiler is blocked by lime; the valve has to be cleaned once a year. "
                .repeat(10);
        let packed = round(text.as_bytes()).unwrap();
        let count = |byte: u8| text.bytes().filter(|&own| own == byte).count() as f64;
        let bits: f64 = (0..=255)
            .map(count)
            .filter(|&n| n > 0.0)
            .map(|n| n * (text.len() as f64 / n).log2())
            .sum();
        assert!((packed as f64) < bits / 8.0 * 1.01 + 32.0, "{packed} of {}", bits / 8.0);
    }

    #[test]
    fn extremes_are_packed_or_left() {
        assert_eq!((round(b""), round(b"short"), round(&[7; 63])), (None, None, None));
        assert!(round(&[255; 64]).is_some() && round(&[0; 100_000]).is_some());
        let all: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        assert_eq!(round(&all), None);
        // Counts that grow like this make the deepest tree.
        let (mut deep, mut counts) = (Vec::new(), (1, 1));
        for byte in (0..250).step_by(12) {
            deep.extend(vec![byte; counts.0]);
            counts = (counts.1, counts.0 + counts.1);
        }
        assert!(round(&deep).is_some());
    }

    proptest! {
        #[test]
        fn a_packed_text_is_what_it_was(text in "[a-f]{64,300}|\\PC{64,120}|[ -~]{64,200}", few in proptest::collection::vec(0u8..5, 64..400)) {
            round(text.as_bytes());
            prop_assert!(round(&few).is_some());
        }

        #[test]
        fn hostile_bytes_are_refused_or_a_text(at in 0usize..1_000, to in any::<u8>(), noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut packed = pack_text("the pump of the boiler is blocked by lime".repeat(5).as_bytes()).unwrap();
            let at = at % packed.len();
            packed[at] = to;
            for bytes in [packed, noise] {
                if let Some(text) = unpack_text(&bytes, 10_000) {
                    prop_assert_eq!(Some(text.len()), packed_text_len(&bytes));
                }
            }
        }
    }
}
