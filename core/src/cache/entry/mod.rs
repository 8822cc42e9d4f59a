//! One cached answer as one allocation: a fixed header and the variable parts behind it.
//!
//! Owns: the layout (`docs/formats.md`), which is at once the form in memory, in RDB, in AOF and in
//! replication. Bytes from outside are hostile until `Entry::from_bytes` accepted them. The header's
//! slot is local to the process and left out of digests and canonical commands. Main thread, except
//! that an `Entry` may be dropped anywhere.

mod check;
mod layout;
mod view;

use crate::codec::{DecodeError, pack_text};
use crate::ids::{ContainerUid, Seq, SlotId, UnixMs};
use crate::limits;
use crate::vector::Quant;
use bytemuck::{TransparentWrapper, TransparentWrapperAlloc};
pub use layout::NORM_BYTES;
use layout::{
    COSTS, COSTS_BYTES, DIM_AT, EMBEDDING, FLAGS_AT, HEADER, LABELS, LABELS_BYTES, PACKED,
    RESPONSE_LEN_AT, SEQ_AT, SLOT_AT, STALE, TIME_MAX, UID_AT, VERSION,
};
pub use view::EntryView;

/// The parts of an entry to be made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EntryFields<'a> {
    /// Container it belongs to.
    pub uid: ContainerUid,
    /// Its place in the container's store order.
    pub seq: Seq,
    /// When it was stored.
    pub created: UnixMs,
    /// How the vector is kept.
    pub quant: Quant,
    /// Dimension; 0 without a vector.
    pub dim: u16,
    /// The vector as `quant` keeps it; empty without one.
    pub vector: &'a [u8],
    /// Scope.
    pub scope: &'a [u8],
    /// Context.
    pub context: &'a [u8],
    /// Prompt.
    pub prompt: &'a [u8],
    /// Response.
    pub response: &'a [u8],
    /// The id the caller gave; empty when the digest is the id.
    pub name: &'a [u8],
    /// Tags.
    pub tags: &'a [&'a [u8]],
    /// META as given: a JSON object; empty without one.
    pub meta: &'a [u8],
    /// Tokens the answer took.
    pub tokens: u32,
    /// What it cost, in nano-dollars.
    pub cost_nano_usd: u64,
    /// How long it took to make.
    pub latency_ms: u32,
    /// How long before its deadline it is stale already.
    pub grace_s: u32,
    /// Whether it is an embedding, and the prompt a digest.
    pub is_embedding: bool,
}

/// An entry, in its one allocation: `Box<Entry>` owns it.
#[derive(Debug, TransparentWrapper)]
#[transparent(Bytes)]
#[repr(transparent)]
pub struct Entry(Bytes);

/// Keeps bytes that nobody checked from being taken for an entry outside of this file.
#[derive(Debug, TransparentWrapper)]
#[repr(transparent)]
struct Bytes([u8]);

impl Entry {
    fn boxed(bytes: Box<[u8]>) -> Box<Self> {
        Self::wrap_box(Bytes::wrap_box(bytes))
    }

