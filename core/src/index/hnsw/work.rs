//! What keeps graphs up with their partitions: promotion, linking, repair, dissolution, a node at a
//! time.
//!
//! Owns: when which of these happens. `remove` only marks and queues; all else is done by `work`, which
//! the owner of the index calls when it has time, or by an insert where too much has been left undone.
//! Main thread only.

use super::super::Index;
use super::build::Builder;
use super::graph::level_of;
use super::walk::Codes;
use super::{
    FLAT_MAX_ROWS, GraphInfo, GraphSettings, Graphs, Head, INLINE_NODES, NONE, State,
    TAIL_MAX_ROWS, TOMBSTONES_MAX,
};
use crate::ids::{PartitionKey, SlotId};

/// How far below its bound a backlog is brought before those who wait go on: some milliseconds of
/// linking, against a fraction of one for as many stores.
const CATCH_UP_ROWS: usize = 64;

/// What freeing a node costs that needs no distances, in distances.
const FREE_COST: usize = 16;

/// How much work is wanted, in distances computed: time is not for this crate to tell. No call does
/// more than one node beyond it. Linking or repairing one takes about 2,400 at EFC 100 over 50,000 rows
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

impl Index {
    /// Works on the graphs until nothing is left to do or the budget is spent. One node is the least a
    /// call does. Allocates little and never for long.
    pub fn work(&mut self, budget: Work) -> Progress {
        let mut spent = 0;
        while let Some(number) = self.graphs.dequeue() {
            let (cost, more) = self.work_on(number);
            spent += cost;
            if more {
                self.graphs.enqueue(number);
            }
            if spent >= budget.0 {
                break;
            }
        }
        let linking = self.graphs.first_queued != NONE;
        let more = linking || self.work_on_words();
        if !more {
            self.clear_if_empty();
        }
        Progress { spent, more }
    }

    /// Whether `work` has anything to do.
    pub fn has_work(&self) -> bool {
        self.graphs.first_queued != NONE || self.has_work_on_words()
    }

    /// Changes how neighbours are found. Another M throws every graph away, in the time it takes to free
    /// them; `work` builds them again.
    ///
    /// # Panics
    /// If a number is out of its bounds, which the caller checks (`GraphSettings::are_valid`).
    pub fn set_graph_settings(&mut self, settings: GraphSettings) {
        assert!(settings.are_valid(), "the caller checks settings");
        if settings.m != self.graphs.settings.m {
            self.drop_graphs();
            self.graphs = Graphs::new(settings);
        }
        self.graphs.settings = settings;
        self.review_sizes();
    }

    /// How neighbours are found.
    pub fn graph_settings(&self) -> GraphSettings {
        self.graphs.settings
    }

