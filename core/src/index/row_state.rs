//! What a search reads of the rows it meets: whether an entry is there, since when, until when, in which
//! partition, and its filter record.
//!
//! Owns: this memory and the order in which it is written and read. Written by the main thread alone, in place; a
//! clone costs nothing and is what a search on another thread reads, while rows come and go. A row's head says
//! whose the row is: it is written last when an entry comes and read first and last by whoever judges the row,
//! so that no entry is judged by what is known of another. Records never change; whoever reads one holds it.

use crate::allocation::allocated_bytes;
use crate::distance::prefetch_value;
use crate::filter::FilterRecord;
use crate::ids::{PartitionKey, Seq, UnixMs};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::vector::arena::{BLOCK_ROWS, rows_with};
use crate::vector::directory::Directory;

/// No row, no list, no record.
pub(super) const NONE: u32 = u32::MAX;

const SEQ_BITS: u32 = 48;

/// Place in the store order (48 bits), worth (8) and flags (8) of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head(u64);

impl Head {
    pub(super) const OCCUPIED: u64 = 1 << 63;
    pub(super) const HAS_CODE: u64 = 1 << 62;
    pub(super) const NAMED: u64 = 1 << 61;
    pub(super) const HIDDEN: u64 = 1 << 60;
    pub(super) const TOMBSTONE: u64 = 1 << 59;
    pub(super) const TAGGED: u64 = 1 << 58;

    pub(super) const FREE: Self = Self(0);
    pub(super) const BURIED: Self = Self(Self::TOMBSTONE);

    pub(super) fn new(seq: Seq, worth: u8) -> Self {
        Self(Self::OCCUPIED | seq.0 | u64::from(worth) << SEQ_BITS)
    }

    pub(super) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn with(self, flag: u64, set: bool) -> Self {
        Self(if set { self.0 | flag } else { self.0 & !flag })
    }

    pub(super) fn seq(self) -> Seq {
        Seq(self.0 & ((1 << SEQ_BITS) - 1))
    }

    pub(super) fn worth(self) -> u8 {
        (self.0 >> SEQ_BITS) as u8
    }
}

/// What is known of one row.
#[derive(Debug, Default)]
pub(super) struct RowState {
    head: AtomicU64,
    expire_at: AtomicU64,
    partition: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RowState>() == 24, "a slot is paid for by every entry");

impl RowState {
    /// To be read first: what follows belongs to the entry it names, or to a later one.
    #[inline(always)]
    pub(super) fn head(&self) -> Head {
        Head(self.head.load(Ordering::Acquire))
    }

    /// Whether the row still is what its head said, after all else was read.
    #[inline(always)]
    pub(super) fn is_still(&self, head: Head) -> bool {
        fence(Ordering::Acquire);
        self.head.load(Ordering::Relaxed) == head.0
    }

