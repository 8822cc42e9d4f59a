"""The client that measures: RESP over a plain socket, as little work a reply as there can be.

Commands are encoded and the lengths of their replies learnt beforehand (`Batch.learn`), so that in
a measured loop the client only sends bytes and counts bytes. A client that parses replies would be
slower than the server and hide what is to be seen.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Argument = bytes | str | int | float


@dataclass(frozen=True)
class Failure:
    """An error reply."""

    text: str


def encode(arguments: Sequence[Argument]) -> bytes:
    """One command as the protocol has it."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts += (b"$%d\r\n" % len(raw), raw, b"\r\n")
    return b"".join(parts)


class Wire:
    """One connection, RESP2."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        self.bytes_read = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __call__(self, *arguments: Argument):
        self.socket.sendall(encode(arguments))
        return self.read()

    def pipeline(self, commands: Iterable[bytes], depth: int = 200) -> list:
        """Sends encoded commands, `depth` at a time, and answers the replies."""
        replies: list = []
        waiting: list[bytes] = []
        for command in commands:
            waiting.append(command)
            if len(waiting) == depth:
                replies += self.flush(waiting)
                waiting.clear()
        return replies + self.flush(waiting)

    def flush(self, commands: Sequence[bytes]) -> list:
        self.socket.sendall(b"".join(commands))
        return [self.read() for _ in commands]

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        self.bytes_read += len(line)
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                return Failure(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                if rest == b"-1":
                    return None
                self.bytes_read += int(rest) + 2
                return self.file.read(int(rest) + 2)[:-2]
            case b"*":
                return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line!r}")


@dataclass(frozen=True)
class Batch:
    """Commands sent at once, and how many bytes answer them."""

    request: bytes
    reply_bytes: int
    commands: int


def learn(wire: Wire, commands: Sequence[bytes], depth: int, check: Callable | None = None) -> list[Batch]:
    """Runs all commands once, checks each reply, and makes batches of `depth` of them."""
    batches = []
    for start in range(0, len(commands) - depth + 1, depth):
        part = commands[start : start + depth]
        before = wire.bytes_read
        replies = wire.flush(part)
        for offset, reply in enumerate(replies):
            if isinstance(reply, Failure):
                raise SystemExit(f"bench: the server answered {reply.text}")
            if check is not None:
                check(start + offset, reply)
        batches.append(Batch(b"".join(part), wire.bytes_read - before, depth))
    return batches


class Load:
    """Connections kept busy with batches: each always has one under way."""

    def __init__(self, port: int, connections: int):
        self.wires = [Wire(port) for _ in range(connections)]
        self.buffer = memoryview(bytearray(1 << 20))

    def close(self) -> None:
        for wire in self.wires:
            wire.close()

    def run(self, batches: Sequence[Batch], seconds: float) -> tuple[int, float]:
        """Commands answered, and in how many seconds."""
        sockets = [wire.socket for wire in self.wires]
        buffer, commands, at, count = self.buffer, 0, 0, len(batches)
        start = time.perf_counter()
        end = start + seconds
        while True:
            # A round: every connection is sent its batch before the first reply is waited for.
            under_way = []
            for one in sockets:
                batch = batches[at % count]
                at += 1
                one.sendall(batch.request)
                under_way.append(batch)
            for one, batch in zip(sockets, under_way):
                swallow(one, buffer, batch.reply_bytes)
                commands += batch.commands
            now = time.perf_counter()
            if now >= end:
                return commands, now - start

    def latencies(self, batches: Sequence[Batch], count: int) -> list[float]:
        """Microseconds of each of `count` batches, one at a time on one connection."""
        one, buffer, clock = self.wires[0].socket, self.buffer, time.perf_counter_ns
        taken = []
        for at in range(count):
            batch = batches[at % len(batches)]
            start = clock()
            one.sendall(batch.request)
            swallow(one, buffer, batch.reply_bytes)
            taken.append((clock() - start) / 1_000)
        return taken


def swallow(one: socket.socket, buffer: memoryview, left: int) -> None:
    """Takes in that many bytes; a server that is gone ends the benchmark."""
    while left > 0:
        got = one.recv_into(buffer, min(left, len(buffer)))
        if got == 0:
            raise ConnectionError("the server closed the connection")
        left -= got


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
