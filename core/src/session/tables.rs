//! Small tables of a session: roles by name, messages by id.
//!
//! Owns: what finds a message by something else than its place. Nothing of it is saved.

use super::message::LinkKind;
use super::record::Record;
use crate::error::{Error, Result};
use crate::limits;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

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
    pub(super) fn check_room<'r>(&self, roles: impl Iterator<Item = &'r [u8]>) -> Result<()> {
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
        use crate::allocation::allocated_bytes;
        allocated_bytes(self.own.capacity() * size_of::<Box<[u8]>>())
            + self.own.iter().map(|own| allocated_bytes(own.len())).sum::<usize>()
    }
}

/// Messages by a text of theirs, kept as a hash and the place. The hash is kept because computing it
/// again for all of a growing table would look up every message.
#[derive(Debug, Clone, Default)]
pub(super) struct ByText {
    table: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl ByText {
    fn hash(&self, text: &[u8]) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    /// The table wants all 64 bits to vary.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn insert(&mut self, text: &[u8], seq: u32) {
        let hash = self.hash(text);
        self.table.insert_unique(Self::spread(hash), (hash, seq), |&(hash, _)| Self::spread(hash));
    }

    /// Messages that may have this text.
    pub(super) fn candidates(&self, text: &[u8]) -> impl Iterator<Item = u32> {
        let hash = self.hash(text);
        self.table
            .iter_hash(Self::spread(hash))
            .filter(move |(other, _)| *other == hash)
            .map(|&(_, seq)| seq)
    }

    pub(super) fn remove(&mut self, text: &[u8], seq: u32) {
        let hash = self.hash(text);
        if let Ok(found) = self.table.find_entry(Self::spread(hash), |&(_, other)| other == seq) {
            found.remove();
        }
    }

    pub(super) fn shrink(&mut self) {
        if self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to_fit(|&(hash, _)| Self::spread(hash));
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        crate::allocation::allocated_bytes(self.table.allocation_size())
    }
}

/// What finds messages in large sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) ids: ByText,
    /// Messages that call a tool, by the id of the call.
    pub(super) calls: ByText,
}

impl Tables {
    pub(super) fn insert(&mut self, seq: u32, record: &Record<'_>) {
        if let Some(id) = record.id() {
            self.ids.insert(&id, seq);
        }
        if let Some(link) = record.link().filter(|link| link.kind == LinkKind::Call) {
            self.calls.insert(&link.id, seq);
        }
    }

    pub(super) fn remove(&mut self, seq: u32, record: &Record<'_>) {
        if let Some(id) = record.id() {
            self.ids.remove(&id, seq);
        }
        if let Some(link) = record.link().filter(|link| link.kind == LinkKind::Call) {
            self.calls.remove(&link.id, seq);
        }
    }
}
