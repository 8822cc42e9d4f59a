//! Who sleeps for want of work: threads are called by a system call only where one sleeps, and one call is made for
//! each that does.
//!
//! Owns: a count, and the order of steps that makes it safe. Any thread. What wakes a sleeper (a byte in a pipe) is its
//! owner's; `tests/loom.rs` runs both sides in every order that the memory model allows.
//!
//! Who has something puts it where it belongs, then calls if `claim` tells it to. Who finds nothing says so by
//! `will_sleep`, and looks once more. If there is something now, it goes on where `claim` allows that; if that does
//! not, somebody has claimed a sleeper and is about to call, so it sleeps until called. So there are as many calls as
//! claims by others, and nobody sleeps while there is something that nobody is called for.

use crate::sync::{AtomicUsize, Ordering, fence};

/// Threads that sleep, or are about to, and are not called yet.
#[derive(Debug)]
pub struct Sleepers(AtomicUsize);

impl Default for Sleepers {
    fn default() -> Self {
        Self(AtomicUsize::new(0))
    }
}

impl Sleepers {
    /// Says that the calling thread found nothing. It must look once more before it sleeps.
    pub fn will_sleep(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Either the look that follows sees what was put there, or who put it there sees this.
        fence(Ordering::SeqCst);
    }

    /// The same for one that is alone and may say so twice.
    pub fn only_one_will_sleep(&self) {
        self.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether there is one to be called, which then counts as called. To be asked after something was put there.
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        let less = |sleeping: usize| sleeping.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}
