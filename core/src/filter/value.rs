//! Values of a FILTER expression and what comparing them means.
//!
//! Owns: numbers (whole ones exact), the order of numbers and of text, equality, membership. Called by `program` on
//! whichever thread judges; allocates nothing. All that takes longer the longer META is, is paid for from a
//! [`Meter`], so that one entry never costs more than
//! [`FILTER_STEPS_MAX`](crate::limits::FILTER_STEPS_MAX).

use std::cmp::Ordering;

use serde_json::Value;

use super::lexer::{Literal, Operator, is_space};
use super::record::PackedValues;

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

    fn pay_text(&mut self, bytes: usize) -> bool {
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

/// A number: a whole one of 64 bits, signed or not, or any other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Between `i64::MIN` and `u64::MAX`.
    Whole(i128),
    Float(f64),
}

const WHOLE_MIN: i128 = i64::MIN as i128;
const WHOLE_MAX: i128 = u64::MAX as i128;

impl Number {
    /// A number of META, as JSON is read: whole ones beyond 64 bits are floats.
    fn of_json(number: &serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Self::Whole(whole.into()),
            (_, Some(whole)) => Self::Whole(whole.into()),
            // None only with a feature of serde_json that is not in use.
            _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    /// A number as it is written, in the form of JSON but that zeros may lead.
    pub(super) fn written(digits: &str) -> Option<Self> {
        let whole = digits.parse::<i64>().map(i128::from);
        let whole = whole.or_else(|_| digits.parse::<u64>().map(i128::from));
        match whole {
            Ok(whole) => Some(Self::Whole(whole)),
            Err(_) => digits.parse().ok().map(Self::Float),
        }
    }

    pub(super) fn float(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Whole(whole) => whole == 0,
            Self::Float(float) => float == 0.0,
        }
    }

    /// The exact order, whatever the forms; none beside NaN.
    fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(&other),
            (Self::Whole(one), Self::Float(other)) => order_mixed(one, other),
            (Self::Float(one), Self::Whole(other)) => {
                order_mixed(other, one).map(Ordering::reverse)
            }
        }
    }

    /// Whole numbers stay exact as long as the result fits 64 bits.
    fn compute(operator: Operator, left: Self, right: Self) -> Self {
        if let (Self::Whole(one), Self::Whole(other)) = (left, right) {
            let exact = match operator {
                Operator::Add => Some(one + other),
                Operator::Subtract => Some(one - other),
                Operator::Multiply => one.checked_mul(other),
                Operator::Divide if other != 0 && one % other == 0 => Some(one / other),
                Operator::Remainder if other != 0 => Some(one % other),
                Operator::Power => {
                    u32::try_from(other).ok().and_then(|power| one.checked_pow(power))
                }
                _ => None,
            };
            if let Some(whole) = exact.filter(|whole| (WHOLE_MIN..=WHOLE_MAX).contains(whole)) {
                return Self::Whole(whole);
            }
        }
        let (one, other) = (left.float(), right.float());
        Self::Float(match operator {
            Operator::Add => one + other,
            Operator::Subtract => one - other,
            Operator::Multiply => one * other,
            Operator::Divide => one / other,
            Operator::Remainder => one % other,
            _ => one.powf(other),
        })
    }
}

