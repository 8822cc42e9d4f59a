"""The user's redis-py or valkey-py client, and what this package adds to it.

Owns: sending commands undecoded, telling errors, sending again what the server refused for a moment, the pool of
its own for commands that wait (so that waiters never take the connections of others), and how long one of those
may wait so that no socket timeout cuts it. Never closes a client that was handed in.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from ._flights import Flights
from .errors import PASSING, told

WAITERS = 8
"""Commands of one client that wait at once; more ask again and again instead."""

AGAIN_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses before a command is sent again that the server refused for a moment."""

REST_SECONDS = 1.0
"""How long a server that was away is not asked by callers who can do without it."""

_OWN_POOLS = ("ConnectionPool", "BlockingConnectionPool")


def is_async(client: Any) -> bool:
    """Whether the client is one of asyncio."""
    return inspect.iscoroutinefunction(client.execute_command) or type(client).__module__.split(".")[1:2] == ["asyncio"]


def is_cluster(client: Any) -> bool:
    """Whether the client is one of Redis Cluster."""
    return any(kind.__name__ in ("RedisCluster", "ValkeyCluster") for kind in type(client).__mro__)


def socket_timeout(client: Any) -> float | None:
    """Seconds after which the client gives a reply up; None for never."""
    if is_cluster(client):
        kwargs = getattr(client, "connection_kwargs", None)
        if kwargs is None and getattr(client, "nodes_manager", None) is not None:
            kwargs = getattr(client.nodes_manager, "connection_kwargs", {})
        kwargs = kwargs or {}
        probe_class = None
    else:
        pool = client.connection_pool
        kwargs, probe_class = pool.connection_kwargs, pool.connection_class
    if "socket_timeout" in kwargs:
        given = kwargs["socket_timeout"]
        return None if given is None else float(given)
    # The library's default: 5 s from redis-py 8 on, none before.
    for kind in inspect.getmro(probe_class) if probe_class else (type(client),):
        parameter = _parameters(kind).get("socket_timeout")
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            default = parameter.default
            return None if default is None else float(default)
    return None


def uncut(timeout: float | None, seconds: float) -> float:
    """How long a command may wait at the server, of `seconds`, so that the socket's timeout does not cut it."""
    if timeout is None:
        return seconds
    return min(seconds, max(timeout * 0.5, min(timeout * 0.8, timeout - 0.3)))


class _Shared:
    """What connections of threads and of asyncio have in common; one for each client."""

    def __init__(self, client: Any, waiters: int):
        self.client = client
        self.flights: Flights = Flights()
        self.cluster = is_cluster(client)
        self._timeout = socket_timeout(client)
        self._slots = threading.Semaphore(waiters)
        self._waiters = waiters
        self._waiting: Any = None
        self._lock = threading.Lock()
        self.owns = False
        self._resting_until = 0.0

    def uncut(self, seconds: float) -> float:
        return uncut(self._timeout, seconds)

    def rest(self) -> None:
        """The server was away: who can do without it does so for a moment, instead of waiting for it one by one."""
        self._resting_until = time.monotonic() + REST_SECONDS

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._resting_until

    def take_slot(self) -> bool:
        """Whether one more command may wait; `free_slot` when it has."""
        return self._slots.acquire(blocking=False)

    def free_slot(self) -> None:
        self._slots.release()

    def waiting_client(self) -> Any:
        """The client for commands that wait: over a pool of its own where the user's can be copied."""
        with self._lock:
            if self._waiting is None:
                self._waiting = self._apart() or self.client
            return self._waiting

    def _apart(self) -> Any:
        if self.cluster:
            # Its pools are one for each node, and open a connection more when none is free.
            return None
        pool = self.client.connection_pool
        plain = next((kind for kind in type(pool).__mro__ if kind.__name__ == "ConnectionPool"), None)
        if plain is None or type(pool).__name__ not in _OWN_POOLS:
            return None
        own = plain(
            connection_class=pool.connection_class,
            max_connections=self._waiters + 1,
            **portable(pool.connection_kwargs),
        )
        base = next(kind for kind in type(self.client).__mro__ if kind.__name__ in ("Redis", "Valkey"))
        return base(connection_pool=own)


