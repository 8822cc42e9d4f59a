//! Threads with a connection each, which take jobs from one queue.
//!
//! Owns: the queue, the threads, how many jobs a connection has under way, what becomes of them when it breaks. Over a long
//! way the server works at the next job while an answer is received. A lane of one thread has commands sent by those who
//! submit them, as long as its connection is there and all before were sent: the thread that reads the answers wakes
//! while the server works, not before it.

use crate::core::Core;
use crate::failure::Failure;
use crate::job::{Job, Next};
use crate::wire::{Line, Wire};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Jobs that a connection has under way where the server is far. Near it one is enough: what is received while the next
/// answer is written only makes the server write into memory that it never had in its caches.
const DEPTH: usize = 4;
/// Payload bytes of the jobs that a connection has under way, or two jobs: more of them wait in the server's memory, which
/// it has to get for them, and make nothing faster.
const BYTES_UNDER_WAY: usize = 2 << 20;

struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that have nothing to do.
    idle: usize,
    is_open: bool,
    /// The connection, where all that was begun or is in the queue was sent over it whole.
    line: Option<Line>,
}

struct Shared {
    core: Arc<Core>,
    /// Whether commands are sent by those who submit them.
    is_direct: bool,
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, waited for; none when all is done and the lane closed. `line` is the connection, where nothing
    /// that was begun is still to be sent over it.
    fn take(&self, line: Option<Line>) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            queue.line =
                line.filter(|&line| self.is_direct && send_all(queue.jobs.iter_mut(), line));
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if !queue.is_open {
                return None;
            }
            queue.idle += 1;
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// A job more, where no other thread is there for it.
    fn take_more(&self) -> Option<Job> {
        let mut queue = self.queue();
        if queue.jobs.len() > queue.idle { queue.jobs.pop_front() } else { None }
    }

    /// Nothing more goes over the connection, which may be closed from here on: what was sent ahead is to be sent again.
    fn cut(&self, is_broken: bool) {
        let mut queue = self.queue();
        queue.line = None;
        queue.jobs.iter_mut().for_each(|job| job.unsend(is_broken));
    }
}

/// Sends what goes of commands without waiting, in their order; whether that is all.
fn send_all<'a>(mut jobs: impl Iterator<Item = &'a mut Job>, line: Line) -> bool {
    jobs.all(|job| job.is_sent() || job.send_ahead(line))
}

/// A queue and its threads.
pub struct Lane {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Lane {
    /// So many threads.
    pub fn new(core: &Arc<Core>, name: &str, threads: usize) -> std::io::Result<Self> {
        let queue = Queue { jobs: VecDeque::new(), idle: 0, is_open: true, line: None };
        let shared = Arc::new(Shared {
            core: core.clone(),
            is_direct: threads == 1,
            queue: Mutex::new(queue),
            ready: Condvar::new(),
        });
        let lane = Self { shared, threads: Mutex::default() };
        for at in 0..threads {
            let shared = lane.shared.clone();
            let thread = std::thread::Builder::new().name(format!("llmcache-{name}-{at}"));
            let handle = thread.spawn(move || {
                let work = || Worker { shared: &shared, wire: None, is_stale: false }.run();
                // What was under way when it panicked has ended as a failure; the next jobs find a thread.
                while std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {}
            })?;
            lane.threads().push(handle);
        }
        Ok(lane)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has threads do these; they fail at once where the lane is closed.
    pub fn submit(&self, jobs: Vec<Job>) {
        let mut queue = self.shared.queue();
        if !queue.is_open {
            // They end as failures, which is told to Python.
            drop(queue);
            return drop(jobs);
        }
        let count = jobs.len();
        let before = queue.jobs.len();
        queue.jobs.extend(jobs);
        if let Some(line) = queue.line {
            // What does not go whole is left to the thread, and so is all behind it.
            queue.line = send_all(queue.jobs.range_mut(before..), line).then_some(line);
        }
        drop(queue);
        (0..count).for_each(|_| self.shared.ready.notify_one());
    }

    /// Takes nothing more.
    pub fn end(&self) {
        self.shared.queue().is_open = false;
        self.shared.ready.notify_all();
    }

    /// Waits until what was submitted is done. Not with Python held: what is done is told to it.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads());
        // None ends by a panic.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    wire: Option<Wire>,
    /// Whether the connection is to be made anew: its user may not what was asked.
    is_stale: bool,
}

impl Worker<'_> {
    fn run(mut self) {
        let mut under_way = VecDeque::with_capacity(DEPTH);
        // Those that a broken connection left.
        let mut again = VecDeque::new();
        loop {
            while self.has_room(&under_way) && !self.is_stale {
                let next = match again.pop_front() {
                    Some(job) => Some(job),
                    None if under_way.is_empty() => match self.shared.take(self.line()) {
                        Some(job) => Some(job),
                        None => return,
                    },
                    None => self.shared.take_more(),
                };
                let Some(job) = next else { break };
                self.begin(job, &mut under_way, &mut again);
            }
            if let Some(job) = under_way.pop_front() {
                self.finish(job, &mut under_way, &mut again);
            }
            if under_way.is_empty() && std::mem::take(&mut self.is_stale) {
                self.hang_up(false);
            }
        }
    }

