//! The log of lookups that nearly hit: a ring per cache, as SLOWLOG keeps slow commands.
//!
//! Owns: the ring, its bounds. Process-local: neither saved nor replicated. Main thread only.

use crate::ids::UnixMs;
use crate::limits::{NEAR_MISS_TEXT_MAX_BYTES, NEAR_MISSES_MAX_BYTES};
use std::collections::VecDeque;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct NearMiss {
    /// Its number, counted from 0 since the process started.
    pub number: u64,
    /// When it was asked.
    pub at: UnixMs,
    /// The question asked, cut where it is long; empty where it was asked by vector alone.
    pub question: Vec<u8>,
    /// Id of the nearest entry.
    pub id: Vec<u8>,
    /// Its prompt, cut where it is long.
    pub candidate: Vec<u8>,
    /// Their cosine.
    pub similarity: f64,
    /// Why the entry was not served.
    pub reason: &'static str,
    /// The guard that refused it, if one did.
    pub guard: Option<&'static str>,
}

impl NearMiss {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.question.capacity()
            + self.id.capacity()
            + self.candidate.capacity()
    }
}

/// The last near misses of a cache, newest first.
#[derive(Debug, Default)]
pub struct NearMisses {
    ring: VecDeque<NearMiss>,
    bytes: usize,
    next_number: u64,
}

impl NearMisses {
    /// Adds one, and drops the oldest past `most` and past the bound of bytes.
    pub fn add(&mut self, miss: NearMiss, most: u32) {
        let [question, candidate] = [miss.question, miss.candidate].map(cut);
        let miss = NearMiss { number: self.next_number, question, candidate, ..miss };
        self.next_number += 1;
        self.bytes += miss.bytes();
        self.ring.push_front(miss);
        self.keep(most);
    }

    /// Drops the oldest past `most`, when that was changed, and past the bound of bytes.
    pub fn keep(&mut self, most: u32) {
        while self.ring.len() > most as usize || self.bytes > NEAR_MISSES_MAX_BYTES {
            let Some(oldest) = self.ring.pop_back() else { break };
            self.bytes -= oldest.bytes();
        }
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
        }
    }

    /// Forgets all. Numbers go on.
    pub fn clear(&mut self) {
        self.keep(0);
    }

    /// The newest, so many.
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &NearMiss> {
        self.ring.iter().take(count)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + (self.ring.capacity() - self.ring.len()) * size_of::<NearMiss>()
    }
}

/// A text up to the bound, with a word of what is left out.
fn cut(mut text: Vec<u8>) -> Vec<u8> {
    let Some(more) = text.len().checked_sub(NEAR_MISS_TEXT_MAX_BYTES).filter(|more| *more > 0)
    else {
        return text;
    };
    text.truncate(NEAR_MISS_TEXT_MAX_BYTES);
    text.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miss(question: usize) -> NearMiss {
        NearMiss {
            number: 0,
            at: UnixMs(1),
            question: vec![b'q'; question],
            id: b"id".to_vec(),
            candidate: b"candidate".to_vec(),
            similarity: 0.8,
            reason: "below-threshold",
            guard: None,
        }
    }

    #[test]
    fn it_is_bounded_in_entries_and_in_bytes() {
        let mut ring = NearMisses::default();
        for _ in 0..10 {
            ring.add(miss(5), 3);
        }
        let numbers: Vec<u64> = ring.newest(99).map(|miss| miss.number).collect();
        assert_eq!(numbers, [9, 8, 7]);
        assert_eq!(ring.newest(2).len(), 2);
        for _ in 0..10_000 {
            ring.add(miss(1 << 20), u32::MAX);
        }
        assert!(ring.memory_bytes() <= 2 * NEAR_MISSES_MAX_BYTES, "{}", ring.memory_bytes());
        let kept = ring.newest(1).next().unwrap();
        let end = b"... (1048320 more bytes)";
        assert!(kept.question.ends_with(end) && kept.question.len() == 256 + end.len());
        ring.clear();
        assert_eq!((ring.newest(9).len(), ring.memory_bytes()), (0, 0));
        ring.add(miss(5), 3);
        assert_eq!(ring.newest(1).next().unwrap().number, 10_010);
    }
}
