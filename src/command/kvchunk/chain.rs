//! Which chunks a command names: `TOKENS blob [SALT s]` or `HASHES n h…`.

use crate::command::parse::{ArgReader, OptionWord, set_once};
use llmcache_core::error::{Error, Result};
use llmcache_core::kvchunk::{ChunkDigest, Namespace, TOKEN_BYTES, chain};
use llmcache_core::limits;

/// The options that name chunks, as far as they were read.
#[derive(Debug, Default)]
pub struct ChainArgs<'a> {
    tokens: Option<&'a [u8]>,
    salt: Option<&'a [u8]>,
    hashes: Option<Vec<ChunkDigest>>,
}

/// A digest of the caller's own, as raw bytes.
pub fn raw_digest(bytes: &[u8]) -> Result<ChunkDigest> {
    ChunkDigest::from_bytes(bytes)
        .ok_or_else(|| Error::err(format!("a hash has 1 to {} bytes", limits::DIGEST_MAX_BYTES)))
}

impl<'a> ChainArgs<'a> {
    /// Reads an option if it is one of these; answers whether it was.
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
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> Result<()> {
        match (self.tokens, &self.hashes) {
            (Some(_), Some(_)) | (None, None) => {
                Err(Error::err("syntax error: TOKENS or HASHES is needed, and not both"))
            }
            (None, Some(_)) if self.salt.is_some() => {
                Err(Error::err("syntax error: SALT goes with TOKENS"))
            }
            _ => Ok(()),
        }
    }

    /// What the prompt is chained to: fingerprint and salt.
    pub fn root(&self, namespace: &Namespace) -> [u8; 32] {
        namespace.root(self.salt)
    }

    /// The token blob, where tokens were given.
    pub fn tokens(&self) -> Option<&'a [u8]> {
        self.tokens
    }

    /// The names of the chunks; those of a prompt as the namespace chains them.
    pub fn digests(&self, namespace: &Namespace) -> Result<Vec<ChunkDigest>> {
        let Some(tokens) = self.tokens else { return Ok(self.hashes.clone().unwrap_or_default()) };
        let chunk_tokens = namespace.settings().chunk_tokens;
        let chunks = tokens.len() / TOKEN_BYTES / chunk_tokens as usize;
        if chunks > limits::CHUNKS_MAX {
            return Err(Error::too_big("the prompt", chunks, limits::CHUNKS_MAX, "chunks"));
        }
        Ok(chain(self.root(namespace), tokens, chunk_tokens))
    }

    /// The tokens of one chunk, where tokens were given.
    pub fn tokens_of_chunk(&self, namespace: &Namespace, at: usize) -> Option<&'a [u8]> {
        let bytes = namespace.settings().chunk_tokens as usize * TOKEN_BYTES;
        self.tokens?.get(at * bytes..(at + 1) * bytes)
    }

    /// Whether the prompt ends within a chunk.
    pub fn has_partial_chunk(&self, namespace: &Namespace) -> bool {
        let bytes = namespace.settings().chunk_tokens as usize * TOKEN_BYTES;
        self.tokens.is_some_and(|tokens| !tokens.len().is_multiple_of(bytes))
    }
}
