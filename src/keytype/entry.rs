//! The key of one entry: an `Entry`, nothing else.

use super::VALUE_OVERHEAD_BYTES;
use super::cache_registry::{self, CACHES};
use crate::ffi::{
    Digest, ModuleValue, RString, RdbReader, RdbWriter, TellsLength, Thin, TypeHandle,
};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::cache::Entry;
use llmcache_core::ids::SlotId;
use std::ffi::{CStr, c_int};

/// The internal command that stores an entry as it is: AOF and replicas.
pub const ENTRY_COMMAND: &CStr = c"LLMCACHE._ENTRY";

/// The internal command that marks an entry stale: AOF and replicas.
pub const STALE_COMMAND: &CStr = c"LLMCACHE._STALE";

/// Memory of an entry as the value of a key.
pub fn entry_value_bytes(entry: &Entry) -> usize {
    VALUE_OVERHEAD_BYTES + allocated_bytes(entry.as_bytes().len())
}

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// Value of an entry key.
pub type EntryValue = Entry;

/// The pointer to an entry's bytes is all that the server keeps of it.
impl TellsLength for EntryValue {
    const HEADER_BYTES: usize = Self::HEADER_BYTES;

    #[inline]
    fn head_len(header: &[u8]) -> usize {
        Self::head_len(header)
    }

    #[inline]
    fn whole_len(head: &[u8]) -> usize {
        Self::whole_len(head)
    }

    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    #[inline]
    fn cast(bytes: *mut [u8]) -> *mut Self {
        // An `Entry` is its bytes (`repr(transparent)`).
        bytes as *mut Self
    }
}

impl ModuleValue for EntryValue {
    type Kept = Thin<Self>;

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
    ) -> Option<Thin<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let checksum = from.number()?;
        let bytes = from.bytes()?;
        if checksum != u64::from(crc32fast::hash(&bytes)) {
            return None;
        }
        let mut entry = Self::from_bytes(bytes).ok()?;
        if !cache_registry::is_loading() {
            // What is restored says where it stood on another server, or on this one before.
            entry.set_slot(SlotId::NONE);
        }
        Some(Thin(entry))
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
            CACHES.note_change(view.uid());
            let is_last = cell.with(|cache| {
                cache.index.remove(view.slot(), view.seq());
                cache_registry::note_work(cache);
                cache.index.totals().entries == 0
            });
            if is_last {
                CACHES.lost_one(view.uid(), db);
            }
        }
    }
}
