//! What an index does between commands, and the settings and sections of its graphs.
//!
//! Owns: nothing but the order of steps; `hnsw` has the graphs, `expiry_walk` the walk over deadlines. Main thread only.

use super::Index;
use super::expiry_walk::DueStep;
use super::hnsw::{GraphInfo, GraphSection, GraphSettings, Progress, Work};
use crate::codec::DecodeError;
use crate::ids::{PartitionKey, UnixMs};

impl Index {
    /// Works on the graphs, then on words of removed entries, until nothing is left to do or the budget is spent. One
    /// node is the least a call does. Allocates little and never for long.
    pub fn work(&mut self, budget: Work) -> Progress {
        let spent = self.graphs.work(&mut self.rows, budget);
        let more = self.graphs.has_work() || self.work_on_words();
        if !more {
            self.clear_if_empty();
        }
        Progress { spent, more }
    }

    /// Whether `work` has anything to do.
    pub fn has_work(&self) -> bool {
        self.graphs.has_work() || self.has_work_on_words()
    }

    /// Frees what a search on another thread held. To be called when one has ended.
    pub fn tidy(&mut self) {
        self.graphs.tidy();
        self.rows.tidy();
    }

    /// Changes how neighbours are found. Another M throws every graph away, in the time it takes to free
    /// them; `work` builds them again.
    ///
    /// # Panics
    /// If a number is out of its bounds, which the caller checks (`GraphSettings::are_valid`).
    pub fn set_graph_settings(&mut self, settings: GraphSettings) {
        self.graphs.set_settings(&mut self.rows, settings);
    }

    /// How neighbours are found.
    pub fn graph_settings(&self) -> GraphSettings {
        self.graphs.settings
    }

    /// What the graphs are.
    pub fn graph_info(&self) -> GraphInfo {
        self.graphs.info(&self.rows)
    }

    /// Whether more waits in a partition's graph than should: whoever stores there is to wait.
    pub fn is_behind(&self, partition: PartitionKey) -> bool {
        self.graphs.is_behind(&self.rows, partition)
    }

    /// Whether so much was done that whoever waits may go on, for a while and not for a moment.
    pub fn has_caught_up(&self, partition: PartitionKey) -> bool {
        self.graphs.has_caught_up(&self.rows, partition)
    }

    /// Nodes linked and repaired so far: what whoever waits is let go by where so much waits that others brought.
    pub fn worked(&self) -> u64 {
        self.graphs.worked_count()
    }

    /// The sections that save the graphs, in the order in which they must be loaded.
    pub fn graph_sections(&self) -> Vec<GraphSection> {
        self.graphs.sections(&self.rows)
    }

    /// One section of the graphs.
    pub fn save_graph(&self, section: GraphSection) -> Vec<u8> {
        self.graphs.save(&self.rows, section)
    }

    /// Takes in one saved section, after all blocks of slots and before `finish_load`. After an error
    /// there are no graphs, and further sections need not be given.
    ///
    /// # Errors
    ///
    /// Where the bytes are not what `save_graph` writes.
    pub fn load_graph(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.graphs.load(&mut self.rows, bytes)
    }

    /// Whether any entry has a deadline, or had one lately.
    pub fn has_deadlines(&self) -> bool {
        self.due.has_deadlines()
    }

    /// When `next_due` has something to look at; `None` while no entry has a deadline.
    pub fn next_round_at(&self) -> Option<UnixMs> {
        self.due.next_round_at()
    }

    /// Whether `next_due` has something to look at; costs nothing.
    pub fn may_be_due(&self, now: UnixMs) -> bool {
        self.due.may_be_due(now)
    }

    /// Walks on over at most `rows` rows to the next entry whose deadline is past. What becomes of it is
    /// the caller's business: if it stays, and its deadline is not set again, it is not named again until
    /// others bring on another round.
    pub fn next_due(&mut self, now: UnixMs, rows: u32) -> DueStep {
        self.due.next_due(&self.rows.slots, now, rows)
    }
}
