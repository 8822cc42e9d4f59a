//! Plans a command: turns a request into effects, or returns an error and changes nothing.
//!
//! Owns: the rules of APPEND, trims, EDIT and COMPACT. Changes nothing.

use super::effect::Effect;
use super::log::Session;
use super::message::{Message, MessageSeq, Status};
use crate::error::{Error, ErrorWord, Result};
use crate::limits;
use crate::vector::Query;
use crate::work;
use hashbrown::{HashMap, HashSet};
use std::borrow::Cow;

/// On which terms messages are appended.
#[derive(Debug, Clone, Copy)]
pub struct AppendTerms {
    /// Whether NX and XX hold.
    pub allowed: bool,
    /// What the newest message must be.
    pub if_seq: Option<u32>,
    /// A message of a known ID replaces it.
    pub upsert: bool,
    /// All messages that are there go first.
    pub clear: bool,
}

impl Default for AppendTerms {
    fn default() -> Self {
        Self { allowed: true, if_seq: None, upsert: false, clear: false }
    }
}

/// What becomes of a message that is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there already.
    Duplicate = 0,
    /// It is new.
    New = 1,
    /// It took the place of the one of its ID.
    Replaced = 2,
}

/// What APPEND will do.
#[derive(Debug)]
pub struct Appending<'a> {
    /// For each message its place, and what becomes of it.
    pub outcomes: Vec<(MessageSeq, Outcome)>,
    /// Whether all that is there goes first.
    pub clear: bool,
    /// Those that take the place of others.
    pub replaced: Vec<Message<'a>>,
    /// The new ones.
    pub messages: Vec<Message<'a>>,
}

impl<'a> Appending<'a> {
    fn new(clear: bool) -> Self {
        Self { outcomes: Vec::new(), clear, replaced: Vec::new(), messages: Vec::new() }
    }

    /// Whether everything was there already.
    pub fn changes_nothing(&self) -> bool {
        !self.clear && self.replaced.is_empty() && self.messages.is_empty()
    }

    /// Plans a message, and returns where it is among those planned.
    fn push(&mut self, message: Message<'a>, outcome: Outcome) -> Planned {
        self.outcomes.push((message.seq, outcome));
        let list = self.list(outcome);
        list.push(message);
        (outcome, list.len() - 1)
    }

    fn list(&mut self, outcome: Outcome) -> &mut Vec<Message<'a>> {
        if outcome == Outcome::Replaced { &mut self.replaced } else { &mut self.messages }
    }
}

/// A message among those planned: which list, and where in it.
type Planned = (Outcome, usize);

