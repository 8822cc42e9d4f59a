//! The texts in which a word stands, and how often it does in each: compressed, sorted by row.
//!
//! Owns: the form of a list. Rows stand in blocks of at most 128, as differences in as few bytes as they need; a block
//! says its first and last row, how often the word stands in a text at most, and how short the shortest text is, so
//! that a search passes over blocks that cannot matter. The bounds stay true when rows go; they may then be wider than
//! they need to be. Main thread.

use crate::allocation::allocated_bytes;
use crate::codec::put_varint;
use smallvec::SmallVec;

/// Rows of a block.
const BLOCK_MAX: usize = 128;
/// Bytes of a row at most.
const POSTING_BYTES_MAX: usize = 10;
/// Neighbours that have no more than this together are one block.
const MERGE_BELOW: usize = BLOCK_MAX / 2;

/// A text that has the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posting {
    pub(super) row: u32,
    pub(super) count: u32,
}

/// What a search knows of a block without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// The word stands in no text of it more often.
    pub(super) count: u32,
    /// No text of it has fewer words.
    pub(super) length: u32,
}

impl Bound {
    fn widen(&mut self, count: u32, length: u32) {
        self.count = self.count.max(count);
        self.length = self.length.min(length);
    }
}

/// Rows that stand together.
#[derive(Debug)]
struct Block {
    first: u32,
    last: u32,
    rows: u32,
    bound: Bound,
    bytes: Vec<u8>,
}

/// All texts that have a word.
#[derive(Debug)]
pub(super) enum Postings {
    /// No text yet, or none any more.
    None,
    /// One text, as most words have.
    One(Posting, u32),
    /// Some.
    Many(Box<List>),
}

/// A list of blocks, of which most words have one.
#[derive(Debug)]
pub(super) struct List {
    blocks: SmallVec<[Block; 1]>,
    rows: u32,
}

/// Room for the rows of a block.
pub(super) type Rows = [Posting; BLOCK_MAX + 1];

/// Room with nothing in it.
pub(super) const NO_ROWS: Rows = [Posting { row: 0, count: 0 }; BLOCK_MAX + 1];

impl Block {
    fn of(rows: &[Posting], bound_length: u32) -> Self {
        let mut bytes = Vec::new();
        let mut before = rows[0].row;
        for posting in rows {
            push(&mut bytes, posting.row - before, posting.count);
            before = posting.row;
        }
        bytes.shrink_to_fit();
        let count = rows.iter().map(|posting| posting.count).max().unwrap_or(0);
        let bound = Bound { count, length: bound_length };
        Self { first: rows[0].row, last: before, rows: rows.len() as u32, bound, bytes }
    }

    /// Reads its rows; how many there are.
    #[inline]
    fn read(&self, out: &mut Rows) -> usize {
        let (bytes, mut at, mut row) = (&self.bytes[..], 0, self.first);
        for place in &mut out[..self.rows as usize] {
            let step = next_varint(bytes, &mut at);
            row += (step >> 1) as u32;
            let count = if step & 1 == 1 { 1 } else { next_varint(bytes, &mut at) as u32 };
            *place = Posting { row, count };
        }
        self.rows as usize
    }

    fn append(&mut self, posting: Posting, length: u32) {
        let needed = self.bytes.len() + POSTING_BYTES_MAX;
        if needed > self.bytes.capacity() {
            // All that the allocator gives for it, so that few steps of growth are needed.
            let room = allocated_bytes(needed + self.bytes.len() / 8);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        push(&mut self.bytes, posting.row - self.last, posting.count);
        self.last = posting.row;
        self.rows += 1;
        self.bound.widen(posting.count, length);
    }

    fn heap_bytes(&self) -> usize {
        allocated_bytes(self.bytes.capacity())
    }
}

/// The number that begins there, which mostly is of one byte. The bytes of a block hold its rows.
#[inline]
fn next_varint(bytes: &[u8], at: &mut usize) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

fn push(bytes: &mut Vec<u8>, step: u32, count: u32) {
    put_varint(u64::from(step) << 1 | u64::from(count == 1), bytes);
    if count != 1 {
        put_varint(u64::from(count), bytes);
    }
}

impl List {
    fn of(block: Block) -> Self {
        let rows = block.rows;
        Self { blocks: SmallVec::from_buf([block]), rows }
    }

    /// Memory of all of it.
    fn bytes(&self) -> usize {
        let of_blocks: usize = self.blocks.iter().map(Block::heap_bytes).sum();
        allocated_bytes(size_of::<Self>()) + self.spilled_bytes() + of_blocks
    }