def portable(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A pool's settings for another pool: without what ties them to the first."""
    return {k: v for k, v in kwargs.items() if not k.startswith(("maint_", "orig_", "_")) and k != "event_dispatcher"}


def _pause(attempt: int) -> float:
    return AGAIN_SECONDS[attempt] * (0.75 + random.random() / 2)


class Connection(_Shared):
    """A client of threads."""

    @classmethod
    def of(cls, client: Any, waiters: int = WAITERS) -> Connection:
        """The one connection of this client, whatever is built on it."""
        if isinstance(client, str):
            connection = cls(_from_url(client, "redis"), waiters)
            connection.owns = True
            return connection
        if is_async(client):
            raise TypeError("this class takes a client of threads; llmcache.asyncio has the one for asyncio")
        found = getattr(client, "_llmcache_connection", None)
        if not isinstance(found, cls):
            found = cls(client, waiters)
            client._llmcache_connection = found
        return found

    def execute(self, args: Sequence[Any], waits: bool = False) -> Any:
        client = self.waiting_client() if waits else self.client
        for attempt in range(len(AGAIN_SECONDS) + 1):
            try:
                return client.execute_command(*args, NEVER_DECODE=True)
            except Exception as error:
                known = told(error)
                if not isinstance(known, PASSING) or attempt == len(AGAIN_SECONDS):
                    raise known from (None if known is error else error)
            time.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    def execute_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) < 2:
            return [self._outcome(args) for args in commands]
        with self.client.pipeline(transaction=False) as pipe:
            for args in commands:
                pipe.execute_command(*args, NEVER_DECODE=True)
            try:
                replies = pipe.execute(raise_on_error=False)
            except Exception as error:
                known = told(error)
                raise known from (None if known is error else error)
        for at, reply in enumerate(replies):
            if isinstance(reply, Exception):
                known = told(reply)
                replies[at] = self._outcome(commands[at]) if isinstance(known, PASSING) else known
        return list(replies)

    def _outcome(self, args: Sequence[Any]) -> Any:
        try:
            return self.execute(args)
        except Exception as error:
            return error

    def close(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting is not self.client:
            waiting.connection_pool.disconnect()
        if self.owns:
            self.client.close()


class AsyncConnection(_Shared):
    """A client of asyncio."""

    def __init__(self, client: Any, waiters: int):
        super().__init__(client, waiters)
        self.tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    def of(cls, client: Any, waiters: int = WAITERS) -> AsyncConnection:
        """The one connection of this client, whatever is built on it."""
        if isinstance(client, str):
            connection = cls(_from_url(client, "redis.asyncio"), waiters)
            connection.owns = True
            return connection
        if not is_async(client):
            raise TypeError("this class takes a client of asyncio; llmcache has the one for threads")
        found = getattr(client, "_llmcache_connection", None)
        if not isinstance(found, cls):
            found = cls(client, waiters)
            client._llmcache_connection = found
        return found

    async def execute(self, args: Sequence[Any], waits: bool = False) -> Any:
        client = self.waiting_client() if waits else self.client
        for attempt in range(len(AGAIN_SECONDS) + 1):
            try:
                return await client.execute_command(*args, NEVER_DECODE=True)
            except Exception as error:
                known = told(error)
                if not isinstance(known, PASSING) or attempt == len(AGAIN_SECONDS):
                    raise known from (None if known is error else error)
            await asyncio.sleep(_pause(attempt))
        raise AssertionError("unreachable")

    async def execute_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        if len(commands) < 2:
            return [await self._outcome(args) for args in commands]
        async with self.client.pipeline(transaction=False) as pipe:
            for args in commands:
                pipe.execute_command(*args, NEVER_DECODE=True)
            try:
                replies = await pipe.execute(raise_on_error=False)
            except Exception as error:
                known = told(error)
                raise known from (None if known is error else error)
        for at, reply in enumerate(replies):
            if isinstance(reply, Exception):
                known = told(reply)
                replies[at] = await self._outcome(commands[at]) if isinstance(known, PASSING) else known
        return list(replies)

    async def _outcome(self, args: Sequence[Any]) -> Any:
        try:
            return await self.execute(args)
        except Exception as error:
            return error

    async def close(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting is not self.client:
            await waiting.connection_pool.disconnect()
        if self.owns:
            await self.client.aclose()


def _from_url(url: str, module: str) -> Any:
    import importlib

    return importlib.import_module(module).from_url(url)


def twin(client: Any, asynchronous: bool) -> Any:
    """A client to the same server, of asyncio or of threads; the caller closes it."""
    import importlib

    library = type(client).__module__.split(".")[0]
    if library not in ("redis", "valkey"):
        library = next(k.__module__.split(".")[0] for k in type(client).__mro__ if k.__name__ in ("Redis", "Valkey"))
    name = {"redis": "Redis", "valkey": "Valkey"}[library]
    place = importlib.import_module(f"{library}.asyncio" if asynchronous else library)
    if is_cluster(client):
        kwargs = getattr(client, "connection_kwargs", None) or client.nodes_manager.connection_kwargs
        nodes = importlib.import_module(f"{library}.asyncio.cluster" if asynchronous else f"{library}.cluster")
        known = client.get_nodes()
        kind = getattr(nodes, f"{name}Cluster")
        accepted = _parameters(kind)
        plain = {k: v for k, v in portable(kwargs).items() if _is_plain(v) and k in accepted}
        plain = {k: v for k, v in plain.items() if k not in ("host", "port")}
        return kind(startup_nodes=[nodes.ClusterNode(n.host, n.port) for n in known], **plain)
    pool = client.connection_pool
    connections = importlib.import_module(f"{library}.asyncio.connection" if asynchronous else f"{library}.connection")
    connection_class = getattr(connections, pool.connection_class.__name__)
    accepted = {}
    for kind in inspect.getmro(connection_class):
        if "__init__" in vars(kind):
            accepted |= _parameters(kind)
    plain = {k: v for k, v in portable(pool.connection_kwargs).items() if _is_plain(v) and k in accepted}
    return getattr(place, name)(connection_pool=connections.ConnectionPool(connection_class=connection_class, **plain))


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind.__init__).parameters)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | int | float | bool | tuple | list)
