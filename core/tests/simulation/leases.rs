//! What must hold of leases, waiters, failures and the breaker, kept apart from the flights themselves.
//!
//! At most one client has a lease that has not ended; nobody is sent away for a lease that is over; a lease is good for
//! an answer only if nothing it belongs to was invalidated since; the breaker lets one through for each cooldown.

use llmcache_core::cache::{BreakerSettings, LeaseToken, Verdict};

pub const BREAKER: BreakerSettings =
    BreakerSettings { failures: 2, window_ms: 1_000, cooldown_ms: 500 };

/// Where a lease is kept: the node, which start of it, and the life of the container.
pub type Home = (usize, u32, u64);

#[derive(Debug)]
pub struct Lease {
    pub home: Home,
    pub prompt: usize,
    pub token: LeaseToken,
    pub until: u64,
    pub ended: bool,
    /// All was invalidated since, or something was picked out.
    pub is_void: bool,
    pub void_tags: Vec<usize>,
}

#[derive(Debug, Default)]
struct Breaker {
    first_failure: u64,
    is_failing: bool,
    next_trial: Option<u64>,
    forgotten_at: u64,
}

#[derive(Debug, Default)]
pub struct Leases {
    pub all: Vec<Lease>,
    breakers: Vec<(Home, Breaker)>,
    failures: Vec<(Home, usize, u64)>,
}

impl Leases {
    fn held(&self, home: Home, prompt: usize) -> Option<&Lease> {
        self.all.iter().find(|lease| lease.home == home && lease.prompt == prompt && !lease.ended)
    }

    fn breaker(&mut self, home: Home) -> &mut Breaker {
        let at = self.breakers.iter().position(|(at, _)| *at == home).unwrap_or_else(|| {
            self.breakers.push((home, Breaker::default()));
            self.breakers.len() - 1
        });
        &mut self.breakers[at].1
    }

    /// Holds what an asker without an answer was told against what it should be. `waited_for`: whether others wait for
    /// this answer and may be about to become its makers.
    pub fn judge(
        &mut self,
        home: Home,
        prompt: usize,
        verdict: &Verdict,
        now: u64,
        waited_for: bool,
    ) {
        let in_time =
            self.held(home, prompt).filter(|lease| lease.until > now).map(|lease| lease.token);
        let open_until = self.breaker(home).next_trial.filter(|&at| at > now);
        match verdict {
            Verdict::Lead => {
                assert!(in_time.is_none(), "two leaders: {in_time:?} has not ended");
                assert!(open_until.is_none(), "an open breaker let somebody through");
                let breaker = self.breaker(home);
                if breaker.next_trial.is_some() {
                    breaker.next_trial = Some(now + BREAKER.cooldown_ms);
                    breaker.forgotten_at = now + BREAKER.window_ms + BREAKER.cooldown_ms;
                }
            }
            Verdict::Busy { retry_ms } => {
                assert!(
                    in_time.is_some() || waited_for,
                    "held: sent away for a lease that is over"
                );
                assert!(*retry_ms > 0);
            }
            Verdict::Open { retry_ms } => {
                assert_eq!(
                    open_until.map(|at| at - now),
                    Some(*retry_ms),
                    "a closed breaker refused"
                );
            }
            Verdict::Negative { retry_ms, .. } => {
                let known =
                    self.failures.iter().rev().find(|(at, of, _)| (*at, *of) == (home, prompt));
                let left = known.and_then(|(_, _, until)| until.checked_sub(now));
                assert_eq!(left, Some(*retry_ms), "a failure nobody reported, or one that is over");
            }
            _ => {}
        }
    }

    pub fn grant(&mut self, home: Home, prompt: usize, token: LeaseToken, until: u64) {
        self.end(home, prompt);
        let (ended, is_void) = (false, false);
        self.all.push(Lease { home, prompt, token, until, ended, is_void, void_tags: Vec::new() });
    }

    /// An answer was stored, its making was given up, or it is not wanted any more.
    pub fn end(&mut self, home: Home, prompt: usize) {
        let of = |lease: &&mut Lease| lease.home == home && lease.prompt == prompt;
        self.all.iter_mut().filter(of).for_each(|lease| lease.ended = true);
    }

    pub fn forget_failure(&mut self, home: Home, prompt: usize) {
        self.failures.retain(|(at, of, _)| (*at, *of) != (home, prompt));
    }

    /// Something of a container was invalidated, wherever that is: a tag, or all.
    pub fn invalidated(&mut self, uid: u64, tag: Option<usize>) {
        for lease in self.all.iter_mut().filter(|lease| lease.home.2 == uid) {
            match tag {
                Some(tag) => lease.void_tags.push(tag),
                None => lease.is_void = true,
            }
        }
    }

    /// One answer was picked out by its name, wherever that is.
    pub fn voided(&mut self, uid: u64, prompt: usize) {
        let of = |lease: &&mut Lease| lease.home.2 == uid && lease.prompt == prompt;
        self.all.iter_mut().filter(of).for_each(|lease| lease.is_void = true);
    }

    /// The server became a primary: what it granted before is good for nothing.
    pub fn took_over(&mut self, node: usize) {
        let there = |lease: &&mut Lease| lease.home.0 == node;
        self.all.iter_mut().filter(there).for_each(|lease| lease.is_void = true);
    }

    /// The container came to this node: what was granted there before is good for nothing.
    pub fn arrived(&mut self, node: usize, uid: u64) {
        let there = |lease: &&mut Lease| (lease.home.0, lease.home.2) == (node, uid);
        self.all.iter_mut().filter(there).for_each(|lease| lease.is_void = true);
    }

    pub fn note_failure(&mut self, home: Home, prompt: usize, backoff_ms: u64, now: u64) {
        self.forget_failure(home, prompt);
        if backoff_ms > 0 {
            self.failures.push((home, prompt, now + backoff_ms));
        }
        let breaker = self.breaker(home);
        let counts = breaker.is_failing && now < breaker.first_failure + BREAKER.window_ms;
        if !counts {
            (breaker.first_failure, breaker.is_failing) = (now, true);
        }
        if counts || breaker.next_trial.is_some() {
            breaker.next_trial = Some(now + BREAKER.cooldown_ms);
        }
        breaker.forgotten_at = now + BREAKER.window_ms + BREAKER.cooldown_ms;
    }

    pub fn note_success(&mut self, home: Home) {
        *self.breaker(home) = Breaker::default();
    }

    /// All flights of a home ended.
    pub fn forget(&mut self, home: Home) {
        self.all.iter_mut().filter(|lease| lease.home == home).for_each(|lease| lease.ended = true);
        self.breakers.retain(|(at, _)| *at != home);
        self.failures.retain(|(at, ..)| *at != home);
    }

    /// The flights of a home were tended: what is to be forgotten is.
    pub fn tended(&mut self, home: Home, now: u64) {
        if self.breaker(home).forgotten_at <= now {
            *self.breaker(home) = Breaker::default();
        }
    }
}
