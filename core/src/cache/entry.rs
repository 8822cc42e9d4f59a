//! One cached answer as one allocation: a fixed header and the variable parts behind it.
//!
//! Owns: the layout (`docs/formats.md`), which is at once the form in memory, in RDB, in AOF and in
//! replication. Bytes from outside are hostile until `Entry::from_bytes` accepted them. The header's
//! slot is local to the process and left out of digests and canonical commands. Main thread, except
//! that an `Entry` may be dropped anywhere.

use crate::codec::DecodeError;
use crate::ids::{ContainerUid, EntryId, Seq, SlotId, UnixMs};
use crate::limits;
use crate::vector::{Quant, StoredVector};
use bytemuck::{TransparentWrapper, TransparentWrapperAlloc};

const VERSION: u8 = 3;
/// What every entry has. Short, because an allocation is rounded up to its class: what most entries do
/// not have stands in two groups of which an entry carries those that it needs.
const HEADER: usize = 36;
const FLAGS_AT: usize = 1;
const DIM_AT: usize = 2;
const SLOT_AT: usize = 4;
const UID_AT: usize = 8;
const SEQ_AT: usize = 16;

/// The bits of the flags that say how the vector is kept.
const QUANT: u8 = 3;
/// Flag of an entry that was invalidated softly: stale whatever its age.
const STALE: u8 = 4;
/// Flag of an embedding: the prompt is a digest of 32 bytes, and its first half the id.
const EMBEDDING: u8 = 8;
/// Flag of an entry with the group of what its answer cost: `COST`, `TOKENS`, `LATENCY`, `GRACE`.
const COSTS: u8 = 16;
const COSTS_BYTES: usize = 20;
/// Flag of an entry with the group of the lengths that most entries have none of.
const LABELS: u8 = 32;
const LABELS_BYTES: usize = 14;

/// What fits the six bytes of a time: milliseconds until the year 10889.
const TIME_MAX: u64 = (1 << 48) - 1;

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

/// An entry read in place.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    bytes: &'a [u8],
}

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

    /// Length of the header and the groups behind it, by the header.
    #[inline]
    pub fn head_len(header: &[u8]) -> usize {
        EntryView { bytes: header }.parts_at()
    }

    /// Length of a whole entry, by its header and groups. Nothing that is done to an entry changes it.
    #[inline]
    pub fn whole_len(head: &[u8]) -> usize {
        let view = EntryView { bytes: head };
        let [vector, scope, context, prompt, response, name, tags, meta] = view.lengths();
        view.parts_at() + (vector + prompt + response) + (scope + context + name + tags + meta)
    }

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
}

