//! Computes a parsed FILTER expression for one entry.
//!
//! Owns: what operators do with values. Called by `Filter` for every slot a filtered search visits, on
//! whichever thread searches; reads only, allocates nothing, and does not recurse on the expression.

use serde_json::{Map, Value};

use super::Verdict;
use super::lexer::{Literal, Operator, is_space};
use crate::limits;

/// One step of a computation on a stack of values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Push(Literal),
    Field(Box<[u8]>),
    Not,
    Binary(Operator),
}

/// A value during evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    Number(f64),
    Text(&'a [u8]),
    Null,
    List(&'a [Literal]),
    Array(&'a [Value]),
    /// Only the entry can tell.
    Unknown,
}

/// What is known of a member.
pub(super) enum Member<'a> {
    Missing,
    Is(Operand<'a>),
    /// It exists, and only the entry holds its value.
    Elsewhere,
    /// Only the entry can tell whether it exists.
    Unlisted,
}

/// Where members are looked up.
pub(super) trait Members {
    fn find(&self, name: &[u8]) -> Member<'_>;
}

/// The whole of META.
pub(super) struct Document<'a>(pub(super) &'a Map<String, Value>);

impl Members for Document<'_> {
    fn find(&self, name: &[u8]) -> Member<'_> {
        let value = std::str::from_utf8(name).ok().and_then(|name| self.0.get(name));
        match value {
            Some(value) if is_selectable(value) => Member::Is(Operand::of(value)),
            _ => Member::Missing,
        }
    }
}

/// Deepest array that can be selected. serde_json parses no deeper document, so none is lost; the bound
/// keeps a document built in another way from exhausting the call stack.
const ARRAY_MAX_DEPTH: usize = 128;

/// Whether a member can be selected: not an object, nor an array with one anywhere inside.
pub(super) fn is_selectable(value: &Value) -> bool {
    fn within(value: &Value, levels: usize) -> bool {
        match value {
            Value::Object(_) => false,
            Value::Array(items) => levels > 0 && items.iter().all(|item| within(item, levels - 1)),
            _ => true,
        }
    }
    within(value, ARRAY_MAX_DEPTH)
}

/// Slots for values of the expressions people write; a larger array costs more to set up than such an
/// expression to compute.
const SMALL_STACK: usize = 8;
/// A value for every pending operator, and the one being computed.
const LARGE_STACK: usize = limits::FILTER_MAX_DEPTH + 1;

/// Steps that leave one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    steps: Box<[Step]>,
    /// Most values on the stack at once.
    height: usize,
}

impl Program {
    /// Cuts steps at every `and` that is not inside something else, keeping the order.
    pub(super) fn split(steps: Vec<Step>) -> Vec<Self> {
        let mut programs = Vec::new();
        let mut uncut = vec![steps];
        while let Some(mut steps) = uncut.pop() {
            if let Some(Step::Binary(Operator::And)) = steps.last() {
                steps.pop();
                let right = steps.split_off(start_of_last_value(&steps));
                uncut.push(right);
                uncut.push(steps);
            } else {
                let height = height(&steps);
                programs.push(Self { steps: steps.into_boxed_slice(), height });
            }
        }
        programs
    }

    /// Whether the value computed from these members is true. A missing member is found out before
    /// truth is asked for, since it decides alone.
    pub(super) fn run(&self, members: &impl Members) -> Verdict {
        if self.height <= SMALL_STACK {
            self.run_on::<SMALL_STACK>(members)
        } else {
            self.run_on::<LARGE_STACK>(members)
        }
    }

    fn run_on<const SLOTS: usize>(&self, members: &impl Members) -> Verdict {
        let mut stack = Stack { values: [Operand::Null; SLOTS], height: 0 };
        let mut all_listed = true;
        for step in &self.steps {
            let value = match step {
                Step::Push(literal) => Operand::written(literal),
                Step::Field(name) => match members.find(name) {
                    Member::Missing => return Verdict::No,
                    Member::Is(value) => value,
                    Member::Elsewhere => Operand::Unknown,
                    Member::Unlisted => {
                        all_listed = false;
                        Operand::Unknown
                    }
                },
                Step::Not => stack.pop().truth().map(|truth| !truth).into(),
                Step::Binary(operator) => {
                    let right = stack.pop();
                    let left = stack.pop();
                    compute(*operator, left, right)
                }
            };
            stack.push(value);
        }
        match stack.pop().truth() {
            Some(false) => Verdict::No,
            Some(true) if all_listed => Verdict::Yes,
            _ => Verdict::NeedsEntry,
        }
    }
}

/// How many values a step takes before it leaves its own.
fn sides(step: &Step) -> usize {
    match step {
        Step::Push(_) | Step::Field(_) => 0,
        Step::Not => 1,
        Step::Binary(_) => 2,
    }
}

fn start_of_last_value(steps: &[Step]) -> usize {
    let mut wanted = 1;
    for (at, step) in steps.iter().enumerate().rev() {
        wanted = wanted - 1 + sides(step);
        if wanted == 0 {
            return at;
        }
    }
    0
}

