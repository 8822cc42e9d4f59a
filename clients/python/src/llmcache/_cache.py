"""What the methods of a cache of answers do (`LLMCACHE.*`), as flows. Knows no socket, thread or loop.

`llmcache.LLMCache` and `llmcache.asyncio.LLMCache` are these flows carried out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _replies as r
from . import filters, limits, vectors
from ._flow import Argument, Call, Command, Flow, Sleep
from ._moving import Progress, move_answers
from ._observe import observed
from ._several import batches, every, expiry, milliseconds, present, quietly, scanned, summed
from ._shards import Shards, entry_digest
from .errors import LeaseLost, NoCache
from .types import Context, Embed, Explanation, Fetched, Fields, Hit, Judge, Stats
from .vectors import Vector

if TYPE_CHECKING:
    from ._clients import _Shared

log = logging.getLogger("llmcache")

Text = str | bytes

_WORDS = {"dim": "DIM", "matryoshka": "MATRYOSHKA", "model": "MODEL", "threshold": "THRESHOLD", "ttl": "TTL",
          "jitter": "JITTER", "maxentries": "MAXENTRIES", "maxmemory": "MAXMEMORY", "quant": "QUANT", "index": "INDEX",
          "m": "M", "efc": "EFC", "ef": "EF", "guard": "GUARD", "grace": "GRACE", "numbers": "NUMBERS",
          "exchange": "EXCHANGE", "maxerror": "MAXERROR", "confidence": "CONFIDENCE", "audit": "AUDIT", "cold": "COLD",
          "minsim": "MINSIM", "nearmisses": "NEARMISSES", "embed": "EMBED", "script": "SCRIPT"}  # fmt: skip
_FAILURE_BYTES = 1_000


class CacheBase:
    """The settings of a cache object; what every method falls back on."""

    _connection: Any

    def __init__(
        self,
        client: Any,
        name: str = "llmcache",
        *,
        embed: Embed | None = None,
        scope: str = "",
        context: str | Context = "",
        ttl: float | None = None,
        threshold: float | None = None,
        lease: float = 30.0,
        wait: float = 20.0,
        fail_open: bool = True,
        shards: int = 1,
        shards_before: int | None = None,
        shard_by: str | None = None,
        judge: Judge | None = None,
        audit: bool = True,
    ):
        if shard_by not in (None, "scope", "question"):
            raise ValueError("shard_by is 'scope' or 'question'")
        self._connection = self._connect(client)
        self.name = name
        self.embed = embed
        self.judge = judge
        self.audit = audit
        self.scope = scope
        self.context = context
        self.ttl = ttl
        self.threshold = threshold
        self.lease = lease
        self.wait = wait
        self.fail_open = fail_open
        self.shards = Shards(name, shards, shards_before)
        self.shard_by = shard_by or ("scope" if scope else "question")

    def _connect(self, client: Any) -> Any:
        raise NotImplementedError

    def _scoped(self, scope: str | None, context: str | Context | None) -> tuple[str, str]:
        return self.scope if scope is None else scope, str(self.context if context is None else context)

    def _shard_key(self, scope: str, context: str, prompt: Text | None) -> bytes | None:
        """What says where an entry lives; None where a question may be answered by any shard."""
        if self.shard_by == "scope":
            return r.raw(scope)
        if prompt is None:
            return None
        return entry_digest(r.raw(scope), r.raw(context), r.raw(prompt))

    def _place_key(self, scope: str, context: str, prompt: Text) -> bytes:
        """The same of a prompt that there has to be."""
        if self.shard_by == "scope":
            return r.raw(scope)
        return entry_digest(r.raw(scope), r.raw(context), r.raw(prompt))

    def _search_places(self, scope: str, context: str, prompt: Text | None) -> list[str]:
        """Which shards a question is asked: its own where it is exact or of a scope, else all."""
        key = self._shard_key(scope, context, prompt)
        return self.shards.every() if key is None else list(self.shards.places(key))

    def _place_of(self, entry: Mapping[str, Any]) -> str:
        """Where an entry belongs, of what the server tells of it."""
        if self.shard_by == "scope":
            return self.shards.place(entry["scope"])
        return self.shards.place(entry_digest(entry["scope"], entry["context"], entry["prompt"]))

    def _home(self, prompt: Text, scope: str | None, context: str | Context | None) -> str:
        """The shard where the answer to this prompt is stored."""
        in_scope, in_context = self._scoped(scope, context)
        key = self._place_key(in_scope, in_context, prompt)
        return self.shards.place(key)


def _partition(scope: str, context: str) -> list[Argument]:
    args: list[Argument] = []
    if scope:
        args += ["SCOPE", r.raw(scope)]
    if context:
        args += ["CONTEXT", r.raw(context)]
    return args


def _conditions(
    threshold: float | None, filter: filters.Filter | None, max_age: float | None, ef: int | None, guard: str | None
) -> list[Argument]:
    args: list[Argument] = []
    if threshold is not None:
        args += ["THRESHOLD", threshold]
    if filter is not None:
        args += ["FILTER", filters.text(filter)]
    if max_age is not None:
        args += ["MAXAGE", int(max_age)]
    if ef is not None:
        args += ["EF", ef]
    if guard is not None:
        args += ["GUARD", guard]
    return args


def _stored_with(
    tags: Sequence[str], meta: Mapping[str, Any] | None, ttl: float | None, tokens: int | None, cost: float | None,
    latency: float | None,
) -> list[Argument]:  # fmt: skip
    import json

    args: list[Argument] = []
    args += r.tagged(tags)
    if meta is not None:
        args += ["META", json.dumps(meta, ensure_ascii=False)]
    args += expiry(ttl)
    if tokens is not None:
        args += ["TOKENS", tokens]
    if cost is not None:
        args += ["COST", f"{cost:.9f}"]
    if latency is not None:
        args += ["LATENCY", min(milliseconds(latency), 7 * 86_400_000)]
    return args


def best(hits: Sequence[Hit | None]) -> Hit | None:
    """An exact answer before all others, then the nearest, a fresh one before a stale one."""
    found = [hit for hit in hits if hit is not None]
    return max(found, key=lambda hit: (hit.tier == "exact", hit.similarity, not hit.stale), default=None)


class CacheFlows(CacheBase):
    """The flows. They call each other by this class's name, because `self` is the object that carries them out."""

    if TYPE_CHECKING:
        _connection: _Shared

        def _leave(self, key: tuple[Any, ...], result: Any) -> None: ...

    # Settings.

    def create(self, /, **settings: Any) -> Flow[None]:
        """Creates the cache with settings of its own: dim, matryoshka, model, threshold, ttl, guard, quant, ..."""
        args: list[Argument] = []
        for word, value in settings.items():
            if word not in _WORDS:
                raise TypeError(f"a cache has no setting {word!r}; there are {', '.join(_WORDS)}")
            if value is not None:
                args += [_WORDS[word], value]
        yield from every([("LLMCACHE.CREATE", name, *args) for name in self.shards.names()])

    def config(self, /, **settings: Any) -> Flow[Fields]:
        """Changes settings, and returns all of them."""
        for word, value in settings.items():
            yield from every([("LLMCACHE.CONFIG", name, "SET", word, value) for name in self.shards.every()])
        reply = yield Command(("LLMCACHE.CONFIG", self.shards.names()[0], "GET"))
        return Fields.of(reply)

    def info(self) -> Flow[Fields]:
        """Settings, index and memory; of several shards the counts are summed."""
        replies = yield from present([("LLMCACHE.INFO", name) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no cache "{self.name}"')
        return summed([Fields.of(reply) for reply in replies])

    def stats(self, *, scope: str | None = None, reset: bool = False) -> Flow[Stats]:
        """Hits, misses and what they saved, since the servers started or `reset`; of several shards summed."""
        tail: list[Argument] = [] if scope is None else ["SCOPE", scope]
        if reset:
            tail.append("RESET")
        replies = yield from present([("LLMCACHE.STATS", name, *tail) for name in self.shards.every()])
        if not replies:
            raise NoCache(f'NOCACHE there is no cache "{self.name}"')
        return Stats(summed([Fields.of(reply) for reply in replies]))

    def drop(self) -> Flow[bool]:
        """Removes the cache with its settings; whether there was one."""
        return any((yield from every([("LLMCACHE.DROP", name) for name in self.shards.every()])))

    def clear(self) -> Flow[int]:
        """Removes every answer and keeps the settings; how many there were."""
        return (yield from CacheFlows.invalidate(self, all=True))

    # Storing.

    def set(
        self,
        prompt: Text,
        response: Text,
        *,
        vector: Vector | None = None,
        ttl: float | None = None,
        tags: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
        tokens: int | None = None,
        cost: float | None = None,
        latency: float | None = None,
        id: str | None = None,
        nx: bool = False,
        lease: bytes | None = None,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[str | None]:
        """Stores an answer and returns its id: found by meaning where there is a vector, else by its prompt alone.

        Without `vector` the prompt is embedded where the cache has `embed`. None where `nx` found an answer.
        """
        in_scope, in_context = self._scoped(scope, context)
        if vector is None and self.embed is not None:
            vector = yield Call(self.embed, (r.text(r.raw(prompt)),))
        args: list[Argument] = ["PROMPT", r.raw(prompt), "RESPONSE", r.raw(response), *vectors.arguments(vector)]
        if id is not None:
            args += ["ID", id]
        args += _partition(in_scope, in_context)
        args += _stored_with(tags, meta, self.ttl if ttl is None else ttl, tokens, cost, latency)
        if lease is not None:
            args += ["LEASE", lease]
        if nx:
            args.append("NX")
        key = self._place_key(in_scope, in_context, prompt)
        name = self.shards.place(key)
        reply = yield Command(("LLMCACHE.SETSEM" if vector is not None else "LLMCACHE.SET", name, *args))
        return r.maybe_text(reply)

    # Finding.

    def get(self, prompt: Text, *, scope: str | None = None, context: str | Context | None = None) -> Flow[str | None]:
        """The answer stored for exactly this prompt."""
        in_scope, in_context = self._scoped(scope, context)
        key = self._place_key(in_scope, in_context, prompt)
        places = self.shards.places(key)
        # Moved after it was asked for where it belongs, and before it was asked for where it was: it is there now.
        for name in (*places, *places[: len(places) - 1]):
            args = ("LLMCACHE.GET", name, "PROMPT", r.raw(prompt), *_partition(in_scope, in_context))
            reply = yield Command(args)
            if reply is not None:
                return r.text(reply)
        return None

    def search(
        self,
        prompt: Text | None = None,
        *,
        vector: Vector | None = None,
        threshold: float | None = None,
        filter: filters.Filter | None = None,
        max_age: float | None = None,
        ef: int | None = None,
        guard: str | None = None,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[Hit | None]:
        """The answer to this question, or to one that means the same."""
        found = yield from CacheFlows.search_all(
            self, prompt, vector=vector, threshold=threshold, filter=filter, max_age=max_age, ef=ef, guard=guard,
            scope=scope, context=context, count=None,
        )  # fmt: skip
        return found[0] if found else None

    def search_all(
        self,
        prompt: Text | None = None,
        *,
        vector: Vector | None = None,
        count: int | None = 10,
        threshold: float | None = None,
        filter: filters.Filter | None = None,
        max_age: float | None = None,
        ef: int | None = None,
        guard: str | None = None,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[list[Hit]]:
        """The `count` nearest answers above the threshold, best first."""
        in_scope, in_context = self._scoped(scope, context)
        with observed("search", self.name) as told:
            if vector is None and self.embed is not None and prompt is not None:
                vector = yield Call(self.embed, (r.text(r.raw(prompt)),))
            if threshold is None:
                threshold = self.threshold
            args: list[Argument] = [] if prompt is None else ["PROMPT", r.raw(prompt)]
            args += [*vectors.arguments(vector), *_partition(in_scope, in_context)]
            args += _conditions(threshold, filter, max_age, ef, guard)
            if count is not None:
                args += ["COUNT", count]
            names = self._search_places(in_scope, in_context, prompt if vector is None else None)
            for _ in range(1 if self.shards.was is None else 2):
                # What moved between two shards that were asked is found when they are asked again.
                replies = yield from every([("LLMCACHE.GETSEM", name, *args) for name in names])
                if count is None:
                    one = best([Hit.maybe(reply) for reply in replies])
                    hits = [] if one is None else [one]
                else:
                    hits = [Hit.of(one) for reply in replies for one in reply or ()]
                if hits:
                    break
            if count is not None and len(names) > 1:
                hits.sort(key=lambda hit: (hit.tier == "exact", hit.similarity), reverse=True)
                hits = hits[:count]
            tell(told, "hit" if hits else "miss", hits[0] if hits else None)
        return hits

    def search_many(
        self,
        questions: Sequence[tuple[Text | None, Vector]],
        *,
        threshold: float | None = None,
        filter: filters.Filter | None = None,
        max_age: float | None = None,
        guard: str | None = None,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[list[Hit | None]]:
        """The answers to many questions, each a prompt (or None) and its vector; in one trip for every thousand."""
        in_scope, in_context = self._scoped(scope, context)
        tail = [
            *_partition(in_scope, in_context),
            *_conditions(self.threshold if threshold is None else threshold, filter, max_age, None, guard),
        ]
        names = self._search_places(in_scope, in_context, None)
        found: list[Hit | None] = []
        for batch in batches(questions, limits.STORE_BATCH):
            args: list[Argument] = [len(batch)]
            for prompt, vector in batch:
                args += vectors.arguments(vector)
                if prompt is not None:
                    args += ["PROMPT", r.raw(prompt)]
            replies = yield from every([("LLMCACHE.MGETSEM", name, *args, *tail) for name in names])
            found += [best([Hit.maybe(reply[at]) for reply in replies]) for at in range(len(batch))]
        return found

    def explain(
        self,
        prompt: Text | None = None,
        *,
        vector: Vector | None = None,
        threshold: float | None = None,
        filter: filters.Filter | None = None,
        max_age: float | None = None,
        guard: str | None = None,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[Explanation]:
        """Why this question is answered, or is not; of several shards what the nearest says."""
        in_scope, in_context = self._scoped(scope, context)
        if vector is None and self.embed is not None and prompt is not None:
            vector = yield Call(self.embed, (r.text(r.raw(prompt)),))
        args: list[Argument] = [] if prompt is None else ["PROMPT", r.raw(prompt)]
        args += [*vectors.arguments(vector), *_partition(in_scope, in_context)]
        args += _conditions(self.threshold if threshold is None else threshold, filter, max_age, None, guard)
        names = self._search_places(in_scope, in_context, prompt if vector is None else None)
        replies = yield from every([("LLMCACHE.GETSEM", name, *args, "EXPLAIN") for name in names])
        told = [Explanation.of(reply) for reply in replies]
        return max(told, key=lambda e: (bool(e.hits), float((e.nearest or {}).get("similarity", -2))))

    # One makes it, the others wait.

    def fetch(
        self,
        prompt: Text,
        *,
        vector: Vector | None = None,
        wait: float = 0.0,
        lease: float | None = None,
        beta: float | None = None,
        threshold: float | None = None,
        filter: filters.Filter | None = None,
        max_age: float | None = None,
        guard: str | None = None,
        audit: bool = False,
        scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[Fetched]:
        """Finds the answer, or takes the lease to make it; waits for somebody else's answer up to `wait` seconds.

        The wait is cut into pieces that the client's socket timeout does not reach. A caller that is told LEAD or
        LEAD-STALE stores the answer with `set(..., lease=token)`, or calls `fail`. With `audit` a cache with
        MAXERROR may add a ticket, for `feedback`.
        """
        in_scope, in_context = self._scoped(scope, context)
        args: list[Argument] = [
            "PROMPT", r.raw(prompt), *vectors.arguments(vector), *_partition(in_scope, in_context),
            *_conditions(self.threshold if threshold is None else threshold, filter, max_age, None, guard),
            "LEASE", milliseconds(self.lease if lease is None else lease),
        ]  # fmt: skip
        if beta is not None:
            args += ["BETA", beta]
        if audit:
            args.append("AUDIT")
        key = self._place_key(in_scope, in_context, prompt)
        home = self.shards.place(key)
        others = [n for n in self._search_places(in_scope, in_context, prompt if vector is None else None) if n != home]
        end = time.monotonic() + wait
        while True:
            left = end - time.monotonic()
            fetched = yield from CacheFlows._fetch_once(self, home, others, args, max(0.0, left))
            if fetched.status != "BUSY" or time.monotonic() >= end:
                return fetched
            if fetched.retry:
                yield Sleep(min(fetched.retry, max(0.0, end - time.monotonic())))

    def _fetch_once(self, home: str, others: Sequence[str], args: list[Argument], wait: float) -> Flow[Fetched]:
        """One FETCH at the shard where the answer is to be stored, and look-ups beside it at the others."""
        if not others:
            piece = milliseconds(self._connection.uncut(wait)) if wait > 0 else 0
            if piece and self._connection.take_slot():
                start = time.monotonic()
                try:
                    reply = yield Command(("LLMCACHE.FETCH", home, *args, "WAIT", piece), waits=True)
                finally:
                    self._connection.free_slot()
                fetched = Fetched.of(reply)
                # Told BUSY after it had waited: it asks again at once.
                waited = time.monotonic() - start >= piece / 2_000
                if fetched.status == "BUSY" and waited:
                    return Fetched("BUSY", retry=0.0)
                return fetched
            return Fetched.of((yield Command(("LLMCACHE.FETCH", home, *args))))
        at = args.index("LEASE")
        looked = [*args[:at]]
        replies = yield from every(
            [("LLMCACHE.FETCH", home, *args), *(("LLMCACHE.GETSEM", name, *looked) for name in others)]
        )
        fetched = Fetched.of(replies[0])
        hit = best([Hit.maybe(reply) for reply in replies[1:]])
        if hit is None or hit.stale or (fetched.status == "HIT" and best([fetched.hit, hit]) is fetched.hit):
            return fetched
        if fetched.token is not None:
            # Somebody has the answer elsewhere: the lease ends at once, and whoever asks next finds it too.
            yield from quietly(Command(("LLMCACHE.EXTEND", home, fetched.token, 1)), LeaseLost)
        return Fetched("HIT", hit=hit)

    def extend(
        self, prompt: Text, token: bytes, seconds: float, *, scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[None]:  # fmt: skip
        """Prolongs the lease to make the answer to this prompt: it ends `seconds` from now."""
        name = self._home(prompt, scope, context)
        yield Command(("LLMCACHE.EXTEND", name, token, milliseconds(seconds)))

    def fail(
        self, prompt: Text, token: bytes, error: str = "", *, backoff: float | None = None, scope: str | None = None,
        context: str | Context | None = None,
    ) -> Flow[None]:  # fmt: skip
        """Gives the lease up: who waits is told, and for `backoff` seconds who asks."""
        args: list[Argument] = [] if backoff is None else ["BACKOFF", milliseconds(backoff)]
        if error:
            args += ["ERR", r.raw(error)[:_FAILURE_BYTES]]
        yield Command(("LLMCACHE.FAIL", self._home(prompt, scope, context), token, *args))

    # Taking back.

    def invalidate(
        self,
        *,
        tag: str | None = None,
        scope: str | None = None,
        ids: Sequence[str] | None = None,
        near: Vector | None = None,
        similarity: float | None = None,
        filter: filters.Filter | None = None,
        older: float | None = None,
        all: bool = False,
        soft: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
    ) -> Flow[int]:
        """Takes answers out of use, by exactly one of tag, scope, ids, near + similarity, filter, older, all.

        `soft` keeps them as stale; `dry_run` counts only. Returns how many.
        """
        ways = [tag is not None, scope is not None, ids is not None, near is not None, filter is not None,
                older is not None, all]  # fmt: skip
        if sum(ways) != 1:
            raise TypeError("say exactly one of tag, scope, ids, near, filter, older and all")
        if (near is None) != (similarity is None):
            raise TypeError("near and similarity go together")
        tail: list[Argument] = [*(["SOFT"] if soft else []), *(["DRYRUN"] if dry_run else [])]
        if limit is not None:
            tail += ["LIMIT", limit]
        if ids is not None:
            heads: list[list[Argument]] = [["IDS", len(b), *b] for b in batches(list(ids), limits.IDS)]
        elif near is not None:
            assert similarity is not None
            heads = [["NEAR", *vectors.arguments(near), "SIMILARITY", similarity]]
        elif filter is not None:
            heads = [["FILTER", filters.text(filter)]]
        elif older is not None:
            heads = [["OLDER", int(older)]]
        elif tag is not None:
            heads = [["TAG", tag]]
        else:
            heads = [["SCOPE", scope] if scope is not None else ["ALL"]]
        names = self.shards.every()
        counts = yield from present([("LLMCACHE.INVALIDATE", n, *head, *tail) for head in heads for n in names])
        return sum(int(count) for count in counts)

    def delete(self, *ids: str) -> Flow[int]:
        """Removes answers by id; how many there were."""
        if not ids:
            return 0
        counts = yield from present([("LLMCACHE.DEL", name, *ids) for name in self.shards.every()])
        return sum(int(count) for count in counts)

    def expire(self, id: str, ttl: float | None) -> Flow[bool]:
        """Moves the deadline of an answer to `ttl` seconds from now; None removes it."""
        tail = expiry(float("inf") if ttl is None else ttl)
        done = yield from present([("LLMCACHE.EXPIRE", name, id, *tail) for name in self.shards.every()])
        return any(done)

    def entry(self, id: str) -> Flow[Fields | None]:
        """One answer with all that is known of it."""
        for reply in (yield from present([("LLMCACHE.ENTRY", name, id) for name in self.shards.every()])):
            if reply is not None:
                return Fields.of(reply)
        return None

    def ids(self, *, filter: filters.Filter | None = None) -> Flow[list[str]]:
        """The ids of all answers; in pages, so that no command holds up the server."""
        tail: list[Argument] = [] if filter is None else ["FILTER", filters.text(filter)]
        found: list[str] = []
        for name in self.shards.every():
            found += yield from scanned("LLMCACHE.SCAN", name, tail)
        return found

    def move(self, *, progress: Progress | None = None) -> Flow[int]:
        """Brings what was stored in `shards_before` shards to where it belongs now; how many answers moved.

        Others may read and write meanwhile. `progress(done, all)` is told after each page.
        """
        return (yield from move_answers(self, _WORDS, progress))

    # The same verbs as RedisVL's SemanticCache.

    def check(
        self,
        prompt: str | None = None,
        vector: Vector | None = None,
        num_results: int = 1,
        return_fields: Sequence[str] | None = None,
        filter_expression: filters.Filter | None = None,
        distance_threshold: float | None = None,
    ) -> Flow[list[dict[str, Any]]]:
        """As RedisVL's: the answers found, as dicts with `prompt`, `response`, `vector_distance`, ..."""
        found = yield from CacheFlows.search_all(
            self, prompt, vector=vector, count=num_results, filter=filter_expression,
            threshold=None if distance_threshold is None else 1 - distance_threshold,
        )  # fmt: skip
        rows = [
            {
                "entry_id": hit.id, "prompt": hit.prompt, "response": hit.response, "metadata": hit.meta,
                "vector_distance": round(1 - hit.similarity, 6), "key": hit.id,
            }
            for hit in found
        ]  # fmt: skip
        return rows if return_fields is None else [{k: row[k] for k in ("key", *return_fields)} for row in rows]

    def store(
        self,
        prompt: str,
        response: str,
        vector: Vector | None = None,
        metadata: Mapping[str, Any] | None = None,
        filters: Mapping[str, Any] | None = None,
        ttl: float | None = None,
    ) -> Flow[str]:
        """As RedisVL's: stores an answer, returns its id. What may be filtered by is META with the rest."""
        meta = {**(metadata or {}), **(filters or {})} or None
        stored = yield from CacheFlows.set(self, prompt, response, vector=vector, meta=meta, ttl=ttl)
        assert stored is not None
        return stored

    def set_threshold(self, distance_threshold: float) -> Flow[None]:
        """As RedisVL's: the cache serves what is at most so distant."""
        yield from CacheFlows.config(self, threshold=1 - distance_threshold)

    def set_ttl(self, ttl: int | None = None) -> Flow[None]:
        """As RedisVL's: answers stored from now on live so many seconds; None for ever."""
        yield from CacheFlows.config(self, ttl=ttl or 0)


def tell(told: dict[str, Any], result: str, hit: Hit | None) -> None:
    told["result"] = result
    if hit is not None:
        told["tier"], told["similarity"] = hit.tier, hit.similarity