impl<'a> EntryView<'a> {
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(word)
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(word)
    }

    /// A number of six bytes that is not the last of the header.
    fn u48_at(&self, at: usize) -> u64 {
        self.u64_at(at) & ((1 << 48) - 1)
    }

    fn has(&self, flag: u8) -> bool {
        self.bytes[FLAGS_AT] & flag != 0
    }

    /// Where the group of costs stands, if there is one.
    fn costs(&self) -> Option<usize> {
        self.has(COSTS).then_some(HEADER)
    }

    /// Where the group of further lengths stands, if there is one.
    fn labels(&self) -> Option<usize> {
        self.has(LABELS).then(|| HEADER + if self.has(COSTS) { COSTS_BYTES } else { 0 })
    }

    /// Where the variable parts begin.
    fn parts_at(&self) -> usize {
        HEADER
            + if self.has(COSTS) { COSTS_BYTES } else { 0 }
            + if self.has(LABELS) { LABELS_BYTES } else { 0 }
    }

    /// Lengths of the variable parts, in their order.
    #[inline]
    fn lengths(&self) -> [usize; 8] {
        let vector = match self.dim() {
            0 => 0,
            dim => self.quant().encoded_len(usize::from(dim)),
        };
        let (prompt, response) = (self.u32_at(28) as usize, self.u32_at(32) as usize);
        let Some(at) = self.labels() else { return [vector, 0, 0, prompt, response, 0, 0, 0] };
        let (scope, tags) = (usize::from(self.u16_at(at)), usize::from(self.u16_at(at + 2)));
        let (context, meta) = (self.u32_at(at + 4) as usize, self.u32_at(at + 8) as usize);
        [vector, scope, context, prompt, response, usize::from(self.bytes[at + 12]), tags, meta]
    }

    fn part(&self, number: usize) -> &'a [u8] {
        let lengths = self.lengths();
        let start = self.parts_at() + lengths[..number].iter().sum::<usize>();
        &self.bytes[start..start + lengths[number]]
    }

    fn validate(&self) -> Result<(), DecodeError> {
        let known = QUANT | STALE | EMBEDDING | COSTS | LABELS;
        if self.bytes.len() < HEADER
            || self.bytes[0] != VERSION
            || self.bytes[FLAGS_AT] & !known != 0
            || self.bytes.len() < self.parts_at()
        {
            return Err(DecodeError("entry header"));
        }
        if Quant::from_byte(self.bytes[FLAGS_AT] & QUANT).is_none()
            || u32::from(self.dim()) > limits::DIM_MAX
        {
            return Err(DecodeError("entry's vector form"));
        }
        // An entry has one form: a group that says nothing is left out.
        let costs = (self.cost_nano_usd(), self.tokens(), self.latency_ms(), self.grace_s());
        let empty = |at: usize| self.bytes[at..at + LABELS_BYTES].iter().all(|&byte| byte == 0);
        if (self.has(COSTS) && costs == (0, 0, 0, 0)) || self.labels().is_some_and(empty) {
            return Err(DecodeError("entry's groups"));
        }
        let lengths = self.lengths();
        let bounds = [
            usize::MAX,
            limits::SCOPE_MAX_BYTES,
            limits::CONTEXT_MAX_BYTES,
            limits::PROMPT_MAX_BYTES,
            limits::RESPONSE_MAX_BYTES,
            limits::ID_MAX_BYTES,
            usize::MAX,
            limits::META_MAX_BYTES,
        ];
        if lengths.iter().zip(bounds).any(|(&length, bound)| length > bound) {
            return Err(DecodeError("entry part is longer than its bound"));
        }
        if Entry::whole_len(self.bytes) != self.bytes.len() {
            return Err(DecodeError("entry length does not fit its parts"));
        }
        if self.dim() > 0 && self.vector().is_none() {
            return Err(DecodeError("entry's vector"));
        }
        if self.name().is_some_and(|name| name.iter().any(u8::is_ascii_control)) {
            return Err(DecodeError("entry's name"));
        }
        if self.tags_checked().is_none() {
            return Err(DecodeError("entry's tags"));
        }
        if self.meta().is_some() && self.meta_object().is_none() {
            return Err(DecodeError("entry's META"));
        }
        let sane = u64::from(self.latency_ms()) <= limits::LATENCY_MAX_MS
            && self.cost_nano_usd() <= limits::COST_MAX_NANO_USD
            && self.grace_s() <= limits::GRACE_MAX_S;
        if self.is_embedding() && !self.is_sound_embedding() {
            return Err(DecodeError("embedding"));
        }
        if sane { Ok(()) } else { Err(DecodeError("entry's numbers")) }
    }

    fn is_sound_embedding(&self) -> bool {
        let named =
            self.prompt().len() == 32 && self.scope().is_empty() && self.context().is_empty();
        named && self.name().is_none() && super::embedding::is_sound(self)
    }

    fn tags_checked(&self) -> Option<()> {
        let mut rest = self.part(6);
        let mut count = 0;
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_le_bytes(*length));
            if length == 0 || length > limits::TAG_MAX_BYTES {
                return None;
            }
            rest = tail.get(length..)?;
            count += 1;
        }
        (count == self.tag_count() && count <= limits::TAGS_MAX).then_some(())
    }

    /// Dimension of the vector; 0 without one.
    pub fn dim(&self) -> u16 {
        self.u16_at(2)
    }

    /// Dimension of what it was stored with: an embedding may keep its numbers in the response's place.
    pub fn vector_dim(&self) -> u32 {
        match self.dim() {
            0 if self.is_embedding() => (self.response().len() / size_of::<f32>()) as u32,
            dim => u32::from(dim),
        }
    }

    /// How the vector is kept.
    pub fn quant(&self) -> Quant {
        Quant::from_byte(self.bytes[FLAGS_AT] & QUANT).unwrap_or(Quant::None)
    }

    /// The vector, if there is one.
    pub fn vector(&self) -> Option<StoredVector<'a>> {
        if self.dim() == 0 {
            return None;
        }
        StoredVector::parse(self.quant(), u32::from(self.dim()), self.part(0)).ok()
    }

    /// The vector's bytes as kept; empty without one.
    pub fn vector_bytes(&self) -> &'a [u8] {
        self.part(0)
    }

    /// Container it belongs to.
    pub fn uid(&self) -> ContainerUid {
        ContainerUid(self.u64_at(8))
    }

    /// Its place in the container's store order.
    pub fn seq(&self) -> Seq {
        Seq(self.u48_at(16))
    }

    /// When it was stored.
    pub fn created(&self) -> UnixMs {
        UnixMs(self.u48_at(22))
    }

    /// Where this process's index keeps it; `SlotId::NONE` when nowhere.
    pub fn slot(&self) -> SlotId {
        SlotId(self.u32_at(SLOT_AT))
    }

    /// Scope.
    pub fn scope(&self) -> &'a [u8] {
        self.part(1)
    }

    /// Context.
    pub fn context(&self) -> &'a [u8] {
        self.part(2)
    }

    /// Prompt.
    pub fn prompt(&self) -> &'a [u8] {
        self.part(3)
    }

    /// Response.
    pub fn response(&self) -> &'a [u8] {
        self.part(4)
    }

    /// The id the caller gave, if one was given.
    pub fn name(&self) -> Option<&'a [u8]> {
        Some(self.part(5)).filter(|name| !name.is_empty())
    }

    /// Tags, in the order given.
    pub fn tags(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.part(6);
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (tag, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)));
            rest = tail;
            Some(tag)
        })
    }

    /// How many tags.
    pub fn tag_count(&self) -> usize {
        self.labels().map_or(0, |at| usize::from(self.bytes[at + 13]))
    }

    /// META as given, if it was.
    pub fn meta(&self) -> Option<&'a [u8]> {
        Some(self.part(7)).filter(|meta| !meta.is_empty())
    }

    /// META as a document.
    pub fn meta_object(&self) -> Option<serde_json::Value> {
        let value: serde_json::Value = serde_json::from_slice(self.meta()?).ok()?;
        value.is_object().then_some(value)
    }

    /// Tokens the answer took.
    pub fn tokens(&self) -> u32 {
        self.costs().map_or(0, |at| self.u32_at(at + 8))
    }

    /// What it cost, in nano-dollars.
    pub fn cost_nano_usd(&self) -> u64 {
        self.costs().map_or(0, |at| self.u64_at(at))
    }

    /// How long it took to make.
    pub fn latency_ms(&self) -> u32 {
        self.costs().map_or(0, |at| self.u32_at(at + 12))
    }

    /// How long before its deadline it is stale already.
    pub fn grace_s(&self) -> u32 {
        self.costs().map_or(0, |at| self.u32_at(at + 16))
    }

    /// Whether it was marked stale.
    pub fn is_marked_stale(&self) -> bool {
        self.has(STALE)
    }

    /// When it becomes stale by age, given its deadline.
    pub fn fresh_until(&self, expire_at: UnixMs) -> UnixMs {
        match expire_at {
            UnixMs::NEVER => UnixMs::NEVER,
            UnixMs(at) => UnixMs(at.saturating_sub(u64::from(self.grace_s()) * 1_000).max(1)),
        }
    }

    /// Whether it is an embedding.
    pub fn is_embedding(&self) -> bool {
        self.has(EMBEDDING)
    }

    /// The digest of its scope, context and prompt; of an embedding the first half of its own.
    pub fn id(&self) -> EntryId {
        if self.is_embedding()
            && let Ok(digest) = self.prompt().try_into()
        {
            return EntryId::half_of(digest);
        }
        EntryId::of(self.scope(), self.context(), self.prompt())
    }

    /// Its id as a caller writes it: the one given, else the digest.
    pub fn id_text(&self) -> Vec<u8> {
        self.name().map_or_else(|| self.id().hex().to_vec(), <[u8]>::to_vec)
    }

    /// Whether it is the one that the index keeps in this slot, stored at this place.
    pub fn is_at(&self, slot: SlotId, seq: Seq) -> bool {
        self.slot() == slot && self.seq() == seq
    }

    /// Whether it belongs to this scope and context. Empty ones are not compared: glibc compares up to
    /// 32 bytes by one masked load, which takes a hundred nanoseconds where the pointer leads nowhere,
    /// as that of an empty slice may.
    pub fn is_in(&self, scope: &[u8], context: &[u8]) -> bool {
        if !self.has(LABELS) {
            return scope.is_empty() && context.is_empty();
        }
        let is =
            |own: &[u8], other: &[u8]| own.len() == other.len() && (own.is_empty() || own == other);
        is(self.scope(), scope) && is(self.context(), context)
    }

    /// Whether it answers exactly this question.
    pub fn answers(&self, scope: &[u8], context: &[u8], prompt: &[u8]) -> bool {
        self.prompt() == prompt && self.is_in(scope, context)
    }

    /// Length of the whole entry.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: an entry has a header.
    pub fn is_empty(&self) -> bool {
        false
    }
}
