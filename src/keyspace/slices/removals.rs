//! Counting removals, and telling clients of the container, of commands that remove in slices.
//!
//! Main thread only.

use crate::ffi::{RString, WritePermit};

/// Things that a command has removed, and whether WATCH and client-side caching were told of them.
#[derive(Debug, Default)]
pub struct Removals {
    untold: u64,
    told: u64,
}

impl Removals {
    /// Counts one, if it was removed.
    pub fn note(&mut self, is_removed: bool) {
        self.untold += u64::from(is_removed);
    }

    /// Tells that the key of this name changed, where anything was removed since.
    pub fn tell(&mut self, ctx: WritePermit<'_>, name: &[u8]) {
        if self.untold > 0 {
            ctx.signal_modified(&RString::new(name));
            self.told += std::mem::take(&mut self.untold);
        }
    }

    /// How many there were that were told.
    pub fn count(&self) -> u64 {
        self.told
    }
}
