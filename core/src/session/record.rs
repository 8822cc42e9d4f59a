//! The layout of a message inside a block.
//!
//! Owns: the layout below. The bytes are our own and trusted: they never leave the process.
//!
//! | field | bytes |
//! |---|---|
//! | flags | varint: which fields follow, pinned, estimated, summary, status |
//! | role | 1: known role, or place in the session's own table |
//! | place | varint: distance from the block's base |
//! | tokens | varint |
//! | id, link | varint length and text; a length of 0 and 16 bytes for a UUID |
//! | meta, payload | varint length and bytes |

use super::message::{IdText, Link, LinkKind, Message, Status};
use crate::codec::put_varint;

pub(super) use super::message::{
    FLAG_ESTIMATED, FLAG_ID, FLAG_LINK, FLAG_META, FLAG_PINNED, FLAG_RESULT, FLAG_SUMMARY,
    FLAG_VECTOR, STATUS_SHIFT,
};

/// A record, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'b> {
    pub(super) flags: u32,
    pub(super) role: u8,
    pub(super) distance: u32,
    pub(super) tokens: u32,
    /// With its length, as `encode_id` wrote it; empty for none.
    pub(super) id: &'b [u8],
    pub(super) link: &'b [u8],
    pub(super) meta: &'b [u8],
    pub(super) payload: &'b [u8],
}

impl<'b> Record<'b> {
    /// Takes apart the record at `at`; returns where the next begins.
    pub(super) fn parse(bytes: &'b [u8], at: usize) -> (Self, usize) {
        let mut from = Varints { bytes, at };
        let flags = from.number();
        let role = from.raw(1)[0];
        let (distance, tokens) = (from.number(), from.number());
        let id = if flags & FLAG_ID != 0 { from.id() } else { &[] };
        let link = if flags & FLAG_LINK != 0 { from.id() } else { &[] };
        let meta = if flags & FLAG_META != 0 { from.text() } else { &[] };
        let payload = from.text();
        (Self { flags, role, distance, tokens, id, link, meta, payload }, from.at)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether nothing but role, text and tokens is to be told of it.
    pub(super) fn is_plain(&self) -> bool {
        self.flags & !(FLAG_ESTIMATED | FLAG_VECTOR) == 0
    }

    pub(super) fn status(&self) -> Status {
        Status::from_byte((self.flags >> STATUS_SHIFT) as u8).unwrap_or_default()
    }

    pub(super) fn id(&self) -> Option<IdText<'b>> {
        (!self.id.is_empty()).then(|| decode_id(self.id))
    }

    pub(super) fn link(&self) -> Option<Link<'b>> {
        let kind = if self.has(FLAG_RESULT) { LinkKind::Result } else { LinkKind::Call };
        (!self.link.is_empty()).then(|| Link { kind, id: decode_id(self.link) })
    }
}

/// What a walk over messages needs of each: the record's front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) at: u32,
    pub(super) flags: u32,
    pub(super) seq: u32,
    pub(super) tokens: u32,
    /// Length of the record.
    pub(super) bytes: u32,
    pub(super) role: u8,
}

