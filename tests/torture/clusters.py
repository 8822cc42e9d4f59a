"""Rounds on a cluster of three shards under load: nothing acknowledged is lost, and nothing removed comes back.

A round is one act (slots that move, a failover, a pause, a kill) while clients write. Then the clients stop, the
cluster settles, and every entry is compared with what its client was told. What may be lost is what replication
without waiting may lose, and no more:

- without a failover, and with one that hands over (`CLUSTER FAILOVER`): nothing that was acknowledged;
- with a failover because the primary was away: of each entry of that shard, what was acknowledged behind the last
  write that `WAIT` confirmed. An older state, or one that never was, is a fault even then.

A write without a reply may have happened or not, also later: its entry is left alone until the round's end.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, field

from harness.cluster import ClusterWire
from harness.names import key_slot
from harness.server import Fleet
from harness.waiting import wait_until
from harness.wire import Argument as Word
from harness.wire import Failure

from .kills import KINDS, Kind, Lost
from .shards import COUNT, Shards, kill, paused

TAGS = tuple(f"{{t{number}}}" for number in range(6))
NUMBERS = 12
WRITERS = 3
WAIT_SHARE = 0.2
# Longer than a failover takes, so that nobody waits for a node that stands still.
REPLY_SECONDS = 2.0
SECONDS_BEFORE_AN_ACT = (0.05, 0.4)
# Refusals that change nothing, and pass.
PASSING = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED")


@dataclass
class Entry:
    """One entry of one container, written by one client."""

    kind: Kind
    tag: str
    number: int
    # What is certain: what was confirmed last by WAIT, or found at the end of a round.
    floor: bytes | None = None
    # What was acknowledged behind it.
    acknowledged: list[bytes | None] = field(default_factory=list)
    # What was asked for behind that, without a reply.
    unanswered: list[bytes | None] = field(default_factory=list)

    def words(self, words: list[Word]) -> list[Word]:
        return [words[0], f"{words[1]}{self.tag}", *words[2:]]

    def allowed(self, lossy: bool) -> list[bytes | None]:
        last = self.acknowledged[-1:] or [self.floor]
        return [*([self.floor, *self.acknowledged] if lossy else last), *self.unanswered]

    def found(self, version: bytes | None) -> None:
        self.floor, self.acknowledged, self.unanswered = version, [], []


class Writer(threading.Thread):
    """A client with entries of its own; writes until it is told to stop."""

    def __init__(self, shards: Shards, entries: list[Entry], seed: int):
        super().__init__()
        self.rng = random.Random(seed)
        self.ports = shards.ports
        self.entries = entries
        self.stopping = threading.Event()
        self.changes = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            with ClusterWire(self.ports, REPLY_SECONDS) as client:
                while not self.stopping.is_set():
                    self._change(client)
        except Exception as error:  # A thread's end must not be silent.
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _change(self, client: ClusterWire) -> None:
        entry = self.rng.choice(self.entries)
        if entry.unanswered:
            return
        removes = self.rng.random() < 0.25
        version = None if removes else f"{self.rng.getrandbits(60)}".encode()
        words = entry.kind.remove(entry.number) if removes else entry.kind.store(entry.number, int(version or 0))
        command, key, *rest = entry.words(words)
        try:
            reply = client(command, key, *rest)
        except (OSError, AssertionError):
            entry.unanswered.append(version)
            # Whoever is there says who is responsible now.
            client.forget()
            self.rng.shuffle(client.ports)
            return
        if not isinstance(reply, Failure):
            self.changes += 1
            entry.acknowledged.append(version)
            if self.rng.random() < WAIT_SHARE and client.confirmed(key, 200):
                entry.found(version)
        elif reply.word not in PASSING:
            self.wrong.append(f"{command} {key}: {reply.text}")


@dataclass
class Clusters:
    """Rounds on one cluster."""

    fleet: Fleet
    seed: int
    rounds: int = 0
    changes: int = 0
    # Acknowledged changes that a failover without its primary took, which is permitted.
    given_up: int = 0
    acts: dict[str, int] = field(default_factory=dict)

    def run(self, seconds: float, most: int = 1_000_000) -> None:
        """Rounds until the time is over; raises `Lost` at the first that broke a promise."""
        end = time.monotonic() + seconds
        self.rng = random.Random(self.seed)
        self.shards = Shards(self.fleet)
        self.entries = [Entry(kind, tag, n) for kind in KINDS for tag in TAGS for n in range(NUMBERS)]
        with self.shards.primary(0).wire() as wire:
            self.migrates = not isinstance(wire("CLUSTER", "GETSLOTMIGRATIONS"), Failure)
        while time.monotonic() < end and self.rounds < most:
            self.round()
            self.rounds += 1
        for server in self.fleet.servers:
            server.check_log()

    @property
    def figures(self) -> dict[str, int]:
        return {
            "cluster rounds": self.rounds,
            "acknowledged changes in clusters": self.changes,
            "changes given up by failovers": self.given_up,
        }

    def report(self) -> str:
        return f"seed {self.seed}, acts {self.acts}"

    def round(self) -> None:
        acts = [
            self._reshard,
            self._reshard_with_a_kill,
            self._hand_over,
            self._pause,
            self._partition,
            self._kill,
            self._kill_and_fail_over,
            self._kill_a_replica,
            self._kill_a_shard,
            *([self._migrate, self._migrate] if self.migrates else []),
        ]
        act = self.rng.choice(acts)
        name = act.__name__.strip("_")
        before = {tag: self.shards.owner(key_slot(tag)) for tag in TAGS}
        writers = [Writer(self.shards, self.entries[n::WRITERS], self.rng.getrandbits(32)) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            time.sleep(self.rng.uniform(*SECONDS_BEFORE_AN_ACT))
            lossy = act()
            time.sleep(self.rng.uniform(*SECONDS_BEFORE_AN_ACT))
        finally:
            for writer in writers:
                writer.stopping.set()
            for writer in writers:
                writer.join()
        self.changes += sum(writer.changes for writer in writers)
        self.acts[name] = self.acts.get(name, 0) + 1
        if wrong := [line for writer in writers for line in writer.wrong]:
            raise Lost(f"refused beside {name}: {wrong[:5]}")
        self.shards.settle()
        self.verify(name, {tag for tag, owner in before.items() if owner == lossy})

    # Acts; each returns the shard that failed over without its primary, or None.

    def _tag(self) -> tuple[int, int]:
        """A slot and a shard that does not have it."""
        slot = key_slot(self.rng.choice(TAGS))
        source = self.shards.owner(slot)
        return slot, self.rng.choice([n for n in range(COUNT) if n != source])

    def _reshard(self) -> None:
        self.shards.move(*self._tag())

    def _reshard_with_a_kill(self) -> None:
        slot, target = self._tag()
        victim = self.rng.choice((self.shards.owner(slot), target))

        def halfway() -> None:
            kill(self.shards.primary(victim), self.rng.uniform(0, 0.3))
            self.shards.settle_primaries()

        self.shards.move(slot, target, halfway)

    def _migrate(self) -> None:
        self.shards.migrate(*self._tag(), gives_up=self.rng.random() < 0.3)

    def _hand_over(self) -> None:
        self.shards.hand_over(self.rng.randrange(COUNT))

    def _pause(self) -> None:
        with paused(self.rng.choice(self.shards.servers)):
            time.sleep(self.rng.uniform(0.1, 1.0))

    def _partition(self) -> int:
        """A primary is away until its replica has taken over, and comes back as if nothing had been."""
        number = self.rng.randrange(COUNT)
        away = contextlib.ExitStack()
        with away:
            with self.shards.failing_over(number):
                away.enter_context(paused(self.shards.primary(number)))
        return number

    def _kill(self) -> None:
        number = self.rng.randrange(COUNT)
        if self.rng.random() < 0.5:
            self.shards.rewrite(number)
        kill(self.shards.primary(number), self.rng.uniform(0, 0.5))

    def _kill_and_fail_over(self) -> int:
        number = self.rng.randrange(COUNT)
        victim = self.shards.primary(number)
        with self.shards.failing_over(number):
            victim.kill9()
        victim.start()
        return number

    def _kill_a_replica(self) -> None:
        kill(self.rng.choice(self.shards.replicas), self.rng.uniform(0, 0.5))

    def _kill_a_shard(self) -> None:
        number = self.rng.randrange(COUNT)
        both = [self.shards.primary(number), self.shards.replicas[number]]
        for server in both:
            server.kill9()
        for server in both:
            server.start()

    # What must be so afterwards.

    def verify(self, act: str, lossy: set[str]) -> None:
        for tag in TAGS:
            owner = self.shards.owner(key_slot(tag))
            self._compare(act, tag, owner, tag in lossy)
            for other in range(COUNT):
                if other != owner:
                    left = lambda other=other, tag=tag: not self.shards.cluster.keys_in_slot(other, key_slot(tag))  # noqa: E731
                    wait_until(left, f"nothing of {tag} is left on another shard after {act}", 20)
        for number in range(COUNT):
            self._same(act, number)

    def _compare(self, act: str, tag: str, owner: int, lossy: bool) -> None:
        entries = [entry for entry in self.entries if entry.tag == tag]
        with self.shards.primary(owner).wire() as wire:
            replies = wire.pipeline(entry.words(entry.kind.read(entry.number)) for entry in entries)
        for entry, reply in zip(entries, replies):
            there = entry.kind.shown(None if _is_absent(reply) else reply)
            if there not in entry.allowed(lossy):
                raise Lost(
                    f"{entry.kind.name} {entry.number} of {tag} after {act}: {there!r} is there, certain was "
                    f"{entry.floor!r}, acknowledged {entry.acknowledged!r}, without a reply {entry.unanswered!r}"
                )
            if lossy and there in entry.allowed(True) and there not in entry.allowed(False):
                self.given_up += 1
            entry.found(there)

    def _same(self, act: str, number: int) -> None:
        """Primary and replica hold the same, entries that wait to be removed apart."""
        primary, replica = self.shards.primary(number), self.shards.replicas[number]
        try:
            wait_until(lambda: primary.digest() == replica.digest(), "equal digests", 20, step=0.1)
        except AssertionError:
            raise Lost(f"primary and replica of shard {number} differ after {act}") from None


def _is_absent(reply: object) -> bool:
    """A container that nobody has written to yet."""
    return isinstance(reply, Failure) and reply.word == "NOTFOUND"
