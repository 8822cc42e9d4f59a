//! What is done over one connection: a page of a store or of a load, or commands that are only asked.
//!
//! Owns: the commands, what their answers mean, whether a job has more to say after an answer. A job's command is sent
//! again as it was where its connection broke: stores and loads of the same chunks may be done twice.

use crate::core::Core;
use crate::failure::Failure;
use crate::memory::Memory;
use crate::resp::{self, Head, Reply, Source};
use crate::wire::{Gathered, Line, Wire};
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const BUSY_TRIES: u32 = 40;

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

    fn finish(&self, core: &Core, range: &Range<usize>, told: &[bool]) {
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

/// What a job is about.
pub enum Work {
    /// A page is stored.
    Put {
        /// Of this task.
        task: Arc<Task>,
        /// These chunks.
        range: Range<usize>,
        /// Whether its namespace is being made first.
        is_making: bool,
    },
    /// A page is loaded.
    Load {
        /// Of this task.
        task: Arc<Task>,
        /// These chunks.
        range: Range<usize>,
        /// What became of the first ones.
        told: Vec<bool>,
        /// How often the server was busy.
        busy: u32,
    },
    /// Commands are asked, and their replies told as they are.
    Ask {
        /// The commands, one behind the other.
        bytes: Vec<u8>,
        /// How many.
        count: usize,
        /// Bytes of them that were sent.
        sent: usize,
        /// Called with a list of replies, or with None.
        done: Option<Py<PyAny>>,
    },
}

/// A piece of work that a connection does. One that is dropped before its end was told ends as a failure.
pub struct Job {
    core: Arc<Core>,
    work: Work,
    is_over: bool,
    /// Whether it was begun over another connection, which broke.
    pub is_again: bool,
    /// Whether the connection was made for it, so that another would not do better.
    pub is_first: bool,
}

/// What an answer leaves to be done.
pub enum Next {
    /// Nothing: the job has ended.
    Nothing,
    /// It has more to say.
    More(Job),
}

impl Job {
    /// One that was not begun.
    pub fn new(core: &Arc<Core>, work: Work) -> Self {
        Self { core: core.clone(), work, is_over: false, is_again: false, is_first: false }
    }

    fn what(&self) -> &'static str {
        match self.work {
            Work::Put { .. } => "a store",
            Work::Load { .. } => "a load",
            Work::Ask { .. } => "a look-up",
        }
    }

    /// Sends its command.
    pub fn send(&mut self, wire: &Wire) -> Result<(), Failure> {
        let core = &*self.core;
        match &mut self.work {
            Work::Put { task, range, is_making } => {
                *is_making = !core.is_made(&task.namespace);
                if *is_making {
                    wire.send(&Gathered::of(create(core, &task.namespace)))
                } else {
                    wire.send(&mput(core, task, range))
                }
            }
            Work::Load { task, range, told, .. } => {
                wire.send(&Gathered::of(fetch(task, range.start + told.len()..range.end)))
            }
            Work::Ask { bytes, sent, .. } => {
                wire.send_bytes(&bytes[*sent..])?;
                *sent = bytes.len();
                Ok(())
            }
        }
    }

    /// Whether its command was sent whole.
    pub fn is_sent(&self) -> bool {
        matches!(&self.work, Work::Ask { bytes, sent, .. } if *sent == bytes.len())
    }

    /// Sends of its command what goes without waiting; whether that is all.
    pub fn send_ahead(&mut self, line: Line) -> bool {
        if let Work::Ask { bytes, sent, .. } = &mut self.work {
            *sent += line.send_now(&bytes[*sent..]);
        }
        self.is_sent()
    }

    /// Its connection is gone, and what was sent over it.
    pub fn unsend(&mut self, is_broken: bool) {
        if let Work::Ask { sent, .. } = &mut self.work {
            self.is_again |= is_broken && *sent > 0;
            *sent = 0;
        }
    }

    /// Reads what its command is answered.
    pub fn answer(mut self, wire: &mut Wire) -> Result<Next, (Self, Failure)> {
        match self.read(wire) {
            Ok(true) => Ok(Next::More(self)),
            Ok(false) => {
                self.is_over = true;
                Ok(Next::Nothing)
            }
            Err(failure) => Err((self, failure)),
        }
    }

    /// Whether there is more to say.
    fn read(&mut self, wire: &mut Wire) -> Result<bool, Failure> {
        let core = &*self.core;
        match &mut self.work {
            Work::Put { task, is_making: true, .. } => {
                match resp::read(wire)? {
                    // It is there with other settings, which somebody chose.
                    Reply::Error(text) if !text.starts_with("ERR ") => {
                        return Err(Failure::Refused(text));
                    }
                    _ => core.note_made(&task.namespace),
                }
                Ok(true)
            }
            Work::Put { task, range, .. } => {
                let told = stored(core, resp::read(wire)?)?;
                if told.len() != range.len() {
                    return Err(Failure::broken("MPUT with another number of words"));
                }
                core.count_stored(&told);
                task.finish(core, range, &told);
                Ok(false)
            }
            Work::Load { task, range, told, busy } => {
                match page(wire, task, range.start + told.len()..range.end) {
                    Ok(more) => told.extend(more),
                    Err(failure) if failure.word() == "BUSY" && *busy + 1 < BUSY_TRIES => {
                        *busy += 1;
                        std::thread::sleep(
                            Duration::from_millis(u64::from(*busy) * 5).min(BUSY_PAUSE),
                        );
                    }
                    Err(failure) => return Err(failure),
                }
                if told.len() < range.len() {
                    return Ok(true);
                }
                core.count_loaded(told);
                task.finish(core, range, told);
                Ok(false)
            }
            Work::Ask { count, done, .. } => {
                let mut replies = Vec::with_capacity(*count);
                for _ in 0..*count {
                    replies.push(resp::read(wire)?);
                }
                // All are read before one is refused: the connection stays where it is.
                if let Some(Reply::Error(text)) =
                    replies.iter().find(|reply| matches!(reply, Reply::Error(_)))
                {
                    return Err(Failure::Refused(text.clone()));
                }
                core.tell(done.take(), |py| {
                    let told = replies.iter().map(|reply| reply.to_python(py));
                    Ok(PyList::new(py, told.collect::<PyResult<Vec<_>>>()?)?.into_any().unbind())
                });
                Ok(false)
            }
        }
    }

    /// Ends it as a miss, or as a store that failed.
    pub fn fail(self, why: &Failure) {
        self.core.note_failure(self.what(), why.text());
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let core = &*self.core;
        match &mut self.work {
            Work::Put { task, range, .. } => task.finish(core, range, &[]),
            Work::Load { task, range, told, .. } => {
                // What came whole before is there.
                told.resize(range.len(), false);
                core.count_loaded(told);
                task.finish(core, range, told);
            }
            Work::Ask { done, .. } => core.tell(done.take(), |py| Ok(py.None())),
        }
    }
}

