"""dogpile.cache: a backend whose mutex is a lease of the server, so that a waiter is woken instead of polling.

region = make_region().configure("llmcache", arguments={"client": redis.Redis()})
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._both import needs

try:
    from dogpile.cache import register_backend
    from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex
except ImportError as error:
    raise needs("dogpile", "dogpile.cache") from error

from .._clients import Connection
from .._flow import Argument, Blocking, Command, Flow, Many
from .._several import expiry
from .._sync import LLMCache
from ..errors import LeaseLost, NoCache

_WAIT_SECONDS = 3_600.0


class LlmcacheBackend(BytesBackend, Blocking):
    """Arguments: `client` or `url`; `name` of the cache; `expiration_time` in seconds; `lock_timeout`, the seconds
    after which a lock of somebody who died is free."""

    def __init__(self, arguments: Mapping[str, Any]):
        given = dict(arguments)
        self._connection = Connection.of(given.get("client") or given["url"])
        self.name = given.get("name", "dogpile")
        self.expiration_time = given.get("expiration_time") or given.get("redis_expiration_time")
        self.lock_timeout = given.get("lock_timeout") or 30.0
        self.distributed = given.get("distributed_lock", True)

    def has_lock_timeout(self) -> bool:
        return True

    def get_mutex(self, key: str) -> CacheMutex | None:
        if not self.distributed:
            return None
        return LlmcacheMutex(self._connection.client, f"{self.name}-locks", key, self.lock_timeout)

    def _all(self, commands: Sequence[Sequence[Argument]]) -> Flow[list[Any]]:
        replies = (yield Many(commands)) if commands else []
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, NoCache):
                raise reply
        return list(replies)

    def get_serialized(self, key: str) -> Any:
        return self.get_serialized_multi([key])[0]

    def get_serialized_multi(self, keys: Iterable[str]) -> list[Any]:
        replies = self._run(self._all([("LLMCACHE.GET", self.name, "PROMPT", key) for key in keys]))
        return [NO_VALUE if reply is None or isinstance(reply, Exception) else reply for reply in replies]

    def set_serialized(self, key: str, value: bytes) -> None:
        self.set_serialized_multi({key: value})

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        tail = expiry(self.expiration_time)
        self._run(
            self._all([("LLMCACHE.SET", self.name, "PROMPT", k, "RESPONSE", v, *tail) for k, v in mapping.items()])
        )

    def delete(self, key: str) -> None:
        self.delete_multi([key])

    def delete_multi(self, keys: Iterable[str]) -> None:
        from .._shards import entry_digest

        ids = [entry_digest(b"", b"", key.encode()).hex() for key in keys]
        if ids:
            self._run(self._all([("LLMCACHE.DEL", self.name, *ids)]))


class LlmcacheMutex(CacheMutex):
    """A lock that is a lease: who waits is woken when it ends, and gets it next."""

    def __init__(self, client: Any, name: str, key: str, timeout: float):
        # Not the guards nor the breaker of answers: a lock is only ever released.
        self._cache = LLMCache(client, name, lease=timeout)
        self._key, self._timeout = key, timeout
        self._token: bytes | None = None

    def acquire(self, blocking: bool = True) -> bool:
        end = time.monotonic() + (_WAIT_SECONDS if blocking else 0.0)
        while True:
            fetched = self._cache.fetch(self._key, wait=max(0.0, end - time.monotonic()))
            if fetched.token is not None:
                self._token = fetched.token
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(min(fetched.retry or 0.0, 0.05))

    def release(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                self._cache._run(_end(self._cache.name, self._key, token))
            except LeaseLost:
                return

    def locked(self) -> bool:
        """Whether anybody has the lock."""
        fetched = self._cache.fetch(self._key)
        if fetched.token is None:
            return True
        self._cache._run(_end(self._cache.name, self._key, fetched.token))
        return False


def _end(name: str, key: str, token: bytes) -> Flow[None]:
    """Pays the lease in with an answer that is past already: nothing is stored, and who waits longest leads."""
    yield Command(("LLMCACHE.SET", name, "PROMPT", key, "RESPONSE", "", "PXAT", 1, "LEASE", token))


register_backend(  # type: ignore[no-untyped-call]
    "llmcache", "llmcache.integrations.dogpile", "LlmcacheBackend"
)

__all__ = ["LlmcacheBackend", "LlmcacheMutex"]
