//! An embedding as an entry: named by a digest, kept in the container's form, given back as numbers of
//! its own length.
//!
//! Owns: how far what comes back may lie from what was stored, by form:
//!
//! | form | error of element x of a vector v |
//! |---|---|
//! | `NONE` | none, bit for bit |
//! | `F16` | at most 0.0005 abs(x) + 3.1e-8 norm(v) |
//! | `Q8` | at most max abs(v) / 253 |
//!
//! Entries keep vectors at unit length, which an embedding need not have: its norm is kept beside it, in
//! the place of a response. `NONE` keeps the numbers themselves there and no unit vector, since dividing
//! and multiplying again would cost the last bit. Any thread.

use super::entry::NORM_BYTES;
use super::{Entry, EntryFields, EntryView};
use crate::ids::{ContainerUid, EmbeddingDigest, Seq, UnixMs};
use crate::vector::normalise::norm;
use crate::vector::{Quant, VectorError, normalise::normalise};

/// Bytes that an embedding takes in its entry.
pub fn kept_bytes(quant: Quant, dim: usize) -> usize {
    quant.encoded_len(dim) + if quant == Quant::None { 0 } else { NORM_BYTES }
}

/// Packs an embedding. The caller checked the dimension.
pub fn pack_embedding(
    uid: ContainerUid,
    seq: Seq,
    created: UnixMs,
    quant: Quant,
    digest: &EmbeddingDigest,
    numbers: &[f32],
) -> Result<Box<Entry>, VectorError> {
    let unit = normalise(numbers)?;
    let (mut vector, mut response) = (Vec::new(), Vec::new());
    if quant == Quant::None {
        response.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    } else {
        quant.encode(&unit, &mut vector);
        response.extend(norm(numbers).to_le_bytes());
    }
    Ok(Entry::new(&EntryFields {
        uid,
        seq,
        created,
        quant,
        dim: if vector.is_empty() { 0 } else { numbers.len() as u16 },
        vector: &vector,
        prompt: &digest.0,
        response: &response,
        is_embedding: true,
        ..EntryFields::default()
    }))
}

/// The numbers of an embedding kept as they were given, little-endian f32; `None` for another form.
pub fn raw_embedding<'a>(entry: &EntryView<'a>) -> Option<&'a [u8]> {
    (entry.is_embedding() && entry.dim() == 0).then(|| entry.kept_response())
}

/// The numbers of an embedding, within the error of its form; `None` for an entry that is none.
pub fn unpack_embedding(entry: &EntryView<'_>) -> Option<Vec<f32>> {
    if !entry.is_embedding() {
        return None;
    }
    let Some(vector) = entry.vector() else {
        let elements = raw_embedding(entry)?.as_chunks::<4>().0;
        return Some(elements.iter().map(|&element| f32::from_le_bytes(element)).collect());
    };
    let norm = f64::from_le_bytes(*entry.kept_response().first_chunk::<NORM_BYTES>()?);
    let mut numbers = vector.to_f32();
    for x in &mut numbers {
        *x = (f64::from(*x) * norm) as f32;
    }
    Some(numbers)
}
