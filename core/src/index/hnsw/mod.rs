//! A hierarchical navigable small world graph over the rows of each large partition.
//!
//! Owns: the graphs of one index: their links, entry points and tombstones, the queue of those that
//! have work, and the sizes at which graphs come and go. A graph belongs to one partition; a row is a
//! node under its slot number. What it changes of rows it is given as `Rows`. Called by the index alone, on the main
//! thread.
//!
//! * `graph` and `upper_links` keep the links, `walk` searches them, `build` links a row, `repair` takes one
//!   out, `work` does both in slices, `persist` saves and loads.

mod build;
mod check;
mod graph;
mod head;
mod persist;
mod repair;
mod upper_links;
mod walk;
mod work;

use super::row_state::NONE;
use crate::limits;
use crate::vector::links::SharedLinks;
use build::Lists;
use graph::Links;
use head::{Head, State};
pub use persist::{GraphSection, TAG_GRAPH_BLOCK, TAG_GRAPH_ENTRIES};
pub(super) use walk::{Codes, Judge, Scratch, Target, Walk};
pub use work::{Progress, Work};

/// A partition of more rows than this gets a graph. By time alone a walk of `EF_DEFAULT` gains from 1,850
/// rows on (`search::SEQUENTIAL_PER_RANDOM` has the numbers); this is where `search` estimates that it
/// does, so that no partition pays for links that are not walked.
pub const FLAT_MAX_ROWS: usize = 2_400;

/// Rows of a partition with a graph that may wait unlinked; an insert beyond links one itself,
/// two beyond twice as many.
pub const TAIL_MAX_ROWS: usize = 1_024;

/// Tombstones a graph may have; an insert into a graph with more repairs one itself,
/// two where there are more than twice as many.
pub const TOMBSTONES_MAX: usize = 1_024;

/// Nodes an insert links or repairs itself where twice too much waits: two, so that it gains on what one
/// insert adds. Where a little too much waits it does one, so as not to hold up other clients.
const INLINE_NODES: usize = 2;

/// How neighbours are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexMode {
    /// By a graph where a partition is large enough to gain by it.
    #[default]
    Auto,
    /// Always exhaustively.
    Flat,
    /// By a graph from `2 * M` rows on; below, each row would be linked with every other.
    Hnsw,
}

impl IndexMode {
    /// Every mode, in the order of their bytes.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Flat, Self::Hnsw];

    /// As written in arguments and replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "AUTO",
            Self::Flat => "FLAT",
            Self::Hnsw => "HNSW",
        }
    }

    /// As saved.
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The inverse of `as_byte`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Settings of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphSettings {
    /// How neighbours are found.
    pub mode: IndexMode,
    /// Links a row gets on a level; at most twice as many on level 0.
    pub m: u32,
    /// Rows found to choose a new row's neighbours from.
    pub efc: u32,
    /// Rows a search finds unless it says otherwise, to answer the best of.
    pub ef: u32,
}

/// M of a new index.
pub const M_DEFAULT: u32 = 16;

/// EFC of a new index.
pub const EFC_DEFAULT: u32 = 100;

/// EF of a new index: recall@10 is 0.984 over 10,000 real vectors, 0.977 over 50,000 and 0.967 over
/// 73,700, where 40 reaches 0.973, 0.959 and 0.949.
pub const EF_DEFAULT: u32 = 64;

impl Default for GraphSettings {
    fn default() -> Self {
        Self { mode: IndexMode::Auto, m: M_DEFAULT, efc: EFC_DEFAULT, ef: EF_DEFAULT }
    }
}

impl GraphSettings {
    /// Whether every number is within its bound of `limits`.
    pub fn are_valid(&self) -> bool {
        (limits::GRAPH_M_MIN..=limits::GRAPH_M_MAX).contains(&self.m)
            && (limits::EFC_MIN..=limits::EF_MAX).contains(&self.efc)
            && (1..=limits::EF_MAX).contains(&self.ef)
    }

    /// Rows above which a partition has a graph.
    fn threshold(&self) -> usize {
        match self.mode {
            IndexMode::Auto => FLAT_MAX_ROWS,
            IndexMode::Flat => usize::MAX,
            IndexMode::Hnsw => 2 * self.m as usize,
        }
    }
}

