//! The key of one KV-cache chunk: header and payload together, so that half a chunk cannot exist.
//!
//! RDB form: 1, header section, number of segments, the segments; or 0 and a stub section, which is
//! what is saved of a chunk that is not durable. What is loaded damaged becomes a stub, a miss that is
//! removed; RESTORE refuses it.

use super::VALUE_OVERHEAD_BYTES;
use super::cache_registry;
use super::namespace_registry::{self, NAMESPACES};
use crate::ffi::{
    Digest, HeldString, ModuleValue, RString, RdbReader, RdbWriter, ServerString, TypeHandle,
};
use llmcache_core::allocation::allocated_bytes;
use llmcache_core::kvchunk::{ChunkHeader, Durable, Stub};
use llmcache_core::limits;
use std::ffi::{CStr, c_int};

/// The internal command that stores a chunk as it is: AOF and replicas.
pub const CHUNK_COMMAND: &CStr = c"KVCHUNK._PUT";

/// From more than this on the server frees a value on another thread. A segment may still be on its
/// way to a client by reference there, counted without atomics, so freeing stays on the main thread.
const FREE_EFFORT_MAX: usize = 64;

const SAVED_STUB: u64 = 0;
const SAVED_WHOLE: u64 = 1;

static HANDLE: TypeHandle = TypeHandle::unregistered();

/// A chunk with its payload.
#[derive(Debug)]
pub struct Whole {
    /// Header.
    pub header: ChunkHeader,
    /// The payload, cut.
    pub segments: Box<[HeldString]>,
    /// What is saved and replicated of it.
    pub durable: Durable,
}

/// Value of a chunk key.
#[derive(Debug)]
pub enum ChunkValue {
    /// A chunk.
    Whole(Box<Whole>),
    /// What is left of one: a miss.
    Stub(Stub),
}

impl Whole {
    /// CRC-32 of the payload.
    pub fn payload_crc(&self) -> u32 {
        payload_crc(&self.segments)
    }

    /// Whether length and checksum of the payload are what the header says.
    pub fn is_sound(&self) -> bool {
        let bytes: usize = self.segments.iter().map(|segment| segment.as_bytes().len()).sum();
        bytes as u64 == self.header.payload_bytes
            && self.header.checksum.is_none_or(|checksum| checksum == self.payload_crc())
    }

    /// Memory of the chunk as the value of a key.
    pub fn memory_bytes(&self) -> usize {
        VALUE_OVERHEAD_BYTES
            + allocated_bytes(size_of::<ChunkValue>())
            + allocated_bytes(size_of::<Self>())
            + self.header.heap_bytes()
            + allocated_bytes(size_of_val(&*self.segments))
            + self.segments.iter().map(HeldString::memory_bytes).sum::<usize>()
    }
}

/// CRC-32 of a cut payload.
pub fn payload_crc(segments: &[HeldString]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    segments.iter().for_each(|segment| crc.update(segment.as_bytes()));
    crc.finalize()
}

impl ChunkValue {
    /// The chunk, unless only a stub is left of it.
    pub fn whole(&self) -> Option<&Whole> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Stub(_) => None,
        }
    }

    /// The header for change.
    pub fn header_mut(&mut self) -> Option<&mut ChunkHeader> {
        match self {
            Self::Whole(whole) => Some(&mut whole.header),
            Self::Stub(_) => None,
        }
    }

    fn load_whole(from: &mut RdbReader) -> Option<Self> {
        let header = ChunkHeader::from_bytes(&from.bytes()?);
        let count = from.number()?;
        if count > limits::SEGMENTS_MAX as u64 {
            return None;
        }
        let mut segments = Vec::new();
        let mut bytes = 0;
        for _ in 0..count {
            let segment = from.string()?;
            bytes += segment.as_bytes().len();
            if bytes > limits::PAYLOAD_MAX_BYTES {
                return None;
            }
            segments.push(segment);
        }
        let lost = || cache_registry::is_loading().then_some(Self::Stub(Stub { was: None }));
        let Ok(header) = header else { return lost() };
        let whole = Whole { header, segments: segments.into(), durable: Durable::Full };
        if whole.is_sound() { Some(Self::Whole(Box::new(whole))) } else { lost() }
    }
}

