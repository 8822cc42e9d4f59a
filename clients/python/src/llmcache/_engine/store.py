"""A store of chunks for an inference engine: threads with a connection each, one for look-ups, the others for bytes.

A chunk is (namespace, digest), independent of every other: it is stored `LOOSE`, loaded `SPARSE`. Order is only handed
on, so that the server evicts the ends of prompts first. Owns: threads, queues, connections, pages, what is tried again.
Never raises into the engine: what fails is a miss or a store that failed, and is counted and logged.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .wire import Endpoint, Part, ProtocolError, Reply, ReplyError, Wire, encode, skip

log = logging.getLogger("llmcache.engine")

# Segments of this size are kept by the server without a copy and fill a size class of its allocator.
SEGMENT = (1 << 20) - 64
# Chunks of one page: names and headers stay small beside payloads.
_CHUNKS_AT_ONCE = 256
# Chunks of one MATCH, all namespaces together.
_MATCHED_AT_ONCE = 65_536
_ALSO_MAX = 255
_BUSY_TRIES = 40

# Shorter pieces of a payload are joined, so that a chunk of many layers is no command of many arguments.
_PIECE_LEAST = 64 << 10

T = TypeVar("T")
# A payload is where the engine has it: one buffer, or several in a row.
Payload = memoryview | Sequence[memoryview]
Chunk = tuple[bytes, Payload]


@dataclass(frozen=True)
class Options:
    """How a store works; the defaults suit a server in the same rack."""

    connections: int = 4
    # Longer replies are built in fresh memory, page fault by page fault: up to twice the server's CPU.
    page_bytes: int = 1 << 20
    lease_ms: int = 60_000
    ttl: int = 0
    chunk_tokens: int = 256
    budget: int = 0
    durable: str = "NONE"
    checksum: bool = True
    form: str = ""
    # After a failed connection nothing is tried for so long: every answer is a miss at once.
    pause: float = 1.0


@dataclass
class Found:
    """What one namespace has of the chunks asked for."""

    there: list[bool] = field(default_factory=list)
    leading: int = 0
    lease: int | bytes | None = None


@dataclass
class Counts:
    """What happened, for status pages."""

    stored: int = 0
    loaded: int = 0
    missed: int = 0
    rejected: int = 0
    failed: int = 0
    reconnects: int = 0


class _Lane:
    """Threads that take work from one queue, each with a connection of its own."""

    def __init__(self, store: ChunkStore, name: str, threads: int) -> None:
        self._store, self._work = store, deque[Callable[[Wire | None], None]]()
        self._ready = threading.Condition()
        self._is_open = True
        self._threads = [
            threading.Thread(target=self._run, name=f"llmcache-{name}-{at}", daemon=True) for at in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[Wire | None], None]) -> None:
        """Has a thread do it; without a connection where the store is closed."""
        with self._ready:
            if self._is_open:
                self._work.append(job)
                self._ready.notify()
                return
        job(None)

    def _run(self) -> None:
        wire = Wire(self._store.endpoint)
        while True:
            with self._ready:
                while not self._work and self._is_open:
                    self._ready.wait()
                if not self._work:
                    break
                job = self._work.popleft()
            job(wire)
        wire.close()

    def close(self) -> None:
        """Ends the threads when what was submitted is done."""
        with self._ready:
            self._is_open = False
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()


class ChunkStore:
    """Stores, finds and loads chunks in the background; each `done` is called once, on a thread of the store."""

    def __init__(self, endpoint: Endpoint, options: Options | None = None) -> None:
        self.endpoint, self.options, self.counts = endpoint, options or Options(), Counts()
        self._lock = threading.Lock()
        # Namespaces made, by the newest connection that saw them.
        self._made: set[str] = set()
        self._down_until = 0.0
        self._told_at = 0.0
        self._bulk = _Lane(self, "bulk", self.options.connections)
        self._quick = _Lane(self, "look-up", 1)

    def close(self) -> None:
        """Ends connections and threads, when what was submitted is done."""
        self._quick.close()
        self._bulk.close()

    @property
    def is_up(self) -> bool:
        """Whether the last attempt to speak to the server went well."""
        return time.monotonic() >= self._down_until

    # What is tried, and what becomes of failures.

    def _try(self, wire: Wire | None, work: Callable[[Wire], T], otherwise: T, what: str) -> T:
        """Does it, once more over a new connection where the old one failed; else `otherwise`."""
        if wire is None:
            return otherwise
        for attempt in (1, 2):
            is_new = False
            try:
                if time.monotonic() < self._down_until:
                    raise ConnectionError(f"{self.endpoint} did not answer lately")
                before = wire.epoch
                wire.connect()
                is_new = wire.epoch != before
                if is_new:
                    self._note_connected()
                result = work(wire)
                self._down_until = 0.0
                return result
            except ReplyError as error:
                # The connection is where it was only if the reply was read whole.
                if error.word in ("NOAUTH", "WRONGPASS", "NOPERM"):
                    wire.close()
                self._note_failure(what, error)
                return otherwise
            except OSError as error:
                wire.close()
                is_last = is_new or attempt == 2 or isinstance(error, TimeoutError)
                if is_last:
                    if not self._down_until and is_new is False:
                        self._down_until = time.monotonic() + self.options.pause
                    self._note_failure(what, error)
                    return otherwise
            except Exception as error:
                wire.close()
                self._note_failure(what, error)
                return otherwise
        return otherwise

    def _note_connected(self) -> None:
        with self._lock:
            # It may be another process, which knows none of them.
            self._made.clear()
            self.counts.reconnects += 1

    def _note_failure(self, what: str, error: Exception) -> None:
        with self._lock:
            self.counts.failed += 1
            now = time.monotonic()
            if now - self._told_at < 5:
                return
            self._told_at = now
        log.warning("%s at %s failed: %s", what, self.endpoint, error)

    # Stores.

    def put(
        self,
        namespace: str,
        chunks: Sequence[Chunk],
        done: Callable[[list[bool]], None],
        ahead: bytes | None = None,
    ) -> None:
        """Stores chunks of one prompt in their order; `ahead` is the chunk before the first, where it is known."""
        pages = self._pages([_length(data) for _, data in chunks])
        state = _Parts(len(chunks), len(pages), done)
        for first, last in pages:
            page = chunks[first:last]
            before = chunks[first - 1][0] if first else ahead

            def job(
                wire: Wire | None, first: int = first, page: Sequence[Chunk] = page, before: bytes | None = before
            ) -> None:
                none: list[bool] = []
                told = self._try(wire, lambda wire: self._put_page(wire, namespace, page, before), none, "a store")
                state.finish(first, told)

            self._bulk.submit(job)
        if not pages:
            done([])

    def _put_page(self, wire: Wire, namespace: str, page: Sequence[Chunk], before: bytes | None) -> list[bool]:
        self._make(wire, namespace)
        names = [*([before] if before is not None else []), *(digest for digest, _ in page)]
        args: list[Part | str | int] = ["KVCHUNK.MPUT", namespace, "HASHES", len(names), *names, "LOOSE"]
        args += ["FROM", len(names) - len(page)]
        args += ["EX", self.options.ttl] if self.options.ttl else []
        args += ["PAYLOADS", len(page)]
        for _, data in page:
            segments = _segments(data)
            args += [len(segments), *segments]
        words = wire.call(args)
        stored = [word in (b"STORED", b"EXISTS") for word in words]
        if not all(stored):
            why = next(word for word, is_stored in zip(words, stored, strict=True) if not is_stored)
            self._note_failure("a store", ReplyError(why.decode("utf-8", "replace")))
        with self._lock:
            self.counts.stored += sum(stored)
            self.counts.rejected += len(stored) - sum(stored)
        return stored

    def _make(self, wire: Wire, namespace: str) -> None:
        """Makes a namespace with the settings wanted, once a connection of a new server."""
        if namespace in self._made:
            return
        options = self.options
        args: list[Part | str | int] = ["KVCHUNK.CREATE", namespace, "CHUNK", options.chunk_tokens]
        args += ["DURABLE", options.durable, "CHECKSUM", "ON" if options.checksum else "OFF"]
        args += ["BUDGET", options.budget] if options.budget else []
        args += ["FORMAT", options.form] if options.form else []
        try:
            wire.call(args)
        except ReplyError as error:
            if error.word != "ERR":
                raise
            # It is there with other settings, which somebody chose.
            log.info("namespace %s stays as it is: %s", namespace, error)
        with self._lock:
            self._made.add(namespace)

    # Look-ups.

    def match(
        self,
        asked: Sequence[tuple[Sequence[str], Sequence[bytes]]],
        done: Callable[[list[list[Found]]], None],
        lease_ms: int | None = None,
    ) -> None:
        """For each prompt what each of its namespaces has of it, in one trip; found chunks are leased."""
        length = self.options.lease_ms if lease_ms is None else lease_ms
        nothing = [[Found([False] * len(hashes)) for _ in names] for names, hashes in asked]

        def job(wire: Wire | None) -> None:
            done(self._try(wire, lambda wire: self._match(wire, asked, length), nothing, "a look-up"))

        self._quick.submit(job)

    def _match(
        self, wire: Wire, asked: Sequence[tuple[Sequence[str], Sequence[bytes]]], length: int
    ) -> list[list[Found]]:
        parts: list[Part] = []
        several: list[list[int]] = []
        for names, hashes in asked:
            at_once = max(1, min(_ALSO_MAX, _MATCHED_AT_ONCE // max(1, len(hashes))))
            several.append([])
            for first in range(0, len(names) if hashes else 0, at_once):
                some = names[first : first + at_once]
                args: list[Part | str | int] = ["KVCHUNK.MATCH", some[0], "HASHES", len(hashes), *hashes, "SPARSE"]
                args += ["ALSO", len(some) - 1, *some[1:]] if len(some) > 1 else []
                args += ["LEASE", length] if length else []
                parts += encode(args)
                several[-1].append(len(some))
        wire.send(parts)
        replies = [[wire.read() for _ in counts] for counts in several]
        result: list[list[Found]] = []
        for (_, hashes), told in zip(asked, replies, strict=True):
            found: list[Found] = []
            for reply in told:
                if isinstance(reply, ReplyError):
                    raise reply
                found += [_found(place, len(hashes)) for place in reply[3]]
            result.append(found)
        return result

    def release(self, namespace: str, lease: int | bytes) -> None:
        """Ends a lease; one that cannot be ended lapses."""
        self._quick.submit(
            lambda wire: self._try(
                wire, lambda wire: wire.call(["KVCHUNK.RELEASE", namespace, lease]), None, "a release"
            )
        )

    # Loads.

    def load(self, namespace: str, chunks: Sequence[Chunk], done: Callable[[list[bool]], None]) -> None:
        """Loads chunks into these buffers; true for each that came whole and fills its own."""
        pages = self._pages([_length(into) for _, into in chunks])
        state = _Parts(len(chunks), len(pages), done)
        for first, last in pages:
            page = chunks[first:last]

            def job(wire: Wire | None, first: int = first, page: Sequence[Chunk] = page) -> None:
                none: list[bool] = []
                told = self._try(wire, lambda wire: self._load_page(wire, namespace, page), none, "a load")
                with self._lock:
                    self.counts.loaded += sum(told)
                    self.counts.missed += len(page) - sum(told)
                state.finish(first, told)

            self._bulk.submit(job)
        if not pages:
            done([])

    def _load_page(self, wire: Wire, namespace: str, page: Sequence[Chunk]) -> list[bool]:
        loaded: list[bool] = []
        tries = 0
        while len(loaded) < len(page):
            rest = page[len(loaded) :]
            args: list[Part | str | int] = [
                "KVCHUNK.FETCH",
                namespace,
                "HASHES",
                len(rest),
                *(name for name, _ in rest),
            ]
            # One more than all of them: chunks of another size than the buffers' do not lengthen a reply much.
            args += ["SPARSE", "MAXBYTES", sum(_length(into) for _, into in rest) + 1]
            wire.send(encode(args))
            try:
                loaded += self._read_page(wire, rest)
            except ReplyError as error:
                tries += 1
                if error.word != "BUSY" or tries >= _BUSY_TRIES:
                    raise
                time.sleep(min(0.005 * tries, 0.1))
        return loaded

    def _read_page(self, wire: Wire, rest: Sequence[Chunk]) -> list[bool]:
        """What a FETCH answers of a page, which may be less than was asked for, of one chunk in any case."""
        kind, elements = wire.head()
        if kind != b"*" or elements != 4:
            raise ProtocolError("FETCH answered something else")
        for _ in range(3):
            wire.head()
        kind, count = wire.head()
        # A namespace that is not there has nothing.
        if kind != b"*" or not count:
            return [False] * len(rest)
        return [self._read_chunk(wire, name, into) for name, into in rest[:count]]

    def _read_chunk(self, wire: Wire, name: bytes, into: Payload) -> bool:
        kind, elements = wire.head()
        if kind == b"_":
            return False
        if kind != b"*" or elements != 4:
            raise ProtocolError("FETCH answered something else than chunks")
        digest, _meta, length = wire.read(), wire.read(), wire.read()
        if digest != name.hex().encode():
            raise ProtocolError("FETCH answered another chunk than was asked for")
        whole = _length(into)
        fits = length == whole
        _, segments = wire.head()
        at = 0
        for _ in range(segments or 0):
            kind, size = wire.head()
            if kind != b"$" or size is None:
                raise ProtocolError("a payload is no bulk string")
            if fits and at + size <= whole:
                for piece in _pieces(into, at, size):
                    wire.read_into(piece)
            else:
                fits = False
                skip(wire, size)
            wire.end_of_bulk()
            at += size
        return fits and at == whole

    # The rest.

    def call(self, args: Sequence[Part | str | int], wait: float | None = None) -> Reply:
        """One command, waited for; None where it failed."""
        told: list[Reply] = []
        over = threading.Event()

        def job(wire: Wire | None) -> None:
            told.append(self._try(wire, lambda wire: wire.call(args), None, str(args[0])))
            over.set()

        self._quick.submit(job)
        over.wait(self.endpoint.timeout * 2 + self.endpoint.connect_timeout * 2 if wait is None else wait)
        return told[0] if told else None

    def _pages(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Runs of chunks that move together: enough of them for all connections, none too long."""
        most = max(1, min(self.options.page_bytes, sum(sizes) // max(1, self.options.connections)))
        most = max(most, min(self.options.page_bytes, 1 << 20))
        pages: list[tuple[int, int]] = []
        first, bytes_ = 0, 0
        for at, size in enumerate(sizes):
            if at > first and (bytes_ + size > most or at - first >= _CHUNKS_AT_ONCE):
                pages.append((first, at))
                first, bytes_ = at, 0
            bytes_ += size
        return [*pages, (first, len(sizes))] if sizes else []


class _Parts:
    """Pages of one task: the last that ends tells the whole."""

    def __init__(self, chunks: int, pages: int, done: Callable[[list[bool]], None]) -> None:
        self._told, self._left, self._done = [False] * chunks, pages, done
        self._lock = threading.Lock()

    def finish(self, first: int, told: Sequence[bool]) -> None:
        with self._lock:
            self._told[first : first + len(told)] = told
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._done(self._told)


def _length(payload: Payload) -> int:
    return payload.nbytes if isinstance(payload, memoryview) else sum(piece.nbytes for piece in payload)


def _pieces(payload: Payload, at: int, size: int) -> list[memoryview]:
    """The part of a payload that begins at `at`, where it lies."""
    if isinstance(payload, memoryview):
        return [payload[at : at + size]]
    found: list[memoryview] = []
    for piece in payload:
        if at < piece.nbytes and size:
            part = piece[at : at + size]
            found.append(part)
            size -= part.nbytes
            at = 0
        else:
            at = max(0, at - piece.nbytes)
    return found


def _segments(payload: Payload) -> list[Part]:
    """A payload as arguments of MPUT: as it lies, but for pieces too short to be worth one each."""
    if not isinstance(payload, memoryview) and min((piece.nbytes for piece in payload), default=0) < _PIECE_LEAST:
        payload = memoryview(b"".join(payload))
    buffers = [payload] if isinstance(payload, memoryview) else payload
    segments: list[Part] = []
    for buffer in buffers:
        at = 0
        for size in segment_plan(buffer.nbytes):
            segments.append(buffer[at : at + size])
            at += size
    return segments


@functools.lru_cache(maxsize=1_024)
def segment_plan(length: int) -> tuple[int, ...]:
    """Pieces that the server keeps as they come: each fills a size class of its allocator but for a string's header."""
    plan: list[int] = []
    while length:
        piece = min(length, SEGMENT)
        taken = _size_class(piece + 18)
        if piece < SEGMENT and taken - piece > piece // 64 + 128:
            # The largest class below, which is one step of its doubling down.
            room = piece + 64
            piece = room - room % (1 << max(0, room.bit_length() - 3)) - 64
        plan.append(piece)
        length -= piece
    return tuple(plan)


def _size_class(bytes_: int) -> int:
    step = 1 << max(4, (bytes_ - 1).bit_length() - 3)
    return -(-bytes_ // step) * step


def _found(place: Reply, asked: int) -> Found:
    leading, lease, bits = place
    digits = format(int.from_bytes(bits, "big"), f"0{len(bits) * 8}b")
    there = [digit == "1" for digit in digits[:asked]]
    return Found(there, leading, lease)
