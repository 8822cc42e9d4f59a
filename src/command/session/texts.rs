//! Embeds the texts of messages and queries where a command takes a vector.
//!
//! Owns: which model embeds for a session, and what becomes of a message that it does not read. Main thread only.

use super::request::{AppendRequest, stored};
use crate::ffi::Ctx;
use crate::keyspace::{Again, Embedded, ModelId, Texts, embed};
use llmcache_core::embed::{Refusal, Role};
use llmcache_core::error::{Error, ErrorWord, Result};
use llmcache_core::limits;
use llmcache_core::session::{Message, Session};
use llmcache_core::vector::Query;
use std::borrow::Cow;

/// The model that embeds the messages of a session, which EMBED may name.
pub fn model_for(session: &Session, named: Option<&[u8]>) -> Result<Option<ModelId>> {
    let own = ModelId::parse(session.model());
    let Some(name) = named else { return Ok(own) };
    let model = ModelId::of_loaded(name, false)?;
    // Vectors of two models are not to be compared.
    if own.is_some_and(|own| own != model) && session.totals().vectors > 0 {
        let message = "the session's messages are embedded by another model";
        return Err(Error::new(ErrorWord::ModelMismatch, message));
    }
    Ok(Some(model))
}

/// The vectors of messages, of each by its beginning where the model cannot read all: a message is ranked by what the
/// model knows of it and never answered for another. One that it does not read at all has none. `None` where the command
/// is to end and is run again.
pub fn vectors_of(
    ctx: Ctx<'_>,
    model: &ModelId,
    payloads: &[&[u8]],
    again: Again<'_>,
) -> Result<Option<Vec<Option<Query>>>> {
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| beginning(payload)).collect();
    let cut = vec![true; payloads.len()];
    let texts = Texts { model, role: Role::Document, texts: &payloads, cut: &cut };
    let Embedded::Now(vectors) = embed(ctx, &texts, again)? else { return Ok(None) };
    Ok(Some(vectors.into_iter().map(|vector| vector.ok().map(|meant| meant.query)).collect()))
}

/// Has the messages without a vector embedded; false where the command is to end and is run again.
pub fn embed_messages(
    ctx: Ctx<'_>,
    model: &ModelId,
    request: &mut AppendRequest<'_>,
    again: Again<'_>,
) -> Result<bool> {
    let AppendRequest { messages, without, .. } = request;
    let wants = |(place, message): &(usize, &mut Message<'_>)| {
        message.vector.is_none() && without.binary_search(place).is_err()
    };
    let wanted: Vec<_> = messages.iter_mut().enumerate().filter(wants).collect();
    if wanted.is_empty() {
        return Ok(true);
    }
    let payloads: Vec<&[u8]> = wanted.iter().map(|(_, message)| message.payload).collect();
    let Some(vectors) = vectors_of(ctx, model, &payloads, again)? else { return Ok(false) };
    for ((_, message), vector) in wanted.into_iter().zip(vectors) {
        message.vector = vector.as_ref().map(|vector| Cow::Owned(stored(vector)));
    }
    Ok(true)
}

/// The vector of a question; `None` where the command is to end and is run again.
pub fn vector_of_question(
    ctx: Ctx<'_>,
    model: Option<&ModelId>,
    text: &[u8],
    again: Again<'_>,
) -> Result<Option<Query>> {
    let none = || Error::err("syntax error: a vector is needed (no model embeds for this session)");
    let model = model.ok_or_else(none)?;
    let texts = Texts { model, role: Role::Query, texts: &[text], cut: &[] };
    let Embedded::Now(vectors) = embed(ctx, &texts, again)? else { return Ok(None) };
    let refused =
        |refusal: Refusal| Error::err(format!("the text is not embedded: {}", refusal.why()));
    let meant = vectors.into_iter().next().ok_or_else(none)?.map_err(refused)?;
    Ok(Some(meant.query))
}

/// As much of a payload as any model reads, which ends with a whole character.
fn beginning(payload: &[u8]) -> &[u8] {
    let most = limits::EMBED_TEXT_MAX_BYTES;
    if payload.len() <= most {
        return payload;
    }
    let inside = payload[most - 3..=most].iter().rev().take_while(|byte| **byte & 0xC0 == 0x80);
    &payload[..most - inside.count()]
}

#[cfg(test)]
mod tests {
    use super::{beginning, limits};

    #[test]
    fn a_long_payload_is_cut_between_characters() {
        let most = limits::EMBED_TEXT_MAX_BYTES;
        for letter in ["a", "é", "€", "😀"] {
            for before in 0..4 {
                let text = format!("{}{}", &"xxx"[..before.min(3)], letter.repeat(most));
                let cut = beginning(text.as_bytes());
                assert!(std::str::from_utf8(cut).is_ok(), "{letter} {before}");
                assert!(cut.len() > most - 4 && cut.len() <= most);
            }
        }
        assert_eq!(beginning(b"short"), b"short");
    }
}
