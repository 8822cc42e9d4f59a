//! The slot table: one fixed-size record an entry, in blocks that come and go with their entries.
//!
//! Owns: allocation of slot ids (the lowest block with room first, so that high blocks drain and
//! can be freed), free lists inside the blocks. Main thread only; what searches on other threads read of a slot
//! is in `row_state`. Blocks grow in the steps of `rows_with`, as codes and links do.

use super::row_state::{Head, RowStates};
use crate::allocation::allocated_bytes;
use crate::evict::AgedFrequency;
use crate::filter::FilterRecord;
use crate::ids::{EntryId, PartitionKey, Seq, SlotId, UnixMs};
use crate::limits;
use crate::vector::arena::{BLOCK_ROWS, rows_with};

/// Slots of one block; the arenas have blocks of the same size.
pub const BLOCK_SLOTS: u32 = BLOCK_ROWS as u32;

const BLOCK: usize = BLOCK_ROWS;

const END_OF_LIST: u32 = u32::MAX;

/// What the index knows of one entry without opening its key.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// Digest of scope, context and prompt.
    pub id: EntryId,
    /// Deadline.
    pub expire_at: UnixMs,
    /// Where it is searched.
    pub partition: PartitionKey,
    /// Compact META for filters.
    pub record: Option<&'a FilterRecord>,
    /// Place in the partition's list of rows.
    pub(super) position: u32,
    /// Memory of the entry key.
    pub bytes: u32,
    /// Hits since this process started.
    pub hits: u32,
    /// How often it was hit lately.
    pub frequency: AgedFrequency,
    head: Head,
}

/// What the index is told of a new entry.
#[derive(Debug)]
pub struct NewSlot<'a> {
    /// Digest of scope, context and prompt.
    pub id: EntryId,
    /// The entry's place in the container's store order.
    pub seq: Seq,
    /// The scope and context it is searched in.
    pub partition: PartitionKey,
    /// Deadline, or `UnixMs::NEVER`.
    pub expire_at: UnixMs,
    /// Memory of the entry key.
    pub bytes: u32,
    /// What the answer cost to make, on the scale of `evict::worth`.
    pub worth: u8,
    /// Compact META for filters.
    pub record: Option<FilterRecord>,
    /// The id the caller gave, where it is not the digest.
    pub name: Option<&'a [u8]>,
    /// int8 code and its scale; absent for entries of the exact tier alone.
    pub code: Option<(&'a [i8], f32)>,
}

impl Slot<'_> {
    /// Place in the container's store order; tells this entry from a former one in the same slot.
    pub fn seq(&self) -> Seq {
        self.head.seq()
    }

    /// What it cost to make, on the scale of `evict::worth`.
    pub fn worth(&self) -> u8 {
        self.head.worth()
    }

    /// Whether the entry has a vector.
    pub fn has_code(&self) -> bool {
        self.head.has(Head::HAS_CODE)
    }

    /// Whether the caller chose the entry's id.
    pub fn is_named(&self) -> bool {
        self.head.has(Head::NAMED)
    }

    /// Whether the last attempt to open the entry's key failed.
    pub fn is_hidden(&self) -> bool {
        self.head.has(Head::HIDDEN)
    }

    /// Whether the entry has tags.
    pub fn is_tagged(&self) -> bool {
        self.head.has(Head::TAGGED)
    }

    /// Whether a search may name this entry at `now`.
    pub fn is_visible(&self, now: UnixMs) -> bool {
        !self.is_hidden() && !self.expire_at.is_past(now)
    }
}

/// What only the main thread needs of a slot.
#[derive(Debug, Default)]
struct Record {
    id: EntryId,
    /// Place in the partition's list of rows; in a free slot the next free one, in a tombstone the next
    /// tombstone.
    position: u32,
    bytes: u32,
    hits: u32,
    frequency: AgedFrequency,
}

const _: () = assert!(size_of::<Record>() == 32, "a slot is paid for by every entry");

