//! Parses the chunks that a command names: `TOKENS blob [SALT s]`, `HASHES n h…`, `PACKED bytes blob` or `DIGESTS n
//! hex…`.

use super::hex_digest;
use crate::command::parse::{ArgReader, OptionWord, set_once};
use crate::ffi::{CommandArgs, HeldString, ServerString};
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{ChunkDigest, Links, Namespace, TOKEN_BYTES};
use llmcache_core::limits;
use std::sync::Arc;

/// The options that name chunks, as far as they were read.
#[derive(Debug, Default)]
pub struct ChainArgs<'a> {
    tokens: Option<&'a [u8]>,
    salt: Option<&'a [u8]>,
    hashes: Option<Arc<[ChunkDigest]>>,
    packed: Option<Packed<'a>>,
}

/// Digests of one length, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Packed<'a> {
    blob: &'a [u8],
    bytes: usize,
}

impl<'a> Packed<'a> {
    fn read(args: &mut ArgReader<'a>, name: &str) -> Result<Self> {
        let bytes = args.integer(name, 1, limits::DIGEST_MAX_BYTES as u64)? as usize;
        let blob = args.text(name, limits::CHUNKS_MAX * limits::DIGEST_MAX_BYTES)?;
        let count = blob.len() / bytes;
        if count == 0 || !blob.len().is_multiple_of(bytes) {
            return Err(Error::err(format!(
                "PACKED has {} bytes, which are no hashes of {bytes}",
                blob.len()
            )));
        }
        if count > limits::CHUNKS_MAX {
            return Err(Error::too_big("PACKED", count, limits::CHUNKS_MAX, "hashes"));
        }
        Ok(Self { blob, bytes })
    }
}

/// A digest of the caller's own, as raw bytes.
pub fn raw_digest(bytes: &[u8]) -> Result<ChunkDigest> {
    ChunkDigest::from_bytes(bytes)
        .ok_or_else(|| Error::err(format!("a hash has 1 to {} bytes", limits::DIGEST_MAX_BYTES)))
}

