//! Whole numbers in as few bytes as they need: seven bits a byte, the low ones first, the top bit telling that another
//! byte follows. Any thread.

/// Appends a number.
#[inline]
pub fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front of bytes; `None` where they end within it, or it has more than 64 bits.
#[inline]
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0u64, 0);
    while shift < u64::BITS {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        let numbers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]).chain([u64::MAX]);
        for number in numbers {
            let mut bytes = Vec::new();
            put_varint(number, &mut bytes);
            let whole = bytes.clone();
            let mut rest = &bytes[..];
            assert_eq!((take_varint(&mut rest), rest), (Some(number), &[][..]));
            assert_eq!(take_varint(&mut &whole[..whole.len() - 1]), None, "{number}: cut");
        }
        assert_eq!(take_varint(&mut &[0xFF; 12][..]), None);
    }
}
