//! The messages of a session in their order, and what finds them.
//!
//! Owns: blocks, counters and tables, and that they agree. Changes come from `effect` alone, checked.
//! Main thread; saving also in the forked child.

use super::block::{Block, Rewrite};
use super::message::{Message, MessageSeq, Producer, Status};
use super::record::{self, FLAG_ESTIMATED, FLAG_PINNED, FLAG_SUMMARY, Head, Record};
use super::tables::{Roles, Tables};
use crate::allocation::allocated_bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sessions of more messages keep tables of ids and calls; in smaller ones all messages are looked at,
/// which takes less than a microsecond and saves a tenth of a message's memory.
pub(super) const SCANNED_MESSAGES: u64 = 64;

/// One conversation. A copy shares all blocks until one of the two changes them.
///
/// A request is planned against the session, which gives each message its sequence number, and applied as an
/// [`Effect`](super::Effect): what the primary applies is what replicas apply.
///
/// ```
/// use llmcache_core::session::{AppendTerms, Effect, Message, MessageSeq, Session, WindowRequest};
///
/// # fn main() -> llmcache_core::error::Result<()> {
/// let mut session = Session::new();
/// let said = ["Where is my parcel?", "It arrives today."].map(str::as_bytes);
/// let messages = said.map(|text| Message::plain(MessageSeq(0), b"user", text)).to_vec();
/// let planned = session.plan_append(messages, AppendTerms::default(), b"chat:7")?;
/// let messages = planned.expect("no condition was given").messages;
/// session.apply(&Effect::Append { messages });
///
/// assert_eq!((session.len(), session.last_seq()), (2, Some(MessageSeq(2))));
/// let window = session.window(&WindowRequest { last: Some(1), ..WindowRequest::default() });
/// assert_eq!(window.first, Some(MessageSeq(2)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) blocks: VecDeque<Arc<Block>>,
    /// Memory of all blocks.
    pub(super) block_bytes: usize,
    pub(super) roles: Roles,
    pub(super) tables: Option<Box<Tables>>,
    /// Places of pinned messages, in order.
    pub(super) pinned: Vec<u32>,
    /// Open messages, in order.
    pub(super) streams: Vec<Stream>,
    pub(super) next_seq: u32,
    pub(super) totals: Totals,
    /// Dimensions of every vector of the session; 0 before the first.
    pub(super) dim: u16,
    /// How long the session lives after the last message; 0 for no such rule.
    pub(super) ttl_ms: u64,
    /// The model that embeds its messages, by name and digest; empty for none.
    pub(super) model: Box<[u8]>,
    /// Messages whose streams ended last, with the tokens of their producers, so that an END sent again
    /// is known. Not saved.
    pub(super) ended: VecDeque<(u32, u64)>,
}

/// Sums over the messages of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages.
    pub messages: u64,
    /// Tokens of all.
    pub tokens: u64,
    /// Messages whose tokens are a guess.
    pub estimated: u64,
    /// Messages with a vector.
    pub vectors: u64,
    /// Bytes of all payloads, open messages aside.
    pub payload_bytes: u64,
}

/// The text of an open message.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) seq: u32,
    pub(super) text: Vec<u8>,
    pub(super) producer: Producer,
}

/// A message that carries nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief<'s> {
    /// Its place.
    pub seq: MessageSeq,
    /// Who speaks.
    pub role: &'s [u8],
    /// What is said.
    pub payload: &'s [u8],
    /// Its tokens.
    pub tokens: u32,
}

