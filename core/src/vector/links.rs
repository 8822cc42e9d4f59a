//! The level-0 links of a graph over the rows of a code arena, in blocks of the same rows.
//!
//! Owns: their memory and counts. Must not know: what a link means, that links come in pairs, or
//! which partition a row is in. Written by the main thread; read by whoever borrows it.
//!
//! A block exists only while one of its rows is linked, so rows that are searched flat pay for
//! nothing. A row's links stand at a fixed place with room for `2 * M`; its count stands apart, in one
//! byte, so that the links of a row at M = 16 are two cache lines and no more. What a row keeps on
//! higher levels is elsewhere; the block holds a bit for each row that has some, and their places in
//! the order of rows.

use super::arena::BLOCK_ROWS;
use crate::allocation::allocated_bytes;
use crate::distance::prefetch_read;

const BLOCK_SHIFT: u32 = BLOCK_ROWS.ilog2();
const ROW_MASK: usize = BLOCK_ROWS - 1;
const WORD_BITS: usize = u64::BITS as usize;

/// The count of a row that is not linked; capacities stay below it.
const NOT_LINKED: u8 = u8::MAX;

#[derive(Debug, Default)]
struct Block {
    /// Empty while no row of the block is linked; so are the counts.
    links: Box<[u32]>,
    counts: Box<[u8]>,
    /// Rows with higher levels.
    upper_rows: [u64; BLOCK_ROWS / WORD_BITS],
    /// The places of those, in the order of rows.
    upper_places: Vec<u32>,
    linked: u16,
}

/// Links of rows. Row `i` is in block `i / 256`.
#[derive(Debug, Default)]
pub struct LinkArena {
    capacity: usize,
    blocks: Vec<Block>,
    bytes: usize,
}

fn block_of(row: u32) -> usize {
    (row >> BLOCK_SHIFT) as usize
}

fn place_of(row: u32) -> usize {
    row as usize & ROW_MASK
}

impl Block {
    /// How many rows before `place` have higher levels.
    fn rank(&self, place: usize) -> usize {
        let whole = self.upper_rows[..place / WORD_BITS].iter().map(|word| word.count_ones());
        let below = (1_u64 << (place % WORD_BITS)) - 1;
        (whole.sum::<u32>() + (self.upper_rows[place / WORD_BITS] & below).count_ones()) as usize
    }

    fn has_upper(&self, place: usize) -> bool {
        self.upper_rows[place / WORD_BITS] >> (place % WORD_BITS) & 1 == 1
    }
}

