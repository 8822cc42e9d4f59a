//! Streams: messages that are read while they are written. Who may write, and what a reader gets.
//!
//! Owns: the rules of BEGIN, CHUNK, FOLLOW, END and STOP. Changes nothing but the note of ended streams.

use super::characters;
use super::effect::Effect;
use super::log::Session;
use super::message::{IdText, Message, MessageSeq, Producer, Status, estimate_tokens};
use crate::error::{Error, ErrorWord, Result};
use crate::ids::UnixMs;
use crate::limits;

/// Ended streams whose END is known when sent again.
const ENDED_KNOWN: usize = 8;

/// What BEGIN asks.
#[derive(Debug)]
pub struct BeginRequest<'a> {
    /// Who speaks.
    pub role: &'a [u8],
    /// The caller's id, by which others find the stream.
    pub id: Option<&'a [u8]>,
    /// How long each write keeps the message its producer's.
    pub lease_ms: u32,
    /// A JSON object.
    pub meta: Option<&'a [u8]>,
    /// Whether to go on with a stream whose producer is silent.
    pub takeover: bool,
}

/// What BEGIN comes to.
#[derive(Debug)]
pub struct Began<'a> {
    /// The message.
    pub seq: MessageSeq,
    /// Its length.
    pub offset: u64,
    /// What changes, when the caller is its producer now.
    pub effect: Option<Effect<'a>>,
}

/// What CHUNK comes to.
#[derive(Debug)]
pub struct Chunked<'a> {
    /// Where the part ends; where the message ended once it has.
    pub end: u64,
    /// Somebody ended the message; its producer is to stop.
    pub stop: bool,
    /// What changes, unless the part was there or the message has ended.
    pub effect: Option<Effect<'a>>,
}

/// What END comes to.
#[derive(Debug, PartialEq)]
pub struct Ended<'a> {
    /// Length of the message.
    pub bytes: u64,
    /// How it ended.
    pub status: Status,
    /// What changes; `None` where it ended so before and the same is asked again.
    pub effect: Option<Effect<'a>>,
}

/// What a reader gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed<'s> {
    /// How far the message is.
    pub status: Status,
    /// Where to go on.
    pub next: u64,
    /// What is there from the offset on.
    pub data: &'s [u8],
    /// When the stream is abandoned unless written to; for open ones.
    pub lease_until: Option<UnixMs>,
}

