//! The `RAG.*` family: documents found by their id, or by meaning.
//!
//! Owns: what a document is as an entry: its id is the prompt, its text the response. The containers, the
//! entries, the index and its search are those of `LLMCACHE.*`, of another kind.

pub(super) mod add;
pub(super) mod admin;
pub(super) mod del;
pub(super) mod get;
pub(super) mod search;

use super::parse::ArgReader;
use llmcache_core::error::{Error, Result};
use llmcache_core::ids::EntryId;
use llmcache_core::limits;
use std::borrow::Cow;

/// Reads the id of a document.
fn document_id<'a>(args: &mut ArgReader<'a>) -> Result<&'a [u8]> {
    check_id(args.next("the id")?)
}

fn check_id(id: &[u8]) -> Result<&[u8]> {
    if id.is_empty() {
        return Err(Error::err("the id of a document must not be empty"));
    }
    let (got, max) = (id.len(), limits::DOCUMENT_ID_MAX_BYTES);
    if got > max { Err(Error::too_big("the id", got, max, "bytes")) } else { Ok(id) }
}

/// The id as the name of an entry, where it can be one; else nothing, and its digest is.
fn entry_name(id: &[u8]) -> &[u8] {
    let plain = id.len() <= limits::ID_MAX_BYTES && !id.iter().any(u8::is_ascii_control);
    // What looks like a digest would stand where that of another id belongs.
    if plain && EntryId::from_hex(id).is_none() { id } else { b"" }
}

fn digest(id: &[u8]) -> EntryId {
    EntryId::of(b"", b"", id)
}

/// What names the key of a document.
fn key_name(id: &[u8]) -> Cow<'_, [u8]> {
    match entry_name(id) {
        b"" => Cow::Owned(digest(id).hex().to_vec()),
        name => Cow::Borrowed(name),
    }
}
