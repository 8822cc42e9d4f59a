//! One connection that moves large payloads: commands gathered out of many buffers, replies scattered into the engine's.
//!
//! Owns: the socket, its timeouts, the bytes that were received with a header and belong to what follows. One thread.

use crate::failure::Failure;
use crate::memory::Piece;
use crate::resp::{self, Head, Reply, Source};
use std::io::{Error, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// From this on a trip is far.
const FAR: Duration = Duration::from_micros(700);

/// Buffers of one call: Linux takes at most 1,024.
const PARTS_AT_ONCE: usize = 1_024;
/// Headers are received in pieces of this size; what is behind them belongs to a payload and is copied.
const SCRATCH: usize = 4_096;
/// Trips whose time is taken of a new connection; the shortest counts.
const TRIPS: usize = 3;
const LINE_MOST: usize = 64 << 10;

/// Where the server is and how it is spoken to.
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// A Unix socket instead, where it is not empty.
    pub path: String,
    /// ACL user; empty is the default one.
    pub username: String,
    /// Empty where none is needed.
    pub password: String,
    /// Number of the database.
    pub db: u32,
    /// For an answer, and for the server to take bytes.
    pub timeout: Duration,
    /// For a connection.
    pub connect_timeout: Duration,
}

/// A connection that is logged in.
pub struct Wire {
    socket: OwnedFd,
    timeout: Duration,
    /// How long a trip takes.
    trip: Duration,
    scratch: Box<[u8; SCRATCH]>,
    start: usize,
    end: usize,
}

/// A connection as those see it who only send over it; its owner has them stop before it is closed.
#[derive(Clone, Copy)]
pub struct Line(RawFd);

impl Line {
    /// Sends what goes without waiting; returns how much. That nothing goes any more is found by its owner.
    pub fn send_now(self, bytes: &[u8]) -> usize {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the bytes are there during the call.
        let sent = unsafe { libc::send(self.0, bytes.as_ptr().cast(), bytes.len(), flags) };
        usize::try_from(sent).unwrap_or(0)
    }
}

impl Wire {
    /// Connects and logs in.
    pub fn connect(to: &Endpoint) -> Result<Self, Failure> {
        let socket = dial(to).map_err(|error| Failure::of(&error, to.connect_timeout))?;
        let scratch = Box::new([0; SCRATCH]);
        let trip = Duration::ZERO;
        let mut wire = Self { socket, timeout: to.timeout, trip, scratch, start: 0, end: 0 };
        if !(to.username.is_empty() && to.password.is_empty()) {
            let user = Some(to.username.as_bytes()).filter(|name| !name.is_empty());
            let words = [b"AUTH".as_slice()].into_iter().chain(user);
            wire.call(words.chain([to.password.as_bytes()]).collect::<Vec<_>>().as_slice())?;
        }
        if to.db != 0 {
            wire.call(&[b"SELECT", to.db.to_string().as_bytes()])?;
        }
        wire.trip = (0..TRIPS)
            .map(|_| wire.ping())
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .min()
            .unwrap_or_default();
        Ok(wire)
    }

    /// What others may send over.
    pub fn line(&self) -> Line {
        Line(self.socket.as_raw_fd())
    }

