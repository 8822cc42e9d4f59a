//! A ledger of open values, where commands are watched (debug builds, `llmcache.check-work`).
//!
//! Owns: the check of the rule that no key is deleted while it is open (`key`). The server tells the removal hook of
//! every value that leaves the keyspace, whoever removed it, and the hook asserts here that the value is closed. Main
//! thread only.

use super::{MainCell, steps};
use hashbrown::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::LazyLock;

/// How many times each value is open.
#[derive(Debug, Default)]
struct Ledger(HashMap<usize, u32>);

impl Ledger {
    fn open(&mut self, value: usize) {
        *self.0.entry(value).or_default() += 1;
    }

    fn close(&mut self, value: usize) {
        if let Some(times) = self.0.get_mut(&value) {
            *times -= 1;
            if *times == 0 {
                self.0.remove(&value);
            }
        }
    }

    fn is_open(&self, value: usize) -> bool {
        self.0.contains_key(&value)
    }
}

static LEDGER: LazyLock<MainCell<Ledger>> = LazyLock::new(|| MainCell::new(Ledger::default()));

/// A value that is open as long as this lives.
#[derive(Debug)]
pub(super) struct OpenValue(Option<usize>);

impl OpenValue {
    /// Notes that a value is open, if commands are watched.
    pub(super) fn note(value: NonNull<c_void>) -> Self {
        let value = steps::is_watched().then(|| value.addr().get());
        if let Some(value) = value {
            LEDGER.with(|ledger| ledger.open(value));
        }
        Self(value)
    }
}

impl Drop for OpenValue {
    fn drop(&mut self) {
        if let Some(value) = self.0 {
            LEDGER.with(|ledger| ledger.close(value));
        }
    }
}

/// A value leaves the keyspace.
///
/// # Panics
/// When it is open.
pub(super) fn assert_closed(value: *const c_void) {
    if steps::is_watched() {
        let is_open = LEDGER.with(|ledger| ledger.is_open(value.addr()));
        assert!(!is_open, "a key was deleted while it was open");
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    #[test]
    fn a_value_is_open_until_it_was_closed_as_often_as_opened() {
        let mut ledger = Ledger::default();
        ledger.open(1);
        ledger.open(1);
        ledger.open(2);
        ledger.close(1);
        assert!(ledger.is_open(1) && ledger.is_open(2) && !ledger.is_open(3));
        ledger.close(1);
        // Opened before commands were watched.
        ledger.close(3);
        assert!(!ledger.is_open(1) && ledger.is_open(2));
    }
}
