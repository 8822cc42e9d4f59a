//! The admission policy: which new chains are kept until they had time to be reused.
//!
//! Owns: what was learnt of the time between storing a chunk and its first use, and the share of new
//! chains that follows from it. Where most of a cache turns over before what it holds is asked for again,
//! treating all alike keeps nothing long enough; keeping one chain in a few that much longer, and letting
//! the others go first, finds more. The share is that with the most first uses: with one chain in `n`,
//! what is kept stays for `n` times as long, so that `first uses within n * capacity / n` is found. On the
//! Mooncake conversation trace that is one in 2 at 5,000 chunks, one in 8 at 1,250, all from 10,000 on.
//!
//! Time is counted in chunks stored. No clock, no randomness: of new chains each `n`th is kept.

use crate::allocation::allocated_bytes;
use crate::kvchunk::ChunkDigest;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// One chunk in so many is watched.
const SAMPLE: u64 = 8;
/// Chunks watched, at most.
const WATCHED_MAX: usize = 1 << 16;
/// For how many times the capacity a chunk is watched: twice what the least share would keep it.
const HORIZON: f64 = 16.0;
/// Shares tried: one chain in so many.
const ONE_IN: [u32; 4] = [1, 2, 4, 8];
/// Part of the capacity that new chains have; the rest holds what was used.
const ROOM: f64 = 0.7;
/// Another share must find so much more than the one there is: with it the order of eviction is rebuilt.
const GAIN: f64 = 1.1;
/// First uses to be seen before anything follows from them.
const EVIDENCE: f64 = 32.0;
/// What is left of older evidence at each decision, of which there are eight a capacity.
const FADING: f64 = 0.98;
const DECISIONS_PER_CAPACITY: u64 = 8;
const DECISION_MIN: u64 = 256;
/// Buckets of ages, two to every doubling.
const BUCKETS: usize = 64;

/// What is known of first uses.
#[derive(Debug)]
pub(super) struct Admission {
    /// When each watched chunk was stored, by the mixed bytes of its name.
    watched: HashMap<u64, u64>,
    /// The same in order of time; outdated where the other says otherwise.
    queue: VecDeque<(u64, u64)>,
    /// How many first uses came at which age.
    ages: [f64; BUCKETS],
    stored: u64,
    decide_at: u64,
    chains: u32,
    one_in: u32,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            watched: HashMap::new(),
            queue: VecDeque::new(),
            ages: [0.0; BUCKETS],
            stored: 0,
            decide_at: DECISION_MIN,
            chains: 0,
            one_in: 1,
        }
    }
}

impl Admission {
    /// Of how many new chains one is kept.
    pub fn one_in(&self) -> u32 {
        self.one_in
    }

    /// Whether the chain that begins now is kept.
    pub fn keep_chain(&mut self) -> bool {
        self.chains = self.chains.wrapping_add(1);
        self.chains.is_multiple_of(self.one_in)
    }

    /// A chunk was stored. If it was before and went unused, this is its first use.
    pub fn note_stored(&mut self, digest: &ChunkDigest) {
        self.stored += 1;
        let Some(mixed) = sampled(digest) else { return };
        if let Some(before) = self.watched.insert(mixed, self.stored) {
            self.note_age(self.stored - before);
        }
        self.queue.push_back((mixed, self.stored));
        if self.queue.len() > WATCHED_MAX {
            self.forget_oldest();
        }
    }

    /// A chunk was used.
    pub fn note_used(&mut self, digest: &ChunkDigest) {
        if let Some(before) = sampled(digest).and_then(|mixed| self.watched.remove(&mixed)) {
            self.note_age(self.stored - before);
        }
    }

