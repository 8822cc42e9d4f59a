"""A disk that is full now and then: what was acknowledged is there when it has room again.

The server's files may not grow beyond a bound (RLIMIT_FSIZE, as a full disk to whoever writes), which is taken away
and set again under load. With `appendfsync everysec` the server refuses writes meanwhile and goes on afterwards; with
`always` it ends, and starts again on what it has.
"""

from __future__ import annotations

import random
import resource
import shlex
import time
from pathlib import Path

from harness.server import Fleet, Server
from harness.waiting import wait_until
from harness.wire import Failure

from .kills import KINDS, LEAST_CHANGES, NUMBERS, Kills, Lost, Promise

FSYNCS = ("everysec", "always")
# How much the AOF may grow before the disk is full.
ROOM_BYTES = (0, 1, 100, 2_000, 50_000)
# No rewrite of the AOF: a server that begins one while it holds what it could not write repeats that in the new AOF,
# whatever the commands are (see docs/reliability.md).
BESIDE = ("nothing", "BGSAVE")
CHANGES_BETWEEN = (1, 200)
FULL_SECONDS = 0.3
# For what comes within a second, on a machine that stalls.
ENDS_SECONDS = 120
# Most bytes of a file where there is room.
ENOUGH = 1 << 33


class Disks(Kills):
    """Cycles of one server; a kill is what it does to itself."""

    def __init__(self, fleet: Fleet, seed: int, fsync: str | None = None):
        super().__init__(fleet, seed)
        self.fsync = fsync or random.Random(seed).choice(FSYNCS)
        self.refused = 0
        # A write past the bound is an error of the write, as on a full disk, and no signal.
        program = fleet.folder / "redis-server"
        fleet.folder.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {shlex.quote(str(fleet.binary))} \"$@\"\n")
        program.chmod(0o755)
        self.fleet = Fleet(program, fleet.module, fleet.folder / "servers")
        self.outer = fleet

    @property
    def figures(self) -> dict[str, int]:
        return {"full disks": self.cycles, "changes beside them": self.changes, "changes refused": self.refused}

    def run(self, seconds: float) -> None:
        self.rng = random.Random(self.seed)
        self.promises = {(kind.name, n): Promise() for kind in KINDS for n in range(NUMBERS)}
        options = {"appendonly": "yes", "appendfsync": self.fsync, "auto_aof_rewrite_percentage": 0}
        server = self.fleet.launch(**options)
        self.outer.servers += self.fleet.servers
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.changes <= LEAST_CHANGES:
            self.fill(server, beside=self.rng.choice(BESIDE))
            self.cycles += 1
        # What is there is not only so in memory.
        server.restart()
        self.verify(server, f"a full disk ({self.fsync})")
        server.check_log()

    def fill(self, server: Server, beside: str) -> None:
        with server.wire() as wire:
            for _ in range(self.rng.randint(*CHANGES_BETWEEN)):
                self._change(wire)
        largest = max((path.stat().st_size for path in Path(server.folder).glob("appendonlydir/*.aof")), default=0)
        _bound(server, largest + self.rng.choice(ROOM_BYTES))
        try:
            with server.wire() as wire:
                if beside != "nothing":
                    wire(beside)
                full = time.monotonic() + FULL_SECONDS
                while time.monotonic() < full:
                    self.attempt(wire)
        except OSError:
            # Under `always` it ends itself when it cannot keep its promise.
            server.process.wait(ENDS_SECONDS)
            server.kill9()
            server.start()
        else:
            _bound(server, ENOUGH)
            wait_until(lambda: _writes(server), "writes are taken again", ENDS_SECONDS, step=0.05)
        self.verify(server, f"a full disk beside {beside}")

    def attempt(self, wire) -> None:
        """A change that may be refused; then nothing has changed."""
        before = self.changes
        try:
            self._change(wire)
        except Lost as refusal:
            if "MISCONF" not in str(refusal):
                raise
            self.refused += 1
            self.changes = before
            time.sleep(0.005)


def _bound(server: Server, most: int) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, ENOUGH))


def _writes(server: Server) -> bool:
    with server.wire() as wire:
        reply = wire("SET", "probe", 1)
    return not isinstance(reply, Failure)
