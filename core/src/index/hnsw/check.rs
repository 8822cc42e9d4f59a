//! Proof that the graphs of an index agree with its rows; for tests.

use super::super::row_state::NONE;
use super::super::rows::Rows;
use super::Graphs;
use super::head::{Head, State};
use crate::ids::SlotId;

impl Graphs {
    /// Panics unless every link has its counterpart, every node its place and every count its reason.
    pub(in crate::index) fn check_invariants(&self, rows: &Rows) {
        let graphs = self;
        graphs.links.base.check_invariants();
        let records = graphs.links.upper.check_invariants();
        let (mut nodes, mut linked, mut tombstones, mut levels) = (0, 0, 0, 0);
        for (number, head) in graphs.heads.iter().enumerate() {
            if head.state == State::Free {
                continue;
            }
            let living = self.check_list(rows, number as u32, head);
            linked += living.len();
            let dead = self.check_tombstones(rows, head);
            tombstones += dead.len();
            for &row in living.iter().chain(&dead) {
                assert!(graphs.links.base.is_linked(row), "{row}: a node without links");
                nodes += 1;
                levels += graphs.links.level(row);
                if head.state != State::Abandoned {
                    self.check_node(rows, head, row, &dead);
                }
            }
            self.check_entry(head, living.len());
            self.check_rings(head);
        }
        assert_eq!((linked as u64, tombstones as u64), (graphs.linked, graphs.tombstones));
        assert_eq!(records, levels, "records of the higher levels");
        let (mut from, mut seen) = (0, 0);
        while let Some(row) = graphs.links.base.next_linked(from) {
            (from, seen) = (row + 1, seen + 1);
        }
        assert_eq!(seen, nodes, "links of rows in no graph");
        self.check_queue(rows);
    }

    fn check_list(&self, rows: &Rows, number: u32, head: &Head) -> Vec<u32> {
        if head.list == NONE {
            assert_eq!(head.state, State::Abandoned);
            return Vec::new();
        }
        let list = rows.partitions.list(head.list);
        assert_eq!(list.graph(), Some(number), "a graph and its list");
        for &row in list.tail() {
            assert!(!self.links.base.is_linked(row), "{row}: a tail with links");
        }
        list.linked().to_vec()
    }

    fn check_tombstones(&self, rows: &Rows, head: &Head) -> Vec<u32> {
        let (mut dead, mut row) = (Vec::new(), head.first_tombstone);
        while row != NONE {
            assert!(rows.slots.is_tombstone(row), "{row}: chained alive");
            dead.push(row);
            assert!(dead.len() <= head.tombstones as usize, "the chain is too long");
            row = rows.slots.after_tombstone(row);
        }
        assert_eq!(dead.len(), head.tombstones as usize, "tombstones");
        dead
    }

    fn check_node(&self, rows: &Rows, head: &Head, row: u32, dead: &[u32]) {
        let links = &self.links;
        let partition = rows.partitions.list(head.list).rows()[0];
        let partition = rows.slots.get(SlotId(partition)).map(|slot| slot.partition);
        for level in 0..=links.level(row) {
            let own: Vec<u32> = links.of(row, level).iter().collect();
            assert!(own.len() <= links.capacity(level));
            for (place, &other) in own.iter().enumerate() {
                assert_ne!(other, row, "linked with itself");
                assert!(!own[..place].contains(&other), "{row} to {other} twice");
                assert!(links.of(other, level).contains(row), "{row} to {other}: one way");
                match rows.slots.get(SlotId(other)) {
                    Some(slot) => assert_eq!(Some(slot.partition), partition),
                    None => assert!(dead.contains(&other), "{row} to {other}: elsewhere"),
                }
            }
        }
    }

    fn check_entry(&self, head: &Head, living: usize) {
        if head.state != State::Live {
            return;
        }
        assert_eq!(head.entry == NONE, living == 0, "an entry point");
        if head.entry != NONE {
            assert!(self.links.base.is_linked(head.entry));
            assert_eq!(self.links.level(head.entry), head.top, "level of the entry point");
        }
        let rings = head.rings.iter().take_while(|&&ring| ring != NONE).count();
        assert_eq!(rings, head.top, "a level above the entry point");
        assert!(head.rings[rings..].iter().all(|&ring| ring == NONE), "an empty level below one");
    }

    fn check_rings(&self, head: &Head) {
        let upper = &self.links.upper;
        for (below, &ring) in head.rings.iter().enumerate().filter(|(_, ring)| **ring != NONE) {
            let (mut at, mut steps) = (ring, 0);
            loop {
                assert_eq!(self.links.record(upper.row(at), below + 1), Some(at));
                (at, steps) = (upper.next(at), steps + 1);
                assert!(steps <= self.linked + self.tombstones, "no ring");
                if at == ring {
                    break;
                }
            }
        }
    }

    fn check_queue(&self, rows: &Rows) {
        let graphs = self;
        let (mut at, mut last, mut queued) = (graphs.first_queued, NONE, 0);
        while at != NONE {
            let head = &graphs.heads[at as usize];
            assert!(head.queued && head.state != State::Free, "queued");
            queued += 1;
            assert!(queued <= graphs.heads.len(), "the queue is a ring");
            (last, at) = (at, head.next);
        }
        assert_eq!(last, graphs.last_queued);
        for head in &graphs.heads {
            queued -= usize::from(head.queued);
            let waits = match head.state {
                State::Live => {
                    head.tombstones > 0 || !rows.partitions.list(head.list).tail().is_empty()
                }
                State::Free => false,
                _ => true,
            };
            assert!(!waits || head.queued, "work that nobody knows of");
        }
        assert_eq!(queued, 0);
    }
}
