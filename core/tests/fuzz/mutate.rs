//! Changes of inputs, from seeded numbers: what a driver without coverage has to go by.

use crate::common::Random;

const BYTES_MAX: usize = 1 << 16;
const EXTREMES: [u64; 10] =
    [0, 1, u64::MAX, 1 << 47, u16::MAX as u64, u32::MAX as u64, 1 << 31, 16_384, 127, 128];

/// Changes an input at one to four places; `others` lend their parts.
pub fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.push(random.next() as u8);
        }
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(60)).min(bytes.len());
        match random.below(11) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = random.next() as u8,
            4 => bytes.truncate(at),
            5 => bytes.insert(at, random.next() as u8),
            6 => drop(bytes.drain(at..end)),
            7 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(end..end, again);
            }
            8 => bytes[at] = [0, 1, 7, 127, 128, 255, b'"', b'{', b'\\', b'('][random.below(10)],
            9 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len());
                let part = &other[from..(from + 1 + random.below(80)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            _ => {
                let wide = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                bytes[at..at + wide].copy_from_slice(&value[..wide]);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
}