const BUSY_PAUSE: Duration = Duration::from_millis(100);

fn create(core: &Core, namespace: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    resp::begin(&mut bytes, 2 + core.settings.len());
    resp::argument(&mut bytes, b"KVCHUNK.CREATE");
    resp::argument(&mut bytes, namespace);
    core.settings.iter().for_each(|word| resp::argument(&mut bytes, word));
    bytes
}

fn mput(core: &Core, task: &Task, range: &Range<usize>) -> Gathered {
    let ahead = match range.start.checked_sub(1) {
        Some(before) => Some(&task.names[before]),
        None => task.ahead.as_ref(),
    };
    let plans: Vec<Vec<usize>> = task.memory.payloads[range.clone()]
        .iter()
        .map(|payload| core.plan(payload.len()))
        .collect();
    let names = ahead.into_iter().chain(&task.names[range.clone()]);
    let named = range.len() + usize::from(ahead.is_some());
    let segments: usize = plans.iter().map(|plan| 1 + plan.len()).sum();
    let mut command = Gathered::default();
    let own = command.own();
    resp::begin(own, 9 + named + segments + if core.ttl > 0 { 2 } else { 0 });
    resp::argument(own, b"KVCHUNK.MPUT");
    resp::argument(own, &task.namespace);
    resp::argument(own, b"HASHES");
    resp::number(own, named as u64);
    names.for_each(|name| resp::argument(own, name));
    resp::argument(own, b"LOOSE");
    resp::argument(own, b"FROM");
    resp::number(own, u64::from(ahead.is_some()));
    if core.ttl > 0 {
        resp::argument(own, b"EX");
        resp::number(own, core.ttl);
    }
    resp::argument(own, b"PAYLOADS");
    resp::number(own, range.len() as u64);
    for (payload, plan) in task.memory.payloads[range.clone()].iter().zip(&plans) {
        resp::number(command.own(), plan.len() as u64);
        let mut at = 0;
        for &length in plan {
            resp::head(command.own(), length);
            payload.part(at, length).for_each(|piece| command.push(piece));
            command.own().extend_from_slice(b"\r\n");
            at += length;
        }
    }
    command
}

