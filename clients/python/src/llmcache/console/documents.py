"""What the page Documents shows: a search, and what each of its bounds left out."""

from __future__ import annotations

from typing import Any

from .. import _replies as r
from .answers import vector_of
from .store import Refused, Store, whole_number
from .text import bytes_of, handle, line, shown

COUNT_MAX = 20
CONSIDERED = 60


async def index(store: Store, name: str) -> dict[str, Any]:
    """Settings and size of an index."""
    told = await store.told("RAG.INFO", bytes_of(name))
    return {
        field: line(value) if isinstance(value, bytes) else value for field, value in told.items() if field != "prefix"
    }


def _asked(given: dict[str, Any]) -> list[Any]:
    asked = vector_of(given.get("vector"))
    if given.get("text"):
        asked += ["TEXT", str(given["text"])]
    if given.get("words"):
        asked += ["WORDS", str(given["words"])]
    if not asked:
        raise Refused("give a question, words or a vector")
    return asked


async def _ids(store: Store, key: bytes, *arguments: Any) -> dict[bytes, dict[str, Any]]:
    reply = await store.run("RAG.SEARCH", key, *arguments, "RETURN", 3, "id", "similarity", "tokens")
    return {one["id"]: one for one in map(r.mapping, reply)}


async def search(store: Store, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The documents found, and those left out of them with the bound that did it."""
    key, asked = bytes_of(name), _asked(given)
    count = whole_number(given.get("count"), "COUNT", 1, COUNT_MAX, 5)
    filter_ = ["FILTER", str(given["filter"])] if given.get("filter") else []
    least = ["SIMILARITY", given["similarity"]] if given.get("similarity") not in (None, "") else []
    diverse = ["MMR", given["mmr"]] if given.get("mmr") not in (None, "") else []
    budget = ["TOKENS", whole_number(given["tokens"], "TOKENS", 1, 1 << 31, 0)] if given.get("tokens") else []
    # Each bound alone is told from the difference that it makes.
    everything = await _ids(store, key, *asked, "COUNT", CONSIDERED)
    filtered = await _ids(store, key, *asked, *filter_, "COUNT", CONSIDERED) if filter_ else everything
    near = await _ids(store, key, *asked, *filter_, *least, "COUNT", CONSIDERED) if least else filtered
    chosen = await _ids(store, key, *asked, *filter_, *least, *diverse, "COUNT", count)
    kept = await _ids(store, key, *asked, *filter_, *least, *diverse, *budget, "COUNT", count) if budget else chosen
    # One trip, so that a long text that the server refuses to answer costs no more than itself.
    fields = ["RETURN", 5, "id", "text", "meta", "tags", "tokens"]
    reply = await store.run("RAG.MGET", key, "IDS", len(kept), *kept, *fields) if kept else []
    texts = {one["id"]: one for one in (r.mapping(reply) for reply in reply if reply is not None)}
    return {
        "found": [_document(told, texts.get(id_)) for id_, told in kept.items()],
        "left_out": [
            {**_document(told, None), "why": why}
            for id_, told in everything.items()
            if (why := _why(id_, filtered, near, chosen, kept, bool(diverse)))
        ],
        "considered": len(everything),
    }


def _why(id_: bytes, filtered: Any, near: Any, chosen: Any, kept: Any, diverse: bool) -> str | None:
    if id_ in kept:
        return None
    if id_ in chosen:
        return "over the token budget"
    if id_ not in filtered:
        return "FILTER"
    if id_ not in near:
        return "below SIMILARITY"
    return "MMR: too like one chosen before" if diverse else "beyond COUNT"


def _document(told: dict[str, Any], whole: dict[str, Any] | None) -> dict[str, Any]:
    similarity = told.get("similarity")
    return {
        "id": handle(told["id"]),
        "name": line(told["id"], 80),
        "similarity": None if similarity is None else float(similarity),
        "tokens": None if told.get("tokens") is None else int(told["tokens"]),
        "text": shown(whole["text"]) if whole else None,
        "meta": shown(whole["meta"]) if whole else None,
        "tags": [line(tag, 64) for tag in whole["tags"] or ()] if whole else [],
    }
