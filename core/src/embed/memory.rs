//! The memory of a pass: what every row of a text has, which threads that share the text write each in rows of their own.
//!
//! Owns: how it lies. Any thread; who writes which rows is said in `bert`.

use super::kernel::LANES;
use std::cell::UnsafeCell;

/// Sixteen f32 of one line of the cache.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Cells(UnsafeCell<[f32; LANES]>);

/// f32 by groups of sixteen.
#[derive(Debug, Default)]
pub(super) struct Floats(Vec<Cells>);

// SAFETY: plain numbers. Who reads or writes them through a shared reference does so by `Places` alone, whose methods
// are unsafe and have it keep to places that nobody writes meanwhile.
unsafe impl Sync for Floats {}

impl Floats {
    /// Has room for so many.
    pub(super) fn reserve(&mut self, values: usize) {
        let cells = values.div_ceil(LANES);
        if self.0.len() < cells {
            self.0.resize_with(cells, Cells::default);
        }
    }

    /// All of them.
    #[inline(always)]
    pub(super) fn all(&mut self) -> &mut [f32] {
        let (start, length) = (self.0.as_mut_ptr().cast(), self.0.len() * LANES);
        // SAFETY: cells are sixteen f32 each, one after the other, and this reference is the only one.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    /// Rows and groups of lanes among them: the next row is `row` values on, the next group `group`.
    #[inline(always)]
    pub(super) fn places(&self, row: usize, group: usize) -> Places {
        let start = UnsafeCell::raw_get(self.0.as_ptr().cast::<UnsafeCell<f32>>());
        Places { start, length: self.0.len() * LANES, row, group }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Cells>()
    }
}

/// Where rows of groups of sixteen values lie.
#[derive(Clone, Copy)]
pub(super) struct Places {
    start: *mut f32,
    length: usize,
    pub(super) row: usize,
    pub(super) group: usize,
}

impl Places {
    /// The same from another row and group on.
    #[inline(always)]
    pub(super) unsafe fn from(self, row: usize, group: usize) -> Self {
        let skipped = row * self.row + group * self.group;
        debug_assert!(skipped <= self.length);
        // SAFETY: within what there is, says the caller.
        let start = unsafe { self.start.add(skipped) };
        Self { start, length: self.length - skipped, ..self }
    }

    /// `N` values from a row of a group on.
    ///
    /// # Safety
    /// They are there, and nobody writes them while the reference lives.
    #[inline(always)]
    pub(super) unsafe fn values<'a, const N: usize>(
        self,
        row: usize,
        group: usize,
    ) -> &'a [f32; N] {
        let at = row * self.row + group * self.group;
        debug_assert!(at + N <= self.length);
        // SAFETY: says the caller.
        unsafe { &*self.start.add(at).cast() }
    }

    /// `N` values from a row of a group on.
    ///
    /// # Safety
    /// They are there, and nobody else reads or writes them while the reference lives.
    #[inline(always)]
    pub(super) unsafe fn values_mut<'a, const N: usize>(
        self,
        row: usize,
        group: usize,
    ) -> &'a mut [f32; N] {
        let at = row * self.row + group * self.group;
        debug_assert!(at + N <= self.length);
        // SAFETY: says the caller.
        unsafe { &mut *self.start.add(at).cast() }
    }

    /// The first values.
    ///
    /// # Safety
    /// As for `values`.
    #[inline(always)]
    pub(super) unsafe fn slice<'a>(self, length: usize) -> &'a [f32] {
        debug_assert!(length <= self.length);
        // SAFETY: says the caller.
        unsafe { std::slice::from_raw_parts(self.start, length) }
    }

    /// The first values.
    ///
    /// # Safety
    /// As for `values_mut`.
    #[inline(always)]
    pub(super) unsafe fn slice_mut<'a>(self, length: usize) -> &'a mut [f32] {
        debug_assert!(length <= self.length);
        // SAFETY: says the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start, length) }
    }

    /// The lanes of a row and group, to be written.
    ///
    /// # Safety
    /// As for `values_mut`.
    #[inline(always)]
    pub(super) unsafe fn lanes<'a>(self, row: usize, group: usize) -> &'a mut [f32; LANES] {
        // SAFETY: says the caller.
        unsafe { self.values_mut(row, group) }
    }
}
