//! A message as a line of JSON, and back.
//!
//! Owns: the names of the members (`docs/session.md`). What EXPORT writes, LOAD reads to the same
//! message; LOAD also takes lines of role and content alone, as most tools write them.

use super::json_text::{write_inner, write_string};
use super::log::{MessageRef, Session};
use super::message::{self, IdText, Link, LinkKind, Message, MessageSeq, Status};
use crate::error::{Error, Result};
use crate::limits;
use crate::members::{Members, Text};
use crate::vector::StoredVector;
use std::borrow::Cow;

/// Writes a message as one line, without a line end.
pub fn to_json(message: &Message<'_>) -> Vec<u8> {
    if message.status == Status::Open {
        // Nobody goes on writing to a copy.
        let mut part = message.clone();
        part.abandon();
        return to_json(&part);
    }
    let mut out = format!("{{\"seq\":{},\"role\":", message.seq).into_bytes();
    write_string(message.role, &mut out);
    text_member("content", message.payload, &mut out);
    if let Some(id) = &message.id {
        text_member("id", id, &mut out);
    }
    out.extend_from_slice(format!(",\"tokens\":{}", message.tokens).as_bytes());
    for (name, on) in
        [("estimated", message.estimated), ("pinned", message.pinned), ("summary", message.summary)]
    {
        if on {
            out.extend_from_slice(format!(",\"{name}\":true").as_bytes());
        }
    }
    if let Some(Link { kind, id }) = &message.link {
        text_member(if *kind == LinkKind::Call { "call" } else { "result" }, id, &mut out);
    }
    if let Some(meta) = message.meta {
        out.extend_from_slice(b",\"meta\":");
        // A line end within JSON is blank space between its parts.
        out.extend(
            meta.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        );
    }
    if let Some(vector) = &message.vector {
        hex_member("vector_f16_hex", vector, &mut out);
    }
    if message.status != Status::Whole {
        text_member("status", message.status.as_str().as_bytes(), &mut out);
    }
    out.push(b'}');
    out
}

/// Writes a member of text, or of hex digits under another name where it is no UTF-8.
fn text_member(name: &str, text: &[u8], out: &mut Vec<u8>) {
    if std::str::from_utf8(text).is_err() {
        hex_member(&format!("{name}_hex"), text, out);
        return;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write_string(text, out);
}

fn hex_member(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!(",\"{name}\":\"").as_bytes());
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    out.push(b'"');
}

/// Messages as one JSON array of `role` and `content`, and `call` or `result` where marked: what chat
/// interfaces take, from one reply.
pub fn window_json(session: &Session, messages: &[MessageRef], tokens: u64) -> Vec<u8> {
    // A token is some four bytes of text; what is wrong in that costs a larger buffer once.
    let mut out = Vec::with_capacity(64 * messages.len() + 5 * (tokens as usize).min(1 << 20));
    out.push(b'[');
    for (number, at) in messages.iter().enumerate() {
        let (_, record) = session.record(*at);
        out.extend_from_slice(if number == 0 { b"{\"role\":\"" } else { b",{\"role\":\"" });
        // A role needs no escape.
        out.extend_from_slice(session.roles.name(record.role));
        if record.payload.is_ascii() || std::str::from_utf8(record.payload).is_ok() {
            out.extend_from_slice(b"\",\"content\":\"");
            write_inner(record.payload, &mut out);
            out.push(b'"');
        } else {
            out.push(b'"');
            hex_member("content_hex", record.payload, &mut out);
        }
        if let Some(Link { kind, id }) = record.link() {
            text_member(if kind == LinkKind::Call { "call" } else { "result" }, &id, &mut out);
        }
        out.push(b'}');
    }
    out.push(b']');
    out
}

/// The lines of a text that hold anything but white space.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', text).chain(std::iter::once(text.len()));
    let mut from = 0;
    let all = ends.map(move |end| &text[std::mem::replace(&mut from, end + 1)..end]);
    all.filter(|line| !line.trim_ascii().is_empty())
}

/// What a line held. Content without an escape is not copied.
#[derive(Debug, Default)]
pub struct Line<'l> {
    seq: Option<MessageSeq>,
    role: Vec<u8>,
    payload: Option<Cow<'l, [u8]>>,
    id: Option<Vec<u8>>,
    tokens: Option<u32>,
    estimated: bool,
    pinned: bool,
    summary: bool,
    link: Option<(LinkKind, Vec<u8>)>,
    meta: Option<Vec<u8>>,
    vector: Option<Vec<u8>>,
    status: Status,
}

