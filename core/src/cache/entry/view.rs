//! A parsed view of an entry, read in place.
//!
//! Owns: the getters of every field. They index without checks of their own: an `EntryView` exists only of bytes that
//! `Entry::new` packed or `validate` accepted, or of a header whose length alone is asked for. Any thread.

use super::layout::{
    COSTS, COSTS_BYTES, EMBEDDING, FLAGS_AT, HEADER, LABELS, LABELS_BYTES, PACKED, QUANT,
    RESPONSE_LEN_AT, SLOT_AT, STALE,
};
use crate::codec::{packed_text_len, unpack_text};
use crate::ids::{ContainerUid, EntryId, Seq, SlotId, UnixMs};
use crate::limits;
use crate::vector::{Quant, StoredVector};
use std::borrow::Cow;

/// An entry read in place.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// Header, groups and parts; `validate` or `Entry::new` vouches for their lengths.
    pub(super) bytes: &'a [u8],
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

    pub(super) fn has(&self, flag: u8) -> bool {
        self.bytes[FLAGS_AT] & flag != 0
    }

    /// Where the group of costs stands, if there is one.
    fn costs(&self) -> Option<usize> {
        self.has(COSTS).then_some(HEADER)
    }

    /// Where the group of further lengths stands, if there is one.
    pub(super) fn labels(&self) -> Option<usize> {
        self.has(LABELS).then(|| HEADER + if self.has(COSTS) { COSTS_BYTES } else { 0 })
    }

    /// Where the variable parts begin.
    pub(super) fn parts_at(&self) -> usize {
        HEADER
            + if self.has(COSTS) { COSTS_BYTES } else { 0 }
            + if self.has(LABELS) { LABELS_BYTES } else { 0 }
    }

    /// Lengths of the variable parts, in their order.
    #[inline]
    pub(super) fn lengths(&self) -> [usize; 8] {
        let vector = match self.dim() {
            0 => 0,
            dim => self.quant().encoded_len(usize::from(dim)),
        };
        let (prompt, response) = (self.u32_at(28) as usize, self.u32_at(RESPONSE_LEN_AT) as usize);
        let Some(at) = self.labels() else { return [vector, 0, 0, prompt, response, 0, 0, 0] };
        let (scope, tags) = (usize::from(self.u16_at(at)), usize::from(self.u16_at(at + 2)));
        let (context, meta) = (self.u32_at(at + 4) as usize, self.u32_at(at + 8) as usize);
        [vector, scope, context, prompt, response, usize::from(self.bytes[at + 12]), tags, meta]
    }

    #[inline]
    pub(super) fn part(&self, number: usize) -> &'a [u8] {
        let mut start = self.parts_at();
        let lengths = self.lengths();
        // Sums of slices are loops, also where the number is known.
        for (at, length) in lengths.into_iter().enumerate() {
            if at == number {
                return &self.bytes[start..start + length];
            }
            start += length;
        }
        &[]
    }

    /// Dimension of the vector; 0 without one.
    pub fn dim(&self) -> u16 {
        self.u16_at(2)
    }

    /// Dimension of what it was stored with: an embedding may keep its numbers in the response's place.
    pub fn vector_dim(&self) -> u32 {
        match self.dim() {
            0 if self.is_embedding() => (self.kept_response().len() / size_of::<f32>()) as u32,
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
    pub fn response(&self) -> Cow<'a, [u8]> {
        if !self.is_packed() {
            return Cow::Borrowed(self.kept_response());
        }
        // What could not be unpacked would not have become an entry.
        let text = unpack_text(self.kept_response(), limits::PACKED_TEXT_MAX_BYTES);
        Cow::Owned(text.unwrap_or_default())
    }

    /// How long the response is.
    pub fn response_len(&self) -> usize {
        let kept = self.kept_response();
        if self.is_packed() { packed_text_len(kept).unwrap_or(0) } else { kept.len() }
    }

    /// Whether the response is packed.
    pub fn is_packed(&self) -> bool {
        self.has(PACKED)
    }

    /// The response as it is kept, packed or not; of an embedding its norm or numbers, which never are.
    pub fn kept_response(&self) -> &'a [u8] {
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

    /// Length of the whole entry, by its header and groups.
    #[inline]
    pub fn whole_len(&self) -> usize {
        let [vector, scope, context, prompt, response, name, tags, meta] = self.lengths();
        self.parts_at() + (vector + prompt + response) + (scope + context + name + tags + meta)
    }
}
