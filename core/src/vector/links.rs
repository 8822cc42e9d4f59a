//! The level-0 links of a graph over the rows of a code arena, in blocks of the same rows.
//!
//! Owns: their memory and counts. Must not know: what a link means, that links come in pairs, or
//! which partition a row is in. Written by the main thread, in place: links and counts are atomics, so that
//! a search on another thread, which holds a `SharedLinks`, reads on while they change. It may miss a link
//! that moves at that moment, or meet one twice; both cost a search less than a lock would.
//!
//! A block exists only while one of its rows is linked, so rows that are searched flat pay for
//! nothing. A row's links stand at a fixed place with room for `2 * M`; its count stands apart, in one
//! byte, so that the links of a row at M = 16 are two cache lines and no more. What a row keeps on
//! higher levels is elsewhere; the block holds a bit for each row that has some, and their places in
//! the order of rows.

use super::arena::{BLOCK_ROWS, rows_with};
use super::directory::Directory;
use crate::allocation::allocated_bytes;
use crate::distance::prefetch_slice;
use crate::sync::{AtomicU8, AtomicU32, Ordering};

const BLOCK_SHIFT: u32 = BLOCK_ROWS.ilog2();
const ROW_MASK: usize = BLOCK_ROWS - 1;
const WORD_BITS: usize = u64::BITS as usize;

/// The count of a row that is not linked; capacities stay below it.
const NOT_LINKED: u8 = u8::MAX;

/// The links of a row.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a>(&'a [AtomicU32]);

impl<'a> Row<'a> {
    pub(crate) const NONE: Row<'static> = Row(&[]);

    pub(crate) fn new(links: &'a [AtomicU32]) -> Self {
        Self(links)
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The rows linked to.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().map(|link| link.load(Ordering::Relaxed))
    }

    /// Some at a time.
    #[inline(always)]
    pub fn chunks(self, links: usize) -> impl Iterator<Item = Self> {
        self.0.chunks(links).map(Self)
    }

    /// Whether a row is among them.
    pub fn contains(self, row: u32) -> bool {
        self.iter().any(|link| link == row)
    }
}

/// The links of the rows of a block, and how many each has.
#[derive(Debug)]
struct Block {
    links: Box<[AtomicU32]>,
    counts: Box<[AtomicU8]>,
}

impl Block {
    /// A block with room for `rows` rows and the contents of a former one. Only the main thread writes, so
    /// nothing changes while it copies; whoever holds the former reads on in that.
    fn grown(former: Option<&Self>, rows: usize, capacity: usize) -> Self {
        let (links, counts) = former.map_or((&[][..], &[][..]), |f| (&f.links, &f.counts));
        let link = |at| links.get(at).map_or(0, |link: &AtomicU32| link.load(Ordering::Relaxed));
        let count = |at| {
            counts.get(at).map_or(NOT_LINKED, |count: &AtomicU8| count.load(Ordering::Relaxed))
        };
        Self {
            links: (0..rows * capacity).map(|at| AtomicU32::new(link(at))).collect(),
            counts: (0..rows).map(|at| AtomicU8::new(count(at))).collect(),
        }
    }

    /// The links of a row; `None` where it is not linked, or has no memory yet.
    fn count(&self, place: usize) -> Option<usize> {
        // Acquire: whoever sees the count sees the links it counts.
        let count = self.counts.get(place)?.load(Ordering::Acquire);
        (count != NOT_LINKED).then_some(usize::from(count))
    }

    fn set_count(&self, place: usize, count: u8) {
        self.counts[place].store(count, Ordering::Release);
    }

    fn bytes(&self) -> usize {
        allocated_bytes(size_of_val(&*self.links)) + allocated_bytes(size_of_val(&*self.counts))
    }
}

/// Which rows of a block have higher levels, and where; of no concern to searches on other threads.
#[derive(Debug, Default)]
struct Upper {
    rows: [u64; BLOCK_ROWS.div_ceil(WORD_BITS)],
    /// In the order of rows.
    places: Vec<u32>,
    /// Linked rows of the block.
    linked: u16,
}

/// The links as a search on another thread sees them.
#[derive(Debug, Clone, Default)]
pub struct SharedLinks {
    capacity: usize,
    blocks: Directory<Block>,
}

/// Links of rows. Row `i` is in block `i / 256`.
#[derive(Debug, Default)]
pub struct LinkArena {
    shared: SharedLinks,
    upper: Vec<Upper>,
    bytes: usize,
    /// Whether blocks without rows wait until no clone lives.
    has_held_blocks: bool,
}

