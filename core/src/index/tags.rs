//! Which entries carry which tags, so that a tag can be counted and invalidated without opening one.
//!
//! Owns: a table of the tags in use, each with its number of entries, and the tags of each slot that
//! has some; untagged slots cost nothing here. Main thread only. Taking the tags of a slot away
//! allocates nothing: it runs where the server deletes a key.

use crate::allocation::allocated_bytes;
use crate::ids::Seq;
use crate::sharded::ShardedMap;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;

/// A tag in use, or a free record.
#[derive(Debug)]
struct Tag {
    /// Empty where the record is free.
    name: Box<[u8]>,
    /// Slots that carry it; of a free record the next free one.
    slots: u32,
    /// Entries stored before this are invalidated.
    bound: Seq,
}

const NO_RECORD: u32 = u32::MAX;

/// Tags of slots.
#[derive(Debug)]
pub(super) struct Tags {
    tags: Vec<Tag>,
    first_free: u32,
    by_name: HashTable<u32>,
    by_slot: ShardedMap<Box<[u32]>>,
    hasher: DefaultHashBuilder,
    /// Memory of the names and of the lists of slots, counted as they come and go.
    boxed_bytes: usize,
    /// How many tags in use have a bound.
    bounded: usize,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            first_free: NO_RECORD,
            by_name: HashTable::new(),
            by_slot: ShardedMap::default(),
            hasher: DefaultHashBuilder::default(),
            boxed_bytes: 0,
            bounded: 0,
        }
    }
}

fn list_bytes(list: &[u32]) -> usize {
    allocated_bytes(size_of_val(list))
}

impl Tags {
    /// Notes the tags of a slot that has none noted. A tag given twice counts once.
    pub(super) fn set<'a>(&mut self, slot: u32, names: impl Iterator<Item = &'a [u8]>) {
        let mut list: Vec<u32> = Vec::new();
        for name in names {
            let tag = self.find_or_add(name);
            if !list.contains(&tag) {
                list.push(tag);
                self.tags[tag as usize].slots += 1;
            }
        }
        let list = list.into_boxed_slice();
        self.boxed_bytes += list_bytes(&list);
        self.by_slot.insert(slot.into(), list);
    }

    /// Forgets the tags of a slot.
    pub(super) fn clear(&mut self, slot: u32) {
        let Some(list) = self.by_slot.remove(slot.into()) else { return };
        self.boxed_bytes -= list_bytes(&list);
        for &tag in &list {
            self.tags[tag as usize].slots -= 1;
            if self.tags[tag as usize].slots == 0 {
                self.free(tag);
            }
        }
    }

    /// The tags of a slot.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = &[u8]> {
        let list = self.by_slot.get(slot.into()).map_or(&[][..], |list| list);
        list.iter().map(|&tag| &*self.tags[tag as usize].name)
    }

    /// How many slots carry a tag.
    pub(super) fn count(&self, name: &[u8]) -> u64 {
        self.find(name).map_or(0, |tag| self.tags[tag as usize].slots.into())
    }

    /// Invalidates what carries a tag in use and was stored before `bound`.
    pub(super) fn set_bound(&mut self, name: &[u8], bound: Seq) {
        if let Some(tag) = self.find(name) {
            let tag = &mut self.tags[tag as usize];
            self.bounded += usize::from(tag.bound == Seq(0) && bound > Seq(0));
            tag.bound = tag.bound.max(bound);
        }
    }

    /// Whether any entry may be invalidated by a tag of its.
    pub(super) fn any_bound(&self) -> bool {
        self.bounded > 0
    }

    /// Whether the entry of a slot, stored as `seq`, is invalidated by one of its tags.
    pub(super) fn is_gone(&self, slot: u32, seq: Seq) -> bool {
        let list = self.by_slot.get(slot.into()).map_or(&[][..], |list| list);
        list.iter().any(|&tag| seq < self.tags[tag as usize].bound)
    }

    fn find(&self, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.by_name.find(hash, |&tag| *self.tags[tag as usize].name == *name).copied()
    }

    fn find_or_add(&mut self, name: &[u8]) -> u32 {
        if let Some(tag) = self.find(name) {
            return tag;
        }
        let new = Tag { name: name.into(), slots: 0, bound: Seq(0) };
        self.boxed_bytes += allocated_bytes(name.len());
        let number = if self.first_free == NO_RECORD {
            self.tags.push(new);
            self.tags.len() as u32 - 1
        } else {
            let number = self.first_free;
            let free = std::mem::replace(&mut self.tags[number as usize], new);
            self.first_free = free.slots;
            number
        };
        let (tags, hasher) = (&self.tags, &self.hasher);
        self.by_name.insert_unique(hasher.hash_one(name), number, |&tag| {
            hasher.hash_one(&*tags[tag as usize].name)
        });
        number
    }

    fn free(&mut self, number: u32) {
        let hash = self.hasher.hash_one(&*self.tags[number as usize].name);
        if let Ok(found) = self.by_name.find_entry(hash, |&tag| tag == number) {
            found.remove();
        }
        let tag = &mut self.tags[number as usize];
        self.boxed_bytes -= allocated_bytes(tag.name.len());
        self.bounded -= usize::from(tag.bound > Seq(0));
        *tag = Tag { name: Box::default(), slots: self.first_free, bound: Seq(0) };
        self.first_free = number;
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        allocated_bytes(self.tags.capacity() * size_of::<Tag>())
            + self.by_name.allocation_size()
            + self.by_slot.bytes()
            + self.boxed_bytes
    }

    /// Panics unless counts and lists agree; for tests. Returns how many slots have tags.
    pub(super) fn check_invariants(&self) -> usize {
        let mut seen: HashMap<u32, u32> = HashMap::new();
        let mut boxed = 0;
        for (_, list) in self.by_slot.iter() {
            assert!(!list.is_empty(), "an untagged slot in the table");
            boxed += list_bytes(list);
            list.iter().for_each(|&tag| *seen.entry(tag).or_default() += 1);
        }
        for (number, tag) in self.tags.iter().enumerate().filter(|(_, tag)| !tag.name.is_empty()) {
            assert_eq!(seen.get(&(number as u32)), Some(&tag.slots), "slots of a tag");
            assert_eq!(self.find(&tag.name), Some(number as u32), "tag by name");
            boxed += allocated_bytes(tag.name.len());
        }
        assert_eq!((seen.len(), boxed), (self.by_name.len(), self.boxed_bytes), "tags in use");
        let bounded = self.tags.iter().filter(|tag| tag.bound > Seq(0)).count();
        assert_eq!(bounded, self.bounded, "tags with a bound");
        self.by_slot.len()
    }
}
