//! A block: a run of neighbouring messages in one allocation, with their vectors in another.
//!
//! Owns: how records lie in a block and how it grows. Must not know ids, roles' names, streams.

use super::message::{Message, Status};
use super::record::{self, FLAG_ESTIMATED, FLAG_PINNED, FLAG_VECTOR, Head, Record};
use crate::allocation::allocated_bytes;
use crate::work::count_bytes;
use thin_vec::ThinVec;

/// A block takes no further record past this, so that the edges of a window cost little to find.
/// Full blocks fill an allocation class.
pub(super) const BLOCK_BYTES: usize = 8_192;

/// Sums over the messages of a block, so that whole blocks come and go without a look at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) tokens: u64,
    pub(super) payload_bytes: u32,
    pub(super) messages: u16,
    pub(super) estimated: u16,
    pub(super) vectors: u16,
    pub(super) pinned: u16,
    pub(super) open: u16,
}

impl Sums {
    fn add(&mut self, record: &Record<'_>) {
        self.tokens += u64::from(record.tokens);
        self.payload_bytes += record.payload.len() as u32;
        self.messages += 1;
        self.estimated += u16::from(record.has(FLAG_ESTIMATED));
        self.vectors += u16::from(record.has(FLAG_VECTOR));
        self.pinned += u16::from(record.has(FLAG_PINNED));
        self.open += u16::from(record.status() == Status::Open);
    }

    /// Messages that are not pinned.
    pub(super) fn unpinned(&self) -> u64 {
        u64::from(self.messages - self.pinned)
    }
}

/// Messages next to each other. Never empty within a session. Shared by a session and its forks until one of
/// them changes it.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Place of its first message when it was made; records count from it.
    pub(super) base: u32,
    pub(super) sums: Sums,
    bytes: Vec<u8>,
    vectors: ThinVec<u8>,
}

/// A record and where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'b> {
    pub(super) at: u32,
    /// Number of its vector in the block, if it has one.
    pub(super) vector: Option<u32>,
    pub(super) record: Record<'b>,
}

impl Block {
    pub(super) fn new(base: u32) -> Self {
        Self { base, sums: Sums::default(), bytes: Vec::new(), vectors: ThinVec::new() }
    }

