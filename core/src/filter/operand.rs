//! Values while a FILTER expression is computed: those of the expression, of META, and of records, which are read as they
//! lie there.
//!
//! Owns: what a value is to each part of the language, the kinds of values in a record and reading them, and the meter
//! of steps. All that takes longer the longer META is, is paid for from a [`Meter`], so that one entry never costs more
//! than [`FILTER_STEPS_MAX`](crate::limits::FILTER_STEPS_MAX). Any thread; allocates nothing.

use serde_json::Value;

use super::lexer::Literal;
use super::number::{Number, number_in};

/// Steps left for judging one entry, and whether they were enough.
#[derive(Debug)]
pub(super) struct Meter {
    left: u32,
    is_short: bool,
}

/// Bytes of text that cost a step.
const BYTES_PER_STEP: usize = 64;

impl Meter {
    pub(super) fn new(steps: u32) -> Self {
        Self { left: steps, is_short: false }
    }

    /// Pays for steps; false when there are not enough left, and all that follows counts for nothing.
    #[inline(always)]
    pub(super) fn pay(&mut self, steps: usize) -> bool {
        match u32::try_from(steps).ok().and_then(|steps| self.left.checked_sub(steps)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                (self.left, self.is_short) = (0, true);
                false
            }
        }
    }

    pub(super) fn pay_text(&mut self, bytes: usize) -> bool {
        self.pay(bytes / BYTES_PER_STEP)
    }

    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }
}

/// A value during evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    Number(Number),
    Text(&'a [u8]),
    /// JSON's null, and what is absent.
    Null,
    /// A list of the expression.
    List(&'a [Literal]),
    /// An array of META.
    Array(&'a [Value]),
    /// The same in a record.
    Packed(PackedValues<'a>),
    /// An object: true, and equal to nothing.
    Object,
    /// Only the entry can tell.
    Unknown,
}

impl From<Option<bool>> for Operand<'_> {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Self::Unknown, |truth| Self::Number(Number::Whole(truth.into())))
    }
}

impl From<bool> for Operand<'_> {
    fn from(truth: bool) -> Self {
        Some(truth).into()
    }
}

/// The elements of a list or an array.
pub(super) enum Elements<'a> {
    List(std::slice::Iter<'a, Literal>),
    Array(std::slice::Iter<'a, Value>),
    Packed(PackedValues<'a>),
}

impl<'a> Iterator for Elements<'a> {
    type Item = Operand<'a>;

    fn next(&mut self) -> Option<Operand<'a>> {
        match self {
            Self::List(items) => items.next().map(Operand::written),
            Self::Array(items) => items.next().map(Operand::of),
            Self::Packed(values) => values.next(),
        }
    }
}

impl<'a> Operand<'a> {
    pub(super) fn written(literal: &'a Literal) -> Self {
        match literal {
            Literal::Number(number) => Self::Number(*number),
            Literal::Text(text) => Self::Text(text),
            Literal::Null => Self::Null,
            Literal::List(items) => Self::List(items),
        }
    }

    /// A value of META.
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) => Self::Number(Number::of_json(number)),
            Value::String(text) => Self::Text(text.as_bytes()),
            Value::Array(items) => Self::Array(items),
            Value::Object(_) => Self::Object,
        }
    }

    /// Whether it counts as true; None if unknown.
    pub(super) fn truth(self) -> Option<bool> {
        match self {
            Self::Number(number) => Some(!number.is_zero()),
            Self::Text(text) => Some(!text.is_empty()),
            Self::Null => Some(false),
            Self::List(_) | Self::Array(_) | Self::Packed(_) | Self::Object => Some(true),
            Self::Unknown => None,
        }
    }

    pub(super) fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// What it is to arithmetic: text that spells a number is that number.
    pub(super) fn number(self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => number_in(text),
            _ => None,
        }
    }

    pub(super) fn elements(self) -> Option<Elements<'a>> {
        match self {
            Self::List(items) => Some(Elements::List(items.iter())),
            Self::Array(items) => Some(Elements::Array(items.iter())),
            Self::Packed(values) => Some(Elements::Packed(values)),
            _ => None,
        }
    }
}

/// Only the entry holds the value.
pub(super) const ELSEWHERE: u8 = 0;
pub(super) const NULL: u8 = 1;
/// One byte, signed; JSON's booleans are such numbers too, since to an expression they are 0 and 1.
pub(super) const INT8: u8 = 2;
/// Two bytes, little endian, signed.
pub(super) const INT16: u8 = 3;
/// Four bytes, little endian, signed.
pub(super) const INT32: u8 = 4;
/// Eight bytes, little endian.
pub(super) const FLOAT: u8 = 5;
/// A length and that many bytes of UTF-8.
pub(super) const TEXT: u8 = 6;
/// Eight bytes, little endian, signed.
pub(super) const INT64: u8 = 7;
/// Eight bytes, little endian.
pub(super) const UINT64: u8 = 8;
/// A length and that many bytes of kinds and values.
pub(super) const ARRAY: u8 = 9;
/// A length and that many bytes of members.
pub(super) const OBJECT: u8 = 10;
/// There is no such member, in a record that does not list all.
pub(super) const ABSENT: u8 = 11;

