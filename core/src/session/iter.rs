//! Walks over the messages of a session, either way.

use super::block::Placed;
use super::log::{MessageRef, Session};
use super::message::{Message, MessageSeq};
use super::record::Head;
use std::borrow::Cow;

impl Session {
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
        let width = self.width();
        self.blocks.iter().flat_map(move |block| {
            block.records().map(move |placed| {
                let seq = block.base + placed.record.distance;
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