fn block_of(row: u32) -> usize {
    (row >> BLOCK_SHIFT) as usize
}

fn place_of(row: u32) -> usize {
    row as usize & ROW_MASK
}

impl Upper {
    /// How many rows before `place` have higher levels.
    fn rank(&self, place: usize) -> usize {
        let whole = self.rows[..place / WORD_BITS].iter().map(|word| word.count_ones());
        let below = (1_u64 << (place % WORD_BITS)) - 1;
        (whole.sum::<u32>() + (self.rows[place / WORD_BITS] & below).count_ones()) as usize
    }

    fn has_upper(&self, place: usize) -> bool {
        self.rows[place / WORD_BITS] >> (place % WORD_BITS) & 1 == 1
    }
}

impl SharedLinks {
    /// The links of a row; none where it is not linked.
    #[inline]
    pub fn links(&self, row: u32) -> Row<'_> {
        let place = place_of(row);
        let Some(block) = self.blocks.get(block_of(row)) else { return Row::NONE };
        let Some(count) = block.count(place) else { return Row::NONE };
        let start = place * self.capacity;
        block.links.get(start..start + count).map_or(Row::NONE, Row)
    }

    /// Asks for the cache lines of a row's links ahead of their use.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        if let Some(block) = self.blocks.get(block_of(row)) {
            let start = place_of(row) * self.capacity;
            if let Some(links) = block.links.get(start..start + self.capacity) {
                prefetch_slice(links);
            }
        }
    }
}

impl LinkArena {
    /// An arena with room for `capacity` links a row (below 255).
    pub fn new(capacity: usize) -> Self {
        assert!(capacity < usize::from(NOT_LINKED), "the count of a full row is a count");
        let shared = SharedLinks { capacity, ..SharedLinks::default() };
        Self { shared, ..Self::default() }
    }

    /// Room of one row.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// The links, for searches on any thread.
    pub fn shared(&self) -> &SharedLinks {
        &self.shared
    }