impl Session {
    /// Gives new messages their places and finds those that are here already. `None` when the
    /// conditions do not hold: `allowed` is false or the newest message is not `if_seq`. Where all are
    /// duplicates, conditions do not matter: the same request was answered before. `name` is for
    /// errors.
    pub fn plan_append<'a>(
        &self,
        messages: Vec<Message<'a>>,
        terms: AppendTerms,
        name: &[u8],
    ) -> Result<Option<Appending<'a>>> {
        let clear = terms.clear && !self.is_empty() && !self.holds_just(&messages);
        let cleared = clear.then(|| Self { next_seq: self.next_seq, ..Self::new() });
        let base = cleared.as_ref().unwrap_or(self);
        let mut planned = Appending::new(clear);
        let mut own: HashMap<Vec<u8>, Planned> = HashMap::new();
        let mut next = self.next_seq;
        let mut dim = base.dim();
        for mut message in messages {
            check_dim(dim, &message, name)?;
            dim = dim.or(message.dim().map(|dim| dim as u32));
            let id = message.id;
            if let Some(&(list, at)) = id.and_then(|id| own.get(&*id)) {
                let earlier = &mut planned.list(list)[at];
                message.seq = earlier.seq;
                let outcome = meet(earlier, &message, terms.upsert)?;
                if outcome == Outcome::Replaced {
                    *earlier = message;
                }
                let seq = earlier.seq;
                planned.outcomes.push((seq, outcome));
                continue;
            }
            let there = id.and_then(|id| base.find_id(&id)).map(|at| base.whole_message(at));
            let mut outcome = Outcome::New;
            if let Some(earlier) = there {
                message.seq = earlier.seq;
                outcome = meet(&earlier, &message, terms.upsert)?;
                if outcome == Outcome::Duplicate {
                    planned.outcomes.push((earlier.seq, outcome));
                    continue;
                }
            } else if next > limits::SESSION_SEQ_MAX {
                return Err(Error::err("the session has taken all messages it can in its life"));
            } else {
                message.seq = MessageSeq(next);
                next += 1;
            }
            let place = planned.push(message, outcome);
            if let Some(id) = id {
                own.insert(id.to_vec(), place);
            }
        }
        if planned.changes_nothing() {
            return Ok(Some(planned));
        }
        let newest = self.last_seq().map_or(0, |seq| seq.0);
        if !terms.allowed || terms.if_seq.is_some_and(|seq| seq != newest) {
            return Ok(None);
        }
        let changed = || planned.replaced.iter().chain(&planned.messages);
        base.roles.check_room(changed().map(|message| message.role))?;
        check_pins(base.pinned.len(), changed())?;
        Ok(Some(planned))
    }

    /// Whether these messages, each with an ID, are what is here, in this order and nothing else: a
    /// request that replaced everything and is sent again.
    fn holds_just(&self, messages: &[Message<'_>]) -> bool {
        self.len() == messages.len() as u64
            && self.whole_messages().zip(messages).all(|(here, message)| {
                let is_named = message.id.is_some() && here.id == message.id;
                is_named && says_the_same(&here, message)
            })
    }

    /// Messages that name their places, as EXPORT wrote them, or take the next.
    pub fn plan_load<'a>(
        &self,
        mut messages: Vec<(Option<MessageSeq>, Message<'a>)>,
        name: &[u8],
    ) -> Result<Vec<Message<'a>>> {
        let (mut next, mut dim) = (self.next_seq, self.dim());
        let mut ids = HashSet::new();
        for (line, (seq, message)) in messages.iter_mut().enumerate() {
            let seq = seq.map_or(next, |seq| seq.0);
            if seq < next || seq > limits::SESSION_SEQ_MAX {
                let line = line + 1;
                return Err(Error::err(format!("line {line}: seq {seq} is not behind all others")));
            }
            message.seq = MessageSeq(seq);
            next = seq + 1;
            check_dim(dim, message, name)?;
            dim = dim.or(message.dim().map(|dim| dim as u32));
            if let Some(id) = message.id
                && (!ids.insert(id.to_vec()) || self.find_id(&id).is_some())
            {
                return Err(Error::err(format!("line {}: the id is another message's", line + 1)));
            }
        }
        let messages: Vec<_> = messages.into_iter().map(|(_, message)| message).collect();
        self.roles.check_room(messages.iter().map(|message| message.role))?;
        check_pins(self.pinned.len(), messages.iter())?;
        Ok(messages)
    }

    /// The place before which unpinned messages must go, so that at most `most` are left.
    pub fn cut_for_length(&self, most: u64) -> MessageSeq {
        let pinned = self.pinned.len() as u64;
        let unpinned = self.totals.messages - pinned;
        let doomed = unpinned.saturating_sub(most.saturating_sub(pinned));
        self.cut_after(|gone, _| gone < doomed)
    }

    /// The place before which unpinned messages must go, so that at most `most` tokens are left.
    pub fn cut_for_tokens(&self, most: u64) -> MessageSeq {
        let total = self.totals.tokens;
        self.cut_after(|_, tokens| total - tokens > most)
    }

    /// The first unpinned message for which `goes`, told how many went before it and their tokens,
    /// says no. Blocks of which all go are passed over whole.
    fn cut_after(&self, goes: impl Fn(u64, u64) -> bool) -> MessageSeq {
        let (mut gone, mut tokens) = (0, 0);
        for block in &self.blocks {
            let sums = &block.sums;
            let all = (gone + sums.unpinned(), tokens + sums.tokens);
            if sums.pinned == 0 && goes(all.0, all.1) {
                (gone, tokens) = all;
                continue;
            }
            for head in block.heads() {
                if !goes(gone, tokens) {
                    return MessageSeq(head.seq);
                }
                if !head.has(super::record::FLAG_PINNED) {
                    gone += 1;
                    tokens += u64::from(head.tokens);
                }
            }
            work::count_path(sums.messages.into());
        }
        work::count_path(self.blocks.len());
        self.next_seq()
    }

    /// What EDIT does; `None` where there is no such message.
    pub fn plan_edit<'a>(
        &self,
        seq: MessageSeq,
        payload: &'a [u8],
        tokens: Option<u32>,
        vector: Option<Vec<u8>>,
        name: &[u8],
    ) -> Result<Option<Effect<'a>>> {
        let Some(at) = self.locate(seq) else { return Ok(None) };
        if self.message(at).status == Status::Open {
            return Err(Error::err("the message is still being written"));
        }
        let mut message = Message::plain(seq, b"user", payload);
        message.vector = vector.map(Cow::Owned);
        check_dim(self.dim(), &message, name)?;
        Ok(Some(Effect::Edit {
            seq,
            payload,
            tokens: tokens.unwrap_or(message.tokens),
            estimated: tokens.is_none(),
            vector: message.vector,
        }))
    }

    /// What COMPACT does; `None` where there is nothing to stand for.
    pub fn plan_compact<'a>(
        &self,
        upto: MessageSeq,
        role: &'a [u8],
        payload: &'a [u8],
        tokens: Option<u32>,
    ) -> Result<Option<Effect<'a>>> {
        if self.streams.iter().any(|stream| stream.seq <= upto.0) {
            return Err(Error::err("a message up to there is still being written"));
        }
        self.roles.check_room([role].into_iter())?;
        if self.compact_place(upto).is_none() {
            return Ok(None);
        }
        let guess = super::message::estimate_tokens(payload.len());
        let (tokens, estimated) = (tokens.unwrap_or(guess), tokens.is_none());
        Ok(Some(Effect::Compact { upto, role, payload, tokens, estimated }))
    }

    /// Refuses a vector of another dimension than the session's.
    pub fn check_query(&self, query: &Query, name: &[u8]) -> Result<()> {
        match self.dim() {
            Some(dim) if dim as usize != query.dim() => Err(mismatch(query.dim(), dim, name)),
            _ => Ok(()),
        }
    }
}

