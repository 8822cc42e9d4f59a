//! Running sums over all containers of one kind, updated by each container as it changes: reading a sum visits none
//! of them.
//!
//! Owns: an account of sums, and what each container has told it. A container tells what it has whenever that
//! changes; what it told is taken back when it goes, on whichever thread the server frees it. Counts of what
//! happened only grow: they are kept beside those of the container and outlive it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums of `N` kinds.
#[derive(Debug)]
pub struct Account<const N: usize>([AtomicU64; N]);

impl<const N: usize> Account<N> {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    /// The sums.
    pub fn sums(&self) -> [u64; N] {
        self.0.each_ref().map(|sum| sum.load(Ordering::Relaxed))
    }
}

impl<const N: usize> Default for Account<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What one container told an account.
#[derive(Debug)]
pub struct Holding<const N: usize> {
    account: Option<&'static Account<N>>,
    told: [u64; N],
}

impl<const N: usize> Default for Holding<N> {
    fn default() -> Self {
        Self { account: None, told: [0; N] }
    }
}

impl<const N: usize> Holding<N> {
    /// Counts with an account from here on, and with no other.
    pub fn open(&mut self, account: &'static Account<N>) {
        if self.account.is_none_or(|own| !std::ptr::eq(own, account)) {
            self.close();
            self.account = Some(account);
        }
    }

    /// Takes back what was told, and counts no more.
    pub fn close(&mut self) {
        self.tell([0; N]);
        self.account = None;
    }

    /// Tells what there is now.
    pub fn tell(&mut self, now: [u64; N]) {
        let Some(account) = self.account else { return };
        for ((sum, told), now) in account.0.iter().zip(&mut self.told).zip(now) {
            if *told != now {
                // Wraps where it became less, as the sum does.
                sum.fetch_add(now.wrapping_sub(*told), Ordering::Relaxed);
                *told = now;
            }
        }
    }

    /// Tells one of the numbers.
    pub fn tell_one(&mut self, which: usize, now: u64) {
        let mut all = self.told;
        all[which] = now;
        self.tell(all);
    }

    /// What was told last.
    pub fn told(&self) -> &[u64; N] {
        &self.told
    }
}

impl<const N: usize> Drop for Holding<N> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A count of what happened, which one thread adds to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// So many more. One thread alone calls this, so it need not be one step.
    pub fn add(&self, more: u64) {
        self.0.store(self.get().saturating_add(more), Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_follow_what_comes_changes_moves_and_goes() {
        static FIRST: Account<2> = Account::new();
        static SECOND: Account<2> = Account::new();
        let (mut one, mut other) = (Holding::default(), Holding::default());
        one.tell([5, 5]);
        assert_eq!(FIRST.sums(), [0, 0], "told to nobody");
        one.open(&FIRST);
        other.open(&FIRST);
        one.tell([3, 100]);
        other.tell([4, 1]);
        one.tell([2, 90]);
        one.tell_one(1, 80);
        assert_eq!(FIRST.sums(), [6, 81]);
        one.open(&SECOND);
        assert_eq!((FIRST.sums(), SECOND.sums()), ([4, 1], [0, 0]));
        one.tell([2, 80]);
        assert_eq!(SECOND.sums(), [2, 80]);
        drop(other);
        assert_eq!(FIRST.sums(), [0, 0]);
        drop(one);
        assert_eq!((FIRST.sums(), SECOND.sums()), ([0, 0], [0, 0]));
    }
}