    /// The links of a row; none where it is not linked.
    #[inline]
    pub fn links(&self, row: u32) -> Row<'_> {
        self.shared.links(row)
    }

    fn block(&self, row: u32) -> Option<&Block> {
        self.shared.blocks.get(block_of(row))
    }

    fn count(&self, row: u32) -> Option<usize> {
        self.block(row)?.count(place_of(row))
    }

    /// Whether a row is part of the graph, with or without links.
    #[inline]
    pub fn is_linked(&self, row: u32) -> bool {
        self.count(row).is_some()
    }

    /// Makes a row part of the graph, without links, and gives its block memory for it.
    pub fn occupy(&mut self, row: u32) {
        let number = block_of(row);
        if number >= self.upper.len() {
            self.upper.resize_with(number + 1, Upper::default);
        }
        let former = self.shared.blocks.get(number);
        if former.is_none_or(|block| place_of(row) >= block.counts.len()) {
            let grown = Block::grown(former, rows_with(place_of(row)), self.shared.capacity);
            self.bytes -= former.map_or(0, Block::bytes);
            self.bytes += grown.bytes();
            self.shared.blocks.put(number, grown);
        }
        debug_assert!(!self.is_linked(row), "row {row} is linked already");
        if let Some(block) = self.block(row) {
            block.set_count(place_of(row), 0);
        }
        self.upper[number].linked += 1;
    }

    /// Takes a row out of the graph; a block without rows gives its memory back, at the latest when the
    /// last clone of the links is gone and `tidy` is called. Its higher levels were taken first.
    pub fn vacate(&mut self, row: u32) {
        debug_assert!(self.is_linked(row) && self.upper(row).is_none(), "row {row}");
        let number = block_of(row);
        if let Some(block) = self.block(row) {
            block.set_count(place_of(row), NOT_LINKED);
        }
        let Some(upper) = self.upper.get_mut(number).filter(|upper| upper.linked > 0) else {
            return;
        };
        upper.linked -= 1;
        if upper.linked == 0 {
            self.free_block(number);
        }
    }

    fn free_block(&mut self, number: usize) {
        let Some(bytes) = self.shared.blocks.get(number).map(Block::bytes) else { return };
        if !self.shared.blocks.free(number) {
            self.has_held_blocks = true;
            return;
        }
        let places = &self.upper[number].places;
        self.bytes -= bytes + allocated_bytes(places.capacity() * size_of::<u32>());
        self.upper[number] = Upper::default();
        self.upper.truncate(self.shared.blocks.as_slice().len());
        if self.upper.capacity() > 64 && self.upper.len() < self.upper.capacity() / 4 {
            self.upper.shrink_to(self.upper.len() * 2);
        }
    }

    /// Frees the blocks without rows that clones have held.
    pub fn tidy(&mut self) {
        if !std::mem::take(&mut self.has_held_blocks) {
            return;
        }
        for number in (0..self.upper.len()).rev() {
            if self.upper.get(number).is_some_and(|upper| upper.linked == 0) {
                self.free_block(number);
            }
        }
    }

    /// Adds a link to a linked row that has room.
    pub fn push(&mut self, row: u32, to: u32) {
        let (place, capacity) = (place_of(row), self.shared.capacity);
        let Some(block) = self.block(row) else { return };
        let count = block.count(place).unwrap_or(capacity);
        assert!(count < capacity, "row {row} has no room for a link");
        block.links[place * capacity + count].store(to, Ordering::Relaxed);
        block.set_count(place, count as u8 + 1);
    }

    /// Takes a link from a row; the last one moves into its place. Returns whether it was there.
    pub fn take(&mut self, row: u32, to: u32) -> bool {
        let (place, capacity) = (place_of(row), self.shared.capacity);
        let Some(block) = self.block(row) else { return false };
        let Some(count) = block.count(place) else { return false };
        let links = &block.links[place * capacity..][..count];
        let Some(at) = Row(links).iter().position(|link| link == to) else { return false };
        links[at].store(links[count - 1].load(Ordering::Relaxed), Ordering::Relaxed);
        block.set_count(place, count as u8 - 1);
        true
    }

    /// The place of a row's higher levels.
    #[inline]
    pub fn upper(&self, row: u32) -> Option<u32> {
        let (upper, place) = (self.upper.get(block_of(row))?, place_of(row));
        upper.has_upper(place).then(|| upper.places[upper.rank(place)])
    }

    /// Notes where the higher levels of a linked row are, or that it has none.
    pub fn set_upper(&mut self, row: u32, at: Option<u32>) {
        let (upper, place) = (&mut self.upper[block_of(row)], place_of(row));
        let (rank, had) = (upper.rank(place), upper.has_upper(place));
        let places = &mut upper.places;
        let before = places.capacity();
        match (had, at) {
            (true, Some(at)) => places[rank] = at,
            (false, Some(at)) => places.insert(rank, at),
            (true, None) => drop(places.remove(rank)),
            (false, None) => {}
        }
        let after = places.capacity();
        self.bytes -= allocated_bytes(before * size_of::<u32>());
        self.bytes += allocated_bytes(after * size_of::<u32>());
        let bit = 1 << (place % WORD_BITS);
        match at {
            Some(_) => upper.rows[place / WORD_BITS] |= bit,
            None => upper.rows[place / WORD_BITS] &= !bit,
        }
    }

    /// Asks for the cache lines of a row's links ahead of their use.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        self.shared.prefetch(row);
    }

    /// The first linked row at or after `from`.
    pub fn next_linked(&self, from: u32) -> Option<u32> {
        let (mut number, mut within) = (block_of(from), place_of(from));
        while number < self.upper.len() {
            if self.upper[number].linked > 0
                && let Some(block) = self.shared.blocks.get(number)
                && let Some(place) =
                    (within..block.counts.len()).find(|&place| block.count(place).is_some())
            {
                return Some((number * BLOCK_ROWS + place) as u32);
            }
            (number, within) = (number + 1, 0);
        }
        None
    }

    /// Bytes allocated: links, counts and the directory of blocks. Costs nothing to ask.
    pub fn bytes(&self) -> usize {
        self.bytes
            + self.shared.blocks.bytes()
            + allocated_bytes(self.upper.capacity() * size_of::<Upper>())
    }

    /// Panics unless counts, bits and bytes agree; for tests.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        for (number, upper) in self.upper.iter().enumerate() {
            let block = self.shared.blocks.get(number);
            let linked = block.map_or(0, |block| {
                (0..block.counts.len()).filter(|&place| block.count(place).is_some()).count()
            });
            assert_eq!(linked, usize::from(upper.linked), "block {number}: linked rows");
            let rows: u32 = upper.rows.iter().map(|word| word.count_ones()).sum();
            assert_eq!(rows as usize, upper.places.len(), "block {number}: higher levels");
            bytes += block.map_or(0, Block::bytes)
                + allocated_bytes(upper.places.capacity() * size_of::<u32>());
        }
        assert_eq!(bytes, self.bytes, "bytes of links");
    }
}
