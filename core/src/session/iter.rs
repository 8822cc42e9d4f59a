//! Walks over the messages of a session, either way.

use super::block::Placed;
use super::log::{MessageRef, Session};
use super::message::{Message, MessageSeq};
use super::record::Head;
use crate::limits;
use crate::work::count_path;
use std::borrow::Cow;

/// Messages between two places.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The first place.
    pub from: MessageSeq,
    /// The last.
    pub to: MessageSeq,
    /// Whether to begin at the last and go back.
    pub reverse: bool,
    /// The roles wanted, as `Session::roles_of` has them.
    pub wanted: u128,
    /// Most messages.
    pub count: u64,
}

/// What the protocol adds to a message: lengths, places, numbers.
const MESSAGE_OVERHEAD_BYTES: u64 = 64;

impl Session {
    /// Roles by their names, for `Range`.
    pub fn roles_of(&self, names: Option<&[&[u8]]>) -> u128 {
        self.roles.mask(names)
    }

    /// The messages of a range; where there are more than one reply may have, or too many are passed over, the place
    /// to go on with.
    pub fn range(&self, range: &Range) -> Result<Vec<MessageRef>, MessageSeq> {
        let (mut found, mut walked) = (Vec::new(), 0);
        let mut visit = |at: MessageRef, head: Head| {
            if walked == limits::SESSION_WALKED_MAX
                || found.len() == limits::SESSION_REPLY_MESSAGES_MAX
            {
                return Err(MessageSeq(head.seq));
            }
            walked += 1;
            if range.wanted >> head.role & 1 == 1 {
                found.push(at);
            }
            Ok((found.len() as u64) < range.count)
        };
        if range.reverse {
            for (at, head) in self.heads_back(range.to).take_while(|(_, h)| h.seq >= range.from.0) {
                if !visit(at, head)? {
                    break;
                }
            }
        } else {
            let forward = self.heads_from(range.from);
            for (at, head) in forward.take_while(|(_, head)| head.seq <= range.to.0) {
                if !visit(at, head)? {
                    break;
                }
            }
        }
        count_path(walked);
        Ok(found)
    }

    /// Bytes of messages in a reply, about: what they carry, and what the protocol adds.
    pub fn reply_bytes<'s>(&'s self, messages: &'s [MessageRef]) -> impl Iterator<Item = u64> + 's {
        let bytes = move |at: &MessageRef| {
            let head = self.head(*at);
            let open = self.stream(MessageSeq(head.seq)).map_or(0, |stream| stream.text.len());
            Self::answered_bytes(&head) + open as u64
        };
        messages.iter().map(bytes)
    }

    /// The same of one message whose text is in its record.
    pub(super) fn answered_bytes(head: &Head) -> u64 {
        u64::from(head.bytes) + MESSAGE_OVERHEAD_BYTES
    }

    /// The fronts of records from a place on, first to last.
    fn heads_from(&self, from: MessageSeq) -> impl Iterator<Item = (MessageRef, Head)> + '_ {
        let start = self.block_of(from.0).unwrap_or(0);
        self.blocks.iter().enumerate().skip(start).flat_map(move |(number, block)| {
            let heads = block.heads().filter(move |head| head.seq >= from.0);
            heads.map(move |head| (MessageRef { block: number as u32, at: head.at }, head))
        })
    }

    /// Messages from a place on, first to last.
    pub fn forward(&self, from: MessageSeq) -> impl Iterator<Item = MessageRef> {
        let start = self.block_of(from.0).unwrap_or(0);
        self.blocks.iter().enumerate().skip(start).flat_map(move |(number, block)| {
            let wanted = move |placed: &Placed<'_>| block.base + placed.record.distance >= from.0;
            let place =
                move |placed: Placed<'_>| MessageRef { block: number as u32, at: placed.at };
            block.records().filter(wanted).map(place)
        })
    }

    /// Messages from a place back, last to first.
    pub fn backward(&self, from: MessageSeq) -> impl Iterator<Item = MessageRef> {
        self.heads_back(from).map(|(at, _)| at)
    }

    /// The same with the fronts of the records, which are read a block at a time.
    pub(super) fn heads_back(&self, from: MessageSeq) -> Backward<'_> {
        let block = self.block_of(from.0).map_or(0, |block| block + 1);
        Backward { session: self, from: from.0, block, taken: Vec::new() }
    }

    /// All messages with their vectors, first to last.
    pub fn whole_messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.whole_messages_from(MessageSeq(0))
    }

    /// Messages with their vectors, from a place on, first to last.
    pub fn whole_messages_from(&self, from: MessageSeq) -> impl Iterator<Item = Message<'_>> {
        let (start, width) = (self.block_of(from.0).unwrap_or(0), self.width());
        self.blocks.iter().skip(start).flat_map(move |block| {
            let placed =
                block.records().map(|placed| (block.base + placed.record.distance, placed));
            placed.filter(move |(seq, _)| *seq >= from.0).map(move |(seq, placed)| {
                let mut message = self.message_of(seq, &placed.record);
                let vector = placed.vector.map(|number| block.vector(number, width));
                message.vector = vector.map(Cow::Borrowed);
                message
            })
        })
    }
}

/// A walk from newer to older messages.
#[derive(Debug)]
pub(super) struct Backward<'s> {
    session: &'s Session,
    from: u32,
    /// Blocks before this one are still to come.
    block: usize,
    /// What is left of that one.
    taken: Vec<Head>,
}

impl Iterator for Backward<'_> {
    type Item = (MessageRef, Head);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(head) = self.taken.pop() {
                return Some((MessageRef { block: self.block as u32, at: head.at }, head));
            }
            self.block = self.block.checked_sub(1)?;
            let from = self.from;
            let heads = self.session.blocks[self.block].heads();
            self.taken.extend(heads.take_while(|head| head.seq <= from));
        }
    }
}
