"""What the pages Cache and Try it show of one cache, and the two things that they may change."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from .. import _replies as r
from .store import Refused, Store
from .text import bytes_of, handle, line, shown

NEAR_MISSES = 100
SAMPLED = 100
VALUED = 10
DISMISSED_MAX = 4_096


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


class Dismissed:
    """Near misses that somebody judged: the server's log keeps them, the page does not show them again."""

    def __init__(self) -> None:
        self._judged: OrderedDict[tuple[bytes, int], None] = OrderedDict()

    def note(self, uid: bytes, number: int) -> None:
        self._judged[uid, number] = None
        while len(self._judged) > DISMISSED_MAX:
            self._judged.popitem(last=False)

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        return key in self._judged


async def cache(store: Store, name: str) -> dict[str, Any]:
    """Counters, settings, histogram, thresholds."""
    key = bytes_of(name)
    stats, info = await asyncio.gather(store.told("LLMCACHE.STATS", key), store.told("LLMCACHE.INFO", key))
    reasons = {field[7:]: int(count) for field, count in stats.items() if field.startswith("misses_")}
    plain = {field: r.member(field, value) for field, value in info.items() if field not in ("name", "prefix")}
    return {
        "shown": line(key),
        "uid": r.text(info["uid"]),
        "stats": {field: int(stats[field]) for field in _COUNTS},
        "hit_ratio": float(stats["hit_ratio"]),
        "usd_saved": float(stats["usd_saved"]),
        "reasons": reasons,
        "histogram": [[float(edge), int(count)] for edge, count in stats["similarity_histogram"]],
        "thresholds": [[float(at), float(share)] for at, share in stats["thresholds"]],
        "threshold": _number(stats["threshold_in_use"]) if stats["threshold_in_use"] else float(info["threshold"]),
        "verified": r.text(stats["maxerror_state"]),
        "settings": {field: line(value) if isinstance(value, str) else value for field, value in plain.items()},
    }


_COUNTS = (
    "lookups", "hits", "hits_exact", "hits_semantic", "misses", "stale", "lead", "busy", "coalesced", "stores",
    "replaced", "evicted", "failures", "tokens_saved", "ms_saved", "scopes", "near_misses", "opinions_right",
    "opinions_wrong",
)  # fmt: skip


async def near_misses(store: Store, name: str, dismissed: Dismissed) -> dict[str, Any]:
    """Questions that nearly hit, beside the question that they nearly hit."""
    key = bytes_of(name)
    info = await store.told("LLMCACHE.INFO", key)
    told: dict[str, Any] = {"shown": line(key), "on": int(info["nearmisses"]), "feedback": float(info["maxerror"]) > 0}
    try:
        reply = await store.run("LLMCACHE.NEARMISSES", key, "COUNT", NEAR_MISSES)
    except Refused as refused:
        return {**told, "problem": str(refused), "rows": []}
    rows = []
    for one in map(r.mapping, reply):
        number = int(one["number"])
        if (info["uid"], number) in dismissed:
            continue
        rows.append(
            {
                "number": number,
                "at": int(one["time"]) / 1_000,
                "question": shown(one["question"]),
                "candidate": shown(one["candidate"]),
                "id": handle(one["id"]),
                "similarity": float(one["similarity"]),
                "reason": r.text(one["reason"]),
                "guard": r.maybe_text(one["guard"]),
            }
        )
    return {**told, "rows": rows}


async def judge(store: Store, name: str, given: dict[str, Any], dismissed: Dismissed) -> dict[str, Any]:
    """Feedback on a near miss, or the removal of the answer that it nearly hit."""
    key, id_ = bytes_of(name), bytes_of(str(given.get("id", "")))
    verdict = given.get("verdict")
    if verdict in ("RIGHT", "WRONG"):
        counted = int(await store.run("LLMCACHE.FEEDBACK", key, "ID", id_, verdict))
    elif verdict == "INVALIDATE":
        counted = int(await store.run("LLMCACHE.INVALIDATE", key, "IDS", 1, id_))
    else:
        raise Refused("a verdict is RIGHT, WRONG or INVALIDATE")
    if isinstance(given.get("number"), int):
        dismissed.note((await store.told("LLMCACHE.INFO", key))["uid"], given["number"])
    return {"counted": counted}


