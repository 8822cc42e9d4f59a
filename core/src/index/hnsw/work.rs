//! What keeps graphs up with their partitions: promotion, linking, repair, dissolution, a node at a
//! time.
//!
//! Owns: when which of these happens. `remove` only marks and queues; all else is done by `work`, which
//! the owner of the index calls when it has time, or by an insert where too much has been left undone.
//! Main thread only.

use super::super::row_state::NONE;
use super::super::rows::Rows;
use super::build::Builder;
use super::graph::level_of;
use super::head::{Head, State};
use super::walk::Codes;
use super::{
    FLAT_MAX_ROWS, GraphInfo, GraphSettings, Graphs, INLINE_NODES, TAIL_MAX_ROWS, TOMBSTONES_MAX,
};
use crate::ids::{PartitionKey, SlotId};

/// How far below its bound a backlog is brought before those who wait go on: some milliseconds of
/// linking, against a fraction of one for as many stores.
const CATCH_UP_ROWS: usize = 64;

/// What freeing a node costs that needs no distances, in distances.
const FREE_COST: usize = 16;

/// How much work is wanted, in distances computed: time is not for this crate to tell. No call does
/// more than one node beyond it. Linking or repairing one takes about 2,000 at EFC 100 over 50,000 rows
/// of 384 dimensions, a tenth of a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work(pub usize);

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Distances computed, or as many as the work was worth.
    pub spent: usize,
    /// Whether there is more to do.
    pub more: bool,
}

/// Nodes an insert does itself where `waiting` wait.
fn due_inline(waiting: usize, most: usize) -> usize {
    match waiting {
        few if few <= most => 0,
        many if many <= 2 * most => 1,
        _ => INLINE_NODES,
    }
}

impl Graphs {
    /// Links and repairs nodes until nothing is left to do or the budget is spent. One node is the least a call does.
    pub(in crate::index) fn work(&mut self, rows: &mut Rows, budget: Work) -> usize {
        let mut spent = 0;
        while let Some(number) = self.dequeue() {
            let (cost, more) = self.work_on(rows, number);
            spent += cost;
            if more {
                self.enqueue(number);
            }
            if spent >= budget.0 {
                break;
            }
        }
        spent
    }

    /// Whether a graph has work.
    pub(in crate::index) fn has_work(&self) -> bool {
        self.first_queued != NONE
    }

    /// Changes how neighbours are found. Another M throws every graph away.
    pub(in crate::index) fn set_settings(&mut self, rows: &mut Rows, settings: GraphSettings) {
        assert!(settings.are_valid(), "the caller checks settings");
        if settings.m != self.settings.m {
            self.drop_graphs(rows);
            *self = Self::new(settings);
        }
        self.settings = settings;
        self.review_sizes(rows);
    }

    /// What the graphs are.
    pub(in crate::index) fn info(&self, rows: &Rows) -> GraphInfo {
        let graphs = self;
        let live = graphs.heads.iter().filter(|head| head.state == State::Live);
        let tail = |head: &Head| rows.partitions.list(head.list).tail().len() as u64;
        GraphInfo {
            mode: graphs.settings.mode,
            graphs: live.clone().count() as u64,
            linked: graphs.linked,
            tail: live.clone().map(tail).sum(),
            tombstones: graphs.tombstones,
            levels: live
                .map(|head| u32::from(head.entry != NONE) * (head.top as u32 + 1))
                .max()
                .unwrap_or(0),
            link_bytes: graphs.links.bytes() as u64,
        }
    }

    /// Gives every partition that is large enough a graph and takes it from those far too small.
    pub(in crate::index) fn review_sizes(&mut self, rows: &mut Rows) {
        let lists: Vec<u32> = rows.partitions.list_numbers().collect();
        for list in lists {
            self.review_size(rows, list);
        }
    }

    fn review_size(&mut self, rows: &mut Rows, list: u32) {
        let (found, threshold) = (rows.partitions.list(list), self.settings.threshold());
        let len = found.rows().len();
        match found.graph() {
            None if len > threshold => {
                let number = self.create(list);
                rows.partitions.set_graph(list, Some(number));
                self.enqueue(number);
            }
            Some(number) if len < threshold / 2 => {
                self.head(number).state = State::Dissolving;
                self.enqueue(number);
            }
            _ => {}
        }
    }

