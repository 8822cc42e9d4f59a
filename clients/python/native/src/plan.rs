//! How payloads are cut: into segments that the server keeps as they come, and into pages of chunks that move together.
//!
//! Owns: arithmetic. Any thread.

use std::ops::Range;

/// A segment of this size fills a size class of the server's allocator, and is kept by the server without a copy.
const SEGMENT: usize = (4 << 20) - 64;
/// Chunks of one page: names and headers stay small beside payloads.
const CHUNKS_AT_ONCE: usize = 256;
/// Pages are not cut shorter than this so that each connection has one.
const PAGE_LEAST: usize = 512 << 10;

/// The lengths of the segments of a payload; they add up to `length`.
pub fn segments(length: usize) -> Vec<usize> {
    let (mut plan, mut left) = (Vec::with_capacity(length / SEGMENT + 4), length);
    while left > 0 {
        let mut piece = left.min(SEGMENT);
        let taken = size_class(piece + 18);
        if piece < SEGMENT && taken - piece > piece / 64 + 128 {
            // The largest class below, which is one step of its doubling down.
            let room = piece + 64;
            piece = room - room % (1 << bits(room).saturating_sub(3)) - 64;
        }
        plan.push(piece);
        left -= piece;
    }
    plan
}

fn size_class(bytes: usize) -> usize {
    bytes.next_multiple_of(1 << bits(bytes - 1).saturating_sub(3).max(4))
}

fn bits(number: usize) -> u32 {
    usize::BITS - number.leading_zeros()
}

/// Runs of chunks that move together: enough of them for all connections, none too long.
pub fn pages(sizes: &[usize], page_bytes: usize, connections: usize) -> Vec<Range<usize>> {
    let share = sizes.iter().sum::<usize>() / connections.max(1);
    let most = page_bytes.min(share).max(page_bytes.min(PAGE_LEAST)).max(1);
    let (mut pages, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (at, size) in sizes.iter().enumerate() {
        if at > first && (bytes + size > most || at - first >= CHUNKS_AT_ONCE) {
            pages.push(first..at);
            (first, bytes) = (at, 0);
        }
        bytes += size;
    }
    if !sizes.is_empty() {
        pages.push(first..sizes.len());
    }
    pages
}
