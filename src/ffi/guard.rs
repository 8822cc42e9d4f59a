//! Nothing unwinds into the server: a panic in any entry point becomes an error of that call.
//!
//! Any thread that enters the module.

use super::log::log_without_context;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static PLACE: Cell<Option<(String, u32)>> = const { Cell::new(None) };
}

/// Runs `work`; on a panic logs where it happened and returns `None`.
///
/// State a panic may leave behind: a `MainCell` whose borrow was unwound is usable again, and the
/// index repairs itself from the entries, so going on is safer than taking the server down.
pub fn guarded<R>(entry: &'static str, work: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(_) => {
            let (file, line) = PLACE.take().unwrap_or_default();
            // No payload: it may quote what a client sent.
            log_without_context(&format!("panicked in {entry} at {file}:{line}; the call failed"));
            None
        }
    }
}

/// Replaces the standard hook, which resolves a backtrace through the server's allocator (33 MB of
/// `used_memory` for ever) and writes to a closed standard error.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        PLACE.set(info.location().map(|place| (place.file().to_owned(), place.line())));
    }));
}