impl Message<'_> {
    /// Makes an open message one that nobody writes to any more.
    pub fn abandon(&mut self) {
        self.status = Status::Abandoned;
        self.producer = None;
        self.tokens = super::message::estimate_tokens(self.payload.len());
        self.estimated = true;
    }
}

/// What becomes of a message whose ID `earlier` has.
fn meet(earlier: &Message<'_>, message: &Message<'_>, upsert: bool) -> Result<Outcome> {
    if upsert {
        if earlier.status == Status::Open {
            return Err(Error::err("the message of this ID is still being written"));
        }
        let same = says_the_same(earlier, message);
        return Ok(if same { Outcome::Duplicate } else { Outcome::Replaced });
    }
    check_same(earlier, message).map(|()| Outcome::Duplicate)
}

/// Whether two messages agree in everything but their place and what the server made up itself.
fn says_the_same(earlier: &Message<'_>, message: &Message<'_>) -> bool {
    earlier.status == Status::Whole
        && earlier.role == message.role
        && earlier.payload == message.payload
        && (earlier.tokens, earlier.estimated) == (message.tokens, message.estimated)
        && earlier.pinned == message.pinned
        && earlier.link == message.link
        && earlier.meta == message.meta
        && earlier.vector == message.vector
}

/// Refuses messages that would make too many pinned ones.
fn check_pins<'m>(there: usize, messages: impl Iterator<Item = &'m Message<'m>>) -> Result<()> {
    let new = messages.filter(|message| message.pinned).count();
    let max = limits::SESSION_PINS_MAX;
    if new > 0 && there + new > max {
        return Err(Error::too_big("the session", there + new, max, "pinned messages"));
    }
    Ok(())
}

fn check_same(earlier: &Message<'_>, message: &Message<'_>) -> Result<()> {
    if earlier.role == message.role
        && earlier.payload == message.payload
        && earlier.status == Status::Whole
    {
        return Ok(());
    }
    let id = message.id.map(|id| String::from_utf8_lossy(&id).into_owned()).unwrap_or_default();
    let seq = earlier.seq;
    Err(Error::err(format!("ID '{id}' is message {seq}, which says something else")))
}

fn check_dim(dim: Option<u32>, message: &Message<'_>, name: &[u8]) -> Result<()> {
    match (dim, message.dim()) {
        (Some(dim), Some(own)) if dim as usize != own => Err(mismatch(own, dim, name)),
        _ => Ok(()),
    }
}

fn mismatch(own: usize, dim: u32, name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
    let message = format!("vector has {own} dimensions, \"{name}\" holds {dim}");
    Error::new(ErrorWord::DimMismatch, message)
}
