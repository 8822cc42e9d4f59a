"""Writing a message while it is read, and many readers over few connections, in an event loop.

`Follower` is for servers whose clients all read streams: one a process. Of all its readers of one message one
command waits at the server, and hands what comes to all of them. Where more messages are read than connections may
wait, the others are looked at together, in one trip every so many milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from .. import _replies as r
from .._clients import AsyncConnection
from .._flow import Argument, Awaiting, Command, Flow, Many
from .._session import POLL_SECONDS
from .._several import milliseconds
from .._streams import ENDED
from ..errors import StreamGone, is_outage
from ..types import Part

log = logging.getLogger("llmcache")

# A message that has a connection of its own gives it up after so long, so that each gets one in turn.
_TURN_SECONDS = 2.0
_BATCH = 256
_PART_BYTES = 1 << 20
_LINGER_MS = 20


class Writable(Protocol):
    """What a writer needs of a session."""

    key: Any

    @property
    def begin(self) -> Callable[..., Awaitable[tuple[int, bytes, int]]]: ...

    @property
    def chunk(self) -> Callable[..., Awaitable[tuple[int, bool]]]: ...

    @property
    def end(self) -> Callable[..., Awaitable[Any]]: ...


class StreamWriter:
    """A message that is being written. Ends with the `async with` block: `error` where an exception left it."""

    def __init__(
        self, session: Writable, role: str, *, id: str | None, lease: float, linger: float,
        meta: Mapping[str, Any] | None, takeover: bool,
    ):  # fmt: skip
        self._session, self._role, self._id = session, role, id
        self._lease, self._linger, self._meta, self._takeover = lease, linger, meta, takeover
        self._ended: dict[str, Any] = {}
        self._unsent = bytearray()
        self._half = ""
        self._lock = asyncio.Lock()
        self._failure: BaseException | None = None
        self._token = b""
        self._task: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self.seq = 0
        self.offset = 0
        self.stopped = False

    async def __aenter__(self) -> StreamWriter:
        self.seq, self._token, self.offset = await self._session.begin(
            self._role, id=self._id, lease=self._lease, meta=self._meta, takeover=self._takeover
        )
        self._sent_at = time.monotonic()
        self._task = asyncio.create_task(self._pump(), name="llmcache-stream")
        return self

    async def write(self, text: str | bytes) -> bool:
        """Adds text; False when the message was stopped from outside, and nothing more is wanted."""
        async with self._lock:
            self._raise()
            part, self._half = r.joined(self._half, text)
            self._unsent += part
            if not self._linger or time.monotonic() - self._sent_at >= self._linger:
                await self._send()
        return not self.stopped

    def finish(self, **details: Any) -> None:
        """What the end tells: tokens, meta, cache and prompt (see `Session.end`)."""
        self._ended = details

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        # Not cancelled while it sends: a command cut in the middle would be told again by nobody.
        async with self._lock:
            assert self._task is not None
            self._task.cancel()
            try:
                self._raise()
                self._unsent += r.raw(self._half)
                await self._send()
                await self._session.end(self.seq, self._token, error=kind is not None, **self._ended)
            except Exception as error:
                if kind is None:
                    raise
                # The exception that ended the block is what the caller has to hear.
                log.warning("llmcache: message %d of %s was not ended: %s", self.seq, self._session.key, error)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._token:
            raise RuntimeError("the message has not begun: write within the `with` block of its writer")

    async def _send(self, renew: bool = False) -> None:
        if self.stopped or not (self._unsent or renew):
            self._unsent.clear()
            return
        data = bytes(self._unsent)
        self.offset, self.stopped = await self._session.chunk(self.seq, self._token, self.offset, data)
        self._unsent.clear()
        self._sent_at = time.monotonic()

    async def _pump(self) -> None:
        pause = min(self._linger or self._lease / 3, self._lease / 3)
        while True:
            await asyncio.sleep(pause)
            async with self._lock:
                idle = time.monotonic() - self._sent_at
                try:
                    if self._unsent or idle >= self._lease / 3:
                        await self._send(renew=True)
                except Exception as error:
                    if not is_outage(error):
                        self._failure = error
                        return
                    log.warning("llmcache: message %d of %s: %s", self.seq, self._session.key, error)


class _Stream:
    """One message that is read: its text from `base` on, as far as it came."""

    def __init__(self, key: str, seq: int, base: int):
        self.key, self.seq = key, seq
        self.base = base
        self.text = bytearray()
        self.status = "open"
        self.failure: BaseException | None = None
        self.readers = 0
        self.grown = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    @property
    def end(self) -> int:
        return self.base + len(self.text)

    @property
    def over(self) -> bool:
        return self.failure is not None or self.status in ENDED or self.status == "abandoned"

    def args(self) -> list[Argument]:
        return ["SESSION.FOLLOW", self.key, self.seq, self.end, "MAX", _PART_BYTES]

    async def take(self, reply: Any) -> None:
        async with self.grown:
            if isinstance(reply, BaseException):
                if is_outage(reply):
                    return
                self.failure = reply
            elif reply is None:
                self.failure = StreamGone(f"the session {self.key!r} has no message {self.seq} any more")
            else:
                # Two may have asked, one that waited and one that looked: what is here already is passed over.
                end, data = int(reply[1]), reply[2]
                known = self.end - (end - len(data))
                if 0 <= known <= len(data):
                    self.text += data[known:]
                if self.end == end:
                    self.status = r.text(reply[0])
            self.grown.notify_all()


class Follower(Awaiting):
    """Reads messages for all readers of a process: `async for part in follower.follow("chat:7", id="a1")`."""

    def __init__(self, client: Any, *, connections: int = 8, poll: float = POLL_SECONDS):
        if connections < 2:
            raise ValueError("a follower takes at least 2 connections: one waits, one looks")
        # Not the client's shared connection: its waiters are counted apart from those of caches.
        self._connection = AsyncConnection(client, connections - 1)
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._looked: set[_Stream] = set()
        self._poller: asyncio.Task[None] | None = None
        self._poll = poll
        # Finding places and catching up share the one connection that the poller uses.
        self._one = asyncio.Lock()

    async def follow(
        self, key: str, seq: int | None = None, *, id: str | None = None, offset: int = 0
    ) -> AsyncIterator[Part]:
        """The parts of a message from an offset on, up to its end; the last one's status says how it ended."""
        if seq is None:
            seq = await self._place(key, id or "")
        stream = self._streams.get((key, seq))
        if stream is None or stream.failure is not None or stream.status == "abandoned":
            stream = self._streams[key, seq] = _Stream(key, seq, offset)
            stream.task = asyncio.create_task(self._feed(stream), name="llmcache-follow")
        stream.readers += 1
        try:
            await self._reach_back(stream, offset)
            while True:
                async with stream.grown:
                    while not (stream.over or stream.end > offset):
                        await stream.grown.wait()
                    data = bytes(stream.text[offset - stream.base :])
                    status = stream.status
                offset += len(data)
                if stream.failure is not None and not data:
                    raise stream.failure
                if data or status != "open":
                    yield Part(data, offset, status)
                if stream.over and stream.failure is None:
                    return
        finally:
            stream.readers -= 1
            if stream.readers == 0:
                self._forget(stream)

    def _forget(self, stream: _Stream) -> None:
        if self._streams.get((stream.key, stream.seq)) is stream:
            del self._streams[stream.key, stream.seq]
        self._looked.discard(stream)
        if stream.task is not None:
            stream.task.cancel()

    async def _feed(self, stream: _Stream) -> None:
        """Has a connection wait for the message while one is free, else leaves it to the poller."""
        while not stream.over:
            if not self._connection.take_slot():
                self._look(stream)
                while stream in self._looked and not stream.over:
                    await asyncio.sleep(_TURN_SECONDS)
                    if self._connection.take_slot():
                        self._connection.free_slot()
                        self._looked.discard(stream)
                continue
            try:
                end = time.monotonic() + _TURN_SECONDS
                while not stream.over and (time.monotonic() < end or not self._looked):
                    block = milliseconds(self._connection.uncut(_TURN_SECONDS))
                    args = [*stream.args(), "BLOCK", block, "LINGER", min(_LINGER_MS, block)]
                    try:
                        reply: Any = await self._run(_command(args))
                    except Exception as error:
                        reply = error
                        await asyncio.sleep(self._poll if is_outage(error) else 0)
                    await stream.take(reply)
            finally:
                self._connection.free_slot()
            # Its turn is over: whoever waits for a connection comes first.
            await asyncio.sleep(0)

    def _look(self, stream: _Stream) -> None:
        self._looked.add(stream)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._polls(), name="llmcache-poll")

    async def _polls(self) -> None:
        while self._looked:
            await asyncio.sleep(self._poll)
            streams = [stream for stream in self._looked if not stream.over]
            for at in range(0, len(streams), _BATCH):
                batch = streams[at : at + _BATCH]
                async with self._one:
                    try:
                        replies: list[Any] = await self._run(_many([stream.args() for stream in batch]))
                    except Exception as error:
                        replies = [error] * len(batch)
                for stream, reply in zip(batch, replies, strict=True):
                    grew = isinstance(reply, Exception) or reply is None or reply[2] or r.text(reply[0]) != "open"
                    if grew:
                        await stream.take(reply)
            self._looked = {stream for stream in self._looked if not stream.over}

    async def _place(self, key: str, id: str) -> int:
        async with self._one:
            reply = await self._connection.execute(("SESSION.GET", key, "ID", r.raw(id)))
        if reply is None:
            raise StreamGone(f"the session {key!r} has no message {id!r}")
        return int(r.mapping(reply)["seq"])

    async def _reach_back(self, stream: _Stream, offset: int) -> None:
        """Fetches what was written before the part that this process has: once, for all who come so late."""
        async with self._one:
            while offset < stream.base:
                missing = bytearray()
                while len(missing) < stream.base - offset:
                    size = min(stream.base - offset - len(missing), _PART_BYTES)
                    args = ("SESSION.FOLLOW", stream.key, stream.seq, offset + len(missing), "MAX", size)
                    reply = await self._connection.execute(args)
                    if reply is None or not reply[2]:
                        raise StreamGone(f"the session {stream.key!r} has no message {stream.seq} any more")
                    missing += reply[2]
                stream.text[:0] = missing
                stream.base = offset

    async def aclose(self) -> None:
        """Ends all readers and closes the connections it opened."""
        for stream in list(self._streams.values()):
            self._forget(stream)
        if self._poller is not None:
            self._poller.cancel()
        await self._connection.close()


def _command(args: list[Argument]) -> Flow[Any]:
    return (yield Command(args, waits=True))


def _many(commands: list[list[Argument]]) -> Flow[list[Any]]:
    return list((yield Many(commands)))
