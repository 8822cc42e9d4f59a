//! Small tables of a session: roles by name, messages by id and by call.
//!
//! Owns: what finds a message by something else than its place. Nothing of it is saved.

use super::message::LinkKind;
use super::record::Record;
use crate::allocation::allocated_bytes;
use crate::error::Error;
use crate::limits;
use crate::work::count_path;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Roles every session knows. The order is of memory only; saved bytes spell roles out.
const KNOWN: [&[u8]; 8] =
    [b"user", b"assistant", b"system", b"tool", b"developer", b"function", b"human", b"ai"];

/// The role whose messages begin turns.
pub(super) const USER: u8 = 0;

/// Names of roles, as numbers below 128.
#[derive(Debug, Clone, Default)]
pub(super) struct Roles {
    own: Vec<Box<[u8]>>,
}

impl Roles {
    pub(super) fn find(&self, role: &[u8]) -> Option<u8> {
        let known = KNOWN.iter().position(|known| *known == role);
        let own = || self.own.iter().position(|own| **own == *role).map(|at| at + KNOWN.len());
        known.or_else(own).map(|number| number as u8)
    }

    /// The number of a role; new ones are added. Whether there is room was checked.
    pub(super) fn number(&mut self, role: &[u8]) -> u8 {
        self.find(role).unwrap_or_else(|| {
            self.own.push(role.into());
            (KNOWN.len() + self.own.len() - 1) as u8
        })
    }

    pub(super) fn name(&self, number: u8) -> &[u8] {
        let number = usize::from(number);
        KNOWN.get(number).copied().unwrap_or_else(|| &self.own[number - KNOWN.len()])
    }

    /// Refuses roles that would make too many.
    pub(super) fn check_room<'r>(
        &self,
        roles: impl Iterator<Item = &'r [u8]>,
    ) -> Result<(), Error> {
        let mut new: Vec<&[u8]> = Vec::new();
        for role in roles {
            if self.find(role).is_none() && !new.contains(&role) {
                new.push(role);
            }
        }
        let total = self.own.len() + new.len();
        if total > limits::SESSION_ROLES_MAX {
            let max = limits::SESSION_ROLES_MAX;
            return Err(Error::too_big("the session", total, max, "roles of its own"));
        }
        Ok(())
    }

    /// The roles of a list as a set of bits; unknown ones have no message.
    pub(super) fn mask(&self, names: Option<&[&[u8]]>) -> u128 {
        let bit = |name: &&[u8]| self.find(name).map_or(0, |number| 1 << number);
        names.map_or(u128::MAX, |names| names.iter().map(bit).fold(0, |mask, bit| mask | bit))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        allocated_bytes(self.own.capacity() * size_of::<Box<[u8]>>())
            + self.own.iter().map(|own| allocated_bytes(own.len())).sum::<usize>()
    }
}

/// Messages of a segment: places that agree in all but so many bits.
const SEGMENT_BITS: u32 = 16;

/// Messages by a text of theirs, kept as a hash and the place. The hash is kept because computing it
/// again for all of a growing table would look up every message.
#[derive(Debug, Clone, Default)]
struct ByText(HashTable<(u32, u32)>);

impl ByText {
    /// The table wants all 64 bits to vary.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn insert(&mut self, hash: u32, seq: u32) {
        self.0.insert_unique(Self::spread(hash), (hash, seq), |&(hash, _)| Self::spread(hash));
    }

    fn candidates(&self, hash: u32) -> impl Iterator<Item = u32> {
        let same = self.0.iter_hash(Self::spread(hash));
        same.filter(move |(other, _)| *other == hash).map(|&(_, seq)| seq)
    }

    fn remove(&mut self, hash: u32, seq: u32) {
        if let Ok(found) = self.0.find_entry(Self::spread(hash), |&(_, other)| other == seq) {
            found.remove();
        }
    }

    fn shrink(&mut self) {
        if self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to_fit(|&(hash, _)| Self::spread(hash));
        }
    }

    fn heap_bytes(&self) -> usize {
        allocated_bytes(self.0.allocation_size())
    }
}

/// What finds the messages of neighbouring places. Shared by a session and its forks until one of them changes it.
#[derive(Debug, Clone, Default)]
struct Segment {
    ids: ByText,
    /// Messages that call a tool, in order of the call's hash and of their places: many may make the same call.
    calls: BTreeSet<(u32, u32)>,
}

