//! Reads texts for a model: the tokens it sees, and what its vectors do not show.
//!
//! Main thread only.

use super::model_id::ModelId;
use super::service::SERVICE;
use super::work::{Came, Made, TextKey};
use llmcache_core::cache::guard::{Sight, UnseenDigest};
use llmcache_core::embed::{Model, Refusal, Role, Tokens};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use llmcache_core::work::count_path;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Bytes of a text whose words are looked up in the time of a step.
const BYTES_PER_STEP: usize = 4;

/// The words that a model does not know.
#[derive(Debug)]
pub(super) struct ModelSight {
    pub(in crate::keyspace) model: Arc<Model>,
    pub(super) role: Role,
}

impl Sight for ModelSight {
    fn unseen(&self, text: &[u8]) -> Option<UnseenDigest> {
        self.model.unseen(std::str::from_utf8(text).ok()?, self.role)
    }

    fn strips_difference(&self, one: &[u8], other: &[u8]) -> bool {
        match (std::str::from_utf8(one), std::str::from_utf8(other)) {
            (Ok(one), Ok(other)) => self.model.strips_difference(one, other),
            _ => false,
        }
    }
}

/// Reads texts for a model.
pub(in crate::keyspace) struct Reader {
    pub(super) place: usize,
    pub(in crate::keyspace) model: Arc<Model>,
    pub(super) role: Role,
    pub(super) any_script: bool,
}

impl Reader {
    pub(in crate::keyspace) fn new(id: &ModelId, role: Role) -> Result<Self> {
        let (place, model) = SERVICE.with(|service| service.find(id))?;
        let role = if model.reads_alike() { Role::Query } else { role };
        Ok(Self { place, model, role, any_script: id.any_script })
    }

    /// What names a text; of one that `cuts` the beginning will do where the model cannot read all.
    pub(in crate::keyspace) fn key(&self, bytes: &[u8], cuts: bool) -> TextKey {
        let (model, role, any_script) = (self.place, self.role, self.any_script);
        let mut key = TextKey { model, role, digest: [0; 16], any_script, cuts };
        key.digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
        key
    }

    /// What the model sees of a text; counts one that it does not read, and the work of reading it.
    pub(in crate::keyspace) fn read(
        &self,
        key: &TextKey,
        bytes: &[u8],
    ) -> std::result::Result<Tokens, Refusal> {
        count_path(held_bytes(bytes) / BYTES_PER_STEP);
        key.read(&self.model, bytes).inspect_err(|refusal| {
            SERVICE.with(|service| service.counts.refused[*refusal as usize] += 1);
        })
    }

    /// What came of a text that is remembered.
    pub(in crate::keyspace) fn known(key: &TextKey) -> Option<Came> {
        SERVICE.with(|service| service.known(key))
    }

    /// Embeds a text here and now.
    pub(in crate::keyspace) fn embed_now(&self, key: TextKey, tokens: &Tokens) -> Result<Made> {
        let made = SERVICE.with(|service| service.embed_now(key, &self.model, tokens));
        made.ok_or_else(no_vector)
    }
}

/// What a text that waits takes: of a longer one only the beginning is read.
pub(in crate::keyspace) fn held_bytes(text: &[u8]) -> usize {
    text.len().min(limits::EMBED_TEXT_MAX_BYTES)
}

/// The error of so many tokens to embed where so many are the most.
pub(in crate::keyspace) fn too_long_inline(tokens: usize, most: usize) -> Error {
    let text = format!("{tokens} tokens to embed, at most {most} where no client may wait");
    Error::new(ErrorWord::EmbedLong, text)
}

pub(in crate::keyspace) fn no_vector() -> Error {
    Error::new(ErrorWord::BadVector, "the model gives no vector for the text")
}