    /// Decides again where it is time; returns whether the share changed.
    pub fn decide(&mut self, capacity: f64) -> bool {
        if self.stored < self.decide_at {
            return false;
        }
        self.decide_at = self.stored + (capacity as u64 / DECISIONS_PER_CAPACITY).max(DECISION_MIN);
        let horizon = (capacity * HORIZON) as u64;
        while self.queue.front().is_some_and(|&(_, at)| at + horizon < self.stored) {
            self.forget_oldest();
        }
        let before = self.one_in;
        if self.ages.iter().sum::<f64>() >= EVIDENCE {
            self.one_in = self.best_share(capacity * ROOM);
        }
        self.ages.iter_mut().for_each(|count| *count *= FADING);
        self.one_in != before
    }

    fn best_share(&self, room: f64) -> u32 {
        let found = |&one_in: &u32| {
            let share = f64::from(one_in);
            let bonus = if one_in == self.one_in { GAIN } else { 1.0 };
            self.used_within(room * share) / share * bonus
        };
        let better = |best: u32, next: u32| if found(&next) > found(&best) { next } else { best };
        ONE_IN.into_iter().reduce(better).unwrap_or(1)
    }

    /// First uses that came at most so late.
    fn used_within(&self, age: f64) -> f64 {
        let place = age.max(1.0).log2() * 2.0;
        let bucket = (place as usize).min(BUCKETS - 1);
        let whole: f64 = self.ages[..bucket].iter().sum();
        whole + self.ages[bucket] * (place - bucket as f64).min(1.0)
    }

    fn note_age(&mut self, age: u64) {
        let bucket = ((age.max(1) as f64).log2() * 2.0) as usize;
        self.ages[bucket.min(BUCKETS - 1)] += 1.0;
    }

    fn forget_oldest(&mut self) {
        if let Some((mixed, at)) = self.queue.pop_front()
            && self.watched.get(&mixed) == Some(&at)
        {
            self.watched.remove(&mixed);
        }
    }

    /// Memory of it.
    pub fn heap_bytes(&self) -> usize {
        self.watched.allocation_size() + allocated_bytes(self.queue.capacity() * 16)
    }
}

/// The mixed bytes of a name (FNV-1a) if it is one of those watched: the same on every server.
fn sampled(digest: &ChunkDigest) -> Option<u64> {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let mixed = digest.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    // The upper bits, which all bytes had a part in.
    (mixed >> 32).is_multiple_of(SAMPLE).then_some(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> ChunkDigest {
        ChunkDigest::from_bytes(&number.to_le_bytes()).unwrap()
    }

    /// Stores chunks, each used when `gap` more were stored, with room for `capacity`.
    fn share_of(gap: u64, capacity: f64) -> u32 {
        let mut admission = Admission::default();
        for at in 0..60_000 {
            admission.note_stored(&digest(at));
            if at >= gap {
                admission.note_used(&digest(at - gap));
            }
            admission.decide(capacity);
        }
        assert!(admission.queue.len() <= WATCHED_MAX);
        admission.one_in()
    }

    #[test]
    fn chains_are_thinned_out_where_uses_come_too_late_for_all_and_not_for_some() {
        assert_eq!(share_of(500, 1_000.0), 1, "all are used in time");
        assert_eq!(share_of(1_000, 1_000.0), 2);
        assert_eq!(share_of(2_000, 1_000.0), 4);
        assert_eq!(share_of(4_500, 1_000.0), 8);
        assert_eq!(share_of(12_000, 1_000.0), 1, "none would be in time");
    }

    #[test]
    fn what_was_learnt_fades() {
        let mut admission = Admission::default();
        for at in 0..40_000 {
            admission.note_stored(&digest(at));
            if at >= 3_000 {
                admission.note_used(&digest(at - 3_000));
            }
            admission.decide(1_000.0);
        }
        assert!(admission.one_in() > 1);
        for at in 40_000..90_000 {
            admission.note_stored(&digest(at));
            admission.note_used(&digest(at));
            admission.decide(1_000.0);
        }
        assert_eq!(admission.one_in(), 1);
    }

    #[test]
    fn each_nth_chain_is_kept() {
        let mut admission = Admission { one_in: 4, ..Admission::default() };
        assert_eq!((0..40).filter(|_| admission.keep_chain()).count(), 10);
    }
}