impl Segment {
    fn len(&self) -> usize {
        self.ids.0.len() + self.calls.len()
    }

    fn heap_bytes(&self) -> usize {
        allocated_bytes(size_of::<Self>() + 2 * size_of::<usize>())
            + self.ids.heap_bytes()
            + self.calls.len() * CALL_BYTES
    }
}

/// Memory of a call in its set, whose nodes are two thirds full.
const CALL_BYTES: usize = 14;

/// What finds messages in large sessions. An entry may outlive its message for a while: whoever looks one up
/// compares the text. It is made of segments so that none of them takes long to copy or to grow.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    /// By the upper bits of the places, in order.
    segments: Vec<(u32, Arc<Segment>)>,
    hasher: DefaultHashBuilder,
}

impl Tables {
    fn hash(&self, text: &[u8]) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    fn place(&self, seq: u32) -> Result<usize, usize> {
        self.segments.binary_search_by_key(&(seq >> SEGMENT_BITS), |&(number, _)| number)
    }

    fn segment(&mut self, seq: u32) -> &mut Segment {
        let place = self.place(seq).unwrap_or_else(|place| {
            self.segments.insert(place, (seq >> SEGMENT_BITS, Arc::default()));
            place
        });
        Arc::make_mut(&mut self.segments[place].1)
    }

    /// Makes a message findable.
    pub(super) fn insert(&mut self, seq: u32, record: &Record<'_>) {
        if let Some(id) = record.id() {
            let hash = self.hash(&id);
            self.segment(seq).ids.insert(hash, seq);
        }
        if let Some(link) = record.link().filter(|link| link.kind == LinkKind::Call) {
            let hash = self.hash(&link.id);
            self.segment(seq).calls.insert((hash, seq));
        }
    }

    /// The reverse.
    pub(super) fn remove(&mut self, seq: u32, record: &Record<'_>) {
        if let Some(id) = record.id() {
            let hash = self.hash(&id);
            self.segment(seq).ids.remove(hash, seq);
        }
        if let Some(link) = record.link().filter(|link| link.kind == LinkKind::Call) {
            let hash = self.hash(&link.id);
            self.segment(seq).calls.remove(&(hash, seq));
        }
    }

    /// Messages that may have this id, newer segments first.
    pub(super) fn with_id(&self, id: &[u8]) -> impl Iterator<Item = u32> {
        let hash = self.hash(id);
        count_path(self.segments.len());
        self.segments.iter().rev().flat_map(move |(_, segment)| segment.ids.candidates(hash))
    }

    /// Messages before a place that may make this call, the last first.
    pub(super) fn with_call(&self, call: &[u8], before: u32) -> impl Iterator<Item = u32> {
        let hash = self.hash(call);
        let end = self.place(before).map_or_else(|place| place, |place| place + 1);
        self.segments[..end].iter().rev().flat_map(move |(_, segment)| {
            segment.calls.range((hash, 0)..(hash, before)).rev().map(|&(_, seq)| seq)
        })
    }

    /// The segments, in order: their first place, and how many entries they have.
    pub(super) fn sizes(&self) -> Vec<(u32, usize)> {
        let size =
            |(number, segment): &(u32, Arc<Segment>)| (number << SEGMENT_BITS, segment.len());
        self.segments.iter().map(size).collect()
    }

    /// Lets go of the segment of a place, to be filled again.
    pub(super) fn empty(&mut self, seq: u32) {
        if let Ok(place) = self.place(seq) {
            self.segments.remove(place);
        }
    }

    pub(super) fn shrink(&mut self) {
        for (_, segment) in &mut self.segments {
            if let Some(own) = Arc::get_mut(segment) {
                own.ids.shrink();
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        allocated_bytes(size_of::<Self>())
            + allocated_bytes(self.segments.capacity() * size_of::<(u32, Arc<Segment>)>())
            + self.segments.iter().map(|(_, segment)| segment.heap_bytes()).sum::<usize>()
    }
}

/// Places after the last of a segment.
pub(super) const fn segment_end(first: u32) -> u32 {
    first.saturating_add((1 << SEGMENT_BITS) - 1).saturating_add(1)
}
