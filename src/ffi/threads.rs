//! Worker threads: a fixed few, started when they are first needed, for work that uses nothing of the server but
//! memory.
//!
//! Owns: the threads, the queues to and from them, and the pipes by which each side learns that there is
//! something in its queue. No lock: the main thread puts work into a queue, and a byte into a pipe if a thread sleeps at
//! the other end; what comes back is called for by a byte where the main thread has taken all that came before. So
//! under load neither side calls the other. A thread calls nothing of the server's API but the allocator; that is for
//! whoever writes the `Work` to keep. The child that saves the data set has none of these threads and needs none.

use super::Ctx;
use super::api::api;
use super::event_loop_hook::outside_a_unit;
use super::guard::guarded;
use super::steps::in_one_piece;
use crossbeam_queue::SegQueue;
use llmcache_core::sleepers::Sleepers;
use redis_module::raw;
use redis_module::raw::RedisModuleCtx;
use std::ffi::{c_int, c_void};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Work that a thread can do.
pub trait Work: Send + 'static {
    /// How the system calls its threads; at most 15 bytes are kept.
    const THREAD: &'static str;
    /// What a thread keeps between two works.
    type Scratch: Default;
    /// Names the work when it is done.
    type Ticket: Send;
    /// What comes of it.
    type Outcome: Send;

    /// By how much its threads are nicer than the server: where cores are few, who waits for the main thread goes
    /// before who waits for such work. Asked on the main thread when one is started.
    fn nicer() -> i32;
    /// Does a part of it, of some milliseconds at most; returns whether that was the last.
    fn slice(&mut self, scratch: &mut Self::Scratch) -> bool;
    /// What came of it.
    fn end(self) -> Self::Outcome;
    /// Its name.
    fn ticket(&self) -> Self::Ticket;
}

/// What came back: the outcome is absent where the work panicked.
pub type Done<W> = (<W as Work>::Ticket, Option<<W as Work>::Outcome>);

struct Queues<W: Work> {
    work: SegQueue<W>,
    done: SegQueue<Done<W>>,
    /// Works that are not done yet.
    under_way: AtomicUsize,
    /// Threads that wait for a byte.
    idle: Sleepers,
    called: PipeReader,
    call: PipeWriter,
    /// The main thread, once it has taken all that is done.
    awaits: Sleepers,
    answer: PipeWriter,
}

impl<W: Work> Queues<W> {
    fn push(&self, work: W) {
        self.work.push(work);
        if self.idle.claim() {
            ring(&self.call);
        }
    }

    /// The next work, for which the thread sleeps if need be; `None` never, while the pipe is open.
    fn next(&self) -> Option<W> {
        loop {
            if let Some(work) = self.work.pop() {
                return Some(work);
            }
            self.idle.will_sleep();
            if !self.work.is_empty() && self.idle.claim() {
                continue;
            }
            // Only an interruption could end a read without a byte, and signals are blocked.
            (&self.called).read_exact(&mut [0]).ok()?;
        }
    }

    fn answer(&self, done: Done<W>) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.done.push(done);
        if self.awaits.claim() {
            ring(&self.answer);
        }
    }
}

/// A set of threads.
pub struct Threads<W: Work> {
    queues: Arc<Queues<W>>,
    started: usize,
}

