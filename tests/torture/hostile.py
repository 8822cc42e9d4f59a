"""Damaged dumps and internal commands, with right checksums: each is refused, or works in every way.

The material is what random traffic left on a server: the dump of every key, and the internal commands of its AOF. What
is damaged has its own checksum made right, and the server is told to skip its own. Dumps go in by RESTORE, internal
commands as from a primary.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from harness.dump import Payload, damaged, resealed, sections
from harness.persistence import wait_for_rewrite
from harness.primary import Primary
from harness.server import Fleet, Server
from harness.wire import Argument as Word
from harness.wire import Failure

from .grammar import read
from .pairs import DATABASES, LATE_SECONDS, REPLY_SECONDS, Fault
from .traffic import Traffic, Words

STEPS_OF_MATERIAL = 400
# So often more traffic follows where a FLUSHALL was among its last steps.
TRIES = 10
DUMPS_A_BATCH = 200
COMMANDS_A_BATCH = 60
# Of ten batches so many end with a reload of all that got in.
RELOADS = 0.2
OPTIONS = {"rdbcompression": "no", "llmcache__check_work": "yes", "llmcache__sweep_interval_ms": 20}


def commands_of_aof(folder: Path) -> list[list[bytes]]:
    """All commands of a server's AOF that is text."""
    found = []
    for file in sorted(folder.glob("appendonlydir/*.aof")):
        data = file.read_bytes()
        at = 0
        while at < len(data):
            end = data.index(b"\r\n", at)
            if data[at : at + 1] != b"*":
                at = end + 2  # A line of notes, or of a timestamp.
                continue
            words, count, at = [], int(data[at + 1 : end]), end + 2
            for _ in range(count):
                end = data.index(b"\r\n", at)
                length = int(data[at + 1 : end])
                words.append(data[end + 2 : end + 2 + length])
                at = end + 2 + length + 2
            found.append(words)
    return found


def play(server: Server, traffic: Traffic, steps: int) -> None:
    """Random traffic on one connection."""
    with server.wire(timeout=REPLY_SECONDS) as wire:
        for _ in range(steps):
            step = traffic.step()
            for words, reply in zip(step, wire.pipeline(step)):
                traffic.learn(words, reply)


