//! Removes messages from a session.
//!
//! Owns: that whole blocks go without a look at each of their messages, so that what a cut costs is the blocks it
//! removes and the few it cuts through, and that the tables do not keep more of what went than of what is there.

use super::block::{Block, Rewrite, Sums};
use super::log::{SCANNED_MESSAGES, Session};
use super::message::MessageSeq;
use super::record::{FLAG_PINNED, Record};
use super::tables::segment_end;
use crate::work::count_path;
use std::sync::Arc;

/// Blocks of a session that went, to be dropped where that holds up nobody.
#[derive(Debug, Default)]
pub struct Removed(Vec<Arc<Block>>);

impl Removed {
    /// How many allocations dropping it gives back at most.
    pub fn allocations(&self) -> usize {
        3 * self.0.len()
    }
}

/// Empty blocks that are taken out one by one; more of them are worth a pass over all.
const TAKEN_SINGLY: usize = 8;

impl Session {
    /// Removes the messages of a block that `doomed` names; returns how many.
    fn remove_in(&mut self, index: usize, doomed: &impl Fn(u32, &Record<'_>) -> bool) -> u64 {
        let block = Arc::clone(&self.blocks[index]);
        let base = block.base;
        let mut removed = 0;
        for placed in block.records() {
            let seq = base + placed.record.distance;
            if doomed(seq, &placed.record) {
                self.forget(seq, &placed.record);
                removed += 1;
            }
        }
        count_path(block.sums.messages.into());
        if removed == block.sums.messages {
            self.rework(index, |block| *block = Block::new(base));
        } else if removed > 0 {
            drop(block);
            let width = self.width();
            self.rework(index, |block| {
                block.rewrite(width, |placed| {
                    let doomed = doomed(base + placed.record.distance, &placed.record);
                    if doomed { Rewrite::Drop } else { Rewrite::Keep }
                });
            });
        }
        removed.into()
    }

    /// Removes these messages; returns how many were there.
    pub(super) fn remove(&mut self, seqs: &[MessageSeq]) -> u64 {
        let mut sorted: Vec<u32> = seqs.iter().map(|seq| seq.0).collect();
        sorted.sort_unstable();
        let doomed = |seq: u32, _: &Record<'_>| sorted.binary_search(&seq).is_ok();
        let (mut removed, mut empty, mut at) = (0, Vec::new(), 0);
        while at < sorted.len() {
            let Some(index) = self.block_of(sorted[at]) else {
                at += 1;
                continue;
            };
            removed += self.remove_in(index, &doomed);
            if self.blocks[index].sums.messages == 0 {
                empty.push(index);
            }
            let end = self.blocks.get(index + 1).map_or(u32::MAX, |next| next.base);
            at += sorted[at..].partition_point(|&seq| seq < end).max(1);
        }
        if empty.len() <= TAKEN_SINGLY {
            for index in empty.into_iter().rev() {
                self.take_out(index);
            }
        } else {
            self.take_out_empty();
        }
        self.shrink();
        removed
    }

    fn take_out(&mut self, index: usize) -> Option<Arc<Block>> {
        let block = self.blocks.remove(index)?;
        self.block_bytes -= block.heap_bytes();
        Some(block)
    }

    fn take_out_empty(&mut self) {
        count_path(self.blocks.len());
        let mut freed = 0;
        self.blocks.retain(|block| {
            let is_empty = block.sums.messages == 0;
            freed += if is_empty { block.heap_bytes() } else { 0 };
            !is_empty
        });
        self.block_bytes -= freed;
    }

    /// Removes the messages before a place that are not pinned; returns how many. Blocks of which nothing stays are
    /// left in `removed`.
    pub(super) fn remove_before(&mut self, cut: MessageSeq, removed: &mut Removed) -> u64 {
        let doomed = |seq: u32, record: &Record<'_>| seq < cut.0 && !record.has(FLAG_PINNED);
        let end = self.blocks.partition_point(|block| block.base < cut.0);
        let (mut messages, mut unseen) = (0, 0);
        let mut stays = vec![false; end];
        for (index, stays) in stays.iter_mut().enumerate() {
            let sums = self.blocks[index].sums;
            let is_cut_through = index + 1 == end && self.last_of(index) >= cut.0;
            if sums.pinned > 0 || sums.open > 0 || is_cut_through {
                messages += self.remove_in(index, &doomed);
                *stays = self.blocks[index].sums.messages > 0;
            } else {
                unseen += u64::from(sums.messages);
                self.discount(&sums);
            }
        }
        count_path(end);
        self.splice_front(&stays, removed);
        if unseen > 0 {
            self.refill_tables(0, cut.0);
        }
        self.shrink();
        messages + unseen
    }

    /// The newest message of a block.
    fn last_of(&self, index: usize) -> u32 {
        let block = &self.blocks[index];
        block.heads().last().map_or(block.base, |head| head.seq)
    }

    /// Takes the messages of a block out of the totals.
    fn discount(&mut self, sums: &Sums) {
        let totals = &mut self.totals;
        totals.messages -= u64::from(sums.messages);
        totals.tokens -= sums.tokens;
        totals.estimated -= u64::from(sums.estimated);
        totals.vectors -= u64::from(sums.vectors);
        totals.payload_bytes -= u64::from(sums.payload_bytes);
    }

    /// Leaves of the first blocks those that stay.
    fn splice_front(&mut self, stays: &[bool], removed: &mut Removed) {
        let mut kept = Vec::new();
        for (block, stays) in self.blocks.drain(..stays.len()).zip(stays) {
            if *stays {
                kept.push(block);
            } else {
                self.block_bytes -= block.heap_bytes();
                removed.0.push(block);
            }
        }
        for block in kept.into_iter().rev() {
            self.blocks.push_front(block);
        }
    }

    /// After messages of these places went without a look at each: fills those segments of the tables again that hold
    /// more of what went than of what is there.
    fn refill_tables(&mut self, from: u32, to: u32) {
        let Some(mut tables) = self.tables.take() else { return };
        for (first, entries) in tables.sizes() {
            let end = segment_end(first);
            if end <= from || first > to {
                continue;
            }
            let start = self.block_of(first).unwrap_or(0);
            let within = self.blocks.iter().skip(start).take_while(|block| block.base < end);
            let here: u64 = within.map(|block| u64::from(block.sums.messages)).sum();
            // Each message has at most two entries.
            if entries as u64 <= 2 * here + SCANNED_MESSAGES {
                continue;
            }
            tables.empty(first);
            for at in self.forward(MessageSeq(first)) {
                let (seq, record) = self.record(at);
                if seq >= end {
                    break;
                }
                tables.insert(seq, &record);
                count_path(1);
            }
        }
        self.tables = Some(tables);
    }

    /// Gives back room that would stay unused.
    fn shrink(&mut self) {
        if self.blocks.capacity() > 8 && self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
        match &mut self.tables {
            Some(_) if self.totals.messages < SCANNED_MESSAGES / 4 => self.tables = None,
            Some(tables) => tables.shrink(),
            None => {}
        }
    }

    /// Removes all messages; returns how many there were.
    pub(super) fn clear(&mut self, removed: &mut Removed) -> u64 {
        let messages = self.totals.messages;
        removed.0.extend(std::mem::take(&mut self.blocks));
        let (next_seq, ttl_ms, model) =
            (self.next_seq, self.ttl_ms, std::mem::take(&mut self.model));
        *self = Self { next_seq, ttl_ms, model, ..Self::new() };
        messages
    }

    /// A session of the messages up to `upto`, which shares all whole blocks with this one. Open messages come along
    /// as they are, without a producer.
    pub fn fork(&self, upto: MessageSeq) -> Self {
        let mut copy = Self {
            blocks: self.blocks.clone(),
            block_bytes: self.block_bytes,
            roles: self.roles.clone(),
            tables: self.tables.clone(),
            pinned: self.pinned.clone(),
            totals: self.totals,
            dim: self.dim,
            ttl_ms: self.ttl_ms,
            model: self.model.clone(),
            ..Self::new()
        };
        count_path(self.blocks.len());
        copy.remove_behind(upto);
        for stream in self.streams.iter().take_while(|stream| stream.seq <= upto.0) {
            if let Some(at) = self.locate(MessageSeq(stream.seq)) {
                let mut message = self.whole_message(at);
                message.abandon();
                copy.replace(std::slice::from_ref(&message));
            }
        }
        copy.next_seq = copy.last_seq().map_or(1, |last| last.0 + 1);
        if copy.totals.vectors == 0 {
            copy.dim = 0;
        }
        copy
    }

    /// Removes the messages behind a place from a copy, whose streams were left where they are.
    fn remove_behind(&mut self, upto: MessageSeq) {
        let doomed = |seq: u32, _: &Record<'_>| seq > upto.0;
        let keep = self.blocks.partition_point(|block| block.base <= upto.0);
        self.pinned.truncate(self.pinned.partition_point(|&seq| seq <= upto.0));
        for block in self.blocks.split_off(keep) {
            self.block_bytes -= block.heap_bytes();
            self.discount(&block.sums);
        }
        if let Some(last) = keep.checked_sub(1)
            && self.last_of(last) > upto.0
        {
            self.remove_in(last, &doomed);
            if self.blocks[last].sums.messages == 0 {
                self.take_out(last);
            }
        }
        self.refill_tables(upto.0.saturating_add(1), u32::MAX);
        self.shrink();
    }
}
