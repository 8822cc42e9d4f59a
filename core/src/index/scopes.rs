//! How many entries each scope has, so that one can be invalidated and its entries counted at once.
//!
//! Owns: the counts, by the scope's key. Most containers use the empty scope alone, which is counted
//! without a table. Main thread only; taking one away allocates nothing.

use crate::ids::ScopeKey;
use crate::sharded::ShardedMap;

/// Entries by scope.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    empty: u32,
    named: ShardedMap<u32>,
}

impl Scopes {
    pub(super) fn add(&mut self, scope: ScopeKey) {
        if scope == ScopeKey::default() {
            self.empty += 1;
        } else if let Some(count) = self.named.get_mut(scope.0) {
            *count += 1;
        } else {
            self.named.insert(scope.0, 1);
        }
    }

    pub(super) fn take(&mut self, scope: ScopeKey) {
        if scope == ScopeKey::default() {
            self.empty -= 1;
        } else if let Some(count) = self.named.get_mut(scope.0) {
            *count -= 1;
            if *count == 0 {
                self.named.remove(scope.0);
            }
        }
    }

    pub(super) fn count(&self, scope: ScopeKey) -> u64 {
        let named = || self.named.get(scope.0).copied().unwrap_or(0);
        u64::from(if scope == ScopeKey::default() { self.empty } else { named() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.named.bytes()
    }

    /// Panics unless both count alike; for tests.
    pub(super) fn check_equal(&self, other: &Self) {
        assert_eq!((self.empty, self.named.len()), (other.empty, other.named.len()), "scopes");
        for (scope, count) in self.named.iter() {
            assert_eq!(other.named.get(scope), Some(count), "entries of a scope");
        }
    }
}
