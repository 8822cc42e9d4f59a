"""One container as several, each in a hash slot of its own: `faq{0}`, `faq{1}`, ... Pure.

Owns: which of them an entry is in. Redis Cluster says which node has it, and moves it. `was` is the number of
shards before: while entries are moved, an entry is read where it was too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

SHARDS_MAX = 16_384
"""As many as there are hash slots."""


def entry_digest(scope: bytes, context: bytes, prompt: bytes) -> bytes:
    """What names an entry (docs/formats.md)."""
    parts = b"".join(struct.pack("<I", len(part)) + part for part in (scope, context, prompt))
    return hashlib.sha256(parts).digest()[:16]


def jump(digest: bytes, shards: int) -> int:
    """Jump consistent hash: of n + 1 shards each gets 1/(n + 1) of the entries from every other one."""
    key, at, after = int.from_bytes(digest[:8], "little"), -1, 0
    while after < shards:
        at = after
        key = (key * 2862933555777941757 + 1) & 0xFFFF_FFFF_FFFF_FFFF
        after = int((at + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return at


@dataclass(frozen=True, slots=True)
class Shards:
    name: str
    count: int = 1
    was: int | None = None

    def __post_init__(self) -> None:
        for count in (self.count, self.was):
            if count is not None and not 1 <= count <= SHARDS_MAX:
                raise ValueError(f"shards are 1 to {SHARDS_MAX}, not {count}")
        if max(self.count, self.was or 1) > 1 and "{" in self.name:
            raise ValueError(f"{self.name!r} names a hash slot already, so it cannot be split into shards")

    def _name(self, k: int, count: int) -> str:
        return self.name if count == 1 else f"{self.name}{{{k}}}"

    def names(self, count: int | None = None) -> list[str]:
        count = self.count if count is None else count
        return [self._name(k, count) for k in range(count)]

    def every(self) -> list[str]:
        """All there are, those of before included."""
        now = self.names()
        return now + [name for name in (self.names(self.was) if self.was else ()) if name not in now]

    def place(self, key: bytes, count: int | None = None) -> str:
        """Where an entry of this key belongs."""
        count = self.count if count is None else count
        return self.name if count == 1 else self._name(jump(hashlib.sha256(key).digest(), count), count)

    def places(self, key: bytes) -> Sequence[str]:
        """Where it may be found: where it belongs, and where it was."""
        now = self.place(key)
        if self.was is None:
            return (now,)
        before = self.place(key, self.was)
        return (now,) if before == now else (now, before)