    /// Sends bytes of the caller's own.
    pub fn send_bytes(&self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            // SAFETY: the bytes are there during the call.
            let sent = unsafe {
                let (start, fd) = (bytes.as_ptr().cast(), self.socket.as_raw_fd());
                libc::send(fd, start, bytes.len(), libc::MSG_NOSIGNAL)
            };
            bytes = &bytes[self.outcome(sent)?.unwrap_or(0)..];
        }
        Ok(())
    }

    /// Whether the server is far: the shortest trip takes so long that more of them cost more than they spare.
    pub fn is_far(&self) -> bool {
        self.trip >= FAR
    }

    fn ping(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        match self.call(&[b"PING"]) {
            // A user that may not ask has an answer too.
            Ok(()) | Err(Failure::Refused(_)) => Ok(begun.elapsed()),
            Err(failure) => Err(failure),
        }
    }

    fn call(&mut self, words: &[&[u8]]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        resp::begin(&mut bytes, words.len());
        words.iter().for_each(|word| resp::argument(&mut bytes, word));
        self.send(&Gathered::of(bytes))?;
        match resp::read(self)? {
            Reply::Error(text) => Err(Failure::Refused(text)),
            _ => Ok(()),
        }
    }

    /// Sends buffers as they are, one behind the other.
    pub fn send(&self, what: &Gathered) -> Result<(), Failure> {
        let mut parts = what.parts();
        let mut left = parts.as_mut_slice();
        while !left.is_empty() {
            // SAFETY: all zeroes is a message without anything.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = left.as_mut_ptr();
            message.msg_iovlen = left.len().min(PARTS_AT_ONCE) as _;
            // SAFETY: the parts are those of `what`, which lives as long as its task and this call.
            let sent =
                unsafe { libc::sendmsg(self.socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
            let Some(mut sent) = self.outcome(sent)? else { continue };
            let whole = left.iter().take_while(|part| {
                let is_whole = sent >= part.iov_len;
                sent -= if is_whole { part.iov_len } else { 0 };
                is_whole
            });
            let done = whole.count();
            left = &mut left[done..];
            if let Some(first) = left.first_mut().filter(|_| sent > 0) {
                // SAFETY: fewer bytes than the part has.
                first.iov_base = unsafe { first.iov_base.cast::<u8>().add(sent) }.cast();
                first.iov_len -= sent;
            }
        }
        Ok(())
    }

    /// What a call moved; none where a signal broke it off.
    fn outcome(&self, moved: isize) -> Result<Option<usize>, Failure> {
        if let Ok(moved) = usize::try_from(moved) {
            return Ok(Some(moved));
        }
        let error = Error::last_os_error();
        match error.kind() {
            ErrorKind::Interrupted => Ok(None),
            _ => Err(Failure::of(&error, self.timeout)),
        }
    }

    /// Receives into memory that may be written.
    fn receive(&self, start: *mut u8, length: usize, flags: i32) -> Result<usize, Failure> {
        loop {
            // SAFETY: so many bytes are there, by those who call.
            let got = unsafe { libc::recv(self.socket.as_raw_fd(), start.cast(), length, flags) };
            match self.outcome(got)? {
                Some(0) => return Err(Failure::Lost("the server closed the connection".into())),
                Some(got) => return Ok(got),
                None => {}
            }
        }
    }

    /// Fills memory with the bytes that come next.
    pub fn fill(&mut self, piece: Piece) -> Result<(), Failure> {
        let mut done = (self.end - self.start).min(piece.len());
        let ready = self.scratch[self.start..self.start + done].as_ptr();
        // SAFETY: the piece is that of a task that goes on, and has so many bytes; scratch is no part of it.
        unsafe { piece.start().copy_from_nonoverlapping(ready, done) };
        self.start += done;
        while done < piece.len() {
            // SAFETY: within the piece.
            let start = unsafe { piece.start().add(done) };
            // The kernel waits: a piece is one call, without a poll before each part of it.
            done += self.receive(start, piece.len() - done, libc::MSG_WAITALL)?;
        }
        Ok(())
    }

    /// Receives a reply that nobody wants.
    pub fn discard(&mut self) -> Result<(), Failure> {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            match self.head()? {
                Head::Bulk(length) => {
                    self.skip(length)?;
                    self.end_of_bulk()?;
                }
                Head::Array(elements) => left += elements,
                _ => {}
            }
        }
        Ok(())
    }

    /// Receives bytes that nobody wants.
    pub fn skip(&mut self, mut length: usize) -> Result<(), Failure> {
        loop {
            let ready = (self.end - self.start).min(length);
            self.start += ready;
            length -= ready;
            if length == 0 {
                return Ok(());
            }
            self.refill()?;
        }
    }

    fn refill(&mut self) -> Result<(), Failure> {
        let start = self.scratch.as_mut_ptr();
        (self.start, self.end) = (0, self.receive(start, SCRATCH, 0)?);
        Ok(())
    }

    /// The two bytes behind a bulk string.
    pub fn end_of_bulk(&mut self) -> Result<(), Failure> {
        for expected in *b"\r\n" {
            if self.start == self.end {
                self.refill()?;
            }
            if self.scratch[self.start] != expected {
                return Err(Failure::broken("a bulk string that does not end"));
            }
            self.start += 1;
        }
        Ok(())
    }
}

impl Source for Wire {
    fn head(&mut self) -> Result<Head, Failure> {
        let mut line = Vec::new();
        loop {
            let ready = &self.scratch[self.start..self.end];
            if let Some(at) = ready.iter().position(|&byte| byte == b'\n') {
                line.extend_from_slice(&ready[..at]);
                self.start += at + 1;
                break;
            }
            line.extend_from_slice(ready);
            if line.len() > LINE_MOST {
                return Err(Failure::broken("no RESP"));
            }
            self.refill()?;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        Head::of(line).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
            Failure::broken(&format!("no RESP: {shown:?}"))
        })
    }

    fn bulk(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(length.min(SCRATCH));
        while bytes.len() < length {
            if self.start == self.end {
                self.refill()?;
            }
            let take = (self.end - self.start).min(length - bytes.len());
            bytes.extend_from_slice(&self.scratch[self.start..self.start + take]);
            self.start += take;
        }
        self.end_of_bulk()?;
        Ok(bytes)
    }
}

fn dial(to: &Endpoint) -> Result<OwnedFd, Error> {
    let (write, read) = (Some(to.timeout), Some(to.timeout));
    if !to.path.is_empty() {
        let socket = UnixStream::connect(&to.path)?;
        socket.set_write_timeout(write)?;
        socket.set_read_timeout(read)?;
        return Ok(socket.into());
    }
    let mut last = Error::new(ErrorKind::NotFound, format!("{} has no address", to.host));
    for address in (to.host.as_str(), to.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, to.connect_timeout) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(write)?;
                socket.set_read_timeout(read)?;
                keep_alive(&socket)?;
                return Ok(socket.into());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn keep_alive(socket: &TcpStream) -> Result<(), Error> {
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option is a number of that size.
    let told = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, value, size)
    };
    if told == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// A command in parts: bytes of its own, and between them the engine's.
#[derive(Default)]
pub struct Gathered {
    own: Vec<u8>,
    /// Where in `own` pieces go, in order.
    pieces: Vec<(usize, Piece)>,
    /// The bytes of these.
    bytes: usize,
}

impl Gathered {
    /// Bytes of its own alone.
    pub fn of(own: Vec<u8>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Bytes of the engine's in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where its own bytes are appended.
    pub fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends a piece of the engine's memory.
    pub fn push(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.pieces.push((self.own.len(), piece));
    }

    fn parts(&self) -> Vec<libc::iovec> {
        let mut parts = Vec::with_capacity(self.pieces.len() * 2 + 1);
        let mut at = 0;
        let mut add = |start: *const u8, length: usize| {
            if length > 0 {
                // They are only read.
                parts.push(libc::iovec { iov_base: start.cast_mut().cast(), iov_len: length });
            }
        };
        for &(place, piece) in &self.pieces {
            add(self.own[at..place].as_ptr(), place - at);
            add(piece.start(), piece.len());
            at = place;
        }
        add(self.own[at..].as_ptr(), self.own.len() - at);
        parts
    }
}
