//! Effects: the changes of a session that a command makes on the primary, and that AOF and replicas replay.
//!
//! Owns: the list of changes, their bytes, and what must hold before one is applied. Bytes from outside
//! are hostile until `decode` and `Session::check` accepted them.

use super::log::{Session, Stream};
use super::message::{self, IdText, Link, Message, MessageSeq, Producer, Status};
use super::removal::Removed;
use crate::codec::{DecodeError, Reader, Writer, open_section};
use crate::ids::UnixMs;
use crate::limits;
use crate::vector::{Quant, StoredVector};
use std::borrow::Cow;

/// Section tag of a change.
pub const TAG_EFFECT: u16 = 0x0401;
/// The version of changes that every release knows.
const VERSION: u16 = 1;
/// The version of those that came later: `Replace`, `SetModel`.
const VERSION_2: u16 = 2;

/// One change of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect<'a> {
    /// Messages behind all others, their places given.
    Append {
        /// The messages.
        messages: Vec<Message<'a>>,
    },
    /// How long the session lives after the last message; 0 for no such rule.
    SetTtl {
        /// That time.
        ttl_ms: u64,
    },
    /// These messages go.
    Remove {
        /// Their places.
        seqs: Vec<MessageSeq>,
    },
    /// Messages before this place go, unless pinned.
    Cut {
        /// The place.
        before: MessageSeq,
    },
    /// All messages go.
    Clear,
    /// A message says something else from now on.
    Edit {
        /// Which.
        seq: MessageSeq,
        /// What it says.
        payload: &'a [u8],
        /// Its tokens.
        tokens: u32,
        /// Whether they are a guess.
        estimated: bool,
        /// Its vector; none removes the one it had.
        vector: Option<Cow<'a, [u8]>>,
    },
    /// A summary stands for the messages up to a place, pinned ones aside.
    Compact {
        /// The last of them; the summary takes its place.
        upto: MessageSeq,
        /// Role of the summary.
        role: &'a [u8],
        /// The summary.
        payload: &'a [u8],
        /// Its tokens.
        tokens: u32,
        /// Whether they are a guess.
        estimated: bool,
    },
    /// An open message grows.
    Chunk {
        /// Which.
        seq: MessageSeq,
        /// Its length before.
        offset: u32,
        /// Until when it is its producer's.
        lease_until: UnixMs,
        /// What is added.
        data: &'a [u8],
    },
    /// An open message has another producer.
    Produce {
        /// Which.
        seq: MessageSeq,
        /// The producer.
        producer: Producer,
    },
    /// An open message has ended, or what was known of its end is corrected.
    End {
        /// Which.
        seq: MessageSeq,
        /// How it ended.
        status: Status,
        /// Its tokens.
        tokens: u32,
        /// Whether they are a guess.
        estimated: bool,
        /// META instead of what BEGIN gave.
        meta: Option<&'a [u8]>,
    },
    /// Messages say something else from now on, in everything but place and ID.
    Replace {
        /// The messages as they are to be.
        messages: Vec<Message<'a>>,
    },
    /// Messages are embedded by this model from now on.
    SetModel {
        /// Its name and digest.
        model: &'a [u8],
    },
}

