//! Computes a parsed FILTER expression for one entry.
//!
//! Owns: the steps of an expression, the order in which they are computed and which are left out. Called by `Filter`
//! for every slot a filtered search visits, on whichever thread searches; reads only, allocates nothing, and does
//! not recurse on the expression.

use serde_json::{Map, Value};

use super::lexer::{Literal, Operator, Path, Segment};
use super::operand::{Meter, Operand};
use super::value::compute;
use super::verdict::{FilterCost, Verdict};
use crate::limits;

/// One step of a computation on a stack of values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Push(Literal),
    Field(Path),
    Exists(Path),
    Not,
    Binary(Operator),
    /// The left side of `and` or `or` is on top: if it decides by being this, so many steps are left out.
    SkipIf(bool, u32),
}

/// What is known of a member.
pub(super) enum Found<'a> {
    Absent,
    Is(Operand<'a>),
    /// It is there, and only the entry holds its value.
    Elsewhere,
    /// Only the entry can tell whether it is there.
    Unlisted,
}

/// Where members are looked up.
pub(super) trait Members {
    fn find(&self, path: &Path, meter: &mut Meter) -> Found<'_>;
}

/// An entry without META: every member is absent.
pub(super) struct NoMembers;

impl Members for NoMembers {
    fn find(&self, _: &Path, _: &mut Meter) -> Found<'_> {
        Found::Absent
    }
}

/// The whole of META.
pub(super) struct Document<'a>(pub(super) &'a Map<String, Value>);

impl Members for Document<'_> {
    fn find(&self, path: &Path, meter: &mut Meter) -> Found<'_> {
        let mut at = std::str::from_utf8(path.head()).ok().and_then(|name| self.0.get(name));
        for segment in path.rest() {
            if !meter.pay(1) {
                return Found::Absent;
            }
            at = match (at, segment) {
                (Some(Value::Object(members)), Segment::Name(name)) => {
                    std::str::from_utf8(name).ok().and_then(|name| members.get(name))
                }
                (Some(Value::Array(items)), Segment::At(place)) => items.get(*place as usize),
                _ => None,
            };
        }
        at.map_or(Found::Absent, |value| Found::Is(Operand::of(value)))
    }
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
                // What is left of the left side's wish to skip the right one.
                steps.pop_if(|step| matches!(step, Step::SkipIf(..)));
                uncut.push(right);
                uncut.push(steps);
            } else {
                let height = height(&steps);
                programs.push(Self { steps: steps.into_boxed_slice(), height });
            }
        }
        programs
    }

    /// What computing it may take, each step once.
    pub(super) fn cost(&self) -> FilterCost {
        let mut cost = FilterCost { terms: self.steps.len() as u64, reads: 0, looks: 0 };
        for step in &self.steps {
            match step {
                Step::Push(Literal::List(items)) => cost.terms += items.len() as u64,
                Step::Field(path) | Step::Exists(path) => cost.reads += path.segments() as u64,
                Step::Binary(Operator::In | Operator::Contains) => cost.looks += 1,
                _ => {}
            }
        }
        cost
    }

    /// The top-level members that it asks for.
    pub(super) fn heads(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Field(path) | Step::Exists(path) => Some(path.head()),
            _ => None,
        })
    }

    /// Whether the value computed from these members is true.
    pub(super) fn run(&self, members: &impl Members, meter: &mut Meter) -> Verdict {
        let value = if self.height <= SMALL_STACK {
            self.run_on::<SMALL_STACK>(members, meter)
        } else {
            self.run_on::<LARGE_STACK>(members, meter)
        };
        match value {
            _ if meter.is_short() => Verdict::TooLong,
            Some(true) => Verdict::Yes,
            Some(false) => Verdict::No,
            None => Verdict::NeedsEntry,
        }
    }

    fn run_on<const SLOTS: usize>(
        &self,
        members: &impl Members,
        meter: &mut Meter,
    ) -> Option<bool> {
        let mut stack = Stack { values: [Operand::Null; SLOTS], height: 0 };
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            at += 1;
            if !meter.pay(1) {
                return None;
            }
            let value = match step {
                Step::Push(literal) => Operand::written(literal),
                Step::Field(path) => match members.find(path, meter) {
                    Found::Absent => Operand::Null,
                    Found::Is(value) => value,
                    Found::Elsewhere | Found::Unlisted => Operand::Unknown,
                },
                Step::Exists(path) => match members.find(path, meter) {
                    Found::Absent => false.into(),
                    Found::Is(_) | Found::Elsewhere => true.into(),
                    Found::Unlisted => Operand::Unknown,
                },
                Step::Not => stack.pop().truth().map(|truth| !truth).into(),
                Step::Binary(operator) => {
                    let right = stack.pop();
                    let left = stack.pop();
                    compute(*operator, left, right, meter)
                }
                Step::SkipIf(deciding, steps) => {
                    let left = stack.pop();
                    if left.truth() == Some(*deciding) {
                        at += *steps as usize;
                        (*deciding).into()
                    } else {
                        left
                    }
                }
            };
            stack.push(value);
        }
        stack.pop().truth()
    }
}

/// How many values a step takes before it leaves its own.
fn sides(step: &Step) -> usize {
    match step {
        Step::Push(_) | Step::Field(_) | Step::Exists(_) => 0,
        Step::Not | Step::SkipIf(..) => 1,
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