fn order_mixed(whole: i128, float: f64) -> Option<Ordering> {
    // Far beyond 64 bits and well within 128.
    const BEYOND: f64 = 1e30;
    if float.is_nan() {
        return None;
    }
    if float.abs() >= BEYOND {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let cut = float.trunc();
    let of_fraction = || 0.0.partial_cmp(&(float - cut));
    match whole.cmp(&(cut as i128)) {
        Ordering::Equal => of_fraction(),
        order => Some(order),
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
enum Elements<'a> {
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

    fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// What it is to arithmetic: text that spells a number is that number.
    fn number(self) -> Option<Number> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => number_in(text),
            _ => None,
        }
    }

    fn elements(self) -> Option<Elements<'a>> {
        match self {
            Self::List(items) => Some(Elements::List(items.iter())),
            Self::Array(items) => Some(Elements::Array(items.iter())),
            Self::Packed(values) => Some(Elements::Packed(values)),
            _ => None,
        }
    }

    /// The order of two numbers or of two texts; nothing else has one.
    fn order(self, other: Operand<'_>, meter: &mut Meter) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Operand::Number(other)) => one.order(other),
            (Self::Text(one), Operand::Text(other)) => {
                meter.pay_text(one.len().min(other.len())).then(|| one.cmp(other))
            }
            _ => None,
        }
    }

    /// Numbers by what they are worth, text byte by byte, arrays element by element. Recurses as deep as arrays are
    /// nested, which the readers of META and of records bound.
    fn equals(self, other: Operand<'_>, meter: &mut Meter) -> bool {
        match (self, other) {
            (Self::Null, Operand::Null) => true,
            (Self::Number(one), Operand::Number(other)) => {
                one.order(other) == Some(Ordering::Equal)
            }
            (Self::Text(one), Operand::Text(other)) => {
                one.len() == other.len() && meter.pay_text(one.len()) && one == other
            }
            _ => {
                let (Some(mut one), Some(mut other)) = (self.elements(), other.elements()) else {
                    return false;
                };
                loop {
                    match (one.next(), other.next()) {
                        (None, None) => return true,
                        (Some(a), Some(b)) if meter.pay(1) && a.equals(b, meter) => {}
                        _ => return false,
                    }
                }
            }
        }
    }

    fn is_in(self, container: Operand<'_>, meter: &mut Meter) -> bool {
        if let Some(mut elements) = container.elements() {
            return elements.any(|element| meter.pay(1) && self.equals(element, meter));
        }
        match (self, container) {
            (Self::Text(part), Operand::Text(whole)) => {
                part.len() <= whole.len()
                    && meter.pay_text(part.len() + whole.len())
                    && memchr::memmem::find(whole, part).is_some()
            }
            _ => false,
        }
    }
}

/// What an operator makes of its sides.
pub(super) fn compute<'a>(
    operator: Operator,
    left: Operand<'a>,
    right: Operand<'a>,
    meter: &mut Meter,
) -> Operand<'a> {
    match operator {
        Operator::And => return both(left.truth(), right.truth()).into(),
        Operator::Or => return either(left.truth(), right.truth()).into(),
        _ if left.is_unknown() || right.is_unknown() => return Operand::Unknown,
        _ => {}
    }
    let order = |meter: &mut Meter| left.order(right, meter);
    match operator {
        Operator::Equal => left.equals(right, meter).into(),
        Operator::NotEqual => (!left.equals(right, meter)).into(),
        Operator::Less => order(meter).is_some_and(Ordering::is_lt).into(),
        Operator::LessEqual => order(meter).is_some_and(Ordering::is_le).into(),
        Operator::Greater => order(meter).is_some_and(Ordering::is_gt).into(),
        Operator::GreaterEqual => order(meter).is_some_and(Ordering::is_ge).into(),
        Operator::In => left.is_in(right, meter).into(),
        Operator::Contains => right.is_in(left, meter).into(),
        _ => match (left.number(), right.number()) {
            (Some(one), Some(other)) => Operand::Number(Number::compute(operator, one, other)),
            _ => Operand::Null,
        },
    }
}

fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn either(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// Text of this length or more is never a number, as in Redis.
const NUMBER_TEXT_LIMIT_BYTES: usize = 256;

/// The number a text spells in C's notation; none when anything in it is not part of a number.
fn number_in(text: &[u8]) -> Option<Number> {
    if text.len() >= NUMBER_TEXT_LIMIT_BYTES {
        return None;
    }
    let start = text.iter().position(|byte| !is_space(*byte))?;
    let spelled = std::str::from_utf8(text.get(start..)?).ok()?;
    if spelled.bytes().skip(1).all(|byte| byte.is_ascii_digit())
        && let Some(whole @ Number::Whole(_)) = Number::written(spelled)
    {
        return Some(whole);
    }
    let (sign, digits) = match spelled.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, spelled.strip_prefix('+').unwrap_or(spelled)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits),
        None => digits.parse().ok().or_else(|| marked_nan(digits)),
    };
    magnitude.map(|magnitude| Number::Float(sign * magnitude))
}

/// NaN with a mark of its own, `nan(mark)`, which C takes and Rust does not.
fn marked_nan(text: &str) -> Option<f64> {
    let (name, mark) = text.strip_suffix(')')?.split_once('(')?;
    let is_mark = mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_mark && name.eq_ignore_ascii_case("nan")).then_some(f64::NAN)
}

/// A hexadecimal number after its `0x`: digits, maybe a point, maybe a power of two after `p`.
fn hexadecimal(text: &str) -> Option<f64> {
    let (digits, power) = match text.split_once(['p', 'P']) {
        Some((digits, power)) => (digits, power.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let mut mantissa = 0_u64;
    let mut exponent = power.clamp(-100_000, 100_000);
    let mut point = false;
    let mut any = false;
    for character in digits.chars() {
        if character == '.' && !point {
            point = true;
            continue;
        }
        let digit = character.to_digit(16)?;
        any = true;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | u64::from(digit);
            exponent -= if point { 4 } else { 0 };
        } else {
            // More than a double holds: the lowest bit remembers it for rounding.
            mantissa |= u64::from(digit != 0);
            exponent += if point { 0 } else { 4 };
        }
    }
    any.then(|| scale(mantissa, exponent))
}

/// `mantissa * 2^exponent`, in two factors so that neither leaves the range of a double too early.
fn scale(mantissa: u64, exponent: i32) -> f64 {
    let half = (exponent / 2).clamp(-1_000, 1_000);
    let rest = (exponent - half).clamp(-1_000, 1_000);
    mantissa as f64 * 2_f64.powi(half) * 2_f64.powi(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_and_floats_compare_exactly() {
        let (whole, float) = (Number::Whole, Number::Float);
        let two_53 = 9_007_199_254_740_992;
        for (one, other, wanted) in [
            (whole(two_53 + 1), float(two_53 as f64), Some(Ordering::Greater)),
            (whole(two_53), float(two_53 as f64), Some(Ordering::Equal)),
            (whole(u64::MAX.into()), float(18_446_744_073_709_551_616.0), Some(Ordering::Less)),
            (whole(i64::MIN.into()), float(-9_223_372_036_854_775_808.0), Some(Ordering::Equal)),
            (whole(3), float(3.5), Some(Ordering::Less)),
            (whole(-3), float(-3.5), Some(Ordering::Greater)),
            (whole(0), float(-0.0), Some(Ordering::Equal)),
            (whole(0), float(1e-300), Some(Ordering::Less)),
            (whole(u64::MAX.into()), float(f64::INFINITY), Some(Ordering::Less)),
            (whole(i64::MIN.into()), float(f64::NEG_INFINITY), Some(Ordering::Greater)),
            (whole(1), float(f64::NAN), None),
        ] {
            assert_eq!(one.order(other), wanted, "{one:?} {other:?}");
            assert_eq!(other.order(one), wanted.map(Ordering::reverse), "{other:?} {one:?}");
        }
    }

    #[test]
    fn a_meter_never_gives_more_than_it_has() {
        let mut meter = Meter::new(3);
        assert!(meter.pay(2) && !meter.is_short());
        assert!(!meter.pay(2) && meter.is_short());
        assert!(!meter.pay(1) && meter.left() == 0);
        assert!(!Meter::new(u32::MAX).pay(usize::MAX));
    }
}