/// What the main thread is called with when something was done; it takes all there is by `Threads::take_done`.
pub type OnDone = fn(Ctx<'_>);

/// The main thread's end of the answers.
struct Bell {
    answered: PipeReader,
    /// Says that the main thread is going to take all that is done, and is to be called for what comes then.
    listen: Box<dyn Fn()>,
    /// A context of no client and no call, which lives as long as the module.
    ctx: *mut RedisModuleCtx,
    on_done: OnDone,
}

impl<W: Work> Threads<W> {
    /// Queues without threads yet; `on_done` is called from then on. `None` where the system has no pipes
    /// to spare.
    pub fn new(ctx: Ctx<'_>, on_done: OnDone) -> Option<Self> {
        let (called, call) = std::io::pipe().ok()?;
        let (answered, answer) = std::io::pipe().ok()?;
        never_wait(&answered)?;
        // SAFETY: the context is valid; the detached one is never freed, as the module is never unloaded.
        let detached = unsafe { api!(RedisModule_GetDetachedThreadSafeContext(ctx.as_ptr())) };
        let fd = answered.as_raw_fd();
        let queues = Arc::new(Queues {
            work: SegQueue::new(),
            done: SegQueue::new(),
            under_way: AtomicUsize::new(0),
            idle: Sleepers::default(),
            called,
            call,
            awaits: Sleepers::default(),
            answer,
        });
        queues.awaits.only_one_will_sleep();
        let of_bell = Arc::clone(&queues);
        let listen = Box::new(move || of_bell.awaits.only_one_will_sleep());
        let bell = Box::into_raw(Box::new(Bell { answered, listen, ctx: detached, on_done }));
        let mask = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;
        // SAFETY: the bell and with it the descriptor are never freed; `on_answer` turns it back.
        let status =
            unsafe { api!(RedisModule_EventLoopAdd(fd, mask, Some(on_answer), bell.cast())) };
        if status != raw::REDISMODULE_OK as c_int {
            // SAFETY: the server did not take it.
            drop(unsafe { Box::from_raw(bell) });
            return None;
        }
        Some(Self { queues, started: 0 })
    }

    /// Has at least so many threads; returns how many there are, fewer where the system gives no more.
    pub fn have(&mut self, threads: usize) -> usize {
        while self.started < threads {
            let queues = Arc::clone(&self.queues);
            let builder = std::thread::Builder::new().name(W::THREAD.to_owned());
            let nicer = W::nicer();
            if without_signals(|| builder.spawn(move || serve(&queues, nicer))).is_err() {
                break;
            }
            self.started += 1;
        }
        self.started
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.started
    }

    /// Gives work to the threads, of which there is one at least.
    pub fn submit(&self, work: W) {
        self.queues.under_way.fetch_add(1, Ordering::Relaxed);
        self.queues.push(work);
    }

    /// How many works the threads have that they are not done with.
    pub fn under_way(&self) -> usize {
        self.queues.under_way.load(Ordering::Relaxed)
    }

    /// The next work that is done.
    pub fn take_done(&self) -> Option<Done<W>> {
        self.queues.done.pop()
    }
}

/// Bytes of calls to the main thread that are read at once: more than there can be.
const BYTES_AT_ONCE: usize = 64;

/// Wakes who reads the other end. Nobody waits in this: there is a byte at most for each thread that sleeps, which is
/// less than the smallest pipe has room for. No failure but an interruption can happen while both ends are
/// open, which they are for ever.
fn ring(mut pipe: &PipeWriter) {
    while let Err(error) = pipe.write_all(&[1]) {
        if error.kind() != std::io::ErrorKind::Interrupted {
            break;
        }
    }
}

/// Makes this thread nicer.
#[cfg(target_os = "linux")]
fn yield_to_server(nicer: i32) {
    // SAFETY: changes the calling thread alone; that it is not allowed to would change nothing.
    unsafe {
        libc::nice(nicer);
    }
}

/// Elsewhere that would be the whole process.
#[cfg(not(target_os = "linux"))]
fn yield_to_server(_: i32) {}

fn serve<W: Work>(queues: &Queues<W>, nicer: i32) {
    yield_to_server(nicer);
    let mut scratch = W::Scratch::default();
    while let Some(mut work) = queues.next() {
        let ended = loop {
            let ended = guarded("work of a thread", || work.slice(&mut scratch));
            // In turns: what others wait for comes before the next part.
            if ended != Some(false) || !queues.work.is_empty() {
                break ended;
            }
        };
        let ticket = work.ticket();
        let outcome = match ended {
            Some(true) => guarded("work of a thread", || work.end()),
            Some(false) => {
                queues.push(work);
                continue;
            }
            None => {
                scratch = W::Scratch::default();
                None
            }
        };
        queues.answer((ticket, outcome));
    }
}

/// Has reads from a pipe that is empty fail at once.
fn never_wait(pipe: &PipeReader) -> Option<()> {
    // SAFETY: the descriptor is open; its flags are those of this end of the pipe alone, and there is no other.
    let status = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    (status == 0).then_some(())
}

/// Starts a thread that leaves signals to the server's own: it inherits what is blocked meanwhile.
pub(super) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    // SAFETY: both sets are written before they are read; the mask is this thread's own, and put back.
    unsafe {
        let (mut all, mut former) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        // What a fault of the thread itself raises goes to the server's crash report.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
            libc::sigdelset(&raw mut all, fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut former);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const former, std::ptr::null_mut());
        started
    }
}

unsafe extern "C" fn on_answer(_: c_int, data: *mut c_void, _: c_int) {
    // SAFETY: `data` is the bell of `new`, which is never freed and read here alone.
    let bell = unsafe { &*data.cast::<Bell>() };
    let work = || {
        // One read takes all that is there or a part: what is left calls again. There may be nothing: a loop of
        // events within another's command (a slow script, loading) took it, and the outer one saw it before.
        let _ = (&bell.answered).read(&mut [0; BYTES_AT_ONCE]);
        (bell.listen)();
        // SAFETY: the context was made by `new`.
        (bell.on_done)(unsafe { Ctx::from_raw(bell.ctx) });
    };
    outside_a_unit(|| guarded("an answer of a thread", || in_one_piece(work)));
}
