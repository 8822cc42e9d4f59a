"""A round: one seed's traffic to a primary with a replica and an AOF, compared at every checkpoint.

What is held against the servers: they live, their logs tell of no panic, each command has one reply, the
replica holds what the primary holds, and a reload, an AOF and a promoted replica hold it too; memory is
back where it was when all is removed.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from harness.persistence import wait_for_rewrite
from harness.replication import Pair
from harness.server import Fleet, Server, settle_below, settle_memory
from harness.waiting import wait_until
from harness.wire import Failure, Wire

from . import ledger
from .grammar import read
from .returns import FAMILIES, Bereft, bereave
from .traffic import Traffic, Words

DATABASES = 3
CONNECTIONS = ((0, 2), (0, 3), (1, 2), (2, 3))
STEPS_A_CHECKPOINT = 250
# For what comes at once where nothing is wrong, on a machine that stalls for seconds: only a fault takes so long.
REPLY_SECONDS = 60.0
LATE_SECONDS = 120.0
EQUAL_SECONDS = 30.0
# For how many seconds servers keep entries without a container: while there is traffic, and while what is there is compared.
ORPHANS_GO_S, ORPHANS_STAY_S = 1, 86_400
OPTIONS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "llmcache__check_work": "yes",
    "llmcache__sweep_interval_ms": 20,
    # So that what lost its container is gone, and no longer counted, before it is looked for; see `_keep_orphans`.
    "llmcache__orphan_grace": ORPHANS_GO_S,
    "repl_backlog_size": "32mb",
    # The traffic has rewrites of its own; one that begins by itself refuses them.
    "auto_aof_rewrite_percentage": 0,
}
BACKLOG_LEAST_BYTES = 16_384
# More than allocators and the server's own tables keep of a round.
MEMORY_KEPT_BYTES = 6_000_000
# Containers of each type with something in them, made and removed this often at the end of a round.
CHURNED = 1_000
CHURN_KEPT_BYTES = 2_000_000
TEXT = "a text of some length, " * 200
CHURN: tuple[Words, ...] = (
    ["LLMCACHE.SETSEM", "c", "PROMPT", "p", "RESPONSE", TEXT],
    ["EMBCACHE.SET", "e", "MODEL", "m", "TEXT", TEXT, "VALUES", 2, 1, 0],
    ["RAG.CREATE", "r", "DIM", 2],
    ["RAG.ADD", "r", "d", "VALUES", 2, 1, 0, "TEXT", TEXT],
    ["SESSION.APPEND", "s", "MSG", "user", TEXT],
)


class Fault(AssertionError):
    """Something that must not be."""


def _scanned(wire: Wire) -> list[bytes]:
    """All names of the database. Unlike KEYS of every server, SCAN removes what is due, so that what hangs on it goes too."""
    cursor, names = b"0", set()
    while True:
        cursor, some = wire("SCAN", cursor, "COUNT", 1_000)
        names.update(some)
        if cursor == b"0":
            return sorted(names)


@dataclass
class Snapshot:
    """Every key's digest and deadline, by database and name."""

    keys: dict[tuple[int, bytes], tuple[str, int]]
    # What the digests stand for, so that a difference can be looked into.
    dumps: dict[tuple[int, bytes], object] = field(default_factory=dict)

    @classmethod
    def of(cls, server: Server) -> Snapshot:
        keys, dumps = {}, {}
        with server.wire() as wire:
            for database in range(DATABASES):
                wire("SELECT", database)
                names = _scanned(wire)
                digests = wire.pipeline(["DEBUG", "DIGEST-VALUE", name] for name in names)
                deadlines = wire.pipeline(["PEXPIRETIME", name] for name in names)
                for name, digest, deadline in zip(names, digests, deadlines):
                    # A key that expired between two of these commands is no key.
                    if isinstance(digest, list) and deadline != -2:
                        keys[database, name] = (str(digest[0]), deadline)
                        dumps[database, name] = wire("DUMP", name)
        return cls(keys, dumps)

    @classmethod
    def settled(cls, server: Server) -> Snapshot:
        """The same once nothing changes any more: entries without a container are removed in the background."""
        seen: list[Snapshot] = []

        def still() -> bool:
            seen.append(cls.of(server))
            return len(seen) > 1 and not seen[-2].differences(seen[-1])

        wait_until(still, "the keys stay as they are", LATE_SECONDS, step=0.3)
        return seen[-1]

    def is_due(self, now: int) -> bool:
        """Whether the time of any key has come."""
        return any(0 < at <= now for _, at in self.keys.values())

    def differences(self, later: Snapshot, now: int | None = None) -> list[str]:
        """What `later` has otherwise, but for keys that were due by now."""
        now = int(time.time() * 1_000) if now is None else now
        due = {key for keys in (self.keys, later.keys) for key, (_, at) in keys.items() if 0 < at <= now}
        # The entries of a container that was due go after it, whatever it was called when they came.
        may_follow = {database for database, name in due if not name.startswith(b"{")}
        found = []
        for key in sorted(self.keys.keys() | later.keys.keys()):
            before, after = self.keys.get(key), later.keys.get(key)
            follows = after is None and key[1].startswith(b"{") and key[0] in may_follow
            if before != after and key not in due and not follows:
                found.append(f"{key}: {before} / {after}, as dumps {self.dumps.get(key)!r} / {later.dumps.get(key)!r}")
        return found


