//! Sections as a hostile sender would make them; for the tests of codecs.

use llmcache_core::codec::{SECTION_HEADER_BYTES, SECTION_TRAILER_BYTES};

/// Writes length and checksum anew.
pub fn reseal(bytes: &mut Vec<u8>) {
    let frame = SECTION_HEADER_BYTES + SECTION_TRAILER_BYTES;
    if bytes.len() < frame {
        return;
    }
    let body = (bytes.len() - frame) as u32;
    bytes[4..8].copy_from_slice(&body.to_le_bytes());
    bytes.truncate(bytes.len() - SECTION_TRAILER_BYTES);
    let checksum = crc32fast::hash(bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}
