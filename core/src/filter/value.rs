//! The semantics of comparisons and arithmetic in FILTER expressions.
//!
//! Owns: the order of numbers and of text, equality, membership, arithmetic. Called by `program` on whichever thread
//! judges; allocates nothing.

use std::cmp::Ordering;

use super::lexer::Operator;
use super::number::Number;
use super::operand::{Meter, Operand};

const WHOLE_MIN: i128 = i64::MIN as i128;
const WHOLE_MAX: i128 = u64::MAX as i128;

impl Operand<'_> {
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

/// Whole numbers stay exact as long as the result fits 64 bits.
fn arithmetic(operator: Operator, left: Number, right: Number) -> Number {
    if let (Number::Whole(one), Number::Whole(other)) = (left, right) {
        let exact = match operator {
            Operator::Add => Some(one + other),
            Operator::Subtract => Some(one - other),
            Operator::Multiply => one.checked_mul(other),
            Operator::Divide if other != 0 && one % other == 0 => Some(one / other),
            Operator::Remainder if other != 0 => Some(one % other),
            Operator::Power => u32::try_from(other).ok().and_then(|power| one.checked_pow(power)),
            _ => None,
        };
        if let Some(whole) = exact.filter(|whole| (WHOLE_MIN..=WHOLE_MAX).contains(whole)) {
            return Number::Whole(whole);
        }
    }
    let (one, other) = (left.float(), right.float());
    Number::Float(match operator {
        Operator::Add => one + other,
        Operator::Subtract => one - other,
        Operator::Multiply => one * other,
        Operator::Divide => one / other,
        Operator::Remainder => one % other,
        _ => one.powf(other),
    })
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
            (Some(one), Some(other)) => Operand::Number(arithmetic(operator, one, other)),
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
