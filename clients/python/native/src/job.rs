//! What is done over one connection: a page of a store or of a load, or commands that are only asked.
//!
//! Owns: the commands, what their answers mean, whether a job has more to say after an answer. A job's command is sent
//! again as it was where its connection broke: stores and loads of the same chunks may be done twice.

use crate::core::Core;
use crate::failure::Failure;
use crate::load::Loading;
use crate::memory::Payload;
use crate::resp::{self, Reply};
use crate::task::Task;
use crate::wire::{Gathered, Line, Wire};
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::ops::Range;
use std::sync::Arc;

/// Payload bytes that are sent together: they are in the caches still when the kernel copies them.
const SENT_AT_ONCE: usize = 512 << 10;

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
        /// Whether it was made, and gone when the page came.
        is_remade: bool,
    },
    /// A page is loaded.
    Load {
        /// Of this task.
        task: Arc<Task>,
        /// These chunks.
        range: Range<usize>,
        /// How far it is.
        state: Box<Loading>,
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

    /// Sends its command; `is_alone` says that nothing else is under way over the connection.
    pub fn send(&mut self, wire: &Wire, is_alone: bool) -> Result<(), Failure> {
        let core = &*self.core;
        match &mut self.work {
            Work::Put { task, range, is_making, .. } => {
                *is_making = !core.is_made(&task.namespace);
                if *is_making {
                    wire.send(&Gathered::of(create(core, &task.namespace)))
                } else {
                    mput(core, wire, task, range)
                }
            }
            Work::Load { task, range, state } => {
                wire.send(&Gathered::of(state.commands(core, wire, task, range, is_alone)))
            }
            Work::Ask { bytes, sent, .. } => {
                wire.send_bytes(&bytes[*sent..])?;
                *sent = bytes.len();
                Ok(())
            }
        }
    }

    /// Payload bytes that it moves.
    pub fn bytes(&self) -> usize {
        match &self.work {
            Work::Put { task, range, .. } | Work::Load { task, range, .. } => {
                task.memory.payloads[range.clone()].iter().map(Payload::len).sum()
            }
            Work::Ask { .. } => 0,
        }
    }

    /// Whether it goes on with commands that were sent while it had others.
    pub fn is_in_parts(&self) -> bool {
        matches!(&self.work, Work::Load { state, .. } if state.is_in_parts())
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
        match &mut self.work {
            Work::Ask { sent, .. } => {
                self.is_again |= is_broken && *sent > 0;
                *sent = 0;
            }
            Work::Load { state, .. } => state.unask(),
            Work::Put { .. } => {}
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
            Work::Put { task, range, is_remade, .. } => {
                let told = match stored(core, resp::read(wire)?) {
                    // Somebody removed the namespace, or all: it is made again as it was wanted.
                    Err(failure) if failure.word() == "NOCACHE" && !*is_remade => {
                        *is_remade = true;
                        core.note_gone(&task.namespace);
                        return Ok(true);
                    }
                    told => told?,
                };
                if told.len() != range.len() {
                    return Err(Failure::broken("MPUT with another number of words"));
                }
                core.count_stored(&told);
                task.finish(core, range, &told);
                Ok(false)
            }
            Work::Load { task, range, state } => {
                state.receive(core, wire, task, range)?;
                if state.told.len() < range.len() {
                    return Ok(true);
                }
                core.count_loaded(&state.told);
                task.finish(core, range, &state.told);
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
            Work::Load { task, range, state } => {
                let told = &mut state.told;
                // What came whole before is there.
                told.resize(range.len(), false);
                core.count_loaded(told);
                task.finish(core, range, told);
            }
            Work::Ask { done, .. } => core.tell(done.take(), |py| Ok(py.None())),
        }
    }
}

fn create(core: &Core, namespace: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    resp::begin(&mut bytes, 2 + core.settings.len());
    resp::argument(&mut bytes, b"KVCHUNK.CREATE");
    resp::argument(&mut bytes, namespace);
    core.settings.iter().for_each(|word| resp::argument(&mut bytes, word));
    bytes
}

/// Sends a page, with checksums behind the payloads: each part of them is read for its checksum just before it is sent,
/// while the server takes what is before it.
fn mput(core: &Core, wire: &Wire, task: &Task, range: &Range<usize>) -> Result<(), Failure> {
    let payloads = &task.memory.payloads[range.clone()];
    let plans: Vec<Vec<usize>> = payloads.iter().map(|payload| core.plan(payload.len())).collect();
    let mut command = Gathered::of(mput_head(core, task, range, &plans));
    let mut sums = Vec::with_capacity(payloads.len());
    for (payload, plan) in payloads.iter().zip(&plans) {
        resp::number(command.own(), plan.len() as u64);
        let (mut at, mut sum) = (0, crc32fast::Hasher::new());
        for &length in plan {
            resp::head(command.own(), length);
            let end = at + length;
            while at < end {
                let step = (end - at).min(SENT_AT_ONCE);
                if command.bytes() + step > SENT_AT_ONCE && command.bytes() > 0 {
                    wire.send(&std::mem::take(&mut command))?;
                }
                for piece in payload.part(at, step) {
                    if core.checksum {
                        piece.sum(&mut sum);
                    }
                    command.push(piece);
                }
                at += step;
            }
            command.own().extend_from_slice(b"\r\n");
        }
        sums.push(sum.finalize());
    }
    if core.checksum {
        resp::argument(command.own(), b"CHECKSUMS");
        resp::number(command.own(), sums.len() as u64);
        sums.iter().for_each(|sum| resp::argument(command.own(), format!("{sum:08x}").as_bytes()));
    }
    wire.send(&command)
}

/// The command up to the payloads.
fn mput_head(core: &Core, task: &Task, range: &Range<usize>, plans: &[Vec<usize>]) -> Vec<u8> {
    let ahead = match range.start.checked_sub(1) {
        Some(before) => Some(&task.names[before]),
        None => task.ahead.as_ref(),
    };
    let names = ahead.into_iter().chain(&task.names[range.clone()]);
    let named = range.len() + usize::from(ahead.is_some());
    let segments: usize = plans.iter().map(|plan| 1 + plan.len()).sum();
    let options = if core.ttl > 0 { 2 } else { 0 };
    let sums = if core.checksum { 2 + range.len() } else { 0 };
    let mut own = Vec::new();
    resp::begin(&mut own, 10 + named + segments + options + sums);
    resp::argument(&mut own, b"KVCHUNK.MPUT");
    resp::argument(&mut own, &task.namespace);
    resp::argument(&mut own, b"HASHES");
    resp::number(&mut own, named as u64);
    names.for_each(|name| resp::argument(&mut own, name));
    resp::argument(&mut own, b"LOOSE");
    // It would be made with defaults.
    resp::argument(&mut own, b"NOCREATE");
    resp::argument(&mut own, b"FROM");
    resp::number(&mut own, u64::from(ahead.is_some()));
    if core.ttl > 0 {
        resp::argument(&mut own, b"EX");
        resp::number(&mut own, core.ttl);
    }
    resp::argument(&mut own, b"PAYLOADS");
    resp::number(&mut own, range.len() as u64);
    own
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
