"""Containers against the keys of their entries: they must not count what is not there.

There may be more keys: copies under names that are not their own are nobody's. Namespaces that were renamed share a
prefix with their successor, so that counts are added up by prefix.
"""

from __future__ import annotations

from collections import Counter

from harness.server import Server
from harness.waiting import wait_until

# How to ask a container of a type, which of its fields counts, and of which type the keys of its entries are.
CONTAINERS = {
    "llm-cache": ("LLMCACHE.INFO", b"entries", "llm-entry"),
    "llm-docmt": ("RAG.INFO", b"entries", "llm-entry"),
    "llm-embed": ("EMBCACHE.INFO", b"entries", "llm-entry"),
    "llm-kvnsp": ("KVCHUNK.INFO", b"chunks", "llm-kvchk"),
}
# A walk over all keys, which finds what is wrong, may have ended just now: the next comes in half of the grace of orphans.
SETTLES_SECONDS = 90


def differences(server: Server, databases: int) -> list[str]:
    """What does not agree at this moment."""
    found = []
    with server.wire() as wire:
        for database in range(databases):
            wire("SELECT", database)
            names = wire("KEYS", "*")
            types = [str(kind) for kind in wire.pipeline(["TYPE", name] for name in names)]
            containers = [(name, kind) for name, kind in zip(names, types) if kind in CONTAINERS]
            infos = wire.pipeline([CONTAINERS[kind][0], name] for name, kind in containers)
            counted: Counter[tuple[str, bytes]] = Counter()
            for (_, kind), info in zip(containers, infos):
                # Else it expired between two of these commands.
                if isinstance(info, list):
                    of = dict(zip(info[::2], info[1::2]))
                    _, field, entries = CONTAINERS[kind]
                    counted[entries, of[b"prefix"]] += of[field]
            for (entries, prefix), count in counted.items():
                there = sum(kind == entries and name.startswith(prefix) for name, kind in zip(names, types))
                if count > there:
                    found.append(f"{count} of {prefix!r} are counted in database {database}, there are {there}")
    return found


def settled(server: Server, databases: int) -> list[str]:
    """What does not agree even when nothing has happened for a while."""
    seen: list[list[str]] = []

    def agrees() -> bool:
        seen.append(differences(server, databases))
        return not seen[-1]

    try:
        wait_until(agrees, "containers count their entries", SETTLES_SECONDS, step=0.1)
    except AssertionError:
        return seen[-1]
    return []
