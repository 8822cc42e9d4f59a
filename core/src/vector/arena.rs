//! The codes of one container, contiguous in blocks.
//!
//! Owns: their memory. Must not know: which rows are in use; the caller says when a block is empty.
//! Written by the main thread; read by whoever borrows it, or, on any thread, holds a clone: that costs
//! nothing and never changes, since a block that a clone holds is copied before it is written to.
//!
//! Blocks of fixed size instead of one growing array: no insert copies the whole, and a block whose
//! rows are gone goes back to the server. Nothing relies on more alignment than the allocator gives
//! by itself; jemalloc puts blocks of 16 KiB and more on a page.

use super::directory::Directory;
use super::fine::{Plane, width_of};
use crate::allocation::allocated_bytes;
use crate::distance::prefetch_slice;

/// Rows of a block.
pub const BLOCK_ROWS: usize = if cfg!(loom) { 4 } else { 256 };
const BLOCK_SHIFT: u32 = BLOCK_ROWS.ilog2();
const ROW_MASK: usize = BLOCK_ROWS - 1;

/// Rows a block starts with: a container of five entries stays small.
const FIRST_ROWS: usize = if cfg!(loom) { 2 } else { 8 };

/// Rows up to which a block doubles, and by which it grows from there on. The last block of a container is
/// filled in part, and what is empty of it all entries pay for; copying what is there each time costs a
/// row less than a tenth of a microsecond.
const ROW_STEP: usize = if cfg!(loom) { 2 } else { 32 };

/// Rows that a block, of codes or of what else is kept by row, has memory for once it holds the row at `place`.
pub(crate) fn rows_with(place: usize) -> usize {
    match place + 1 {
        rows if rows < ROW_STEP => rows.next_power_of_two().max(FIRST_ROWS),
        rows => rows.next_multiple_of(ROW_STEP),
    }
}

/// int8 codes of one dimension, with a scale per row and, where it was given, the plane of `fine`. Row `i` is in block `i / 256`.
#[derive(Debug, Clone)]
pub struct CodeArena {
    dim: usize,
    blocks: Directory<Block>,
}

/// Codes, scales and fine planes of up to `BLOCK_ROWS` rows.
#[derive(Debug, Clone)]
struct Block {
    codes: Box<[i8]>,
    scales: Box<[f32]>,
    /// The fine planes and their scales: empty while no row of the block has one. A row without has the scale 0.
    /// Apart from each other, both are whole size classes of the allocator.
    quarters: Box<[u8]>,
    fine_scales: Box<[f32]>,
}

impl Block {
    /// A block with room for `rows` rows and the contents of a former one; the new rows are zero.
    fn grown(former: Option<&Self>, rows: usize, dim: usize) -> Self {
        let Some(Self { codes, scales, quarters, fine_scales }) = former else {
            let (codes, scales) = (grown(&[], rows * dim), grown(&[], rows));
            return Self { codes, scales, quarters: [].into(), fine_scales: [].into() };
        };
        let planes = if fine_scales.is_empty() { 0 } else { rows };
        let (quarters, fine_scales) =
            (grown(quarters, planes * width_of(dim)), grown(fine_scales, planes));
        Self { codes: grown(codes, rows * dim), scales: grown(scales, rows), quarters, fine_scales }
    }
}

/// The values, and zeros up to `len` of them.
fn grown<T: Copy + Default>(values: &[T], len: usize) -> Box<[T]> {
    let mut grown = Vec::with_capacity(len);
    grown.extend_from_slice(values);
    grown.resize(len, T::default());
    grown.into_boxed_slice()
}

fn block_of(row: u32) -> usize {
    (row >> BLOCK_SHIFT) as usize
}

fn place_of(row: u32) -> usize {
    row as usize & ROW_MASK
}

impl CodeArena {
    /// An arena for codes of `dim` values.
    pub fn new(dim: usize) -> Self {
        Self { dim, blocks: Directory::default() }
    }

