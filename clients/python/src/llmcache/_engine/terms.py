"""What a store of chunks is told and what it tells, whoever moves its bytes.

Owns: options and results, the form of the commands that are small: settings of namespaces, look-ups. `store` moves
bytes in Python, `native` by llmcache-native.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Protocol

from .wire import Endpoint, Part, Reply

# Chunks of one MATCH, all namespaces together.
_MATCHED_AT_ONCE = 65_536
_ALSO_MAX = 255


class Names:
    """Names of chunks in the order of their prompt. Where all have one length they are kept packed, as one argument of
    a command: a look-up needs no object for each."""

    def __init__(self, names: Sequence[bytes] | None = None, packed: bytes = b"", width: int = 0) -> None:
        if names:
            width = len(names[0])
            packed = b"" if any(len(each) != width for each in names) else b"".join(names)
        self._names, self.packed, self.width = names, packed, width

    def __len__(self) -> int:
        return len(self.packed) // self.width if self._names is None else len(self._names)

    @property
    def listed(self) -> Sequence[bytes]:
        """Each for itself."""
        if self._names is None:
            packed, width = self.packed, self.width
            self._names = [packed[at : at + width] for at in range(0, len(packed), width)]
        return self._names

    def words(self) -> list[Part | str | int]:
        """How a command says them."""
        return ["PACKED", self.width, self.packed] if self.packed else ["HASHES", len(self), *self.listed]


def slices(hashes: Sequence[bytes], ranks: Sequence[int], groups: Sequence[int]) -> Names:
    """Names of slices of chunks: the hash, and behind it rank and group."""
    return Names(list(map(add, hashes, map(_SLICE, ranks, groups))))


# What the name of a slice has behind the hash.
_SLICE = struct.Struct(">QI").pack

# A payload is where the engine has it: one buffer, or several in a row.
Payload = memoryview | Sequence[memoryview]
Chunk = tuple[bytes, Payload]
# Called once with what became of each chunk, in their order.
Told = Callable[[list[bool]], None]
# Prompts that are looked up: the namespaces of each, and its chunks.
Asked = Sequence[tuple[Sequence[str], Names]]
Command = Sequence[Part | str | int]


@dataclass(frozen=True)
class Options:
    """How a store works; the defaults suit a server in the same rack."""

    connections: int = 4
    # Longer replies are built in fresh memory, page fault by page fault: up to twice the server's CPU.
    page_bytes: int = 512 << 10
    lease_ms: int = 60_000
    ttl: int = 0
    chunk_tokens: int = 256
    budget: int = 0
    durable: str = "NONE"
    checksum: bool = True
    form: str = ""
    # After a failed connection nothing is tried for so long: every answer is a miss at once.
    pause: float = 1.0
    # Whether sockets are llmcache-native's; None is where it is installed and can do it.
    native: bool | None = None


@dataclass
class Found:
    """What one namespace has of the chunks asked for."""

    there: list[bool] = field(default_factory=list)
    leading: int = 0
    lease: int | bytes | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all are there."""
        return self.leading == len(self.there)


@dataclass
class Counts:
    """What happened, for status pages."""

    stored: int = 0
    loaded: int = 0
    missed: int = 0
    rejected: int = 0
    failed: int = 0
    reconnects: int = 0


class Store(Protocol):
    """Stores, finds and loads chunks in the background; each `done` is called once, on a thread of the store."""

    endpoint: Endpoint

    @property
    def counts(self) -> Counts:
        """What happened."""

    @property
    def is_native(self) -> bool:
        """Whether llmcache-native moves its bytes."""

    def slices(self, hashes: Sequence[bytes], ranks: Sequence[int], groups: Sequence[int]) -> Names:
        """Names of slices of chunks."""

    @property
    def is_up(self) -> bool:
        """Whether the last attempt to speak to the server went well."""

    def put(self, namespace: str, chunks: Sequence[Chunk], done: Told, ahead: bytes | None = None) -> None:
        """Stores chunks of one prompt in their order; `ahead` is the chunk before the first, where it is known."""

    def match(self, asked: Asked, done: Callable[[list[list[Found]]], None], lease_ms: int | None = None) -> None:
        """For each prompt what each of its namespaces has of it, in one trip; found chunks are leased."""

    def release(self, namespace: str, lease: int | bytes) -> None:
        """Ends a lease; one that cannot be ended lapses."""

    def load(self, namespace: str, chunks: Sequence[Chunk], done: Told) -> None:
        """Loads chunks into these buffers; true for each that came whole and fills its own."""

    def ask(self, args: Command, done: Callable[[Reply], None]) -> None:
        """One command; None where it failed."""

    def call(self, args: Command, wait: float | None = None) -> Reply:
        """One command, waited for; None where it failed."""

    def close(self) -> None:
        """Ends connections and threads, when what was submitted is done."""


def settings(options: Options) -> list[str | int]:
    """The arguments of `KVCHUNK.CREATE` behind the namespace."""
    args: list[str | int] = ["CHUNK", options.chunk_tokens, "DURABLE", options.durable]
    args += ["CHECKSUM", "ON" if options.checksum else "OFF"]
    args += ["BUDGET", options.budget] if options.budget else []
    args += ["FORMAT", options.form] if options.form else []
    return args


def match_commands(asked: Asked, lease_ms: int) -> list[Command]:
    """The commands that look prompts up, each in so many namespaces as one command takes."""
    commands: list[Command] = []
    for names, hashes in asked:
        at_once = _at_once(hashes)
        for first in range(0, len(names) if hashes else 0, at_once):
            some = names[first : first + at_once]
            args: list[Part | str | int] = ["KVCHUNK.MATCH", some[0], *hashes.words(), "SPARSE"]
            args += ["ALSO", len(some) - 1, *some[1:]] if len(some) > 1 else []
            args += ["LEASE", lease_ms] if lease_ms else []
            commands.append(args)
    return commands


def _at_once(hashes: Names) -> int:
    return max(1, min(_ALSO_MAX, _MATCHED_AT_ONCE // max(1, len(hashes))))


def found(asked: Asked, replies: Sequence[Reply]) -> list[list[Found]]:
    """What the commands of `match_commands` were answered."""
    told = iter(replies)
    result: list[list[Found]] = []
    for names, hashes in asked:
        row: list[Found] = []
        while hashes and len(row) < len(names):
            row += [_found_in(place, len(hashes)) for place in next(told)[3]]
        result.append(row if hashes else [Found() for _ in names])
    return result


def nothing(asked: Asked) -> list[list[Found]]:
    """Of nothing asked anything is there."""
    return [[Found([False] * len(hashes)) for _ in names] for names, hashes in asked]


def _found_in(place: Reply, asked: int) -> Found:
    leading, lease, bits = place
    # Most prompts are there whole, or not at all behind a point.
    if leading == asked:
        return Found([True] * asked, leading, lease)
    digits = format(int.from_bytes(bits, "big"), f"0{len(bits) * 8}b")
    return Found([digit == "1" for digit in digits[:asked]], leading, lease)


def waited(store: Store, args: Command, wait: float | None) -> Reply:
    """What a command is answered, or None where it failed or took longer than `wait`."""
    told: list[Reply] = []
    over = threading.Event()

    def done(reply: Reply) -> None:
        told.append(reply)
        over.set()

    store.ask(args, done)
    over.wait(store.endpoint.timeout * 2 + store.endpoint.connect_timeout * 2 if wait is None else wait)
    return told[0] if told else None


def length_of(payload: Payload) -> int:
    """Bytes of a payload."""
    return payload.nbytes if isinstance(payload, memoryview) else sum(piece.nbytes for piece in payload)
