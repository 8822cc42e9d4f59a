//! Names of chunks: the digest chain over tokens, and digests given by callers.
//!
//! Owns: the definition that `docs/formats.md` publishes. Any thread.

use crate::ids::HEX_PAIRS;
use crate::limits;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use std::fmt;

/// Bytes of a token in a token blob: an unsigned number, little-endian.
pub const TOKEN_BYTES: usize = 4;

/// Name of a chunk: a digest of our chain, or 1 to 64 bytes of the caller's own.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkDigest(SmallVec<[u8; 32]>);

impl Clone for ChunkDigest {
    /// In one piece, which the clone of a `SmallVec` is not.
    fn clone(&self) -> Self {
        Self(SmallVec::from_slice(&self.0))
    }
}

impl ChunkDigest {
    /// A digest from its bytes; `None` unless there are 1 to 64.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=limits::DIGEST_MAX_BYTES)
            .contains(&bytes.len())
            .then(|| Self(SmallVec::from_slice(bytes)))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hex digits, as key names, arguments and replies have it.
    pub fn hex(&self) -> String {
        let mut digits = SmallVec::<[u8; 2 * limits::DIGEST_MAX_BYTES]>::new();
        self.write_hex(&mut digits);
        String::from_utf8_lossy(&digits).into_owned()
    }

    /// Appends them to a key.
    pub fn write_hex(&self, out: &mut SmallVec<[u8; 128]>) {
        let mut digits = [[0; 2]; limits::DIGEST_MAX_BYTES];
        let bytes = self.0.as_slice();
        for (pair, &byte) in digits.iter_mut().zip(bytes) {
            *pair = HEX_PAIRS[usize::from(byte)];
        }
        out.extend_from_slice(digits[..bytes.len()].as_flattened());
    }

    /// The inverse of `hex`; `None` for anything but lower-case hex digits of 1 to 64 bytes.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if !text.len().is_multiple_of(2) {
            return None;
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let bytes: Option<SmallVec<[u8; 32]>> =
            text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
        Self::from_bytes(&bytes?)
    }
}

impl fmt::Debug for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// What the first chunk's digest is chained to: SHA-256 over fingerprint and salt.
pub fn root(fingerprint: &[u8; 32], salt: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(fingerprint);
    hash.update(salt);
    hash.finalize().into()
}

/// The digests of the whole chunks of a prompt: each is SHA-256 over the one before it (the root for
/// the first) and the chunk's tokens. A trailing partial chunk has none.
pub fn chain(root: [u8; 32], tokens: &[u8], chunk_tokens: u32) -> Vec<ChunkDigest> {
    let mut links = Links::from(root);
    tokens
        .chunks_exact(chunk_tokens as usize * TOKEN_BYTES)
        .map(|chunk| links.link(chunk))
        .collect()
}

/// A chain of digests that is made link by link.
#[derive(Debug, Clone)]
pub struct Links {
    previous: [u8; 32],
}

impl From<[u8; 32]> for Links {
    /// Before the first chunk under a root.
    fn from(root: [u8; 32]) -> Self {
        Self { previous: root }
    }
}

impl Links {
    /// The digest of the chunk that comes next.
    pub fn link(&mut self, chunk: &[u8]) -> ChunkDigest {
        let mut hash = Sha256::new();
        hash.update(self.previous);
        hash.update(chunk);
        self.previous = hash.finalize().into();
        ChunkDigest(SmallVec::from_slice(&self.previous))
    }
}

/// The tokens of one chunk wherever they stand in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// A hash that rolls from one offset of a prompt to the next.
    pub print: u64,
    /// Half of their SHA-256, which decides.
    pub sha: [u8; 16],
}

/// The content name of one chunk's tokens under a root, which stands for fingerprint and salt: equal tokens
/// of two salts have nothing in common.
pub fn content_of(root: &[u8; 32], tokens: &[u8]) -> Content {
    let mut hash = Sha256::new();
    hash.update(root);
    hash.update(tokens);
    let mut sha = [0; 16];
    sha.copy_from_slice(&hash.finalize()[..16]);
    let print = tokens_of(tokens).fold(0, |print, token| add(multiply(print, BASE), token));
    Content { print: print ^ print_key(root), sha }
}

/// What the print of any tokens is changed by under a root.
fn print_key(root: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&root[..8]);
    u64::from_le_bytes(word)
}

/// The prints under a root of all windows of so many tokens of a prompt, one after the other.
#[derive(Debug, Clone)]
pub struct RollingPrint {
    window: usize,
    key: u64,
    /// What the first token of a window counts in it.
    head: u64,
    print: u64,
    /// Tokens that were taken in.
    at: usize,
}

impl RollingPrint {
    /// Before the first token.
    pub fn new(root: &[u8; 32], window: u32) -> Self {
        let head = (1..window).fold(1, |power, _| multiply(power, BASE));
        Self { window: window as usize, key: print_key(root), head, print: 0, at: 0 }
    }

    /// Takes in the next token of the prompt; false at its end.
    pub fn roll(&mut self, tokens: &[u8]) -> bool {
        let Some(token) = token_at(tokens, self.at) else { return false };
        if let Some(gone) = self.at.checked_sub(self.window) {
            let gone = multiply(token_at(tokens, gone).unwrap_or(0), self.head);
            self.print = add(self.print, MODULUS - gone);
        }
        self.print = add(multiply(self.print, BASE), token);
        self.at += 1;
        true
    }

    /// Where the window begins that ends with the last token, and its print; nothing before it is full.
    pub fn window(&self) -> Option<(u32, u64)> {
        let offset = self.at.checked_sub(self.window)?;
        Some((offset as u32, self.print ^ self.key))
    }
}

/// A Mersenne prime, so that reducing is a shift and an addition.
const MODULUS: u64 = (1 << 61) - 1;
const BASE: u64 = 0x1357_9bdf_0246_8ace;

fn add(a: u64, b: u64) -> u64 {
    (a + b) % MODULUS
}

fn multiply(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(MODULUS)) as u64
}

fn token_at(tokens: &[u8], place: usize) -> Option<u64> {
    let word = tokens.as_chunks::<TOKEN_BYTES>().0.get(place)?;
    Some(u64::from(u32::from_le_bytes(*word)) + 1)
}

/// Tokens as numbers, none of them 0, so that leading zeros count.
fn tokens_of(tokens: &[u8]) -> impl Iterator<Item = u64> + '_ {
    tokens.chunks_exact(TOKEN_BYTES).map(|token| {
        let mut word = [0; TOKEN_BYTES];
        word.copy_from_slice(token);
        u64::from(u32::from_le_bytes(word)) + 1
    })
}