impl Head {
    /// Reads the front of the record at `at` in a block of this base; returns where the next begins.
    pub(super) fn parse(bytes: &[u8], at: usize, base: u32) -> (Self, usize) {
        let mut from = Varints { bytes, at };
        let flags = from.number();
        let role = from.raw(1)[0];
        let (distance, tokens) = (from.number(), from.number());
        for _ in 0..(flags & FLAG_ID != 0) as u32 + (flags & FLAG_LINK != 0) as u32 {
            from.id();
        }
        if flags & FLAG_META != 0 {
            from.text();
        }
        from.text();
        let bytes = (from.at - at) as u32;
        (Self { at: at as u32, flags, seq: base + distance, tokens, bytes, role }, from.at)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn status(&self) -> Status {
        Status::from_byte((self.flags >> STATUS_SHIFT) as u8).unwrap_or_default()
    }
}

/// Appends the record of a message. An open one keeps its text elsewhere.
pub(super) fn encode(message: &Message<'_>, role: u8, base: u32, out: &mut Vec<u8>) {
    write_number(message.flags(), out);
    out.push(role);
    write_number(message.seq.0 - base, out);
    write_number(message.tokens, out);
    for id in [message.id, message.link.map(|link| link.id)].into_iter().flatten() {
        encode_id(&id, out);
    }
    let payload = if message.status == Status::Open { &[] } else { message.payload };
    for text in message.meta.into_iter().chain([payload]) {
        write_number(text.len() as u32, out);
        out.extend_from_slice(text);
    }
}

/// Appends an id with its length.
pub(super) fn encode_id(id: &[u8], out: &mut Vec<u8>) {
    match pack_uuid(id) {
        Some(packed) => {
            out.push(0);
            out.extend_from_slice(&packed);
        }
        None => {
            write_number(id.len() as u32, out);
            out.extend_from_slice(id);
        }
    }
}

fn decode_id(encoded: &[u8]) -> IdText<'_> {
    let mut from = Varints { bytes: encoded, at: 0 };
    match from.number() {
        0 => IdText::Uuid(unpack_uuid(from.raw(16))),
        length => IdText::Text(from.raw(length as usize)),
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where a UUID has its dashes.
const DASHES: [usize; 4] = [8, 13, 18, 23];

fn pack_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut packed = [0; 16];
    let mut digits = text.iter().enumerate().filter(|(at, _)| !DASHES.contains(at));
    for byte in &mut packed {
        let mut digit = || {
            let (_, digit) = digits.next()?;
            HEX.iter().position(|hex| hex == digit)
        };
        *byte = (digit()? << 4 | digit()?) as u8;
    }
    Some(packed)
}

fn unpack_uuid(packed: &[u8]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for byte in packed {
        for digit in [byte >> 4, byte & 15] {
            if DASHES.contains(&at) {
                at += 1;
            }
            text[at] = HEX[usize::from(digit)];
            at += 1;
        }
    }
    text
}

pub(super) fn write_number(number: u32, out: &mut Vec<u8>) {
    put_varint(number.into(), out);
}

struct Varints<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Varints<'b> {
    #[inline(always)]
    fn number(&mut self) -> u32 {
        let first = self.bytes[self.at];
        if first < 0x80 {
            self.at += 1;
            return first.into();
        }
        self.long_number()
    }

    fn long_number(&mut self) -> u32 {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.bytes[self.at];
            self.at += 1;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn raw(&mut self, count: usize) -> &'b [u8] {
        let part = &self.bytes[self.at..self.at + count];
        self.at += count;
        part
    }

    fn text(&mut self) -> &'b [u8] {
        let length = self.number() as usize;
        self.raw(length)
    }

    fn id(&mut self) -> &'b [u8] {
        let start = self.at;
        match self.number() {
            0 => self.raw(16),
            length => self.raw(length as usize),
        };
        &self.bytes[start..self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_take_seventeen_bytes_and_nothing_else_is_taken_for_one() {
        let round = |id: &[u8]| {
            let mut out = Vec::new();
            encode_id(id, &mut out);
            assert_eq!(&*decode_id(&out), id);
            out.len()
        };
        assert_eq!(round(b"01234567-89ab-cdef-0123-456789abcdef"), 17);
        assert_eq!(round(b"01234567-89AB-cdef-0123-456789abcdef"), 37);
        assert_eq!(round(b"01234567-89ag-cdef-0123-456789abcdef"), 37);
        assert_eq!(round(b"0123456789ab-cdef-0123-456789abcdef-"), 37);
        assert_eq!(round(&[b'x'; 128]), 130);
        assert_eq!(round(b"a"), 2);
    }

    #[test]
    fn numbers_of_every_length() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, 1 << 28, u32::MAX] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            let mut from = Varints { bytes: &out, at: 0 };
            assert_eq!((from.number(), from.at), (number, out.len()));
        }
    }
}
