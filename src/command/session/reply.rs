//! Writes messages into replies, straight from the bytes of the session.

use crate::ffi::Reply;
use llmcache_core::ids::UnixMs;
use llmcache_core::session::characters::cut;
use llmcache_core::session::{LinkKind, Message, MessageRef, Session, Status};

/// What there is to read of a message: of one that is being written no half character.
fn readable<'m>(message: &Message<'m>) -> &'m [u8] {
    match message.status {
        Status::Open => &message.payload[..cut(message.payload, usize::MAX, false)],
        _ => message.payload,
    }
}

/// Writes `[seq, role, payload, tokens]`, followed by the name and value of whatever else the message
/// carries.
pub fn short(reply: Reply<'_>, message: &Message<'_>, now: UnixMs) {
    write(reply, message, readable(message), now);
}

fn write(reply: Reply<'_>, message: &Message<'_>, payload: &[u8], now: UnixMs) {
    let extras = usize::from(message.id.is_some())
        + usize::from(message.meta.is_some())
        + usize::from(message.link.is_some())
        + usize::from(message.pinned)
        + usize::from(message.summary)
        + usize::from(message.status != Status::Whole);
    reply.array(4 + 2 * extras).count(message.seq.0.into());
    reply.bytes(message.role).bytes(payload).count(message.tokens.into());
    if extras == 0 {
        return;
    }
    if let Some(id) = &message.id {
        reply.text("id").bytes(id);
    }
    if let Some(meta) = message.meta {
        reply.text("meta").bytes(meta);
    }
    if let Some(link) = &message.link {
        reply.text(link_name(link.kind)).bytes(&link.id);
    }
    for (name, on) in [("pinned", message.pinned), ("summary", message.summary)] {
        if on {
            reply.text(name).int(1);
        }
    }
    if message.status != Status::Whole {
        reply.text("status").text(message.status_at(now).as_str());
    }
}

fn link_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Call => "call",
        LinkKind::Result => "result",
    }
}

/// Writes an array of messages that are about to go: with all their bytes.
pub fn removed(reply: Reply<'_>, session: &Session, messages: &[MessageRef], now: UnixMs) {
    reply.array(messages.len());
    for at in messages {
        let message = session.message(*at);
        write(reply, &message, message.payload, now);
    }
}

/// Writes an array of messages.
pub fn list(reply: Reply<'_>, session: &Session, messages: &[MessageRef], now: UnixMs) {
    reply.array(messages.len());
    for at in messages {
        match session.brief(*at) {
            Some(brief) => {
                reply.array(4).count(brief.seq.0.into()).bytes(brief.role);
                reply.bytes(brief.payload).count(brief.tokens.into());
            }
            None => short(reply, &session.message(*at), now),
        }
    }
}

/// Writes a message as a map of all its fields.
pub fn full(reply: Reply<'_>, message: &Message<'_>, now: UnixMs) {
    let flag = |on: bool| i64::from(on);
    reply.map(13).text("seq").count(message.seq.0.into()).text("role").bytes(message.role);
    reply.text("payload").bytes(readable(message)).text("tokens").count(message.tokens.into());
    reply.text("estimated").int(flag(message.estimated)).text("id");
    maybe(reply, message.id.as_deref());
    reply.text("meta");
    maybe(reply, message.meta);
    for kind in [LinkKind::Call, LinkKind::Result] {
        let link = message.link.filter(|link| link.kind == kind);
        reply.text(link_name(kind));
        maybe(reply, link.as_ref().map(|link| &*link.id));
    }
    reply.text("pinned").int(flag(message.pinned)).text("summary").int(flag(message.summary));
    reply.text("status").text(message.status_at(now).as_str());
    reply.text("dim").count(message.dim().unwrap_or(0) as u64);
}

fn maybe(reply: Reply<'_>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => reply.bytes(bytes),
        None => reply.null(),
    };
}
