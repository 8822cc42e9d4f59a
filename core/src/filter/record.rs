//! The members of META that are kept beside a slot, in one small allocation.
//!
//! Owns: which members are kept and the bytes they are kept in, in memory and as persisted. Built on the thread that
//! writes an entry or judges it; read on whichever thread searches. A record is immutable.
//!
//! META is kept whole as long as that takes no more than [`FILTER_RECORD_BYTES`](limits::FILTER_RECORD_BYTES): all of
//! the names first, then the values, small ones before large ones. What found no room is kept all the same once a
//! filter has asked for it (`asked`), so that no filter opens an entry twice for it.
//!
//! The first byte says whether names were left out. Then, for each member: a kind, the length of its name, the name,
//! and the value as the kind says. Lengths are in groups of seven bits, the low ones first, the top bit of a byte
//! telling that another follows. An array holds kinds and values, an object members.

use hashbrown::HashSet;
use serde_json::{Map, Value};
use std::sync::Arc;

use super::lexer::{Path, Segment};
use super::number::Number;
use super::operand::{
    ABSENT, ARRAY, ELSEWHERE, FLOAT, INT8, INT16, INT32, INT64, Item, Meter, NULL, OBJECT, Operand,
    PackedMembers, TEXT, UINT64,
};
use super::program::{Found, Members};
use crate::codec::put_varint;
use crate::limits;

/// Every member is listed: one that is not found does not exist.
const COMPLETE: u8 = 0;
/// Some names found no room: one that is not found may exist.
const PARTIAL: u8 = 1;

/// Deepest nesting that is kept. serde_json parses no deeper document, so none is lost; the bound keeps hostile
/// bytes from exhausting the call stack.
const MAX_DEPTH: usize = 128;
/// What an `Arc` keeps before its bytes: two counts.
const ALLOCATION_HEAD_BYTES: usize = 16;
/// The members of an entry's META, as far as they are kept beside its slot.
///
/// Shared, so that a search on another thread keeps what it reads; entries without META have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRecord(Arc<[u8]>);

/// A member on its way into a record.
struct Listed<'a> {
    name: &'a [u8],
    /// Kind and value.
    value: Vec<u8>,
    is_kept: bool,
}

impl FilterRecord {
    /// The record of a META object, with what filters ask for by these names whole; None for an object without
    /// members, which is the same as no META.
    pub fn from_meta(meta: &Map<String, Value>, asked: &HashSet<&[u8]>) -> Option<Self> {
        if meta.is_empty() {
            return None;
        }
        let mut room = limits::FILTER_RECORD_BYTES - 1;
        let mut completeness = COMPLETE;
        let mut listed = Vec::with_capacity(meta.len());
        for (name, value) in meta {
            let name = name.as_bytes();
            let head = 1 + varint_len(name.len()) + name.len();
            let is_asked = asked.contains(name);
            // What is asked for takes no room from the rest, which was decided by before.
            match room.checked_sub(head) {
                _ if is_asked => {}
                Some(left) => room = left,
                None => {
                    completeness = PARTIAL;
                    continue;
                }
            }
            let mut bytes = Vec::new();
            let is_kept = encode(value, &mut bytes, MAX_DEPTH) && is_asked;
            listed.push(Listed { name, value: bytes, is_kept });
        }
        let mut by_size: Vec<_> = (0..listed.len()).collect();
        by_size.sort_by_key(|&at| listed[at].value.len());
        for at in by_size {
            let one = &mut listed[at];
            let size = one.value.len().saturating_sub(1);
            if !one.is_kept && !one.value.is_empty() && size <= room {
                room -= size;
                one.is_kept = true;
            }
        }
        let mut bytes = vec![completeness];
        for Listed { name, value, is_kept } in &listed {
            let (kind, value) = match value.split_first() {
                Some((&kind, value)) if *is_kept => (kind, value),
                _ => (ELSEWHERE, &[][..]),
            };
            write_name(kind, name, &mut bytes);
            bytes.extend_from_slice(value);
        }
        if completeness == PARTIAL {
            let mut absent: Vec<_> = asked.iter().filter(|name| !has(meta, name)).collect();
            absent.sort_unstable();
            absent.into_iter().for_each(|name| write_name(ABSENT, name, &mut bytes));
        }
        Some(Self(bytes.into()))
    }