    /// Whether a record of `bytes` belongs in a block of its own.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        self.sums.messages > 0 && self.bytes.len() + bytes > BLOCK_BYTES
    }

    /// Appends a record as `record::encode` made it.
    pub(super) fn push(&mut self, encoded: &[u8], vector: Option<&[u8]>) {
        self.sums.add(&Record::parse(encoded, 0).0);
        let needed = self.bytes.len() + encoded.len();
        if needed > self.bytes.capacity() {
            // Classes of the allocator lie an eighth to a quarter apart: growth enough.
            let wanted = if needed <= BLOCK_BYTES { allocated_bytes(needed) } else { needed };
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(encoded);
        if let Some(vector) = vector {
            self.vectors.reserve_exact(vector.len());
            self.vectors.extend_from_slice(vector);
        }
    }

    /// Whether edits made it so large that it should be several.
    pub(super) fn is_oversized(&self) -> bool {
        self.sums.messages > 1 && self.bytes.len() > 2 * BLOCK_BYTES
    }

    /// Gives back room that would stay unused, once no more is to come.
    pub(super) fn seal(&mut self) {
        if allocated_bytes(self.bytes.len()) < allocated_bytes(self.bytes.capacity()) {
            self.bytes.shrink_to_fit();
        }
    }

    pub(super) fn records(&self) -> Records<'_> {
        Records { bytes: &self.bytes, at: 0, vectors: 0 }
    }

    /// The fronts of all records, first to last.
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= self.bytes.len() {
                return None;
            }
            let (head, next) = Head::parse(&self.bytes, at, self.base);
            at = next;
            Some(head)
        })
    }

    /// The record at a place that `records` answered.
    pub(super) fn record(&self, at: u32) -> Record<'_> {
        Record::parse(&self.bytes, at as usize).0
    }

    pub(super) fn head(&self, at: u32) -> Head {
        Head::parse(&self.bytes, at as usize, self.base).0
    }

    /// The record of a message.
    pub(super) fn find(&self, seq: u32) -> Option<Placed<'_>> {
        self.records()
            .find(|placed| self.base + placed.record.distance >= seq)
            .filter(|placed| self.base + placed.record.distance == seq)
    }

    /// A vector of the width all of the session have.
    pub(super) fn vector(&self, number: u32, width: usize) -> &[u8] {
        let start = number as usize * width;
        &self.vectors[start..start + width]
    }

    /// The vector of the record at `at`.
    pub(super) fn vector_at(&self, at: u32, width: usize) -> Option<&[u8]> {
        if !Record::parse(&self.bytes, at as usize).0.has(FLAG_VECTOR) {
            return None;
        }
        let before = self.heads().take_while(|head| head.at < at);
        let number = before.filter(|head| head.has(FLAG_VECTOR)).count() as u32;
        Some(self.vector(number, width))
    }

    /// Writes the block again, each record as `decide` says.
    pub(super) fn rewrite(&mut self, width: usize, mut decide: impl FnMut(&Placed<'_>) -> Rewrite) {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut vectors = ThinVec::new();
        let mut sums = Sums::default();
        let mut records = self.records();
        while let Some(placed) = records.next() {
            let end = records.at;
            let old = placed.vector.map(|number| self.vector(number, width));
            match decide(&placed) {
                Rewrite::Drop => continue,
                Rewrite::Keep => {
                    bytes.extend_from_slice(&self.bytes[placed.at as usize..end]);
                    vectors.extend_from_slice(old.unwrap_or_default());
                    sums.add(&placed.record);
                }
                Rewrite::Put { encoded, vector } => {
                    sums.add(&Record::parse(&encoded, 0).0);
                    bytes.extend_from_slice(&encoded);
                    vectors.extend_from_slice(vector.as_deref().unwrap_or_default());
                }
            }
        }
        count_bytes(self.bytes.len() + self.vectors.len());
        (self.bytes, self.vectors, self.sums) = (bytes, vectors, sums);
        self.seal();
    }

    /// Memory of the block and behind it.
    pub(super) fn heap_bytes(&self) -> usize {
        let vectors = self.vectors.capacity();
        let header = if vectors > 0 { 2 * size_of::<usize>() } else { 0 };
        // With the two counts of what is shared.
        allocated_bytes(size_of::<Self>() + 2 * size_of::<usize>())
            + allocated_bytes(self.bytes.capacity())
            + allocated_bytes(vectors + header)
    }
}

/// What becomes of a record.
#[derive(Debug)]
pub(super) enum Rewrite {
    Keep,
    Drop,
    Put { encoded: Vec<u8>, vector: Option<Vec<u8>> },
}

impl Rewrite {
    /// A message in the place of another.
    pub(super) fn put(message: &Message<'_>, role: u8, base: u32) -> Self {
        let mut encoded = Vec::new();
        record::encode(message, role, base, &mut encoded);
        Self::Put { encoded, vector: message.vector.as_deref().map(<[u8]>::to_vec) }
    }
}

/// The records of a block, first to last.
#[derive(Debug, Clone)]
pub(super) struct Records<'b> {
    bytes: &'b [u8],
    at: usize,
    vectors: u32,
}

impl<'b> Iterator for Records<'b> {
    type Item = Placed<'b>;

    fn next(&mut self) -> Option<Placed<'b>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let (record, next) = Record::parse(self.bytes, self.at);
        let vector = record.has(FLAG_VECTOR).then_some(self.vectors);
        self.vectors += u32::from(vector.is_some());
        let placed = Placed { at: self.at as u32, vector, record };
        self.at = next;
        Some(placed)
    }
}