def _entry(told: dict[str, Any]) -> dict[str, Any]:
    hits, cost = int(told["hits"]), float(told["cost"])
    return {
        "id": handle(told["id"]),
        "name": line(told["id"], 64),
        "prompt": shown(told["prompt"], int(told["prompt_bytes"])),
        "response": shown(told["response"], int(told["response_bytes"])),
        "scope": line(told["scope"], 64),
        "context": shown(told["context"], int(told["context_bytes"]), 200),
        "tags": [line(tag, 64) for tag in told["tags"]],
        "meta": shown(told["meta"], int(told["meta_bytes"])),
        "age": int(told["age"]) / 1_000,
        "ttl": r.seconds(told["ttl"]),
        "stale": bool(told["stale"]),
        "hits": hits,
        "cost": cost,
        "tokens": int(told["tokens"]),
        "bytes": int(told["bytes"]),
        "saved": hits * cost,
    }


async def _entries(store: Store, key: bytes, ids: Sequence[bytes], cut: int = 240) -> list[dict[str, Any]]:
    replies = await store.many([("LLMCACHE.ENTRY", key, id_, "CUT", cut) for id_ in ids])
    return [_entry(r.mapping(reply)) for reply in replies if reply is not None]


def _ranked(counts: dict[str, int]) -> list[list[Any]]:
    return [[name, count] for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:12]]


async def entries(store: Store, name: str, cursor: int) -> dict[str, Any]:
    """The most used entries, and a page of all: the most recent of it first, its scopes and tags counted."""
    key = bytes_of(name)
    stats = await store.told("LLMCACHE.STATS", key)
    next_, ids = await store.run("LLMCACHE.SCAN", key, cursor, "COUNT", SAMPLED)
    page = await _entries(store, key, ids)
    hottest = await _entries(store, key, [id_ for id_, _ in stats["hottest"][:VALUED]])
    scopes: dict[str, int] = {}
    tags: dict[str, int] = {}
    for entry in page:
        scopes[entry["scope"]] = scopes.get(entry["scope"], 0) + 1
        for tag in entry["tags"]:
            tags[tag] = tags.get(tag, 0) + 1
    page.sort(key=lambda entry: entry["age"])
    hottest.sort(key=lambda entry: (-entry["saved"], -entry["hits"]))
    return {"next": int(next_), "page": page, "valuable": hottest, "scopes": _ranked(scopes), "tags": _ranked(tags)}


async def entry(store: Store, name: str, id_: str) -> dict[str, Any]:
    """One entry."""
    found = await _entries(store, bytes_of(name), [bytes_of(id_)], 4_096)
    if not found:
        raise Refused("there is no such entry any more", 404)
    return found[0]


def vector_of(given: Any) -> list[Any]:
    """The arguments of a vector that was typed as numbers."""
    if given in (None, "", []):
        return []
    if not isinstance(given, list) or len(given) > 16_384:
        raise Refused("a vector is a list of at most 16,384 numbers")
    try:
        return ["FP32", struct.pack(f"<{len(given)}f", *given)]
    except (struct.error, OverflowError) as error:
        raise Refused(f"a vector is a list of numbers: {error}") from error


async def attempt(store: Store, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """A look-up, explained."""
    key, prompt = bytes_of(name), str(given.get("prompt", ""))
    vector = vector_of(given.get("vector"))
    if not prompt and not vector:
        raise Refused("type a question, or give a vector")
    asked: list[Any] = [*(["PROMPT", prompt] if prompt else []), *vector]
    for word in ("scope", "context", "threshold", "filter"):
        if given.get(word) not in (None, ""):
            asked += [word.upper(), given[word]]
    told = await store.told("LLMCACHE.GETSEM", key, *asked, "RETURN", 4, "id", "tier", "similarity", "ttl", "EXPLAIN")
    hits = told["hits"] or []
    hit = r.mapping(hits[0]) if hits and not isinstance(hits, dict) else r.mapping(hits) if hits else None
    nearest = r.mapping(told["nearest"]) if told["nearest"] else None
    found = await _entries(store, key, [hit["id"]] if hit else [nearest["id"]] if nearest else [], 4_096)
    words = told.get("guard_words")
    return {
        "status": r.text(told["status"]),
        "reason": r.maybe_text(told["reason"]),
        "threshold": _number(told["threshold"]),
        "tier": r.maybe_text(told["tier"]),
        "similarity": _number(hit["similarity"]) if hit else _number(nearest["similarity"]) if nearest else None,
        "guard": r.maybe_text(told["guard"]),
        "guard_words": [line(word) for word in words] if words else None,
        "index": r.text(told["index"]),
        "work": {
            field: int(told[field])
            for field in ("candidates", "scanned", "filtered", "opened")
            if told.get(field) is not None
        },
        "embed_us": None if told.get("embed_us") is None else int(told["embed_us"]),
        "entry": found[0] if found else None,
    }