/// What the graphs of an index are, for INFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphInfo {
    /// The mode set.
    pub mode: IndexMode,
    /// Partitions with a graph.
    pub graphs: u64,
    /// Entries in a graph.
    pub linked: u64,
    /// Entries of partitions with a graph that wait to be linked.
    pub tail: u64,
    /// Nodes whose entries went and that wait to be repaired.
    pub tombstones: u64,
    /// Levels of the highest graph.
    pub levels: u32,
    /// Memory of the links.
    pub link_bytes: u64,
}

/// The graphs of one index.
#[derive(Debug)]
pub(super) struct Graphs {
    pub(super) settings: GraphSettings,
    links: Links,
    heads: Vec<Head>,
    free_head: u32,
    /// Ends of the queue of graphs with work. It runs through the heads, since a removal allocates
    /// nothing.
    first_queued: u32,
    last_queued: u32,
    /// Nodes whose entries live.
    linked: u64,
    /// Nodes whose entries went.
    tombstones: u64,
    /// Nodes linked and repaired since the graphs began.
    worked: u64,
    pub(super) scratch: Scratch,
    lists: Lists,
}

impl Default for Graphs {
    fn default() -> Self {
        Self::new(GraphSettings::default())
    }
}

impl Graphs {
    pub(super) fn new(settings: GraphSettings) -> Self {
        Self {
            settings,
            links: Links::new(settings.m as usize),
            heads: Vec::new(),
            free_head: NONE,
            first_queued: NONE,
            last_queued: NONE,
            linked: 0,
            tombstones: 0,
            worked: 0,
            scratch: Scratch::default(),
            lists: Lists::default(),
        }
    }

    /// Frees the links that a search on another thread held.
    pub(super) fn tidy(&mut self) {
        self.links.base.tidy();
    }

    /// Whether nodes wait whose entries went.
    pub(super) fn has_tombstones(&self) -> bool {
        self.tombstones > 0
    }

    /// A new graph for a list.
    fn create(&mut self, list: u32) -> u32 {
        if self.free_head == NONE {
            self.heads.push(Head::new(list));
            return self.heads.len() as u32 - 1;
        }
        let number = self.free_head;
        self.free_head = self.heads[number as usize].next;
        self.heads[number as usize] = Head::new(list);
        number
    }

    /// Ends a graph that has no node any more and stands in no queue.
    fn end(&mut self, number: u32) {
        let next = self.free_head;
        self.heads[number as usize] = Head { state: State::Free, next, ..Head::new(NONE) };
        self.free_head = number;
    }

    fn head(&mut self, number: u32) -> &mut Head {
        &mut self.heads[number as usize]
    }

    fn enqueue(&mut self, number: u32) {
        let head = &mut self.heads[number as usize];
        if std::mem::replace(&mut head.queued, true) {
            return;
        }
        head.next = NONE;
        match self.last_queued {
            NONE => self.first_queued = number,
            last => self.heads[last as usize].next = number,
        }
        self.last_queued = number;
    }

    fn dequeue(&mut self) -> Option<u32> {
        let number = self.first_queued;
        let head = self.heads.get_mut(number as usize)?;
        (head.queued, self.first_queued) = (false, head.next);
        head.next = NONE;
        if self.first_queued == NONE {
            self.last_queued = NONE;
        }
        Some(number)
    }

    /// The walk over a live graph that starts at its entry point.
    pub(super) fn entry(&self, number: u32) -> Option<(u32, usize)> {
        let head = self.heads.get(number as usize).filter(|head| head.state == State::Live)?;
        (head.entry != NONE).then_some((head.entry, head.top))
    }

    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// What searches on other threads see of them.
    pub(super) fn shared_links(&self) -> &SharedLinks {
        self.links.base.shared()
    }

    pub(super) fn bytes(&self) -> usize {
        self.links.bytes()
            + crate::allocation::allocated_bytes(self.heads.capacity() * size_of::<Head>())
            + self.scratch.bytes()
            + self.lists.bytes()
    }
}