/// Which were stored.
fn stored(core: &Core, reply: Reply) -> Result<Vec<bool>, Failure> {
    let words = match reply {
        Reply::Array(words) => words,
        Reply::Error(text) => return Err(Failure::Refused(text)),
        _ => return Err(Failure::broken("MPUT with something else")),
    };
    let mut told = Vec::with_capacity(words.len());
    let mut why = None;
    for word in words {
        let Reply::Bytes(word) = word else {
            return Err(Failure::broken("MPUT with something else"));
        };
        let is_stored = matches!(word.as_slice(), b"STORED" | b"EXISTS");
        if !is_stored && why.is_none() {
            why = Some(String::from_utf8_lossy(&word).into_owned());
        }
        told.push(is_stored);
    }
    if let Some(why) = why {
        core.note_failure("a store", &why);
    }
    Ok(told)
}

fn fetch(task: &Task, range: Range<usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    resp::begin(&mut bytes, 7 + range.len());
    resp::argument(&mut bytes, b"KVCHUNK.FETCH");
    resp::argument(&mut bytes, &task.namespace);
    resp::argument(&mut bytes, b"HASHES");
    resp::number(&mut bytes, range.len() as u64);
    task.names[range.clone()].iter().for_each(|name| resp::argument(&mut bytes, name));
    resp::argument(&mut bytes, b"SPARSE");
    resp::argument(&mut bytes, b"MAXBYTES");
    // One more than all of them: chunks of another size than the buffers' do not lengthen a reply much.
    let all: usize = task.memory.payloads[range].iter().map(|payload| payload.len()).sum();
    resp::number(&mut bytes, all as u64 + 1);
    bytes
}

/// What a FETCH answers of a page, which may be less than was asked for, of one chunk in any case.
fn page(wire: &mut Wire, task: &Task, range: Range<usize>) -> Result<Vec<bool>, Failure> {
    match wire.head()? {
        Head::Array(4) => {}
        Head::Error(text) => return Err(Failure::Refused(text)),
        _ => return Err(Failure::broken("FETCH with something else")),
    }
    for _ in 0..3 {
        wire.head()?;
    }
    match wire.head()? {
        // A namespace that is not there has nothing.
        Head::Array(0) => Ok(vec![false; range.len()]),
        Head::Array(count) => {
            let named = range.take(count);
            named.map(|at| chunk(wire, task, at)).collect()
        }
        _ => Err(Failure::broken("FETCH with something else")),
    }
}

/// Receives a chunk; false where it is not there, or of another size.
fn chunk(wire: &mut Wire, task: &Task, at: usize) -> Result<bool, Failure> {
    match wire.head()? {
        Head::Null => return Ok(false),
        Head::Array(4) => {}
        _ => return Err(Failure::broken("FETCH with something else than chunks")),
    }
    let (digest, _meta, length) = (resp::read(wire)?, resp::read(wire)?, resp::read(wire)?);
    if !matches!(digest, Reply::Bytes(hex) if is_hex_of(&hex, &task.names[at])) {
        return Err(Failure::broken("FETCH with another chunk than was asked for"));
    }
    let payload = &task.memory.payloads[at];
    let whole = payload.len();
    let mut fits = matches!(length, Reply::Number(length) if length == whole as i64);
    let Head::Array(segments) = wire.head()? else {
        return Err(Failure::broken("a payload that has no segments"));
    };
    let mut filled = 0;
    for _ in 0..segments {
        let Head::Bulk(size) = wire.head()? else {
            return Err(Failure::broken("a payload that is no bulk string"));
        };
        if fits && filled + size <= whole {
            payload.part(filled, size).try_for_each(|piece| wire.fill(piece))?;
        } else {
            fits = false;
            wire.skip(size)?;
        }
        wire.end_of_bulk()?;
        filled += size;
    }
    Ok(fits && filled == whole)
}

fn is_hex_of(hex: &[u8], name: &[u8]) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = name
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    hex.len() == name.len() * 2 && digits.eq(hex.iter().copied())
}
