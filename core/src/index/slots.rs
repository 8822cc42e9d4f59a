//! The slot table: one fixed-size record an entry, in blocks that come and go with their entries.
//!
//! Owns: allocation of slot ids (the lowest block with room first, so that high blocks drain and
//! can be freed), free lists inside the blocks. Main thread only. The first block grows by doubling
//! so that a container of five entries is small; every other block is allocated whole.

use super::NewSlot;
use super::filter::FilterRecord;
use crate::allocation::allocated_bytes;
use crate::distance::prefetch_value;
use crate::evict::AgedFrequency;
use crate::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use crate::limits;

/// Slots of one block; the vector arena has blocks of the same size.
pub const BLOCK_SLOTS: u32 = 256;
const BLOCK: usize = BLOCK_SLOTS as usize;

const OCCUPIED: u64 = 1 << 63;
const HAS_CODE: u64 = 1 << 62;
const NAMED: u64 = 1 << 61;
const HIDDEN: u64 = 1 << 60;
const TOMBSTONE: u64 = 1 << 59;
const TAGGED: u64 = 1 << 58;

const END_OF_LIST: u32 = u32::MAX;

/// What the index knows of one entry without opening its key.
#[derive(Debug, Default)]
pub struct Slot {
    /// Digest of scope, context and prompt.
    pub id: EntryId,
    /// Deadline.
    pub expire_at: UnixMs,
    /// Where it is searched.
    pub partition: PartitionKey,
    /// Compact META for filters.
    pub record: Option<FilterRecord>,
    /// Place in the partition's list of rows; in a free slot the next free one.
    pub(super) position: u32,
    /// Memory of the entry key.
    pub bytes: u32,
    /// Hits since this process started.
    pub hits: u32,
    /// How often it was hit lately.
    pub frequency: AgedFrequency,
    /// Place in the store order (48 bits), worth (8) and flags (8), so that a slot is one cache line.
    packed: u64,
}

const _: () = assert!(size_of::<Slot>() == 64, "a slot is paid for by every entry");

const SEQ_BITS: u32 = 48;

impl Slot {
    /// Place in the container's store order; tells this entry from a former one in the same slot.
    pub fn seq(&self) -> Seq {
        Seq(self.packed & ((1 << SEQ_BITS) - 1))
    }

    /// What it cost to make, on the scale of `evict::worth`.
    pub fn worth(&self) -> u8 {
        (self.packed >> SEQ_BITS) as u8
    }

    /// Whether the entry has a vector.
    pub fn has_code(&self) -> bool {
        self.packed & HAS_CODE != 0
    }

    /// Whether the caller chose the entry's id.
    pub fn is_named(&self) -> bool {
        self.packed & NAMED != 0
    }

    /// Whether the last attempt to open the entry's key failed.
    pub fn is_hidden(&self) -> bool {
        self.packed & HIDDEN != 0
    }

    /// Whether a search may name this entry at `now`.
    pub fn is_visible(&self, now: UnixMs) -> bool {
        !self.is_hidden() && !self.expire_at.is_past(now)
    }

    pub(super) fn set_hidden(&mut self, hidden: bool) {
        self.packed = if hidden { self.packed | HIDDEN } else { self.packed & !HIDDEN };
    }

    /// Whether the entry has tags.
    pub fn is_tagged(&self) -> bool {
        self.packed & TAGGED != 0
    }

    pub(super) fn set_tagged(&mut self) {
        self.packed |= TAGGED;
    }

    fn is_occupied(&self) -> bool {
        self.packed & OCCUPIED != 0
    }
}

#[derive(Debug)]
struct Block {
    /// Empty when the block is not allocated.
    slots: Vec<Slot>,
    free_head: u32,
    /// Slots that hold an entry or a tombstone.
    taken: u32,
    /// Slots that hold an entry: walks pass by blocks of tombstones alone.
    living: u32,
}

impl Block {
    const EMPTY: Self = Self { slots: Vec::new(), free_head: END_OF_LIST, taken: 0, living: 0 };
}

fn record_bytes(record: &FilterRecord) -> usize {
    allocated_bytes(record.bytes())
}

/// The slot table.
#[derive(Debug, Default)]
pub(super) struct Slots {
    blocks: Vec<Block>,
    /// No block below this one has room.
    first_with_room: usize,
    /// Memory of the filter records, counted as they come and go: limits ask for it at every store.
    record_bytes: usize,
}

