//! RESP2 as far as `KVCHUNK.*` speaks it: commands into bytes, lines and whole replies out of them.
//!
//! Owns: the form of both. Knows no socket: what bytes come next is asked of a `Source`.

use crate::failure::Failure;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// Longest bulk string that is read as a whole; payloads are received elsewhere.
const BULK_MOST: i64 = 64 << 20;
/// Most elements of an array, and how deep arrays are in one another.
const ELEMENTS_MOST: i64 = 1 << 20;
const DEPTH_MOST: usize = 16;

/// Appends the head of a command of so many arguments.
pub fn begin(out: &mut Vec<u8>, arguments: usize) {
    out.extend_from_slice(format!("*{arguments}\r\n").as_bytes());
}

/// Appends the head of an argument whose bytes, and the two that end it, follow.
pub fn head(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(format!("${length}\r\n").as_bytes());
}

/// Appends an argument.
pub fn argument(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number as an argument.
pub fn number(out: &mut Vec<u8>, number: u64) {
    argument(out, number.to_string().as_bytes());
}

/// The first line of an element.
pub enum Head {
    /// `+`
    Status(Vec<u8>),
    /// `-`
    Error(String),
    /// `:`
    Number(i64),
    /// `$`, its bytes follow.
    Bulk(usize),
    /// `*`, its elements follow.
    Array(usize),
    /// No value.
    Null,
}

impl Head {
    /// What a line says.
    pub fn of(line: &[u8]) -> Option<Self> {
        let (kind, rest) = line.split_first()?;
        let number = || std::str::from_utf8(rest).ok()?.parse::<i64>().ok();
        Some(match kind {
            b'+' => Self::Status(rest.to_vec()),
            b'-' => Self::Error(String::from_utf8_lossy(rest).into_owned()),
            b':' => Self::Number(number()?),
            b'_' => Self::Null,
            b'$' | b'*' => match (kind, number()?) {
                (_, -1) => Self::Null,
                (b'$', length) => Self::Bulk(usize::try_from(length).ok()?),
                (_, count) => {
                    Self::Array(usize::try_from(count).ok().filter(|_| count <= ELEMENTS_MOST)?)
                }
            },
            _ => return None,
        })
    }
}

/// A whole reply.
pub enum Reply {
    /// A status or a bulk string.
    Bytes(Vec<u8>),
    /// An error.
    Error(String),
    /// A number.
    Number(i64),
    /// Elements.
    Array(Vec<Reply>),
    /// No value.
    Null,
}

/// Where replies come from.
pub trait Source {
    /// The next line, without its end.
    fn head(&mut self) -> Result<Head, Failure>;
    /// The bytes of a bulk string, and what ends it.
    fn bulk(&mut self, length: usize) -> Result<Vec<u8>, Failure>;
}

/// Reads a whole reply.
pub fn read(source: &mut impl Source) -> Result<Reply, Failure> {
    read_at(source, 0)
}

fn read_at(source: &mut impl Source, depth: usize) -> Result<Reply, Failure> {
    Ok(match source.head()? {
        Head::Status(bytes) => Reply::Bytes(bytes),
        Head::Error(text) => Reply::Error(text),
        Head::Number(number) => Reply::Number(number),
        Head::Null => Reply::Null,
        Head::Bulk(length) if length as i64 <= BULK_MOST => Reply::Bytes(source.bulk(length)?),
        Head::Array(count) if depth < DEPTH_MOST => {
            let mut elements = Vec::with_capacity(count.min(1_024));
            for _ in 0..count {
                elements.push(read_at(source, depth + 1)?);
            }
            Reply::Array(elements)
        }
        _ => return Err(Failure::broken("a reply that is too long")),
    })
}

impl Reply {
    /// As Python has it; errors only stand alone, and are no value.
    pub fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
            Self::Number(number) => number.into_pyobject(py)?.into_any(),
            Self::Null | Self::Error(_) => py.None().into_bound(py),
            Self::Array(elements) => {
                let told = elements.iter().map(|element| element.to_python(py));
                PyList::new(py, told.collect::<PyResult<Vec<_>>>()?)?.into_any()
            }
        })
    }
}