#[derive(Debug)]
struct Block {
    /// Empty when the block is not allocated.
    slots: Vec<Record>,
    free_head: u32,
    /// Slots that hold an entry or a tombstone.
    taken: u32,
    /// Slots that hold an entry: walks pass by blocks of tombstones alone.
    living: u32,
}

impl Block {
    const EMPTY: Self = Self { slots: Vec::new(), free_head: END_OF_LIST, taken: 0, living: 0 };
}

/// The slot table.
#[derive(Debug, Default)]
pub(super) struct Slots {
    blocks: Vec<Block>,
    states: RowStates,
    /// No block below this one has room.
    first_with_room: usize,
    /// Memory of the filter records, counted as they come and go: limits ask for it at every store.
    record_bytes: usize,
}

impl Slots {
    fn record_of(&self, row: u32) -> Option<&Record> {
        self.blocks.get(row as usize / BLOCK)?.slots.get(row as usize % BLOCK)
    }

    fn record_mut(&mut self, row: u32) -> &mut Record {
        &mut self.blocks[row as usize / BLOCK].slots[row as usize % BLOCK]
    }

    /// Memory of all filter records.
    pub(super) fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Puts another filter record of its entry into an occupied slot.
    pub(super) fn set_record(&mut self, row: u32, record: Option<FilterRecord>) {
        let grown = self.states.set_record(row, record);
        self.record_bytes = self.record_bytes.saturating_add_signed(grown);
    }

    /// What searches read of the slots.
    pub(super) fn states(&self) -> &RowStates {
        &self.states
    }

