"""The LLMCACHE commands as calls, so that a test reads as what it does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from . import names, vectors
from .replies import Hit, fields, hit, hits
from .wire import Failure, Wire


def options(given: dict[str, Any]) -> list:
    """Keyword arguments as command arguments: `scope="a"`, `tags=["x"]`, `nx=True`, `vector=v`."""
    out: list = []
    for name, value in given.items():
        match name:
            case _ if value is None or value is False:
                continue
            case "vector":
                out += value if isinstance(value, list) else vectors.fp32(value)
            case "tags" | "return_":
                out += [name.rstrip("_").upper(), len(value), *value]
            case "meta" if not isinstance(value, str | bytes):
                out += ["META", json.dumps(value)]
            case _ if value is True:
                out.append(name.upper())
            case _:
                out += [name.upper(), value]
    return out


class Cache:
    """One cache behind one client, or behind a pipeline of it."""

    def __init__(self, client: redis.Redis, name: bytes | str = "faq"):
        self.client = client
        self.name = name

    def run(self, command: str, *arguments) -> Any:
        return self.client.execute_command(f"LLMCACHE.{command}", self.name, *arguments)

    def create(self, **given) -> Any:
        return self.run("CREATE", *options(given))

    def setsem(self, prompt, response, vector=None, **given) -> str | None:
        reply = self.run("SETSEM", "PROMPT", prompt, "RESPONSE", response, *options({"vector": vector, **given}))
        return reply.decode() if isinstance(reply, bytes) else reply

    def set(self, prompt, response, **given) -> str | None:
        reply = self.run("SET", "PROMPT", prompt, "RESPONSE", response, *options(given))
        return reply.decode() if isinstance(reply, bytes) else reply

    def get(self, prompt, **given) -> bytes | None:
        return self.run("GET", "PROMPT", prompt, *options(given))

    def getsem(self, **given) -> Hit | None:
        """GETSEM without COUNT and EXPLAIN."""
        return hit(self.run("GETSEM", *options(given)))

    def getsem_many(self, count: int, **given) -> list[Hit]:
        return hits(self.run("GETSEM", *options({**given, "count": count})))

    def explain(self, **given) -> dict[str, Any]:
        """GETSEM with EXPLAIN, nested replies in one shape."""
        reply = fields(self.run("GETSEM", *options({**given, "explain": True})))
        reply["hits"] = hits(reply["hits"])
        if reply["nearest"] is not None:
            nearest = fields(reply["nearest"])
            reply["nearest"] = nearest | {"id": nearest["id"].decode(), "similarity": float(nearest["similarity"])}
        for name in ("status", "reason", "index", "tier"):
            if reply[name] is not None:
                reply[name] = reply[name].decode()
        reply["threshold"] = float(reply["threshold"])
        return reply

    def info(self) -> dict[str, Any]:
        return fields(self.run("INFO"))

    def stats(self, *arguments) -> dict[str, Any]:
        return fields(self.run("STATS", *arguments))

    def config(self) -> dict[str, Any]:
        return fields(self.run("CONFIG", "GET"))

    def config_set(self, name: str, value) -> Any:
        return self.run("CONFIG", "SET", name, value)

    def entry(self, id_: str) -> dict[str, Any] | None:
        reply = self.run("ENTRY", id_)
        return None if reply is None else fields(reply)

    def delete(self, *ids: str) -> int:
        return self.run("DEL", *ids)

    def expire(self, id_: str, *expiry) -> int:
        return self.run("EXPIRE", id_, *expiry)

    def scan_ids(self, count: int | None = None, **given) -> list[str]:
        """All ids, page by page to the end; an id that stands twice is listed twice."""
        found, cursor, pages = [], b"0", 0
        while True:
            cursor, page = self.run("SCAN", cursor, *options({"count": count, **given}))
            found += [id_.decode() for id_ in page]
            pages += 1
            assert pages < 100_000, "SCAN does not end"
            if cursor == b"0":
                return found

    @property
    def uid(self) -> str:
        return self.info()["uid"].decode()

    def key_of(self, id_: str) -> bytes:
        """The Redis key of the entry with this id."""
        return names.entry_key(self.name, self.uid, id_)

    def entry_keys(self) -> list[bytes]:
        """Keys of all entries that this cache's name owns, of whatever uid."""
        return [key for key in self.client.scan_iter(count=10_000) if key.startswith(self._head())]

    def _head(self) -> bytes:
        name = names.raw(self.name)
        return (name if names.hash_tag(name) else b"{" + name + b"}") + b":"

    def bulk(self, commands: Iterable[Sequence]) -> list:
        """Many commands by a connection of their own, a few times faster than redis-py; none may fail."""
        where = self.client.connection_pool.connection_kwargs
        with Wire(where["port"]) as wire:
            if where.get("db"):
                assert wire("SELECT", where["db"]) == "OK"
            replies = wire.pipeline(commands)
        failed = [reply for reply in replies if isinstance(reply, Failure)]
        assert not failed, f"{len(failed)} refused, the first with: {failed[0].text}"
        return replies

    def fill(self, count: int, dim: int = 32, seed: int = 7, size: int = 64, start: int = 0, **given) -> list[str]:
        """Stores `count` entries from `start` on: prompt i is `prompt i`, its vector row i."""
        rows = vectors.units(count, dim, seed, start)
        tail = options(given)
        replies = self.bulk(
            (
                *("LLMCACHE.SETSEM", self.name, "PROMPT", f"prompt {i}"),
                *("RESPONSE", answer(i, size), *vectors.fp32(row), *tail),
            )
            for i, row in enumerate(rows, start)
        )
        return [id_.decode() for id_ in replies]

    def found_by_meaning(self, numbers: Sequence[int], dim: int = 32, seed: int = 7, **given) -> set[int]:
        """Which of the entries made by `fill` come back for their own vector, prompt not told."""
        numbers = list(numbers)
        if not numbers:
            return set()
        first = min(numbers)
        rows = vectors.units(max(numbers) + 1 - first, dim, seed, first)
        tail = options(given)
        replies = self.bulk(
            ("LLMCACHE.GETSEM", self.name, *vectors.fp32(rows[i - first]), "RETURN", 2, "prompt", "tier", *tail)
            for i in numbers
        )
        found = set()
        for i, reply in zip(numbers, replies, strict=True):
            got = hit(reply)
            if got is not None and got.prompt == b"prompt %d" % i:
                assert got.tier == "semantic"
                found.add(i)
        return found


def answer(i: int, size: int) -> str:
    """The response of entry i made by `fill`."""
    head = f"answer {i} "
    return head + "x" * max(0, size - len(head))
