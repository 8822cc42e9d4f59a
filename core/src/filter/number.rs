//! Numbers of a FILTER expression and of META: whole ones of 64 bits are exact.
//!
//! Owns: how a number is written, in JSON and in text, and the order of numbers whatever their forms. Any thread;
//! allocates nothing.

use std::cmp::Ordering;

/// A number: a whole one of 64 bits, signed or not, or any other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Between `i64::MIN` and `u64::MAX`.
    Whole(i128),
    Float(f64),
}

impl Number {
    /// A number of META, as JSON is read: whole ones beyond 64 bits are floats.
    pub(super) fn of_json(number: &serde_json::Number) -> Self {
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

    pub(super) fn is_zero(self) -> bool {
        match self {
            Self::Whole(whole) => whole == 0,
            Self::Float(float) => float == 0.0,
        }
    }

    /// The exact order, whatever the forms; none beside NaN.
    pub(super) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(&other),
            (Self::Whole(one), Self::Float(other)) => order_mixed(one, other),
            (Self::Float(one), Self::Whole(other)) => {
                order_mixed(other, one).map(Ordering::reverse)
            }
        }
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

/// What C calls white space; `u8::is_ascii_whitespace` leaves out the vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Text of this length or more is never a number, as in Redis.
const NUMBER_TEXT_LIMIT_BYTES: usize = 256;

/// The number a text spells in C's notation; none when anything in it is not part of a number.
pub(super) fn number_in(text: &[u8]) -> Option<Number> {
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