/// Members passed by in the time of a step.
const MEMBERS_PER_STEP: usize = 4;

/// A value of a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    Elsewhere,
    Absent,
    Object(&'a [u8]),
    Is(Operand<'a>),
}

impl<'a> Item<'a> {
    pub(super) fn operand(self) -> Operand<'a> {
        match self {
            Self::Is(operand) => operand,
            Self::Object(_) => Operand::Object,
            Self::Elsewhere | Self::Absent => Operand::Unknown,
        }
    }
}

/// The members of an object, one after the other; ends where the bytes are malformed.
pub(super) struct PackedMembers<'a>(pub(super) &'a [u8]);

impl<'a> PackedMembers<'a> {
    pub(super) fn named(mut self, name: &[u8], meter: &mut Meter) -> Option<Item<'a>> {
        let mut passed = 0;
        let found = self.by_ref().inspect(|_| passed += 1).find(|(other, _)| *other == name);
        if meter.pay(passed / MEMBERS_PER_STEP) { found.map(|(_, item)| item) } else { None }
    }
}

impl<'a> Iterator for PackedMembers<'a> {
    type Item = (&'a [u8], Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.0.split_first()?;
        let (name, rest) = split_counted(rest)?;
        let (item, rest) = split_value(kind, rest)?;
        self.0 = rest;
        Some((name, item))
    }
}

/// The elements of an array, one after the other; ends where the bytes are malformed.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedValues<'a>(pub(super) &'a [u8]);

impl<'a> PackedValues<'a> {
    #[inline]
    pub(super) fn next_item(&mut self) -> Option<Item<'a>> {
        let (&kind, rest) = self.0.split_first()?;
        let (item, rest) = split_value(kind, rest)?;
        self.0 = rest;
        Some(item)
    }

    pub(super) fn at(mut self, place: usize, meter: &mut Meter) -> Option<Item<'a>> {
        // An element takes a byte at least: none is passed in vain.
        if place >= self.0.len() || !meter.pay(place / MEMBERS_PER_STEP) {
            return None;
        }
        for _ in 0..place {
            self.next_item()?;
        }
        self.next_item()
    }
}

impl<'a> Iterator for PackedValues<'a> {
    type Item = Operand<'a>;

    #[inline]
    fn next(&mut self) -> Option<Operand<'a>> {
        self.next_item().map(Item::operand)
    }
}

/// A length, and as many bytes.
#[inline]
fn split_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = read_length(bytes)?;
    rest.split_at_checked(length)
}

/// A value of this kind, and what follows; None where the bytes end within it.
#[inline]
fn split_value(kind: u8, bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let whole = |number: i128| Item::Is(Operand::Number(Number::Whole(number)));
    Some(match kind {
        ELSEWHERE => (Item::Elsewhere, bytes),
        ABSENT => (Item::Absent, bytes),
        NULL => (Item::Is(Operand::Null), bytes),
        INT8 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (whole(i8::from_le_bytes(*number).into()), rest)
        }
        INT16 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (whole(i16::from_le_bytes(*number).into()), rest)
        }
        INT32 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (whole(i32::from_le_bytes(*number).into()), rest)
        }
        INT64 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (whole(i64::from_le_bytes(*number).into()), rest)
        }
        UINT64 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (whole(u64::from_le_bytes(*number).into()), rest)
        }
        FLOAT => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Item::Is(Operand::Number(Number::Float(f64::from_le_bytes(*number)))), rest)
        }
        TEXT => {
            let (text, rest) = split_counted(bytes)?;
            (Item::Is(Operand::Text(text)), rest)
        }
        ARRAY => {
            let (values, rest) = split_counted(bytes)?;
            (Item::Is(Operand::Packed(PackedValues(values))), rest)
        }
        OBJECT => {
            let (members, rest) = split_counted(bytes)?;
            (Item::Object(members), rest)
        }
        _ => return None,
    })
}

/// Bits of a length: far more than a record may have bytes.
const LENGTH_BITS: u32 = 28;

#[inline]
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let (mut number, mut shift) = (usize::from(first & 0x7f), 7);
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, rest));
        }
        shift += 7;
        if shift >= LENGTH_BITS {
            return None;
        }
    }
}
