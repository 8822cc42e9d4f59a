//! What a message is, as it comes in, as it is read, and as bytes for RDB, AOF and replicas.
//!
//! Owns: the fields, their bounds, their layout in sections. Bytes from outside are hostile until
//! `Message::decode` accepted them. Main thread; encoding also in the forked child.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::UnixMs;
use crate::limits;
use crate::vector::{Quant, StoredVector};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// How sessions keep vectors.
pub const VECTOR_QUANT: Quant = Quant::F16;

/// Place of a message in the order of its session, from 1; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageSeq(pub u32);

impl From<u32> for MessageSeq {
    fn from(seq: u32) -> Self {
        Self(seq)
    }
}

impl fmt::Display for MessageSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message's id, or the id that ties results to a call: text, or a UUID kept in 16 bytes.
#[derive(Clone, Copy)]
pub enum IdText<'a> {
    /// As given.
    Text(&'a [u8]),
    /// The 36 characters of a UUID in lower case.
    Uuid([u8; 36]),
}

impl Deref for IdText<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Uuid(text) => text,
        }
    }
}

impl PartialEq for IdText<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for IdText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self), f)
    }
}

/// Whether a message calls a tool or answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// It calls.
    Call,
    /// It is a result.
    Result,
}

/// The tie between a tool call and its results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link<'a> {
    /// Which end.
    pub kind: LinkKind,
    /// What both ends name.
    pub id: IdText<'a>,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Status {
    /// Appended whole.
    #[default]
    Whole = 0,
    /// Being streamed.
    Open = 1,
    /// Streamed to its end.
    Done = 2,
    /// Ended because somebody asked.
    Stopped = 3,
    /// Ended by a failure.
    Failed = 4,
    /// A part of a stream nobody ended, in a copy of the session.
    Abandoned = 5,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Whole, Self::Open, Self::Done, Self::Stopped, Self::Failed, Self::Abandoned];

    /// The status of a stored byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The word clients see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Open => "open",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "error",
            Self::Abandoned => "abandoned",
        }
    }

    /// The status of a client's word.
    pub fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|status| word.eq_ignore_ascii_case(status.as_str().as_bytes()))
    }
}

/// Who may write to an open message, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// What its writes must name.
    pub token: u64,
    /// How long each write keeps the message its own.
    pub lease_ms: u32,
    /// When the message is abandoned unless written to.
    pub lease_until: UnixMs,
}

/// A message with everything it carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Its place.
    pub seq: MessageSeq,
    /// Who speaks.
    pub role: &'a [u8],
    /// What is said; opaque.
    pub payload: &'a [u8],
    /// The caller's id, which makes appending it again harmless.
    pub id: Option<IdText<'a>>,
    /// Length in the model's tokens.
    pub tokens: u32,
    /// Whether that is a guess from its bytes.
    pub estimated: bool,
    /// Survives trims and is in every window.
    pub pinned: bool,
    /// Stands for messages that COMPACT removed.
    pub summary: bool,
    /// A call or a result.
    pub link: Option<Link<'a>>,
    /// A JSON object as given.
    pub meta: Option<&'a [u8]>,
    /// Stored form of its vector, `VECTOR_QUANT`.
    pub vector: Option<Cow<'a, [u8]>>,
    /// How far it is.
    pub status: Status,
    /// Its producer, while it is open.
    pub producer: Option<Producer>,
}

pub(super) const FLAG_ID: u32 = 1;
pub(super) const FLAG_META: u32 = 2;
pub(super) const FLAG_LINK: u32 = 4;
pub(super) const FLAG_RESULT: u32 = 8;
pub(super) const FLAG_VECTOR: u32 = 16;
pub(super) const FLAG_PINNED: u32 = 32;
pub(super) const FLAG_ESTIMATED: u32 = 64;
pub(super) const FLAG_SUMMARY: u32 = 128;
pub(super) const STATUS_SHIFT: u32 = 8;
const FLAGS: u32 = 0x07ff;

impl<'a> Message<'a> {
    /// What is known of how it ends at `now`: one that is being written is abandoned when its lease has expired.
    pub fn status_at(&self, now: UnixMs) -> Status {
        match (self.status, self.producer) {
            (Status::Open, Some(producer)) if producer.lease_until.is_past(now) => {
                Status::Abandoned
            }
            (status, _) => status,
        }
    }

