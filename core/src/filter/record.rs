//! The members of META that are kept beside a slot, in one small allocation.
//!
//! Owns: the bytes of that record, in memory and as persisted. Built on the thread that writes an
//! entry; read on whichever thread searches. A record is immutable.
//!
//! The first byte says whether members were left out. Then, for each member: a kind, the length of its
//! name, the name, and the value as the kind says. Only what an expression can select is listed:
//! objects, arrays that hold one, and names that cannot be written in an expression count as missing,
//! and need no room to be so.

use serde_json::{Map, Value};
use std::sync::Arc;

use super::eval::{Member, Members, Operand, is_selectable};
use super::lexer::is_name_byte;
use crate::limits;

/// Every selectable member is listed: one that is not found does not exist.
const COMPLETE: u8 = 0;
/// Some members found no room: one that is not found may exist.
const PARTIAL: u8 = 1;

/// Only the entry holds the value.
const ELSEWHERE: u8 = 0;
const NULL: u8 = 1;
/// One byte, signed; JSON's booleans are such numbers too, since to an expression they are 0 and 1.
const INT8: u8 = 2;
/// Two bytes, little endian, signed.
const INT16: u8 = 3;
/// Four bytes, little endian, signed.
const INT32: u8 = 4;
/// Eight bytes, little endian.
const FLOAT: u8 = 5;
/// A length byte and that many bytes.
const TEXT: u8 = 6;

/// Kind and length of the name.
const MEMBER_HEAD_BYTES: usize = 2;
/// Values up to this size get room before longer text does: numbers are filtered on most.
const SHORT_VALUE_BYTES: usize = 16;
/// What an `Arc` keeps before its bytes: two counts.
const ALLOCATION_HEAD_BYTES: usize = 16;

/// The scalar members of an entry's META, as far as they fit
/// [`FILTER_RECORD_MAX_BYTES`](limits::FILTER_RECORD_MAX_BYTES).
///
/// Shared, so that a search on another thread keeps what it reads; entries without META have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRecord(Arc<[u8]>);

impl FilterRecord {
    /// The record of a META object; None for an object without members, which is the same as no META.
    pub fn from_meta(meta: &Map<String, Value>) -> Option<Self> {
        if meta.is_empty() {
            return None;
        }
        let mut room = limits::FILTER_RECORD_MAX_BYTES - 1;
        let mut completeness = COMPLETE;
        let mut listed = Vec::new();
        for (name, value) in meta.iter().filter(|(name, value)| is_listable(name, value)) {
            let head = MEMBER_HEAD_BYTES + name.len();
            if name.len() <= usize::from(u8::MAX) && head <= room {
                room -= head;
                listed.push((name, Encoded::of(value), false));
            } else {
                completeness = PARTIAL;
            }
        }
        for longest in [SHORT_VALUE_BYTES, usize::MAX] {
            for (_, value, fits) in listed.iter_mut().filter(|(_, _, fits)| !fits) {
                let size = value.size();
                if size <= room.min(longest) {
                    room -= size;
                    *fits = true;
                }
            }
        }
        let mut bytes = Vec::with_capacity(limits::FILTER_RECORD_MAX_BYTES - room);
        bytes.push(completeness);
        for (name, value, fits) in listed {
            let value = if fits { value } else { Encoded::Elsewhere };
            value.write(name, &mut bytes);
        }
        Some(Self(bytes.into()))
    }

    /// Memory it takes, besides the handle.
    pub fn bytes(&self) -> usize {
        (ALLOCATION_HEAD_BYTES + self.0.len()).next_multiple_of(align_of::<usize>())
    }

    /// The record as it is persisted.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A persisted record; None unless it is within its bound and well formed to the last byte.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > limits::FILTER_RECORD_MAX_BYTES {
            return None;
        }
        let (completeness, mut rest) = bytes.split_first()?;
        if !matches!(*completeness, COMPLETE | PARTIAL) {
            return None;
        }
        while !rest.is_empty() {
            let (name, value, after) = split_member(rest)?;
            let is_name = !name.is_empty() && name.iter().copied().all(is_name_byte);
            let is_value = match value {
                Member::Is(Operand::Text(text)) => std::str::from_utf8(text).is_ok(),
                Member::Is(Operand::Number(number)) => number.is_finite(),
                _ => true,
            };
            if !is_name || !is_value {
                return None;
            }
            rest = after;
        }
        Some(Self(bytes.into()))
    }
}

