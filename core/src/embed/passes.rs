//! Passes through the encoder: on one thread, or one text over several.
//!
//! Owns: the order of steps, and who takes which. No lock: a step is taken by one compare-and-swap, and who finds none
//! to take comes back. Any thread; nobody who serves clients waits here.

use super::bert::{Bench, Encoder, Memory, Pass, Pooling, Split};
use super::engine::Engine;
use super::kernel::LANES;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Rows that go through a step together on one thread: what is computed of them stays in the cache.
const PART_ROWS: usize = 64;
/// Parts of a shared text for each thread, so that one that comes late takes fewer.
const PARTS_A_THREAD: usize = 2;

/// Memory that passes of one thread use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Arc<Memory>,
    bench: Bench,
}

impl Scratch {
    /// Its bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.memory.allocated_bytes() + self.bench.allocated_bytes()
    }

    /// Memory that nobody else uses, with room for a text.
    fn memory(&mut self, encoder: &Encoder, tokens: usize, split: Split) -> Arc<Memory> {
        // Who helped with the last text may still be about to leave.
        if Arc::get_mut(&mut self.memory).is_none() {
            self.memory = Arc::default();
        }
        let memory = Arc::get_mut(&mut self.memory).expect("nobody else has it");
        memory.reserve(encoder.shape, tokens, split);
        Arc::clone(&self.memory)
    }
}

/// The vector of some tokens, not normalised.
pub(super) fn embed(
    engine: Engine,
    encoder: &Encoder,
    tokens: &[u32],
    pooling: Pooling,
    scratch: &mut Scratch,
) -> Vec<f32> {
    assert!(!tokens.is_empty() && tokens.len() <= encoder.shape.positions);
    let split = Split::Rows(PART_ROWS);
    let memory = scratch.memory(encoder, tokens.len(), split);
    let pass = Pass { encoder, tokens, memory: &memory, split };
    for step in 0..pass.steps() {
        for part in 0..pass.parts() {
            // SAFETY: one after the other, and this memory is nobody else's.
            unsafe { engine.run(&pass, step, part, &mut scratch.bench) };
        }
    }
    // SAFETY: all steps have ended.
    unsafe { pass.pool(pooling) }
}

/// A text that several threads may embed together.
#[derive(Debug)]
pub struct Shared {
    split: Split,
    /// Set by whom the text was given to; others wait for it.
    memory: OnceLock<Arc<Memory>>,
    /// Steps of parts that were taken, in their order, and that have ended.
    taken: AtomicUsize,
    ended: AtomicUsize,
    /// Whether one of them ended in a panic, or nobody needs them.
    is_broken: AtomicBool,
}

/// What there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A step was done.
    Done,
    /// Others must end theirs first.
    Wait,
    /// There is nothing left to take.
    Over,
}

impl Shared {
    /// One of so many tokens, for so many threads.
    pub fn new(tokens: usize, threads: usize) -> Self {
        let threads = threads.max(1);
        let rows = tokens.div_ceil(threads * PARTS_A_THREAD).next_multiple_of(LANES);
        Self {
            // Too few rows for all threads are no parts for them.
            split: match tokens < LANES * threads {
                true => Split::Columns(threads),
                false => Split::Rows(rows.min(PART_ROWS)),
            },
            memory: OnceLock::new(),
            taken: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            is_broken: AtomicBool::new(false),
        }
    }

    /// Nobody embeds it: who would help need not wait.
    pub fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }

    /// Takes a step and runs it.
    pub(super) fn help(
        &self,
        engine: Engine,
        encoder: &Encoder,
        tokens: &[u32],
        scratch: &mut Scratch,
    ) -> Turn {
        if self.is_broken.load(Ordering::Relaxed) {
            return Turn::Over;
        }
        let Some(memory) = self.memory.get() else { return Turn::Wait };
        let pass = Pass { encoder, tokens, memory, split: self.split };
        let (parts, steps) = (pass.parts(), pass.steps());
        let next = self.taken.load(Ordering::Relaxed);
        if next == parts * steps {
            return Turn::Over;
        }
        let (step, part) = (next / parts, next % parts);
        // What those who ended their steps wrote is seen from here on.
        if self.ended.load(Ordering::Acquire) < step * parts {
            return Turn::Wait;
        }
        let (was, will) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.taken.compare_exchange(next, next + 1, was, will).is_err() {
            return Turn::Wait;
        }
        let mut end = End { shared: self, is_whole: false };
        // SAFETY: all steps before this have ended: none of them is taken before those before it have, and each is
        // counted when it ended. This one was taken by nobody else. The memory has room, see `embed`.
        unsafe { engine.run(&pass, step, part, &mut scratch.bench) };
        end.is_whole = true;
        Turn::Done
    }

    /// The vector, with the help of whoever comes. `None` where one of the helpers panicked.
    pub(super) fn embed(
        &self,
        engine: Engine,
        encoder: &Encoder,
        tokens: &[u32],
        pooling: Pooling,
        scratch: &mut Scratch,
    ) -> Option<Vec<f32>> {
        assert!(!tokens.is_empty() && tokens.len() <= encoder.shape.positions);
        let memory = scratch.memory(encoder, tokens.len(), self.split);
        let memory = self.memory.get_or_init(|| memory);
        let pass = Pass { encoder, tokens, memory, split: self.split };
        let all = pass.parts() * pass.steps();
        let mut idle = 0;
        while self.ended.load(Ordering::Acquire) < all {
            if self.is_broken.load(Ordering::Relaxed) {
                return None;
            }
            match self.help(engine, encoder, tokens, scratch) {
                Turn::Done => idle = 0,
                Turn::Wait | Turn::Over => rest(&mut idle),
            }
        }
        // SAFETY: all steps have ended.
        Some(unsafe { pass.pool(pooling) })
    }
}

/// Times a thread looks again at once: some microseconds, which a step of another takes a few dozen of.
const LOOKS: u32 = 2_000;

/// Waits a moment for another thread; leaves the core to others where it takes longer than a step should.
pub fn rest(idle: &mut u32) {
    *idle += 1;
    if *idle < LOOKS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// The end of a step, by return or by panic.
struct End<'a> {
    shared: &'a Shared,
    is_whole: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.shared.is_broken.store(true, Ordering::Relaxed);
        }
        self.shared.ended.fetch_add(1, Ordering::Release);
    }
}
