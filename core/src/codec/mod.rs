//! Bytes that outlive a process: little-endian fields inside sections of tag, version, length and
//! checksum.
//!
//! Owns: the framing, not the meaning. Readers treat every byte as hostile: each read is bounded, an
//! impossible length is an error before anything is allocated for it. Any thread; writers are used
//! in the forked child too and so take no lock.

mod packed_text;
mod reader;
mod varint;
mod writer;

pub use packed_text::{pack_text, packed_text_len, unpack_text};
pub use reader::{DecodeError, Reader, open_section};
pub use varint::{put_varint, take_varint};
pub use writer::Writer;

/// Bytes of a section before its body: tag u16, version u16, body length u32.
pub const SECTION_HEADER_BYTES: usize = 8;
/// Bytes of a section behind its body: CRC-32 (IEEE) of header and body.
pub const SECTION_TRAILER_BYTES: usize = 4;
