//! What all connections of a store share: where the server is, which namespaces were made, whether it is tried at all,
//! what happened, and the way to Python.
//!
//! Owns: these. Any thread; locks are held for as long as a look takes, never while Python runs.

use crate::plan::segments;
use crate::wire::Endpoint;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So often a failure is told.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What happened, for status pages.
#[derive(Default)]
pub struct Counts {
    /// Chunks stored.
    pub stored: AtomicU64,
    /// Chunks loaded.
    pub loaded: AtomicU64,
    /// Chunks not found, or of another size.
    pub missed: AtomicU64,
    /// Chunks that the server did not want.
    pub rejected: AtomicU64,
    /// What failed.
    pub failed: AtomicU64,
    /// Connections made.
    pub reconnects: AtomicU64,
}

/// Shared by all connections.
pub struct Core {
    /// Where the server is.
    pub endpoint: Endpoint,
    /// Arguments of `KVCHUNK.CREATE` behind the namespace.
    pub settings: Vec<Vec<u8>>,
    /// Seconds that a chunk lives; 0 is until it is evicted.
    pub ttl: u64,
    /// Payload bytes of one command.
    pub page_bytes: usize,
    /// Whether stores come with checksums.
    pub checksum: bool,
    /// What happened.
    pub counts: Counts,
    /// Whether a chunk was found to have no checksum.
    has_no_checksums: AtomicBool,
    pause: Duration,
    warn: Py<PyAny>,
    made: Mutex<HashSet<Vec<u8>>>,
    /// Until then nothing is tried.
    down_until: Mutex<Option<Instant>>,
    told_at: Mutex<Option<Instant>>,
    /// Segments of the length that was asked for last: chunks are of one size.
    plan: Mutex<(usize, Vec<usize>)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

impl Core {
    /// `warn` is told of failures, in words.
    pub fn new(
        endpoint: Endpoint,
        settings: Vec<Vec<u8>>,
        ttl: u64,
        page_bytes: usize,
        checksum: bool,
        pause: Duration,
        warn: Py<PyAny>,
    ) -> Self {
        Self {
            endpoint,
            settings,
            ttl,
            page_bytes: page_bytes.max(1),
            checksum,
            counts: Counts::default(),
            has_no_checksums: AtomicBool::new(false),
            pause,
            warn,
            made: Mutex::default(),
            down_until: Mutex::default(),
            told_at: Mutex::default(),
            plan: Mutex::default(),
        }
    }

    /// The segments of a payload.
    pub fn plan(&self, length: usize) -> Vec<usize> {
        let mut plan = locked(&self.plan);
        if plan.0 != length {
            *plan = (length, segments(length));
        }
        plan.1.clone()
    }

    /// Whether the last attempt to speak to the server went well, or is long enough ago.
    pub fn is_up(&self) -> bool {
        locked(&self.down_until).is_none_or(|until| Instant::now() >= until)
    }

    /// The server answered.
    pub fn note_up(&self) {
        *locked(&self.down_until) = None;
    }

    /// No connection could be made: nothing is tried for a while.
    pub fn note_down(&self) {
        if self.is_up() {
            *locked(&self.down_until) = Some(Instant::now() + self.pause);
        }
    }

    /// A connection was made. It may be to another process, which knows no namespaces.
    pub fn note_connected(&self) {
        locked(&self.made).clear();
        add(&self.counts.reconnects, 1);
    }

    /// Whether a namespace was made, or found to be there.
    pub fn is_made(&self, namespace: &[u8]) -> bool {
        locked(&self.made).contains(namespace)
    }

    /// It is there.
    pub fn note_made(&self, namespace: &[u8]) {
        locked(&self.made).insert(namespace.to_vec());
    }

    /// It was removed.
    pub fn note_gone(&self, namespace: &[u8]) {
        locked(&self.made).remove(namespace);
    }

    /// Whether chunks have checksums, as far as is known.
    pub fn has_checksums(&self) -> bool {
        !self.has_no_checksums.load(Ordering::Relaxed)
    }

    /// One has none: none is asked for in parts any more.
    pub fn note_no_checksums(&self) {
        self.has_no_checksums.store(true, Ordering::Relaxed);
    }

    /// Counts chunks that were stored, and that were not wanted.
    pub fn count_stored(&self, told: &[bool]) {
        let stored = told.iter().filter(|&&is_stored| is_stored).count();
        add(&self.counts.stored, stored);
        add(&self.counts.rejected, told.len() - stored);
    }

    /// Counts chunks that were loaded, and that were not there.
    pub fn count_loaded(&self, told: &[bool]) {
        let loaded = told.iter().filter(|&&is_loaded| is_loaded).count();
        add(&self.counts.loaded, loaded);
        add(&self.counts.missed, told.len() - loaded);
    }

    /// Counts a failure, and tells of it where none was told of lately.
    pub fn note_failure(&self, what: &str, why: &str) {
        add(&self.counts.failed, 1);
        let now = Instant::now();
        {
            let mut told_at = locked(&self.told_at);
            if told_at.is_some_and(|at| now.duration_since(at) < TOLD_EVERY) {
                return;
            }
            *told_at = Some(now);
        }
        self.call(&self.warn, |py| {
            Ok(PyString::new(py, &format!("{what} failed: {why}")).into_any().unbind())
        });
    }

    /// Calls back once; what it is called with is made where Python is held.
    pub fn tell(
        &self,
        done: Option<Py<PyAny>>,
        with: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
    ) {
        if let Some(done) = done {
            self.call(&done, with);
        }
    }

    fn call(&self, what: &Py<PyAny>, with: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>) {
        // An interpreter that ends wants to hear of nothing.
        Python::try_attach(|py| {
            let called = with(py).and_then(|with| what.call1(py, (with,)));
            if let Err(error) = called {
                error.write_unraisable(py, Some(what.bind(py)));
            }
        });
    }
}
