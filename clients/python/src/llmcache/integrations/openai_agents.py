"""OpenAI Agents SDK: a session in one key. Every write is one command, so a cluster does as well as a server.

An item is one message: its role, or its type where it has none, and its JSON as the payload.
"""

from __future__ import annotations

import asyncio
import json
import re
import weakref
from typing import Any

from ._both import Both, needs

try:
    from agents.items import TResponseInputItem
    from agents.memory.session_settings import SessionSettings, coerce_session_settings, resolve_session_limit
except ImportError as error:
    raise needs("openai-agents", "openai-agents") from error

from .._flow import Command, Flow
from ..asyncio import Session
from ..types import Message

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
_PAGE = 1_000


class LlmcacheSession:
    """Implements `agents.memory.Session`: `Runner.run(agent, "Hello", session=LlmcacheSession("user-1", client))`.

    The client is one of asyncio, of a server or a cluster. `ttl` is in seconds and holds for the whole session.
    """

    def __init__(
        self,
        session_id: str,
        redis_client: Any,
        *,
        key_prefix: str = "agents:session",
        ttl: int | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ):
        self.session_id = session_id
        self.session_settings: SessionSettings | None = (
            coerce_session_settings(session_settings) if session_settings is not None else SessionSettings()
        )
        self._redis = redis_client
        self._owns_client = False
        self._closed = False
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
        key = f"{key_prefix}:{session_id}"
        # One for each event loop: `Runner.run_sync` has a loop of its own.
        self._both = Both(redis_client, _no_threads, lambda c: Session(c, key, ttl=ttl))

    @classmethod
    def from_url(
        cls, session_id: str, *, url: str, redis_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> LlmcacheSession:
        """A session with a client of its own, which `close` closes."""
        import redis.asyncio

        made = cls(session_id, redis.asyncio.from_url(url, **(redis_kwargs or {})), **kwargs)
        made._owns_client = True
        return made

    @property
    def _session(self) -> Session:
        return self._both.aio

    @property
    def _lock(self) -> asyncio.Lock:
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def _check_not_closed(self) -> None:
        if self._closed:
            raise RuntimeError(f"{type(self).__name__} is closed")

    async def _serialize_item(self, item: TResponseInputItem) -> str:
        """An item as text; a subclass may do it in another way."""
        return json.dumps(item, separators=(",", ":"))

    async def _deserialize_item(self, item: str) -> TResponseInputItem:
        """An item of its text; a subclass may do it in another way."""
        loaded: TResponseInputItem = json.loads(item)
        return loaded

    async def _messages(self, items: list[TResponseInputItem]) -> list[Message]:
        made = []
        for item in items:
            role = str(item.get("role") or item.get("type") or "item")
            made.append(Message(_OTHER.sub("_", role)[:32] or "item", await self._serialize_item(item)))
        return made

    async def _items(self, messages: list[Message]) -> list[TResponseInputItem]:
        found = []
        for message in messages:
            try:
                found.append(await self._deserialize_item(message.raw.decode()))
            except ValueError:
                # What somebody else wrote into the key is no item of the conversation.
                continue
        return found

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first; with a limit the newest so many."""
        wanted = resolve_session_limit(limit, self.session_settings)
        async with self._lock:
            self._check_not_closed()
            if wanted is None:
                return await self._items(await self._session.messages())
            if wanted <= 0:
                return []
            window = wanted
            while True:
                messages = await self._session.messages(count=window, reverse=True)
                items = await self._items(messages[::-1])
                if len(items) >= wanted or len(messages) < window:
                    return items[-wanted:]
                window *= 2

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Appends items, all in one step."""
        self._check_not_closed()
        if items:
            async with self._lock:
                self._check_not_closed()
                await self._session.append(*await self._messages(items))

    async def pop_item(self) -> TResponseInputItem | None:
        """Removes the newest item and returns it."""
        async with self._lock:
            self._check_not_closed()
            while popped := await self._session.pop():
                if items := await self._items(popped):
                    return items[0]
            return None

    async def clear_session(self) -> None:
        """Removes the session."""
        async with self._lock:
            self._check_not_closed()
            await self._session.drop()

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replaces all items in one step; False for a subclass, which may keep them in another way."""
        if type(self) is not LlmcacheSession:
            return False
        async with self._lock:
            self._check_not_closed()
            if items:
                await self._session.append(*await self._messages(items), replace=True)
            else:
                await self._session.drop()
        return True

    async def ping(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(await self._session._run(_ping()))
        except Exception:
            return False

    async def close(self) -> None:
        """Closes a client that `from_url` made; never one that was handed in."""
        async with self._lock:
            self._closed = True
            if self._owns_client:
                self._owns_client = False
                await self._redis.aclose()


def _no_threads(client: Any) -> None:
    raise TypeError("a session of agents is awaited")


def _ping() -> Flow[bool]:
    return (yield Command(("PING",))) in (b"PONG", "PONG", True)
