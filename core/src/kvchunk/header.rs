//! The header of a chunk in bytes, for RDB, AOF and replicas.
//!
//! Owns: the layout (`docs/formats.md`). Bytes from outside are hostile until `from_bytes` accepted
//! them. Leases, uses and the place in the tree are of one process and are not in it.

use super::settings::{read_shape, write_shape};
use super::{ChunkDigest, Content, Dtype};
use crate::codec::{DecodeError, Writer, open_section};
use crate::ids::{ContainerUid, UnixMs};
use crate::limits;

/// Section tag of a chunk's header.
pub const TAG_CHUNK: u16 = 0x0302;
/// Section tag of what is saved of a chunk that is not durable.
pub const TAG_STUB: u16 = 0x0303;
const VERSION: u16 = 1;
/// The version of headers with the content name of a salt. In those of version 1 it was of no salt, so that
/// whoever asked could find it: it is dropped, and such a chunk is not found until it is stored again.
const VERSION_SALTED: u16 = 2;

const FLAG_PINNED: u8 = 1;
const FLAG_CHECKSUM: u8 = 2;
const FLAG_PARENT: u8 = 4;
const FLAG_CONTENT: u8 = 8;
const FLAGS: u8 = FLAG_PINNED | FLAG_CHECKSUM | FLAG_PARENT | FLAG_CONTENT;

/// Header of one chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkHeader {
    /// Namespace it belongs to.
    pub uid: ContainerUid,
    /// That namespace's fingerprint.
    pub fingerprint: [u8; 32],
    /// Its name.
    pub digest: ChunkDigest,
    /// The chunk before it in the prompt; `None` for a first one, and where the caller named none.
    pub parent: Option<ChunkDigest>,
    /// Its place in the prompt, in chunks.
    pub position: u32,
    /// Type of the numbers.
    pub dtype: Dtype,
    /// Shape of the tensor.
    pub shape: Box<[u32]>,
    /// Weight at eviction: each step doubles what a use counts.
    pub prio: u8,
    /// Not to be evicted by BUDGET.
    pub pinned: bool,
    /// When it was stored.
    pub created: UnixMs,
    /// When it ends.
    pub deadline: UnixMs,
    /// Length of the payload.
    pub payload_bytes: u64,
    /// CRC-32 of the payload, where the namespace wants one.
    pub checksum: Option<u32>,
    /// Its tokens wherever they stand; `None` when stored by HASH.
    pub content: Option<Content>,
    /// META as given: a JSON object; empty without one.
    pub meta: Box<[u8]>,
}

impl ChunkHeader {
    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::section(
            TAG_CHUNK,
            if self.content.is_some() { VERSION_SALTED } else { VERSION },
        );
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(self.pinned, FLAG_PINNED)
            | flag(self.checksum.is_some(), FLAG_CHECKSUM)
            | flag(self.parent.is_some(), FLAG_PARENT)
            | flag(self.content.is_some(), FLAG_CONTENT);
        out.u64(self.uid.0).raw(&self.fingerprint).u8(flags);
        out.bytes(self.digest.as_bytes());
        if let Some(parent) = &self.parent {
            out.bytes(parent.as_bytes());
        }
        out.u32(self.position).u8(self.dtype.as_byte());
        write_shape(&self.shape, &mut out);
        out.u8(self.prio).u64(self.created.0).u64(self.deadline.0).u64(self.payload_bytes);
        if let Some(checksum) = self.checksum {
            out.u32(checksum);
        }
        if let Some(content) = &self.content {
            out.u64(content.print).raw(&content.sha);
        }
        out.bytes(&self.meta);
        out.finish()
    }

    /// Takes in bytes of unknown origin.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if tag != TAG_CHUNK || !(VERSION..=VERSION_SALTED).contains(&version) {
            return Err(DecodeError("not a chunk of a known version"));
        }
        let uid = ContainerUid(from.u64()?);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(from.raw(32)?);
        let flags = from.u8()?;
        if flags & !FLAGS != 0 {
            return Err(DecodeError("unknown flags of a chunk"));
        }
        let has = |flag: u8| flags & flag != 0;
        let digest = read_digest(&mut from)?;
        let parent = has(FLAG_PARENT).then(|| read_digest(&mut from)).transpose()?;
        let header = Self {
            uid,
            fingerprint,
            digest,
            parent,
            position: from.u32()?,
            dtype: Dtype::from_byte(from.u8()?).ok_or(DecodeError("unknown dtype"))?,
            shape: read_shape(&mut from)?,
            prio: from.u8()?,
            pinned: has(FLAG_PINNED),
            created: UnixMs(from.u64()?),
            deadline: UnixMs(from.u64()?),
            payload_bytes: from.u64()?,
            checksum: has(FLAG_CHECKSUM).then(|| from.u32()).transpose()?,
            content: if has(FLAG_CONTENT) {
                let print = from.u64()?;
                let mut sha = [0; 16];
                sha.copy_from_slice(from.raw(16)?);
                (version == VERSION_SALTED).then_some(Content { print, sha })
            } else {
                None
            },
            meta: from.bytes(limits::META_MAX_BYTES)?.into(),
        };
        from.finish()?;
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.prio > limits::PRIO_MAX || self.payload_bytes > limits::PAYLOAD_MAX_BYTES as u64 {
            return Err(DecodeError("a number of a chunk is out of range"));
        }
        // What a server accepts as a deadline.
        if self.deadline.0 > i64::MAX as u64 / 2 {
            return Err(DecodeError("the deadline of a chunk is out of range"));
        }
        if self.parent.as_ref() == Some(&self.digest) {
            return Err(DecodeError("a chunk that follows itself"));
        }
        Ok(())
    }

    /// Memory behind the header itself.
    pub fn heap_bytes(&self) -> usize {
        use crate::allocation::allocated_bytes;
        let long = |digest: &ChunkDigest| match digest.as_bytes().len() {
            0..=32 => 0,
            more => allocated_bytes(more),
        };
        long(&self.digest)
            + self.parent.as_ref().map_or(0, long)
            + allocated_bytes(self.meta.len())
            + allocated_bytes(self.shape.len() * 4)
    }
}

fn read_digest(from: &mut crate::codec::Reader<'_>) -> Result<ChunkDigest, DecodeError> {
    ChunkDigest::from_bytes(from.bytes(limits::DIGEST_MAX_BYTES)?)
        .ok_or(DecodeError("digest of a chunk"))
}

/// What is left of a chunk that was not durable: a miss, to be removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stub {
    /// The namespace and the chunk that was there, under DURABLE META.
    pub was: Option<(ContainerUid, ChunkDigest, u64)>,
}

impl Stub {
    /// The bytes, at most 128.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::section(TAG_STUB, VERSION);
        if let Some((uid, digest, payload_bytes)) = &self.was {
            out.u64(uid.0).u64(*payload_bytes).bytes(digest.as_bytes());
        }
        out.finish()
    }

    /// Takes in bytes of unknown origin.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if (tag, version) != (TAG_STUB, VERSION) {
            return Err(DecodeError("not a stub of a known version"));
        }
        if from.remaining() == 0 {
            return Ok(Self { was: None });
        }
        let (uid, payload_bytes) = (ContainerUid(from.u64()?), from.u64()?);
        let digest = read_digest(&mut from)?;
        from.finish()?;
        Ok(Self { was: Some((uid, digest, payload_bytes)) })
    }
}
