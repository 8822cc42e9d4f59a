//! One namespace: identity, settings, the prefix tree, leases, counters.
//!
//! Owns: how chunk keys are named, the head section that RDB and the create command share. Main
//! thread; `save_head` also in the forked child.

use super::{ChunkDigest, Leases, NamespaceSettings, PrefixTree, root};
use crate::account::{Account, Count};
use crate::allocation::allocated_bytes;
use crate::cluster::{derived_prefix, hash_tag};
use crate::codec::{DecodeError, Writer, open_section};
use crate::error::Result;
use crate::ids::ContainerUid;
use crate::limits;
use smallvec::SmallVec;

/// Section tag of a namespace's head.
pub const TAG_NAMESPACE: u16 = 0x0301;
const VERSION: u16 = 1;

/// Name of a chunk's key.
pub type ChunkKey = SmallVec<[u8; 128]>;

/// What stands between the namespace's name and the digest.
const SEPARATOR: &[u8] = b"@";

/// What a namespace did since the process started.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvStats {
    /// Chunks stored.
    pub stored: u64,
    /// Chunks that were there already.
    pub exists: u64,
    /// Chunks refused.
    pub rejected: u64,
    /// Chunks evicted by BUDGET or the share of all namespaces.
    pub evicted: u64,
    /// MATCH commands.
    pub matches: u64,
    /// FETCH commands.
    pub fetches: u64,
    /// Chunks asked for by MATCH and FETCH.
    pub asked: u64,
    /// Chunks of leading runs they found.
    pub matched: u64,
    /// Payload bytes answered.
    pub bytes_out: u64,
    /// Payload bytes stored.
    pub bytes_in: u64,
    /// Chunks that VERIFY found damaged.
    pub damaged: u64,
}

/// What all namespaces together have and did. What they did only grows.
#[derive(Debug, Default)]
pub struct KvTotals {
    /// Chunks, their bytes, those of their payloads, leases.
    pub held: Account<4>,
    /// Chunks asked for by MATCH and FETCH.
    pub asked: Count,
    /// Chunks of leading runs they found.
    pub matched: Count,
    /// Chunks evicted by BUDGET or the share of all namespaces.
    pub evicted: Count,
}

impl KvTotals {
    /// All zero.
    pub const fn new() -> Self {
        let (asked, matched, evicted) = (Count::new(), Count::new(), Count::new());
        Self { held: Account::new(), asked, matched, evicted }
    }
}

/// A namespace.
#[derive(Debug)]
pub struct Namespace {
    uid: ContainerUid,
    prefix: Box<[u8]>,
    fingerprint: [u8; 32],
    settings: NamespaceSettings,
    /// Which chunks are there.
    pub tree: PrefixTree,
    /// Leases on them.
    pub leases: Leases,
    /// Its counters.
    pub stats: KvStats,
    /// Where the next VERIFY goes on.
    pub verify_at: u32,
    /// Where the next round over its chunks goes on.
    pub round_at: u32,
    totals: Option<&'static KvTotals>,
}

impl Namespace {
    /// A new namespace under a key name; refuses names whose chunk keys could not share its slot.
    pub fn new(name: &[u8], uid: ContainerUid, settings: NamespaceSettings) -> Result<Self> {
        let prefix = derived_prefix(name, SEPARATOR, "namespace")?.into();
        Ok(Self::empty(uid, prefix, settings))
    }

    fn empty(uid: ContainerUid, prefix: Box<[u8]>, settings: NamespaceSettings) -> Self {
        let (fingerprint, tree) = (settings.fingerprint(), PrefixTree::default());
        let (leases, stats) = (Leases::default(), KvStats::default());
        let (verify_at, round_at, totals) = (0, 0, None);
        Self {
            uid,
            prefix,
            fingerprint,
            settings,
            tree,
            leases,
            stats,
            verify_at,
            round_at,
            totals,
        }
    }

    /// Counts with all others from here on.
    pub fn count_with(&mut self, totals: &'static KvTotals) {
        self.totals = Some(totals);
        self.tree.open_account(&totals.held);
        self.leases.open_account(&totals.held);
    }

    /// What it has counts no more.
    pub fn count_alone(&mut self) {
        self.tree.close_account();
        self.leases.close_account();
    }

    /// Counts chunks that were asked for, and those of them that were found.
    pub fn note_asked(&mut self, asked: u64, matched: u64) {
        self.stats.asked += asked;
        self.stats.matched += matched;
        if let Some(totals) = self.totals {
            totals.asked.add(asked);
            totals.matched.add(matched);
        }
    }

    /// Counts chunks that were evicted.
    pub fn note_evicted(&mut self, evicted: u64) {
        self.stats.evicted += evicted;
        if let Some(totals) = self.totals {
            totals.evicted.add(evicted);
        }
    }

    /// Identity of this life of the namespace.
    pub fn uid(&self) -> ContainerUid {
        self.uid
    }

    /// Its settings.
    pub fn settings(&self) -> &NamespaceSettings {
        &self.settings
    }

    /// What its chunks' headers must say.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether its chunks are named after a key of this name, as they are unless it was renamed.
    pub fn is_named_after(&self, name: &[u8]) -> bool {
        derived_prefix(name, SEPARATOR, "namespace").is_ok_and(|prefix| *prefix == *self.prefix)
    }

    /// What every chunk key begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Changes the budget.
    pub fn set_budget(&mut self, bytes: u64) {
        self.settings.budget_bytes = bytes;
    }

