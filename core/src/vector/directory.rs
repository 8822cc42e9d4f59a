//! Blocks by number, with snapshots for searches on other threads.
//!
//! Owns: the handles. A clone is such a picture: it costs one count, and neither the handles it names nor
//! what lies behind them goes away under it. Whoever changes a block or the directory copies what a
//! picture still holds; what nobody else holds is changed in place. Handles may be dropped on any thread.

use crate::allocation::allocated_bytes;
use crate::sync::{Arc, own};

/// Memory of an `Arc` beside its value: two counts.
const ARC_BYTES: usize = 16;

/// Blocks under a number.
#[derive(Debug)]
pub(crate) struct Directory<T> {
    blocks: Arc<Vec<Option<Arc<T>>>>,
    /// How many there are.
    used: usize,
}

impl<T> Default for Directory<T> {
    fn default() -> Self {
        Self { blocks: Arc::new(Vec::new()), used: 0 }
    }
}

impl<T> Clone for Directory<T> {
    fn clone(&self) -> Self {
        Self { blocks: Arc::clone(&self.blocks), used: self.used }
    }
}

impl<T> Directory<T> {
    /// All of it, for loops that look up many.
    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[Option<Arc<T>>] {
        &self.blocks
    }

    /// The block of a number, if it has memory.
    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.blocks.get(number)?.as_deref()
    }

    /// Those that have memory.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten().map(|block| &**block)
    }

    /// Whether a picture of the directory lives: taking a block away would mean to copy it all.
    pub(crate) fn is_held(&mut self) -> bool {
        Arc::get_mut(&mut self.blocks).is_none()
    }

    /// Puts a block in its place.
    pub(crate) fn put(&mut self, number: usize, block: T) {
        let blocks = own(&mut self.blocks);
        if number >= blocks.len() {
            blocks.resize_with(number + 1, || None);
        }
        let former = blocks[number].replace(Arc::new(block));
        self.used += usize::from(former.is_none());
    }

    /// The block of a number, to be changed.
    pub(crate) fn own(&mut self, number: usize) -> Option<&mut T>
    where
        T: Clone,
    {
        self.blocks.get(number)?.as_ref()?;
        own(&mut self.blocks)[number].as_mut().map(own)
    }

    /// The block of a number, to be changed, unless a picture holds it. Allocates nothing.
    pub(crate) fn own_if_free(&mut self, number: usize) -> Option<&mut T> {
        let blocks = Arc::get_mut(&mut self.blocks)?;
        Arc::get_mut(blocks.get_mut(number)?.as_mut()?)
    }

    /// Lets go of a block; false, and nothing done, while a picture lives. Allocates nothing then.
    pub(crate) fn free(&mut self, number: usize) -> bool {
        let Some(blocks) = Arc::get_mut(&mut self.blocks) else { return false };
        if let Some(block) = blocks.get_mut(number) {
            self.used -= usize::from(block.take().is_some());
        }
        while blocks.last().is_some_and(Option::is_none) {
            blocks.pop();
        }
        if blocks.capacity() > 64 && blocks.len() < blocks.capacity() / 4 {
            blocks.shrink_to(blocks.len() * 2);
        }
        true
    }

    /// Memory of the handles and of the blocks without what these own.
    pub(crate) fn bytes(&self) -> usize {
        let handles = allocated_bytes(self.blocks.capacity() * size_of::<Option<Arc<T>>>());
        let blocks = self.used * allocated_bytes(ARC_BYTES + size_of::<T>());
        allocated_bytes(ARC_BYTES + size_of::<Vec<Option<Arc<T>>>>()) + handles + blocks
    }
}
