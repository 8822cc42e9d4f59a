//! A hash index of rows that also lists them, in an order that neither replacement nor growth changes.
//!
//! Owns: the order. A page of a listing says where it ended by a key alone, so what is there from the first
//! page to the last is listed once, whichever rows it stands in meanwhile. Some nine bytes a row. Removal
//! allocates nothing. Main thread.
//!
//! Rows stand sorted by key in leaves of bounded size, so nothing moves more than a leaf's or a directory's
//! worth. Keys are hashes under a seed of the process: nobody chooses names that share one.

use crate::allocation::allocated_bytes;

/// Rows of a leaf before it is split in two.
const LEAF_MAX: usize = 256;
/// Room a leaf grows by.
const LEAF_STEP: usize = 32;
/// Neighbours that have no more than this together are one leaf.
const MERGE_BELOW: usize = LEAF_MAX / 4;

/// Rows by the hash of their names.
#[derive(Debug, Default)]
pub struct Listing {
    /// The first key of each leaf, or what it was when the leaf was made; the first is 0.
    starts: Vec<u32>,
    /// Sorted: a key above, its row below.
    leaves: Vec<Vec<u64>>,
    len: usize,
    leaf_bytes: usize,
}

fn packed(key: u32, row: u32) -> u64 {
    u64::from(key) << 32 | u64::from(row)
}

fn key_of(item: u64) -> u32 {
    (item >> 32) as u32
}

fn leaf_bytes(leaf: &Vec<u64>) -> usize {
    allocated_bytes(leaf.capacity() * size_of::<u64>())
}

impl Listing {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The leaf in which a key belongs.
    fn leaf_of(&self, key: u32) -> usize {
        self.starts.partition_point(|&start| start <= key).saturating_sub(1)
    }

    /// The row of this key that `is_it`.
    pub fn find(&self, key: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let same = self.from(key).take_while(|&(other, _)| other == key);
        same.map(|(_, row)| row).find(|&row| is_it(row))
    }

    /// Rows from a key on, in the order of their keys.
    pub fn from(&self, key: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let leaf = self.leaf_of(key);
        let first = self
            .leaves
            .get(leaf)
            .map_or(&[][..], |leaf| &leaf[leaf.partition_point(|&item| key_of(item) < key)..]);
        let rest = self.leaves.iter().skip(leaf + 1).flatten();
        first.iter().chain(rest).map(|&item| (key_of(item), item as u32))
    }

    /// Adds a row.
    pub fn insert(&mut self, key: u32, row: u32) {
        if self.leaves.is_empty() {
            self.leaves.push(Vec::new());
            self.starts.push(0);
        }
        let mut number = self.leaf_of(key);
        if self.leaves[number].len() >= LEAF_MAX
            && self.split(number)
            && self.starts[number + 1] <= key
        {
            number += 1;
        }
        let leaf = &mut self.leaves[number];
        let item = packed(key, row);
        let place = leaf.partition_point(|&other| other < item);
        debug_assert_ne!(leaf.get(place), Some(&item), "a row twice");
        if leaf.len() == leaf.capacity() {
            self.leaf_bytes -= leaf_bytes(leaf);
            // Only keys that are all equal make a leaf longer than it should be.
            leaf.reserve_exact(LEAF_STEP.max(leaf.len() / 8));
            self.leaf_bytes += leaf_bytes(leaf);
        }
        leaf.insert(place, item);
        self.len += 1;
    }

    /// Splits a leaf between two keys; false where all are equal.
    fn split(&mut self, number: usize) -> bool {
        let leaf = &mut self.leaves[number];
        let middle = key_of(leaf[leaf.len() / 2]);
        let mut place = leaf.partition_point(|&item| key_of(item) < middle);
        if place == 0 {
            place = leaf.partition_point(|&item| key_of(item) <= middle);
        }
        if place == leaf.len() {
            return false;
        }
        self.leaf_bytes -= leaf_bytes(leaf);
        let mut upper = Vec::with_capacity((leaf.len() - place).next_multiple_of(LEAF_STEP));
        upper.extend_from_slice(&leaf[place..]);
        leaf.truncate(place);
        leaf.shrink_to(place.next_multiple_of(LEAF_STEP));
        self.leaf_bytes += leaf_bytes(leaf) + leaf_bytes(&upper);
        self.starts.insert(number + 1, key_of(upper[0]));
        self.leaves.insert(number + 1, upper);
        true
    }

    /// Takes a row out; false when it is not there.
    pub fn remove(&mut self, key: u32, row: u32) -> bool {
        let number = self.leaf_of(key);
        let Some(leaf) = self.leaves.get_mut(number) else { return false };
        let Ok(place) = leaf.binary_search(&packed(key, row)) else { return false };
        leaf.remove(place);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if leaf.len() < MERGE_BELOW {
            self.merge(number);
        }
        true
    }