    /// The record of the same META that holds all that a filter asks for by its `heads`, and what the former one did.
    pub fn widened<'m>(
        former: Option<&'m Self>,
        meta: &Map<String, Value>,
        heads: impl Iterator<Item = &'m [u8]>,
    ) -> Option<Self> {
        let mut asked: HashSet<&[u8]> = heads.collect();
        if let Some(former) = former {
            let members = PackedMembers(former.members());
            let told = members.filter(|(_, item)| !matches!(item, Item::Elsewhere));
            asked.extend(told.map(|(name, _)| name));
        }
        Self::from_meta(meta, &asked)
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
        let (completeness, members) = bytes.split_first()?;
        let is_known = matches!(*completeness, COMPLETE | PARTIAL);
        (is_known && are_members(members, true, MAX_DEPTH)).then(|| Self(bytes.into()))
    }

    /// A record as releases before the second form of blocks of slots persisted it. Whole numbers beyond 2^53 were
    /// rounded and objects were left out without a word: of both only the entry knows.
    pub fn from_first_form(bytes: &[u8]) -> Option<Self> {
        const FIRST_FORM_MAX_BYTES: usize = 256;
        const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
        let (completeness, mut rest) = bytes.split_first()?;
        if bytes.len() > FIRST_FORM_MAX_BYTES || !matches!(*completeness, COMPLETE | PARTIAL) {
            return None;
        }
        let mut out = vec![PARTIAL];
        while !rest.is_empty() {
            let (&[kind, name_length], after) = rest.split_first_chunk()?;
            let (name, after) = after.split_at_checked(usize::from(name_length))?;
            let length = match kind {
                ELSEWHERE | NULL => 0,
                INT8 => 1,
                INT16 => 2,
                INT32 => 4,
                FLOAT => 8,
                TEXT => 1 + usize::from(*after.first()?),
                _ => return None,
            };
            let (value, after) = after.split_at_checked(length)?;
            if kind == TEXT {
                let text = value.get(1..)?;
                write_name(kind, name, &mut out);
                write_length(text.len(), &mut out);
                out.extend_from_slice(text);
            } else if kind == FLOAT
                && f64::from_le_bytes(value.try_into().ok()?).abs() >= EXACT_BELOW
            {
                write_name(ELSEWHERE, name, &mut out);
            } else {
                write_name(kind, name, &mut out);
                out.extend_from_slice(value);
            }
            rest = after;
        }
        Self::from_bytes(&out)
    }

    fn members(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }
}

fn has(meta: &Map<String, Value>, name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| meta.contains_key(name))
}

impl Members for FilterRecord {
    fn find(&self, path: &Path, meter: &mut Meter) -> Found<'_> {
        let mut at = match PackedMembers(self.members()).named(path.head(), meter) {
            Some(Item::Elsewhere) if path.rest().is_empty() => return Found::Elsewhere,
            Some(Item::Elsewhere) => return Found::Unlisted,
            None if self.0.first() != Some(&COMPLETE) => return Found::Unlisted,
            Some(Item::Absent) | None => return Found::Absent,
            Some(item) => item,
        };
        for segment in path.rest() {
            let next = match (at, segment) {
                (Item::Object(members), Segment::Name(name)) => {
                    PackedMembers(members).named(name, meter)
                }
                (Item::Is(Operand::Packed(values)), Segment::At(place)) => {
                    values.at(*place as usize, meter)
                }
                _ => None,
            };
            match next {
                Some(item) => at = item,
                None => return Found::Absent,
            }
        }
        Found::Is(at.operand())
    }
}