    fn line(&self) -> Option<Line> {
        self.wire.as_ref().map(Wire::line)
    }

    /// Closes the connection, which nobody sends over any more.
    fn hang_up(&mut self, is_broken: bool) {
        self.shared.cut(is_broken);
        self.wire = None;
    }

    /// Whether one more job may be under way.
    fn has_room(&self, under_way: &VecDeque<Job>) -> bool {
        let is_far = self.wire.as_ref().is_some_and(Wire::is_far);
        let bytes = || under_way.iter().map(Job::bytes).sum::<usize>();
        match under_way.len() {
            0 => true,
            // What is loaded in parts asks for the next of them itself.
            1 => is_far && under_way.iter().all(|job| !job.is_in_parts()),
            more => is_far && more < DEPTH && bytes() < BYTES_UNDER_WAY,
        }
    }

    /// Sends a job's command, over a new connection where there is none.
    fn begin(&mut self, mut job: Job, under_way: &mut VecDeque<Job>, again: &mut VecDeque<Job>) {
        let core = &self.shared.core;
        job.is_first = false;
        if job.is_sent() {
            return under_way.push_back(job);
        }
        if self.wire.is_none() {
            if !core.is_up() {
                let why = Failure::Lost("the server did not answer lately".into());
                return job.fail(&why);
            }
            match Wire::connect(&core.endpoint) {
                Ok(wire) => {
                    core.note_connected();
                    self.wire = Some(wire);
                    job.is_first = true;
                }
                Err(why) => {
                    if !matches!(why, Failure::Refused(_)) {
                        core.note_down();
                    }
                    return job.fail(&why);
                }
            }
        }
        let Some(wire) = &self.wire else { return };
        match job.send(wire, under_way.is_empty()) {
            Ok(()) => under_way.push_back(job),
            Err(why) => {
                under_way.push_back(job);
                self.lose(&why, under_way, again);
            }
        }
    }

    /// Reads what the first job under way is answered.
    fn finish(&mut self, job: Job, under_way: &mut VecDeque<Job>, again: &mut VecDeque<Job>) {
        let core = &self.shared.core;
        let Some(wire) = &mut self.wire else { return again.push_back(job) };
        match job.answer(wire) {
            Ok(Next::Nothing) => core.note_up(),
            Ok(Next::More(mut job)) => {
                let sent = job.send(wire, under_way.is_empty());
                under_way.push_back(job);
                if let Err(why) = sent {
                    self.lose(&why, under_way, again);
                }
            }
            Err((job, why @ Failure::Refused(_))) => {
                self.is_stale |= matches!(why.word(), "NOAUTH" | "WRONGPASS" | "NOPERM");
                job.fail(&why);
            }
            Err((job, why)) => {
                under_way.push_front(job);
                self.lose(&why, under_way, again);
            }
        }
    }

    /// The connection is of no use any more: what was under way is tried once more over another, but for what a new one
    /// was made for already, or what nothing came for in time.
    fn lose(&mut self, why: &Failure, under_way: &mut VecDeque<Job>, again: &mut VecDeque<Job>) {
        self.is_stale = false;
        self.hang_up(true);
        for mut job in under_way.drain(..) {
            job.unsend(false);
            if job.is_again || job.is_first || matches!(why, Failure::Late(_)) {
                job.fail(why);
            } else {
                job.is_again = true;
                again.push_back(job);
            }
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        // Also where it panicked: nobody may send over what is closed, which may be another's by then.
        self.hang_up(true);
    }
}
