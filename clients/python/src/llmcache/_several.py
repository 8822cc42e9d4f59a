"""Several commands in a row or in one trip, and how their replies are taken together, as flows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from . import _replies as r
from ._flow import Argument, Command, Flow, Many
from .errors import NoCache
from .types import Fields

T = TypeVar("T")


def milliseconds(seconds: float) -> int:
    """Rounded up, so that no positive time becomes none."""
    whole = int(seconds * 1_000)
    return whole if whole >= seconds * 1_000 else whole + 1


def expiry(ttl: float | None) -> list[Argument]:
    """`ttl` in seconds; None for the container's own, infinity for none."""
    if ttl is None:
        return []
    if ttl == float("inf"):
        return ["PERSIST"]
    return ["PX", milliseconds(ttl)]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def weighed(rows: Sequence[list[Argument]], most: int, most_bytes: int) -> Iterator[list[list[Argument]]]:
    """Batches of the arguments of items: of so many items at most, and of so many bytes unless it is one item alone."""
    batch: list[list[Argument]] = []
    size = 0
    for row in rows:
        weight = sum(len(r.raw(one)) if isinstance(one, bytes | str) else 8 for one in row)
        if batch and (len(batch) == most or size + weight > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch


def every(commands: Sequence[Sequence[Argument]]) -> Flow[list[Any]]:
    """Their replies; the first error is raised."""
    if len(commands) == 1:
        return [(yield Command(commands[0]))]
    replies = yield Many(commands)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return list(replies)


def present(commands: Sequence[Sequence[Argument]]) -> Flow[list[Any]]:
    """Their replies, but of containers that do not exist (a shard nothing was stored in yet)."""
    if not commands:
        return []
    replies = yield Many(commands)
    kept = []
    for reply in replies:
        if isinstance(reply, Exception):
            if not isinstance(reply, NoCache):
                raise reply
        else:
            kept.append(reply)
    return kept


def quietly(command: Command, *errors: type[Exception]) -> Flow[Any]:
    try:
        return (yield command)
    except errors:
        return None


def scanned(command: str, name: str, tail: Sequence[Argument]) -> Flow[list[str]]:
    """All ids that a SCAN of a container lists."""
    found: list[str] = []
    cursor = 0
    while True:
        try:
            after, page = yield Command((command, name, cursor, "COUNT", 1_000, *tail))
        except NoCache:
            return found
        found += r.texts(page)
        cursor = int(after)
        if cursor == 0:
            return found


_NOT_SUMMED = {"dim", "m", "ef", "efc", "ttl", "grace", "jitter", "maxentries", "threshold", "levels"}


def summed(told: Sequence[Fields]) -> Fields:
    if len(told) == 1:
        return told[0]
    total = Fields(told[0])
    for name, first in told[0].items():
        values = [one.get(name) for one in told]
        if name == "similarity_histogram":
            counts: dict[float, Any] = {}
            for edge, count in (row for value in values for row in value or ()):
                counts[edge] = counts.get(edge, 0) + count
            total[name] = [[edge, counts[edge]] for edge in sorted(counts)]
        elif name == "hottest":
            total[name] = sorted((row for v in values for row in v or ()), key=lambda row: -row[1])[:10]
        elif isinstance(first, int | float) and name not in _NOT_SUMMED:
            total[name] = sum(v for v in values if isinstance(v, int | float))
    if total.get("lookups"):
        total["hit_ratio"] = total.get("hits", 0) / total["lookups"]
    if "thresholds" in total:
        total["thresholds"] = _shares(told)
    return total


def _shares(told: Sequence[Fields]) -> list[list[float]]:
    """What part of all look-ups by meaning each threshold would serve: each shard's share, by its look-ups."""
    asked = [one.get("hits_semantic", 0) + one.get("misses_threshold", 0) for one in told]
    sums: dict[float, float] = {}
    for one, weight in zip(told, asked, strict=True):
        for edge, share in one.get("thresholds") or ():
            sums[edge] = sums.get(edge, 0.0) + share * weight
    return [[edge, sums[edge] / (sum(asked) or 1)] for edge in sorted(sums)]


def unless_absent(commands: Sequence[Sequence[Argument]]) -> Flow[list[Any]]:
    """Replies, None where there is no such cache yet."""
    if not commands:
        return []
    replies = yield Many(commands)
    for reply in replies:
        if isinstance(reply, Exception) and not isinstance(reply, NoCache):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]
