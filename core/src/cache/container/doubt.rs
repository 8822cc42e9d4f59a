//! Detects an index that may have rows for entries which no longer exist.
//!
//! Owns: the comparison of rows with the keys that a walk over all keys met, and the state of the walk that then opens
//! the key of every row. Main thread only.

/// Whether rows may stand for entries that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No reason to think so.
    None,
    /// Some do; a walk over all rows has to find which.
    Raised,
    /// That walk is under way.
    Walked,
}

/// The doubt of one container.
#[derive(Debug)]
pub struct Doubt {
    state: State,
    /// The next place of the store order when rows and keys were last compared.
    counted_at: u64,
}

impl Doubt {
    /// None, for a container whose next place of the store order is this.
    pub fn none(next_seq: u64) -> Self {
        Self { state: State::None, counted_at: next_seq }
    }

    /// Compares the number of rows with the entries that a walk over all keys met. Each entry that was there
    /// throughout was met, so rows beyond that number and beyond what was stored since the last comparison stand for
    /// nothing.
    pub fn count_against(&mut self, met: u64, rows: u64, next_seq: u64) {
        let stored = next_seq - std::mem::replace(&mut self.counted_at, next_seq);
        if rows > met.saturating_add(stored) {
            self.state = State::Raised;
        }
    }

    /// A walk over all rows begins, which opens the keys of those it is unsure of.
    pub fn begin_walk(&mut self) {
        if self.state == State::Raised {
            self.state = State::Walked;
        }
    }

    /// Whether that walk opens the key of every row.
    pub fn is_of_all(&self) -> bool {
        self.state == State::Walked
    }

    /// The walk ended.
    pub fn end_walk(&mut self) {
        if self.state == State::Walked {
            self.state = State::None;
        }
    }
}
