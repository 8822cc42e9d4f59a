//! The encoding of a whole session in sections, for RDB and AOF.
//!
//! Owns: the head, and how messages are spread over sections of about a megabyte. Bytes from outside
//! are hostile until `decode` accepted them.

use super::effect::Effect;
use super::log::Session;
use super::message::Message;
use crate::codec::{DecodeError, Writer, open_section};
use crate::limits;

/// Section tag of a session's head.
pub const TAG_SESSION: u16 = 0x0402;
/// Section tag of some of its messages.
pub const TAG_MESSAGES: u16 = 0x0403;
const VERSION: u16 = 1;
/// The version of heads of sessions that have a model.
const VERSION_2: u16 = 2;

/// A section takes no further message past this.
const SECTION_BYTES: usize = 1 << 20;

impl Session {
    /// The head: what is not in the messages.
    pub fn encode_head(&self) -> Vec<u8> {
        let version = if self.model.is_empty() { VERSION } else { VERSION_2 };
        let mut out = Writer::section(TAG_SESSION, version);
        out.u64(self.ttl_ms).u32(self.next_seq).u16(self.dim);
        if version == VERSION_2 {
            out.bytes(&self.model);
        }
        out.finish()
    }

    /// The messages, as sections in their order, each handed to `put`.
    pub fn encode_messages(&self, mut put: impl FnMut(Vec<u8>)) {
        let mut messages: Vec<Message<'_>> = Vec::new();
        let mut bytes = 0;
        let mut flush = |messages: &mut Vec<Message<'_>>| {
            let mut out = Writer::section(TAG_MESSAGES, VERSION);
            messages.drain(..).for_each(|message| message.encode(&mut out));
            put(out.finish());
        };
        for message in self.whole_messages() {
            if bytes + message.encoded_bytes() > SECTION_BYTES && !messages.is_empty() {
                flush(&mut messages);
                bytes = 0;
            }
            bytes += message.encoded_bytes();
            messages.push(message);
        }
        if !messages.is_empty() {
            flush(&mut messages);
        }
    }

    /// How many sections `encode_messages` makes.
    pub fn sections(&self) -> u64 {
        let (mut sections, mut bytes) = (0, 0);
        for message in self.whole_messages() {
            let size = message.encoded_bytes();
            if sections == 0 || bytes + size > SECTION_BYTES {
                sections += 1;
                bytes = 0;
            }
            bytes += size;
        }
        sections
    }

    /// A session of this head, without messages.
    pub fn decode_head(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if tag != TAG_SESSION || !(VERSION..=VERSION_2).contains(&version) {
            return Err(DecodeError("not a session of a known version"));
        }
        let (ttl_ms, next_seq, dim) = (from.u64()?, from.u32()?, from.u16()?);
        let model: &[u8] = match version {
            VERSION_2 => from.bytes(limits::MODEL_MAX_BYTES)?,
            _ => b"",
        };
        if version == VERSION_2 && model.is_empty() {
            return Err(DecodeError("a session of an unnamed model"));
        }
        from.finish()?;
        if ttl_ms > limits::TTL_MAX_MS || next_seq == 0 || u32::from(dim) > limits::DIM_MAX {
            return Err(DecodeError("a number of a session is out of range"));
        }
        Ok(Self { ttl_ms, next_seq, dim, model: model.into(), ..Self::new() })
    }

    /// Takes in a section of messages, which follow those that are there.
    pub fn decode_messages(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (tag, version, mut from) = open_section(bytes)?;
        if (tag, version) != (TAG_MESSAGES, VERSION) {
            return Err(DecodeError("not messages of a known version"));
        }
        let mut messages = Vec::new();
        while let Some(message) = Message::decode(&mut from)? {
            messages.push(message);
        }
        // The head says which place comes next after all of them.
        let first = self.last_seq().map_or(1, |last| last.0 + 1);
        let next = std::mem::replace(&mut self.next_seq, first);
        let beyond = messages.last().is_some_and(|message| message.seq.0 >= next);
        let effect = Effect::Append { messages };
        let checked = self.check(&effect);
        if checked.is_ok() && !beyond {
            self.apply(&effect);
        }
        self.next_seq = next;
        checked?;
        if beyond { Err(DecodeError("a message beyond the next place")) } else { Ok(()) }
    }

    /// Feeds what two equal sessions agree on: everything but leases.
    pub fn digest(&self, mut add: impl FnMut(&[u8])) {
        add(&self.encode_head());
        for mut message in self.whole_messages() {
            if let Some(producer) = &mut message.producer {
                producer.lease_until = Default::default();
            }
            let mut out = Writer::section(TAG_MESSAGES, VERSION);
            message.encode(&mut out);
            add(&out.finish());
        }
    }
}
