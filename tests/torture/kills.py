"""`kill -9` again and again: what was acknowledged is there after the restart, what was removed stays away.

One writer, `appendfsync always`, entries without TTL, no limit of memory: so a reply is a promise. A command
whose reply did not come may have happened or not. Kills fall at any moment, also in BGSAVE, in rewrites of
the AOF, and while a replica synchronises.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.server import Fleet, Server
from harness.wire import Argument as Word
from harness.wire import Failure, Wire

OPTIONS = {"appendonly": "yes", "appendfsync": "always", "auto_aof_rewrite_percentage": 0}
NUMBERS = 40
# A round is not over before, however slow the disk.
LEAST_CHANGES = 100
SECONDS_BEFORE_A_KILL = (0.02, 0.6)
VECTOR = ("VALUES", 2)


class Lost(AssertionError):
    """Something acknowledged is not there, or something removed is."""


@dataclass(frozen=True)
class Kind:
    """How one kind of data is stored, removed and read; `version` makes contents differ."""

    name: str
    store: Callable[[int, int], list[Word]]
    remove: Callable[[int], list[Word]]
    read: Callable[[int], list[Word]]

    def shown(self, reply: object) -> bytes | None:
        """The version in a reply, as text; None where there is nothing."""
        if isinstance(reply, Failure):
            raise Lost(f"{self.name}: {reply.text}")
        return _version(reply)


def _version(reply: object) -> bytes | None:
    if isinstance(reply, bytes):
        return reply[1:] if reply.startswith(b"v") and reply[1:].isdigit() else None
    if isinstance(reply, (list, tuple)):
        for part in reply:
            if (found := _version(part)) is not None:
                return found
    return None


def _hash(number: int) -> str:
    return f"{number:064x}"


KINDS = (
    Kind(
        "answers",
        lambda n, v: ["LLMCACHE.SETSEM", "faq", "PROMPT", f"q{n}", "ID", f"id:{n}", "RESPONSE", f"v{v}", *VECTOR, n + 1, v % 7],
        lambda n: ["LLMCACHE.DEL", "faq", f"id:{n}"],
        lambda n: ["LLMCACHE.ENTRY", "faq", f"id:{n}"],
    ),
    Kind(
        "documents",
        lambda n, v: ["RAG.ADD", "docs", f"d{n}", *VECTOR, n + 1, 1, "TEXT", f"v{v}"],
        lambda n: ["RAG.DEL", "docs", f"d{n}"],
        lambda n: ["RAG.GET", "docs", f"d{n}"],
    ),
    Kind(
        "messages",
        lambda n, v: ["SESSION.APPEND", "chat", "UPSERT", "MSG", "user", f"v{v}", "ID", f"m{n}"],
        lambda n: ["SESSION.DEL", "chat", "ID", f"m{n}"],
        lambda n: ["SESSION.GET", "chat", "ID", f"m{n}"],
    ),
    Kind(
        "chunks",
        lambda n, v: ["KVCHUNK.PUT", "kv", "DIGEST", _hash(n), "PAYLOAD", 1, f"v{v}"],
        lambda n: ["KVCHUNK.DEL", "kv", _hash(n)],
        lambda n: ["KVCHUNK.GET", "kv", _hash(n)],
    ),
)


@dataclass
class Promise:
    """What must be there: the version, or None for nothing; and what else may be, because its reply did not come."""

    version: bytes | None = None
    perhaps: list[bytes | None] = field(default_factory=list)


@dataclass
class Kills:
    """Cycles on one server."""

    fleet: Fleet
    seed: int
    changes: int = 0
    cycles: int = 0

    def run(self, seconds: float) -> None:
        """Cycles until the time is over; raises `Lost` at the first broken promise."""
        self.rng = random.Random(self.seed)
        self.promises = {(kind.name, n): Promise() for kind in KINDS for n in range(NUMBERS)}
        server = self.fleet.launch(**OPTIONS)
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.changes <= LEAST_CHANGES:
            self._cycle(server)
            self.cycles += 1
        server.check_log()

    @property
    def figures(self) -> dict[str, int]:
        return {"kills": self.cycles, "acknowledged changes": self.changes}

    def report(self) -> str:
        return f"seed {self.seed}"

    def _cycle(self, server: Server) -> None:
        beside = self.rng.choice(("nothing", "BGSAVE", "BGREWRITEAOF", "replica"))
        if beside in ("BGSAVE", "BGREWRITEAOF"):
            with server.wire() as wire:
                wire(beside)
        replica = self.fleet.launch(replicaof=["127.0.0.1", server.port]) if beside == "replica" else None
        killer = threading.Timer(self.rng.uniform(*SECONDS_BEFORE_A_KILL), server.process.kill)
        killer.start()
        try:
            with server.wire() as wire, contextlib.suppress(OSError):
                while True:
                    self._change(wire)
        except OSError:
            pass  # killed before the connection was there
        killer.join()
        server.kill9()
        if replica:
            replica.stop()
            self.fleet.servers.remove(replica)
        server.start()
        self.verify(server, beside)

    def _change(self, wire: Wire) -> None:
        """One store or removal, and what its reply promises."""
        kind = self.rng.choice(KINDS)
        number = self.rng.randrange(NUMBERS)
        promise = self.promises[kind.name, number]
        removes = self.rng.random() < 0.25
        self.changes += 1
        wanted = None if removes else str(self.changes).encode()
        promise.perhaps.append(wanted)
        words = kind.remove(number) if removes else kind.store(number, self.changes)
        reply = wire(*words)
        if isinstance(reply, Failure):
            raise Lost(f"{words} was refused: {reply.text}")
        promise.version, promise.perhaps = wanted, []

    def verify(self, server: Server, beside: str) -> None:
        with server.wire() as wire:
            for kind in KINDS:
                for number in range(NUMBERS):
                    promise = self.promises[kind.name, number]
                    there = kind.shown(wire(*kind.read(number)))
                    if there != promise.version and there not in promise.perhaps:
                        raise Lost(
                            f"{kind.name} {number} after a kill beside {beside}: {there!r} is there, "
                            f"{promise.version!r} was acknowledged, {promise.perhaps!r} was not"
                        )
                    promise.version, promise.perhaps = there, []
