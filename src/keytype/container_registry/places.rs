//! The containers of one kind in one database: a row for each uid, and the order in which those with a key are
//! visited.
//!
//! Owns: the rows, the ring of those that stand in keys, the queues of those to be reaped and to be put back. Called
//! by `containers` alone. Main thread only.

use crate::ffi::MainCell;
use hashbrown::HashMap;
use llmcache_core::ids::{ContainerUid, MonotonicMs};
use llmcache_core::sharded::ShardedMap;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// A container, shared between its key, the reaper and whoever works on it.
pub type Shared<C> = Arc<MainCell<C>>;

/// How a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// In a key.
    Placed,
    /// Its key went, or is being renamed or moved; which of these shows when it is placed again.
    Gone,
    /// The server evicted its key, which is put back.
    Evicted,
    /// Entries of it are here, its key is not.
    Awaited,
}

/// What is known of one container.
#[derive(Debug)]
pub(super) struct Row<C> {
    /// What stands in a key is the server's to free.
    weak: Weak<MainCell<C>>,
    /// What stands in none is kept here.
    kept: Option<Shared<C>>,
    pub(super) standing: Standing,
    pub(super) name: Vec<u8>,
    /// The key's deadline when it was last looked at, in Unix milliseconds; 0 for none.
    pub(super) expire_at_ms: u64,
    /// Of one whose key went: where the walk over its keys goes on, and since when it is gone.
    pub(super) next_slot: u32,
    pub(super) since: Option<MonotonicMs>,
    /// Place in the ring, while it stands in a key.
    ring_at: usize,
    /// Whether it stands in the queue of those whose key went.
    queued: bool,
}

impl<C> Row<C> {
    pub(super) fn placed(container: &Shared<C>, name: Vec<u8>) -> Self {
        Self {
            weak: Arc::downgrade(container),
            kept: None,
            standing: Standing::Placed,
            name,
            expire_at_ms: 0,
            next_slot: 0,
            since: None,
            ring_at: 0,
            queued: false,
        }
    }

    pub(super) fn awaited(container: &Shared<C>) -> Self {
        let row = Self::placed(container, Vec::new());
        Self { kept: Some(Arc::clone(container)), standing: Standing::Awaited, ..row }
    }

    /// Its key goes.
    pub(super) fn unlink(&mut self, container: &Shared<C>, name: &[u8]) {
        (self.next_slot, self.since) = (0, None);
        self.standing = Standing::Gone;
        self.kept = Some(Arc::clone(container));
        self.name = name.to_vec();
    }

    pub(super) fn container(&self) -> Option<Shared<C>> {
        self.weak.upgrade()
    }

    pub(super) fn is_of(&self, container: &Shared<C>) -> bool {
        std::ptr::eq(self.weak.as_ptr(), Arc::as_ptr(container))
    }

    /// Whether it stands in a key, on a replica too.
    pub(super) fn is_placed(&self) -> bool {
        self.standing == Standing::Placed && self.weak.strong_count() > 0
    }

    /// Whether its entries have it to belong to.
    pub(super) fn lives(&self) -> bool {
        matches!(self.standing, Standing::Placed | Standing::Evicted)
            && self.weak.strong_count() > 0
    }
}

/// Keys that wait for one container.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) names: Vec<Vec<u8>>,
    /// Whether one came since the walk over all keys began, which may have passed its place before.
    pub(super) is_fresh: bool,
}

/// The containers of one database.
#[derive(Debug)]
pub(super) struct Database<C> {
    rows: ShardedMap<Row<C>>,
    ring: Vec<ContainerUid>,
    awaited: usize,
    /// Those whose key went, oldest first.
    remains: VecDeque<ContainerUid>,
    /// The one whose key went last.
    pub(super) last_unlinked: Option<ContainerUid>,
    pub(super) evicted: Vec<ContainerUid>,
    /// Keys that wait for a container.
    pub(super) waiting: HashMap<ContainerUid, Waiting>,
}

impl<C> Default for Database<C> {
    fn default() -> Self {
        Self {
            rows: ShardedMap::default(),
            ring: Vec::new(),
            awaited: 0,
            remains: VecDeque::new(),
            last_unlinked: None,
            evicted: Vec::new(),
            waiting: HashMap::new(),
        }
    }
}

impl<C> Database<C> {
    pub(super) fn row(&self, uid: ContainerUid) -> Option<&Row<C>> {
        self.rows.get(uid.0)
    }

    pub(super) fn row_mut(&mut self, uid: ContainerUid) -> Option<&mut Row<C>> {
        self.rows.get_mut(uid.0)
    }

    /// How many stand in keys.
    pub(super) fn placed(&self) -> usize {
        self.ring.len()
    }

    /// How many are awaited.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    /// The row at a place of the ring.
    pub(super) fn placed_at(&self, at: usize) -> Option<&Row<C>> {
        self.row(*self.ring.get(at)?)
    }

    /// Adds a row of a uid that has none here.
    pub(super) fn put(&mut self, uid: ContainerUid, mut row: Row<C>) {
        if row.standing == Standing::Placed {
            row.ring_at = self.ring.len();
            self.ring.push(uid);
        }
        self.awaited += usize::from(row.standing == Standing::Awaited);
        self.rows.insert(uid.0, row);
    }

    /// Takes a row out.
    pub(super) fn take(&mut self, uid: ContainerUid) -> Option<Row<C>> {
        let row = self.rows.remove(uid.0)?;
        self.awaited -= usize::from(row.standing == Standing::Awaited);
        if row.standing == Standing::Placed {
            self.ring.swap_remove(row.ring_at);
            if let Some(&moved) = self.ring.get(row.ring_at)
                && let Some(other) = self.rows.get_mut(moved.0)
            {
                other.ring_at = row.ring_at;
            }
            if self.ring.capacity() > 64 && self.ring.len() < self.ring.capacity() / 4 {
                self.ring.shrink_to(self.ring.len() * 2);
            }
        }
        Some(row)
    }

    /// Has a container looked at whose key went, behind the others when `later`.
    pub(super) fn queue_remains(&mut self, uid: ContainerUid, later: bool) {
        let Some(row) = self.rows.get_mut(uid.0) else { return };
        if std::mem::replace(&mut row.queued, true) {
            return;
        }
        if later {
            self.remains.push_back(uid);
        } else {
            self.remains.push_front(uid);
        }
    }

    /// The next of these.
    pub(super) fn next_remains(&mut self) -> Option<ContainerUid> {
        let uid = self.remains.pop_front()?;
        if let Some(row) = self.rows.get_mut(uid.0) {
            row.queued = false;
        }
        if self.remains.is_empty() {
            self.remains.shrink_to(64);
        }
        Some(uid)
    }

    /// Takes a bounded part of all rows away, with all that is left of their containers.
    pub(super) fn pop_part(&mut self) -> Option<HashMap<u64, Row<C>>> {
        self.rows.pop_part()
    }
}
