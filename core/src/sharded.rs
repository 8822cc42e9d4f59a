//! A map from numbers that never rehashes many entries at once: it splits a shard before that would take a fraction
//! of a millisecond.
//!
//! Owns: the split. For tables with an entry for each of a container's entries, or for each container. Main thread
//! only.

use hashbrown::HashMap;

/// Entries of a map before it is split; a million entries are then some sixteen thousand a shard.
const SPLIT_AT: usize = 4_096;
const SHARDS: usize = 64;

/// A map from `u64`.
#[derive(Debug)]
pub struct ShardedMap<V> {
    shards: Vec<HashMap<u64, V>>,
    len: usize,
}

impl<V> Default for ShardedMap<V> {
    fn default() -> Self {
        Self { shards: Vec::new(), len: 0 }
    }
}

impl<V> ShardedMap<V> {
    fn shard_of(&self, key: u64) -> usize {
        // Keys are slot numbers or digests: their low bits differ.
        if self.shards.len() > 1 { key as usize % SHARDS } else { 0 }
    }

    /// What a key stands for.
    pub fn get(&self, key: u64) -> Option<&V> {
        self.shards.get(self.shard_of(key))?.get(&key)
    }

    /// The same for change.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let shard = self.shard_of(key);
        self.shards.get_mut(shard)?.get_mut(&key)
    }

    /// Adds a key that is not there.
    pub fn insert(&mut self, key: u64, value: V) {
        if self.shards.is_empty() {
            self.shards.push(HashMap::new());
        } else if self.shards.len() == 1 && self.len == SPLIT_AT {
            self.split();
        }
        let shard = self.shard_of(key);
        let former = self.shards[shard].insert(key, value);
        debug_assert!(former.is_none(), "the key was free");
        self.len += 1;
    }

    /// Takes a key away; allocates nothing.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let shard = self.shard_of(key);
        let value = self.shards.get_mut(shard)?.remove(&key)?;
        self.len -= 1;
        if self.len == 0 {
            self.shards = Vec::new();
        }
        Some(value)
    }

    fn split(&mut self) {
        let whole = std::mem::take(&mut self.shards);
        self.shards.resize_with(SHARDS, HashMap::new);
        for (key, value) in whole.into_iter().flatten() {
            let shard = self.shard_of(key);
            self.shards[shard].insert(key, value);
        }
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a part of all keys away at once, a bounded one: for freeing a map in slices. `None` when it is empty.
    pub fn pop_part(&mut self) -> Option<HashMap<u64, V>> {
        let part = self.shards.pop()?;
        self.len -= part.len();
        Some(part)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.shards.iter().flatten().map(|(&key, value)| (key, value))
    }

    /// Memory of the tables, not of what values own.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.shards.iter().map(HashMap::allocation_size).sum();
        self.shards.capacity() * size_of::<HashMap<u64, V>>() + tables
    }
}
