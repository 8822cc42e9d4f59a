//! The links of the higher levels: one record for each row on each level above 0, in chunks that come
//! and go.
//!
//! Owns: the records and their free lists. A record names its row, the row's record one level up, and
//! its two neighbours in the ring of all records of its level and graph, so that a new entry point is
//! found without a search. Main thread only.

use super::super::row_state::NONE;
use crate::allocation::allocated_bytes;
use crate::sync::{AtomicU32, Ordering};
use crate::vector::links::Row;

/// Words of a record before its links.
const ROW: usize = 0;
const UP: usize = 1;
const PREVIOUS: usize = 2;
const NEXT: usize = 3;
const COUNT: usize = 4;
const LINKS: usize = 5;

/// What a chunk is meant to take: a size class of the allocator, so that nothing is lost behind it.
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
struct Chunk {
    /// Empty when no record of the chunk is in use.
    words: Box<[AtomicU32]>,
    free_head: u32,
    used: u32,
}

impl Chunk {
    /// Free records, each naming the next.
    fn new(records: usize, width: usize) -> Self {
        let word = |at: usize| match (at / width, at % width) {
            (_, ROW) => NONE,
            (place, UP) if place + 1 < records => place as u32 + 1,
            (_, UP) => NONE,
            _ => 0,
        };
        let words = (0..records * width).map(|at| AtomicU32::new(word(at))).collect();
        Self { words, free_head: 0, used: 0 }
    }
}

/// Records of the higher levels.
#[derive(Debug, Default)]
pub(super) struct UpperLinks {
    m: usize,
    chunks: Vec<Chunk>,
    /// No chunk below this one has room.
    first_with_room: usize,
    allocated: usize,
}

impl UpperLinks {
    pub(super) fn new(m: usize) -> Self {
        Self { m, ..Self::default() }
    }

    fn width(&self) -> usize {
        LINKS + self.m
    }

    fn per_chunk(&self) -> usize {
        CHUNK_BYTES / (self.width() * size_of::<u32>())
    }

    fn record(&self, at: u32) -> &[AtomicU32] {
        let (chunk, place) = (at as usize / self.per_chunk(), at as usize % self.per_chunk());
        &self.chunks[chunk].words[place * self.width()..][..self.width()]
    }

    fn get(&self, at: u32, word: usize) -> u32 {
        self.record(at)[word].load(Ordering::Relaxed)
    }

    fn set(&mut self, at: u32, word: usize, value: u32) {
        self.record(at)[word].store(value, Ordering::Relaxed);
    }

    /// A record for a row, alone in its ring, without links.
    pub(super) fn allocate(&mut self, row: u32) -> u32 {
        let (per_chunk, width) = (self.per_chunk(), self.width());
        let number = (self.first_with_room..self.chunks.len())
            .find(|&number| (self.chunks[number].used as usize) < per_chunk)
            .unwrap_or(self.chunks.len());
        self.first_with_room = number;
        if number == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        let chunk = &mut self.chunks[number];
        if chunk.words.is_empty() {
            *chunk = Chunk::new(per_chunk, width);
            self.allocated += 1;
        }
        let at = number as u32 * per_chunk as u32 + chunk.free_head;
        chunk.used += 1;
        self.chunks[number].free_head = self.get(at, UP);
        for (word, value) in [row, NONE, at, at, 0].into_iter().enumerate() {
            self.set(at, word, value);
        }
        at
    }

    /// Frees a record that left its ring.
    pub(super) fn release(&mut self, at: u32) {
        let (number, place) = (at as usize / self.per_chunk(), at as usize % self.per_chunk());
        self.set(at, ROW, NONE);
        self.set(at, UP, self.chunks[number].free_head);
        let chunk = &mut self.chunks[number];
        chunk.free_head = place as u32;
        chunk.used -= 1;
        self.first_with_room = self.first_with_room.min(number);
        if chunk.used == 0 {
            *chunk = Chunk::default();
            self.allocated -= 1;
            while self.chunks.last().is_some_and(|last| last.used == 0) {
                self.chunks.pop();
            }
            self.first_with_room = self.first_with_room.min(self.chunks.len());
        }
    }

    pub(super) fn row(&self, at: u32) -> u32 {
        self.get(at, ROW)
    }

    /// The row's record one level up, or `NONE`.
    pub(super) fn up(&self, at: u32) -> u32 {
        self.get(at, UP)
    }

    pub(super) fn set_up(&mut self, at: u32, up: u32) {
        self.set(at, UP, up);
    }

    pub(super) fn next(&self, at: u32) -> u32 {
        self.get(at, NEXT)
    }

    /// Puts a record that is alone into the ring of another.
    pub(super) fn join_ring(&mut self, at: u32, other: u32) {
        let next = self.get(other, NEXT);
        self.set(at, PREVIOUS, other);
        self.set(at, NEXT, next);
        self.set(other, NEXT, at);
        self.set(next, PREVIOUS, at);
    }

    /// Takes a record out of its ring; answers another one of it, if there is.
    pub(super) fn leave_ring(&mut self, at: u32) -> Option<u32> {
        let (previous, next) = (self.get(at, PREVIOUS), self.get(at, NEXT));
        self.set(previous, NEXT, next);
        self.set(next, PREVIOUS, previous);
        (next != at).then_some(next)
    }

    #[inline]
    pub(super) fn links(&self, at: u32) -> Row<'_> {
        Row::new(&self.record(at)[LINKS..][..self.get(at, COUNT) as usize])
    }

    pub(super) fn push(&mut self, at: u32, to: u32) {
        let count = self.get(at, COUNT);
        assert!((count as usize) < self.m, "a record without room");
        self.set(at, LINKS + count as usize, to);
        self.set(at, COUNT, count + 1);
    }

    pub(super) fn take(&mut self, at: u32, to: u32) -> bool {
        let links = self.links(at);
        let Some(found) = links.iter().position(|link| link == to) else { return false };
        let last = links.len() - 1;
        self.set(at, LINKS + found, self.get(at, LINKS + last));
        self.set(at, COUNT, last as u32);
        true
    }

    pub(super) fn bytes(&self) -> usize {
        let chunk = allocated_bytes(self.per_chunk() * self.width() * size_of::<u32>());
        self.allocated * chunk + allocated_bytes(self.chunks.capacity() * size_of::<Chunk>())
    }

    /// Records in use; for tests.
    pub(super) fn check_invariants(&self) -> usize {
        let (mut used, mut allocated) = (0, 0);
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (mut free, mut place) = (0, chunk.free_head);
            while !chunk.words.is_empty() && place != NONE {
                let record = &chunk.words[place as usize * self.width()..];
                assert_eq!(record[ROW].load(Ordering::Relaxed), NONE, "free list");
                place = record[UP].load(Ordering::Relaxed);
                free += 1;
                assert!(free <= self.per_chunk(), "chunk {number}: free list is a ring");
            }
            let room = if chunk.words.is_empty() { 0 } else { self.per_chunk() };
            assert_eq!(free + chunk.used as usize, room, "chunk {number}: lost records");
            used += chunk.used as usize;
            allocated += usize::from(!chunk.words.is_empty());
        }
        assert_eq!(allocated, self.allocated);
        used
    }
}