    /// Packs the parts. The caller checked them against `limits`.
    pub fn new(fields: &EntryFields<'_>) -> Box<Self> {
        debug_assert!(fields.seq.0 <= limits::SEQ_MAX && fields.created.0 <= TIME_MAX);
        let tags_len: usize = fields.tags.iter().map(|tag| 2 + tag.len()).sum();
        let rest = fields.name.len() + tags_len + fields.meta.len();
        let has_labels = fields.scope.len() + fields.context.len() + rest > 0;
        let has_costs = (fields.cost_nano_usd, fields.tokens, fields.latency_ms, fields.grace_s)
            != (0, 0, 0, 0);
        let parts = [fields.vector, fields.scope, fields.context, fields.prompt, fields.response];
        let total = HEADER
            + if has_costs { COSTS_BYTES } else { 0 }
            + if has_labels { LABELS_BYTES } else { 0 }
            + parts.iter().map(|part| part.len()).sum::<usize>()
            + rest;
        let flags = fields.quant.as_byte()
            | if fields.is_embedding { EMBEDDING } else { 0 }
            | if has_costs { COSTS } else { 0 }
            | if has_labels { LABELS } else { 0 };
        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&[VERSION, flags]);
        out.extend_from_slice(&fields.dim.to_le_bytes());
        out.extend_from_slice(&SlotId::NONE.0.to_le_bytes());
        out.extend_from_slice(&fields.uid.0.to_le_bytes());
        out.extend_from_slice(&fields.seq.0.to_le_bytes()[..6]);
        out.extend_from_slice(&fields.created.0.to_le_bytes()[..6]);
        for part in [fields.prompt, fields.response] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        }
        debug_assert_eq!(out.len(), HEADER);
        if has_costs {
            out.extend_from_slice(&fields.cost_nano_usd.to_le_bytes());
            for number in [fields.tokens, fields.latency_ms, fields.grace_s] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        if has_labels {
            out.extend_from_slice(&(fields.scope.len() as u16).to_le_bytes());
            out.extend_from_slice(&(tags_len as u16).to_le_bytes());
            for part in [fields.context, fields.meta] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            }
            out.extend_from_slice(&[fields.name.len() as u8, fields.tags.len() as u8]);
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(fields.name);
        for tag in fields.tags {
            out.extend_from_slice(&(tag.len() as u16).to_le_bytes());
            out.extend_from_slice(tag);
        }
        out.extend_from_slice(fields.meta);
        debug_assert_eq!(out.len(), total);
        Self::boxed(out.into_boxed_slice())
    }

    /// Takes in bytes of unknown origin; everything a reader will rely on is checked here.
    pub fn from_bytes(bytes: Box<[u8]>) -> Result<Box<Self>, DecodeError> {
        EntryView { bytes: &bytes }.validate()?;
        Ok(Self::boxed(bytes))
    }

    /// Bytes that every entry has. With them `head_len` answers how many are needed to tell the length.
    pub const HEADER_BYTES: usize = HEADER;

    /// Reads it.
    pub fn view(&self) -> EntryView<'_> {
        EntryView { bytes: self.as_bytes() }
    }

    /// The whole entry, slot included: what RDB keeps.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }

    /// Notes where the index keeps it.
    pub fn set_slot(&mut self, slot: SlotId) {
        self.0.0[SLOT_AT..SLOT_AT + 4].copy_from_slice(&slot.0.to_le_bytes());
    }

    /// Says which container it belongs to and its place in the order of stores, where it was packed before that was known.
    pub fn adopt(&mut self, uid: ContainerUid, seq: Seq) {
        debug_assert!(seq.0 <= limits::SEQ_MAX);
        self.0.0[UID_AT..UID_AT + 8].copy_from_slice(&uid.0.to_le_bytes());
        self.0.0[SEQ_AT..SEQ_AT + 6].copy_from_slice(&seq.0.to_le_bytes()[..6]);
    }

    /// The same entry with a vector, packed without one.
    pub fn with_vector(&self, dim: u16, vector: &[u8]) -> Box<Self> {
        let (bytes, start) = (self.as_bytes(), self.view().parts_at());
        debug_assert_eq!(self.view().dim(), 0);
        let mut out = Vec::with_capacity(bytes.len() + vector.len());
        out.extend_from_slice(&bytes[..start]);
        out.extend_from_slice(vector);
        out.extend_from_slice(&bytes[start..]);
        out[DIM_AT..DIM_AT + 2].copy_from_slice(&dim.to_le_bytes());
        Self::boxed(out.into_boxed_slice())
    }

    /// The same entry with its response packed, where that spares memory.
    pub fn with_packed_response(self: Box<Self>) -> Box<Self> {
        let (bytes, view) = (self.as_bytes(), self.view());
        let response = view.kept_response();
        if response.len() > limits::PACKED_TEXT_MAX_BYTES || view.is_packed() {
            return self;
        }
        let Some(packed) = pack_text(response) else { return self };
        let start = view.parts_at() + view.lengths()[..4].iter().sum::<usize>();
        let mut out = Vec::with_capacity(bytes.len() - response.len() + packed.len());
        out.extend_from_slice(&bytes[..start]);
        out.extend_from_slice(&packed);
        out.extend_from_slice(&bytes[start + response.len()..]);
        out[RESPONSE_LEN_AT..RESPONSE_LEN_AT + 4]
            .copy_from_slice(&(packed.len() as u32).to_le_bytes());
        out[FLAGS_AT] |= PACKED;
        Self::boxed(out.into_boxed_slice())
    }

    /// Marks it stale, whatever its age.
    pub fn set_stale(&mut self) {
        self.0.0[FLAGS_AT] |= STALE;
    }

    /// The entry as another server may have it: what canonical commands carry.
    pub fn portable_bytes(&self) -> Vec<u8> {
        let mut bytes = self.as_bytes().to_vec();
        bytes[SLOT_AT..SLOT_AT + 4].copy_from_slice(&SlotId::NONE.0.to_le_bytes());
        bytes
    }

    /// The entry without its slot, in two pieces around it: what digests cover.
    pub fn portable_parts(&self) -> [&[u8]; 2] {
        [&self.as_bytes()[..SLOT_AT], &self.as_bytes()[SLOT_AT + 4..]]
    }

    /// Length of the header and the groups behind it, by the header.
    #[inline]
    pub fn head_len(header: &[u8]) -> usize {
        EntryView { bytes: header }.parts_at()
    }

    /// Length of a whole entry, by its header and groups. Nothing that is done to an entry changes it.
    #[inline]
    pub fn whole_len(head: &[u8]) -> usize {
        EntryView { bytes: head }.whole_len()
    }
}
