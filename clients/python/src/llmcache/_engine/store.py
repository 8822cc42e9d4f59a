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
from typing import TypeVar

from .terms import (
    Asked,
    Chunk,
    Counts,
    Found,
    Options,
    Payload,
    Told,
    found,
    length_of,
    match_commands,
    nothing,
    settings,
    slices,
    waited,
)
from .wire import Endpoint, Part, ProtocolError, Reply, ReplyError, Wire, encode, skip

log = logging.getLogger("llmcache.engine")

# Segments of this size are kept by the server without a copy and fill a size class of its allocator.
SEGMENT = (4 << 20) - 64
# Chunks of one page: names and headers stay small beside payloads.
_CHUNKS_AT_ONCE = 256
_BUSY_TRIES = 40

# Shorter pieces of a payload are joined, so that a chunk of many layers is no command of many arguments.
_PIECE_LEAST = 64 << 10

T = TypeVar("T")


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

    is_native = False

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

    slices = staticmethod(slices)

    # What is tried, and what becomes of failures.

    def _try(self, wire: Wire | None, work: Callable[[Wire], T], otherwise: T, what: str) -> T:
        """Does it, once more over a new connection where the old one failed; else `otherwise`."""
        if wire is None:
            return otherwise
        for attempt in (1, 2):
            is_new, is_connected = False, False
            try:
                if not self.is_up:
                    raise ConnectionError(f"{self.endpoint} did not answer lately")
                before = wire.epoch
                wire.connect()
                is_new, is_connected = wire.epoch != before, True
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
                if not is_connected and self.is_up:
                    self._down_until = time.monotonic() + self.options.pause
                # One that was made for this would do no better a second time.
                if not is_connected or is_new or attempt == 2 or isinstance(error, TimeoutError):
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

    def put(self, namespace: str, chunks: Sequence[Chunk], done: Told, ahead: bytes | None = None) -> None:
        """Stores chunks of one prompt in their order; `ahead` is the chunk before the first, where it is known."""
        pages = self._pages([length_of(data) for _, data in chunks])
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
        args = self._put_args(namespace, page, before)
        try:
            words = wire.call(args)
        except ReplyError as error:
            if error.word != "NOCACHE":
                raise
            # Somebody removed the namespace, or all: it is made again as it was wanted.
            with self._lock:
                self._made.discard(namespace)
            self._make(wire, namespace)
            words = wire.call(args)
        stored = [word in (b"STORED", b"EXISTS") for word in words]
        if not all(stored):
            why = next(word for word, is_stored in zip(words, stored, strict=True) if not is_stored)
            self._note_failure("a store", ReplyError(why.decode("utf-8", "replace")))
        with self._lock:
            self.counts.stored += sum(stored)
            self.counts.rejected += len(stored) - sum(stored)
        return stored

    def _put_args(self, namespace: str, page: Sequence[Chunk], before: bytes | None) -> list[Part | str | int]:
        names = [*([before] if before is not None else []), *(digest for digest, _ in page)]
        args: list[Part | str | int] = ["KVCHUNK.MPUT", namespace, "HASHES", len(names), *names, "LOOSE"]
        # Without the word it would be made with defaults.
        args += ["NOCREATE", "FROM", len(names) - len(page)]
        args += ["EX", self.options.ttl] if self.options.ttl else []
        args += ["PAYLOADS", len(page)]
        for _, data in page:
            segments = _segments(data)
            args += [len(segments), *segments]
        return args

    def _make(self, wire: Wire, namespace: str) -> None:
        """Makes a namespace with the settings wanted, once a connection of a new server."""
        if namespace in self._made:
            return
        args: list[Part | str | int] = ["KVCHUNK.CREATE", namespace, *settings(self.options)]
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
        asked: Asked,
        done: Callable[[list[list[Found]]], None],
        lease_ms: int | None = None,
    ) -> None:
        """For each prompt what each of its namespaces has of it, in one trip; found chunks are leased."""
        length = self.options.lease_ms if lease_ms is None else lease_ms

        def job(wire: Wire | None) -> None:
            told = self._try(
                wire, lambda wire: found(asked, _ask(wire, match_commands(asked, length))), None, "a look-up"
            )
            done(nothing(asked) if told is None else told)

        self._quick.submit(job)

    def release(self, namespace: str, lease: int | bytes) -> None:
        """Ends a lease; one that cannot be ended lapses."""
        self.ask(["KVCHUNK.RELEASE", namespace, lease], lambda _: None)

    # Loads.

    def load(self, namespace: str, chunks: Sequence[Chunk], done: Told) -> None:
        """Loads chunks into these buffers; true for each that came whole and fills its own."""
        pages = self._pages([length_of(into) for _, into in chunks])
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
            args += ["SPARSE", "MAXBYTES", sum(length_of(into) for _, into in rest) + 1]
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
        whole = length_of(into)
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

    def ask(self, args: Sequence[Part | str | int], done: Callable[[Reply], None]) -> None:
        """One command; None where it failed."""
        self._quick.submit(lambda wire: done(self._try(wire, lambda wire: wire.call(args), None, str(args[0]))))

    def call(self, args: Sequence[Part | str | int], wait: float | None = None) -> Reply:
        """One command, waited for; None where it failed."""
        return waited(self, args, wait)

    def _pages(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Runs of chunks that move together: enough of them for all connections, none too long."""
        most = max(1, min(self.options.page_bytes, sum(sizes) // max(1, self.options.connections)))
        most = max(most, min(self.options.page_bytes, 512 << 10))
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

    def __init__(self, chunks: int, pages: int, done: Told) -> None:
        self._told, self._left, self._done = [False] * chunks, pages, done
        self._lock = threading.Lock()

    def finish(self, first: int, told: Sequence[bool]) -> None:
        with self._lock:
            self._told[first : first + len(told)] = told
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._done(self._told)


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


def _ask(wire: Wire, commands: Sequence[Sequence[Part | str | int]]) -> list[Reply]:
    """Replies of commands that are sent in one trip; an error in one is raised when all are read."""
    wire.send([part for args in commands for part in encode(args)])
    replies = [wire.read() for _ in commands]
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise reply
    return replies
