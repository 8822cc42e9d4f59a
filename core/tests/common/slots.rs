//! An entry of an index of which only the vector matters, for tests of graphs, scans and memory.

use llmcache_core::ids::{EntryId, PartitionKey, Seq, UnixMs};
use llmcache_core::index::NewSlot;

/// The entry of this number, from 0, with its code and scale.
pub fn numbered<'a>(number: u64, code: (&'a [i8], f32)) -> NewSlot<'a> {
    NewSlot {
        id: EntryId::of(b"", b"", &number.to_le_bytes()),
        seq: Seq(number + 1),
        partition: PartitionKey(0),
        expire_at: UnixMs::NEVER,
        bytes: 1,
        worth: 0,
        record: None,
        name: None,
        code: Some(code),
    }
}