impl LinkArena {
    /// An arena with room for `capacity` links a row (below 255); allocates nothing.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity < usize::from(NOT_LINKED), "the count of a full row is a count");
        Self { capacity, ..Self::default() }
    }

    /// Room of one row.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The links of a row; none where it is not linked.
    #[inline]
    pub fn links(&self, row: u32) -> &[u32] {
        let place = place_of(row);
        let Some(block) = self.blocks.get(block_of(row)) else { return &[] };
        let Some(&count) = block.counts.get(place).filter(|&&count| count != NOT_LINKED) else {
            return &[];
        };
        let start = place * self.capacity;
        block.links.get(start..start + usize::from(count)).unwrap_or_default()
    }

    /// Whether a row is part of the graph, with or without links.
    #[inline]
    pub fn is_linked(&self, row: u32) -> bool {
        let block = self.blocks.get(block_of(row));
        block.and_then(|block| block.counts.get(place_of(row))).is_some_and(|&c| c != NOT_LINKED)
    }

    /// Makes a row part of the graph, without links, and gives its block memory if it is the first.
    pub fn occupy(&mut self, row: u32) {
        let number = block_of(row);
        if number >= self.blocks.len() {
            self.blocks.resize_with(number + 1, Block::default);
        }
        let block = &mut self.blocks[number];
        if block.counts.is_empty() {
            block.links = vec![0; BLOCK_ROWS * self.capacity].into_boxed_slice();
            block.counts = vec![NOT_LINKED; BLOCK_ROWS].into_boxed_slice();
            self.bytes += Self::block_bytes(self.capacity);
        }
        debug_assert_eq!(block.counts[place_of(row)], NOT_LINKED, "row {row} is linked already");
        block.counts[place_of(row)] = 0;
        block.linked += 1;
    }

    /// Takes a row out of the graph; a block without rows gives its memory back. Its higher levels
    /// were taken first.
    pub fn vacate(&mut self, row: u32) {
        debug_assert!(self.is_linked(row) && self.upper(row).is_none(), "row {row}");
        let number = block_of(row);
        let Some(block) = self.blocks.get_mut(number).filter(|block| block.linked > 0) else {
            return;
        };
        block.counts[place_of(row)] = NOT_LINKED;
        block.linked -= 1;
        if block.linked == 0 {
            self.bytes -= Self::block_bytes(self.capacity)
                + allocated_bytes(block.upper_places.capacity() * size_of::<u32>());
            *block = Block::default();
            while self.blocks.last().is_some_and(|last| last.linked == 0) {
                self.blocks.pop();
            }
            if self.blocks.capacity() > 64 && self.blocks.len() < self.blocks.capacity() / 4 {
                self.blocks.shrink_to(self.blocks.len() * 2);
            }
        }
    }

    fn block_bytes(capacity: usize) -> usize {
        allocated_bytes(BLOCK_ROWS * capacity * size_of::<u32>()) + allocated_bytes(BLOCK_ROWS)
    }

    /// Adds a link to a linked row that has room.
    pub fn push(&mut self, row: u32, to: u32) {
        let capacity = self.capacity;
        let block = &mut self.blocks[block_of(row)];
        let place = place_of(row);
        let count = usize::from(block.counts[place]);
        assert!(count < capacity, "row {row} has no room for a link");
        block.links[place * capacity + count] = to;
        block.counts[place] += 1;
    }

    /// Takes a link from a row; the last one moves into its place. Answers whether it was there.
    pub fn take(&mut self, row: u32, to: u32) -> bool {
        let capacity = self.capacity;
        let Some(block) = self.blocks.get_mut(block_of(row)) else { return false };
        let place = place_of(row);
        let Some(count) = block.counts.get(place).filter(|&&count| count != NOT_LINKED) else {
            return false;
        };
        let links = &mut block.links[place * capacity..][..usize::from(*count)];
        let Some(at) = links.iter().position(|&link| link == to) else { return false };
        links[at] = links[links.len() - 1];
        block.counts[place] -= 1;
        true
    }

    /// The place of a row's higher levels.
    #[inline]
    pub fn upper(&self, row: u32) -> Option<u32> {
        let (block, place) = (self.blocks.get(block_of(row))?, place_of(row));
        block.has_upper(place).then(|| block.upper_places[block.rank(place)])
    }

    /// Notes where the higher levels of a linked row are, or that it has none any more.
    pub fn set_upper(&mut self, row: u32, at: Option<u32>) {
        let (block, place) = (&mut self.blocks[block_of(row)], place_of(row));
        let (rank, had) = (block.rank(place), block.has_upper(place));
        let places = &mut block.upper_places;
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
            Some(_) => block.upper_rows[place / WORD_BITS] |= bit,
            None => block.upper_rows[place / WORD_BITS] &= !bit,
        }
    }

    /// Asks for the cache lines of a row's links ahead of their use.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        if let Some(block) = self.blocks.get(block_of(row)) {
            let start = place_of(row) * self.capacity;
            if let Some(links) = block.links.get(start..start + self.capacity) {
                prefetch_read(bytemuck::cast_slice(links));
            }
        }
    }

    /// The first linked row at or after `from`.
    pub fn next_linked(&self, from: u32) -> Option<u32> {
        let (mut number, mut within) = (block_of(from), place_of(from));
        while let Some(block) = self.blocks.get(number) {
            let rest = block.counts.get(within..).unwrap_or_default();
            if let Some(step) = rest.iter().position(|&count| count != NOT_LINKED) {
                return Some((number * BLOCK_ROWS + within + step) as u32);
            }
            (number, within) = (number + 1, 0);
        }
        None
    }

    /// Bytes allocated: links, counts and the directory of blocks. Costs nothing to ask.
    pub fn bytes(&self) -> usize {
        self.bytes + allocated_bytes(self.blocks.capacity() * size_of::<Block>())
    }

    /// Panics unless counts, bits and bytes agree; for tests.
    pub fn check_invariants(&self) {
        let mut bytes = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            let linked = block.counts.iter().filter(|&&count| count != NOT_LINKED).count();
            assert_eq!(linked, usize::from(block.linked), "block {number}: linked rows");
            assert_eq!(linked > 0, !block.links.is_empty(), "block {number}: memory");
            let upper: u32 = block.upper_rows.iter().map(|word| word.count_ones()).sum();
            assert_eq!(upper as usize, block.upper_places.len(), "block {number}: higher levels");
            bytes += allocated_bytes(size_of_val(&*block.links))
                + allocated_bytes(block.counts.len())
                + allocated_bytes(block.upper_places.capacity() * size_of::<u32>());
        }
        assert_eq!(bytes, self.bytes, "bytes of links");
    }
}
