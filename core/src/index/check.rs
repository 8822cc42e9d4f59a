//! Proof that the parts of an index agree; for tests.

use super::scopes::Scopes;
use super::{Index, Totals};
use crate::allocation::allocated_bytes;

impl Index {
    /// Panics unless every structure agrees with every other; for tests, in O(n).
    pub fn check_invariants(&self) {
        let mut seen = Totals::default();
        let (mut from, mut named, mut tagged) = (0, 0, 0);
        let mut scopes = Scopes::default();
        while let Some((id, slot)) = self.next_occupied(from) {
            from = id.0 + 1;
            seen.entries += 1;
            seen.entry_bytes += u64::from(slot.bytes);
            seen.hidden += u64::from(slot.is_hidden());
            named += usize::from(slot.is_named());
            tagged += usize::from(slot.is_tagged());
            scopes.add(slot.partition.scope());
            assert_eq!(self.row_of(&slot.id), Some(id), "the row of an id");
            assert!(!slot.is_named() || self.names.contains_key(&slot.id), "{id:?}: name");
            if slot.has_code() {
                seen.vectors += 1;
                assert!(self.code(id).is_some(), "{id:?}: code");
                let rows = self.rows.of_partition(slot.partition);
                assert_eq!(rows[slot.position as usize], id.0, "{id:?}: position");
            }
        }
        assert_eq!((seen, named), (self.totals, self.names.len()));
        assert_eq!(self.by_id.len() as u64, seen.entries, "a row for each entry");
        self.by_id.check_invariants();
        let name_bytes = self.names.values().map(|name| allocated_bytes(name.len()));
        assert_eq!(name_bytes.sum::<usize>(), self.name_bytes, "bytes of names");
        assert_eq!(tagged, self.rows.tags.check_invariants(), "tagged slots");
        if let Some(words) = &self.words {
            words.check_invariants();
            assert!(words.len() <= seen.entries, "words of entries that are here");
        }
        scopes.check_equal(&self.rows.scopes);
        self.rows.slots.check_invariants();
        self.rows.partitions.check_invariants(&self.rows.slots, seen.vectors);
        self.graphs.check_invariants(&self.rows);
    }
}
