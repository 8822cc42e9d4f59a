"""The classes for threads. Each method is a flow (see `_flow`) carried out in the calling thread."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from ._cache import CacheBase, CacheFlows
from ._calls import CallKey, dumped
from ._clients import Connection
from ._documents import DocumentBase, DocumentFlows
from ._embeddings import EmbeddingBase, EmbeddingFlows
from ._flow import Blocking, blocking
from ._judging import feedback as feedback_flow
from ._kv import KVBase, KVFlows
from ._making import get_or_make as get_or_make_flow
from ._session import FOLLOW_SECONDS, POLL_SECONDS, SessionBase, SessionFlows
from ._streams import ENDED, OPEN, StreamWriter
from .types import Part

P = ParamSpec("P")
T = TypeVar("T")


class LLMCache(CacheBase, Blocking):
    """A cache of answers, found by their prompt and by meaning (`LLMCACHE.*`)."""

    def _connect(self, client: Any) -> Connection:
        return Connection.of(client)

    create = blocking(CacheFlows.create)
    config = blocking(CacheFlows.config)
    info = blocking(CacheFlows.info)
    stats = blocking(CacheFlows.stats)
    drop = blocking(CacheFlows.drop)
    clear = blocking(CacheFlows.clear)
    set = blocking(CacheFlows.set)
    get = blocking(CacheFlows.get)
    search = blocking(CacheFlows.search)
    search_all = blocking(CacheFlows.search_all)
    search_many = blocking(CacheFlows.search_many)
    explain = blocking(CacheFlows.explain)
    fetch = blocking(CacheFlows.fetch)
    extend = blocking(CacheFlows.extend)
    fail = blocking(CacheFlows.fail)
    get_or_make = blocking(get_or_make_flow)
    feedback = blocking(feedback_flow)
    invalidate = blocking(CacheFlows.invalidate)
    delete = blocking(CacheFlows.delete)
    expire = blocking(CacheFlows.expire)
    entry = blocking(CacheFlows.entry)
    ids = blocking(CacheFlows.ids)
    move = blocking(CacheFlows.move)
    check = blocking(CacheFlows.check)
    store = blocking(CacheFlows.store)
    set_threshold = blocking(CacheFlows.set_threshold)
    set_ttl = blocking(CacheFlows.set_ttl)

    def cached(
        self,
        prompt: Callable[..., str] | None = None,
        *,
        scope: Callable[..., str] | None = None,
        dumps: Callable[[Any], str] = str,
        loads: Callable[[str], Any] = str,
        **options: Any,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorates a function that makes answers: `@cache.cached(prompt=lambda q, **_: q)`.

        Without `prompt` the first argument is the prompt, and all others are part of the context. `dumps` and `loads`
        turn what the function returns into text and back; options are those of `get_or_make`.
        """

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            key = CallKey(function, prompt, scope, self.context)

            @functools.wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                asked = {**key.of(args, kwargs), **options}
                return cast(T, loads(self.get_or_make(make=lambda: dumped(function(*args, **kwargs), dumps), **asked)))

            return wrapper

        return decorate


class EmbeddingCache(EmbeddingBase, Blocking):
    """A cache of embeddings of one model (`EMBCACHE.*`)."""

    def _connect(self, client: Any) -> Connection:
        return Connection.of(client)

    create = blocking(EmbeddingFlows.create)
    info = blocking(EmbeddingFlows.info)
    set = blocking(EmbeddingFlows.set)
    get = blocking(EmbeddingFlows.get)
    get_many = blocking(EmbeddingFlows.get_many)
    set_many = blocking(EmbeddingFlows.set_many)
    embed_many = blocking(EmbeddingFlows.embed_many)
    get_or_compute = blocking(EmbeddingFlows.get_or_compute)
    delete = blocking(EmbeddingFlows.delete)


class DocumentIndex(DocumentBase, Blocking):
    """An index of documents for retrieval (`RAG.*`)."""

    def _connect(self, client: Any) -> Connection:
        return Connection.of(client)

    create = blocking(DocumentFlows.create)
    add = blocking(DocumentFlows.add)
    search = blocking(DocumentFlows.search)
    get = blocking(DocumentFlows.get)
    get_many = blocking(DocumentFlows.get_many)
    delete = blocking(DocumentFlows.delete)
    ids = blocking(DocumentFlows.ids)
    move = blocking(DocumentFlows.move)
    info = blocking(DocumentFlows.info)
    drop = blocking(DocumentFlows.drop)