/// Whether bytes are members to the last one.
fn are_members(bytes: &[u8], is_top: bool, levels: usize) -> bool {
    let mut members = PackedMembers(bytes);
    while !members.0.is_empty() {
        let Some((name, item)) = members.next() else { return false };
        let is_hint = matches!(item, Item::Elsewhere | Item::Absent);
        if std::str::from_utf8(name).is_err() || !(is_hint && is_top || is_value(item, levels)) {
            return false;
        }
    }
    true
}

fn is_value(item: Item<'_>, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match item {
        Item::Elsewhere | Item::Absent => false,
        Item::Object(members) => are_members(members, false, below),
        Item::Is(Operand::Packed(mut values)) => {
            while !values.0.is_empty() {
                if !values.next_item().is_some_and(|item| is_value(item, below)) {
                    return false;
                }
            }
            true
        }
        Item::Is(Operand::Text(text)) => std::str::from_utf8(text).is_ok(),
        Item::Is(Operand::Number(Number::Float(float))) => float.is_finite(),
        Item::Is(_) => true,
    }
}

/// Writes kind and value; false, and nothing, for one that is nested too deep.
fn encode(value: &Value, out: &mut Vec<u8>, levels: usize) -> bool {
    let start = out.len();
    let is_whole = levels > 0
        && match value {
            Value::Array(items) => write_within(ARRAY, out, |out| {
                items.iter().all(|item| encode(item, out, levels - 1))
            }),
            Value::Object(members) => write_within(OBJECT, out, |out| {
                members.iter().all(|(name, value)| {
                    let at = out.len();
                    let is_whole = encode(value, out, levels - 1);
                    if is_whole {
                        // The name stands between kind and value.
                        let value = out.split_off(at + 1);
                        write_length(name.len(), out);
                        out.extend_from_slice(name.as_bytes());
                        out.extend_from_slice(&value);
                    }
                    is_whole
                })
            }),
            Value::String(text) => {
                out.push(TEXT);
                write_length(text.len(), out);
                out.extend_from_slice(text.as_bytes());
                true
            }
            scalar => {
                write_scalar(scalar, out);
                true
            }
        };
    if !is_whole {
        out.truncate(start);
    }
    is_whole
}

/// Writes a kind, and what is written within after its length.
fn write_within(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let mut within = Vec::new();
    let is_whole = write(&mut within);
    out.push(kind);
    write_length(within.len(), out);
    out.extend_from_slice(&within);
    is_whole
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    match Operand::of(value) {
        Operand::Number(Number::Whole(whole)) => {
            if let Ok(number) = i8::try_from(whole) {
                out.push(INT8);
                out.extend_from_slice(&number.to_le_bytes());
            } else if let Ok(number) = i16::try_from(whole) {
                out.push(INT16);
                out.extend_from_slice(&number.to_le_bytes());
            } else if let Ok(number) = i32::try_from(whole) {
                out.push(INT32);
                out.extend_from_slice(&number.to_le_bytes());
            } else if let Ok(number) = i64::try_from(whole) {
                out.push(INT64);
                out.extend_from_slice(&number.to_le_bytes());
            } else {
                // Whole numbers of META have 64 bits.
                out.push(UINT64);
                out.extend_from_slice(&(whole as u64).to_le_bytes());
            }
        }
        Operand::Number(Number::Float(number)) => {
            out.push(FLOAT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        _ => out.push(NULL),
    }
}

fn write_name(kind: u8, name: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    write_length(name.len(), out);
    out.extend_from_slice(name);
}

const fn varint_len(number: usize) -> usize {
    let mut bytes = 1;
    let mut rest = number >> 7;
    while rest != 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}

fn write_length(number: usize, out: &mut Vec<u8>) {
    put_varint(number as u64, out);
}
