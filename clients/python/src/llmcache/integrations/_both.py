"""What adapters have in common: one object for threads and one for asyncio, of whatever client was handed in."""

from __future__ import annotations

import asyncio
import importlib
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .._clients import is_async, twin

S = TypeVar("S")
A = TypeVar("A")


class Both(Generic[S, A]):
    """Makes the object of threads when it is first asked for, and that of asyncio once for each event loop.

    The client that was handed in serves its own kind, one of asyncio the loop that uses it first; whatever else is
    asked for gets a client to the same server. A url makes all of them.
    """

    def __init__(self, client: Any, threads: Callable[[Any], S], loops: Callable[[Any], A]):
        self._client, self._threads, self._loops = client, threads, loops
        self._sync: S | None = None
        self._async: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, A] = weakref.WeakKeyDictionary()
        self._owned: list[Any] = []
        self._home: weakref.ref[asyncio.AbstractEventLoop] | None = None

    def _of(self, asynchronous: bool) -> Any:
        if isinstance(self._client, str):
            made = importlib.import_module("redis.asyncio" if asynchronous else "redis").from_url(self._client)
        elif is_async(self._client) == asynchronous:
            if not asynchronous or self._first_loop():
                return self._client
            made = twin(self._client, asynchronous)
        else:
            made = twin(self._client, asynchronous)
        if not asynchronous:
            self._owned.append(made)
        return made

    def _first_loop(self) -> bool:
        """Whether the asyncio client that was handed in serves this loop: its connections belong to the first."""
        loop = asyncio.get_running_loop()
        if self._home is None:
            self._home = weakref.ref(loop)
        return self._home() is loop

    @property
    def sync(self) -> S:
        if self._sync is None:
            self._sync = self._threads(self._of(False))
        return self._sync

    @property
    def aio(self) -> A:
        loop = asyncio.get_running_loop()
        found = self._async.get(loop)
        if found is None:
            found = self._async[loop] = self._loops(self._of(True))
        return found

    def close(self) -> None:
        """Closes the clients of threads that were made here."""
        for client in self._owned:
            client.close()


def needs(extra: str, package: str) -> ImportError:
    """What to raise where a framework is not installed."""
    return ImportError(f"{package} is not installed: pip install 'llmcache-client[{extra}]'")
