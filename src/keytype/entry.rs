//! The key of one entry: an `Entry`, nothing else.

use super::cache_registry::{self, CACHES};
use crate::ffi::{Digest, ModuleValue, RString, RdbReader, RdbWriter, TypeHandle};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::Entry;
use std::ffi::{CStr, c_int};

/// The internal command that stores an entry as it is: AOF and replicas.
pub const ENTRY_COMMAND: &CStr = c"LLMCACHE._ENTRY";

/// The internal command that marks an entry stale: AOF and replicas.
pub const STALE_COMMAND: &CStr = c"LLMCACHE._STALE";

/// What the server allocates around a module's value and leaves out of `MEMORY USAGE`: the object
/// and the pair of type and pointer.
const VALUE_OVERHEAD_BYTES: usize = 16 + 16;

/// Memory of an entry as the value of a key.
pub fn entry_value_bytes(entry: &Entry) -> usize {
    VALUE_OVERHEAD_BYTES + allocated_bytes(entry.as_bytes().len())
}

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// Value of an entry key.
pub type EntryValue = Entry;

impl ModuleValue for EntryValue {
    type Kept = Box<Self>;

    const TYPE_NAME: &'static str = "llm-entry";
    const ENCODING: c_int = 1;

    fn handle() -> &'static TypeHandle {
        &HANDLE
    }

    fn rdb_load(
        from: &mut RdbReader,
        encoding: c_int,
        _db: c_int,
        _key: &[u8],
    ) -> Option<Box<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let checksum = from.number()?;
        let bytes = from.bytes()?;
        if checksum != u64::from(crc32fast::hash(&bytes)) {
            return None;
        }
        Self::from_bytes(bytes).ok()
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        let bytes = self.as_bytes();
        to.number(u64::from(crc32fast::hash(bytes)));
        to.bytes(bytes);
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let entry = RString::new(&self.portable_bytes());
        Some((ENTRY_COMMAND, vec![RString::new(key), entry]))
    }

    fn digest(&self, digest: &mut Digest) {
        for part in self.portable_parts() {
            digest.add(part);
        }
        digest.end();
    }

    fn mem_usage(&self) -> usize {
        entry_value_bytes(self)
    }

    fn free_effort(&self) -> usize {
        1
    }

    fn unlinked(&self, db: c_int, _key: &[u8]) {
        let view = self.view();
        if let Some(cell) = CACHES.find_even_gone(view.uid(), db) {
            cell.with(|cache| {
                cache.index.remove(view.slot(), view.seq());
                cache_registry::note_work(cache);
            });
        }
    }
}
