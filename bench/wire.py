"""The client that measures: RESP over a plain socket, as little work a reply as there can be.

Commands are encoded and the lengths of their replies learnt beforehand (`learn`), so that in
a measured loop the client only sends bytes and counts bytes. A client that parses replies would be
slower than the server and hide what is to be seen.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.wire import Failure, Wire, encode

__all__ = ["Batch", "Failure", "Load", "Wire", "encode", "joined", "learn", "percentile"]


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


def joined(batches: Sequence[Batch], depth: int) -> list[Batch]:
    """Batches of as many commands, made of batches of one; what is left over is left out."""
    return [
        Batch(b"".join(b.request for b in part), sum(b.reply_bytes for b in part), depth)
        for part in (batches[at : at + depth] for at in range(0, len(batches) - depth + 1, depth))
    ]


class Load:
    """Connections kept busy with batches: each always has one under way."""

    def __init__(self, port: int, connections: int):
        self.wires = [Wire(port, timeout=600) for _ in range(connections)]
        self.buffer = memoryview(bytearray(1 << 20))

    def close(self) -> None:
        for wire in self.wires:
            wire.close()

    def run(self, batches: Sequence[Batch], seconds: float) -> tuple[int, float]:
        """Commands answered, and in how many seconds."""
        commands, at, count, width = 0, 0, len(batches), len(self.wires)
        start = time.perf_counter()
        end = start + seconds
        while True:
            commands += self.round([batches[(at + n) % count] for n in range(width)])
            at += width
            now = time.perf_counter()
            if now >= end:
                return commands, now - start

    def round(self, batches: Sequence[Batch]) -> int:
        """A batch for each connection, all sent before the first reply is waited for; answers their commands."""
        commands = 0
        for wire, batch in zip(self.wires, batches):
            wire.socket.sendall(batch.request)
        for wire, batch in zip(self.wires, batches):
            swallow(wire.socket, self.buffer, batch.reply_bytes)
            commands += batch.commands
        return commands

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
