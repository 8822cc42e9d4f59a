//! The engine's own memory: where payloads are sent from and received into, without a copy.
//!
//! Owns: the buffers of a task, held by Python's buffer protocol until the task has ended, so that no address outlives
//! them. What a task is told of is written by one thread at a time; who hands over overlapping buffers gets mixed bytes,
//! as from two `recv_into`.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A part of the engine's memory.
#[derive(Clone, Copy)]
pub struct Piece {
    start: *mut u8,
    length: usize,
}

// SAFETY: an address; whoever reads or writes there holds the task that holds the buffer.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Piece {
    /// The address of its first byte.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Adds its bytes to a checksum. Only where nobody writes there.
    pub fn sum(&self, checksum: &mut crc32fast::Hasher) {
        // SAFETY: so many bytes are there as long as the task is, which who calls holds; none of its threads writes now.
        checksum.update(unsafe { std::slice::from_raw_parts(self.start, self.length) });
    }

    /// A part of it; no more than is there.
    fn part(&self, at: usize, length: usize) -> Self {
        let at = at.min(self.length);
        // SAFETY: at most one past the end of the same buffer.
        let start = unsafe { self.start.add(at) };
        Self { start, length: length.min(self.length - at) }
    }
}

/// The payload of a chunk: one buffer, or several in a row.
pub struct Payload {
    pieces: Vec<Piece>,
    length: usize,
}

impl Payload {
    /// Its bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The pieces of the part of it that begins at `at`.
    pub fn part(&self, mut at: usize, mut length: usize) -> impl Iterator<Item = Piece> {
        self.pieces.iter().filter_map(move |piece| {
            let part = piece.part(at, length);
            at = at.saturating_sub(piece.length);
            length -= part.length;
            (part.length > 0).then_some(part)
        })
    }
}

/// Payloads, and the buffers that they are in.
pub struct Memory {
    /// One for each chunk.
    pub payloads: Vec<Payload>,
    /// Let go of when the task has ended, and Python is held.
    buffers: Mutex<Vec<PyBuffer<u8>>>,
}

impl Memory {
    /// Of each of these its buffer, or those that it lists.
    pub fn of(given: &[Bound<'_, PyAny>], is_written: bool) -> PyResult<Self> {
        let mut payloads = Vec::with_capacity(given.len());
        let mut buffers = Vec::with_capacity(given.len());
        for each in given {
            let mut pieces = Vec::new();
            match PyBuffer::get(each) {
                Ok(buffer) => pieces.push(hold(&mut buffers, buffer, is_written)?),
                Err(_) => {
                    for part in each.try_iter()? {
                        pieces.push(hold(&mut buffers, PyBuffer::get(&part?)?, is_written)?);
                    }
                }
            }
            let length = pieces.iter().map(Piece::len).sum();
            payloads.push(Payload { pieces, length });
        }
        Ok(Self { payloads, buffers: Mutex::new(buffers) })
    }

    /// Lets go of the buffers: nothing of them may be read or written any more.
    pub fn let_go(&self) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn hold(
    buffers: &mut Vec<PyBuffer<u8>>,
    buffer: PyBuffer<u8>,
    is_written: bool,
) -> PyResult<Piece> {
    if !buffer.is_c_contiguous() || (is_written && buffer.readonly()) {
        return Err(PyValueError::new_err(
            "a buffer that is in one piece is needed, to load one that may be written",
        ));
    }
    let piece = Piece { start: buffer.buf_ptr().cast(), length: buffer.len_bytes() };
    buffers.push(buffer);
    Ok(piece)
}