    /// The key of a chunk.
    pub fn chunk_key(&self, digest: &ChunkDigest) -> ChunkKey {
        let mut key = ChunkKey::from_slice(&self.prefix);
        digest.write_hex(&mut key);
        key
    }

    /// What the first chunk of a prompt is chained to; without a salt the namespace's counts.
    pub fn root(&self, salt: Option<&[u8]>) -> [u8; 32] {
        root(&self.fingerprint, salt.unwrap_or(&self.settings.salt))
    }

    /// Gives it another identity and an empty tree: a second copy of a namespace must not claim the
    /// chunks of the first. A name that cannot prefix keys leaves the former one in them.
    pub fn become_other(&mut self, name: &[u8], uid: ContainerUid) {
        if let Ok(prefix) = derived_prefix(name, SEPARATOR, "namespace") {
            self.prefix = prefix.into();
        }
        self.uid = uid;
        self.clear();
    }

    /// Takes over the tree of a namespace of the same chunks, where this one has none: what was known before its key
    /// came, or before its key went. Returns whether it did.
    pub fn take_entries_of(&mut self, other: &mut Self) -> bool {
        let fits = self.tree.chunks() == 0
            && self.uid == other.uid
            && self.prefix == other.prefix
            && self.fingerprint == other.fingerprint;
        if fits {
            other.count_alone();
            std::mem::swap(&mut self.tree, &mut other.tree);
            std::mem::swap(&mut self.leases, &mut other.leases);
        }
        fits
    }

    /// Parts with its tree: its key moves to another database, where none of its chunks is. What it returns waits for it
    /// to come back, with the chunks that stay (`take_entries_of`).
    pub fn leave_entries(&mut self) -> Self {
        let mut left = Self::empty(self.uid, self.prefix.clone(), self.settings.clone());
        self.count_alone();
        std::mem::swap(&mut left.tree, &mut self.tree);
        std::mem::swap(&mut left.leases, &mut self.leases);
        left
    }

    /// Forgets all chunks.
    pub fn clear(&mut self) {
        self.tree.clear();
        self.leases.clear();
    }

    /// Tells the tree how many chunks fit into `room` bytes (0: as many as there are).
    pub fn adapt_to(&mut self, room: u64) {
        let chunks = self.tree.chunks();
        let mean = self.tree.chunk_bytes() / chunks.max(1);
        let fit = if room == 0 || mean == 0 { chunks } else { room / mean };
        self.tree.set_capacity(fit);
    }

    /// Memory behind the namespace itself, chunks not counted.
    pub fn heap_bytes(&self) -> usize {
        let texts = [&self.settings.model, &self.settings.format, &self.settings.salt];
        allocated_bytes(self.prefix.len())
            + texts.iter().map(|text| allocated_bytes(text.len())).sum::<usize>()
            + self.tree.heap_bytes()
            + self.leases.bytes()
    }

    /// Identity and settings as one section.
    pub fn save_head(&self) -> Vec<u8> {
        let mut out = Writer::section(TAG_NAMESPACE, VERSION);
        out.u64(self.uid.0).bytes(&self.prefix);
        self.settings.write(&mut out);
        out.finish()
    }

    /// A namespace without chunks from a head; hostile bytes are refused.
    pub fn load_head(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if (tag, version) != (TAG_NAMESPACE, VERSION) {
            return Err(DecodeError("not a namespace of a known version"));
        }
        let uid = ContainerUid(from.u64()?);
        let prefix: Box<[u8]> = from.bytes(2 * limits::CONTAINER_NAME_MAX_BYTES)?.into();
        let settings = NamespaceSettings::read(&mut from)?;
        from.finish()?;
        let named = prefix.strip_suffix(SEPARATOR).is_some_and(|name| !name.is_empty());
        if !named || hash_tag(&prefix).is_none() {
            return Err(DecodeError("identity of a namespace"));
        }
        Ok(Self::empty(uid, prefix, settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::key_slot;

    #[test]
    fn chunk_keys_share_the_slot_of_their_namespace() {
        let digest = ChunkDigest::from_bytes(&[0xab, 1]).unwrap();
        for name in [&b"vllm@llama-3.1-8b@1@0"[..], b"a{b}@c", b"\x00\xff", b"a{b"] {
            let settings = NamespaceSettings::default();
            let namespace = Namespace::new(name, ContainerUid(1), settings).unwrap();
            assert_eq!(key_slot(name), key_slot(&namespace.chunk_key(&digest)), "{name:?}");
            assert!(namespace.chunk_key(&digest).ends_with(b"@ab01"));
        }
        for name in [&b""[..], b"a}b", b"{}", b"}{"] {
            let settings = NamespaceSettings::default();
            assert!(Namespace::new(name, ContainerUid(1), settings).is_err(), "{name:?}");
        }
    }

    #[test]
    fn head_round_trips_and_refuses_every_flipped_bit() {
        let settings = NamespaceSettings { model: (*b"m").into(), ..NamespaceSettings::default() };
        let namespace = Namespace::new(b"ns", ContainerUid(5), settings).unwrap();
        let head = namespace.save_head();
        let loaded = Namespace::load_head(&head).unwrap();
        assert_eq!(loaded.uid(), ContainerUid(5));
        assert_eq!(loaded.settings(), namespace.settings());
        assert_eq!(loaded.prefix(), b"{ns}@");
        for bit in 0..head.len() * 8 {
            let mut bad = head.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Namespace::load_head(&bad).is_err(), "bit {bit}");
        }
    }
}