    /// Memory of the places of blocks, where there are more than one.
    fn spilled_bytes(&self) -> usize {
        let spilled = if self.blocks.spilled() { self.blocks.capacity() } else { 0 };
        allocated_bytes(spilled * size_of::<Block>())
    }

    /// The first block that ends at or behind a row.
    fn block_from(&self, row: u32) -> usize {
        match self.blocks.last() {
            // New texts mostly stand behind all others.
            Some(last) if last.last < row => self.blocks.len(),
            _ => self.blocks.partition_point(|block| block.last < row),
        }
    }

    fn insert(&mut self, posting: Posting, length: u32, held: &mut usize) {
        self.rows += 1;
        let place = self.block_from(posting.row);
        if place == self.blocks.len() {
            match self.blocks.last_mut() {
                Some(last) if (last.rows as usize) < BLOCK_MAX => {
                    let room = last.bytes.capacity();
                    last.append(posting, length);
                    if last.bytes.capacity() != room {
                        *held += last.heap_bytes() - allocated_bytes(room);
                    }
                }
                _ => {
                    if let Some(full) = self.blocks.last_mut() {
                        *held -= full.heap_bytes();
                        full.bytes.shrink_to_fit();
                        *held += full.heap_bytes();
                    }
                    self.put_block(place, Block::of(&[posting], length), held);
                }
            }
            return;
        }
        let mut rows = NO_ROWS;
        let count = self.blocks[place].read(&mut rows);
        let at = rows[..count].partition_point(|other| other.row < posting.row);
        rows.copy_within(at..count, at + 1);
        rows[at] = posting;
        let (bound, rows) = (self.blocks[place].bound.length.min(length), &rows[..=count]);
        let middle = if rows.len() > BLOCK_MAX { rows.len() / 2 } else { rows.len() };
        let (lower, upper) = rows.split_at(middle);
        self.set_block(place, Block::of(lower, bound), held);
        if !upper.is_empty() {
            self.put_block(place + 1, Block::of(upper, bound), held);
        }
    }

    fn remove(&mut self, row: u32, held: &mut usize) {
        let place = self.block_from(row);
        let Some(block) = self.blocks.get(place) else { return };
        let (mut rows, bound) = (NO_ROWS, block.bound.length);
        let count = block.read(&mut rows);
        let Some(at) = rows[..count].iter().position(|other| other.row == row) else { return };
        rows.copy_within(at + 1..count, at);
        self.rows -= 1;
        if count > 1 {
            self.set_block(place, Block::of(&rows[..count - 1], bound), held);
            self.merge(place, held);
        } else {
            self.take_block(place, held);
        }
    }

    /// Makes a block and its successor one, where both are small.
    fn merge(&mut self, place: usize, held: &mut usize) {
        let Some([one, other]) = self.blocks.get(place..place + 2) else { return };
        if (one.rows + other.rows) as usize > MERGE_BELOW {
            return;
        }
        let (mut rows, mut more) = (NO_ROWS, NO_ROWS);
        let (count, added) = (one.read(&mut rows), other.read(&mut more));
        let bound = one.bound.length.min(other.bound.length);
        rows[count..count + added].copy_from_slice(&more[..added]);
        self.take_block(place + 1, held);
        self.set_block(place, Block::of(&rows[..count + added], bound), held);
    }

    fn set_block(&mut self, place: usize, block: Block, held: &mut usize) {
        *held += block.heap_bytes();
        *held -= self.blocks[place].heap_bytes();
        self.blocks[place] = block;
    }

    fn put_block(&mut self, place: usize, block: Block, held: &mut usize) {
        *held += block.heap_bytes();
        if self.blocks.len() == self.blocks.capacity() {
            *held -= self.spilled_bytes();
            self.blocks.reserve_exact(1.max(self.blocks.len() / 8));
            *held += self.spilled_bytes();
        }
        self.blocks.insert(place, block);
    }

    fn take_block(&mut self, place: usize, held: &mut usize) {
        *held -= self.blocks.remove(place).heap_bytes();
    }
}

impl Postings {
    /// Whether more than one text had the word at a time.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    /// How many texts.
    pub(super) fn rows(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(list) => list.rows,
        }
    }