    /// Values per code.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Writes a row, new or not, which has no fine plane then. Rows are meant to be dense: the directory takes some bytes
    /// for every 256 rows up to the highest one.
    ///
    /// # Panics
    /// If the code has another dimension than the arena, which is the caller's mistake.
    pub fn set(&mut self, row: u32, code: &[i8], scale: f32) {
        assert_eq!(code.len(), self.dim, "a code has the arena's dimension");
        let (number, place) = (block_of(row), place_of(row));
        let has_room = |block: &Block| place < block.scales.len();
        if !self.blocks.get(number).is_some_and(has_room) {
            let grown = Block::grown(self.blocks.get(number), rows_with(place), self.dim);
            self.blocks.put(number, grown);
        }
        if let Some(block) = self.blocks.own(number) {
            block.codes[place * self.dim..][..self.dim].copy_from_slice(code);
            block.scales[place] = scale;
            if let Some(fine_scale) = block.fine_scales.get_mut(place) {
                *fine_scale = 0.0;
            }
        }
    }

    /// Gives a row that was written its fine plane.
    ///
    /// # Panics
    /// If the plane is of another dimension, which is the caller's mistake.
    pub fn set_plane(&mut self, row: u32, plane: Plane<'_>) {
        let width = width_of(self.dim);
        assert_eq!(plane.quarters.len(), width, "a plane has the arena's dimension");
        let Some(block) = self.blocks.own(block_of(row)) else { return };
        let (rows, place) = (block.scales.len(), place_of(row));
        if block.fine_scales.is_empty() {
            block.quarters = grown(&[], rows * width);
            block.fine_scales = grown(&[], rows);
        }
        if let Some(fine_scale) = block.fine_scales.get_mut(place) {
            *fine_scale = plane.scale;
            block.quarters[place * width..][..width].copy_from_slice(plane.quarters);
        }
    }

    /// The fine plane of a row, if it has one.
    #[inline]
    pub fn plane(&self, row: u32) -> Option<Plane<'_>> {
        let (place, width) = (place_of(row), width_of(self.dim));
        let block = self.blocks.get(block_of(row))?;
        let scale = *block.fine_scales.get(place).filter(|scale| **scale > 0.0)?;
        Some(Plane { scale, quarters: &block.quarters[place * width..][..width] })
    }

    /// Asks for the cache lines of a row's code and plane ahead of their use.
    #[inline]
    pub fn prefetch_whole(&self, row: u32) {
        self.prefetch(row);
        if let Some(plane) = self.plane(row) {
            prefetch_slice(plane.quarters);
        }
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

    /// The code of a row and its scale; the empty code where no memory was given to the row.
    #[inline(always)]
    pub fn row(&self, row: u32) -> (&[i8], f32) {
        let place = place_of(row);
        let Some(block) = self.blocks.get(block_of(row)) else { return (&[], 0.0) };
        let code = block.codes.get(place * self.dim..(place + 1) * self.dim);
        (code.unwrap_or_default(), block.scales.get(place).copied().unwrap_or_default())
    }

    /// Asks for the cache lines of a row's code ahead of its use. Does nothing for an absent row.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        if let Some(code) = self.code(row) {
            prefetch_slice(code);
        }
    }

    /// Whether the block of a row has memory.
    pub fn has_block(&self, row: u32) -> bool {
        self.blocks.get(block_of(row)).is_some()
    }

    /// Gives back the memory of a block that holds no row any more; an absent block is left alone. False,
    /// and nothing done, while a clone lives.
    pub fn free_block(&mut self, block: usize) -> bool {
        self.blocks.free(block)
    }

    /// Bytes allocated: codes, scales, planes and the directory of blocks.
    pub fn bytes(&self) -> usize {
        let taken = |block: &Block| {
            allocated_bytes(block.codes.len())
                + allocated_bytes(size_of_val(&*block.scales))
                + allocated_bytes(block.quarters.len())
                + allocated_bytes(size_of_val(&*block.fine_scales))
        };
        self.blocks.iter().map(taken).sum::<usize>() + self.blocks.bytes()
    }
}