    /// Notes that a partition's tail has one more row.
    pub(in crate::index) fn note_inserted(&mut self, rows: &mut Rows, list: u32) {
        match rows.partitions.list(list).graph() {
            Some(number) => self.enqueue(number),
            None => self.review_size(rows, list),
        }
    }

    /// The living graph of a partition, how many rows wait to be linked and how many tombstones to be
    /// repaired.
    fn backlog(&self, rows: &Rows, partition: PartitionKey) -> Option<(u32, usize, usize)> {
        let list = rows.partitions.list_of(&rows.slots, partition)?;
        let number = list.graph()?;
        let head = &self.heads[number as usize];
        let live = head.state == State::Live;
        live.then(|| (number, list.tail().len(), head.tombstones as usize))
    }

    /// Links and repairs a node or two where more waits than should.
    pub(in crate::index) fn work_off(&mut self, rows: &mut Rows, partition: PartitionKey) {
        let Some((number, tail, tombstones)) = self.backlog(rows, partition) else { return };
        for _ in 0..due_inline(tail, TAIL_MAX_ROWS) {
            self.link_next(rows, number);
        }
        for _ in 0..due_inline(tombstones, TOMBSTONES_MAX) {
            self.repair_next(rows, number);
        }
    }

    /// Whether more waits in a partition's graph than should: whoever stores there is to wait.
    pub(in crate::index) fn is_behind(&self, rows: &Rows, partition: PartitionKey) -> bool {
        self.backlog(rows, partition).is_some_and(|(_, tail, tombstones)| {
            tail > TAIL_MAX_ROWS || tombstones > TOMBSTONES_MAX
        })
    }

    /// Whether so much was done that whoever waits may go on, for a while and not for a moment.
    pub(in crate::index) fn has_caught_up(&self, rows: &Rows, partition: PartitionKey) -> bool {
        self.backlog(rows, partition).is_none_or(|(_, tail, tombstones)| {
            tail <= TAIL_MAX_ROWS - CATCH_UP_ROWS && tombstones <= TOMBSTONES_MAX - CATCH_UP_ROWS
        })
    }

    /// Nodes linked and repaired so far: what whoever waits is let go by where so much waits that others brought.
    pub(in crate::index) fn worked_count(&self) -> u64 {
        self.worked
    }

    /// Buries a node whose entry went. Constant time, allocates nothing.
    pub(in crate::index) fn bury(&mut self, rows: &mut Rows, slot: SlotId, graph: u32) {
        let head = self.head(graph);
        rows.slots.bury(slot, head.first_tombstone);
        head.first_tombstone = slot.0;
        head.tombstones += 1;
        self.linked -= 1;
        self.tombstones += 1;
    }

    /// Notes that a partition with a graph has lost a row.
    pub(in crate::index) fn note_removed(&mut self, graph: u32, abandoned: bool, len: usize) {
        let small = len < self.settings.threshold() / 2;
        let head = self.head(graph);
        if abandoned {
            (head.state, head.list, head.entry) = (State::Abandoned, NONE, NONE);
        } else if small {
            head.state = State::Dissolving;
        }
        self.enqueue(graph);
    }

    /// One node of a graph. Returns what it cost and whether there is more.
    fn work_on(&mut self, rows: &mut Rows, number: u32) -> (usize, bool) {
        let before = self.scratch.distances;
        let more = match self.head(number).state {
            State::Live => self.advance(rows, number),
            State::Dissolving => self.dissolve_next(rows, number),
            State::Abandoned => {
                self.drop_tombstone(rows, number, false);
                let more = self.head(number).tombstones > 0;
                if !more {
                    self.end(number);
                }
                more
            }
            State::Free => false,
        };
        (FREE_COST + self.scratch.distances - before, more)
    }

