"""The classes for asyncio. Each method is a flow (see `llmcache._flow`) carried out in the running event loop."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from .._cache import CacheBase, CacheFlows
from .._calls import CallKey, dumped
from .._clients import AsyncConnection
from .._documents import DocumentBase, DocumentFlows
from .._embeddings import EmbeddingBase, EmbeddingFlows
from .._flow import Awaiting, awaitable
from .._judging import feedback as feedback_flow
from .._kv import KVBase, KVFlows
from .._making import get_or_make as get_or_make_flow
from .._session import FOLLOW_SECONDS, POLL_SECONDS, SessionBase, SessionFlows
from .._streams import ENDED, OPEN
from ..types import Answer, Part
from ._streams import StreamWriter

P = ParamSpec("P")
T = TypeVar("T")


class LLMCache(CacheBase, Awaiting):
    """A cache of answers, found by their prompt and by meaning (`LLMCACHE.*`)."""

    def _connect(self, client: Any) -> AsyncConnection:
        return AsyncConnection.of(client)

    create = awaitable(CacheFlows.create)
    config = awaitable(CacheFlows.config)
    info = awaitable(CacheFlows.info)
    stats = awaitable(CacheFlows.stats)
    drop = awaitable(CacheFlows.drop)
    clear = awaitable(CacheFlows.clear)
    set = awaitable(CacheFlows.set)
    get = awaitable(CacheFlows.get)
    search = awaitable(CacheFlows.search)
    search_all = awaitable(CacheFlows.search_all)
    search_many = awaitable(CacheFlows.search_many)
    explain = awaitable(CacheFlows.explain)
    fetch = awaitable(CacheFlows.fetch)
    extend = awaitable(CacheFlows.extend)
    fail = awaitable(CacheFlows.fail)
    get_or_make = awaitable(get_or_make_flow)
    feedback = awaitable(feedback_flow)
    invalidate = awaitable(CacheFlows.invalidate)
    delete = awaitable(CacheFlows.delete)
    expire = awaitable(CacheFlows.expire)
    entry = awaitable(CacheFlows.entry)
    ids = awaitable(CacheFlows.ids)
    move = awaitable(CacheFlows.move)
    check = awaitable(CacheFlows.check)
    store = awaitable(CacheFlows.store)
    set_threshold = awaitable(CacheFlows.set_threshold)
    set_ttl = awaitable(CacheFlows.set_ttl)

    def cached(
        self,
        prompt: Callable[..., str] | None = None,
        *,
        scope: Callable[..., str] | None = None,
        dumps: Callable[[Any], str] = str,
        loads: Callable[[str], Any] = str,
        **options: Any,
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Decorates a coroutine function that makes answers: `@cache.cached(prompt=lambda q, **_: q)`.

        Without `prompt` the first argument is the prompt, and all others are part of the context. `dumps` and `loads`
        turn what the function returns into text and back; options are those of `get_or_make`.
        """

        def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            key = CallKey(function, prompt, scope, self.context)

            @functools.wraps(function)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                async def make() -> str | Answer:
                    return dumped(await function(*args, **kwargs), dumps)

                asked = {**key.of(args, kwargs), **options}
                return cast(T, loads(await self.get_or_make(make=make, **asked)))

            return wrapper

        return decorate


class EmbeddingCache(EmbeddingBase, Awaiting):
    """A cache of embeddings of one model (`EMBCACHE.*`)."""

    def _connect(self, client: Any) -> AsyncConnection:
        return AsyncConnection.of(client)

    create = awaitable(EmbeddingFlows.create)
    info = awaitable(EmbeddingFlows.info)
    set = awaitable(EmbeddingFlows.set)
    get = awaitable(EmbeddingFlows.get)
    get_many = awaitable(EmbeddingFlows.get_many)
    set_many = awaitable(EmbeddingFlows.set_many)
    embed_many = awaitable(EmbeddingFlows.embed_many)
    get_or_compute = awaitable(EmbeddingFlows.get_or_compute)
    delete = awaitable(EmbeddingFlows.delete)


class DocumentIndex(DocumentBase, Awaiting):
    """An index of documents for retrieval (`RAG.*`)."""

    def _connect(self, client: Any) -> AsyncConnection:
        return AsyncConnection.of(client)

    create = awaitable(DocumentFlows.create)
    add = awaitable(DocumentFlows.add)
    search = awaitable(DocumentFlows.search)
    get = awaitable(DocumentFlows.get)
    get_many = awaitable(DocumentFlows.get_many)
    delete = awaitable(DocumentFlows.delete)
    ids = awaitable(DocumentFlows.ids)
    move = awaitable(DocumentFlows.move)
    info = awaitable(DocumentFlows.info)
    drop = awaitable(DocumentFlows.drop)