impl<'a> ChainArgs<'a> {
    /// Reads an option if it is one of these; returns whether it was.
    pub fn read(&mut self, word: &OptionWord, args: &mut ArgReader<'a>) -> Result<bool> {
        let name = word.as_str();
        match name {
            "TOKENS" => {
                let blob = args.text(name, limits::TOKENS_BLOB_MAX_BYTES)?;
                if !blob.len().is_multiple_of(TOKEN_BYTES) {
                    return Err(Error::err(format!(
                        "TOKENS has {} bytes, which is no multiple of {TOKEN_BYTES}",
                        blob.len()
                    )));
                }
                set_once(&mut self.tokens, blob, name)?;
            }
            "SALT" => set_once(&mut self.salt, args.text(name, limits::SALT_MAX_BYTES)?, name)?,
            "HASHES" => {
                let list = args.list(name, limits::CHUNKS_MAX)?;
                let hashes = list.iter().map(|hash| raw_digest(hash)).collect::<Result<_>>()?;
                set_once(&mut self.hashes, hashes, name)?;
            }
            "PACKED" => set_once(&mut self.packed, Packed::read(args, name)?, name)?,
            "DIGESTS" => {
                let list = args.list(name, limits::CHUNKS_MAX)?;
                let hashes = list.iter().map(|hex| hex_digest(hex)).collect::<Result<_>>()?;
                set_once(&mut self.hashes, hashes, "HASHES or DIGESTS")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> Result<()> {
        let given = [self.tokens.is_some(), self.hashes.is_some(), self.packed.is_some()];
        if given.iter().filter(|&&is_given| is_given).count() != 1 {
            return Err(Error::err(
                "syntax error: one of TOKENS, HASHES, PACKED and DIGESTS is needed",
            ));
        }
        if self.salt.is_some() && self.tokens.is_none() {
            return Err(Error::err("syntax error: SALT goes with TOKENS"));
        }
        Ok(())
    }

    /// What the prompt is chained to: fingerprint and salt.
    pub fn root(&self, namespace: &Namespace) -> [u8; 32] {
        namespace.root(self.salt)
    }

    /// The token blob, where tokens were given.
    pub fn tokens(&self) -> Option<&'a [u8]> {
        self.tokens
    }

    /// The names of the chunks; those of a prompt as the namespace chains them, which is done one by one.
    pub fn names(&self, args: &CommandArgs<'_>, namespace: &Namespace) -> Result<Names> {
        if let Some(Packed { blob, bytes }) = self.packed {
            let count = blob.len() / bytes;
            let held = args.argument_of(blob).map(|blob| HeldString::keep(&blob));
            let source = held.map(|blob| Source::Packed { blob, bytes });
            let source = source.unwrap_or_else(|| Source::Listed(Arc::default()));
            return Ok(Names { source, root: [0; 32], count, at: 0 });
        }
        let Some(tokens) = self.tokens else {
            return Ok(Names::shared(self.hashes.clone().unwrap_or_default()));
        };
        let bytes = namespace.settings().chunk_tokens as usize * TOKEN_BYTES;
        let count = tokens.len() / bytes;
        if count > limits::CHUNKS_MAX {
            return Err(Error::too_big("the prompt", count, limits::CHUNKS_MAX, "chunks"));
        }
        let blob = args.argument_of(tokens).map(|tokens| HeldString::keep(&tokens));
        let root = self.root(namespace);
        let source = match blob {
            Some(blob) => Source::Tokens { blob, links: Links::from(root), bytes },
            // The blob is an argument; an empty one has no chunks.
            None => Source::Listed(Arc::default()),
        };
        Ok(Names { source, root, count, at: 0 })
    }

    /// Whether the prompt ends within a chunk.
    pub fn has_partial_chunk(&self, namespace: &Namespace) -> bool {
        let bytes = namespace.settings().chunk_tokens as usize * TOKEN_BYTES;
        self.tokens.is_some_and(|tokens| !tokens.len().is_multiple_of(bytes))
    }
}

/// The names of chunks in their order, each made when its turn comes: a long prompt takes milliseconds to hash.
#[derive(Debug)]
pub struct Names {
    source: Source,
    root: [u8; 32],
    count: usize,
    at: usize,
}

#[derive(Debug)]
enum Source {
    Listed(Arc<[ChunkDigest]>),
    Packed { blob: HeldString, bytes: usize },
    Tokens { blob: HeldString, links: Links, bytes: usize },
}

impl Names {
    /// Names that are there already.
    pub fn listed(names: Vec<ChunkDigest>) -> Self {
        Self::shared(names.into())
    }

    fn shared(names: Arc<[ChunkDigest]>) -> Self {
        Self { count: names.len(), source: Source::Listed(names), root: [0; 32], at: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// How many were made.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What the prompt is chained to: fingerprint and salt.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Goes back to before the first.
    pub fn begin_anew(&mut self) {
        self.at = 0;
        if let Source::Tokens { links, .. } = &mut self.source {
            *links = Links::from(self.root);
        }
    }

    /// The next name.
    pub fn next(&mut self) -> Option<ChunkDigest> {
        if self.at >= self.count {
            return None;
        }
        let at = self.at;
        self.at += 1;
        match &mut self.source {
            Source::Listed(names) => names.get(at).cloned(),
            Source::Packed { blob, bytes } => {
                ChunkDigest::from_bytes(blob.as_bytes().get(at * *bytes..(at + 1) * *bytes)?)
            }
            Source::Tokens { blob, links, bytes } => {
                let chunk = blob.as_bytes().get(at * *bytes..(at + 1) * *bytes)?;
                Some(links.link(chunk))
            }
        }
    }

    /// The tokens of the chunk that was named last, where tokens were given.
    pub fn tokens(&self) -> Option<&[u8]> {
        let Source::Tokens { blob, bytes, .. } = &self.source else { return None };
        blob.as_bytes().get((self.at.checked_sub(1)?) * bytes..self.at * bytes)
    }
}
