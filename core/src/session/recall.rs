//! Recall by meaning: compares every vector of a session with the query.
//!
//! Owns: RECALL. A session's vectors lie next to each other in its blocks, so that comparing all of
//! them is a walk through memory.

use super::log::{MessageRef, Session};
use super::message::{MessageSeq, Status, VECTOR_QUANT};
use crate::top::Top;
use crate::vector::{Query, StoredVector};
use crate::work::{Steps, count};

/// A message that is near a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recalled {
    /// Cosine of question and message.
    pub similarity: f64,
    /// The message.
    pub message: MessageRef,
}

/// Messages looked at in one step, and vectors compared.
const STEP_MESSAGES: usize = 256;
const STEP_VECTORS: usize = 8;

/// A question to a session, answered step by step: the session stays as it is meanwhile.
#[derive(Debug)]
pub struct Recall {
    query: Query,
    least: f64,
    roles: u128,
    top: Top<MessageSeq>,
    next: u32,
}

impl Recall {
    /// Before the first message.
    pub fn new(
        session: &Session,
        query: Query,
        most: usize,
        least: f64,
        roles: Option<&[&[u8]]>,
    ) -> Self {
        Self { query, least, roles: session.roles.mask(roles), top: Top::new(most), next: 0 }
    }

    /// Compares the next few messages; false when there were none.
    pub fn step(&mut self, session: &Session) -> bool {
        let Some(block) = session.blocks.get(session.block_of(self.next).unwrap_or(0)) else {
            return false;
        };
        let (width, mut looked_at, mut compared) = (session.width(), 0, 0);
        let next = self.next;
        let records = block.records().skip_while(|p| block.base + p.record.distance < next);
        for placed in records.take(STEP_MESSAGES) {
            let seq = block.base + placed.record.distance;
            looked_at += 1;
            self.next = seq.saturating_add(1);
            let is_wanted = self.roles >> placed.record.role & 1 == 1;
            let Some(number) = placed.vector.filter(|_| is_wanted) else { continue };
            if placed.record.status() == Status::Open {
                continue;
            }
            compared += 1;
            let similarity = similarity(&self.query, block.vector(number, width));
            if similarity >= self.least && self.top.admits(similarity as f32) {
                self.top.push(similarity as f32, seq);
            }
            if compared == STEP_VECTORS {
                break;
            }
        }
        count(Steps { rows: compared as u64, path: looked_at, ..Steps::NONE });
        if looked_at > 0 {
            return true;
        }
        // The block is over: on to the next.
        let after = session.block_of(next).map_or(0, |block| block + 1);
        let Some(following) = session.blocks.get(after) else { return false };
        self.next = following.base;
        true
    }

    /// What was found, best first.
    pub fn finish(self, session: &Session) -> Vec<Recalled> {
        let found = self.top.into_sorted().filter_map(|(seq, _)| {
            let message = session.locate(seq)?;
            let vector = session.whole_message(message).vector?;
            Some(Recalled { similarity: similarity(&self.query, &vector), message })
        });
        found.collect()
    }
}

impl Session {
    /// The `count` messages nearest to a question, best first, of equal ones the older first. Those
    /// below `least`, of other roles, or without a vector are left out. The question has the
    /// session's dimension.
    pub fn recall(
        &self,
        query: &Query,
        count: usize,
        least: f64,
        roles: Option<&[&[u8]]>,
    ) -> Vec<Recalled> {
        let mut recall = Recall::new(self, query.clone(), count, least, roles);
        while recall.step(self) {}
        recall.finish(self)
    }

    /// Up to `count` messages before one and after it, each list oldest first.
    pub fn around(&self, seq: MessageSeq, count: usize) -> (Vec<MessageRef>, Vec<MessageRef>) {
        let before = MessageSeq(seq.0 - 1);
        let mut older: Vec<_> = self.backward(before).take(count).collect();
        older.reverse();
        let newer = self.forward(MessageSeq(seq.0 + 1)).take(count).collect();
        (older, newer)
    }
}

/// Exact cosine. Stored vectors were checked when they came in.
fn similarity(query: &Query, stored: &[u8]) -> f64 {
    StoredVector::parse(VECTOR_QUANT, query.dim() as u32, stored)
        .map_or(-1.0, |stored| stored.similarity(query))
}