impl<'a> Effect<'a> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Append { .. } => 1,
            Self::SetTtl { .. } => 2,
            Self::Remove { .. } => 3,
            Self::Cut { .. } => 4,
            Self::Clear => 5,
            Self::Edit { .. } => 6,
            Self::Compact { .. } => 7,
            Self::Chunk { .. } => 8,
            Self::Produce { .. } => 9,
            Self::End { .. } => 10,
            Self::Replace { .. } => 11,
            Self::SetModel { .. } => 12,
        }
    }

    /// Whether it concerns a setting of the session, and so no other change.
    pub fn is_setting(&self) -> bool {
        matches!(self, Self::SetTtl { .. } | Self::SetModel { .. })
    }

    /// The version of the section that holds a change of this kind.
    const fn version(kind: u8) -> u16 {
        if kind <= 10 { VERSION } else { VERSION_2 }
    }

    /// The bytes: one section.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::section(TAG_EFFECT, Self::version(self.kind()));
        out.u8(self.kind());
        match self {
            Self::Append { messages } | Self::Replace { messages } => {
                messages.iter().for_each(|message| message.encode(&mut out));
            }
            Self::SetTtl { ttl_ms } => {
                out.u64(*ttl_ms);
            }
            Self::Remove { seqs } => seqs.iter().for_each(|seq| {
                out.u32(seq.0);
            }),
            Self::Cut { before } => {
                out.u32(before.0);
            }
            Self::Clear => {}
            Self::Edit { seq, payload, tokens, estimated, vector } => {
                out.u32(seq.0).bytes(payload).u32(*tokens).u8(u8::from(*estimated));
                out.bytes(vector.as_deref().unwrap_or_default());
            }
            Self::Compact { upto, role, payload, tokens, estimated } => {
                out.u32(upto.0).bytes(role).bytes(payload).u32(*tokens).u8(u8::from(*estimated));
            }
            Self::Chunk { seq, offset, lease_until, data } => {
                out.u32(seq.0).u32(*offset).u64(lease_until.0).bytes(data);
            }
            Self::Produce { seq, producer } => {
                out.u32(seq.0).u64(producer.token).u32(producer.lease_ms);
                out.u64(producer.lease_until.0);
            }
            Self::End { seq, status, tokens, estimated, meta } => {
                out.u32(seq.0).u8(*status as u8).u32(*tokens).u8(u8::from(*estimated));
                out.bytes(meta.unwrap_or_default());
            }
            Self::SetModel { model } => {
                out.bytes(model);
            }
        }
        out.finish()
    }

    /// Takes in bytes of unknown origin.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        let kind = from.u8()?;
        if (tag, version) != (TAG_EFFECT, Self::version(kind)) {
            return Err(DecodeError("not a change of a session of a known version"));
        }
        let effect = Self::decode_body(kind, &mut from)?;
        from.finish()?;
        Ok(effect)
    }

    fn decode_body(kind: u8, from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        const PAYLOAD: usize = limits::SESSION_PAYLOAD_MAX_BYTES;
        let seq = |from: &mut Reader<'_>| from.u32().map(MessageSeq);
        Ok(match kind {
            1 => Self::Append { messages: decode_messages(from)? },
            11 => Self::Replace { messages: decode_messages(from)? },
            2 => Self::SetTtl { ttl_ms: from.u64()? },
            3 => {
                let count = from.remaining() / 4;
                Self::Remove { seqs: (0..count).map(|_| seq(from)).collect::<Result<_, _>>()? }
            }
            4 => Self::Cut { before: seq(from)? },
            5 => Self::Clear,
            6 => Self::Edit {
                seq: seq(from)?,
                payload: from.bytes(PAYLOAD)?,
                tokens: from.u32()?,
                estimated: flag(from)?,
                vector: Some(from.bytes(limits::DIM_MAX as usize * 2)?)
                    .filter(|vector| !vector.is_empty())
                    .map(Cow::Borrowed),
            },
            7 => Self::Compact {
                upto: seq(from)?,
                role: from.bytes(limits::ROLE_MAX_BYTES)?,
                payload: from.bytes(PAYLOAD)?,
                tokens: from.u32()?,
                estimated: flag(from)?,
            },
            8 => Self::Chunk {
                seq: seq(from)?,
                offset: from.u32()?,
                lease_until: UnixMs(from.u64()?),
                data: from.bytes(PAYLOAD)?,
            },
            9 => {
                let (seq, token, lease_ms) = (seq(from)?, from.u64()?, from.u32()?);
                let lease_until = UnixMs(from.u64()?);
                let producer = Producer { token, lease_ms, lease_until };
                Self::Produce { seq, producer }
            }
            10 => Self::End {
                seq: seq(from)?,
                status: Status::from_byte(from.u8()?).ok_or(DecodeError("unknown status"))?,
                tokens: from.u32()?,
                estimated: flag(from)?,
                meta: Some(from.bytes(limits::META_MAX_BYTES)?).filter(|meta| !meta.is_empty()),
            },
            12 => Self::SetModel { model: from.bytes(limits::MODEL_MAX_BYTES)? },
            _ => return Err(DecodeError("unknown change of a session")),
        })
    }
}

fn decode_messages<'a>(from: &mut Reader<'a>) -> Result<Vec<Message<'a>>, DecodeError> {
    let mut messages = Vec::new();
    while let Some(message) = Message::decode(from)? {
        messages.push(message);
    }
    Ok(messages)
}

fn flag(from: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError("a flag is neither on nor off")),
    }
}

