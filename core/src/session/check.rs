//! The invariants of a session's counters and tables, for tests.

use super::log::{MessageRef, Session, Totals};
use super::message::{LinkKind, MessageSeq, Status};
use super::record::{FLAG_ESTIMATED, FLAG_PINNED, FLAG_SUMMARY};
use super::tables::Tables;

impl Session {
    /// Recounts everything; for tests. Panics where a counter or a table is wrong.
    pub fn check_invariants(&self) {
        let mut found = Totals::default();
        let mut bytes = 0;
        let (mut last, mut pinned, mut open) = (0, Vec::new(), Vec::new());
        for (number, block) in self.blocks.iter().enumerate() {
            assert!(block.sums.messages > 0, "an empty block");
            bytes += block.heap_bytes();
            let (mut tokens, mut own_pinned, mut own_open) = (0, 0, 0);
            let end = self.blocks.get(number + 1).map_or(u32::MAX, |next| next.base);
            assert_eq!(block.records().count(), usize::from(block.sums.messages));
            for placed in block.records() {
                let (seq, record) = (block.base + placed.record.distance, placed.record);
                assert!(seq > last && seq < end && seq < self.next_seq, "out of order");
                last = seq;
                tokens += u64::from(record.tokens);
                own_pinned += u16::from(record.has(FLAG_PINNED));
                own_open += u16::from(record.status() == Status::Open);
                found.messages += 1;
                found.tokens += u64::from(record.tokens);
                found.estimated += u64::from(record.has(FLAG_ESTIMATED));
                found.vectors += u64::from(placed.vector.is_some());
                found.payload_bytes += record.payload.len() as u64;
                pinned.extend(record.has(FLAG_PINNED).then_some(seq));
                open.extend((record.status() == Status::Open).then_some(seq));
                let at = self.locate(MessageSeq(seq));
                assert_eq!(at, Some(MessageRef { block: number as u32, at: placed.at }));
                if let Some(id) = record.id() {
                    assert_eq!(self.find_id(&id), at, "an id leads elsewhere");
                }
                if let Some(link) = record.link().filter(|link| link.kind == LinkKind::Call) {
                    let tables = self.tables.as_deref();
                    let known = |tables: &Tables| {
                        tables.with_call(&link.id, seq + 1).any(|other| other == seq)
                    };
                    assert!(tables.is_none_or(known), "a call is not found");
                }
                assert!(!(record.has(FLAG_SUMMARY) && record.status() == Status::Open));
            }
            let sums = &block.sums;
            assert_eq!((tokens, own_pinned, own_open), (sums.tokens, sums.pinned, sums.open));
        }
        assert_eq!(found, self.totals);
        assert_eq!(bytes, self.block_bytes);
        assert_eq!(pinned, self.pinned);
        assert_eq!(open, self.streams.iter().map(|stream| stream.seq).collect::<Vec<_>>());
    }
}
