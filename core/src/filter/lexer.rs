//! Cuts a FILTER expression into tokens.
//!
//! Owns: the spelling of the language. Called by `parser` only, on the thread that parses a command;
//! keeps nothing between calls but its place in the text.

use super::number::{Number, is_space};
use super::verdict::FilterError;
use crate::limits;

/// A value written in an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Number(Number),
    Text(Box<[u8]>),
    Null,
    List(Box<[Literal]>),
}

/// A step into a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// The member of an object.
    Name(Box<[u8]>),
    /// The element of an array, counted from 0.
    At(u32),
}

/// The way to a member: the name of a top-level one, then into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    head: Box<[u8]>,
    rest: Box<[Segment]>,
}

impl Path {
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn rest(&self) -> &[Segment] {
        &self.rest
    }

    pub(super) fn segments(&self) -> usize {
        1 + self.rest.len()
    }
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Contains,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Literal(Literal),
    Field(Path),
    Exists(Path),
    Not,
    Open,
    Close,
    Binary(Operator),
    End,
}

/// A token and the bytes it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) text: &'t str,
}

/// Spellings, each before those it starts with, so that the first that fits is the longest.
const SYMBOLS: [(&str, Kind); 17] = [
    ("(", Kind::Open),
    (")", Kind::Close),
    ("**", Kind::Binary(Operator::Power)),
    ("*", Kind::Binary(Operator::Multiply)),
    ("/", Kind::Binary(Operator::Divide)),
    ("%", Kind::Binary(Operator::Remainder)),
    ("+", Kind::Binary(Operator::Add)),
    ("-", Kind::Binary(Operator::Subtract)),
    (">=", Kind::Binary(Operator::GreaterEqual)),
    (">", Kind::Binary(Operator::Greater)),
    ("<=", Kind::Binary(Operator::LessEqual)),
    ("<", Kind::Binary(Operator::Less)),
    ("==", Kind::Binary(Operator::Equal)),
    ("!=", Kind::Binary(Operator::NotEqual)),
    ("!", Kind::Not),
    ("&&", Kind::Binary(Operator::And)),
    ("||", Kind::Binary(Operator::Or)),
];

/// Words that stand for values; the whole word must be one of these.
const NAMED_VALUES: [(&str, Literal); 3] =
    [("null", Literal::Null), ("true", truth(1)), ("false", truth(0))];

const fn truth(number: i128) -> Literal {
    Literal::Number(Number::Whole(number))
}

/// Words that are operators; what follows may touch them, as in `not1`.
const WORDS: [(&str, Kind); 5] = [
    ("and", Kind::Binary(Operator::And)),
    ("or", Kind::Binary(Operator::Or)),
    ("not", Kind::Not),
    ("in", Kind::Binary(Operator::In)),
    ("contains", Kind::Binary(Operator::Contains)),
];

/// Asks whether a member is there; the whole word, and a parenthesis after it.
const EXISTS: &str = "exists";

/// Whether a character can be part of a name without quotes: letters and digits of any script, `_` and `-`.
fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