impl Session {
    /// Whether a change that came from outside can be applied.
    pub fn check(&self, effect: &Effect<'_>) -> Result<(), DecodeError> {
        match effect {
            Effect::Append { messages } => self.check_append(messages),
            Effect::Replace { messages } => self.check_replace(messages),
            Effect::SetTtl { ttl_ms } if *ttl_ms > limits::TTL_MAX_MS => {
                Err(DecodeError("the time to live of a session is out of range"))
            }
            Effect::SetModel { model: b"" } => Err(DecodeError("a session of an unnamed model")),
            Effect::SetModel { .. }
            | Effect::SetTtl { .. }
            | Effect::Remove { .. }
            | Effect::Cut { .. }
            | Effect::Clear => Ok(()),
            Effect::Edit { seq, vector, .. } => {
                self.check_vector(vector.as_deref(), self.dim())?;
                self.check_message(*seq, |status| status != Status::Open)
            }
            Effect::Compact { upto, role, .. } => {
                message::check_role(role).map_err(|_| DecodeError("role of a summary"))?;
                self.roles
                    .check_room([*role].into_iter())
                    .map_err(|_| DecodeError("too many roles"))?;
                match self.compact_place(*upto) {
                    Some(_) => Ok(()),
                    None => Err(DecodeError("nothing to stand for")),
                }
            }
            Effect::Chunk { seq, offset, lease_until, data } => {
                message::check_lease(0, *lease_until)?;
                let stream = self.stream(*seq).ok_or(DecodeError("no such open message"))?;
                let end = stream.text.len() + data.len();
                if stream.text.len() != *offset as usize || end > limits::SESSION_PAYLOAD_MAX_BYTES
                {
                    return Err(DecodeError("the part does not fit its message"));
                }
                Ok(())
            }
            Effect::Produce { seq, producer } => {
                message::check_lease(producer.lease_ms, producer.lease_until)?;
                self.check_message(*seq, |status| status == Status::Open)
            }
            Effect::End { seq, status, meta, .. } => {
                if matches!(status, Status::Whole | Status::Open) {
                    return Err(DecodeError("no end of a stream"));
                }
                if meta.is_some_and(|meta| !message::is_json_object(meta)) {
                    return Err(DecodeError("META of a message is no JSON object"));
                }
                self.check_message(*seq, |status| status != Status::Whole)
            }
        }
    }

    fn check_message(
        &self,
        seq: MessageSeq,
        wanted: impl Fn(Status) -> bool,
    ) -> Result<(), DecodeError> {
        let status = self.locate(seq).map(|at| self.record(at).1.status());
        if status.is_some_and(wanted) { Ok(()) } else { Err(DecodeError("no such message")) }
    }

    fn check_vector(&self, vector: Option<&[u8]>, dim: Option<u32>) -> Result<(), DecodeError> {
        let Some(vector) = vector else { return Ok(()) };
        let own = (vector.len() / 2) as u32;
        let sound = StoredVector::parse(Quant::F16, own, vector).is_ok();
        if sound && dim.is_none_or(|dim| dim == own) {
            Ok(())
        } else {
            Err(DecodeError("vector of a message"))
        }
    }

