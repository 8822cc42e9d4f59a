"""What the page KV cache shows of one namespace: the tree, its heat, and what eviction would take next."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import _replies as r
from .store import Store
from .text import bytes_of, line

DRAWN = 400
NEXT = 25


def _chunk(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "digest": r.text(told["digest"]),
        "parent": r.maybe_text(told["parent"]),
        "heat": float(told["heat"]),
        **{
            name: int(told[name])
            for name in ("position", "leaf", "bytes", "hits", "prio", "pinned", "leases", "deadline")
        },
    }


async def namespace(store: Store, name: str, cursor: int) -> dict[str, Any]:
    """Settings, counters, a page of the tree, and the next to go."""
    key = bytes_of(name)
    info, stats, tree, eviction = await asyncio.gather(
        store.told("KVCHUNK.INFO", key),
        store.told("KVCHUNK.STATS", key),
        store.run("KVCHUNK.TREE", key, "FROM", cursor, "COUNT", DRAWN),
        store.run("KVCHUNK.TREE", key, "EVICTION", "COUNT", NEXT),
    )
    return {
        "shown": line(key),
        "info": {
            field: line(value) if isinstance(value, bytes) else r.plain(value)
            for field, value in info.items()
            if field != "prefix"
        },
        "stats": {field: float(value) for field, value in stats.items()},
        "next": int(tree[0]),
        "tree": [_chunk(r.mapping(row)) for row in tree[1]],
        "eviction": [_chunk(r.mapping(row)) for row in eviction[1]],
    }
