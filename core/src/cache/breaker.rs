//! The circuit breaker of a scope: after repeated failures nobody is asked to generate an answer for a while, then
//! one caller at a time tries.
//!
//! Owns: the failures of each scope. Process memory only. Main thread; time is passed in.

use crate::ids::{MonotonicMs, ScopeKey};
use crate::limits;
use hashbrown::HashMap;

/// When a breaker opens and how long it stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures that open it; 0 for never.
    pub failures: u32,
    /// Time within which they count together.
    pub window_ms: u64,
    /// Time between trials while it is open.
    pub cooldown_ms: u64,
}

impl BreakerSettings {
    fn forgotten_at(&self, now: MonotonicMs) -> u64 {
        now.0 + self.window_ms + self.cooldown_ms
    }
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    first_failure_ms: u64,
    /// While open, when the next trial is due.
    next_trial_ms: Option<u64>,
    /// When it is forgotten unless something happens: what failed counts no longer, or nobody tried for as long
    /// as the scope was to rest and failures count.
    forgotten_at_ms: u64,
}

/// The breakers of a container.
#[derive(Debug, Default)]
pub struct Breakers(HashMap<ScopeKey, Breaker>);

impl Breakers {
    /// Whether somebody may make an answer now. In an open scope one caller per cooldown may; the others
    /// are told how many milliseconds are left.
    pub fn admit(
        &mut self,
        scope: ScopeKey,
        settings: BreakerSettings,
        now: MonotonicMs,
    ) -> Result<(), u64> {
        let Some(breaker) = self.0.get_mut(&scope) else { return Ok(()) };
        match breaker.next_trial_ms {
            Some(due) if now.0 < due => Err(due - now.0),
            Some(_) => {
                breaker.next_trial_ms = Some(now.0 + settings.cooldown_ms);
                breaker.forgotten_at_ms = settings.forgotten_at(now);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a failure. Answers when to ask `forget` where this is the scope's first.
    pub fn note_failure(
        &mut self,
        scope: ScopeKey,
        settings: BreakerSettings,
        now: MonotonicMs,
    ) -> Option<MonotonicMs> {
        let is_new = !self.0.contains_key(&scope);
        if settings.failures == 0 || (is_new && self.0.len() >= limits::BREAKERS_MAX) {
            return None;
        }
        let breaker = self.0.entry(scope).or_default();
        if now.0 >= breaker.first_failure_ms + settings.window_ms {
            (breaker.first_failure_ms, breaker.failures) = (now.0, 0);
        }
        breaker.failures += 1;
        if breaker.next_trial_ms.is_some() || breaker.failures >= settings.failures {
            breaker.next_trial_ms = Some(now.0 + settings.cooldown_ms);
        }
        breaker.forgotten_at_ms = settings.forgotten_at(now);
        is_new.then_some(MonotonicMs(breaker.forgotten_at_ms))
    }

    /// Forgets a scope where its time has come; answers when to ask again where it has not.
    pub fn forget(&mut self, scope: ScopeKey, now: MonotonicMs) -> Option<MonotonicMs> {
        let at = MonotonicMs(self.0.get(&scope)?.forgotten_at_ms);
        if !at.is_past(now) {
            return Some(at);
        }
        self.0.remove(&scope);
        None
    }

    /// Whether no scope failed lately.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a scope's breaker is open.
    #[cfg(test)]
    fn is_open(&self, scope: ScopeKey) -> bool {
        self.0.get(&scope).is_some_and(|breaker| breaker.next_trial_ms.is_some())
    }

    /// An answer was made: the scope's failures are forgotten.
    pub fn note_success(&mut self, scope: ScopeKey) {
        self.0.remove(&scope);
    }

    /// Scopes whose breaker is open.
    pub fn open_count(&self) -> usize {
        self.0.values().filter(|breaker| breaker.next_trial_ms.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_tries_once_a_cooldown_and_closes() {
        let settings = BreakerSettings { failures: 3, window_ms: 1_000, cooldown_ms: 500 };
        let (scope, mut breakers) = (ScopeKey(7), Breakers::default());
        let at = MonotonicMs;
        let fail = |breakers: &mut Breakers, ms| {
            breakers.note_failure(scope, settings, at(ms));
            breakers.is_open(scope)
        };
        assert!(!fail(&mut breakers, 1));
        assert!(!fail(&mut breakers, 900));
        // The window of the first failure is over: it counts no longer.
        assert!(!fail(&mut breakers, 1_001));
        assert!(!fail(&mut breakers, 1_002));
        assert!(fail(&mut breakers, 1_003));
        assert_eq!(breakers.admit(scope, settings, at(1_004)), Err(499));
        assert_eq!(breakers.admit(ScopeKey(8), settings, at(1_004)), Ok(()));
        assert_eq!(breakers.admit(scope, settings, at(1_503)), Ok(()), "one trial");
        assert_eq!(breakers.admit(scope, settings, at(1_503)), Err(500), "and one only");
        assert!(fail(&mut breakers, 1_600), "the trial failed");
        assert_eq!(breakers.admit(scope, settings, at(1_601)), Err(499));
        assert_eq!(breakers.open_count(), 1);
        breakers.note_success(scope);
        assert_eq!(breakers.admit(scope, settings, at(1_601)), Ok(()));
        assert_eq!(breakers.open_count(), 0);
    }

    #[test]
    fn a_scope_is_forgotten_when_nothing_happened_for_long() {
        let settings = BreakerSettings { failures: 2, window_ms: 1_000, cooldown_ms: 500 };
        let (scope, mut breakers) = (ScopeKey(7), Breakers::default());
        let first = breakers.note_failure(scope, settings, MonotonicMs(10));
        assert_eq!(first, Some(MonotonicMs(1_510)));
        assert_eq!(breakers.note_failure(scope, settings, MonotonicMs(20)), None, "noted once");
        assert_eq!(
            breakers.forget(scope, MonotonicMs(1_510)),
            Some(MonotonicMs(1_520)),
            "too soon"
        );
        assert_eq!(breakers.admit(scope, settings, MonotonicMs(1_515)), Ok(()), "a trial");
        assert_eq!(breakers.forget(scope, MonotonicMs(1_520)), Some(MonotonicMs(3_015)));
        assert_eq!(breakers.forget(scope, MonotonicMs(3_015)), None);
        assert!(breakers.is_empty());
    }
}
