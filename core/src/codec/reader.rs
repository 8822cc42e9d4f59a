//! Reads sections, trusting nothing. Owned by whoever loads; any thread.

use super::{SECTION_HEADER_BYTES, SECTION_TRAILER_BYTES};
use std::fmt;

/// Why bytes were refused. Says what was being read, never what the bytes held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub &'static str);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for DecodeError {}

/// A cursor over a section's body.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Checks the frame of a section (length, checksum) and returns its tag, version and body.
pub fn open_section(bytes: &[u8]) -> Result<(u16, u16, Reader<'_>), DecodeError> {
    let frame = SECTION_HEADER_BYTES + SECTION_TRAILER_BYTES;
    if bytes.len() < frame {
        return Err(DecodeError("section is shorter than its frame"));
    }
    let (checked, trailer) = bytes.split_at(bytes.len() - SECTION_TRAILER_BYTES);
    let mut header = Reader::new(&checked[..SECTION_HEADER_BYTES]);
    let (tag, version, length) = (header.u16()?, header.u16()?, header.u32()?);
    if length as usize != bytes.len() - frame {
        return Err(DecodeError("section length does not fit its bytes"));
    }
    if Reader::new(trailer).u32()? != crc32fast::hash(checked) {
        return Err(DecodeError("section checksum does not match"));
    }
    Ok((tag, version, Reader::new(&checked[SECTION_HEADER_BYTES..])))
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Exactly `count` bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        if count > self.rest.len() {
            return Err(DecodeError("field runs past the end"));
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A finite double.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        let value = f64::from_bits(self.u64()?);
        if value.is_finite() { Ok(value) } else { Err(DecodeError("number is not finite")) }
    }

    /// A finite single.
    pub fn f32(&mut self) -> Result<f32, DecodeError> {
        let value = f32::from_bits(self.u32()?);
        if value.is_finite() { Ok(value) } else { Err(DecodeError("number is not finite")) }
    }

    /// A u32 length and that many bytes, at most `max`.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        if length > max {
            return Err(DecodeError("field is longer than its bound"));
        }
        self.raw(length)
    }

    /// Succeeds only when every byte was read: trailing bytes mean another writer's layout.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError("bytes are left over")) }
    }
}
