//! Data of the main thread behind a shared handle.
//!
//! Owns: the proof that only one thread ever looks inside. A `MainCell` may be shared, sent and
//! dropped anywhere (the server frees values on its lazy-free thread); the content is reached by
//! the main thread, or its image in a forked child, and by one borrow at a time. A `MainBound` lets
//! pointers of the server stand in such a cell, since they are not `Send` by themselves.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
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
    value: RefCell<ManuallyDrop<T>>,
    /// Drops the value in another way, on whichever thread lets go of it last.
    dispose: Option<fn(T)>,
}

// SAFETY: `with` and `try_with` refuse every thread but one, so the `RefCell` is never used by two;
// dropping from another thread needs `T: Send`.
unsafe impl<T: Send> Sync for MainCell<T> {}

impl<T> MainCell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self { value: RefCell::new(ManuallyDrop::new(value)), dispose: None }
    }

    /// Wraps a value that may take long to drop: `dispose` is given it instead, on any thread.
    pub fn disposed_by(value: T, dispose: fn(T)) -> Self {
        Self { value: RefCell::new(ManuallyDrop::new(value)), dispose: Some(dispose) }
    }

    /// Works on the value. The first thread to do so is the main thread: it is the one that loads
    /// the module.
    ///
    /// # Panics
    /// On another thread, and when nested: work on a cell must not open keys or call commands.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        assert!(is_main(), "main-thread data on another thread");
        work(&mut **self.value.borrow_mut())
    }
}

impl<T> Drop for MainCell<T> {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and used no more.
        let value = unsafe { ManuallyDrop::take(self.value.get_mut()) };
        match self.dispose {
            Some(dispose) => dispose(value),
            None => drop(value),
        }
    }
}

/// A value that is made, used and dropped on the main thread alone, such as a pointer of the server. It may be
/// moved to another thread, which can do nothing with it: dropped there it is leaked.
#[derive(Debug)]
pub struct MainBound<T>(ManuallyDrop<T>);

// SAFETY: every way to the value asserts the main thread, and `drop` leaves it alone on another.
unsafe impl<T> Send for MainBound<T> {}

impl<T> MainBound<T> {
    /// Wraps a value.
    ///
    /// # Panics
    /// On another thread than the main one, here and below.
    pub fn new(value: T) -> Self {
        assert!(is_main(), "main-thread data on another thread");
        Self(ManuallyDrop::new(value))
    }

    /// The value.
    pub fn get(&self) -> &T {
        assert!(is_main(), "main-thread data on another thread");
        &self.0
    }
}

impl<T: Clone> Clone for MainBound<T> {
    fn clone(&self) -> Self {
        Self::new(self.get().clone())
    }
}

impl<T> Drop for MainBound<T> {
    fn drop(&mut self) {
        if is_main() {
            // SAFETY: dropped once, here, and used no more.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MainBound, MainCell, is_main};
    use std::rc::Rc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_is_disposed_of_is_dropped_once() {
        static DISPOSED: AtomicUsize = AtomicUsize::new(0);
        let value = Rc::new(5);
        drop(MainCell::new(Rc::clone(&value)));
        let cell = MainCell::disposed_by(Rc::clone(&value), |value| {
            DISPOSED.fetch_add(*value, Ordering::Relaxed);
        });
        assert_eq!((Rc::strong_count(&value), DISPOSED.load(Ordering::Relaxed)), (2, 0));
        drop(cell);
        assert_eq!((Rc::strong_count(&value), DISPOSED.load(Ordering::Relaxed)), (1, 5));
    }

    #[test]
    fn what_is_bound_to_the_main_thread_is_out_of_reach_of_others() {
        assert!(is_main(), "the first to ask");
        let value = Rc::new(5);
        let (bound, other) = (MainBound::new(Rc::clone(&value)), MainBound::new(Rc::clone(&value)));
        assert_eq!(**bound.get(), 5);
        std::thread::scope(|scope| {
            let reached = scope.spawn(move || std::mem::size_of_val(other.get())).join();
            assert!(reached.is_err(), "another thread reached it");
        });
        // The one that the other thread dropped is leaked, not dropped there.
        drop(bound);
        assert_eq!(Rc::strong_count(&value), 2);
    }
}
