//! Writes one section. Owned by whoever saves; any thread.

use super::{SECTION_HEADER_BYTES, SECTION_TRAILER_BYTES};

/// A section under construction.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a section.
    pub fn section(tag: u16, version: u16) -> Self {
        let mut bytes = Vec::with_capacity(SECTION_HEADER_BYTES + SECTION_TRAILER_BYTES + 64);
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// A double by its bits.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.u64(value.to_bits())
    }

    /// A single by its bits.
    pub fn f32(&mut self, value: f32) -> &mut Self {
        self.u32(value.to_bits())
    }

    /// A u32 length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("limits keep every field below 4 GiB"));
        self.raw(value)
    }

    /// The bytes alone: the reader knows their length.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Ends the section: fills in the length and appends the checksum.
    pub fn finish(mut self) -> Vec<u8> {
        let body = u32::try_from(self.bytes.len() - SECTION_HEADER_BYTES)
            .expect("limits keep every section below 4 GiB");
        self.bytes[4..8].copy_from_slice(&body.to_le_bytes());
        let crc = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}
