//! Replies, written straight into the client's output: no tree of values in between, but for long ones that are written
//! part by part (`Tape`).

use super::Ctx;
use super::api::api;
use llmcache_core::work::count_bytes;
use redis_module::raw;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CString, c_long};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of all replies so far. Written on the main thread alone.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Bytes of a tape that are written at once.
const PLAYED_BYTES: u64 = 64 << 10;

/// What the protocol adds to an element, about.
const ELEMENT_BYTES: usize = 8;

fn note(bytes: usize) {
    let written = WRITTEN.load(Ordering::Relaxed) + (bytes + ELEMENT_BYTES) as u64;
    WRITTEN.store(written, Ordering::Relaxed);
}

/// Bytes of all replies of the module since it was loaded, about.
pub fn bytes_replied() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

/// Writes the reply of the running command. Lengths of maps and arrays are given first, and exactly
/// that many elements must follow.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a>(Ctx<'a>, Option<&'a Tape>);

/// Elements of a reply that are to be written later, part by part.
#[derive(Debug, Default)]
pub struct Tape(RefCell<VecDeque<Element>>);

#[derive(Debug)]
enum Element {
    Map(usize),
    Array(usize),
    Bytes(Box<[u8]>),
    Int(i64),
    Double(f64),
    Single(f32),
    Null,
}

impl Tape {
    /// Elements that are left.
    pub fn left(&self) -> usize {
        self.0.borrow().len()
    }

    /// Writes so many of what is left, fewer where they are long; false where those were the last.
    pub fn play(&self, to: Reply<'_>, elements: usize) -> bool {
        let before = bytes_replied();
        for _ in 0..elements {
            let Some(element) = self.0.borrow_mut().pop_front() else { return false };
            match element {
                Element::Map(pairs) => to.map(pairs),
                Element::Array(elements) => to.array(elements),
                Element::Bytes(bytes) => to.bytes(&bytes),
                Element::Int(value) => to.int(value),
                Element::Double(value) => to.double(value),
                Element::Single(value) => to.single(value),
                Element::Null => to.null(),
            };
            if bytes_replied() - before >= PLAYED_BYTES {
                break;
            }
        }
        self.left() > 0
    }

    fn push(&self, element: Element) {
        if let Element::Bytes(bytes) = &element {
            count_bytes(bytes.len());
        }
        self.0.borrow_mut().push_back(element);
    }
}

impl<'a> Reply<'a> {
    /// The reply of the call that `ctx` belongs to.
    pub fn new(ctx: Ctx<'a>) -> Self {
        Self(ctx, None)
    }

    /// One that is kept on a tape. Errors are not: who writes them knows before there is anything to keep.
    pub fn taped(ctx: Ctx<'a>, tape: &'a Tape) -> Self {
        Self(ctx, Some(tape))
    }

    /// Whether the element was put on the tape.
    fn is_taped(self, element: impl FnOnce() -> Element) -> bool {
        self.1.map(|tape| tape.push(element())).is_some()
    }

    /// A map in RESP3, a flat array of keys and values in RESP2.
    pub fn map(self, pairs: usize) -> Self {
        if self.is_taped(|| Element::Map(pairs)) {
            return self;
        }
        // SAFETY: the context is valid, here and below.
        unsafe { api!(RedisModule_ReplyWithMap(self.0.as_ptr(), pairs as c_long)) };
        self
    }

    /// An array.
    pub fn array(self, elements: usize) -> Self {
        if self.is_taped(|| Element::Array(elements)) {
            return self;
        }
        note(0);
        // SAFETY: see `map`.
        unsafe { api!(RedisModule_ReplyWithArray(self.0.as_ptr(), elements as c_long)) };
        self
    }

    /// A bulk string.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        if self.is_taped(|| Element::Bytes(bytes.into())) {
            return self;
        }
        note(bytes.len());
        // SAFETY: see `map`; the bytes are copied.
        unsafe {
            let (start, length) = (bytes.as_ptr().cast(), bytes.len());
            api!(RedisModule_ReplyWithStringBuffer(self.0.as_ptr(), start, length));
        }
        self
    }

    /// A bulk string that the server has; newer ones may send it without copying it.
    pub fn string(self, string: &impl super::ServerString) -> Self {
        if self.is_taped(|| Element::Bytes(string.as_bytes().into())) {
            return self;
        }
        note(string.as_bytes().len());
        // SAFETY: see `map`; the string is valid for the call, and the server counts its own handle.
        unsafe { api!(RedisModule_ReplyWithString(self.0.as_ptr(), string.as_ptr())) };
        self
    }

    /// A bulk string of text.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// A whole number.
    pub fn int(self, value: i64) -> Self {
        if self.is_taped(|| Element::Int(value)) {
            return self;
        }
        note(0);
        // SAFETY: see `map`.
        unsafe { api!(RedisModule_ReplyWithLongLong(self.0.as_ptr(), value)) };
        self
    }

    /// A count; past `i64::MAX` there are none.
    pub fn count(self, value: u64) -> Self {
        self.int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A double. RESP2 has none and gets a bulk string, here the shortest text that reads back as
    /// the same number instead of the server's seventeen digits.
    pub fn double(self, value: f64) -> Self {
        if self.is_taped(|| Element::Double(value)) {
            return self;
        }
        if !self.0.state().is_resp3() {
            return self.text(&value.to_string());
        }
        // SAFETY: see `map`.
        unsafe { api!(RedisModule_ReplyWithDouble(self.0.as_ptr(), value)) };
        self
    }

    /// A number of single precision; in RESP2 the shortest text that reads back as the same.
    pub fn single(self, value: f32) -> Self {
        if self.is_taped(|| Element::Single(value)) {
            return self;
        }
        if !self.0.state().is_resp3() {
            return self.text(&value.to_string());
        }
        self.double(f64::from(value))
    }

    /// Null.
    pub fn null(self) -> Self {
        if self.is_taped(|| Element::Null) {
            return self;
        }
        note(0);
        // SAFETY: see `map`.
        unsafe { api!(RedisModule_ReplyWithNull(self.0.as_ptr())) };
        self
    }

    /// `+OK`.
    pub fn ok(self) {
        note(0);
        // SAFETY: see `map`; the text is static.
        unsafe { api!(RedisModule_ReplyWithSimpleString(self.0.as_ptr(), c"OK".as_ptr())) };
    }

    /// The error of a call that panicked.
    pub fn internal_error(self) {
        self.error("ERR internal error, see the server's log");
    }

    /// An error; its text begins with the error word.
    pub fn error(self, message: &str) {
        note(message.len());
        // The protocol's errors are one line; what a client sent may hold anything.
        let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = CString::new(line).unwrap_or_default();
        // SAFETY: see `map`; the text is copied.
        unsafe { api!(RedisModule_ReplyWithError(self.0.as_ptr(), line.as_ptr())) };
    }
}
