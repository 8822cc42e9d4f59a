"""How long a server keeps another client waiting while a command of somebody else runs.

A PING each half millisecond beside the command. What the server's main thread itself took of a PING is bounded from
above twice: by the time that passed without the time that the thread was ready and had no core, and by the CPU time
that the process used meanwhile. The smaller counts, so that a busy machine does not.
"""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from dataclasses import dataclass

from .wire import Failure, Wire, encode

STEP_S = 0.0005
# PINGs after the reply: what a command leaves to be done after it counts too.
AFTER = 20
PING = encode(["PING"])
PONG = b"+PONG\r\n"


@dataclass(frozen=True)
class Stall:
    """The longest PING beside a command, in milliseconds, the 99th percentile of all, and the command's reply."""

    own_ms: float
    whole_ms: float
    p99_ms: float
    took_ms: float
    reply: object

    @property
    def refusal(self) -> str | None:
        return self.reply.text if isinstance(self.reply, Failure) else None


class Prober:
    """PINGs on a connection of its own."""

    def __init__(self, port: int, pid: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waits = os.open(f"/proc/{pid}/task/{pid}/schedstat", os.O_RDONLY)
        # The CPU clock of another process, in the numbering of Linux.
        self.clock = (~pid << 3) | 2

    def close(self) -> None:
        self.socket.close()
        os.close(self.waits)

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def ping(self) -> tuple[int, int]:
        """One PING in nanoseconds: what the server itself took at most, and all."""
        waited, used = self._waited(), time.clock_gettime_ns(self.clock)
        start = time.perf_counter_ns()
        self.socket.sendall(PING)
        assert self.socket.recv(64) == PONG
        took = time.perf_counter_ns() - start
        used, waited = time.clock_gettime_ns(self.clock) - used, self._waited() - waited
        return min(max(0, took - waited), used), took

    def _waited(self) -> int:
        return int(os.pread(self.waits, 64, 0).split()[1])

    def beside(self, wire: Wire, payload: bytes) -> Stall:
        """The longest PING while the command runs that these bytes are."""
        came = threading.Event()
        kept: dict = {}

        def run() -> None:
            start = time.perf_counter()
            try:
                wire.socket.sendall(payload + PING)
                # As bytes: taking a reply apart would keep the prober from its PINGs.
                parts, end = [], b""
                while not end.endswith(PONG):
                    parts.append(wire.socket.recv(1 << 20))
                    if not parts[-1]:
                        raise ConnectionError("the server closed the connection")
                    end = (end + parts[-1])[-len(PONG) :]
                kept["reply"] = b"".join(parts)
            except Exception as problem:  # noqa: BLE001 - shown by the test that waits
                kept["reply"] = problem
            kept["took"] = time.perf_counter() - start
            came.set()

        thread = threading.Thread(target=run)
        thread.start()
        owns, whole, after = [], 0, 0
        while after < AFTER:
            after += came.is_set()
            one, all_ = self.ping()
            owns.append(one)
            whole = max(whole, all_)
            time.sleep(STEP_S)
        thread.join()
        if isinstance(kept["reply"], Exception):
            raise kept["reply"]
        owns.sort()
        p99 = owns[len(owns) * 99 // 100]
        return Stall(owns[-1] / 1e6, whole / 1e6, p99 / 1e6, kept["took"] * 1e3, reply_of(kept["reply"]))


def reply_of(raw: bytes) -> object:
    """A reply that was read as bytes."""
    wire = Wire.__new__(Wire)
    wire.file, wire.bytes_read = io.BytesIO(raw), 0
    return wire.read()
