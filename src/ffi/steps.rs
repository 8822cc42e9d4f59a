//! Counts the work of commands, for tests and debug builds, which compare it with the bound in the command table.
//!
//! Owns: the counter of opened keys, whether commands are watched, what the last one came to, and the most that was done
//! in one piece since it began. Main thread only.

use super::{Ctx, bytes_replied};
use llmcache_core::work::{Steps, counted, take_counted};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static OPENED: AtomicU64 = AtomicU64::new(0);
/// Counts a key that is opened.
pub(super) fn note_opened() {
    OPENED.store(OPENED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What was done on the main thread so far, as one number (`Steps::weight`), replies included; it only matters how much
/// more it is later.
pub fn work_so_far() -> u64 {
    let (keys, bytes) = (OPENED.load(Ordering::Relaxed), bytes_replied());
    (counted() + Steps { keys, bytes, ..Steps::NONE }).weight()
}

/// The most that was done in one piece, which nobody else's command came between, since a command that is watched began.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// The most steps in one piece since the last command began.
pub fn longest_run() -> u64 {
    LONGEST.load(Ordering::Relaxed)
}

/// Does what the server gives the module to do in one piece, between which nobody else's command can come.
pub(super) fn in_one_piece<R>(work: impl FnOnce() -> R) -> R {
    let before = work_so_far();
    let result = work();
    note_run(work_so_far().saturating_sub(before));
    result
}

fn note_run(weight: u64) {
    LONGEST.fetch_max(weight, Ordering::Relaxed);
}

/// What a command did until its call ended. What goes on in slices or threads is not in it.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Its arguments, the key included.
    pub arguments: u64,
    /// Keys opened, and what core counted.
    pub steps: Steps,
    /// Bytes of its reply.
    pub reply: u64,
    /// Whether its client could have been made to wait, so that nothing had to be done in one piece.
    pub may_wait: bool,
}

/// Compares what a command did with what is stated of it; returns how it did more.
pub type Judge = fn(&[u8], Done) -> Option<String>;

/// Whether commands are watched at the moment; in debug builds they always are.
pub type IsWatched = fn() -> bool;

static JUDGE: OnceLock<(IsWatched, Judge)> = OnceLock::new();

/// Has every command that is watched judged.
pub fn judge_commands(is_watched: IsWatched, judge: Judge) {
    // Set once, while loading.
    let _ = JUDGE.set((is_watched, judge));
}

/// What was counted before a command.
pub(super) struct Before {
    opened: u64,
    replied: u64,
}

/// Whether commands are watched.
pub(super) fn is_watched() -> bool {
    cfg!(debug_assertions) || JUDGE.get().is_some_and(|(is_watched, _)| is_watched())
}

/// Begins to watch a command, if any are watched.
pub(super) fn begin() -> Option<Before> {
    if !is_watched() {
        return None;
    }
    take_counted();
    LONGEST.store(0, Ordering::Relaxed);
    Some(Before { opened: OPENED.load(Ordering::Relaxed), replied: bytes_replied() })
}

/// The command has ended.
pub(super) fn end(ctx: Ctx<'_>, name: &[u8], arguments: usize, before: &Before) {
    let keys = OPENED.load(Ordering::Relaxed) - before.opened;
    let state = ctx.state();
    let done = Done {
        arguments: arguments as u64,
        steps: take_counted() + Steps { keys, ..Steps::NONE },
        reply: bytes_replied() - before.replied,
        may_wait: state.may_block() && !state.must_obey(),
    };
    note_run((done.steps + Steps { bytes: done.reply, ..Steps::NONE }).weight());
    for (last, now) in LAST.iter().zip([keys, done.steps.path, done.reply]) {
        last.store(now, Ordering::Relaxed);
    }
    if let Some((_, judge)) = JUDGE.get()
        && let Some(how) = judge(name, done)
    {
        BROKEN.fetch_add(1, Ordering::Relaxed);
        let name = String::from_utf8_lossy(name);
        ctx.log_warning(&format!("{name} broke its bound: {how}"));
        debug_assert!(false, "{name} broke its bound: {how}");
    }
}

/// Statements that were broken, and what the last command did.
static BROKEN: AtomicU64 = AtomicU64::new(0);
static LAST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// How many statements were broken, and keys, steps and bytes of reply of the last command that was watched.
pub fn watched() -> (u64, [u64; 3]) {
    let last = std::array::from_fn(|kind| LAST[kind].load(Ordering::Relaxed));
    (BROKEN.load(Ordering::Relaxed), last)
}