class Hostile:
    """Batches on one server."""

    def __init__(self, fleet: Fleet, seed: int):
        self.fleet = fleet
        self.seed = seed
        self.rng = random.Random(seed)
        self.restored = self.refused = self.obeyed = 0
        self.last: list[Words] = []

    @property
    def figures(self) -> dict[str, int]:
        return {
            "damaged dumps taken": self.restored,
            "damaged dumps refused": self.refused,
            "damaged internal commands": self.obeyed,
        }

    def report(self) -> str:
        return "the last commands:\n" + "\n".join(repr(words) for words in self.last)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.gather()
        target = self.fleet.launch(**OPTIONS)
        with target.wire() as wire:
            assert wire("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1) == "OK"
            self.traffic = Traffic(self.seed + 1, read(wire))
        while time.monotonic() < end:
            self.restore(target)
            self.obey(target)
            target.check_log()

    def gather(self) -> None:
        """Fills a server, and takes its dumps and internal commands."""
        source = self.fleet.launch(appendonly="yes", aof_use_rdb_preamble="no", auto_aof_rewrite_percentage=0, **OPTIONS)
        with source.wire() as wire:
            commands = [command for command in read(wire) if not command.name.endswith((".DROP", ".CLEAR"))]
        traffic = Traffic(self.seed, commands)
        for _ in range(TRIES):
            play(source, traffic, STEPS_OF_MATERIAL)
            if self.collect(source):
                break
        else:
            raise Fault("traffic left nothing to damage")
        source.stop()
        self.fleet.servers.remove(source)

    def collect(self, source: Server) -> bool:
        """Takes what is there; false where the traffic has just removed it all."""
        with source.wire() as wire:
            wire("CONFIG", "SET", "maxmemory", 0)
            # A rewrite writes containers as they are, what follows it writes changes.
            internal = [words for words in commands_of_aof(source.folder) if b"._" in words[0]]
            wire("BGREWRITEAOF")
            wait_for_rewrite(source.client(), LATE_SECONDS)
            internal += [words for words in commands_of_aof(source.folder) if b"._" in words[0]]
            self.dumps: list[tuple[bytes, Payload]] = []
            for database in range(DATABASES):
                wire("SELECT", database)
                for key in wire("KEYS", "*"):
                    dump = wire("DUMP", key)
                    if isinstance(dump, bytes) and dump[:2] == b"\x07\x81":
                        self.dumps.append((key, Payload.parse(dump)))
        # As many of each kind as there are of the rarest would be too few: one in equal parts by name.
        self.internal: dict[bytes, list[list[bytes]]] = {}
        for words in internal:
            self.internal.setdefault(words[0], []).append(words)
        return bool(self.dumps and self.internal)

    def damage(self, data: bytes) -> bytes:
        where = sections(data)
        for _ in range(self.rng.choice((1, 1, 1, 2, 5))):
            data = damaged(data, self.rng) or data
        if self.rng.random() < 0.9:
            data = resealed(data, [(start, end) for start, end in where if end <= len(data)])
        return data

    def send(self, wire, batch: list[Words]) -> list:
        self.last = batch
        try:
            return wire.pipeline(batch)
        except (ConnectionError, TimeoutError) as gone:
            raise Fault(f"the server went or stood still ({gone}) by one of {len(batch)} commands") from gone

    def restore(self, target: Server) -> None:
        batch: list[Words] = []
        for _ in range(DUMPS_A_BATCH):
            key, payload = self.rng.choice(self.dumps)
            place: Word = key if self.rng.random() < 0.7 else self.rng.choice(self.dumps)[0]
            ttl = self.rng.choice((0, 0, 50, 100_000))
            batch.append(["RESTORE", place, ttl, payload.with_body(self.damage(payload.body)), "REPLACE"])
        with target.wire(timeout=REPLY_SECONDS) as wire:
            replies = self.send(wire, batch)
            taken = sum(reply == "OK" for reply in replies)
            self.restored += taken
            self.refused += len(replies) - taken
            if odd := {reply.word for reply in replies if isinstance(reply, Failure)} - {"ERR", "BUSYKEY"}:
                raise Fault(f"odd refusals of RESTORE: {odd}")
            self.use(wire)
            if self.rng.random() < RELOADS:
                self.reload(target, wire)
            wire("FLUSHALL")

    def use(self, wire) -> None:
        """Whatever is there now is used; every reply is fine, a lost connection is not."""
        names = wire("KEYS", "*")
        for key in names[:50]:
            self.traffic.values.keys.append(key)
        for key in names:
            self.send(wire, [["DEBUG", "DIGEST-VALUE", key], ["MEMORY", "USAGE", key], ["DUMP", key]])
        self.send(wire, [self.traffic.command() for _ in range(COMMANDS_A_BATCH)])

    def reload(self, target: Server, wire) -> None:
        """What got in can be saved and loaded."""
        reply = self.send(wire, [["DEBUG", "RELOAD"]])[0]
        if isinstance(reply, Failure):
            raise Fault(f"DEBUG RELOAD: {reply.text}")

    def obey(self, target: Server) -> None:
        """The same of internal commands, which only a primary may send."""
        batch: list[Words] = []
        for _ in range(DUMPS_A_BATCH):
            words = list(self.rng.choice(self.internal[self.rng.choice(sorted(self.internal))]))
            if self.rng.random() < 0.7:
                at = self.rng.randrange(1, len(words))
                words[at] = self.damage(words[at]) if words[at] else b"x"
            batch.append(list(words))
        self.last = batch
        with Primary(target) as primary:
            try:
                primary.send(*batch)
            except (OSError, AssertionError) as gone:
                raise Fault(f"the server left its primary ({gone})") from gone
        self.obeyed += len(batch)
        with target.wire(timeout=REPLY_SECONDS) as wire:
            self.use(wire)
            wire("FLUSHALL")
