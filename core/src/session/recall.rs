//! What was said, by meaning: every vector of the session compared with a question.
//!
//! Owns: RECALL. A session's vectors lie next to each other in its blocks, so that comparing all of
//! them is a walk through memory.

use super::log::{MessageRef, Session};
use super::message::{MessageSeq, Status, VECTOR_QUANT};
use crate::top::Top;
use crate::vector::{Query, StoredVector};

/// A message that is near a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recalled {
    /// Cosine of question and message.
    pub similarity: f64,
    /// The message.
    pub message: MessageRef,
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
        let roles = self.roles.mask(roles);
        let width = self.width();
        let mut top = Top::<MessageSeq>::new(count);
        for block in &self.blocks {
            for placed in block.records() {
                let Some(number) = placed.vector.filter(|_| roles >> placed.record.role & 1 == 1)
                else {
                    continue;
                };
                if placed.record.status() == Status::Open {
                    continue;
                }
                let similarity = similarity(query, block.vector(number, width));
                if similarity >= least && top.admits(similarity as f32) {
                    top.push(similarity as f32, block.base + placed.record.distance);
                }
            }
        }
        let found = top.into_sorted().filter_map(|(seq, _)| {
            let message = self.locate(seq)?;
            let vector = self.whole_message(message).vector?;
            Some(Recalled { similarity: similarity(query, &vector), message })
        });
        found.collect()
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
