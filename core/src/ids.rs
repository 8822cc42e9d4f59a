//! Identities: container uid, entry id, sequence, time. Newtypes, so that none passes for another.
//!
//! Owns: their forms in memory, in hex and in key names. Any thread.

use sha2::{Digest, Sha256};
use std::fmt;

/// Identity of one life of a container. A container deleted and created again under its old name
/// has another uid, so entries of the former life can never answer for the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ContainerUid(pub u64);

impl fmt::Display for ContainerUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A container's store counter: each stored entry takes the next. Never reused within a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

/// Milliseconds since the Unix epoch. Zero as a deadline means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// No deadline.
    pub const NEVER: Self = Self(0);

    /// Whether this deadline lies at or before `now`. `NEVER` does not.
    pub fn is_past(self, now: Self) -> bool {
        self.0 != 0 && self.0 <= now.0
    }
}

/// Milliseconds of a clock that only goes forward, from an origin that means nothing: what leases, breakers and waits are
/// measured by, so that setting the server's clock neither holds nor ends them. It is never saved or sent, and there is
/// no conversion from or to `UnixMs`:
///
/// ```compile_fail
/// use llmcache_core::cache::{Flights, LeaseToken};
/// use llmcache_core::ids::UnixMs;
/// Flights::default().extend(LeaseToken(1), UnixMs(5));
/// ```
///
/// ```
/// use llmcache_core::cache::{Flights, LeaseToken};
/// use llmcache_core::ids::MonotonicMs;
/// Flights::default().extend(LeaseToken(1), MonotonicMs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// No deadline.
    pub const NEVER: Self = Self(0);

    /// Whether this deadline lies at or before `now`. `NEVER` does not.
    pub fn is_past(self, now: Self) -> bool {
        self.0 != 0 && self.0 <= now.0
    }

    /// So many milliseconds later.
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `now` until this time; 0 where it is past.
    pub fn left(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0)
    }
}

/// Digest of scope, context and prompt: the name of an entry unless the caller gave one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryId(pub [u8; 16]);

impl EntryId {
    /// First 128 bits of SHA-256 over the length-prefixed scope, context and prompt; a prefix is the
    /// byte length as an unsigned 32-bit little-endian number, so that a prompt of a hundred bytes
    /// takes two blocks of the hash. `docs/formats.md` has test vectors.
    pub fn of(scope: &[u8], context: &[u8], prompt: &[u8]) -> Self {
        Self::half_of(&digest_of(&[scope, context, prompt]))
    }

    /// The first half of a digest of 32 bytes.
    pub(crate) fn half_of(digest: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// 32 lower-case hex digits.
    pub fn hex(self) -> [u8; 32] {
        let mut out = [0u8; 32];
        for (pair, byte) in out.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = HEX_PAIRS[usize::from(byte)];
        }
        out
    }

    /// The inverse of `hex`; `None` unless the text is 32 lower-case hex digits.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hex()).unwrap_or("?"))
    }
}

/// The digits of each byte: every look-up writes the id of an entry, or the digests of chunks.
pub(crate) static HEX_PAIRS: [[u8; 2]; 256] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Bytes as lower-case hex digits.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|&byte| HEX_PAIRS[usize::from(byte)]).map(char::from).collect()
}

/// Reads exactly so many bytes written as lower-case hex digits.
pub(crate) fn from_hex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// SHA-256 over parts, each behind its length. Parts are bounded by `limits`, far below 4 GiB.
fn digest_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Digest of a text under an embedding model: what an embedding is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EmbeddingDigest(pub [u8; 32]);

impl EmbeddingDigest {
    /// SHA-256 over the length-prefixed model and text; a prefix is as in [`EntryId::of`].
    /// `docs/formats.md` has test vectors.
    pub fn of(model: &[u8], text: &[u8]) -> Self {
        Self(digest_of(&[model, text]))
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The id of its entry: the first half, which no second hash is computed for.
    pub fn entry_id(&self) -> EntryId {
        EntryId::half_of(&self.0)
    }
}

/// Identity of a scope inside a container: 40 bits of SHA-256, 0 for the empty scope. Of a million
/// scopes two may meet in one key about every second time: what that leads to is checked with the
/// full scope of the entries themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ScopeKey(pub u64);

impl ScopeKey {
    /// The key of a scope; the empty one costs no hash.
    pub fn of(scope: &[u8]) -> Self {
        Self(prefix_of(scope) & ((1 << SCOPE_BITS) - 1))
    }
}

const SCOPE_BITS: u32 = 40;

/// First 8 bytes of SHA-256 of a length-prefixed part; 0 for the empty part, which costs no hash.
fn prefix_of(part: &[u8]) -> u64 {
    if part.is_empty() {
        return 0;
    }
    let mut prefix = [0u8; 8];
    prefix.copy_from_slice(&digest_of(&[part])[..8]);
    u64::from_le_bytes(prefix)
}

/// Identity of the pair (scope, context) inside a container: the scope's key in the low 40 bits, 24
/// bits of SHA-256 of the context above them. Entries are compared with the full scope and context when
/// opened, so two pairs that met in one key would share a scan, never an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PartitionKey(pub u64);

impl PartitionKey {
    /// The partition of a scope and a context; the pair of empty strings is key 0 and costs no hash.
    pub fn of(scope: &[u8], context: &[u8]) -> Self {
        Self(ScopeKey::of(scope).0 | prefix_of(context) << SCOPE_BITS)
    }

    /// The scope it belongs to.
    pub fn scope(self) -> ScopeKey {
        ScopeKey(self.0 & ((1 << SCOPE_BITS) - 1))
    }
}

/// Place of an entry in its container's index. Local to one process: never compared across servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

impl From<u32> for SlotId {
    fn from(row: u32) -> Self {
        Self(row)
    }
}

impl SlotId {
    /// The entry is in no index.
    pub const NONE: Self = Self(u32::MAX);
}