    fn check_append(&self, messages: &[Message<'_>]) -> Result<(), DecodeError> {
        let mut ids = hashbrown::HashSet::new();
        let (mut next, mut dim) = (self.next_seq, self.dim());
        let mut open = self.streams.len();
        for message in messages {
            if message.seq.0 < next {
                return Err(DecodeError("messages out of order"));
            }
            next = message.seq.0 + 1;
            self.check_vector(message.vector.as_deref(), dim)?;
            dim = dim.or(message.dim().map(|dim| dim as u32));
            open += usize::from(message.status == Status::Open);
            if let Some(id) = &message.id
                && (!ids.insert(id.to_vec()) || self.find_id(id).is_some())
            {
                return Err(DecodeError("an id of two messages"));
            }
        }
        let roles = messages.iter().map(|message| message.role);
        self.roles.check_room(roles).map_err(|_| DecodeError("too many roles"))?;
        if open > limits::SESSION_STREAMS_MAX {
            return Err(DecodeError("too many open messages"));
        }
        Ok(())
    }

    fn check_replace(&self, messages: &[Message<'_>]) -> Result<(), DecodeError> {
        let mut dim = self.dim();
        for message in messages {
            self.check_message(message.seq, |status| status != Status::Open)?;
            let same_id = self
                .locate(message.seq)
                .is_some_and(|at| self.message(at).id.as_deref() == message.id.as_deref());
            if !same_id || message.status != Status::Whole {
                return Err(DecodeError("a message in the place of another"));
            }
            self.check_vector(message.vector.as_deref(), dim)?;
            dim = dim.or(message.dim().map(|dim| dim as u32));
        }
        let roles = messages.iter().map(|message| message.role);
        self.roles.check_room(roles).map_err(|_| DecodeError("too many roles"))
    }

    /// Where the summary of the messages up to `upto` goes: the last of them that is not pinned.
    /// `None` where there is none, or one is open.
    pub(super) fn compact_place(&self, upto: MessageSeq) -> Option<MessageSeq> {
        if self.streams.iter().any(|stream| stream.seq <= upto.0) {
            return None;
        }
        let mut back = self.heads_back(upto);
        let free = back.find(|(_, head)| !head.has(super::record::FLAG_PINNED));
        free.map(|(_, head)| MessageSeq(head.seq))
    }

    /// Applies a change that was planned here or checked. Returns how many messages went or changed.
    pub fn apply(&mut self, effect: &Effect<'_>) -> u64 {
        self.apply_keeping(effect, &mut Removed::default())
    }

    /// The same; blocks that went are left in `removed`, to be dropped elsewhere.
    pub fn apply_keeping(&mut self, effect: &Effect<'_>, removed: &mut Removed) -> u64 {
        match effect {
            Effect::Append { messages } => {
                messages.iter().for_each(|message| self.push(message));
                messages.len() as u64
            }
            Effect::Replace { messages } => {
                self.replace(messages);
                messages.len() as u64
            }
            Effect::SetTtl { ttl_ms } => {
                self.ttl_ms = *ttl_ms;
                0
            }
            Effect::SetModel { model } => {
                self.model = (*model).into();
                0
            }
            Effect::Remove { seqs } => self.remove(seqs),
            Effect::Cut { before } => self.remove_before(*before, removed),
            Effect::Clear => self.clear(removed),
            Effect::Edit { seq, payload, tokens, estimated, vector } => self.change(
                *seq,
                &Changes {
                    payload: Some(payload),
                    tokens: *tokens,
                    estimated: *estimated,
                    status: None,
                    meta: None,
                    vector: Some(vector.as_deref()),
                },
            ),
            Effect::Compact { upto, role, payload, tokens, estimated } => {
                let mut summary = Message::plain(*upto, role, payload);
                (summary.tokens, summary.estimated) = (*tokens, *estimated);
                self.compact(summary, removed)
            }
            Effect::Chunk { seq, lease_until, data, .. } => self.change_stream(*seq, |stream| {
                stream.text.extend_from_slice(data);
                stream.producer.lease_until = *lease_until;
            }),
            Effect::Produce { seq, producer } => {
                self.change_stream(*seq, |stream| stream.producer = *producer)
            }
            Effect::End { seq, status, tokens, estimated, meta } => {
                let token = self.stream(*seq).map(|stream| stream.producer.token);
                self.note_ended(*seq, token);
                self.change(
                    *seq,
                    &Changes {
                        payload: None,
                        tokens: *tokens,
                        estimated: *estimated,
                        status: Some(*status),
                        meta: *meta,
                        vector: None,
                    },
                )
            }
        }
    }

    /// Puts a summary in the place of all up to it.
    fn compact(&mut self, mut summary: Message<'_>, removed: &mut Removed) -> u64 {
        let Some(place) = self.compact_place(summary.seq) else { return 0 };
        let count = self.remove_before(place, removed);
        (summary.seq, summary.summary) = (place, true);
        self.replace(std::slice::from_ref(&summary));
        count + 1
    }

    /// Puts a changed copy of a message in its place.
    fn change(&mut self, seq: MessageSeq, changes: &Changes<'_>) -> u64 {
        let Some(at) = self.locate(seq) else { return 0 };
        // Copies, because the message borrows what is about to be written.
        let old = self.whole_message(at);
        let (role, payload) = (old.role.to_vec(), changes.payload.unwrap_or(old.payload).to_vec());
        let meta = changes.meta.or(old.meta).map(<[u8]>::to_vec);
        let id = old.id.map(|id| id.to_vec());
        let link = old.link.map(|link| (link.kind, link.id.to_vec()));
        let vector = changes.vector.unwrap_or(old.vector.as_deref()).map(<[u8]>::to_vec);
        let status = changes.status.unwrap_or(old.status);
        let (pinned, summary) = (old.pinned, old.summary);
        self.replace(&[Message {
            seq,
            role: &role,
            payload: &payload,
            id: id.as_deref().map(IdText::Text),
            tokens: changes.tokens,
            estimated: changes.estimated,
            pinned,
            summary,
            link: link.as_ref().map(|(kind, id)| Link { kind: *kind, id: IdText::Text(id) }),
            meta: meta.as_deref(),
            vector: vector.map(Cow::Owned),
            status,
            producer: None,
        }]);
        1
    }

    fn change_stream(&mut self, seq: MessageSeq, change: impl FnOnce(&mut Stream)) -> u64 {
        let Some(place) = self.stream_place(seq) else { return 0 };
        change(&mut self.streams[place]);
        1
    }
}

/// What becomes of a message that is not open afterwards; `None` leaves a field as it was.
struct Changes<'e> {
    payload: Option<&'e [u8]>,
    tokens: u32,
    estimated: bool,
    status: Option<Status>,
    meta: Option<&'e [u8]>,
    vector: Option<Option<&'e [u8]>>,
}
