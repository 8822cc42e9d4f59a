//! One graph of an index: where its searches start, its tombstones, its place in the queue.
//!
//! Owns: plain data; `mod` keeps the heads of all graphs and the queue through them. Main thread only.

use super::super::row_state::NONE;
use super::graph::LEVEL_MAX;

/// What becomes of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is searched, grows and is repaired.
    Live,
    /// Its partition became small: its nodes are unlinked one by one.
    Dissolving,
    /// No entry of it is left: its nodes are freed as they are.
    Abandoned,
    /// This place has no graph.
    Free,
}

/// One graph.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) state: State,
    /// The list of its partition.
    pub(super) list: u32,
    /// Where every search starts; `NONE` while there is no node.
    pub(super) entry: u32,
    /// The level of `entry`, the highest.
    pub(super) top: usize,
    /// A record of each level above 0.
    pub(super) rings: [u32; LEVEL_MAX],
    /// Rows whose entries went and whose links are still there.
    pub(super) tombstones: u32,
    /// The first of them; each names the next in its slot.
    pub(super) first_tombstone: u32,
    /// Whether it stands in the queue of graphs with work, and before which.
    pub(super) queued: bool,
    /// The next in the queue, or the next free place.
    pub(super) next: u32,
}

impl Head {
    pub(super) fn new(list: u32) -> Self {
        Self {
            state: State::Live,
            list,
            entry: NONE,
            top: 0,
            rings: [NONE; LEVEL_MAX],
            tombstones: 0,
            first_tombstone: NONE,
            queued: false,
            next: NONE,
        }
    }
}
