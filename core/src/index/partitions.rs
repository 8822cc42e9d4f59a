//! Which rows belong to which partition, so that a scope is searched alone and never filtered out of
//! another's results.
//!
//! Owns: a table from partition to its rows. A partition of one row is a 4-byte table entry whose
//! key stands in the slot, so a million scopes of one entry cost 5 to 10 bytes each; larger ones own
//! a list. The table is split into shards before it grows large, so that no rehash moves more than a
//! few thousand entries at once. Main thread only.

use super::row_state::NONE;
use super::slots::Slots;
use crate::ids::{PartitionKey, SlotId};
use hashbrown::HashTable;

/// Entries of the table before it is split; rehashing this many takes a fraction of a millisecond.
const SPLIT_AT: usize = 4_096;
const SHARDS: usize = 512;
/// Marks a table entry that names a list; slot numbers stay below it.
const LIST: u32 = 1 << 31;

/// Rows from which a list no longer doubles.
const GROW_SLOWLY_FROM: usize = 1_024;

/// Rows of a partition of several.
#[derive(Debug)]
pub(super) struct List {
    /// Those in the graph first, then the tail of those that are not.
    rows: Vec<u32>,
    /// How many are in the graph.
    linked: u32,
    /// The graph, or `NONE`.
    graph: u32,
}

impl List {
    const EMPTY: Self = Self { rows: Vec::new(), linked: 0, graph: NONE };

    /// All rows.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Rows in the graph.
    pub(super) fn linked(&self) -> &[u32] {
        &self.rows[..self.linked as usize]
    }

    /// Rows that are in no graph.
    pub(super) fn tail(&self) -> &[u32] {
        &self.rows[self.linked as usize..]
    }

    /// Its graph.
    pub(super) fn graph(&self) -> Option<u32> {
        (self.graph != NONE).then_some(self.graph)
    }
}

/// What taking a row out did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The graph of the partition.
    pub(super) graph: Option<u32>,
    /// Whether the row is a node of that graph.
    pub(super) linked: bool,
    /// Whether that graph has no living node any more: the partition has let go of it.
    pub(super) abandoned: bool,
    /// Rows left.
    pub(super) len: usize,
}

