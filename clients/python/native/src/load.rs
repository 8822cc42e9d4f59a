//! Loads of a page of chunks: which of them are asked for next, and in which parts; what comes of them.
//!
//! A chunk that is longer than a page is asked for part by part: a reply of a few megabytes is built in fresh memory, page
//! fault by page fault, a short one in the server's caches. Its checksum is that of the whole, so that parts of two
//! versions of a chunk are found out; what has none, or does not fit it, is asked for in one piece, which the server
//! compares itself. Over a long way parts are longer, and the next is asked for before one is received. Owns: how far a
//! page is. The thread of its connection.

use crate::core::Core;
use crate::failure::Failure;
use crate::resp::{self, Head, Reply, Source};
use crate::task::Task;
use crate::wire::Wire;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Parts over a long way, and how many of them are asked for at once: as much as is on the way while a trip takes.
const FAR_PART: usize = 2 << 20;
const FAR_PARTS: usize = 2;

/// How far a page is.
#[derive(Default)]
pub struct Loading {
    /// What became of the first chunks.
    pub told: Vec<bool>,
    /// How often the server was busy.
    busy: u32,
    /// Whether the server is to compare the next chunk.
    is_doubted: bool,
    /// What came of the next chunk.
    begun: Part,
    /// The parts of it that are asked for, in order; none where chunks are asked for whole.
    asked: VecDeque<Range<usize>>,
}

/// The first bytes of a payload.
#[derive(Default, Clone)]
struct Part {
    length: usize,
    sum: crc32fast::Hasher,
}

/// What came of a chunk.
enum Came {
    /// All of it.
    Whole,
    /// Its next part.
    Part(Part),
    /// It is not there, or of another size.
    Nothing,
    /// Bytes that do not fit its checksum.
    Damaged,
    /// Parts of a chunk that has none.
    Unsummed,
}

impl Loading {
    /// Whether answers are to come of which it knows.
    pub fn is_in_parts(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The connection is gone, and the answers that were to come over it.
    pub fn unask(&mut self) {
        self.asked.clear();
    }

    /// The commands that ask for what is next; none while parts are to come. `is_alone` says that no other answers come
    /// over the connection meanwhile.
    pub fn commands(
        &mut self,
        core: &Core,
        wire: &Wire,
        task: &Task,
        range: &Range<usize>,
        is_alone: bool,
    ) -> Vec<u8> {
        let rest = range.start + self.told.len()..range.end;
        let whole = task.memory.payloads[rest.start].len();
        let (size, at_once, is_long) = match core.page_bytes {
            near if !wire.is_far() => (near, 1, whole > near),
            page => {
                let far = page.max(FAR_PART);
                (far, FAR_PARTS, is_alone && whole > FAR_PARTS * far)
            }
        };
        let may = !self.is_doubted && core.has_checksums();
        if !(self.is_in_parts() || may && is_long) {
            self.begun = Part::default();
            return fetch(task, rest, !self.is_doubted, None);
        }
        let mut bytes = Vec::new();
        while self.asked.len() < at_once {
            let start = self.asked.back().map_or(self.begun.length, |last| last.end);
            if start >= whole {
                break;
            }
            let part = start..whole.min(start + size);
            bytes.extend(fetch(task, rest.start..rest.start + 1, true, Some(&part)));
            self.asked.push_back(part);
        }
        bytes
    }

    /// Receives what the command is answered, which may be less than was asked for, of one chunk in any case.
    pub fn receive(
        &mut self,
        core: &Core,
        wire: &mut Wire,
        task: &Task,
        range: &Range<usize>,
    ) -> Result<(), Failure> {
        let rest = range.start + self.told.len()..range.end;
        let came = self.page(wire, task, rest);
        self.asked.pop_front();
        let goes_on = matches!(came.as_deref(), Ok([Came::Part(_)]));
        if !goes_on && matches!(came, Ok(_) | Err(Failure::Refused(_))) {
            // What else comes of the chunk is of no use any more.
            for _ in self.asked.drain(..) {
                wire.discard()?;
            }
        }
        let came = match came {
            Err(failure) if failure.word() == "BUSY" && self.busy + 1 < BUSY_TRIES => {
                self.busy += 1;
                let pause = Duration::from_millis(u64::from(self.busy) * 5);
                std::thread::sleep(pause.min(BUSY_PAUSE));
                return Ok(());
            }
            came => came?,
        };
        for each in came {
            match each {
                Came::Part(part) => {
                    (self.begun, self.busy) = (part, 0);
                    return Ok(());
                }
                Came::Damaged => {
                    core.note_failure("a load", "bytes that do not fit their checksum");
                    self.is_doubted = true;
                    return Ok(());
                }
                Came::Unsummed => {
                    core.note_no_checksums();
                    return Ok(());
                }
                Came::Whole => self.told.push(true),
                Came::Nothing => self.told.push(false),
            }
            self.begun = Part::default();
        }
        Ok(())
    }

    fn page(
        &self,
        wire: &mut Wire,
        task: &Task,
        range: Range<usize>,
    ) -> Result<Vec<Came>, Failure> {
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
            Head::Array(0) => Ok(range.map(|_| Came::Nothing).collect()),
            Head::Array(count) => {
                let named = range.take(count);
                named.map(|at| self.chunk(wire, task, at)).collect()
            }
            _ => Err(Failure::broken("FETCH with something else")),
        }
    }

