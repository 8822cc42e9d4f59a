//! Chunks that are stored or loaded together, by several jobs.
//!
//! Owns: what became of each chunk, and who is told once the last job has ended. Any thread.

use crate::core::Core;
use crate::memory::Memory;
use pyo3::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Chunks of one task, which several jobs work at.
pub struct Task {
    /// The namespace.
    pub namespace: Vec<u8>,
    /// The chunks' names, in the order of their prompt.
    pub names: Vec<Vec<u8>>,
    /// Their payloads.
    pub memory: Memory,
    /// The chunk before the first, where it is known.
    pub ahead: Option<Vec<u8>>,
    told: Mutex<Vec<bool>>,
    left: AtomicUsize,
    done: Mutex<Option<Py<PyAny>>>,
}

impl Task {
    /// A task in so many jobs; `done` is called once, with what became of each chunk.
    pub fn new(
        namespace: Vec<u8>,
        names: Vec<Vec<u8>>,
        memory: Memory,
        ahead: Option<Vec<u8>>,
        done: Py<PyAny>,
    ) -> Self {
        let told = Mutex::new(vec![false; names.len()]);
        let (left, done) = (AtomicUsize::new(0), Mutex::new(Some(done)));
        Self { namespace, names, memory, ahead, told, left, done }
    }

    /// The sizes of its payloads.
    pub fn sizes(&self) -> Vec<usize> {
        self.memory.payloads.iter().map(|payload| payload.len()).collect()
    }

    /// Says how many jobs it has.
    pub fn begin(&self, jobs: usize) {
        self.left.store(jobs, Ordering::Release);
    }

    /// A job has ended; the last one tells what became of all.
    pub fn finish(&self, core: &Core, range: &Range<usize>, told: &[bool]) {
        {
            let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            all[range.start..range.start + told.len()].copy_from_slice(told);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let told =
                std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
            core.tell(done, |py| {
                self.memory.let_go();
                Ok(told.into_pyobject(py)?.into_any().unbind())
            });
        }
    }
}