fn height(steps: &[Step]) -> usize {
    let mut now = 0_usize;
    let mut most = 0;
    for step in steps {
        now = now.saturating_sub(sides(step)) + 1;
        most = most.max(now);
    }
    most
}

/// The parser bounds the height, so neither end of the array is ever passed; if it were, the value is
/// `null` rather than a panic in the server.
struct Stack<'a, const SLOTS: usize> {
    values: [Operand<'a>; SLOTS],
    height: usize,
}

impl<'a, const SLOTS: usize> Stack<'a, SLOTS> {
    fn push(&mut self, value: Operand<'a>) {
        if let Some(slot) = self.values.get_mut(self.height) {
            *slot = value;
            self.height += 1;
        }
    }

    fn pop(&mut self) -> Operand<'a> {
        self.height = self.height.saturating_sub(1);
        self.values.get(self.height).copied().unwrap_or(Operand::Null)
    }
}

impl From<Option<bool>> for Operand<'_> {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Self::Unknown, |truth| Self::Number(f64::from(u8::from(truth))))
    }
}

impl<'a> Operand<'a> {
    fn written(literal: &'a Literal) -> Self {
        match literal {
            Literal::Number(number) => Self::Number(*number),
            Literal::Text(text) => Self::Text(text),
            Literal::Null => Self::Null,
            Literal::List(items) => Self::List(items),
        }
    }

    /// A selectable value of META.
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null | Value::Object(_) => Self::Null,
            Value::Bool(truth) => Some(*truth).into(),
            // None only with a feature of serde_json that is not in use.
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Self::Text(text.as_bytes()),
            Value::Array(items) => Self::Array(items),
        }
    }

    fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// Whether it counts as true; None if unknown.
    fn truth(self) -> Option<bool> {
        match self {
            Self::Number(number) => Some(number != 0.0),
            Self::Text(text) => Some(!text.is_empty()),
            Self::Null => Some(false),
            Self::List(_) | Self::Array(_) => Some(true),
            Self::Unknown => None,
        }
    }

    fn number(self) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Text(text) => number_in(text),
            Self::Null | Self::List(_) | Self::Array(_) | Self::Unknown => 0.0,
        }
    }

    fn equals(self, other: Operand<'_>) -> bool {
        match (self, other) {
            (Self::Text(left), Operand::Text(right)) => left == right,
            (Self::Null, Operand::Null) => true,
            (Self::Null, _) | (_, Operand::Null) => false,
            _ => self.number() == other.number(),
        }
    }

    fn is_in(self, container: Operand<'_>) -> bool {
        match (self, container) {
            (_, Operand::List(items)) => {
                items.iter().any(|item| self.equals(Operand::written(item)))
            }
            (_, Operand::Array(items)) => items.iter().any(|item| self.equals(Operand::of(item))),
            (Self::Text(part), Operand::Text(whole)) => {
                part.is_empty() || whole.windows(part.len()).any(|window| window == part)
            }
            _ => false,
        }
    }
}

fn compute<'a>(operator: Operator, left: Operand<'a>, right: Operand<'a>) -> Operand<'a> {
    let decided = match operator {
        Operator::And => return both(left.truth(), right.truth()).into(),
        Operator::Or => return either(left.truth(), right.truth()).into(),
        _ if left.is_unknown() || right.is_unknown() => return Operand::Unknown,
        Operator::Equal => left.equals(right),
        Operator::NotEqual => !left.equals(right),
        Operator::Less => left.number() < right.number(),
        Operator::LessEqual => left.number() <= right.number(),
        Operator::Greater => left.number() > right.number(),
        Operator::GreaterEqual => left.number() >= right.number(),
        Operator::In => left.is_in(right),
        Operator::Add => return Operand::Number(left.number() + right.number()),
        Operator::Subtract => return Operand::Number(left.number() - right.number()),
        Operator::Multiply => return Operand::Number(left.number() * right.number()),
        Operator::Divide => return Operand::Number(left.number() / right.number()),
        Operator::Remainder => return Operand::Number(left.number() % right.number()),
        Operator::Power => return Operand::Number(left.number().powf(right.number())),
    };
    Some(decided).into()
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

/// The number a text spells in C's notation, or 0 when anything in it is not part of a number.
fn number_in(text: &[u8]) -> f64 {
    if text.len() >= NUMBER_TEXT_LIMIT_BYTES {
        return 0.0;
    }
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    let Some(Ok(spelled)) = text.get(start..).map(std::str::from_utf8) else {
        return 0.0;
    };
    let (sign, digits) = match spelled.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, spelled.strip_prefix('+').unwrap_or(spelled)),
    };
    if digits.starts_with(['+', '-']) {
        return 0.0;
    }
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits),
        None => digits.parse().ok().or_else(|| marked_nan(digits)),
    };
    magnitude.map_or(0.0, |magnitude| sign * magnitude)
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
