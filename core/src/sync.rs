//! Shared ownership and atomics: those of the standard library, or of the model checker when the crate
//! is built to be checked by it (`--cfg loom`).
//!
//! What a search on another thread reads is made of these alone, so what `tests/loom.rs` proves is
//! proven of the code that serves.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence},
};
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence},
};

/// The value behind a handle, to be changed: copied first where another handle holds it.
pub(crate) fn own<T: Clone>(shared: &mut Arc<T>) -> &mut T {
    if Arc::get_mut(shared).is_none() {
        *shared = Arc::new(T::clone(shared));
    }
    Arc::get_mut(shared).expect("nobody else has seen the copy")
}