class Session(SessionBase, Blocking):
    """A conversation, and the answers that are read while they are written (`SESSION.*`)."""

    def _connect(self, client: Any) -> Connection:
        return Connection.of(client)

    append = blocking(SessionFlows.append)
    edit = blocking(SessionFlows.edit)
    delete = blocking(SessionFlows.delete)
    pop = blocking(SessionFlows.pop)
    touch = blocking(SessionFlows.touch)
    trim = blocking(SessionFlows.trim)
    clear = blocking(SessionFlows.clear)
    drop = blocking(SessionFlows.drop)
    compact = blocking(SessionFlows.compact)
    fork = blocking(SessionFlows.fork)
    window = blocking(SessionFlows.window)
    chat = blocking(SessionFlows.chat)
    messages = blocking(SessionFlows.messages)
    get = blocking(SessionFlows.get)
    count = blocking(SessionFlows.count)
    info = blocking(SessionFlows.info)
    recall = blocking(SessionFlows.recall)
    sessions = blocking(SessionFlows.sessions)
    export = blocking(SessionFlows.export)
    load = blocking(SessionFlows.load)
    begin = blocking(SessionFlows.begin)
    chunk = blocking(SessionFlows.chunk)
    end = blocking(SessionFlows.end)
    stop = blocking(SessionFlows.stop)
    place = blocking(SessionFlows.place)
    follow_once = blocking(SessionFlows.follow_once)
    add_message = blocking(SessionFlows.add_message)
    add_messages = blocking(SessionFlows.add_messages)
    store = blocking(SessionFlows.store)
    get_recent = blocking(SessionFlows.get_recent)
    get_relevant = blocking(SessionFlows.get_relevant)

    def stream(
        self, role: str = "assistant", *, id: str | None = None, lease: float = 30.0, linger: float = 0.0,
        meta: Mapping[str, Any] | None = None, takeover: bool = False,
    ) -> StreamWriter:  # fmt: skip
        """A message to be written while it is read: `with session.stream(id="a1") as w: w.write(delta)`.

        With `linger` text gathers for so many seconds before it is sent.
        """
        return StreamWriter(self, role, id=id, lease=lease, linger=linger, meta=meta, takeover=takeover)

    def follow(
        self, seq: int | None = None, *, id: str | None = None, offset: int = 0, timeout: float | None = None,
        linger: float = 0.05, wait_abandoned: bool = False,
    ) -> Iterator[Part]:  # fmt: skip
        """The parts of a message from an offset on, as they are written, up to its end; resumes at any offset.

        Ends with a part whose status says how the message ended. A message whose producer is gone is `abandoned`:
        that is an end too, unless `wait_abandoned`. `TimeoutError` when nothing came for `timeout` seconds.
        """
        place = self._run(SessionFlows.place(cast(Any, self), seq, id))
        quiet = time.monotonic()
        while True:
            left = FOLLOW_SECONDS if timeout is None else max(0.0, quiet + timeout - time.monotonic())
            part = self.follow_once(place, offset, block=min(left, FOLLOW_SECONDS), linger=linger)
            offset = part.offset
            if part.data:
                quiet = time.monotonic()
            if part.data or part.status not in OPEN:
                yield part
            if part.status in ENDED or (part.status == "abandoned" and not wait_abandoned):
                return
            if part.status == "abandoned" and not part.data:
                time.sleep(POLL_SECONDS)
            if timeout is not None and time.monotonic() >= quiet + timeout:
                raise TimeoutError(f"message {place} of {self.key!r} did not grow for {timeout} s")


class KVChunks(KVBase, Blocking):
    """A namespace of attention KV-cache chunks (`KVCHUNK.*`)."""

    def _connect(self, client: Any) -> Connection:
        return Connection.of(client)

    create = blocking(KVFlows.create)
    match = blocking(KVFlows.match)
    fetch_page = blocking(KVFlows.fetch_page)
    fetch = blocking(KVFlows.fetch)
    fetch_set = blocking(KVFlows.fetch_set)
    put = blocking(KVFlows.put)
    put_many = blocking(KVFlows.put_many)
    get = blocking(KVFlows.get)
    missing = blocking(KVFlows.missing)
    find = blocking(KVFlows.find)
    delete = blocking(KVFlows.delete)
    pin = blocking(KVFlows.pin)
    unpin = blocking(KVFlows.unpin)
    touch = blocking(KVFlows.touch)
    lease = blocking(KVFlows.lease)
    release = blocking(KVFlows.release)
    budget = blocking(KVFlows.budget)
    ids = blocking(KVFlows.ids)
    move = blocking(KVFlows.move)
    info = blocking(KVFlows.info)
    stats = blocking(KVFlows.stats)
    verify = blocking(KVFlows.verify)