impl<'l> Line<'l> {
    /// Reads a line; errors name the member.
    pub fn parse(line: &'l [u8]) -> Result<Self> {
        let Members(members) = serde_json::from_slice(line)
            .map_err(|error| Error::err(format!("not a JSON object: {error}")))?;
        let mut parsed = Self::default();
        // Of two with one name the later counts.
        for (name, value) in &members {
            parsed
                .read(name, value.get())
                .map_err(|why| Error::err(format!("member '{}': {why}", shown(name))))?;
        }
        message::check_role(&parsed.role)?;
        match parsed.payload.as_deref().map(<[u8]>::len) {
            None => Err(Error::err("a message needs content")),
            Some(bytes) if bytes > limits::SESSION_PAYLOAD_MAX_BYTES => {
                let max = limits::SESSION_PAYLOAD_MAX_BYTES;
                Err(Error::too_big("the content", bytes, max, "bytes"))
            }
            Some(_) => Ok(parsed),
        }
    }

    fn read(&mut self, name: &str, value: &'l str) -> std::result::Result<(), String> {
        let link = |kind, id: Vec<u8>| Some((kind, id));
        match name {
            "seq" => self.seq = Some(MessageSeq(number(value)?)),
            "role" => self.role = text(value)?,
            "content" => self.payload = Some(content(value)?),
            "content_hex" => self.payload = Some(bytes_of_hex(value)?.into()),
            "id" => self.id = Some(id_of(text(value)?)?),
            "id_hex" => self.id = Some(id_of(bytes_of_hex(value)?)?),
            "tokens" => self.tokens = Some(number(value)?),
            "estimated" => self.estimated = flag(value)?,
            "pinned" => self.pinned = flag(value)?,
            "summary" => self.summary = flag(value)?,
            "call" => self.link = link(LinkKind::Call, id_of(text(value)?)?),
            "call_hex" => self.link = link(LinkKind::Call, id_of(bytes_of_hex(value)?)?),
            "result" => self.link = link(LinkKind::Result, id_of(text(value)?)?),
            "result_hex" => self.link = link(LinkKind::Result, id_of(bytes_of_hex(value)?)?),
            "meta" if value.len() > limits::META_MAX_BYTES => return Err("too long".into()),
            "meta" if !message::is_json_object(value.as_bytes()) => {
                return Err("not an object".into());
            }
            "meta" => self.meta = Some(value.as_bytes().to_vec()),
            "vector_f16_hex" => self.vector = Some(vector(value)?),
            "status" => {
                let status = Status::parse(&text(value)?);
                let ended = |status: &Status| !matches!(status, Status::Whole | Status::Open);
                self.status = status.filter(ended).ok_or("not how a stream ends")?;
            }
            _ => return Err("unknown".into()),
        }
        Ok(())
    }

    /// The message, with the place the line named.
    pub fn message(&self) -> (Option<MessageSeq>, Message<'_>) {
        let payload = self.payload.as_deref().unwrap_or_default();
        let mut message = Message::plain(MessageSeq(0), &self.role, payload);
        message.id = self.id.as_deref().map(IdText::Text);
        if let Some(tokens) = self.tokens {
            (message.tokens, message.estimated) = (tokens, self.estimated);
        }
        (message.pinned, message.summary) = (self.pinned, self.summary);
        let link = self.link.as_ref();
        message.link = link.map(|(kind, id)| Link { kind: *kind, id: IdText::Text(id) });
        message.meta = self.meta.as_deref();
        message.vector = self.vector.as_deref().map(Cow::Borrowed);
        message.status = self.status;
        (self.seq, message)
    }
}

fn shown(name: &str) -> String {
    name.chars().take(32).collect()
}

fn number(value: &str) -> std::result::Result<u32, String> {
    value.parse().map_err(|_| "not a whole number below 2^32".into())
}

fn flag(value: &str) -> std::result::Result<bool, String> {
    value.parse().map_err(|_| "neither true nor false".into())
}

fn text(value: &str) -> std::result::Result<Vec<u8>, String> {
    content(value).map(Cow::into_owned)
}

fn content(value: &str) -> std::result::Result<Cow<'_, [u8]>, String> {
    match serde_json::from_str(value) {
        Ok(Text(Cow::Borrowed(text))) => Ok(text.as_bytes().into()),
        Ok(Text(Cow::Owned(text))) => Ok(text.into_bytes().into()),
        Err(_) => Err("not a string".into()),
    }
}

fn id_of(id: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    message::check_id(&id, "an id").map_err(|error| error.message().to_owned())?;
    Ok(id)
}

fn bytes_of_hex(value: &str) -> std::result::Result<Vec<u8>, String> {
    let digits = text(value)?;
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.filter(|_| rest.is_empty()).ok_or_else(|| "not hex digits".into())
}

fn vector(value: &str) -> std::result::Result<Vec<u8>, String> {
    let bytes = bytes_of_hex(value)?;
    let dim = (bytes.len() / 2) as u32;
    if dim > limits::DIM_MAX || StoredVector::parse(message::VECTOR_QUANT, dim, &bytes).is_err() {
        return Err("not a stored vector of unit length".into());
    }
    Ok(bytes)
}
