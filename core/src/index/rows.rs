//! What each entry takes in an index: a slot, a place in its partition, a code, tags, a count of its scope.
//!
//! Owns: the parts that graphs and searches read and change, and when a block of slots and its codes are freed. Knows no
//! graph, no name and no word. Main thread only; what searches on other threads read is in `row_state`.

use super::partitions::{Partitions, Taken};
use super::scopes::Scopes;
use super::slots::{Slot, Slots};
use super::tags::Tags;
use crate::ids::{PartitionKey, Seq, SlotId};
use crate::vector::arena::CodeArena;
use crate::vector::fine::Plane;
use crate::vector::quantise::unit_scale;

/// The rows of one index.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) slots: Slots,
    pub(super) partitions: Partitions,
    pub(super) arena: Option<CodeArena>,
    pub(super) tags: Tags,
    pub(super) scopes: Scopes,
    /// The latest place in the store order that came in.
    pub(super) last_seq: Seq,
    /// Whether blocks without entries wait for a search on another thread to end before they can be freed.
    has_held_blocks: bool,
}

impl Rows {
    /// Keeps the code of a row, at unit length whatever width of a step it came with; the first sets the
    /// dimension.
    pub(super) fn set_code(&mut self, id: SlotId, code: &[i8]) {
        let arena = self.arena.get_or_insert_with(|| CodeArena::new(code.len()));
        debug_assert_eq!(arena.dim(), code.len(), "the container checks dimensions");
        arena.set(id.0, code, unit_scale(code));
    }

    /// Keeps the fine plane of a row that has a code of its dimension.
    pub(super) fn set_plane(&mut self, slot: SlotId, plane: Plane<'_>) {
        if let Some(arena) = &mut self.arena {
            arena.set_plane(slot.0, plane);
        }
    }

    /// The fine plane of a slot, if it has one.
    pub(super) fn plane(&self, slot: SlotId) -> Option<Plane<'_>> {
        self.slots.get(slot).filter(|found| found.has_code())?;
        self.arena.as_ref()?.plane(slot.0)
    }

    /// The int8 code of a slot and the scale that gives it unit length.
    pub(super) fn code(&self, slot: SlotId) -> Option<(&[i8], f32)> {
        let arena = self.arena.as_ref()?;
        self.slots.get(slot).filter(|found| found.has_code())?;
        Some(arena.row(slot.0))
    }

    /// Dimension of the codes, once there is one.
    pub(super) fn dim(&self) -> Option<u32> {
        self.arena.as_ref().map(|arena| arena.dim() as u32)
    }

    /// The rows of a partition.
    pub(super) fn of_partition(&self, partition: PartitionKey) -> &[u32] {
        self.partitions.rows(&self.slots, partition)
    }

    /// Adds an occupied slot to its partition; returns the partition's list, if it has one.
    pub(super) fn join_partition(&mut self, id: SlotId) -> Option<u32> {
        self.partitions.add(&mut self.slots, id)
    }

    /// Takes an occupied slot out of its partition. Constant time, allocates nothing.
    pub(super) fn leave_partition(&mut self, id: SlotId) -> Taken {
        self.partitions.remove(&mut self.slots, id)
    }

    /// Moves a row of a list's tail over to the linked ones.
    pub(super) fn mark_linked(&mut self, list: u32, row: u32) {
        self.partitions.mark_linked(&mut self.slots, list, row);
    }

    /// Brings a list of one row without a graph back to the small form.
    pub(super) fn compact(&mut self, list: u32) {
        self.partitions.compact(&self.slots, list);
    }

    /// Whether the entry in a slot is invalidated by one of its tags.
    pub(super) fn is_gone_by_tag(&self, id: SlotId, slot: &Slot<'_>) -> bool {
        slot.is_tagged() && self.tags.is_gone(id.0, slot.seq())
    }

    /// The tags, where some tag is invalidated.
    pub(super) fn bounded_tags(&self) -> Option<&Tags> {
        self.tags.any_bound().then_some(&self.tags)
    }

    /// Frees a slot, and with the last of its block the block and its codes, unless a search on another
    /// thread holds them.
    pub(super) fn release(&mut self, slot: SlotId) {
        if let Some(block) = self.slots.release(slot) {
            self.free_block(block);
        }
    }

    fn free_block(&mut self, block: usize) {
        let codes = self.arena.as_mut().is_none_or(|arena| arena.free_block(block));
        if !codes || !self.slots.free_block(block) {
            self.has_held_blocks = true;
        }
    }

    /// Frees what a search on another thread held. To be called when one has ended.
    pub(super) fn tidy(&mut self) {
        if std::mem::take(&mut self.has_held_blocks) {
            for block in self.slots.empty_blocks() {
                self.free_block(block);
            }
        }
    }

    /// Gives everything back; the store order goes on.
    pub(super) fn clear(&mut self) {
        *self = Self { last_seq: self.last_seq, ..Self::default() };
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes()
            + self.partitions.bytes()
            + self.arena.as_ref().map_or(0, CodeArena::bytes)
            + self.tags.bytes()
            + self.scopes.bytes()
    }
}