    /// Brings a leaf together with the one behind it, or before it, where both have few rows or one has none.
    fn merge(&mut self, number: usize) {
        let fits = |at: usize| {
            self.leaves.get(at + 1).is_some_and(|next| {
                let (this, together) = (&self.leaves[at], self.leaves[at].len() + next.len());
                let room = this.capacity().max(next.capacity());
                let few = together <= MERGE_BELOW || this.is_empty() || next.is_empty();
                few && together <= room
            })
        };
        let at = match number.checked_sub(1) {
            _ if fits(number) => number,
            Some(before) if fits(before) => before,
            _ => return,
        };
        let mut upper = self.leaves.remove(at + 1);
        self.starts.remove(at + 1);
        let lower = &mut self.leaves[at];
        self.leaf_bytes -= leaf_bytes(lower) + leaf_bytes(&upper);
        // Into the one that has the room: nothing is allocated where the server deletes a key.
        if lower.capacity() < upper.capacity() {
            upper.splice(0..0, lower.drain(..));
            *lower = upper;
        } else {
            lower.append(&mut upper);
        }
        lower.shrink_to(lower.len().max(MERGE_BELOW));
        self.leaf_bytes += leaf_bytes(lower);
        if self.leaves.capacity() > 64 && self.leaves.len() < self.leaves.capacity() / 4 {
            self.leaves.shrink_to(self.leaves.len() * 2);
            self.starts.shrink_to(self.leaves.len() * 2);
        }
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        self.leaf_bytes
            + allocated_bytes(self.leaves.capacity() * size_of::<Vec<u64>>())
            + allocated_bytes(self.starts.capacity() * size_of::<u32>())
    }

    /// Panics unless everything is sorted, counted and no larger than it should be; for tests.
    pub fn check_invariants(&self) {
        let mut last = None;
        let mut len = 0;
        assert_eq!(self.starts.len(), self.leaves.len(), "starts and leaves");
        for (number, leaf) in self.leaves.iter().enumerate() {
            let end = self.starts.get(number + 1);
            for &item in leaf {
                assert!(last < Some(item), "sorted");
                assert!(self.starts[number] <= key_of(item), "before its leaf");
                assert!(end.is_none_or(|&end| key_of(item) < end), "behind its leaf");
                last = Some(item);
            }
            len += leaf.len();
        }
        assert_eq!(len, self.len, "rows");
        assert_eq!(self.leaves.iter().map(leaf_bytes).sum::<usize>(), self.leaf_bytes, "bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Finaliser of SplitMix64.
    fn mix(n: u64) -> u64 {
        let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    #[test]
    fn agrees_with_a_sorted_set_whatever_comes_and_goes() {
        // All keys, few keys, one key.
        for (seed, spread) in [(1, u32::MAX), (2, 300), (3, 0)] {
            let (mut listing, mut model) = (Listing::default(), BTreeSet::new());
            for step in 0..30_000_u64 {
                let word = mix(step ^ seed << 40);
                let key = (word as u32) & spread;
                let row = (word >> 32) as u32 % 50_000;
                let growing = step % 10_000 < 6_000;
                if growing && model.insert((key, row)) {
                    listing.insert(key, row);
                } else if let Some(&(key, row)) = model.range((key, 0)..).next() {
                    model.remove(&(key, row));
                    assert!(listing.remove(key, row));
                    assert!(!listing.remove(key, row), "twice");
                }
                if step % 997 == 0 {
                    listing.check_invariants();
                    let from = word as u32 & spread;
                    let listed: Vec<_> = listing.from(from).collect();
                    let known: Vec<_> = model.range((from, 0)..).copied().collect();
                    assert_eq!(listed, known);
                }
            }
            for (key, row) in model {
                assert_eq!(listing.find(key, |found| found == row), Some(row));
                assert!(listing.remove(key, row));
            }
            assert_eq!((listing.len(), listing.bytes()), (0, 0), "gives everything back");
        }
    }

    #[test]
    fn a_row_takes_some_nine_bytes_and_few_rows_take_little() {
        let mut listing = Listing::default();
        for row in 0..200_000 {
            listing.insert((mix(row) >> 32) as u32, row as u32);
        }
        let each = listing.bytes() as f64 / 200_000.0;
        assert!(each < 10.5, "{each} bytes a row");
        for row in 1_000..200_000 {
            assert!(listing.remove((mix(row) >> 32) as u32, row as u32));
        }
        listing.check_invariants();
        assert!(listing.bytes() < 100_000, "{} bytes for a thousand rows", listing.bytes());
    }
}