impl Session {
    /// Makes an open message, or finds the one of this id. `token` is for a producer.
    pub fn plan_begin<'a>(
        &self,
        request: &BeginRequest<'a>,
        now: UnixMs,
        token: u64,
    ) -> Result<Began<'a>> {
        let producer = Producer {
            token,
            lease_ms: request.lease_ms,
            lease_until: UnixMs(now.0 + u64::from(request.lease_ms)),
        };
        if let Some(at) = request.id.and_then(|id| self.find_id(id)) {
            let message = self.message(at);
            if message.role != request.role {
                return Err(Error::err("the message of this ID has another role"));
            }
            let lapsed = message.producer.is_some_and(|other| other.lease_until.is_past(now));
            let effect = (lapsed && request.takeover)
                .then_some(Effect::Produce { seq: message.seq, producer });
            return Ok(Began { seq: message.seq, offset: message.payload.len() as u64, effect });
        }
        if self.streams.len() >= limits::SESSION_STREAMS_MAX {
            return Err(Error::new(ErrorWord::Busy, "the session has too many open messages"));
        }
        if self.next_seq > limits::SESSION_SEQ_MAX {
            return Err(Error::err("the session has taken all messages it can in its life"));
        }
        self.roles.check_room([request.role].into_iter())?;
        let mut message = Message::plain(self.next_seq(), request.role, b"");
        message.estimated = false;
        message.id = request.id.map(IdText::Text);
        message.meta = request.meta;
        message.status = Status::Open;
        message.producer = Some(producer);
        let effect = Effect::Append { messages: vec![message] };
        Ok(Began { seq: self.next_seq(), offset: 0, effect: Some(effect) })
    }

    /// Adds a part to an open message.
    pub fn plan_chunk<'a>(
        &self,
        seq: MessageSeq,
        token: u64,
        offset: u64,
        data: &'a [u8],
        now: UnixMs,
    ) -> Result<Chunked<'a>> {
        if let Some(message) = self.ended_message(seq, token) {
            return Ok(Chunked { end: message.payload.len() as u64, stop: true, effect: None });
        }
        let (text, producer) = self.produced(seq, token)?;
        let have = text.len() as u64;
        if offset > have {
            return Err(Error::err(format!(
                "offset {offset} leaves a gap: there are {have} bytes"
            )));
        }
        let end = offset + data.len() as u64;
        let overlap = (have - offset).min(data.len() as u64) as usize;
        if text[offset as usize..][..overlap] != data[..overlap] {
            return Err(Error::err(format!("other bytes are there from offset {offset} on")));
        }
        if end > limits::SESSION_PAYLOAD_MAX_BYTES as u64 {
            let max = limits::SESSION_PAYLOAD_MAX_BYTES;
            return Err(Error::too_big("the message", end as usize, max, "bytes"));
        }
        let lease_until = UnixMs(now.0 + u64::from(producer.lease_ms));
        let rest = &data[overlap..];
        let effect = (!rest.is_empty() || lease_until > producer.lease_until)
            .then_some(Effect::Chunk { seq, offset: have as u32, lease_until, data: rest });
        Ok(Chunked { end, stop: false, effect })
    }

    /// The text of an open message and its producer, which must be the caller.
    fn produced(&self, seq: MessageSeq, token: u64) -> Result<(&[u8], Producer)> {
        let Some(stream) = self.stream(seq) else {
            return Err(match self.locate(seq) {
                None => Error::err("no such message"),
                Some(_) => Error::new(ErrorWord::LeaseLost, "the message has ended"),
            });
        };
        if stream.producer.token != token {
            return Err(Error::new(ErrorWord::LeaseLost, "another producer has the message"));
        }
        Ok((&stream.text, stream.producer))
    }

    /// Ends an open message. One that STOP ended takes tokens and META all the same and stays stopped,
    /// unless it failed. The length and no change when this very END was seen before; one that says
    /// something else than the first is an error.
    pub fn plan_end<'a>(
        &self,
        seq: MessageSeq,
        token: u64,
        status: Option<Status>,
        tokens: Option<u32>,
        meta: Option<&'a [u8]>,
    ) -> Result<Ended<'a>> {
        let wanted = status.unwrap_or(Status::Done);
        let (bytes, status, again) = match self.ended_message(seq, token) {
            Some(message) => {
                let stopped = message.status == Status::Stopped && wanted == Status::Done;
                let status = if stopped { Status::Stopped } else { wanted };
                let again = message.status == status && status != Status::Stopped;
                if again {
                    check_same_end(&message, tokens, meta)?;
                }
                (message.payload.len(), status, again)
            }
            None => (self.produced(seq, token)?.0.len(), wanted, false),
        };
        let effect = Effect::End {
            seq,
            status,
            tokens: tokens.unwrap_or_else(|| estimate_tokens(bytes)),
            estimated: tokens.is_none(),
            meta,
        };
        Ok(Ended { bytes: bytes as u64, status, effect: (!again).then_some(effect) })
    }

    /// A message that has ended, asked for by who produced it.
    fn ended_message(&self, seq: MessageSeq, token: u64) -> Option<Message<'_>> {
        if !self.ended.contains(&(seq.0, token)) {
            return None;
        }
        // A message that took its place since was never a stream.
        let message = self.locate(seq).map(|at| self.message(at))?;
        (message.status != Status::Whole).then_some(message)
    }

    /// Ends an open message with what is there; its producer learns of it with its next part. `None`
    /// when the message is not open.
    pub fn plan_stop(&self, seq: MessageSeq) -> Option<Effect<'static>> {
        let tokens = estimate_tokens(self.stream(seq)?.text.len());
        Some(Effect::End { seq, status: Status::Stopped, tokens, estimated: true, meta: None })
    }

    /// What is there of a message from an offset on, at most `max` bytes and no half character of a text;
    /// `None` where there is no such message. An end is told together with the last byte, never before.
    pub fn follow(
        &self,
        seq: MessageSeq,
        offset: u64,
        max: usize,
        now: UnixMs,
    ) -> Result<Option<Followed<'_>>> {
        let Some(at) = self.locate(seq) else { return Ok(None) };
        let message = self.message(at);
        let have = message.payload.len() as u64;
        if offset > have {
            return Err(Error::err(format!("offset {offset} is beyond the end, {have}")));
        }
        let status = match message.status_at(now) {
            Status::Whole => Status::Done,
            status => status,
        };
        let rest = &message.payload[offset as usize..];
        let data = &rest[..characters::cut(rest, max, status != Status::Open)];
        let next = offset + data.len() as u64;
        let status = if next < have { Status::Open } else { status };
        let lease_until = message.producer.map(|producer| producer.lease_until);
        Ok(Some(Followed { status, next, data, lease_until }))
    }

    /// Whether a reader at this offset may have something now: while a message is written, a character
    /// that has only begun is nothing yet.
    pub fn is_readable(&self, seq: MessageSeq, offset: u64) -> bool {
        let message = self.locate(seq).map(|at| self.message(at));
        message.is_some_and(|message| {
            let rest = message.payload.get(offset as usize..).unwrap_or_default();
            characters::cut(rest, usize::MAX, message.status != Status::Open) > 0
        })
    }

    /// Keeps in mind whose stream ended.
    pub(super) fn note_ended(&mut self, seq: MessageSeq, token: Option<u64>) {
        if let Some(token) = token {
            if self.ended.len() >= ENDED_KNOWN {
                self.ended.pop_front();
            }
            self.ended.push_back((seq.0, token));
        }
    }
}

/// Refuses an END that was answered before when it says something else now.
fn check_same_end(ended: &Message<'_>, tokens: Option<u32>, meta: Option<&[u8]>) -> Result<()> {
    let differs = |what: &str| {
        Err(Error::err(format!("the message has ended with another {what}: nothing was changed")))
    };
    if tokens.is_some_and(|tokens| tokens != ended.tokens || ended.estimated) {
        return differs("TOKENS");
    }
    if meta.is_some() && meta != ended.meta {
        return differs("META");
    }
    Ok(())
}
