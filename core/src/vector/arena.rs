//! The codes of one container, contiguous in blocks.
//!
//! Owns: their memory. Must not know: which rows are in use; the caller says when a block is empty.
//! Written by the main thread; read by whoever borrows it.
//!
//! Blocks of fixed size instead of one growing array: no insert copies the whole, and a block whose
//! rows are gone goes back to the server. Nothing relies on more alignment than the allocator gives
//! by itself; jemalloc puts blocks of 16 KiB and more on a page.

use crate::allocation::allocated_bytes;
use crate::distance::prefetch_read;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 256;
const BLOCK_SHIFT: u32 = BLOCK_ROWS.ilog2();
const ROW_MASK: usize = BLOCK_ROWS - 1;

/// Rows the first block starts with: a container of five entries stays small.
const FIRST_ROWS: usize = 8;

/// int8 codes of one dimension, with a scale per row. Row `i` is in block `i / 256`.
#[derive(Debug)]
pub struct CodeArena {
    dim: usize,
    blocks: Vec<Block>,
}

/// Codes and scales of up to `BLOCK_ROWS` rows; both empty while no row was written.
#[derive(Debug, Default)]
struct Block {
    codes: Box<[i8]>,
    scales: Box<[f32]>,
}

impl Block {
    /// Gives the block room for at least `rows` rows; the new ones are zero.
    fn grow(&mut self, rows: usize, dim: usize) {
        let mut codes = vec![0; rows * dim].into_boxed_slice();
        codes[..self.codes.len()].copy_from_slice(&self.codes);
        let mut scales = vec![0.0; rows].into_boxed_slice();
        scales[..self.scales.len()].copy_from_slice(&self.scales);
        *self = Self { codes, scales };
    }
}

fn block_of(row: u32) -> usize {
    (row >> BLOCK_SHIFT) as usize
}

fn place_of(row: u32) -> usize {
    row as usize & ROW_MASK
}

impl CodeArena {
    /// An arena for codes of `dim` values; allocates nothing.
    pub fn new(dim: usize) -> Self {
        Self { dim, blocks: Vec::new() }
    }

    /// Values per code.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Writes a row, new or not. Rows are meant to be dense: the directory of blocks takes 32 bytes
    /// for every 256 rows up to the highest one.
    ///
    /// # Panics
    /// If the code has another dimension than the arena, which is the caller's mistake.
    pub fn set(&mut self, row: u32, code: &[i8], scale: f32) {
        assert_eq!(code.len(), self.dim, "a code has the arena's dimension");
        let (number, place) = (block_of(row), place_of(row));
        if number >= self.blocks.len() {
            self.blocks.resize_with(number + 1, Block::default);
        }
        let block = &mut self.blocks[number];
        if place >= block.scales.len() {
            let rows = match number {
                0 => (place + 1).next_power_of_two().max(FIRST_ROWS),
                _ => BLOCK_ROWS,
            };
            block.grow(rows, self.dim);
        }
        block.codes[place * self.dim..][..self.dim].copy_from_slice(code);
        block.scales[place] = scale;
    }

    /// The code of a row; `None` where no memory was given to it. A row of a block in use that was
    /// never written reads as zeros.
    #[inline]
    pub fn code(&self, row: u32) -> Option<&[i8]> {
        let start = place_of(row) * self.dim;
        self.blocks.get(block_of(row))?.codes.get(start..start + self.dim)
    }

    /// The scale of a row; `None` where no memory was given to it.
    #[inline]
    pub fn scale(&self, row: u32) -> Option<f32> {
        self.blocks.get(block_of(row))?.scales.get(place_of(row)).copied()
    }

    /// The code of a row, without a check.
    ///
    /// # Safety
    /// `row` was written by [`set`](Self::set), and its block was not freed since.
    #[inline(always)]
    pub unsafe fn code_unchecked(&self, row: u32) -> &[i8] {
        debug_assert!(self.code(row).is_some(), "row {row} has no memory");
        let start = place_of(row) * self.dim;
        // SAFETY: by the caller's word `set` made the block exist and reach over this row, and only
        // `free_block` shrinks it.
        unsafe {
            self.blocks.get_unchecked(block_of(row)).codes.get_unchecked(start..start + self.dim)
        }
    }

    /// The scale of a row, without a check.
    ///
    /// # Safety
    /// As for [`code_unchecked`](Self::code_unchecked).
    #[inline(always)]
    pub unsafe fn scale_unchecked(&self, row: u32) -> f32 {
        debug_assert!(self.scale(row).is_some(), "row {row} has no memory");
        // SAFETY: as in `code_unchecked`; scales grow and go with the codes.
        unsafe { *self.blocks.get_unchecked(block_of(row)).scales.get_unchecked(place_of(row)) }
    }

    /// Asks for the cache lines of a row's code ahead of its use. Does nothing for an absent row.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        if let Some(code) = self.code(row) {
            prefetch_read(code);
        }
    }

    /// Whether the block of a row has memory.
    pub fn has_block(&self, row: u32) -> bool {
        self.blocks.get(block_of(row)).is_some_and(|block| !block.scales.is_empty())
    }

    /// Gives back the memory of a block that holds no row any more. An absent block is left alone.
    pub fn free_block(&mut self, block: usize) {
        if let Some(block) = self.blocks.get_mut(block) {
            *block = Block::default();
        }
    }

    /// Bytes allocated: codes, scales and the directory of blocks.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter();
        let taken = |block: &Block| {
            allocated_bytes(block.codes.len()) + allocated_bytes(size_of_val(&*block.scales))
        };
        blocks.map(taken).sum::<usize>()
            + allocated_bytes(self.blocks.capacity() * size_of::<Block>())
    }
}