/// Where a message lies; good until the session changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef {
    pub(super) block: u32,
    pub(super) at: u32,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session without messages.
    pub fn new() -> Self {
        Self {
            blocks: VecDeque::new(),
            block_bytes: 0,
            roles: Roles::default(),
            tables: None,
            pinned: Vec::new(),
            streams: Vec::new(),
            next_seq: 1,
            totals: Totals::default(),
            dim: 0,
            ttl_ms: 0,
            model: Box::default(),
            ended: VecDeque::new(),
        }
    }

    /// Sums over its messages.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Messages.
    pub fn len(&self) -> u64 {
        self.totals.messages
    }

    /// Whether it has no messages.
    pub fn is_empty(&self) -> bool {
        self.totals.messages == 0
    }

    /// The place the next message gets.
    pub fn next_seq(&self) -> MessageSeq {
        MessageSeq(self.next_seq)
    }

    /// How long it lives after the last message; 0 for no such rule.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// The model that embeds its messages, by name and digest; empty where nothing does.
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// Dimensions of its vectors; `None` before the first.
    pub fn dim(&self) -> Option<u32> {
        (self.dim > 0).then_some(self.dim.into())
    }

    /// Pinned messages.
    pub fn pinned_count(&self) -> usize {
        self.pinned.len()
    }

    /// Open messages.
    pub fn open_count(&self) -> usize {
        self.streams.len()
    }

    /// The first message's place.
    pub fn first_seq(&self) -> Option<MessageSeq> {
        let block = self.blocks.front()?;
        let first = block.records().next()?;
        Some(MessageSeq(block.base + first.record.distance))
    }

    /// The newest message's place.
    pub fn last_seq(&self) -> Option<MessageSeq> {
        let block = self.blocks.back()?;
        let last = block.records().last()?;
        Some(MessageSeq(block.base + last.record.distance))
    }

    pub(super) fn width(&self) -> usize {
        usize::from(self.dim) * 2
    }

    pub(super) fn block_of(&self, seq: u32) -> Option<usize> {
        self.blocks.partition_point(|block| block.base <= seq).checked_sub(1)
    }

    /// Where a message lies.
    pub fn locate(&self, seq: MessageSeq) -> Option<MessageRef> {
        let block = self.block_of(seq.0)?;
        let placed = self.blocks[block].find(seq.0)?;
        Some(MessageRef { block: block as u32, at: placed.at })
    }

    pub(super) fn record(&self, at: MessageRef) -> (u32, Record<'_>) {
        let block = &self.blocks[at.block as usize];
        let record = block.record(at.at);
        (block.base + record.distance, record)
    }

    pub(super) fn head(&self, at: MessageRef) -> Head {
        let block = &self.blocks[at.block as usize];
        block.head(at.at)
    }

    /// The place of a message.
    pub fn seq_at(&self, at: MessageRef) -> MessageSeq {
        MessageSeq(self.head(at).seq)
    }

    /// A message without its vector.
    pub fn message(&self, at: MessageRef) -> Message<'_> {
        let (seq, record) = self.record(at);
        self.message_of(seq, &record)
    }

    /// A message with its vector.
    pub fn whole_message(&self, at: MessageRef) -> Message<'_> {
        let mut message = self.message(at);
        let block = &self.blocks[at.block as usize];
        message.vector = block.vector_at(at.at, self.width()).map(Cow::Borrowed);
        message
    }

    /// What a message is when it carries nothing but role, text and tokens; `None` for any other.
    #[inline]
    pub fn brief(&self, at: MessageRef) -> Option<Brief<'_>> {
        let (seq, record) = self.record(at);
        let Record { role, payload, tokens, .. } = record;
        let role = self.roles.name(role);
        record.is_plain().then_some(Brief { seq: MessageSeq(seq), role, payload, tokens })
    }

    pub(super) fn message_of<'s>(&'s self, seq: u32, record: &Record<'s>) -> Message<'s> {
        let status = record.status();
        let stream = if status == Status::Open { self.stream(MessageSeq(seq)) } else { None };
        Message {
            seq: MessageSeq(seq),
            role: self.roles.name(record.role),
            payload: stream.map_or(record.payload, |stream| &stream.text),
            id: record.id(),
            tokens: record.tokens,
            estimated: record.has(FLAG_ESTIMATED),
            pinned: record.has(FLAG_PINNED),
            summary: record.has(FLAG_SUMMARY),
            link: record.link(),
            meta: (!record.meta.is_empty()).then_some(record.meta),
            vector: None,
            status,
            producer: stream.map(|stream| stream.producer),
        }
    }

    pub(super) fn stream(&self, seq: MessageSeq) -> Option<&Stream> {
        self.stream_place(seq).map(|place| &self.streams[place])
    }

    pub(super) fn stream_place(&self, seq: MessageSeq) -> Option<usize> {
        self.streams.binary_search_by_key(&seq.0, |stream| stream.seq).ok()
    }

    /// The message of an id.
    pub fn find_id(&self, id: &[u8]) -> Option<MessageRef> {
        let has_id = |at: &MessageRef| self.record(*at).1.id().is_some_and(|other| *other == *id);
        let Some(tables) = &self.tables else {
            return self.forward(MessageSeq(0)).find(has_id);
        };
        tables.with_id(id).filter_map(|seq| self.locate(MessageSeq(seq))).find(has_id)
    }

    /// Appends a message behind all others.
    pub(super) fn push(&mut self, message: &Message<'_>) {
        let role = self.roles.number(message.role);
        let mut encoded = Vec::with_capacity(message.payload.len() + 64);
        let fits = |block: &Arc<Block>, encoded: &mut Vec<u8>| {
            record::encode(message, role, block.base, encoded);
            !block.is_full_for(encoded.len())
        };
        if !self.blocks.back().is_some_and(|block| fits(block, &mut encoded)) {
            if let Some(last) = self.blocks.len().checked_sub(1) {
                self.rework(last, Block::seal);
            }
            encoded.clear();
            record::encode(message, role, message.seq.0, &mut encoded);
            if self.blocks.len() == self.blocks.capacity() {
                // Most sessions have a block or two.
                self.blocks.reserve_exact(1 + self.blocks.len() / 4);
            }
            let block = Arc::new(Block::new(message.seq.0));
            self.block_bytes += block.heap_bytes();
            self.blocks.push_back(block);
        }
        if let Some(dim) = message.dim() {
            self.dim = dim as u16;
        }
        let vector = message.vector.as_deref();
        self.rework(self.blocks.len() - 1, |block| block.push(&encoded, vector));
        self.next_seq = message.seq.0 + 1;
        self.remember(message);
        self.index(message.seq.0, Some(&Record::parse(&encoded, 0).0));
    }

    /// Changes a block, of which a fork keeps the one it shares, and keeps count of its memory.
    pub(super) fn rework(&mut self, index: usize, change: impl FnOnce(&mut Block)) {
        // A copy has no room to spare: what it takes is another number.
        self.block_bytes -= self.blocks[index].heap_bytes();
        let block = Arc::make_mut(&mut self.blocks[index]);
        change(block);
        self.block_bytes += block.heap_bytes();
    }

    /// Counts a message in and makes it findable.
    fn remember(&mut self, message: &Message<'_>) {
        let seq = message.seq.0;
        if message.pinned
            && let Err(place) = self.pinned.binary_search(&seq)
        {
            self.pinned.insert(place, seq);
        }
        if let Some(producer) = message.producer
            && let Err(place) = self.streams.binary_search_by_key(&seq, |stream| stream.seq)
        {
            let text = message.payload.to_vec();
            self.streams.insert(place, Stream { seq, text, producer });
        } else {
            self.totals.payload_bytes += message.payload.len() as u64;
        }
        let totals = &mut self.totals;
        totals.messages += 1;
        totals.tokens += u64::from(message.tokens);
        totals.estimated += u64::from(message.estimated);
        totals.vectors += u64::from(message.vector.is_some());
    }

    /// Puts a message that is in its block into the tables, which are made when they begin to pay. Where its record is at
    /// hand, its block is not searched for it.
    fn index(&mut self, seq: u32, record: Option<&Record<'_>>) {
        let mut tables = self.tables.take();
        match (&mut tables, record) {
            (Some(tables), Some(record)) => tables.insert(seq, record),
            (Some(tables), None) => {
                if let Some(at) = self.locate(MessageSeq(seq)) {
                    tables.insert(seq, &self.record(at).1);
                }
            }
            (None, _) if self.totals.messages > SCANNED_MESSAGES => {
                let mut new = Box::<Tables>::default();
                for at in self.forward(MessageSeq(0)) {
                    let (seq, record) = self.record(at);
                    new.insert(seq, &record);
                }
                tables = Some(new);
            }
            (None, _) => {}
        }
        self.tables = tables;
    }

    /// The reverse, for the record of a message.
    pub(super) fn forget(&mut self, seq: u32, record: &Record<'_>) {
        if let Some(tables) = &mut self.tables {
            tables.remove(seq, record);
        }
        if let Ok(place) = self.pinned.binary_search(&seq) {
            self.pinned.remove(place);
        }
        if let Some(place) = self.stream_place(MessageSeq(seq)) {
            self.streams.remove(place);
        }
        let totals = &mut self.totals;
        totals.messages -= 1;
        totals.tokens -= u64::from(record.tokens);
        totals.estimated -= u64::from(record.has(FLAG_ESTIMATED));
        totals.vectors -= u64::from(record.has(record::FLAG_VECTOR));
        totals.payload_bytes -= record.payload.len() as u64;
    }

    /// Puts messages in the places of those of their `seq`; of two of one place the later. Each block is written once.
    pub(super) fn replace(&mut self, messages: &[Message<'_>]) {
        // Roles are numbered as they come, here as on replicas.
        let mut order: Vec<(&Message<'_>, u8)> =
            messages.iter().map(|message| (message, self.roles.number(message.role))).collect();
        order.sort_by_key(|(message, _)| message.seq.0);
        // From the end, as a block that is split moves those behind it.
        while let Some((last, _)) = order.last() {
            let Some(index) = self.block_of(last.seq.0) else { return };
            let base = self.blocks[index].base;
            let begin = order.partition_point(|(message, _)| message.seq.0 < base);
            self.replace_in(index, &order[begin..]);
            order.truncate(begin);
        }
    }

    /// The same for messages of one block, in their order.
    fn replace_in(&mut self, index: usize, messages: &[(&Message<'_>, u8)]) {
        let block = Arc::clone(&self.blocks[index]);
        let (base, mut found) = (block.base, Vec::with_capacity(messages.len()));
        let of = |seq: u32| {
            let behind = messages.partition_point(|(message, _)| message.seq.0 <= seq);
            let last = messages[..behind].last()?;
            (last.0.seq.0 == seq).then_some(*last)
        };
        for placed in block.records() {
            let seq = base + placed.record.distance;
            if let Some((message, _)) = of(seq) {
                self.forget(seq, &placed.record);
                found.push(message);
            }
        }
        drop(block);
        if let Some(dim) = found.iter().rev().find_map(|message| message.dim()) {
            self.dim = dim as u16;
        }
        let width = self.width();
        self.rework(index, |block| {
            block.rewrite(width, |placed| match of(base + placed.record.distance) {
                Some((message, role)) => Rewrite::put(message, role, base),
                None => Rewrite::Keep,
            });
        });
        // Their records are found in one walk over the block, as it is now.
        found.iter().for_each(|message| self.remember(message));
        let block = Arc::clone(&self.blocks[index]);
        for placed in block.records() {
            let seq = base + placed.record.distance;
            if of(seq).is_some() {
                self.index(seq, Some(&placed.record));
            }
        }
        self.split(index);
    }

    /// Makes several blocks of one that grew too large.
    fn split(&mut self, index: usize) {
        if !self.blocks[index].is_oversized() {
            return;
        }
        let width = self.width();
        let Some(block) = self.blocks.remove(index) else { return };
        self.block_bytes -= block.heap_bytes();
        let mut parts: Vec<Block> = Vec::new();
        for placed in block.records() {
            let mut message = self.message_of(block.base + placed.record.distance, &placed.record);
            message.vector = placed.vector.map(|number| block.vector(number, width).into());
            let mut encoded = Vec::new();
            let base = parts.last().map_or(message.seq.0, |part| part.base);
            record::encode(&message, placed.record.role, base, &mut encoded);
            if parts.last().is_none_or(|part| part.is_full_for(encoded.len())) {
                encoded.clear();
                record::encode(&message, placed.record.role, message.seq.0, &mut encoded);
                parts.push(Block::new(message.seq.0));
            }
            if let Some(part) = parts.last_mut() {
                part.push(&encoded, message.vector.as_deref());
            }
        }
        for mut part in parts.into_iter().rev() {
            part.seal();
            self.block_bytes += part.heap_bytes();
            self.blocks.insert(index, Arc::new(part));
        }
    }

    /// Memory behind the session itself. Blocks that it shares with forks count in each.
    pub fn heap_bytes(&self) -> usize {
        allocated_bytes(self.blocks.capacity() * size_of::<Arc<Block>>())
            + self.block_bytes
            + allocated_bytes(self.model.len())
            + self.roles.heap_bytes()
            + self.tables.as_ref().map_or(0, |tables| tables.heap_bytes())
            + allocated_bytes(self.ended.capacity() * size_of::<(u32, u64)>())
            + allocated_bytes(self.pinned.capacity() * size_of::<u32>())
            + allocated_bytes(self.streams.capacity() * size_of::<Stream>())
            + self.streams.iter().map(|s| allocated_bytes(s.text.capacity())).sum::<usize>()
    }

    /// Allocations that freeing it gives back.
    pub fn allocations(&self) -> usize {
        1 + 3 * self.blocks.len()
    }
}
