"""Traffic at the speed of the servers: what `traffic` does, in pipelines of hundreds, by the hundred million.

Making a command takes longer than serving it. So steps are kept in a pool, encoded, and sent again and again in an
order that never repeats; each is replaced after a while, by one that knows the names that replies showed since. The same
words thus meet containers, entries and leases in ever other states. Every reply is read; a mark behind each batch shows that
there were as many as commands. Comparisons are those of a round of traffic.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from harness.server import Server, settle_below, settle_memory
from harness.wire import Wire, encode

from .pairs import BACKLOG_LEAST_BYTES, LATE_SECONDS, MEMORY_KEPT_BYTES, OPTIONS, REPLY_SECONDS, Fault, Round
from .traffic import WAITS, Words

POOL_STEPS = 6_000
STEPS_A_BATCH = 60
# Of the pool, for each batch: a step is sent some sixty times.
RENEWED_A_BATCH = 1
# One of so many replies is looked into for names.
LEARNT_ONE_IN = 20
COMMANDS_A_CHECKPOINT = 200_000
# One of so many steps with these words is taken: they hold up the pipeline, take a hundred times as long as others, or
# leave nothing for others to work on.
SELDOM = {"INFO": 20, "BGREWRITEAOF": 40, "FLUSHALL": 10, "FLUSHDB": 10, **dict.fromkeys(WAITS, 40)}

MIB = 1 << 20


@dataclass(frozen=True)
class Step:
    """What one connection sends at once."""

    commands: list[Words]
    encoded: bytes

    @classmethod
    def of(cls, commands: list[Words]) -> Step:
        return cls(commands, b"".join(encode(words) for words in commands))

    @property
    def one_in(self) -> int:
        """Of how many such steps one is taken."""
        return max(SELDOM.get(word, 1) for words in self.commands for word in words)


# Before one of so many batches, a limit of memory that traffic set ends, or it would refuse most of what follows.
RELIEF = Step.of([["CONFIG", "SET", "maxmemory", 0], ["CONFIG", "SET", "llmcache.auto-create", "yes"]])
RELIEF_ONE_IN = 6


@dataclass
class Flood(Round):
    """One seed on one server binary."""

    comparisons: int = 0
    pool: list[Step] = field(default_factory=list)
    # Since the last comparison.
    sent: list[tuple[int, Step]] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, int]:
        return {"commands": self.commands, "comparisons": self.comparisons}

    def report(self) -> str:
        """What was sent since the last comparison, then what that comparison itself sent."""
        self.log = [(at, words) for at, step in self.sent for words in step.commands] + self.log
        return super().report()

    def checkpoint(self) -> None:
        super().checkpoint()
        self.comparisons += 1
        self.sent.clear()
        self.log.clear()

    def _phase(self) -> None:
        end = self.commands + COMMANDS_A_CHECKPOINT
        with self.connected() as wires:
            try:
                while self.commands < end:
                    self._batches(wires)
            except TimeoutError as late:
                raise Fault(f"no reply within {REPLY_SECONDS:g} s to {self._awaited()}") from late
            except ConnectionError as gone:
                raise Fault(f"connection lost ({gone})") from gone

    def _batches(self, wires: Sequence[Wire]) -> None:
        """One on each connection, in any order; the server works on one while the replies to another are read."""
        order = self.traffic.rng.sample(range(len(wires)), len(wires))
        batches = [(wires[at], *self._send_batch(at, wires[at])) for at in order]
        for wire, steps, mark in batches:
            self._read_batch(wire, steps, mark)

    def _send_batch(self, at: int, wire: Wire) -> tuple[list[Step], bytes]:
        steps = self._steps()
        if not self.traffic.rng.randrange(RELIEF_ONE_IN):
            steps.insert(0, RELIEF)
        self.sent += [(at, step) for step in steps]
        mark = b"mark %d" % len(self.sent)
        wire.socket.sendall(b"".join([*(step.encoded for step in steps), encode(["ECHO", mark])]))
        return steps, mark

    def _read_batch(self, wire: Wire, steps: Sequence[Step], mark: bytes) -> None:
        for step in steps:
            for words in step.commands:
                reply = wire.read()
                if not self.traffic.rng.randrange(LEARNT_ONE_IN):
                    self.traffic.learn(words, reply)
            self.commands += len(step.commands)
        if (last := wire.read()) != mark:
            raise Fault(f"more or fewer replies than commands: {last!r} where {mark!r} belongs")

    def _steps(self) -> list[Step]:
        """Some of the pool, a part of which is renewed."""
        rng = self.traffic.rng
        while len(self.pool) < POOL_STEPS:
            self.pool.append(self._step())
        for _ in range(RENEWED_A_BATCH):
            self.pool[rng.randrange(POOL_STEPS)] = self._step()
        return rng.choices(self.pool, k=STEPS_A_BATCH)

    def _step(self) -> Step:
        while True:
            step = Step.of(self.traffic.step())
            if not self.traffic.rng.randrange(step.one_in):
                return step


@dataclass
class Soak(Flood):
    """Hours of it on the same two processes, whose memory must come back whenever all keys are removed."""

    WAYS: ClassVar[tuple[str, ...]] = ("none",)
    # As (hours since the beginning, bytes that the primary uses, bytes that it and the replica have of the system).
    memory: list[tuple[float, int, int, int]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    COMPARISONS_A_FLUSH: ClassVar[int] = 5

    @property
    def figures(self) -> dict[str, int]:
        minutes = (time.monotonic() - self.began) / 60
        return {**super().figures, "minutes": round(minutes), **self._memory_figures()}

    def _memory_figures(self) -> dict[str, int]:
        if not self.memory:
            return {}
        used, ours, theirs = (sorted(column) for column in list(zip(*self.memory))[1:])
        return {
            "times emptied": len(self.memory),
            "KiB used then at least": used[0] >> 10,
            "at most": used[-1] >> 10,
            "MiB resident at most, primary": ours[-1] // MIB,
            "replica": theirs[-1] // MIB,
        }

    def checkpoint(self) -> None:
        super().checkpoint()
        if self.comparisons % self.COMPARISONS_A_FLUSH == 0:
            self._empty()

    def _empty(self) -> None:
        """Removes all keys and notes what memory is left in use: never more than after the first time."""
        self._control("FLUSHALL")
        # The backlog of replication is no leak, nor are histograms of commands that were called for the first time.
        self._control("CONFIG", "SET", "repl-backlog-size", BACKLOG_LEAST_BYTES)
        self._control("CONFIG", "RESETSTAT")
        self.pair.catch_up(LATE_SECONDS)
        primary, replica = self.pair.primary, self.pair.replica
        first = self.memory[0][1] if self.memory else None
        used = settle_memory(primary, LATE_SECONDS) if first is None else settle_below(primary, first + MEMORY_KEPT_BYTES, LATE_SECONDS)
        self._control("CONFIG", "SET", "repl-backlog-size", OPTIONS["repl_backlog_size"])
        hours = (time.monotonic() - self.began) / 3_600
        self.memory.append((hours, used, resident(primary), resident(replica)))
        print(f"soak seed {self.seed}: {hours:.2f} h, {self.commands} commands, {used >> 10} KiB in use when empty", flush=True)
        if first is not None and used > first + MEMORY_KEPT_BYTES:
            raise Fault(f"{used - first} bytes more are in use than when the server was first emptied")


def resident(server: Server) -> int:
    """Bytes that the process has of the system."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10