    #[inline(always)]
    pub(super) fn expire_at(&self) -> UnixMs {
        UnixMs(self.expire_at.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn partition(&self) -> PartitionKey {
        PartitionKey(self.partition.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
struct StateBlock {
    rows: Box<[RowState]>,
}

/// Records of the rows of a block that has some.
#[derive(Debug, Default, Clone)]
struct RecordBlock {
    rows: Vec<Option<FilterRecord>>,
}

/// States and records by row. Row `i` is in block `i / 256`.
#[derive(Debug, Default, Clone)]
pub(super) struct RowStates {
    states: Directory<StateBlock>,
    records: Directory<RecordBlock>,
}

fn split(row: u32) -> (usize, usize) {
    (row as usize / BLOCK_ROWS, row as usize % BLOCK_ROWS)
}

fn record_bytes(record: &FilterRecord) -> usize {
    allocated_bytes(record.bytes())
}

impl RowStates {
    /// What is known of a row; `None` where there is no memory for it.
    #[inline(always)]
    pub(super) fn get(&self, row: u32) -> Option<&RowState> {
        let (block, place) = split(row);
        self.states.get(block)?.rows.get(place)
    }

    /// The head of a row.
    #[inline(always)]
    pub(super) fn head(&self, row: u32) -> Head {
        self.get(row).map_or(Head::FREE, RowState::head)
    }

    /// The filter record of a row's entry, or of one that went.
    #[inline(always)]
    pub(super) fn record(&self, row: u32) -> Option<&FilterRecord> {
        let (block, place) = split(row);
        self.records.get(block)?.rows.get(place)?.as_ref()
    }

    /// Asks for the memory of a row ahead of its use.
    #[inline(always)]
    pub(super) fn prefetch(&self, row: u32) {
        if let Some(state) = self.get(row) {
            prefetch_value(state);
        }
    }

    /// Rows that a block has memory for.
    pub(super) fn room(&self, block: usize) -> usize {
        self.states.get(block).map_or(0, |block| block.rows.len())
    }

    /// Gives a block memory for the row at `place`. Only the first block grows in steps: a search that holds a block
    /// which is replaced by a grown one does not see its rows go, and only who opens what it names finds out.
    pub(super) fn make_room(&mut self, block: usize, place: usize) {
        let rows = if block == 0 { rows_with(place) } else { BLOCK_ROWS };
        let former = self.states.get(block);
        let copy = |place: usize| {
            let state = former.and_then(|block| block.rows.get(place));
            state.map_or_else(RowState::default, |state| RowState {
                head: AtomicU64::new(state.head().0),
                expire_at: AtomicU64::new(state.expire_at().0),
                partition: AtomicU64::new(state.partition().0),
            })
        };
        let grown = StateBlock { rows: (0..rows).map(copy).collect() };
        self.states.put(block, grown);
    }

    /// Fills a free row that has memory. Answers the memory that its record takes, less that of a former
    /// one that was still there.
    pub(super) fn occupy(
        &mut self,
        row: u32,
        head: Head,
        expire_at: UnixMs,
        partition: PartitionKey,
        record: Option<FilterRecord>,
    ) -> isize {
        let grown = self.set_record(row, record);
        if let Some(state) = self.get(row) {
            // Release, each: whoever reads one of a new entry sees that the head of the former is gone.
            state.expire_at.store(expire_at.0, Ordering::Release);
            state.partition.store(partition.0, Ordering::Release);
            state.head.store(head.0, Ordering::Release);
        }
        grown
    }

    /// Puts a record into a row. Answers the memory that it takes, less that of a former one.
    pub(super) fn set_record(&mut self, row: u32, record: Option<FilterRecord>) -> isize {
        let (block, place) = split(row);
        if record.is_none() && self.record(row).is_none() {
            return 0;
        }
        if self.records.get(block).is_none() {
            self.records.put(block, RecordBlock::default());
        }
        let Some(records) = self.records.own(block) else { return 0 };
        if place >= records.rows.len() {
            let rows = rows_with(place);
            records.rows.reserve_exact(rows - records.rows.len());
            records.rows.resize(rows, None);
        }
        let taken = record.as_ref().map_or(0, record_bytes) as isize;
        let former = std::mem::replace(&mut records.rows[place], record);
        taken - former.as_ref().map_or(0, record_bytes) as isize
    }

    /// Writes the head of a row that has memory.
    pub(super) fn set_head(&self, row: u32, head: Head) {
        if let Some(state) = self.get(row) {
            state.head.store(head.0, Ordering::Release);
        }
    }

    /// Writes the deadline of a row that has memory.
    pub(super) fn set_expire_at(&self, row: u32, expire_at: UnixMs) {
        if let Some(state) = self.get(row) {
            // Release, as in `occupy`: the entry may be a new one of its row.
            state.expire_at.store(expire_at.0, Ordering::Release);
        }
    }

    /// Lets go of the record of an entry that went, unless a search holds it: then it goes with the next
    /// entry of the row, or with the block. Answers the memory given back; allocates nothing.
    pub(super) fn drop_record(&mut self, row: u32) -> usize {
        let (block, place) = split(row);
        let Some(records) = self.records.own_if_free(block) else { return 0 };
        let record = records.rows.get_mut(place).and_then(Option::take);
        record.as_ref().map_or(0, record_bytes)
    }

    /// Lets go of a block without entries; `None` while a search holds it. Answers the memory that records
    /// in it gave back.
    pub(super) fn free_block(&mut self, block: usize) -> Option<usize> {
        if self.is_held() {
            return None;
        }
        let rows = self.records.get(block).map_or(&[][..], |block| &block.rows);
        let given_back = rows.iter().flatten().map(record_bytes).sum();
        (self.states.free(block) & self.records.free(block)).then_some(given_back)
    }

    /// Whether a search on another thread reads a clone.
    pub(super) fn is_held(&mut self) -> bool {
        self.states.is_held() || self.records.is_held()
    }

    /// Memory held, that of the records themselves aside.
    pub(super) fn bytes(&self) -> usize {
        let states = self.states.iter().map(|block| allocated_bytes(size_of_val(&*block.rows)));
        let handles = |block: &RecordBlock| {
            allocated_bytes(block.rows.capacity() * size_of::<Option<FilterRecord>>())
        };
        let handles = self.records.iter().map(handles);
        states.sum::<usize>() + handles.sum::<usize>() + self.states.bytes() + self.records.bytes()
    }

    /// Memory of all records; for tests.
    pub(super) fn count_record_bytes(&self) -> usize {
        let records = self.records.iter().flat_map(|block| block.rows.iter().flatten());
        records.map(record_bytes).sum()
    }
}