class Session(SessionBase, Awaiting):
    """A conversation, and the answers that are read while they are written (`SESSION.*`)."""

    def _connect(self, client: Any) -> AsyncConnection:
        return AsyncConnection.of(client)

    append = awaitable(SessionFlows.append)
    edit = awaitable(SessionFlows.edit)
    delete = awaitable(SessionFlows.delete)
    pop = awaitable(SessionFlows.pop)
    touch = awaitable(SessionFlows.touch)
    trim = awaitable(SessionFlows.trim)
    clear = awaitable(SessionFlows.clear)
    drop = awaitable(SessionFlows.drop)
    compact = awaitable(SessionFlows.compact)
    fork = awaitable(SessionFlows.fork)
    window = awaitable(SessionFlows.window)
    chat = awaitable(SessionFlows.chat)
    messages = awaitable(SessionFlows.messages)
    get = awaitable(SessionFlows.get)
    count = awaitable(SessionFlows.count)
    info = awaitable(SessionFlows.info)
    recall = awaitable(SessionFlows.recall)
    sessions = awaitable(SessionFlows.sessions)
    export = awaitable(SessionFlows.export)
    load = awaitable(SessionFlows.load)
    begin = awaitable(SessionFlows.begin)
    chunk = awaitable(SessionFlows.chunk)
    end = awaitable(SessionFlows.end)
    stop = awaitable(SessionFlows.stop)
    place = awaitable(SessionFlows.place)
    follow_once = awaitable(SessionFlows.follow_once)
    add_message = awaitable(SessionFlows.add_message)
    add_messages = awaitable(SessionFlows.add_messages)
    store = awaitable(SessionFlows.store)
    get_recent = awaitable(SessionFlows.get_recent)
    get_relevant = awaitable(SessionFlows.get_relevant)

    def stream(
        self, role: str = "assistant", *, id: str | None = None, lease: float = 30.0, linger: float = 0.0,
        meta: Mapping[str, Any] | None = None, takeover: bool = False,
    ) -> StreamWriter:  # fmt: skip
        """A message to be written while it is read: `async with session.stream(id="a1") as w: await w.write(delta)`.

        With `linger` text gathers for so many seconds before it is sent.
        """
        return StreamWriter(self, role, id=id, lease=lease, linger=linger, meta=meta, takeover=takeover)

    async def follow(
        self, seq: int | None = None, *, id: str | None = None, offset: int = 0, timeout: float | None = None,
        linger: float = 0.05, wait_abandoned: bool = False,
    ) -> AsyncIterator[Part]:  # fmt: skip
        """The parts of a message from an offset on, as they are written, up to its end; resumes at any offset.

        Ends with a part whose status says how the message ended. A message whose producer is gone is `abandoned`:
        that is an end too, unless `wait_abandoned`. `TimeoutError` when nothing came for `timeout` seconds. Many
        readers of one process go through a `Follower`.
        """
        place = await self._run(SessionFlows.place(cast(Any, self), seq, id))
        quiet = time.monotonic()
        while True:
            left = FOLLOW_SECONDS if timeout is None else max(0.0, quiet + timeout - time.monotonic())
            part = await self.follow_once(place, offset, block=min(left, FOLLOW_SECONDS), linger=linger)
            offset = part.offset
            if part.data:
                quiet = time.monotonic()
            if part.data or part.status not in OPEN:
                yield part
            if part.status in ENDED or (part.status == "abandoned" and not wait_abandoned):
                return
            if part.status == "abandoned" and not part.data:
                await asyncio.sleep(POLL_SECONDS)
            if timeout is not None and time.monotonic() >= quiet + timeout:
                raise TimeoutError(f"message {place} of {self.key!r} did not grow for {timeout} s")


class KVChunks(KVBase, Awaiting):
    """A namespace of attention KV-cache chunks (`KVCHUNK.*`)."""

    def _connect(self, client: Any) -> AsyncConnection:
        return AsyncConnection.of(client)

    create = awaitable(KVFlows.create)
    match = awaitable(KVFlows.match)
    fetch_page = awaitable(KVFlows.fetch_page)
    fetch = awaitable(KVFlows.fetch)
    fetch_set = awaitable(KVFlows.fetch_set)
    put = awaitable(KVFlows.put)
    put_many = awaitable(KVFlows.put_many)
    get = awaitable(KVFlows.get)
    missing = awaitable(KVFlows.missing)
    find = awaitable(KVFlows.find)
    delete = awaitable(KVFlows.delete)
    pin = awaitable(KVFlows.pin)
    unpin = awaitable(KVFlows.unpin)
    touch = awaitable(KVFlows.touch)
    lease = awaitable(KVFlows.lease)
    release = awaitable(KVFlows.release)
    budget = awaitable(KVFlows.budget)
    ids = awaitable(KVFlows.ids)
    move = awaitable(KVFlows.move)
    info = awaitable(KVFlows.info)
    stats = awaitable(KVFlows.stats)
    verify = awaitable(KVFlows.verify)