impl Slots {
    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        let slot = self.blocks.get(id.0 as usize / BLOCK)?.slots.get(id.0 as usize % BLOCK)?;
        slot.is_occupied().then_some(slot)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        let block = self.blocks.get_mut(id.0 as usize / BLOCK)?;
        block.slots.get_mut(id.0 as usize % BLOCK).filter(|slot| slot.is_occupied())
    }

    /// Whether the entry of a slot went while others are still linked with it.
    pub(super) fn is_tombstone(&self, row: u32) -> bool {
        let block = self.blocks.get(row as usize / BLOCK);
        block
            .and_then(|block| block.slots.get(row as usize % BLOCK))
            .is_some_and(|slot| slot.packed & TOMBSTONE != 0)
    }

    /// Asks for the memory of a slot ahead of its use.
    #[inline]
    pub(super) fn prefetch(&self, row: u32) {
        let block = self.blocks.get(row as usize / BLOCK);
        if let Some(slot) = block.and_then(|block| block.slots.get(row as usize % BLOCK)) {
            prefetch_value(slot);
        }
    }

    /// One past the highest slot in use.
    pub(super) fn end(&self) -> u32 {
        self.blocks.last().map_or(0, |last| {
            (self.blocks.len() as u32 - 1) * BLOCK_SLOTS + last.slots.len() as u32
        })
    }

    pub(super) fn next_occupied(&self, from: u32) -> Option<(SlotId, &Slot)> {
        let mut block = from as usize / BLOCK;
        let mut within = from as usize % BLOCK;
        while let Some(candidate) = self.blocks.get(block) {
            if candidate.living > 0
                && let Some(step) = candidate.slots.iter().skip(within).position(Slot::is_occupied)
            {
                let row = within + step;
                return Some((SlotId((block * BLOCK + row) as u32), &candidate.slots[row]));
            }
            block += 1;
            within = 0;
        }
        None
    }

    /// Takes a free slot; `occupy` must follow.
    pub(super) fn allocate(&mut self) -> SlotId {
        let number = (self.first_with_room..self.blocks.len())
            .find(|&number| self.blocks[number].taken < BLOCK_SLOTS)
            .unwrap_or(self.blocks.len());
        self.first_with_room = number;
        if number == self.blocks.len() {
            self.blocks.push(Block::EMPTY);
        }
        let block = &mut self.blocks[number];
        block.taken += 1;
        let row = if block.free_head == END_OF_LIST {
            if block.slots.capacity() == 0 && number > 0 {
                block.slots.reserve_exact(BLOCK);
            } else if block.slots.len() == block.slots.capacity() {
                block.slots.reserve_exact(block.slots.len().max(8).min(BLOCK - block.slots.len()));
            }
            block.slots.push(Slot::default());
            block.slots.len() as u32 - 1
        } else {
            let row = block.free_head;
            block.free_head = block.slots[row as usize].position;
            row
        };
        SlotId(number as u32 * BLOCK_SLOTS + row)
    }

    /// Takes a particular free slot, for loading; `None` when an entry is in it.
    pub(super) fn allocate_at(&mut self, block: usize, row: usize) -> Option<SlotId> {
        while self.blocks.len() <= block {
            self.blocks.push(Block::EMPTY);
        }
        let target = &mut self.blocks[block];
        if row >= BLOCK || target.slots.get(row).is_some_and(Slot::is_occupied) {
            return None;
        }
        if target.slots.capacity() == 0 {
            target.slots.reserve_exact(if block > 0 { BLOCK } else { row + 1 });
        }
        while target.slots.len() <= row {
            target.slots.push(Slot::default());
        }
        target.taken += 1;
        Some(SlotId((block * BLOCK + row) as u32))
    }

    /// Chains the free slots of every block anew, after loading placed entries with `allocate_at`.
    pub(super) fn rebuild_free_lists(&mut self) {
        for block in &mut self.blocks {
            block.free_head = END_OF_LIST;
            for row in (0..block.slots.len()).rev() {
                if !block.slots[row].is_occupied() {
                    block.slots[row].position = block.free_head;
                    block.free_head = row as u32;
                }
            }
        }
        self.first_with_room = 0;
        self.drop_empty_tail();
    }

    pub(super) fn occupy(&mut self, id: SlotId, new: NewSlot<'_>) {
        self.record_bytes += new.record.as_ref().map_or(0, record_bytes);
        debug_assert!(new.seq.0 <= limits::SEQ_MAX);
        let mut packed = OCCUPIED | new.seq.0 | u64::from(new.worth) << SEQ_BITS;
        packed |= if new.code.is_some() { HAS_CODE } else { 0 };
        packed |= if new.name.is_some() { NAMED } else { 0 };
        let block = &mut self.blocks[id.0 as usize / BLOCK];
        block.living += 1;
        block.slots[id.0 as usize % BLOCK] = Slot {
            id: new.id,
            expire_at: new.expire_at,
            partition: new.partition,
            record: new.record,
            position: 0,
            bytes: new.bytes,
            hits: 0,
            frequency: AgedFrequency::default(),
            packed,
        };
    }

    /// Lets go of the entry in a slot that others are linked with: the slot stays taken, holds nothing
    /// but the number of the next such one, and is freed by `release_tombstone`.
    pub(super) fn bury(&mut self, id: SlotId, next: u32) {
        let block = &mut self.blocks[id.0 as usize / BLOCK];
        block.living -= 1;
        let slot = &mut block.slots[id.0 as usize % BLOCK];
        self.record_bytes -= slot.record.as_ref().map_or(0, record_bytes);
        *slot = Slot { position: next, packed: TOMBSTONE, ..Slot::default() };
    }

    /// The slot that a tombstone names.
    pub(super) fn after_tombstone(&self, row: u32) -> u32 {
        debug_assert!(self.is_tombstone(row));
        self.blocks[row as usize / BLOCK].slots[row as usize % BLOCK].position
    }

    /// Frees a slot. Answers the number of its block when the block holds no entry any more: the
    /// caller frees what it keeps beside it.
    pub(super) fn release(&mut self, id: SlotId) -> Option<usize> {
        let number = id.0 as usize / BLOCK;
        let block = &mut self.blocks[number];
        block.taken -= 1;
        block.living -= u32::from(block.slots[id.0 as usize % BLOCK].is_occupied());
        let record = block.slots[id.0 as usize % BLOCK].record.take();
        self.record_bytes -= record.as_ref().map_or(0, record_bytes);
        self.first_with_room = self.first_with_room.min(number);
        if block.taken == 0 {
            *block = Block::EMPTY;
            self.drop_empty_tail();
            return Some(number);
        }
        let row = id.0 as usize % BLOCK;
        block.slots[row] = Slot { position: block.free_head, ..Slot::default() };
        block.free_head = row as u32;
        None
    }

    fn drop_empty_tail(&mut self) {
        while self.blocks.last().is_some_and(|last| last.taken == 0) {
            self.blocks.pop();
        }
        if self.blocks.capacity() > 64 && self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
        self.first_with_room = self.first_with_room.min(self.blocks.len());
    }

    pub(super) fn bytes(&self) -> usize {
        let taken = |slots: &Vec<Slot>| allocated_bytes(slots.capacity() * size_of::<Slot>());
        let slots: usize = self.blocks.iter().map(|block| taken(&block.slots)).sum();
        allocated_bytes(self.blocks.capacity() * size_of::<Block>()) + slots + self.record_bytes
    }

    pub(super) fn check_invariants(&self) {
        for (number, block) in self.blocks.iter().enumerate() {
            let occupied = block.slots.iter().filter(|slot| slot.is_occupied()).count();
            let tombstones = block.slots.iter().filter(|slot| slot.packed & TOMBSTONE != 0).count();
            assert_eq!(occupied as u32, block.living, "block {number}: entries");
            let occupied = occupied + tombstones;
            assert_eq!(occupied as u32, block.taken, "block {number}: count");
            let (mut free, mut row) = (0, block.free_head);
            while row != END_OF_LIST {
                let packed = block.slots[row as usize].packed;
                assert_eq!(packed & (OCCUPIED | TOMBSTONE), 0, "block {number}: free list");
                row = block.slots[row as usize].position;
                free += 1;
                assert!(free <= BLOCK, "block {number}: free list is a ring");
            }
            assert_eq!(free + occupied, block.slots.len(), "block {number}: lost slots");
            assert!(number >= self.first_with_room || block.taken == BLOCK_SLOTS);
        }
        assert!(self.blocks.last().is_none_or(|last| last.taken > 0), "tail not dropped");
    }
}