@dataclass
class Round:
    """One seed on one server binary."""

    # How many of the steps have containers go and come back, and how many are looked for before servers start anew, to be
    # dropped while what was in them stays.
    RETURN_SHARE: ClassVar[float] = 0
    BEREFT_LOOKS: ClassVar[int] = 0
    # How servers start anew after a comparison.
    WAYS: ClassVar[tuple[str, ...]] = ("none", "reload", "aof", "rewrite", "promote", "replica")

    fleet: Fleet
    seed: int
    commands: int = 0
    returns: int = 0
    log: list[tuple[int, Words]] = field(default_factory=list)
    # Replies by command: all, and those that are no errors.
    told: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> None:
        """Goes on until the time is over; raises `Fault` or what a server said when something is wrong."""
        end = time.monotonic() + seconds
        primary = self.fleet.launch(**OPTIONS)
        replica = self.fleet.launch(replicaof=["127.0.0.1", primary.port], **OPTIONS)
        self.pair = Pair(primary, replica)
        self.pair.catch_up(LATE_SECONDS)
        with primary.wire() as wire:
            self.traffic = Traffic(self.seed, read(wire), self.RETURN_SHARE)
        self._warm_up()
        self.pair.catch_up(LATE_SECONDS)
        empty = settle_memory(self.pair.primary, LATE_SECONDS)
        while time.monotonic() < end:
            self._phase()
            self.checkpoint()
        self._emptied(empty)

    @property
    def figures(self) -> dict[str, int]:
        return {"commands": self.commands, "containers dropped and restored": self.returns}

    def now_ms(self) -> int:
        """The clock that deadlines go by."""
        return int(time.time() * 1_000)

    def report(self) -> str:
        return "commands:\n" + "\n".join(f"{at} {words!r}" for at, words in self.log)

    def _warm_up(self) -> None:
        """One phase, removed again: what the server allocates once is no leak."""
        self._phase()
        self.checkpoint()
        self._control("FLUSHALL")

    @contextlib.contextmanager
    def connected(self) -> Iterator[list[Wire]]:
        """Its connections to the primary, each in its database."""
        with contextlib.ExitStack() as stack:
            wires = []
            for database, resp in CONNECTIONS:
                wire = stack.enter_context(self.pair.primary.wire(resp, timeout=REPLY_SECONDS))
                wire("SELECT", database)
                wires.append(wire)
            yield wires

    def _phase(self) -> None:
        with self.connected() as wires:
            for _ in range(STEPS_A_CHECKPOINT):
                at = self.traffic.rng.randrange(len(wires))
                self._send(at, wires[at], self.traffic.step())

    def _send(self, at: int, wire: Wire, step: list[Words]) -> list:
        """Sends a step and a mark behind it: one reply each, or the framing is broken. Returns the replies to the step."""
        self.log += [(at, words) for words in step]
        self.commands += len(step)
        mark = f"mark {self.commands}".encode()
        try:
            replies = wire.pipeline([*step, ["ECHO", mark]])
        except TimeoutError as late:
            raise Fault(f"no reply within {REPLY_SECONDS:g} s to {self._awaited()}, one of {step!r}") from late
        except ConnectionError as gone:
            raise Fault(f"connection lost ({gone}) by {step!r}") from gone
        if replies[-1] != mark:
            raise Fault(f"more or fewer replies than commands for {step!r}: {replies!r}")
        for words, reply in zip(step, replies):
            self.traffic.learn(words, reply)
            name = str(words[0])
            self.told[name] += 1
            self.taken[name] += not isinstance(reply, Failure)
        with contextlib.suppress(IndexError):
            if step[-1][0] == "EXEC":
                self.traffic.values.learn(replies[-2])
        return replies[:-1]

    def _awaited(self) -> str:
        """The commands in which clients wait at the moment."""
        listed = self._control("CLIENT", "LIST").decode()
        clients = [dict(word.partition("=")[::2] for word in line.split()) for line in listed.splitlines()]
        return ", ".join(of["cmd"] for of in clients if "b" in of["flags"]) or "a command in which no client waits"

    def _control(self, *words) -> object:
        with self.pair.primary.wire() as wire:
            return wire(*words)

    def checkpoint(self) -> None:
        """Quiet, then every comparison, then one of the ways to start anew."""
        primary = self.pair.primary
        self._control("CONFIG", "SET", "maxmemory", 0)
        self._control("CONFIG", "SET", "maxmemory-policy", "noeviction")
        wait_for_rewrite(primary.client(), LATE_SECONDS)
        self._equal()
        self._counted()
        self._keep_orphans(ORPHANS_STAY_S)
        bereft = self._bereave()
        before = Snapshot.settled(primary)
        self._kept(bereft, before, "what was removed went")
        way = self.traffic.rng.choice(self.WAYS)
        match way:
            case "reload":
                with primary.wire(timeout=60) as wire:
                    if isinstance(told := wire("DEBUG", "RELOAD"), Failure):
                        raise Fault(f"DEBUG RELOAD: {told.text}")
                # What was due is dropped when it is read again, and no replica is told: no module has a say in that.
                if before.is_due(self.now_ms()):
                    self.pair.replica.restart()
            case "aof":
                primary.restart()
            case "rewrite":
                # Without a preamble it is made of commands.
                self._control("CONFIG", "SET", "aof-use-rdb-preamble", self.traffic.rng.choice(("yes", "no")))
                primary.client().bgrewriteaof()
                wait_for_rewrite(primary.client(), LATE_SECONDS)
                primary.restart()
            case "promote":
                self._promote()
            case "replica":
                self.pair.replica.restart()
        after = Snapshot.of(self.pair.primary)
        self._kept(bereft, after, way)
        self._same(before, after, way)
        self._return(bereft)
        self._keep_orphans(ORPHANS_GO_S)
        self._equal()
        for server in self.fleet.servers:
            server.check_log()

    def _equal(self) -> None:
        """Replica and primary hold the same, as soon as what is due, and what lost its container, has been removed.

        They are asked one after the other, so that a difference is one only if it stays.
        """
        differences: list[str] = []

        def equal() -> bool:
            self.pair.catch_up(LATE_SECONDS)
            if self.pair.primary.digest() == self.pair.replica.digest():
                return True
            # Of all databases, and without what is due and only not removed yet.
            ours, theirs = Snapshot.of(self.pair.primary), Snapshot.of(self.pair.replica)
            differences[:] = ours.differences(theirs, self.now_ms())
            return not differences

        try:
            wait_until(equal, "equal digests", EQUAL_SECONDS, step=0.1)
        except AssertionError:
            if not differences:
                raise
            raise Fault(f"primary and replica differ: {differences[:10]}") from None

    def _keep_orphans(self, seconds: int) -> None:
        """Both servers do so, also when they start again."""
        for server in (self.pair.primary, self.pair.replica):
            server.options["llmcache.orphan-grace"] = seconds
            with server.wire() as wire:
                if isinstance(told := wire("CONFIG", "SET", "llmcache.orphan-grace", seconds), Failure):
                    raise Fault(told.text)

    def _counted(self) -> None:
        """Containers count the entries that there are, on the primary and on the replica."""
        for what, server in (("primary", self.pair.primary), ("replica", self.pair.replica)):
            if wrong := ledger.settled(server, DATABASES):
                raise Fault(f"containers and keys of the {what} do not agree: {wrong[:10]}")

    def _bereave(self) -> list[Bereft]:
        """Drops some containers and restores what was in them, which now is nobody's."""
        rng = self.traffic.rng
        found = []
        with self.pair.primary.wire(timeout=REPLY_SECONDS) as wire:
            for _ in range(self.BEREFT_LOOKS):
                one = bereave(rng, wire, partial(self._send, -1), rng.randrange(DATABASES), rng.choice(sorted(FAMILIES)))
                found += [one] if one else []
        self.returns += len(found)
        return found

    def _kept(self, bereft: list[Bereft], there: Snapshot, after: str) -> None:
        """What was restored without its container is there, until whoever keeps orphans says otherwise."""
        now = self.now_ms()
        if lost := [line for one in bereft for line in one.missing(there.keys, now)]:
            raise Fault(f"restored without their container, and not there after {after}: {lost[:10]}")

    def _return(self, bereft: list[Bereft]) -> None:
        """The containers come back and have their entries."""
        wrong = [told for one in bereft if (told := one.return_to(self.pair.primary, partial(self._send, -1)))]
        if wrong:
            raise Fault(f"containers came back without their entries: {wrong}")

    def _same(self, before: Snapshot, after: Snapshot, way: str) -> None:
        if differences := before.differences(after, self.now_ms()):
            raise Fault(f"not the same after {way}: {differences[:10]}")

    def _promote(self) -> None:
        """The replica becomes the primary, the primary its replica."""
        old, new = self.pair.primary, self.pair.replica
        # Also what was removed in the background since they were compared.
        self.pair.catch_up(LATE_SECONDS)
        with new.wire() as wire:
            wire("REPLICAOF", "NO", "ONE")
        with old.wire() as wire:
            wire("REPLICAOF", "127.0.0.1", new.port)
        self.pair = Pair(new, old)
        old.options.pop("replicaof", None)
        new.options.pop("replicaof", None)
        old.options["replicaof"] = ["127.0.0.1", new.port]
        self.pair.catch_up(LATE_SECONDS)

    def _emptied(self, empty: int) -> None:
        self._control("FLUSHALL")
        # The backlog of replication is no leak.
        self._control("CONFIG", "SET", "repl-backlog-size", BACKLOG_LEAST_BYTES)
        self.pair.catch_up(LATE_SECONDS)
        before = self._settled(empty + MEMORY_KEPT_BYTES)
        if before - empty > MEMORY_KEPT_BYTES:
            raise Fault(f"{before - empty} bytes of memory left when all keys are removed")
        # Again and again the same, of every type: what is kept of each is kept of a thousand.
        with self.pair.primary.wire() as wire:
            for _ in range(CHURNED):
                wire.pipeline([*CHURN, ["FLUSHDB", "SYNC"]])
        self.pair.catch_up(LATE_SECONDS)
        if (left := self._settled(before + CHURN_KEPT_BYTES) - before) > CHURN_KEPT_BYTES:
            raise Fault(f"{left} bytes of memory left of containers that were made and removed {CHURNED} times")

    def _settled(self, most: int) -> int:
        """The memory of the primary as soon as it is no more than this, else what it stays at."""
        return settle_below(self.pair.primary, most, LATE_SECONDS)


class Comebacks(Round):
    """A round of traffic in which containers go and come back all the time."""

    RETURN_SHARE = 0.08
    BEREFT_LOOKS = 6
