//! What a row keeps of its words: the differences of their ascending numbers and how often each stands in the text, in
//! as few bytes as they need.
//!
//! Owns: the form, which is saved. Any thread.

use crate::codec::{put_varint, take_varint};

/// What a row keeps that has a text without a word.
pub(super) const NO_WORD: u8 = 0;

/// Appends a word: by how much its number is larger than the one before, and how often it stands in the text.
pub(super) fn put_word(out: &mut Vec<u8>, step: u32, count: u32) {
    // One more than needed, so that no word is the byte that stands for none.
    put_varint((u64::from(step) << 1 | u64::from(count == 1)) + 1, out);
    if count != 1 {
        put_varint(u64::from(count), out);
    }
}

/// The words of a row: number and how often. Ends where the bytes are no words.
pub(super) fn unpack(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    let mut number = 0u32;
    std::iter::from_fn(move || {
        let step = take_varint(&mut bytes)?.checked_sub(1)?;
        number = number.checked_add(u32::try_from(step >> 1).ok()?)?;
        let count = if step & 1 == 1 { 1 } else { u32::try_from(take_varint(&mut bytes)?).ok()? };
        Some((number, count))
    })
}
