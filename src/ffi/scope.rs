//! Whether some kind of work runs at the moment, for who is called deep within it.
//!
//! Owns: the flag. Main thread only.

use std::sync::atomic::{AtomicBool, Ordering};

/// A kind of work that may run within itself.
pub(super) struct Scope(AtomicBool);

impl Scope {
    /// None of it runs.
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Does some of it.
    pub(super) fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = self.0.swap(true, Ordering::Relaxed);
        let result = work();
        self.0.store(before, Ordering::Relaxed);
        result
    }

    /// Whether some of it runs.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
