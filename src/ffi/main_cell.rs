//! Data of the main thread behind a shared handle.
//!
//! Owns: the proof that only one thread ever looks inside. The handle may be cloned, sent and
//! dropped anywhere (the server frees values on its lazy-free thread); the content is reached by
//! the main thread, or its image in a forked child, and by one borrow at a time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What tells threads apart: the address of each one's own byte. Asking the standard library for the
/// thread's id would count references at every call.
static MAIN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: u8 = const { 0 };
}

/// Whether this is the main thread: the first one to ask, because it loads the module.
fn is_main() -> bool {
    let here = OWN.with(|own| std::ptr::from_ref(own).addr());
    match MAIN.load(Ordering::Relaxed) {
        0 => MAIN.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed).is_ok(),
        main => main == here,
    }
}

/// A value that only the main thread reads and changes.
#[derive(Debug)]
pub struct MainCell<T> {
    value: RefCell<T>,
}

// SAFETY: `with` and `try_with` refuse every thread but one, so the `RefCell` is never used by two;
// dropping from another thread needs `T: Send`.
unsafe impl<T: Send> Sync for MainCell<T> {}

impl<T> MainCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self { value: RefCell::new(value) }
    }

    /// Works on the value. The first thread to do so is the main thread: it is the one that loads
    /// the module.
    ///
    /// # Panics
    /// On another thread, and when nested: work on a cell must not open keys or call commands.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        assert!(is_main(), "main-thread data on another thread");
        work(&mut self.value.borrow_mut())
    }
}
