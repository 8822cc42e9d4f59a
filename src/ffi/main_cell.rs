//! Data of the main thread behind a shared handle.
//!
//! Owns: the proof that only one thread ever looks inside. The handle may be cloned, sent and
//! dropped anywhere (the server frees values on its lazy-free thread); the content is reached by
//! the main thread, or its image in a forked child, and by one borrow at a time.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::thread::ThreadId;

static MAIN: OnceLock<ThreadId> = OnceLock::new();

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
        let here = std::thread::current().id();
        assert_eq!(*MAIN.get_or_init(|| here), here, "main-thread data on another thread");
        work(&mut self.value.borrow_mut())
    }
}
