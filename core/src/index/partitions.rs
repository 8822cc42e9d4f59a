//! Which rows belong to which partition, so that a scope is searched alone and never filtered out of
//! another's results.
//!
//! Owns: a table from partition to its rows. A partition of one row is a 4-byte table entry whose
//! key stands in the slot, so a million scopes of one entry cost 5 to 10 bytes each; larger ones own
//! a list. The table is split into shards before it grows large, so that no rehash moves more than a
//! few thousand entries at once. Main thread only.

use super::slots::Slots;
use crate::ids::{PartitionKey, SlotId};
use hashbrown::HashTable;

/// Entries of the table before it is split; rehashing this many takes a fraction of a millisecond.
const SPLIT_AT: usize = 4_096;
const SHARDS: usize = 512;
/// Marks a table entry that names a list; slot numbers stay below it.
const LIST: u32 = 1 << 31;

/// Rows of the partitions.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    shards: Vec<HashTable<u32>>,
    len: usize,
    lists: Vec<Vec<u32>>,
    free_lists: Vec<u32>,
    /// Rows all lists have room for, counted as they grow and shrink.
    list_capacity: usize,
}

/// Finaliser of SplitMix64: keys are digests already, except the default key 0 and hostile loads.
fn spread(key: PartitionKey) -> u64 {
    let mut x = key.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Partitions {
    fn shard_of(&self, hash: u64) -> usize {
        // The table's own probing uses the low and the top bits; these lie between.
        if self.shards.len() == 1 { 0 } else { (hash >> 32) as usize % SHARDS }
    }

    /// The rows of a partition; a single row is answered from the table entry itself.
    pub(super) fn rows(&self, slots: &Slots, key: PartitionKey) -> &[u32] {
        match self.find(slots, key) {
            None => &[],
            Some(entry) if *entry & LIST != 0 => &self.lists[(*entry & !LIST) as usize],
            Some(entry) => std::slice::from_ref(entry),
        }
    }

    fn find(&self, slots: &Slots, key: PartitionKey) -> Option<&u32> {
        if self.shards.is_empty() {
            return None;
        }
        let hash = spread(key);
        self.shards[self.shard_of(hash)].find(hash, |&entry| self.key_of(slots, entry) == key)
    }

    fn key_of(&self, slots: &Slots, entry: u32) -> PartitionKey {
        key_of(&self.lists, slots, entry)
    }

    /// Adds an occupied slot to its partition.
    pub(super) fn add(&mut self, slots: &mut Slots, id: SlotId) {
        let key = slots.get(id).expect("the slot was just filled").partition;
        let hash = spread(key);
        self.make_room(slots);
        let shard = self.shard_of(hash);
        let lists = &mut self.lists;
        let found = self.shards[shard].find_mut(hash, |&entry| key_of(lists, slots, entry) == key);
        let position = match found {
            None => {
                let lists = &self.lists;
                self.shards[shard]
                    .insert_unique(hash, id.0, |&entry| spread(key_of(lists, slots, entry)));
                self.len += 1;
                0
            }
            Some(entry) if *entry & LIST != 0 => {
                let rows = &mut lists[(*entry & !LIST) as usize];
                self.list_capacity -= rows.capacity();
                rows.push(id.0);
                self.list_capacity += rows.capacity();
                rows.len() - 1
            }
            Some(entry) => {
                let rows = vec![*entry, id.0];
                self.list_capacity += rows.capacity();
                let number = match self.free_lists.pop() {
                    Some(number) => {
                        lists[number as usize] = rows;
                        number
                    }
                    None => {
                        lists.push(rows);
                        // Room for every list to be freed without allocating: removal runs where
                        // the server deletes keys, above maxmemory too.
                        if self.free_lists.capacity() < lists.len() {
                            self.free_lists.reserve(lists.capacity() - self.free_lists.len());
                        }
                        lists.len() as u32 - 1
                    }
                };
                *entry = LIST | number;
                1
            }
        };
        slots.get_mut(id).expect("the slot was just filled").position = position as u32;
    }

    fn make_room(&mut self, slots: &Slots) {
        if self.shards.is_empty() {
            self.shards.push(HashTable::new());
        }
        if self.shards.len() == 1 && self.len >= SPLIT_AT {
            let whole = std::mem::take(&mut self.shards[0]);
            self.shards = (0..SHARDS).map(|_| HashTable::new()).collect();
            let lists = &self.lists;
            for entry in whole {
                let hash = spread(key_of(lists, slots, entry));
                let shard = (hash >> 32) as usize % SHARDS;
                self.shards[shard]
                    .insert_unique(hash, entry, |&other| spread(key_of(lists, slots, other)));
            }
        }
    }

    /// Takes an occupied slot out of its partition. Allocates nothing.
    pub(super) fn remove(&mut self, slots: &mut Slots, id: SlotId) {
        let slot = slots.get(id).expect("removal starts from an occupied slot");
        let (key, position) = (slot.partition, slot.position as usize);
        let hash = spread(key);
        let shard = self.shard_of(hash);
        let lists = &self.lists;
        let Ok(found) =
            self.shards[shard].find_entry(hash, |&entry| key_of(lists, slots, entry) == key)
        else {
            debug_assert!(false, "a row without a partition");
            return;
        };
        let entry = *found.get();
        if entry & LIST == 0 {
            found.remove();
            self.len -= 1;
        } else {
            let number = entry & !LIST;
            let rows = &mut self.lists[number as usize];
            self.list_capacity -= rows.capacity();
            rows.swap_remove(position);
            if let Some(&moved) = rows.get(position) {
                slots.get_mut(SlotId(moved)).expect("rows are occupied").position = position as u32;
            }
            match rows.len() {
                1 => {
                    // Back to the small form: the table entry names the row itself.
                    let last = rows[0];
                    *rows = Vec::new();
                    *found.into_mut() = last;
                    self.free_lists.push(number);
                }
                len if rows.capacity() > 64 && len < rows.capacity() / 4 => rows.shrink_to(len * 2),
                _ => {}
            }
            self.list_capacity += self.lists[number as usize].capacity();
        }
        if self.len == 0 {
            *self = Self::default();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        tables
            + self.list_capacity * size_of::<u32>()
            + self.shards.capacity() * size_of::<HashTable<u32>>()
            + self.lists.capacity() * size_of::<Vec<u32>>()
            + self.free_lists.capacity() * size_of::<u32>()
    }

    pub(super) fn check_invariants(&self, slots: &Slots, vectors: u64) {
        let mut rows_seen = 0;
        let mut entries = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            for &entry in shard {
                let key = self.key_of(slots, entry);
                assert_eq!(self.shard_of(spread(key)), number, "{key:?}: shard");
                let rows = self.rows(slots, key);
                assert!(entry & LIST == 0 || rows.len() > 1, "{key:?}: a list of one");
                for (position, &row) in rows.iter().enumerate() {
                    let slot = slots.get(SlotId(row)).expect("rows are occupied");
                    assert_eq!((slot.partition, slot.position as usize), (key, position));
                }
                rows_seen += rows.len() as u64;
                entries += 1;
            }
        }
        assert_eq!((entries, rows_seen), (self.len, vectors), "partitions and rows");
    }
}

fn key_of(lists: &[Vec<u32>], slots: &Slots, entry: u32) -> PartitionKey {
    let row = if entry & LIST != 0 { lists[(entry & !LIST) as usize][0] } else { entry };
    slots.get(SlotId(row)).expect("a partition's rows are occupied").partition
}
