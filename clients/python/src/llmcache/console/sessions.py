"""What the page Sessions shows: conversations found by sampling, windows as a model would get them, a stream live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from .. import _replies as r
from .store import Refused, Store, whole_number
from .text import bytes_of, handle, line, shown, visible

SCANS = 8
SCANNED_AT_ONCE = 500
LISTED = 50
MESSAGES = 200
FOLLOWED_MS = 4_000
FOLLOWED_BYTES = 64 << 10
STREAM_MAX_BYTES = 1 << 20


async def found(store: Store, cursor: int) -> dict[str, Any]:
    """Some sessions, as far as a few thousand keys show; where to look on."""
    names: list[bytes] = []
    at = cursor
    for _ in range(SCANS):
        next_, page = await store.run("SCAN", at, "TYPE", "llm-sessn", "COUNT", SCANNED_AT_ONCE)
        names += page
        at = int(next_)
        if at == 0 or len(names) >= LISTED:
            break
    return {"next": at, "rows": await _rows(store, names[: 2 * LISTED])}


async def of_owner(store: Store, owner: str) -> dict[str, Any]:
    """The sessions of an owner, the newest first."""
    rows = await store.run("SESSION.LIST", owner, "COUNT", LISTED)
    return {"next": 0, "rows": await _rows(store, [row[0] for row in rows if row[0] is not None])}


async def _rows(store: Store, names: list[bytes]) -> list[dict[str, Any]]:
    told = await store.many([("SESSION.INFO", name) for name in names])
    rows = []
    for name, reply in zip(names, told, strict=True):
        if reply is not None:
            info = r.mapping(reply)
            numbers = ("messages", "tokens", "pinned", "open", "bytes")
            rows.append({"name": handle(name), "shown": line(name), **{field: int(info[field]) for field in numbers}})
    return rows


def _message(row: list[Any]) -> dict[str, Any]:
    seq, role, payload, tokens, *marks = row
    told = {r.text(name): value for name, value in zip(marks[::2], marks[1::2], strict=False)}
    if len(marks) == 1 and isinstance(marks[0], dict):
        told = r.mapping(marks[0])
    return {
        "seq": int(seq),
        "role": line(role, 32),
        "text": shown(payload),
        "tokens": int(tokens),
        "pinned": bool(told.get("pinned")),
        "summary": bool(told.get("summary")),
        "call": line(told["call"], 64) if told.get("call") else None,
        "result": line(told["result"], 64) if told.get("result") else None,
    }


async def window(store: Store, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The messages that a model would get."""
    key = bytes_of(name)
    asked: list[Any] = ["LAST", whole_number(given.get("last"), "LAST", 1, MESSAGES, MESSAGES)]
    for word in ("tokens", "turns"):
        if given.get(word) not in (None, ""):
            asked += [word.upper(), whole_number(given[word], word.upper(), 1, 1 << 31, 1)]
    if given.get("pairs"):
        asked.append("PAIRS")
    info = await store.run("SESSION.INFO", key)
    if info is None:
        raise Refused("there is no such session any more", 404)
    told = r.mapping(info)
    tokens, first, more, messages = await store.run("SESSION.WINDOW", key, *asked)
    tail = await store.run("SESSION.RANGE", key, "-", "+", "REV", "COUNT", 1)
    newest = _message(tail[0]) if tail else None
    return {
        "shown": line(key),
        "tokens": int(tokens),
        "first": int(first),
        "more": bool(more),
        "messages": [_message(row) for row in messages],
        "info": {field: int(value) for field, value in told.items() if isinstance(value, int)},
        "open": newest["seq"] if newest and int(told["open"]) else None,
    }


async def follow(store: Store, name: str, seq: int) -> AsyncIterator[dict[str, Any]]:
    """A message while it is written."""
    key, offset = bytes_of(name), 0
    while True:
        reply = await store.run("SESSION.FOLLOW", key, seq, offset, "BLOCK", FOLLOWED_MS, "MAX", FOLLOWED_BYTES)
        if reply is None:
            yield {"status": "gone", "text": "", "offset": offset}
            return
        status, offset, data = r.text(reply[0]), int(reply[1]), reply[2]
        too_long = offset > STREAM_MAX_BYTES
        yield {"status": "cut" if too_long else status, "text": visible(r.text(data)), "offset": offset}
        if status != "open" or too_long:
            return