    /// A whole message of role and payload alone.
    pub fn plain(seq: MessageSeq, role: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            seq,
            role,
            payload,
            id: None,
            tokens: estimate_tokens(payload.len()),
            estimated: true,
            pinned: false,
            summary: false,
            link: None,
            meta: None,
            vector: None,
            status: Status::Whole,
            producer: None,
        }
    }

    /// Dimensions of its vector.
    pub fn dim(&self) -> Option<usize> {
        self.vector.as_ref().map(|vector| vector.len() / 2)
    }

    /// Roughly the bytes `encode` writes.
    pub fn encoded_bytes(&self) -> usize {
        let id = |id: &Option<IdText<'_>>| id.as_ref().map_or(0, |id| id.len());
        64 + self.role.len()
            + self.payload.len()
            + id(&self.id)
            + id(&self.link.map(|link| link.id))
            + self.meta.map_or(0, <[u8]>::len)
            + self.vector.as_ref().map_or(0, |vector| vector.len())
    }

    /// What is there of it and what it is, as a word of flags: the same in a section and in a record.
    pub(super) fn flags(&self) -> u32 {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let is_result = self.link.is_some_and(|link| link.kind == LinkKind::Result);
        flag(self.id.is_some(), FLAG_ID)
            | flag(self.meta.is_some(), FLAG_META)
            | flag(self.link.is_some(), FLAG_LINK)
            | flag(is_result, FLAG_RESULT)
            | flag(self.vector.is_some(), FLAG_VECTOR)
            | flag(self.pinned, FLAG_PINNED)
            | flag(self.estimated, FLAG_ESTIMATED)
            | flag(self.summary, FLAG_SUMMARY)
            | (self.status as u32) << STATUS_SHIFT
    }

    /// Appends the message to a section.
    pub fn encode(&self, out: &mut Writer) {
        out.u32(self.seq.0)
            .u16(self.flags() as u16)
            .u32(self.tokens)
            .bytes(self.role)
            .bytes(self.payload);
        if let Some(id) = &self.id {
            out.bytes(id);
        }
        if let Some(link) = &self.link {
            out.bytes(&link.id);
        }
        if let Some(meta) = self.meta {
            out.bytes(meta);
        }
        if let Some(vector) = &self.vector {
            out.bytes(vector);
        }
        if let Some(producer) = &self.producer {
            out.u64(producer.token).u32(producer.lease_ms).u64(producer.lease_until.0);
        }
    }

    /// Reads one message from bytes of unknown origin; `None` at the end of the section.
    pub fn decode(from: &mut Reader<'a>) -> std::result::Result<Option<Self>, DecodeError> {
        if from.remaining() == 0 {
            return Ok(None);
        }
        let (seq, flags) = (MessageSeq(from.u32()?), u32::from(from.u16()?));
        let tokens = from.u32()?;
        let has = |flag: u32| flags & flag != 0;
        if flags & !FLAGS != 0 || (has(FLAG_RESULT) && !has(FLAG_LINK)) {
            return Err(DecodeError("unknown flags of a message"));
        }
        let status = Status::from_byte((flags >> STATUS_SHIFT) as u8)
            .ok_or(DecodeError("unknown status of a message"))?;
        let role = from.bytes(limits::ROLE_MAX_BYTES)?;
        let payload = from.bytes(limits::SESSION_PAYLOAD_MAX_BYTES)?;
        let kind = if has(FLAG_RESULT) { LinkKind::Result } else { LinkKind::Call };
        let message = Self {
            seq,
            role,
            payload,
            id: has(FLAG_ID).then(|| read_id(from)).transpose()?,
            tokens,
            estimated: has(FLAG_ESTIMATED),
            pinned: has(FLAG_PINNED),
            summary: has(FLAG_SUMMARY),
            link: has(FLAG_LINK).then(|| read_id(from).map(|id| Link { kind, id })).transpose()?,
            meta: has(FLAG_META).then(|| from.bytes(limits::META_MAX_BYTES)).transpose()?,
            vector: has(FLAG_VECTOR)
                .then(|| from.bytes(limits::DIM_MAX as usize * 2).map(Cow::Borrowed))
                .transpose()?,
            status,
            producer: (status == Status::Open).then(|| read_producer(from)).transpose()?,
        };
        message.check()?;
        Ok(Some(message))
    }

    fn check(&self) -> std::result::Result<(), DecodeError> {
        if self.seq.0 == 0 || self.seq.0 > limits::SESSION_SEQ_MAX {
            return Err(DecodeError("the place of a message is out of range"));
        }
        if self.summary && self.status == Status::Open {
            return Err(DecodeError("a summary that is being written"));
        }
        check_role(self.role).map_err(|_| DecodeError("role of a message"))?;
        if let Some(vector) = &self.vector {
            let dim = (vector.len() / 2) as u32;
            StoredVector::parse(VECTOR_QUANT, dim, vector)
                .map_err(|_| DecodeError("vector of a message"))?;
        }
        if self.meta.is_some_and(|meta| !is_json_object(meta)) {
            return Err(DecodeError("META of a message is no JSON object"));
        }
        Ok(())
    }
}

fn read_id<'a>(from: &mut Reader<'a>) -> std::result::Result<IdText<'a>, DecodeError> {
    let id = from.bytes(limits::ID_MAX_BYTES)?;
    check_id(id, "ID").map_err(|_| DecodeError("id of a message"))?;
    Ok(IdText::Text(id))
}

fn read_producer(from: &mut Reader<'_>) -> std::result::Result<Producer, DecodeError> {
    let (token, lease_ms, lease_until) = (from.u64()?, from.u32()?, UnixMs(from.u64()?));
    check_lease(lease_ms, lease_until)?;
    Ok(Producer { token, lease_ms, lease_until })
}

/// Refuses a lease that no command grants.
pub(super) fn check_lease(lease_ms: u32, until: UnixMs) -> std::result::Result<(), DecodeError> {
    if u64::from(lease_ms) > limits::SESSION_LEASE_MAX_MS || until.0 > i64::MAX as u64 / 2 {
        return Err(DecodeError("the lease of a stream is out of range"));
    }
    Ok(())
}

/// Whether the bytes are a JSON object.
pub fn is_json_object(text: &[u8]) -> bool {
    text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
        && serde_json::from_slice::<serde_json::Value>(text).is_ok()
}

/// Tokens of a text whose count nobody told.
pub fn estimate_tokens(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX)
}

/// Refuses a role that is not 1 to 32 letters, digits, `_`, `-` or `.`.
pub fn check_role(role: &[u8]) -> Result<()> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    if role.is_empty() || role.len() > limits::ROLE_MAX_BYTES || !role.iter().all(plain) {
        return Err(Error::err("a role is 1 to 32 letters, digits, '_', '-' or '.'"));
    }
    Ok(())
}

/// Refuses an id that is empty, too long or not printable.
pub fn check_id(id: &[u8], what: &str) -> Result<()> {
    if id.is_empty() || id.len() > limits::ID_MAX_BYTES || id.iter().any(u8::is_ascii_control) {
        return Err(Error::err(format!(
            "{what} must have 1 to 128 bytes and no control characters"
        )));
    }
    Ok(())
}
