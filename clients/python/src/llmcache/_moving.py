"""From fewer shards to more, or to fewer, while both are in use, as flows.

An object with `shards_before` reads where an entry was, too, and stores where it belongs. `move` brings over what
nobody stores again, page by page: each entry is stored where it belongs unless there is a newer one, and then
removed where it was; one that was removed meanwhile is removed again. Cut off, it goes on where it was called again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import _replies as r
from ._flow import Argument, Command, Flow, Many
from ._shards import Shards
from .errors import NoCache

Progress = Callable[[int, int], Any]
"""Told how many of how many entries were looked at."""

_PAGE = 200
# Settings whose 0 means that there is none, and which their CREATE does not take as that.
_NONE_BY_ZERO = {"dim", "matryoshka", "maxerror"}

# A document that is newer where it belongs stays: both are in one hash slot, so one script can tell.
_ADD_NEW = """
if redis.call('RAG.MGET', KEYS[1], 'IDS', 1, ARGV[1], 'RETURN', 1, 'id')[1] then return 0 end
redis.call('RAG.ADD', KEYS[1], unpack(ARGV))
return 1
"""


def places_before(shards: Shards) -> list[str]:
    """Where entries may stand that belong elsewhere now."""
    if shards.was is None:
        raise ValueError("there is nothing to move: shards_before says how many shards there were")
    return shards.names(shards.was)


def entries_in(names: Sequence[str], info: str) -> Flow[int]:
    replies = yield Many([(info, name) for name in names])
    total = 0
    for reply in replies:
        if isinstance(reply, Exception):
            if not isinstance(reply, NoCache):
                raise reply
        else:
            told = r.mapping(reply)
            total += int(told.get("entries", told.get("chunks", 0)))
    return total


def settings_for(info: Any, words: dict[str, str]) -> list[Argument]:
    """The settings of a container as its CREATE takes them. MODEL says what EMBED and SCRIPT said."""
    told = r.mapping(info)
    args: list[Argument] = []
    for name, word in words.items():
        value = told.get(name)
        said = "" if value is None else r.text(value) if isinstance(value, str | bytes) else str(value)
        if said and not (name in _NONE_BY_ZERO and float(said) == 0):
            args += [word, said]
    return args


def make_alike(shards: Shards, info: str, create: str, words: dict[str, str]) -> Flow[None]:
    """Makes the shards that are missing, with the settings of those of before."""
    replies = yield Many([(info, name) for name in places_before(shards)])
    known = next((reply for reply in replies if not isinstance(reply, Exception)), None)
    if known is None:
        return
    args = settings_for(known, words)
    there = yield Many([(info, name) for name in shards.names()])
    for name, reply in zip(shards.names(), there, strict=True):
        if isinstance(reply, NoCache):
            yield Command((create, name, *args))
        elif isinstance(reply, Exception):
            raise reply


def pages(command: str, name: str) -> Callable[[int], Flow[tuple[int, list[bytes]]]]:
    """The ids of a container, page by page; nothing of one that does not exist."""

    def page(cursor: int) -> Flow[tuple[int, list[bytes]]]:
        try:
            after, ids = yield Command((command, name, cursor, "COUNT", _PAGE))
        except NoCache:
            return 0, []
        return int(after), [r.raw(id) for id in ids]

    return page


def checked(replies: Sequence[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return list(replies)


def move_answers(self: Any, words: dict[str, str], progress: Progress | None) -> Flow[int]:
    shards: Shards = self.shards
    before = places_before(shards)
    total = yield from entries_in(before, "LLMCACHE.INFO")
    yield from make_alike(shards, "LLMCACHE.INFO", "LLMCACHE.CREATE", words)
    seen = moved = 0
    for name in before:
        page = pages("LLMCACHE.SCAN", name)
        cursor = -1
        while cursor != 0:
            cursor, ids = yield from page(max(cursor, 0))
            rows = (yield Many([("LLMCACHE.ENTRY", name, id, "VECTOR") for id in ids])) if ids else []
            entries = [r.mapping(row) for row in checked(rows) if row is not None]
            leaving = [(e, place) for e in entries if (place := self._place_of(e)) != name]
            stored = (yield Many([_stored(e, place) for e, place in leaving])) if leaving else []
            checked(stored)
            gone = (yield Many([("LLMCACHE.DEL", name, e["id"]) for e, _ in leaving])) if leaving else []
            for (_, place), made, was in zip(leaving, stored, checked(gone), strict=True):
                if made is not None and not int(was):
                    # Somebody removed it while it was on its way.
                    yield Command(("LLMCACHE.DEL", place, r.raw(made)))
                moved += made is not None and int(was) > 0
            seen += len(ids)
            if progress is not None:
                progress(seen, max(seen, total))
    return moved


def _stored(entry: dict[str, Any], place: str) -> list[Argument]:
    vector = entry.get("vector")
    args: list[Argument] = ["LLMCACHE.SETSEM" if vector is not None else "LLMCACHE.SET", place]
    args += ["PROMPT", entry["prompt"], "RESPONSE", entry["response"]]
    if vector is not None:
        args += ["FP32", vector]
    for word in ("SCOPE", "CONTEXT"):
        if entry[word.lower()]:
            args += [word, entry[word.lower()]]
    if entry["id"] != entry["digest"]:
        args += ["ID", entry["id"]]
    if entry["tags"]:
        args += ["TAGS", len(entry["tags"]), *entry["tags"]]
    if entry["meta"] is not None:
        args += ["META", entry["meta"]]
    deadline = int(entry["deadline"])
    args += ["PXAT", deadline] if deadline else ["PERSIST"]
    # What is stale by its age is that by its deadline and grace.
    invalidated = int(entry["stale"]) and int(entry["ttl"]) != 0
    args += ["MOVED", int(entry["age"]), int(entry["hits"]), int(entry["grace"]), "STALE" if invalidated else "FRESH"]
    for word in ("TOKENS", "LATENCY"):
        if int(entry[word.lower()]):
            args += [word, int(entry[word.lower()])]
    if float(entry["cost"]):
        args += ["COST", entry["cost"]]
    return [*args, "NX"]


def move_documents(self: Any, words: dict[str, str], progress: Progress | None) -> Flow[int]:
    shards: Shards = self.shards
    before = places_before(shards)
    total = yield from entries_in(before, "RAG.INFO")
    yield from make_alike(shards, "RAG.INFO", "RAG.CREATE", words)
    fields = ("id", "text", "meta", "tags", "tokens", "ttl", "vector", "age", "hits")
    seen = moved = 0
    for name in before:
        page = pages("RAG.SCAN", name)
        cursor = -1
        while cursor != 0:
            cursor, ids = yield from page(max(cursor, 0))
            leaving = [(id, place) for id in ids if (place := shards.place(id)) != name]
            asked = [id for id, _ in leaving]
            rows: list[Any] = []
            if asked:
                # One by one: a page of long texts may be more than one reply holds.
                got = yield Many([("RAG.MGET", name, "IDS", 1, id, "RETURN", len(fields), *fields) for id in asked])
                rows = [row[0] for row in checked(got)]
            there = [(place, r.mapping(row)) for (_, place), row in zip(leaving, rows, strict=True) if row is not None]
            stored = (yield Many([_added(row, place) for place, row in there])) if there else []
            checked(stored)
            gone = (yield Many([("RAG.DEL", name, "IDS", 1, row["id"]) for _, row in there])) if there else []
            for (place, row), made, was in zip(there, stored, checked(gone), strict=True):
                if int(made) and not int(was):
                    yield Command(("RAG.DEL", place, "IDS", 1, row["id"]))
                moved += bool(int(made) and int(was))
            seen += len(ids)
            if progress is not None:
                progress(seen, max(seen, total))
    return moved


def _added(row: dict[str, Any], place: str) -> list[Argument]:
    args: list[Argument] = [row["id"], *(["NOVECTOR"] if row["vector"] is None else ["FP32", row["vector"]])]
    args += ["TEXT", row["text"]]
    if row["meta"] is not None:
        args += ["META", row["meta"]]
    if row["tags"]:
        args += ["TAGS", len(row["tags"]), *row["tags"]]
    args += ["TOKENS", max(1, int(row["tokens"]))]
    ttl = int(row["ttl"])
    args += ["PERSIST"] if ttl < 0 else ["PX", max(1, ttl)]
    # The last of its hits was that it was read here.
    args += ["MOVED", int(row["age"]), max(0, int(row["hits"]) - 1)]
    return ["EVAL", _ADD_NEW, 1, place, *args]


def move_chunks(self: Any, progress: Progress | None) -> Flow[int]:
    """Chunks go in the order of their places, so that none is without the one before it."""
    shards: Shards = self.shards
    before = places_before(shards)
    total = yield from entries_in(before, "KVCHUNK.INFO")
    seen = moved = 0
    for name in before:
        page = pages("KVCHUNK.SCAN", name)
        known: dict[str, tuple[int, str | None]] = {}
        cursor = -1
        while cursor != 0:
            cursor, ids = yield from page(max(cursor, 0))
            rows = (yield Many([("KVCHUNK.GET", name, r.text(id), "NOPAYLOAD") for id in ids])) if ids else []
            for row in checked(rows):
                if row is not None:
                    told = r.mapping(row[0])
                    known[r.text(told["digest"])] = (int(told["position"]), r.maybe_text(told["parent"]))
        wanted = _wanted(known, shards, self.shard_depth)
        for digest in sorted(known, key=lambda one: known[one][0]):
            seen += 1
            places = wanted[digest] - {name}
            row = (yield Command(("KVCHUNK.GET", name, digest))) if places else None
            for place in sorted(places) if row is not None else ():
                moved += yield from _moved_chunk(row, place)
            if progress is not None:
                progress(seen, max(seen, total))
        # From the last to the first: what is cut off between is a whole prefix still.
        leaving = [digest for digest in known if name not in wanted[digest]]
        for digest in sorted(leaving, key=lambda one: -known[one][0]):
            yield Command(("KVCHUNK.DEL", name, digest))
    return moved


def _wanted(known: dict[str, tuple[int, str | None]], shards: Shards, depth: int) -> dict[str, set[str]]:
    """Where each chunk belongs: by the digest behind its prompt's first chunks, which are wherever one needs them."""
    wanted: dict[str, set[str]] = {}
    for digest in sorted(known, key=lambda one: known[one][0]):
        position, parent = known[digest]
        if position >= depth and parent in wanted:
            wanted[digest] = wanted[parent]
            continue
        place = shards.place(bytes.fromhex(digest))
        wanted[digest] = {place}
        at = parent
        while position == depth - 1 and at is not None and at in known:
            wanted[at] = wanted[at] | {place}
            at = known[at][1]
    return wanted


def _moved_chunk(row: Any, place: str) -> Flow[int]:
    told, _, pieces = row
    about = r.mapping(told)
    args: list[Argument] = ["HASH", bytes.fromhex(r.text(about["digest"]))]
    if about["parent"] is not None:
        args += ["PARENT", bytes.fromhex(r.text(about["parent"]))]
    args += ["PAYLOAD", len(pieces), *pieces]
    if about["meta"] is not None:
        args += ["META", about["meta"]]
    if int(about["prio"]):
        args += ["PRIO", int(about["prio"])]
    deadline = int(about["deadline"])
    if 0 < deadline < 1 << 62:
        args += ["PXAT", deadline]
    reply = yield Command(("KVCHUNK.PUT", place, *args, "NX"))
    return int(r.text(reply) == "STORED")
