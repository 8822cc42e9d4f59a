"""What the methods of a cache of embeddings do (`EMBCACHE.*`), as flows. Knows no socket, thread or loop."""

from __future__ import annotations

import array
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from . import _replies as r
from . import limits, vectors
from ._flow import Argument, Call, Command, Flow, Sleep, While
from ._observe import observed
from ._several import batches, every, expiry, milliseconds, present, summed, unless_absent
from ._shards import Shards
from .errors import BreakerOpen, LeaseLost, MakingFailed, NoCache, ServerError, is_outage
from .types import Embed, EmbedMany, Fields
from .vectors import Vector

if TYPE_CHECKING:
    from ._clients import _Shared

log = logging.getLogger("llmcache")

Floats = array.array


class EmbeddingBase:
    _connection: Any

    def __init__(
        self,
        client: Any,
        name: str = "embeddings",
        *,
        model: str,
        ttl: float | None = None,
        lease: float = 30.0,
        wait: float = 20.0,
        fail_open: bool = True,
        shards: int = 1,
        shards_before: int | None = None,
    ):
        self._connection = self._connect(client)
        self.name, self.model, self.ttl = name, model, ttl
        self.lease, self.wait, self.fail_open = lease, wait, fail_open
        self.shards = Shards(name, shards, shards_before)

    def _connect(self, client: Any) -> Any:
        raise NotImplementedError

    def _passed_over(self, error: Exception) -> None:
        """Goes on without the cache where the server is away or refuses; else raises what was caught."""
        if not (self.fail_open and is_outage(error)):
            raise error
        if not isinstance(error, ServerError):
            self._connection.rest()
        log.warning("llmcache %s: the cache is passed over: %s", self.name, error)

    def _grouped(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Which texts, by their numbers, belong to which shard."""
        if self.shards.count == 1:
            return {self.shards.name: list(range(len(texts)))}
        groups: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            groups.setdefault(self.shards.place(r.raw(text)), []).append(at)
        return groups


class EmbeddingFlows(EmbeddingBase):
    if TYPE_CHECKING:
        _connection: _Shared

    def create(
        self, dim: int, *, quant: str | None = None, ttl: int | None = None, maxentries: int | None = None,
        maxmemory: int | None = None,
    ) -> Flow[None]:  # fmt: skip
        """Creates the cache: `quant` NONE, F16 or Q8, `ttl` in seconds."""
        args: list[Argument] = ["MODEL", self.model, "DIM", dim]
        for word, value in (("QUANT", quant), ("TTL", ttl), ("MAXENTRIES", maxentries), ("MAXMEMORY", maxmemory)):
            if value is not None:
                args += [word, value]
        yield from every([("EMBCACHE.CREATE", name, *args) for name in self.shards.names()])

    def info(self) -> Flow[Fields]:
        """Settings, use and memory; of several shards summed."""
        replies = yield from present([("EMBCACHE.INFO", name) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no cache of embeddings "{self.name}"')
        return summed([Fields.of(reply) for reply in replies])

    def set(self, text: str, vector: Vector, *, ttl: float | None = None, lease: bytes | None = None) -> Flow[None]:
        """Keeps the embedding of a text."""
        name = self.shards.place(r.raw(text))
        args: list[Argument] = ["TEXT", r.raw(text), *vectors.blob(vector), *expiry(self.ttl if ttl is None else ttl)]
        args += ["MODEL", self.model]
        if lease is not None:
            args += ["LEASE", lease]
        yield Command(("EMBCACHE.SET", name, *args))

    def get(self, text: str) -> Flow[Floats[float] | None]:
        """The embedding of a text."""
        for name in self.shards.places(r.raw(text)):
            reply = yield Command(("EMBCACHE.GET", name, "TEXT", r.raw(text), "MODEL", self.model))
            if reply is not None:
                return vectors.floats(reply)
        return None

    def get_many(self, texts: Sequence[str], *, ttl: float | None = None) -> Flow[list[Floats[float] | None]]:
        """The embeddings of many texts, None where there is none; with `ttl` their deadlines move."""
        found: list[Floats[float] | None] = [None] * len(texts)
        commands: list[list[Argument]] = []
        asked: list[Sequence[int]] = []
        for name, members in self._grouped(texts).items():
            for batch in batches(members, limits.RESULTS):
                keys = [r.raw(texts[at]) for at in batch]
                if ttl is None:
                    commands.append(["EMBCACHE.MGET", name, "TEXTS", len(keys), *keys, "MODEL", self.model])
                else:
                    commands.append(
                        ["EMBCACHE.MGETEX", name, "TEXTS", len(keys), *keys, *expiry(ttl), "MODEL", self.model]
                    )
                asked.append(batch)
        for batch, reply in zip(asked, (yield from unless_absent(commands)), strict=True):
            for at, blob in zip(batch, reply or (), strict=False):
                if blob is not None:
                    found[at] = vectors.floats(blob)
        if self.shards.was is not None:
            absent = [at for at, vector in enumerate(found) if vector is None]
            commands = [
                ["EMBCACHE.GET", self.shards.place(r.raw(texts[at]), self.shards.was), "TEXT", r.raw(texts[at])]
                for at in absent
            ]
            brought: dict[str, Floats[float]] = {}
            for at, blob in zip(absent, (yield from unless_absent(commands)), strict=True):
                if blob is not None:
                    found[at] = brought[texts[at]] = vectors.floats(blob)
            if brought:
                # Each that is read goes where it belongs: an embedding has no list that could be walked over.
                yield from EmbeddingFlows.set_many(self, list(brought.items()), ttl=ttl)
        return found

    def set_many(self, items: Sequence[tuple[str, Vector]], *, ttl: float | None = None) -> Flow[int]:
        """Keeps many embeddings; each batch whole or not at all. How many were kept."""
        tail: list[Argument] = [*expiry(self.ttl if ttl is None else ttl), "MODEL", self.model]
        commands: list[list[Argument]] = []
        for name, members in self._grouped([text for text, _ in items]).items():
            for batch in batches(members, limits.STORE_BATCH):
                args: list[Argument] = ["EMBCACHE.MSET", name, len(batch)]
                for at in batch:
                    args += ["TEXT", r.raw(items[at][0]), *vectors.blob(items[at][1])]
                commands.append(args + tail)
        return sum((yield from every(commands))) if commands else 0

    def embed_many(
        self, texts: Sequence[str], compute: EmbedMany, *, ttl: float | None = None
    ) -> Flow[list[Sequence[float]]]:
        """The embeddings of all texts: those that are missing by one call `compute(missing)`, and kept.

        A text that stands several times is computed once.
        """
        with observed("embed_many", self.name) as told:
            found: list[Any] = [None] * len(texts)
            try:
                if not (self.fail_open and self._connection.resting):
                    found = list((yield from EmbeddingFlows.get_many(self, texts)))
            except Exception as error:
                self._passed_over(error)
            missing = list(dict.fromkeys(text for text, vector in zip(texts, found, strict=True) if vector is None))
            told["result"] = "miss" if missing else "hit"
            told["missing"] = len(missing)
            if not missing:
                return found
            made = list((yield Call(compute, (missing,))))
            if len(made) != len(missing):
                raise ValueError(f"{len(missing)} texts were to be embedded, {len(made)} vectors came")
            made = [vectors.floats(v) if isinstance(v, bytes) else v for v in made]
            try:
                if not (self.fail_open and self._connection.resting):
                    yield from EmbeddingFlows.set_many(self, list(zip(missing, made, strict=True)), ttl=ttl)
            except Exception as error:
                self._passed_over(error)
            by_text = dict(zip(missing, made, strict=True))
            return [by_text[t] if v is None else v for t, v in zip(texts, found, strict=True)]

    def get_or_compute(self, text: str, compute: Embed, *, ttl: float | None = None) -> Flow[Sequence[float]]:
        """The embedding of a text; of all who ask at once for what is missing, one computes it."""
        end = time.monotonic() + self.wait
        while True:
            try:
                told = yield from _fetch(self, text, end)
            except Exception as error:
                self._passed_over(error)
                told = {"status": b"BUSY"}
                end = 0.0
            status = r.text(told["status"])
            if status == "HIT":
                return vectors.floats(told["vector"])
            if status == "LEAD":
                return (yield from _lead(self, text, compute, told["token"], ttl))
            if status == "NEG":
                raise MakingFailed(r.text(told.get("error")), r.seconds(told.get("retry_ms")) or 0.0)
            if status == "OPEN":
                raise BreakerOpen(r.seconds(told.get("retry_ms")) or 0.0)
            if time.monotonic() >= end:
                return cast(Sequence[float], (yield Call(compute, (text,))))
            yield Sleep(min(r.seconds(told.get("retry_ms")) or 0.0, max(0.0, end - time.monotonic())))

    def delete(self, *texts: str) -> Flow[int]:
        """Removes embeddings; how many there were."""
        commands: list[Sequence[Argument]] = []
        for name in self.shards.every():
            commands += [
                ("EMBCACHE.DEL", name, "TEXTS", len(b), *map(r.raw, b), "MODEL", self.model)
                for b in batches(texts, limits.RESULTS)
            ]
        return sum((yield from present(commands)))


def _fetch(self: EmbeddingFlows, text: str, end: float) -> Flow[dict[str, Any]]:
    args: list[Argument] = ["TEXT", r.raw(text), "LEASE", milliseconds(self.lease), "MODEL", self.model]
    piece = milliseconds(self._connection.uncut(max(0.0, end - time.monotonic())))
    name = self.shards.place(r.raw(text))
    if piece and self._connection.take_slot():
        try:
            reply = yield Command(("EMBCACHE.FETCH", name, *args, "WAIT", piece), waits=True)
        finally:
            self._connection.free_slot()
    else:
        reply = yield Command(("EMBCACHE.FETCH", name, *args))
    return r.mapping(reply)


def _lead(self: EmbeddingFlows, text: str, compute: Embed, token: bytes, ttl: float | None) -> Flow[Sequence[float]]:
    name = self.shards.place(r.raw(text))

    def beat() -> Flow[bool]:
        try:
            yield Command(("EMBCACHE.EXTEND", name, token, milliseconds(self.lease)))
        except LeaseLost:
            return False
        except Exception as error:
            if not is_outage(error):
                raise
        return True

    def give_up(*command: Argument) -> Flow[None]:
        try:
            yield Command(command)
        except Exception as error:
            if not (isinstance(error, LeaseLost) or is_outage(error)):
                raise

    try:
        made = yield While(Call(compute, (text,)), beat, self.lease / 3)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".encode()[:1_000]
        yield from give_up("EMBCACHE.FAIL", name, token, "ERR", said)
        raise
    except BaseException:
        yield from give_up("EMBCACHE.EXTEND", name, token, 1)
        raise
    try:
        yield from EmbeddingFlows.set(self, text, made, ttl=ttl, lease=token)
    except LeaseLost:
        pass
    except Exception as error:
        self._passed_over(error)
    return vectors.floats(made) if isinstance(made, bytes) else made
