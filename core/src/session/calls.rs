//! Finds the tool calls that results belong to, and messages by sequence number, many at a time.
//!
//! Owns: what one window has learnt of a session: blocks that it took apart, calls that it found. So the steps of
//! a window are those of its messages, however many of them make or answer the same call.

use super::log::{MessageRef, Session};
use super::message::{LinkKind, MessageSeq};
use super::record::Head;
use crate::work::count_path;
use hashbrown::HashMap;

/// Fronts of records kept at a time.
const KEPT_HEADS: usize = 1 << 17;

/// Finds messages of a session that does not change meanwhile.
#[derive(Debug)]
pub(super) struct Finder<'s> {
    session: &'s Session,
    /// The fronts of the records of blocks.
    heads: HashMap<u32, Vec<Head>>,
    kept: usize,
    /// The last call of each id that was asked for; `None` where there is none before what was asked.
    calls: HashMap<Vec<u8>, Option<Head>>,
}

impl<'s> Finder<'s> {
    /// Nothing is known yet.
    pub(super) fn new(session: &'s Session) -> Self {
        Self { session, heads: HashMap::new(), kept: 0, calls: HashMap::new() }
    }

    /// Where a message lies, and its front.
    pub(super) fn head(&mut self, seq: u32) -> Option<(MessageRef, Head)> {
        let block = self.session.block_of(seq)? as u32;
        if !self.heads.contains_key(&block) {
            if self.kept > KEPT_HEADS {
                self.heads.clear();
                self.kept = 0;
            }
            let heads: Vec<Head> = self.session.blocks[block as usize].heads().collect();
            count_path(heads.len());
            self.kept += heads.len();
            self.heads.insert(block, heads);
        }
        let heads = &self.heads[&block];
        let place = heads.binary_search_by_key(&seq, |head| head.seq).ok()?;
        Some((MessageRef { block, at: heads[place].at }, heads[place]))
    }

    /// The last message before a place that makes this call. Asked for ever earlier places, as a walk back does.
    pub(super) fn call(&mut self, id: &[u8], before: u32) -> Option<Head> {
        match self.calls.get(id) {
            Some(None) => return None,
            // None comes between it and what was asked for last.
            Some(Some(call)) if call.seq < before => return Some(*call),
            _ => {}
        }
        let found = self.find_call(id, before);
        self.calls.insert(id.to_vec(), found);
        found
    }

    fn find_call(&mut self, id: &[u8], before: u32) -> Option<Head> {
        let session = self.session;
        let Some(tables) = &session.tables else {
            let small = session.backward(MessageSeq(before)).find(|at| {
                let (seq, record) = session.record(*at);
                seq < before && is_call(&record, id)
            });
            return small.map(|at| session.head(at));
        };
        let mut looked_at = 0;
        let mut found = None;
        for seq in tables.with_call(id, before) {
            looked_at += 1;
            if let Some((at, head)) = self.head(seq)
                && is_call(&session.record(at).1, id)
            {
                found = Some(head);
                break;
            }
        }
        count_path(looked_at);
        found
    }
}

fn is_call(record: &super::record::Record<'_>, id: &[u8]) -> bool {
    record.link().is_some_and(|link| link.kind == LinkKind::Call && *link.id == *id)
}
