"""Replies in one shape, whichever protocol they came by, with their form checked on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

HIT_FIELDS = (
    *("id", "tier", "similarity", "prompt", "response", "age", "ttl"),
    *("stale", "meta", "tags", "hits"),
)
TEXT_FIELDS = {"id", "tier"}
INTEGER_FIELDS = {"age", "ttl", "stale", "hits"}


def fields(reply: Any) -> dict[str, Any]:
    """A map reply (RESP3) or its flat array (RESP2), keys as text."""
    if isinstance(reply, dict):
        pairs = list(reply.items())
    elif reply and isinstance(reply[0], tuple):
        pairs = list(reply)
    else:
        assert isinstance(reply, list) and len(reply) % 2 == 0, f"not a map: {reply!r}"
        pairs = list(zip(reply[::2], reply[1::2], strict=True))
    named = {key.decode() if isinstance(key, bytes) else key: value for key, value in pairs}
    assert len(named) == len(pairs), f"a field stands twice: {pairs!r}"
    return named


def number(value: Any) -> float:
    """A double of RESP3 or its text in RESP2."""
    return float(value)


@dataclass(frozen=True)
class Hit:
    """A hit. Fields that RETURN left out are None."""

    id: str | None = None
    tier: str | None = None
    similarity: float | None = None
    prompt: bytes | None = None
    response: bytes | None = None
    age: int | None = None
    ttl: int | None = None
    stale: int | None = None
    meta: Any = None
    tags: list[bytes] | None = None
    hits: int | None = None


def hit(reply: Any) -> Hit | None:
    """One hit of GETSEM, or the None of a miss."""
    if reply is None:
        return None
    named = fields(reply)
    unknown = set(named) - set(HIT_FIELDS)
    assert not unknown, f"fields that no document names: {unknown}"
    for name in TEXT_FIELDS & named.keys():
        named[name] = named[name].decode()
    for name in INTEGER_FIELDS & named.keys():
        assert isinstance(named[name], int), f"{name} is not an integer: {named[name]!r}"
    if "similarity" in named:
        named["similarity"] = number(named["similarity"])
        assert -1.0 <= named["similarity"] <= 1.0
    if named.get("meta") is not None:
        named["meta"] = json.loads(named["meta"])
    return Hit(**named)


def hits(reply: Any) -> list[Hit]:
    """The hits of GETSEM with COUNT."""
    assert isinstance(reply, list), f"not a list of hits: {reply!r}"
    return [hit(one) for one in reply]