/// A piece of the expression for an error message, shortened and with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 24;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A place in an expression.
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token. Where a value is expected a minus belongs to the number after it, elsewhere it
    /// subtracts.
    pub(super) fn next(&mut self, value_expected: bool) -> Result<Token<'t>, FilterError> {
        self.skip_while(is_space);
        let start = self.at;
        let kind = match self.peek() {
            None => Kind::End,
            Some(b'"' | b'\'') => Kind::Literal(Literal::Text(self.quoted_text()?)),
            Some(b'.') => Kind::Field(self.path()?),
            Some(b'[') => Kind::Literal(Literal::List(self.list()?)),
            Some(byte) if byte.is_ascii_digit() => Kind::Literal(self.number()?),
            Some(b'-') if value_expected => self.negative()?,
            Some(byte) if byte.is_ascii_alphabetic() => self.word()?,
            Some(_) => self.symbol()?,
        };
        let text = self.slice(start, self.at);
        Ok(Token { kind, start, text })
    }

    fn bytes(&self) -> &'t [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn peek_after(&self) -> Option<u8> {
        self.bytes().get(self.at + 1).copied()
    }

    fn slice(&self, start: usize, end: usize) -> &'t str {
        self.text.get(start..end).unwrap_or_default()
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    /// `.name`, and what follows it without a space: `.name`, `."any name"`, `[place]`.
    fn path(&mut self) -> Result<Path, FilterError> {
        let start = self.at;
        let head = self.name()?;
        let mut rest = Vec::new();
        loop {
            match self.peek() {
                Some(b'.') => rest.push(Segment::Name(self.name()?)),
                Some(b'[') => rest.push(Segment::At(self.place()?)),
                _ => break,
            }
            if rest.len() >= limits::FILTER_MAX_PATH {
                let message = format!("a path of more than {} names", limits::FILTER_MAX_PATH);
                return Err(FilterError::at(start, message));
            }
        }
        Ok(Path { head, rest: rest.into_boxed_slice() })
    }

    /// A dot and the name after it.
    fn name(&mut self) -> Result<Box<[u8]>, FilterError> {
        self.at += 1;
        let start = self.at;
        if let Some(b'"' | b'\'') = self.peek() {
            return self.quoted_text();
        }
        let rest = self.slice(start, self.text.len());
        let length = rest.find(|character| !is_name_character(character)).unwrap_or(rest.len());
        if length == 0 {
            return Err(FilterError::at(start, "expected the name of a member after \".\""));
        }
        self.at += length;
        Ok(self.slice(start, self.at).as_bytes().into())
    }

    /// The place of an element in brackets.
    fn place(&mut self) -> Result<u32, FilterError> {
        let open = self.at;
        self.at += 1;
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_digit());
        let place = self.slice(start, self.at).parse().ok();
        match (place, self.peek()) {
            (Some(place), Some(b']')) => {
                self.at += 1;
                Ok(place)
            }
            _ => {
                let message = "expected the place of an element, from 0, and \"]\"; names take a dot and quotes";
                Err(FilterError::at(open, message))
            }
        }
    }

    /// What follows the word `exists`.
    fn exists(&mut self) -> Result<Kind, FilterError> {
        self.skip_while(is_space);
        self.expect(b'(')?;
        self.skip_while(is_space);
        if self.peek() != Some(b'.') {
            return Err(FilterError::at(self.at, "exists takes a member, as in exists(.name)"));
        }
        let path = self.path()?;
        self.skip_while(is_space);
        self.expect(b')')?;
        Ok(Kind::Exists(path))
    }

    fn expect(&mut self, byte: u8) -> Result<(), FilterError> {
        if self.peek() != Some(byte) {
            return Err(FilterError::at(self.at, "exists takes a member, as in exists(.name)"));
        }
        self.at += 1;
        Ok(())
    }

    fn negative(&mut self) -> Result<Kind, FilterError> {
        if !self.peek_after().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(FilterError::at(
                self.at,
                "a minus sign goes right before a number; to negate anything else write 0 - ...",
            ));
        }
        Ok(Kind::Literal(self.number()?))
    }

    fn number(&mut self) -> Result<Literal, FilterError> {
        let start = self.at;
        // The first byte is a digit, or the minus of a negative number.
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'e' | b'E') => {
                    self.at += 1;
                    if matches!(self.peek(), Some(b'+' | b'-')) {
                        self.at += 1;
                    }
                }
                Some(b'0'..=b'9' | b'.') => self.at += 1,
                _ => break,
            }
        }
        let digits = self.slice(start, self.at);
        match Number::written(digits) {
            Some(number) => Ok(Literal::Number(number)),
            None => Err(FilterError::at(start, format!("{} is not a number", quoted(digits)))),
        }
    }

    fn word(&mut self) -> Result<Kind, FilterError> {
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_alphabetic());
        let word = self.slice(start, self.at);
        if let Some((_, literal)) = NAMED_VALUES.iter().find(|(name, _)| *name == word) {
            return Ok(Kind::Literal(literal.clone()));
        }
        if word == EXISTS {
            return self.exists();
        }
        if let Some((name, kind)) = WORDS.iter().find(|(name, _)| word.starts_with(name)) {
            self.at = start + name.len();
            return Ok(kind.clone());
        }
        Err(FilterError::at(
            start,
            format!(
                "unknown word {}; operators are in lower case, members start with a dot, text is quoted",
                quoted(word)
            ),
        ))
    }

    fn symbol(&mut self) -> Result<Kind, FilterError> {
        let rest = self.slice(self.at, self.text.len());
        match SYMBOLS.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, kind)) => {
                self.at += name.len();
                Ok(kind.clone())
            }
            None => {
                let end = rest.chars().next().map_or(0, char::len_utf8);
                let found = rest.get(..end).unwrap_or_default();
                let hint = match found {
                    "=" => "; equality is ==",
                    "&" => "; the operator is &&",
                    "|" => "; the operator is ||",
                    _ => "",
                };
                Err(FilterError::at(self.at, format!("unexpected {}{hint}", quoted(found))))
            }
        }
    }

    fn list(&mut self) -> Result<Box<[Literal]>, FilterError> {
        let open = self.at;
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_while(is_space);
            if self.peek() == Some(b']') {
                break;
            }
            items.push(self.list_item(open)?);
            self.skip_while(is_space);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                None => return Err(FilterError::at(open, "this list is not closed")),
                Some(_) => {
                    return Err(FilterError::at(self.at, "expected \",\" or \"]\" in a list"));
                }
            }
        }
        self.at += 1;
        Ok(items.into_boxed_slice())
    }

    fn list_item(&mut self, open: usize) -> Result<Literal, FilterError> {
        let start = self.at;
        match self.peek() {
            None => return Err(FilterError::at(open, "this list is not closed")),
            Some(b'"' | b'\'') => return Ok(Literal::Text(self.quoted_text()?)),
            Some(byte) if byte == b'-' || byte.is_ascii_digit() => return self.number(),
            Some(byte) if byte.is_ascii_alphabetic() => {
                if let Kind::Literal(literal) = self.word()? {
                    return Ok(literal);
                }
            }
            Some(_) => {}
        }
        Err(FilterError::at(start, "a list holds numbers, quoted text, true, false and null only"))
    }

    fn quoted_text(&mut self) -> Result<Box<[u8]>, FilterError> {
        let open = self.at;
        let quote = self.peek();
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                None => return Err(FilterError::at(open, "this text is not closed")),
                Some(b'\\') => self.escape(open, &mut text)?,
                byte if byte == quote => break,
                Some(byte) => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(text.into_boxed_slice())
    }

    fn escape(&mut self, open: usize, text: &mut Vec<u8>) -> Result<(), FilterError> {
        let start = self.at;
        let byte = match self.peek_after() {
            None => return Err(FilterError::at(open, "this text is not closed")),
            Some(byte @ (b'"' | b'\'' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(text),
            Some(_) => {
                let message = "unknown escape; a backslash in text is written twice";
                return Err(FilterError::at(start, message));
            }
        };
        text.push(byte);
        self.at += 2;
        Ok(())
    }

    /// `\uXXXX`, or two of them for a character outside the basic plane, as JSON writes it.
    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), FilterError> {
        let start = self.at;
        let first = self.utf16_unit();
        let units = match first {
            Some(unit @ 0xd800..0xdc00) => [Some(unit), self.utf16_unit()],
            unit => [unit, None],
        };
        let mut decoded = char::decode_utf16(units.into_iter().flatten());
        match (decoded.next(), decoded.next()) {
            (Some(Ok(character)), None) => {
                let mut buffer = [0; 4];
                text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                Ok(())
            }
            _ => Err(FilterError::at(start, "\\u takes four hexadecimal digits of a character")),
        }
    }

    fn utf16_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 6)?.strip_prefix("\\u")?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let unit = u16::from_str_radix(digits, 16).ok()?;
        self.at += 6;
        Some(unit)
    }
}