    pub(super) fn get(&self, id: SlotId) -> Option<Slot<'_>> {
        let state = self.states.get(id.0)?;
        let head = state.head();
        if !head.has(Head::OCCUPIED) {
            return None;
        }
        let Record { id: entry, position, bytes, hits, frequency } = *self.record_of(id.0)?;
        let (expire_at, partition) = (state.expire_at(), state.partition());
        let record = self.states.record(id.0);
        Some(Slot {
            id: entry,
            expire_at,
            partition,
            record,
            position,
            bytes,
            hits,
            frequency,
            head,
        })
    }

    /// Whether the entry in a slot is of this id.
    pub(super) fn is_of(&self, row: u32, id: &EntryId) -> bool {
        self.record_of(row).is_some_and(|record| record.id == *id)
            && self.states.head(row).has(Head::OCCUPIED)
    }

    /// The partition of the entry in a slot.
    pub(super) fn partition_of(&self, row: u32) -> Option<PartitionKey> {
        let state = self.states.get(row)?;
        state.head().has(Head::OCCUPIED).then(|| state.partition())
    }

    /// The place of an entry in its partition's list.
    pub(super) fn position_of(&self, row: u32) -> u32 {
        debug_assert!(self.states.head(row).has(Head::OCCUPIED), "rows are occupied");
        self.record_of(row).map_or(0, |record| record.position)
    }

    /// Notes the place of an entry in its partition's list.
    pub(super) fn set_position(&mut self, row: u32, position: u32) {
        debug_assert!(self.states.head(row).has(Head::OCCUPIED), "rows are occupied");
        self.record_mut(row).position = position;
    }

    pub(super) fn set_hidden(&mut self, row: u32, hidden: bool) {
        self.states.set_head(row, self.states.head(row).with(Head::HIDDEN, hidden));
    }

    pub(super) fn set_tagged(&mut self, row: u32) {
        self.states.set_head(row, self.states.head(row).with(Head::TAGGED, true));
    }

    pub(super) fn set_expire_at(&mut self, row: u32, expire_at: UnixMs) {
        self.states.set_expire_at(row, expire_at);
    }

    /// Counts a hit on an entry; returns how many it has had.
    pub(super) fn note_hit(&mut self, row: u32, now_min: u16) -> u32 {
        let record = self.record_mut(row);
        record.hits = record.hits.saturating_add(1);
        record.frequency.touch(now_min);
        record.hits
    }

    /// Notes the hits that an entry had elsewhere.
    pub(super) fn bring_hits(&mut self, row: u32, hits: u32, frequency: AgedFrequency) {
        let record = self.record_mut(row);
        (record.hits, record.frequency) = (hits, frequency);
    }

    /// Whether the entry of a slot went while others are still linked with it.
    pub(super) fn is_tombstone(&self, row: u32) -> bool {
        self.states.head(row).has(Head::TOMBSTONE)
    }

    /// Asks for the memory of a slot ahead of its use.
    #[inline]
    pub(super) fn prefetch(&self, row: u32) {
        self.states.prefetch(row);
    }

    /// One past the highest slot in use.
    pub(super) fn end(&self) -> u32 {
        self.blocks.last().map_or(0, |last| {
            (self.blocks.len() as u32 - 1) * BLOCK_SLOTS + last.slots.len() as u32
        })
    }

    pub(super) fn next_occupied(&self, from: u32) -> Option<(SlotId, Slot<'_>)> {
        let mut block = from as usize / BLOCK;
        let mut within = from as usize % BLOCK;
        while let Some(candidate) = self.blocks.get(block) {
            if candidate.living > 0 {
                let mut rows = (block * BLOCK + within)..(block * BLOCK + candidate.slots.len());
                let found = rows.find_map(|row| {
                    let id = SlotId(row as u32);
                    Some((id, self.get(id)?))
                });
                if found.is_some() {
                    return found;
                }
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
            self.push_slot(number)
        } else {
            let row = block.free_head;
            block.free_head = block.slots[row as usize].position;
            row
        };
        SlotId(number as u32 * BLOCK_SLOTS + row)
    }

    /// Adds a slot to a block, which gets more memory if it has none left.
    fn push_slot(&mut self, number: usize) -> u32 {
        let slots = &mut self.blocks[number].slots;
        let last = slots.len();
        if last == slots.capacity() {
            slots.reserve_exact(rows_with(last) - last);
        }
        slots.push(Record::default());
        if last >= self.states.room(number) {
            self.states.make_room(number, last);
        }
        last as u32
    }

    /// Takes a particular free slot, for loading; `None` when an entry is in it.
    pub(super) fn allocate_at(&mut self, block: usize, row: usize) -> Option<SlotId> {
        while self.blocks.len() <= block {
            self.blocks.push(Block::EMPTY);
        }
        let id = SlotId((block * BLOCK + row) as u32);
        if row >= BLOCK || self.states.head(id.0).has(Head::OCCUPIED) {
            return None;
        }
        while self.blocks[block].slots.len() <= row {
            self.push_slot(block);
        }
        self.blocks[block].taken += 1;
        Some(id)
    }

    /// Chains the free slots of every block again, after loading placed entries with `allocate_at`.
    pub(super) fn rebuild_free_lists(&mut self) {
        for (number, block) in self.blocks.iter_mut().enumerate() {
            block.free_head = END_OF_LIST;
            for row in (0..block.slots.len()).rev() {
                if !self.states.head((number * BLOCK + row) as u32).has(Head::OCCUPIED) {
                    block.slots[row].position = block.free_head;
                    block.free_head = row as u32;
                }
            }
        }
        self.first_with_room = 0;
        self.drop_empty_tail();
    }

    pub(super) fn occupy(&mut self, id: SlotId, new: NewSlot<'_>) {
        debug_assert!(new.seq.0 <= limits::SEQ_MAX);
        let head = Head::new(new.seq, new.worth)
            .with(Head::HAS_CODE, new.code.is_some())
            .with(Head::NAMED, new.name.is_some());
        let frequency = AgedFrequency::default();
        let record = Record { id: new.id, position: 0, bytes: new.bytes, hits: 0, frequency };
        *self.record_mut(id.0) = record;
        self.blocks[id.0 as usize / BLOCK].living += 1;
        let grown = self.states.occupy(id.0, head, new.expire_at, new.partition, new.record);
        self.record_bytes = self.record_bytes.saturating_add_signed(grown);
    }

    /// Lets go of the entry in a slot that others are linked with: the slot stays taken, holds nothing
    /// but the number of the next such one, and is freed by `release`.
    pub(super) fn bury(&mut self, id: SlotId, next: u32) {
        self.blocks[id.0 as usize / BLOCK].living -= 1;
        self.states.set_head(id.0, Head::BURIED);
        self.record_bytes -= self.states.drop_record(id.0);
        *self.record_mut(id.0) = Record { position: next, ..Record::default() };
    }

    /// The slot that a tombstone names.
    pub(super) fn after_tombstone(&self, row: u32) -> u32 {
        debug_assert!(self.is_tombstone(row));
        self.record_of(row).map_or(END_OF_LIST, |record| record.position)
    }

    /// Frees a slot. Returns the number of its block when the block holds no entry any more: the
    /// caller frees what it keeps beside it, and the block itself by `free_block`.
    pub(super) fn release(&mut self, id: SlotId) -> Option<usize> {
        let number = id.0 as usize / BLOCK;
        let occupied = self.states.head(id.0).has(Head::OCCUPIED);
        self.states.set_head(id.0, Head::FREE);
        self.record_bytes -= self.states.drop_record(id.0);
        let block = &mut self.blocks[number];
        block.taken -= 1;
        block.living -= u32::from(occupied);
        let row = id.0 as usize % BLOCK;
        block.slots[row] = Record { position: block.free_head, ..Record::default() };
        block.free_head = row as u32;
        self.first_with_room = self.first_with_room.min(number);
        (block.taken == 0).then_some(number)
    }

    /// Gives back the memory of a block without entries; false, and nothing done, while a search holds it.
    pub(super) fn free_block(&mut self, number: usize) -> bool {
        let Some(given_back) = self.states.free_block(number) else { return false };
        self.record_bytes -= given_back;
        self.blocks[number] = Block::EMPTY;
        self.drop_empty_tail();
        true
    }

    /// Blocks that hold no entry but have memory, the last first.
    pub(super) fn empty_blocks(&self) -> Vec<usize> {
        let is_empty = |&number: &usize| {
            self.blocks[number].taken == 0 && !self.blocks[number].slots.is_empty()
        };
        (0..self.blocks.len()).rev().filter(is_empty).collect()
    }

    fn drop_empty_tail(&mut self) {
        while self.blocks.last().is_some_and(|last| last.slots.is_empty()) {
            self.blocks.pop();
        }
        if self.blocks.capacity() > 64 && self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
        self.first_with_room = self.first_with_room.min(self.blocks.len());
    }

    pub(super) fn bytes(&self) -> usize {
        let taken = |slots: &Vec<Record>| allocated_bytes(slots.capacity() * size_of::<Record>());
        let slots: usize = self.blocks.iter().map(|block| taken(&block.slots)).sum();
        let directory = allocated_bytes(self.blocks.capacity() * size_of::<Block>());
        directory + slots + self.states.bytes() + self.record_bytes
    }

    pub(super) fn check_invariants(&self) {
        for (number, block) in self.blocks.iter().enumerate() {
            let head = |row: usize| self.states.head((number * BLOCK + row) as u32);
            let heads = (0..block.slots.len()).map(head);
            let occupied = heads.clone().filter(|head| head.has(Head::OCCUPIED)).count();
            let tombstones = heads.filter(|head| head.has(Head::TOMBSTONE)).count();
            assert_eq!(occupied as u32, block.living, "block {number}: entries");
            let occupied = occupied + tombstones;
            assert_eq!(occupied as u32, block.taken, "block {number}: count");
            let (mut free, mut row) = (0, block.free_head);
            while row != END_OF_LIST {
                assert_eq!(head(row as usize), Head::FREE, "block {number}: free list");
                row = block.slots[row as usize].position;
                free += 1;
                assert!(free <= BLOCK, "block {number}: free list is a ring");
            }
            assert_eq!(free + occupied, block.slots.len(), "block {number}: lost slots");
            assert!(number >= self.first_with_room || block.taken == BLOCK_SLOTS);
        }
        assert!(self.blocks.last().is_none_or(|last| !last.slots.is_empty()), "tail not dropped");
        assert_eq!(self.states.count_record_bytes(), self.record_bytes, "bytes of records");
    }
}