    /// Memory beyond its own size.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None | Self::One(..) => 0,
            Self::Many(list) => list.bytes(),
        }
    }

    /// Adds a text of a length, which is not among them. `held` is the memory of all lists.
    #[inline]
    pub(super) fn insert(&mut self, posting: Posting, length: u32, held: &mut usize) {
        match self {
            Self::None => *self = Self::One(posting, length),
            Self::One(first, first_length) => {
                let block = Block::of(&[*first], *first_length);
                let mut list = List::of(block);
                *held += list.bytes();
                list.insert(posting, length, held);
                *self = Self::Many(Box::new(list));
            }
            Self::Many(list) => list.insert(posting, length, held),
        }
    }

    /// Takes a text out, where it is among them. `held` is the memory of all lists.
    pub(super) fn remove(&mut self, row: u32, held: &mut usize) {
        match self {
            Self::None => {}
            Self::One(posting, _) => {
                if posting.row == row {
                    *self = Self::None;
                }
            }
            Self::Many(list) => {
                list.remove(row, held);
                if list.rows == 0 {
                    *held -= list.bytes();
                    *self = Self::None;
                }
            }
        }
    }

    /// The first block, of this one and those behind it, that ends at or behind a row.
    pub(super) fn block_from(&self, block: usize, row: u32) -> usize {
        match self {
            Self::None => 1,
            Self::One(posting, _) => block.max(usize::from(posting.row < row)),
            Self::Many(list) => {
                let rest = list.blocks.get(block..).unwrap_or_default();
                block + rest.partition_point(|block| block.last < row)
            }
        }
    }

    /// How many rows a block has.
    pub(super) fn block_rows(&self, block: usize) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(list) => list.blocks.get(block).map_or(0, |block| block.rows as usize),
        }
    }

    /// The first row of a block and what holds for it; none behind the last.
    #[inline]
    pub(super) fn block_bound(&self, block: usize) -> Option<(u32, Bound)> {
        match self {
            Self::One(posting, length) if block == 0 => {
                Some((posting.row, Bound { count: posting.count, length: *length }))
            }
            Self::Many(list) => list.blocks.get(block).map(|block| (block.first, block.bound)),
            _ => None,
        }
    }

    /// Reads the rows of a block; how many there are, none behind the last.
    pub(super) fn read_block(&self, block: usize, out: &mut Rows) -> usize {
        match self {
            Self::One(posting, _) if block == 0 => {
                out[0] = *posting;
                1
            }
            Self::Many(list) => list.blocks.get(block).map_or(0, |block| block.read(out)),
            _ => 0,
        }
    }

    /// How often the word stands in a text.
    pub(super) fn count_in(&self, row: u32) -> u32 {
        match self {
            Self::None => 0,
            Self::One(posting, _) => u32::from(posting.row == row) * posting.count,
            Self::Many(list) => {
                let Some(block) = list.blocks.get(list.block_from(row)) else { return 0 };
                let mut rows = NO_ROWS;
                let count = block.read(&mut rows);
                let place = rows[..count].binary_search_by_key(&row, |posting| posting.row);
                place.map_or(0, |place| rows[place].count)
            }
        }
    }

    /// Panics unless a list is in order; for tests. All texts.
    pub(super) fn check_invariants(&self) -> Vec<Posting> {
        let list = match self {
            Self::None => return Vec::new(),
            Self::One(posting, _) => return vec![*posting],
            Self::Many(list) => list,
        };
        let mut all = Vec::new();
        for block in &list.blocks {
            let mut rows = NO_ROWS;
            let count = block.read(&mut rows);
            assert_eq!((rows[0].row, rows[count - 1].row), (block.first, block.last));
            assert!(rows[..count].iter().all(|row| row.count <= block.bound.count));
            all.extend_from_slice(&rows[..count]);
        }
        assert!(all.is_sorted_by(|one, other| one.row < other.row));
        assert_eq!(all.len(), list.rows as usize);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_list_is_a_map_by_row(steps in proptest::collection::vec((0u32..900, 0u32..4), 1..1_500)) {
            let (mut naive, mut list, mut held) = (BTreeMap::new(), Postings::None, 0);
            for (row, count) in steps {
                if count == 0 {
                    naive.remove(&row);
                    list.remove(row, &mut held);
                } else if let std::collections::btree_map::Entry::Vacant(place) = naive.entry(row) {
                    place.insert(count * 100);
                    list.insert(Posting { row, count: count * 100 }, row, &mut held);
                }
                prop_assert_eq!(list.bytes(), held);
                prop_assert_eq!(list.count_in(row), naive.get(&row).copied().unwrap_or(0));
            }
            let expected: Vec<_> = naive.iter().map(|(&row, &count)| Posting { row, count }).collect();
            prop_assert_eq!(list.check_invariants(), expected);
        }
    }
}