/// Rows of the partitions.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    shards: Vec<HashTable<u32>>,
    len: usize,
    lists: Vec<List>,
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
            Some(entry) if *entry & LIST != 0 => &self.lists[(*entry & !LIST) as usize].rows,
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

    /// The list of a partition of several rows.
    pub(super) fn list_of(&self, slots: &Slots, key: PartitionKey) -> Option<&List> {
        self.list_number(slots, key).map(|number| self.list(number))
    }

    /// The number of that list.
    pub(super) fn list_number(&self, slots: &Slots, key: PartitionKey) -> Option<u32> {
        let entry = *self.find(slots, key)?;
        (entry & LIST != 0).then_some(entry & !LIST)
    }

    /// The list of this number.
    pub(super) fn list(&self, number: u32) -> &List {
        &self.lists[number as usize]
    }

    /// Numbers of the lists in use.
    pub(super) fn list_numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.lists.len() as u32).filter(|&number| !self.list(number).rows.is_empty())
    }

    /// Gives a list its graph, without nodes yet, or takes away one that has none left.
    pub(super) fn set_graph(&mut self, number: u32, graph: Option<u32>) {
        let list = &mut self.lists[number as usize];
        debug_assert_eq!(list.linked, 0);
        list.graph = graph.unwrap_or(NONE);
    }

    /// Moves a row of the tail over to the linked ones.
    pub(super) fn mark_linked(&mut self, slots: &mut Slots, number: u32, row: u32) {
        let list = &mut self.lists[number as usize];
        let place = slots.position_of(row);
        debug_assert!(place >= list.linked && list.rows[place as usize] == row);
        let boundary = list.linked;
        list.rows.swap(place as usize, boundary as usize);
        let other = list.rows[place as usize];
        slots.set_position(other, place);
        slots.set_position(row, boundary);
        list.linked += 1;
    }

    /// Counts the last linked row to the tail.
    pub(super) fn unmark_last(&mut self, number: u32) {
        self.lists[number as usize].linked -= 1;
    }

    /// Counts all rows to the tail and forgets the graph.
    pub(super) fn unmark_all(&mut self, number: u32) {
        let list = &mut self.lists[number as usize];
        (list.linked, list.graph) = (0, NONE);
    }

    /// Brings a list of one row without a graph back to the small form.
    pub(super) fn compact(&mut self, slots: &Slots, number: u32) {
        let list = &mut self.lists[number as usize];
        let (&[row], NONE) = (list.rows.as_slice(), list.graph) else { return };
        let key = partition_of(slots, row);
        let hash = spread(key);
        let shard = self.shard_of(hash);
        if let Some(entry) = self.shards[shard].find_mut(hash, |&entry| entry == LIST | number) {
            *entry = row;
            self.list_capacity -= self.lists[number as usize].rows.capacity();
            self.lists[number as usize] = List::EMPTY;
            self.free_lists.push(number);
        }
    }

    /// Adds an occupied slot to the tail of its partition; answers the partition's list, if it has one.
    pub(super) fn add(&mut self, slots: &mut Slots, id: SlotId) -> Option<u32> {
        let key = partition_of(slots, id.0);
        let hash = spread(key);
        self.make_room(slots);
        let shard = self.shard_of(hash);
        let lists = &mut self.lists;
        let found = self.shards[shard].find_mut(hash, |&entry| key_of(lists, slots, entry) == key);
        let mut list = None;
        let position = match found {
            None => {
                let lists = &self.lists;
                self.shards[shard]
                    .insert_unique(hash, id.0, |&entry| spread(key_of(lists, slots, entry)));
                self.len += 1;
                0
            }
            Some(entry) if *entry & LIST != 0 => {
                list = Some(*entry & !LIST);
                let rows = &mut lists[(*entry & !LIST) as usize].rows;
                self.list_capacity -= rows.capacity();
                if rows.len() == rows.capacity() && rows.len() >= GROW_SLOWLY_FROM {
                    // In steps of an eighth: what doubling would leave unused every row would pay for.
                    rows.reserve_exact(rows.len() / 8);
                }
                rows.push(id.0);
                self.list_capacity += rows.capacity();
                rows.len() - 1
            }
            Some(entry) => {
                let rows = vec![*entry, id.0];
                self.list_capacity += rows.capacity();
                let number = match self.free_lists.pop() {
                    Some(number) => {
                        lists[number as usize] = List { rows, ..List::EMPTY };
                        number
                    }
                    None => {
                        lists.push(List { rows, ..List::EMPTY });
                        // Room for every list to be freed without allocating: removal runs where
                        // the server deletes keys, above maxmemory too.
                        if self.free_lists.capacity() < lists.len() {
                            self.free_lists.reserve(lists.capacity() - self.free_lists.len());
                        }
                        lists.len() as u32 - 1
                    }
                };
                *entry = LIST | number;
                list = Some(number);
                1
            }
        };
        slots.set_position(id.0, position as u32);
        list
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

    /// Takes an occupied slot out of its partition. Constant time, allocates nothing.
    pub(super) fn remove(&mut self, slots: &mut Slots, id: SlotId) -> Taken {
        let mut taken = Taken { graph: None, linked: false, abandoned: false, len: 0 };
        let (key, position) = (partition_of(slots, id.0), slots.position_of(id.0) as usize);
        let hash = spread(key);
        let shard = self.shard_of(hash);
        let lists = &self.lists;
        let Ok(found) =
            self.shards[shard].find_entry(hash, |&entry| key_of(lists, slots, entry) == key)
        else {
            debug_assert!(false, "a row without a partition");
            return taken;
        };
        let entry = *found.get();
        if entry & LIST == 0 {
            found.remove();
            self.len -= 1;
        } else {
            let number = entry & !LIST;
            let list = &mut self.lists[number as usize];
            self.list_capacity -= list.rows.capacity();
            take_row(list, slots, position, &mut taken);
            match list.rows.len() {
                0 => {
                    found.remove();
                    self.len -= 1;
                    *list = List::EMPTY;
                    self.free_lists.push(number);
                }
                1 if list.graph == NONE => {
                    // Back to the small form: the table entry names the row itself.
                    *found.into_mut() = list.rows[0];
                    *list = List::EMPTY;
                    self.free_lists.push(number);
                }
                len if list.rows.capacity() > 64 && len < list.rows.capacity() / 4 => {
                    list.rows.shrink_to(len * 2);
                }
                _ => {}
            }
            self.list_capacity += self.lists[number as usize].rows.capacity();
        }
        if self.len == 0 {
            *self = Self::default();
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashTable::allocation_size).sum();
        tables
            + self.list_capacity * size_of::<u32>()
            + self.shards.capacity() * size_of::<HashTable<u32>>()
            + self.lists.capacity() * size_of::<List>()
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
                if let Some(list) = self.list_of(slots, key) {
                    let graph = list.graph != NONE;
                    assert!(rows.len() > 1 || graph && rows.len() == 1, "{key:?}: a list of one");
                    assert!(list.linked == 0 || graph, "{key:?}: nodes of no graph");
                }
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

/// Takes the row at a place out of a list: the last row of its part moves there, and the last of all
/// to the boundary.
fn take_row(list: &mut List, slots: &mut Slots, position: usize, taken: &mut Taken) {
    let mut settle = |rows: &[u32], place: usize| {
        slots.set_position(rows[place], place as u32);
    };
    let mut hole = position;
    taken.graph = list.graph();
    if position < list.linked as usize {
        taken.linked = true;
        list.linked -= 1;
        hole = list.linked as usize;
        if hole != position {
            list.rows[position] = list.rows[hole];
            settle(&list.rows, position);
        }
    }
    list.rows.swap_remove(hole);
    if hole < list.rows.len() {
        settle(&list.rows, hole);
    }
    taken.len = list.rows.len();
    if list.graph != NONE && list.linked == 0 && (taken.linked || taken.len == 0) {
        taken.abandoned = true;
        list.graph = NONE;
    }
}

fn key_of(lists: &[List], slots: &Slots, entry: u32) -> PartitionKey {
    let row = if entry & LIST != 0 { lists[(entry & !LIST) as usize].rows[0] } else { entry };
    partition_of(slots, row)
}

fn partition_of(slots: &Slots, row: u32) -> PartitionKey {
    slots.partition_of(row).expect("a partition's rows are occupied")
}