    /// Receives a chunk, or a part of one.
    fn chunk(&self, wire: &mut Wire, task: &Task, at: usize) -> Result<Came, Failure> {
        let has_checksum = match wire.head()? {
            Head::Null => return Ok(Came::Nothing),
            Head::Array(elements @ (4 | 5)) => elements == 5,
            _ => return Err(Failure::broken("FETCH with something else than chunks")),
        };
        let (digest, _meta, length) = (resp::read(wire)?, resp::read(wire)?, resp::read(wire)?);
        if !matches!(digest, Reply::Bytes(hex) if is_hex_of(&hex, &task.names[at])) {
            return Err(Failure::broken("FETCH with another chunk than was asked for"));
        }
        let payload = &task.memory.payloads[at];
        let whole = payload.len();
        let asked = self.asked.front();
        let end = asked.map_or(whole, |asked| asked.end);
        let mut fits = matches!(length, Reply::Number(length) if length == whole as i64);
        let Head::Array(segments) = wire.head()? else {
            return Err(Failure::broken("a payload that has no segments"));
        };
        let mut part = if asked.is_some() { self.begun.clone() } else { Part::default() };
        for _ in 0..segments {
            let Head::Bulk(size) = wire.head()? else {
                return Err(Failure::broken("a payload that is no bulk string"));
            };
            if fits && part.length + size <= end {
                for piece in payload.part(part.length, size) {
                    wire.fill(piece)?;
                    if has_checksum {
                        // While the bytes are in the caches.
                        piece.sum(&mut part.sum);
                    }
                }
            } else {
                fits = false;
                wire.skip(size)?;
            }
            wire.end_of_bulk()?;
            part.length += size;
        }
        let told = if has_checksum { resp::read(wire)? } else { Reply::Null };
        Ok(match told {
            _ if !fits || part.length != end => Came::Nothing,
            Reply::Null if asked.is_some() => Came::Unsummed,
            Reply::Null => Came::Whole,
            Reply::Bytes(_) if end < whole => Came::Part(part),
            Reply::Bytes(hex) if hex == format!("{:08x}", part.sum.finalize()).as_bytes() => {
                Came::Whole
            }
            Reply::Bytes(_) => Came::Damaged,
            _ => return Err(Failure::broken("FETCH with something else than a checksum")),
        })
    }
}

/// Asks for chunks, with their checksums where they are compared here; of one chunk for a part.
fn fetch(
    task: &Task,
    range: Range<usize>,
    has_checksums: bool,
    part: Option<&Range<usize>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let more = usize::from(has_checksums) + if part.is_some() { 3 } else { 0 };
    resp::begin(&mut bytes, 7 + more + range.len());
    resp::argument(&mut bytes, b"KVCHUNK.FETCH");
    resp::argument(&mut bytes, &task.namespace);
    resp::argument(&mut bytes, b"HASHES");
    resp::number(&mut bytes, range.len() as u64);
    task.names[range.clone()].iter().for_each(|name| resp::argument(&mut bytes, name));
    resp::argument(&mut bytes, b"SPARSE");
    if has_checksums {
        resp::argument(&mut bytes, b"CHECKSUMS");
    }
    if let Some(part) = part {
        resp::argument(&mut bytes, b"RANGE");
        resp::number(&mut bytes, part.start as u64);
        resp::number(&mut bytes, part.len() as u64);
    }
    resp::argument(&mut bytes, b"MAXBYTES");
    // One more than all of them: chunks of another size than the buffers' do not lengthen a reply much.
    let all: usize = task.memory.payloads[range].iter().map(|payload| payload.len()).sum();
    resp::number(&mut bytes, all as u64 + 1);
    bytes
}

fn is_hex_of(hex: &[u8], name: &[u8]) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = name
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    hex.len() == name.len() * 2 && digits.eq(hex.iter().copied())
}