impl ModuleValue for ChunkValue {
    type Kept = Box<Self>;

    const TYPE_NAME: &'static str = "llm-kvchk";
    const ENCODING: c_int = 1;

    fn handle() -> &'static TypeHandle {
        &HANDLE
    }

    fn rdb_load(from: &mut RdbReader, encoding: c_int, db: c_int, key: &[u8]) -> Option<Box<Self>> {
        if encoding != Self::ENCODING {
            return None;
        }
        let value = match from.number()? {
            SAVED_WHOLE => Self::load_whole(from)?,
            SAVED_STUB => Self::Stub(Stub::from_bytes(&from.bytes()?).ok()?),
            _ => return None,
        };
        if cache_registry::is_loading() {
            NAMESPACES.arrived((db, key.to_vec()));
        }
        Some(Box::new(value))
    }

    fn rdb_save(&self, to: &mut RdbWriter) {
        let stub = match self {
            Self::Whole(whole) if whole.durable == Durable::Full => {
                to.number(SAVED_WHOLE);
                to.bytes(&whole.header.to_bytes());
                to.number(whole.segments.len() as u64);
                whole.segments.iter().for_each(|segment| to.string(segment));
                return;
            }
            Self::Whole(whole) if whole.durable == Durable::Meta => {
                let header = &whole.header;
                Stub { was: Some((header.uid, header.digest.clone(), header.payload_bytes)) }
            }
            Self::Whole(_) => Stub { was: None },
            Self::Stub(stub) => stub.clone(),
        };
        to.number(SAVED_STUB);
        to.bytes(&stub.to_bytes());
    }

    fn aof_rewrite(&self, key: &[u8]) -> Option<(&'static CStr, Vec<RString>)> {
        let whole = self.whole().filter(|whole| whole.durable == Durable::Full)?;
        // The server itself writes the key's deadline behind this.
        Some((CHUNK_COMMAND, put_args(key, whole, 0)))
    }

    fn digest(&self, digest: &mut Digest) {
        if let Self::Whole(whole) = self {
            digest.add(&whole.header.to_bytes());
            digest.add(&whole.payload_crc().to_le_bytes());
        }
        digest.end();
    }

    fn mem_usage(&self) -> usize {
        match self {
            Self::Whole(whole) => whole.memory_bytes(),
            Self::Stub(_) => VALUE_OVERHEAD_BYTES + allocated_bytes(size_of::<Self>()),
        }
    }

    fn free_effort(&self) -> usize {
        self.whole().map_or(1, |whole| (1 + whole.segments.len()).min(FREE_EFFORT_MAX))
    }

    fn unlinked(&self, db: c_int, key: &[u8]) {
        let Self::Whole(whole) = self else { return };
        let digest = &whole.header.digest;
        if let Some(namespace) = NAMESPACES.find_even_gone(whole.header.uid, db) {
            NAMESPACES.note_change(whole.header.uid);
            let is_last = namespace.with(|namespace| {
                // A copy under another name is none of the tree's.
                if *namespace.chunk_key(digest) == *key {
                    namespace.tree.remove(digest);
                    namespace_registry::note_work(namespace);
                }
                namespace.tree.chunks() == 0
            });
            if is_last {
                NAMESPACES.lost_one(whole.header.uid, db);
            }
        }
    }
}

/// Arguments of the internal command: key, header, the key's own deadline (0 for none), segments.
pub fn put_args(key: &[u8], whole: &Whole, expire_at_ms: u64) -> Vec<RString> {
    let head =
        [key, &whole.header.to_bytes(), expire_at_ms.to_string().as_bytes()].map(RString::new);
    head.into_iter().chain(whole.segments.iter().map(HeldString::share)).collect()
}
