"""Bits that go bad in the memory of a process that runs."""

from __future__ import annotations

import re


def flip_in_memory(pid: int, wanted: bytes) -> int:
    """Flips a bit in every copy of these bytes that a process holds; answers how many there were."""
    flipped = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ 0\s*(\[heap\])?$", line)
            if not found:
                continue
            start, end = (int(found[n], 16) for n in (1, 2))
            memory.seek(start)
            held = memory.read(end - start)
            at = held.find(wanted)
            while at >= 0:
                memory.seek(start + at)
                memory.write(bytes([wanted[0] ^ 1]))
                flipped += 1
                at = held.find(wanted, at + 1)
    return flipped
