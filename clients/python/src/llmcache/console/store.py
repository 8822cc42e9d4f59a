"""The one way from the console to the server: which commands it may send, and how replies are read.

A command that is in neither list is refused here, whatever a page asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from .. import _replies as r

READS = frozenset(
    {
        "INFO", "SCAN", "PING", "LLMCACHE.INFO", "LLMCACHE.STATS", "LLMCACHE.SCAN", "LLMCACHE.ENTRY",
        "LLMCACHE.GETSEM", "LLMCACHE.NEARMISSES", "RAG.INFO", "RAG.SEARCH", "RAG.SCAN", "RAG.MGET", "EMBCACHE.INFO",
        "SESSION.INFO", "SESSION.LIST", "SESSION.WINDOW", "SESSION.RANGE", "SESSION.FOLLOW", "KVCHUNK.INFO",
        "KVCHUNK.STATS", "KVCHUNK.TREE",
    }
)  # fmt: skip
WRITES = frozenset({"LLMCACHE.FEEDBACK", "LLMCACHE.INVALIDATE"})
CONNECTIONS = 16
"""Most connections to the server, those that follow a stream included."""


class Refused(Exception):
    """What the page is told instead of an answer."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


def whole_number(given: Any, name: str, least: int, most: int, otherwise: int) -> int:
    """A number that the page gives, or what holds without it."""
    try:
        value = otherwise if given in (None, "") else int(given)
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} is a whole number") from error
    if not least <= value <= most:
        raise Refused(f"{name} is {least} to {most}")
    return value


class Store:
    """A server."""

    def __init__(self, url: str, allow_write: bool = False):
        self.allow_write = allow_write
        self._client = redis.asyncio.Redis.from_url(
            url,
            protocol=3,
            socket_timeout=10,
            socket_connect_timeout=5,
            max_connections=CONNECTIONS,
            client_name="llmcache-console",
        )
        # Names in it are no numbers.
        self._client.response_callbacks.pop("INFO", None)
        self.db = int(self._client.connection_pool.connection_kwargs.get("db") or 0)

    async def close(self) -> None:
        await self._client.aclose()

    def _check(self, command: str) -> None:
        if command in READS or (command in WRITES and self.allow_write):
            return
        if command in WRITES:
            raise Refused("the console was started without --allow-write", 403)
        raise Refused(f"the console does not send {command}", 403)

    async def run(self, command: str, *arguments: Any) -> Any:
        """One command."""
        self._check(command)
        try:
            return await self._client.execute_command(command, *arguments, NEVER_DECODE=True)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            raise Refused(str(error)) from error
        except RedisError as error:
            raise Refused(f"the server does not answer: {error}", 503) from error

    async def many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Several in one trip; what the server refused is None."""
        if not commands:
            return []
        for command in commands:
            self._check(str(command[0]))
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command, NEVER_DECODE=True)
            try:
                replies = await pipe.execute(raise_on_error=False)
            except RedisError as error:
                raise Refused(f"the server does not answer: {error}", 503) from error
        return [None if isinstance(reply, ResponseError) else reply for reply in replies]

    async def told(self, command: str, *arguments: Any) -> dict[str, Any]:
        """The map that a command answers."""
        return r.mapping(await self.run(command, *arguments))

    async def info(self, *sections: str) -> dict[str, str]:
        """INFO as it is written."""
        text = r.text(await self.run("INFO", *sections))
        return dict(row.split(":", 1) for row in text.splitlines() if ":" in row and not row.startswith("#"))
