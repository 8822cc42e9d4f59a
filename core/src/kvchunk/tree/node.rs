//! One node of the prefix tree, and what is told of a chunk that is to become one.

use crate::ids::{MonotonicMs, UnixMs};
use crate::kvchunk::{ChunkDigest, Content};

/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// A node of a tree; meaningless once its chunk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

/// Whether a node stands for a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Ghost,
    Here,
}

/// What the tree knows of a chunk.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub digest: ChunkDigest,
    /// Its tokens, where they are known.
    pub content: Option<Content>,
    /// Its place in the prompt.
    pub position: u32,
    /// Memory of its key.
    pub bytes: u64,
    /// Length of its payload.
    pub payload_bytes: u64,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// Weight at eviction.
    pub prio: u8,
    /// Not to be evicted by BUDGET.
    pub pinned: bool,
    /// Found damaged: a miss, to be removed.
    pub damaged: bool,
    /// When its payload was last compared with its checksum, in this process.
    pub checked_at: UnixMs,
    /// Uses since it was stored, in this process.
    pub hits: u32,
    /// For a ghost: since when; `None` before it was looked at.
    pub since: Option<MonotonicMs>,
    pub(super) frequency: f32,
    /// Kept until it had time to be used, where not all can be.
    pub(super) kept: bool,
    pub(super) used_at: u64,
    pub(super) score: u64,
    pub(super) leases: u32,
    pub(super) life: u32,
    pub(super) children_here: u32,
    /// Chunks from the first of its prefix to it, as far as they were there when it was stored.
    pub(super) depth: u32,
    pub(super) parent: u32,
    /// The chunk that was taught to come before it, while that has this epoch.
    pub(super) taught_ahead: u32,
    /// Chunks that were taught to come behind it.
    pub(super) taught_behind: u32,
    pub(super) ahead_epoch: u64,
    /// Which of those that had this place it is.
    pub(super) epoch: u64,
    pub(super) first_child: u32,
    pub(super) next_sibling: u32,
    pub(super) previous_sibling: u32,
    /// Chunks of the same print.
    pub(super) next_alike: u32,
    pub(super) previous_alike: u32,
    pub(super) state: State,
    pub(super) ordered: bool,
}

impl Node {
    /// Leases that hold it.
    pub fn leases(&self) -> u32 {
        self.leases
    }

    /// Chunks behind it that are there: stored behind it, or taught to be.
    pub(super) fn behind_here(&self) -> u32 {
        self.children_here + self.taught_behind
    }

    /// Whether nothing is there behind it.
    pub fn is_bare(&self) -> bool {
        self.behind_here() == 0
    }

    /// Whether nothing that was stored behind it is there.
    pub fn is_leaf(&self) -> bool {
        self.children_here == 0
    }
}

/// A chunk to be put into the tree.
#[derive(Debug, Clone)]
pub struct NewNode<'a> {
    /// Its name.
    pub digest: &'a ChunkDigest,
    /// The chunk before it.
    pub parent: Option<&'a ChunkDigest>,
    /// Its tokens.
    pub content: Option<Content>,
    /// Its place in the prompt.
    pub position: u32,
    /// Memory of its key.
    pub bytes: u64,
    /// Length of its payload.
    pub payload_bytes: u64,
    /// Its deadline.
    pub expire_at: UnixMs,
    /// Weight at eviction.
    pub prio: u8,
    /// Pinned.
    pub pinned: bool,
}

impl Node {
    pub(super) fn ghost(digest: ChunkDigest, life: u32) -> Self {
        Self {
            digest,
            content: None,
            position: 0,
            bytes: 0,
            payload_bytes: 0,
            expire_at: UnixMs::NEVER,
            prio: 0,
            pinned: false,
            damaged: false,
            checked_at: UnixMs(0),
            hits: 0,
            since: None,
            frequency: 0.0,
            kept: false,
            used_at: 0,
            score: 0,
            leases: 0,
            life,
            children_here: 0,
            depth: 0,
            parent: NONE,
            taught_ahead: NONE,
            taught_behind: 0,
            ahead_epoch: 0,
            epoch: 0,
            first_child: NONE,
            next_sibling: NONE,
            previous_sibling: NONE,
            next_alike: NONE,
            previous_alike: NONE,
            state: State::Ghost,
            ordered: false,
        }
    }

    pub(super) fn may_go(&self) -> bool {
        self.state == State::Here && !self.pinned && self.leases == 0
    }
}
