//! A thread that drops large values.
//!
//! Owns: when values are dropped there: the server frees a deleted value on its lazy-free thread only where the
//! command or the configuration says so, and `DEL`, expiry and eviction of a large one would hold up everybody.
//! May be called on any thread; what is handed over must touch nothing shared when it is dropped.

use super::guard::guarded;
use super::threads::without_signals;
use std::any::Any;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

/// Allocations that are given back at once, wherever that is: some tens of microseconds.
pub const FREED_AT_ONCE: usize = 1_024;

type Rest = Box<dyn Any + Send>;

static REST: OnceLock<Option<Sender<Rest>>> = OnceLock::new();

/// Drops a value of so many allocations: here where they are few, else on the thread for it.
pub fn reclaim<T: Any + Send>(value: T, allocations: usize) {
    if allocations <= FREED_AT_ONCE {
        drop(value);
        return;
    }
    if let Some(rest) = REST.get_or_init(start) {
        // What a thread that has gone does not take comes back, and is dropped here.
        drop(rest.send(Box::new(value)));
    }
}

/// `None` where the system gives no thread: then values are dropped where they are.
fn start() -> Option<Sender<Rest>> {
    let (sender, receiver) = channel::<Rest>();
    let builder = std::thread::Builder::new().name("llmcache-free".to_owned());
    let serve = move || {
        while let Ok(rest) = receiver.recv() {
            guarded("a value", || drop(rest));
        }
    };
    without_signals(|| builder.spawn(serve)).ok()?;
    Some(sender)
}