impl Members for FilterRecord {
    fn find(&self, name: &[u8]) -> Member<'_> {
        let Some((completeness, mut rest)) = self.0.split_first() else {
            return Member::Unlisted;
        };
        while let Some((listed, value, after)) = split_member(rest) {
            if listed == name {
                return value;
            }
            rest = after;
        }
        match *completeness {
            COMPLETE => Member::Missing,
            _ => Member::Unlisted,
        }
    }
}

fn is_listable(name: &str, value: &Value) -> bool {
    !name.is_empty() && name.bytes().all(is_name_byte) && is_selectable(value)
}

/// Name, value and what follows of the first member, unless the bytes end within it.
fn split_member(bytes: &[u8]) -> Option<(&[u8], Member<'_>, &[u8])> {
    let (&[kind, name_length], rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_length))?;
    let (operand, rest) = match kind {
        ELSEWHERE => return Some((name, Member::Elsewhere, rest)),
        NULL => (Operand::Null, rest),
        INT8 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (Operand::Number(i8::from_le_bytes(*bytes).into()), rest)
        }
        INT16 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (Operand::Number(i16::from_le_bytes(*bytes).into()), rest)
        }
        INT32 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (Operand::Number(i32::from_le_bytes(*bytes).into()), rest)
        }
        FLOAT => {
            let (bytes, rest) = rest.split_first_chunk()?;
            (Operand::Number(f64::from_le_bytes(*bytes)), rest)
        }
        TEXT => {
            let (length, rest) = rest.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(*length))?;
            (Operand::Text(text), rest)
        }
        _ => return None,
    };
    Some((name, Member::Is(operand), rest))
}

/// A value in the form that takes the least room.
enum Encoded<'a> {
    Elsewhere,
    Null,
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Float(f64),
    Text(u8, &'a [u8]),
}

impl<'a> Encoded<'a> {
    fn of(value: &'a Value) -> Self {
        match Operand::of(value) {
            Operand::Null => Self::Null,
            Operand::Number(number) => Self::number(number),
            Operand::Text(text) => match u8::try_from(text.len()) {
                Ok(length) => Self::Text(length, text),
                Err(_) => Self::Elsewhere,
            },
            _ => Self::Elsewhere,
        }
    }

    fn number(number: f64) -> Self {
        // The cast saturates and drops fractions, and zero loses its sign: bits tell whether it is exact.
        let whole = number as i32;
        if f64::from(whole).to_bits() != number.to_bits() {
            Self::Float(number)
        } else if let Ok(whole) = i8::try_from(whole) {
            Self::Int8(whole)
        } else if let Ok(whole) = i16::try_from(whole) {
            Self::Int16(whole)
        } else {
            Self::Int32(whole)
        }
    }

    /// Bytes of the value, after the name.
    fn size(&self) -> usize {
        match self {
            Self::Elsewhere | Self::Null => 0,
            Self::Int8(_) => 1,
            Self::Int16(_) => 2,
            Self::Int32(_) => 4,
            Self::Float(_) => 8,
            Self::Text(_, text) => 1 + text.len(),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Elsewhere => ELSEWHERE,
            Self::Null => NULL,
            Self::Int8(_) => INT8,
            Self::Int16(_) => INT16,
            Self::Int32(_) => INT32,
            Self::Float(_) => FLOAT,
            Self::Text(..) => TEXT,
        }
    }

    fn write(&self, name: &str, bytes: &mut Vec<u8>) {
        // Names longer than a byte can count are not listed.
        let name_length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        bytes.extend_from_slice(&[self.kind(), name_length]);
        bytes.extend_from_slice(name.as_bytes());
        match self {
            Self::Elsewhere | Self::Null => {}
            Self::Int8(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            Self::Int16(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            Self::Int32(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            Self::Float(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            Self::Text(length, text) => {
                bytes.push(*length);
                bytes.extend_from_slice(text);
            }
        }
    }
}