    /// What the graphs are.
    pub fn graph_info(&self) -> GraphInfo {
        let graphs = &self.graphs;
        let live = graphs.heads.iter().filter(|head| head.state == State::Live);
        let tail = |head: &Head| self.partitions.list(head.list).tail().len() as u64;
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
    pub(in crate::index) fn review_sizes(&mut self) {
        let lists: Vec<u32> = self.partitions.list_numbers().collect();
        for list in lists {
            self.review_size(list);
        }
    }

    fn review_size(&mut self, list: u32) {
        let (found, threshold) = (self.partitions.list(list), self.graphs.settings.threshold());
        let len = found.rows().len();
        match found.graph() {
            None if len > threshold => {
                let number = self.graphs.create(list);
                self.partitions.set_graph(list, Some(number));
                self.graphs.enqueue(number);
            }
            Some(number) if len < threshold / 2 => {
                self.graphs.head(number).state = State::Dissolving;
                self.graphs.enqueue(number);
            }
            _ => {}
        }
    }

    /// Notes that a partition's tail has one more row.
    pub(in crate::index) fn note_inserted(&mut self, list: u32) {
        match self.partitions.list(list).graph() {
            Some(number) => self.graphs.enqueue(number),
            None => self.review_size(list),
        }
    }

    /// The living graph of a partition, how many rows wait to be linked and how many tombstones to be
    /// repaired.
    fn backlog(&self, partition: PartitionKey) -> Option<(u32, usize, usize)> {
        let list = self.partitions.list_of(&self.slots, partition)?;
        let number = list.graph()?;
        let head = &self.graphs.heads[number as usize];
        let live = head.state == State::Live;
        live.then(|| (number, list.tail().len(), head.tombstones as usize))
    }

    /// Links and repairs a node or two where more waits than should.
    pub(in crate::index) fn work_off(&mut self, partition: PartitionKey) {
        let Some((number, tail, tombstones)) = self.backlog(partition) else { return };
        for _ in 0..due_inline(tail, TAIL_MAX_ROWS) {
            self.link_next(number);
        }
        for _ in 0..due_inline(tombstones, TOMBSTONES_MAX) {
            self.repair_next(number);
        }
    }

    /// Whether more waits in a partition's graph than should: whoever stores there is to wait.
    pub fn is_behind(&self, partition: PartitionKey) -> bool {
        self.backlog(partition).is_some_and(|(_, tail, tombstones)| {
            tail > TAIL_MAX_ROWS || tombstones > TOMBSTONES_MAX
        })
    }

    /// Whether so much was done that whoever waits may go on, for a while and not for a moment.
    pub fn has_caught_up(&self, partition: PartitionKey) -> bool {
        self.backlog(partition).is_none_or(|(_, tail, tombstones)| {
            tail <= TAIL_MAX_ROWS - CATCH_UP_ROWS && tombstones <= TOMBSTONES_MAX - CATCH_UP_ROWS
        })
    }

    /// Nodes linked and repaired so far: what whoever waits is let go by where so much waits that others brought.
    pub fn worked(&self) -> u64 {
        self.graphs.worked
    }

    /// Buries a node whose entry went. Constant time, allocates nothing.
    pub(in crate::index) fn bury(&mut self, slot: SlotId, graph: u32) {
        let head = self.graphs.head(graph);
        self.slots.bury(slot, head.first_tombstone);
        head.first_tombstone = slot.0;
        head.tombstones += 1;
        self.graphs.linked -= 1;
        self.graphs.tombstones += 1;
    }

    /// Notes that a partition with a graph has lost a row.
    pub(in crate::index) fn note_removed(&mut self, graph: u32, abandoned: bool, len: usize) {
        let small = len < self.graphs.settings.threshold() / 2;
        let head = self.graphs.head(graph);
        if abandoned {
            (head.state, head.list, head.entry) = (State::Abandoned, NONE, NONE);
        } else if small {
            head.state = State::Dissolving;
        }
        self.graphs.enqueue(graph);
    }

    /// One node of a graph. Returns what it cost and whether there is more.
    fn work_on(&mut self, number: u32) -> (usize, bool) {
        let before = self.graphs.scratch.distances;
        let more = match self.graphs.head(number).state {
            State::Live => self.advance(number),
            State::Dissolving => self.dissolve_next(number),
            State::Abandoned => {
                self.drop_tombstone(number, false);
                let more = self.graphs.head(number).tombstones > 0;
                if !more {
                    self.graphs.end(number);
                }
                more
            }
            State::Free => false,
        };
        (FREE_COST + self.graphs.scratch.distances - before, more)
    }

    /// Repairs a tombstone or links a row of the tail, whichever there are more of.
    fn advance(&mut self, number: u32) -> bool {
        let (list, tombstones) = {
            let head = self.graphs.head(number);
            (head.list, head.tombstones as usize)
        };
        let tail = self.partitions.list(list).tail().len();
        if tombstones > tail {
            self.repair_next(number);
        } else {
            self.link_next(number);
        }
        tombstones + tail > 1
    }

    fn builder(&mut self) -> Option<(Builder<'_>, &mut Vec<Head>)> {
        let Graphs { links, heads, scratch, lists, settings, .. } = &mut self.graphs;
        let codes = Codes::new(self.arena.as_ref()?);
        let efc = settings.efc as usize;
        Some((Builder { links, codes, slots: &self.slots, scratch, lists, efc }, heads))
    }

    fn link_next(&mut self, number: u32) {
        let list = self.graphs.head(number).list;
        let Some(&row) = self.partitions.list(list).tail().first() else { return };
        let Some(slot) = self.slots.get(SlotId(row)) else { return };
        let level = level_of(&slot.id, self.graphs.links.m());
        if let Some((mut builder, heads)) = self.builder() {
            builder.link(&mut heads[number as usize], row, level);
        }
        self.partitions.mark_linked(&mut self.slots, list, row);
        self.graphs.linked += 1;
        self.graphs.worked += 1;
    }

    fn repair_next(&mut self, number: u32) {
        let head = self.graphs.head(number);
        let (row, list) = (head.first_tombstone, head.list);
        if row == NONE {
            return;
        }
        head.first_tombstone = self.slots.after_tombstone(row);
        head.tombstones -= 1;
        self.graphs.tombstones -= 1;
        // A graph whose last living node went is abandoned, so there is a first.
        let living = self.partitions.list(list).linked();
        let others = [living[0], living[living.len() - 1]];
        if let Some((mut builder, heads)) = self.builder() {
            builder.repair(&mut heads[number as usize], row, others);
        }
        self.graphs.worked += 1;
        self.release(SlotId(row));
    }

    /// Takes a tombstone out without care for those around it; `part` also takes the links to it.
    fn drop_tombstone(&mut self, number: u32, part: bool) {
        let head = self.graphs.head(number);
        let row = head.first_tombstone;
        if row == NONE {
            return;
        }
        head.first_tombstone = self.slots.after_tombstone(row);
        head.tombstones -= 1;
        self.graphs.tombstones -= 1;
        self.unlink(number, row, part);
        self.release(SlotId(row));
    }

    fn unlink(&mut self, number: u32, row: u32, part: bool) {
        let Graphs { links, heads, lists, .. } = &mut self.graphs;
        if part {
            for level in 0..=links.level(row) {
                links.part_all(row, level, &mut lists.rows);
            }
        }
        links.vacate(row, &mut heads[number as usize].rings);
    }

    fn dissolve_next(&mut self, number: u32) -> bool {
        let list = self.graphs.head(number).list;
        if self.graphs.head(number).tombstones > 0 {
            self.drop_tombstone(number, true);
        } else if let Some(&row) = self.partitions.list(list).linked().last() {
            self.unlink(number, row, true);
            self.partitions.unmark_last(list);
            self.graphs.linked -= 1;
        } else {
            self.partitions.set_graph(list, None);
            self.graphs.end(number);
            self.partitions.compact(&self.slots, list);
            if !self.partitions.list(list).rows().is_empty() {
                self.review_size(list);
            }
            return false;
        }
        true
    }

    /// Throws all graphs away: every row is one of a tail, every tombstone free.
    pub(in crate::index) fn drop_graphs(&mut self) {
        for number in 0..self.graphs.heads.len() as u32 {
            while self.graphs.head(number).first_tombstone != NONE {
                let head = self.graphs.head(number);
                let row = head.first_tombstone;
                head.first_tombstone = self.slots.after_tombstone(row);
                self.release(SlotId(row));
            }
        }
        let lists: Vec<u32> = self.partitions.list_numbers().collect();
        for list in lists {
            self.partitions.unmark_all(list);
            self.partitions.compact(&self.slots, list);
        }
        self.graphs = Graphs::new(self.graphs.settings);
    }
}

const _: () = assert!(TAIL_MAX_ROWS < FLAT_MAX_ROWS, "a tail alone needs no graph");
