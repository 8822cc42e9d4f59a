//! Orders a FILTER expression: from tokens to the steps that compute it.
//!
//! Owns: precedence, the bounds on size and nesting, and what may follow what. Called by
//! `Filter::parse` only, on the thread that parses a command. Works with an explicit stack of pending
//! operators, so that hostile nesting costs no call stack.

use super::lexer::{Kind, Lexer, Literal, Operator, Token, quoted};
use super::program::Step;
use super::verdict::FilterError;
use crate::limits;

/// An operator whose right side is not complete, or an open parenthesis.
enum Pending {
    Open(usize),
    Not,
    /// With the place of the step that may leave out its right side, where it is `and` or `or`.
    Binary(Operator, Option<usize>),
}

/// How tightly an operator holds its sides; `not` is tighter than all of these.
fn precedence(operator: Operator) -> u8 {
    match operator {
        Operator::Or => 0,
        Operator::And => 1,
        Operator::Equal
        | Operator::NotEqual
        | Operator::Less
        | Operator::LessEqual
        | Operator::Greater
        | Operator::GreaterEqual
        | Operator::In
        | Operator::Contains => 2,
        Operator::Add | Operator::Subtract => 3,
        Operator::Multiply | Operator::Divide | Operator::Remainder => 4,
        Operator::Power => 5,
    }
}

/// Whether a pending operator is computed before a new one to its right.
fn goes_first(pending: &Pending, new: Operator) -> bool {
    match pending {
        Pending::Open(_) => false,
        Pending::Not => true,
        Pending::Binary(Operator::Power, _) if new == Operator::Power => false,
        Pending::Binary(pending, _) => precedence(*pending) >= precedence(new),
    }
}

#[derive(Default)]
struct Parser {
    /// In the order of computation: sides first, then their operator.
    steps: Vec<Step>,
    pending: Vec<Pending>,
    nodes: usize,
}

/// The steps of an expression.
pub(super) fn parse(text: &str) -> Result<Vec<Step>, FilterError> {
    let mut lexer = Lexer::new(text);
    let mut parser = Parser::default();
    let mut before = "";
    let mut value_expected = true;
    loop {
        let token = lexer.next(value_expected)?;
        parser.count(&token)?;
        let shown = token.text;
        if value_expected {
            value_expected = parser.value(token, before)?;
        } else if token.kind == Kind::End {
            break;
        } else {
            value_expected = parser.operator(token, before)?;
        }
        before = shown;
    }
    parser.finish()
}

impl Parser {
    fn count(&mut self, token: &Token<'_>) -> Result<(), FilterError> {
        self.nodes += match &token.kind {
            Kind::Literal(Literal::List(items)) => 1 + items.len(),
            Kind::Field(path) | Kind::Exists(path) => path.segments(),
            Kind::Open | Kind::Close | Kind::End => 0,
            _ => 1,
        };
        if self.nodes > limits::FILTER_MAX_NODES {
            return Err(FilterError::at(
                token.start,
                format!("more than {} values and operators", limits::FILTER_MAX_NODES),
            ));
        }
        Ok(())
    }

    /// A token where a value is expected; whether one still is after it.
    fn value(&mut self, token: Token<'_>, before: &str) -> Result<bool, FilterError> {
        match token.kind {
            Kind::Literal(literal) => self.steps.push(Step::Push(literal)),
            Kind::Field(path) => self.steps.push(Step::Field(path)),
            Kind::Exists(path) => self.steps.push(Step::Exists(path)),
            Kind::Not => {
                self.hold(Pending::Not, token.start)?;
                return Ok(true);
            }
            Kind::Open => {
                self.hold(Pending::Open(token.start), token.start)?;
                return Ok(true);
            }
            Kind::Close | Kind::Binary(_) | Kind::End => {
                let after = after(before);
                return Err(FilterError::at(token.start, format!("expected a value{after}")));
            }
        }
        Ok(false)
    }

    /// A token where an operator is expected; whether a value is after it.
    fn operator(&mut self, token: Token<'_>, before: &str) -> Result<bool, FilterError> {
        match token.kind {
            Kind::Binary(operator) => {
                while self.pending.last().is_some_and(|last| goes_first(last, operator)) {
                    self.complete();
                }
                let skip = self.skip_right_side(operator);
                self.hold(Pending::Binary(operator, skip), token.start)?;
                Ok(true)
            }
            Kind::Close => loop {
                match self.pending.last() {
                    None => {
                        return Err(FilterError::at(
                            token.start,
                            "this parenthesis closes nothing",
                        ));
                    }
                    Some(Pending::Open(_)) => {
                        self.pending.pop();
                        return Ok(false);
                    }
                    Some(_) => self.complete(),
                }
            },
            kind => {
                let hint = match kind {
                    Kind::Not => "; write not (a in b)",
                    Kind::Field(_) if before.starts_with('.') => {
                        "; the parts of a path stand without spaces"
                    }
                    _ => "",
                };
                let after = after(before);
                Err(FilterError::at(token.start, format!("expected an operator{after}{hint}")))
            }
        }
    }

    /// Has the left side of `and` and `or`, which is complete, decide alone where it can.
    fn skip_right_side(&mut self, operator: Operator) -> Option<usize> {
        let deciding = match operator {
            Operator::And => false,
            Operator::Or => true,
            _ => return None,
        };
        self.steps.push(Step::SkipIf(deciding, 0));
        Some(self.steps.len() - 1)
    }

    /// Keeps an operator until its right side is complete. As many values as are pending here, and one
    /// more, are on the stack of an evaluation, which is why this is the bound on nesting.
    fn hold(&mut self, pending: Pending, position: usize) -> Result<(), FilterError> {
        if self.pending.len() >= limits::FILTER_MAX_DEPTH {
            return Err(FilterError::at(
                position,
                format!("nested deeper than {} operators", limits::FILTER_MAX_DEPTH),
            ));
        }
        self.pending.push(pending);
        Ok(())
    }

    fn complete(&mut self) {
        match self.pending.pop() {
            Some(Pending::Not) => self.steps.push(Step::Not),
            Some(Pending::Binary(operator, skip)) => {
                self.steps.push(Step::Binary(operator));
                let end = self.steps.len();
                if let Some(Step::SkipIf(_, steps)) = skip.and_then(|at| self.steps.get_mut(at)) {
                    *steps = skip.map_or(0, |at| end - at - 1) as u32;
                }
            }
            Some(Pending::Open(_)) | None => {}
        }
    }

    fn finish(mut self) -> Result<Vec<Step>, FilterError> {
        while let Some(last) = self.pending.last() {
            if let Pending::Open(position) = last {
                return Err(FilterError::at(*position, "this parenthesis is not closed"));
            }
            self.complete();
        }
        Ok(self.steps)
    }
}

fn after(before: &str) -> String {
    match before {
        "" => String::new(),
        text => format!(" after {}", quoted(text)),
    }
}