    /// Repairs a tombstone or links a row of the tail, whichever there are more of.
    fn advance(&mut self, rows: &mut Rows, number: u32) -> bool {
        let (list, tombstones) = {
            let head = self.head(number);
            (head.list, head.tombstones as usize)
        };
        let tail = rows.partitions.list(list).tail().len();
        if tombstones > tail {
            self.repair_next(rows, number);
        } else {
            self.link_next(rows, number);
        }
        tombstones + tail > 1
    }

    fn builder<'a>(&'a mut self, rows: &'a Rows) -> Option<(Builder<'a>, &'a mut Vec<Head>)> {
        let Self { links, heads, scratch, lists, settings, .. } = self;
        let codes = Codes::new(rows.arena.as_ref()?);
        let efc = settings.efc as usize;
        Some((Builder { links, codes, slots: &rows.slots, scratch, lists, efc }, heads))
    }

    fn link_next(&mut self, rows: &mut Rows, number: u32) {
        let list = self.head(number).list;
        let Some(&row) = rows.partitions.list(list).tail().first() else { return };
        let Some(slot) = rows.slots.get(SlotId(row)) else { return };
        let level = level_of(&slot.id, self.links.m());
        if let Some((mut builder, heads)) = self.builder(rows) {
            builder.link(&mut heads[number as usize], row, level);
        }
        rows.mark_linked(list, row);
        self.linked += 1;
        self.worked += 1;
    }

    fn repair_next(&mut self, rows: &mut Rows, number: u32) {
        let head = self.head(number);
        let (row, list) = (head.first_tombstone, head.list);
        if row == NONE {
            return;
        }
        head.first_tombstone = rows.slots.after_tombstone(row);
        head.tombstones -= 1;
        self.tombstones -= 1;
        // A graph whose last living node went is abandoned, so there is a first.
        let living = rows.partitions.list(list).linked();
        let others = [living[0], living[living.len() - 1]];
        if let Some((mut builder, heads)) = self.builder(rows) {
            builder.repair(&mut heads[number as usize], row, others);
        }
        self.worked += 1;
        rows.release(SlotId(row));
    }

    /// Takes a tombstone out without care for those around it; `part` also takes the links to it.
    fn drop_tombstone(&mut self, rows: &mut Rows, number: u32, part: bool) {
        let head = self.head(number);
        let row = head.first_tombstone;
        if row == NONE {
            return;
        }
        head.first_tombstone = rows.slots.after_tombstone(row);
        head.tombstones -= 1;
        self.tombstones -= 1;
        self.unlink(number, row, part);
        rows.release(SlotId(row));
    }

    fn unlink(&mut self, number: u32, row: u32, part: bool) {
        let Self { links, heads, lists, .. } = self;
        if part {
            for level in 0..=links.level(row) {
                links.part_all(row, level, &mut lists.rows);
            }
        }
        links.vacate(row, &mut heads[number as usize].rings);
    }

    fn dissolve_next(&mut self, rows: &mut Rows, number: u32) -> bool {
        let list = self.head(number).list;
        if self.head(number).tombstones > 0 {
            self.drop_tombstone(rows, number, true);
        } else if let Some(&row) = rows.partitions.list(list).linked().last() {
            self.unlink(number, row, true);
            rows.partitions.unmark_last(list);
            self.linked -= 1;
        } else {
            rows.partitions.set_graph(list, None);
            self.end(number);
            rows.compact(list);
            if !rows.partitions.list(list).rows().is_empty() {
                self.review_size(rows, list);
            }
            return false;
        }
        true
    }

    /// Throws all graphs away: every row is one of a tail, every tombstone free.
    pub(in crate::index) fn drop_graphs(&mut self, rows: &mut Rows) {
        for number in 0..self.heads.len() as u32 {
            while self.head(number).first_tombstone != NONE {
                let head = self.head(number);
                let row = head.first_tombstone;
                head.first_tombstone = rows.slots.after_tombstone(row);
                rows.release(SlotId(row));
            }
        }
        let lists: Vec<u32> = rows.partitions.list_numbers().collect();
        for list in lists {
            rows.partitions.unmark_all(list);
            rows.compact(list);
        }
        *self = Self::new(self.settings);
    }
}

const _: () = assert!(TAIL_MAX_ROWS < FLAT_MAX_ROWS, "a tail alone needs no graph");
