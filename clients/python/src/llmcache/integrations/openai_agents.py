"""OpenAI Agents SDK: a session in one key. Every write is one command, so a cluster does as well as a server.

An item is one message: its role, or its type where it has none, and its JSON as the payload. A write that was begun is
waited for, also where its task is cancelled: whoever goes on knows what the session holds.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

from ._both import Both, needs

try:
    from agents.items import TResponseInputItem
    from agents.memory.session_settings import SessionSettings, coerce_session_settings, resolve_session_limit
except ImportError as error:
    raise needs("openai-agents", "openai-agents") from error

from .._clients import AGAIN_SECONDS, is_cluster
from .._flow import Argument, Command, Flow
from .._session import SessionFlows
from ..asyncio import Session
from ..errors import PASSING, WrongType, told
from ..types import Message

T = TypeVar("T")
_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
_PAGE = 1_000


class LlmcacheSession:
    """Implements `agents.memory.Session`: `Runner.run(agent, "Hello", session=LlmcacheSession("user-1", client))`.

    The client is one of asyncio, of a server or a cluster. `ttl` is in seconds and holds for the whole session. With
    `metadata` the keys have the names of the SDK's own `RedisSession`, and the hash that it keeps beside the messages
    (`session_id`, `created_at`, `updated_at`) is kept too, in the same transaction: for tools that read it, and not on
    a cluster.
    """

    def __init__(
        self,
        session_id: str,
        redis_client: Any,
        *,
        key_prefix: str = "agents:session",
        ttl: int | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        metadata: bool = False,
    ):
        self.session_id = session_id
        self.session_settings: SessionSettings | None = (
            coerce_session_settings(session_settings) if session_settings is not None else SessionSettings()
        )
        self._redis = redis_client
        self._owns_client = False
        self._closed = False
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
        self._ttl, self._metadata = ttl, metadata
        self._session_key = f"{key_prefix}:{session_id}"
        self._counter_key = f"{self._session_key}:counter"
        key = self._messages_key = f"{self._session_key}:messages" if metadata else self._session_key
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
                await self._append(items, replace=False)

    async def pop_item(self) -> TResponseInputItem | None:
        """Removes the newest item and returns it."""
        async with self._lock:
            self._check_not_closed()
            while popped := await _settled(self._session.pop()):
                if items := await self._items(popped):
                    return items[0]
            return None

    async def clear_session(self) -> None:
        """Removes the session."""
        async with self._lock:
            self._check_not_closed()
            await self._clear()

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replaces all items in one step; False for a subclass, which may keep them in another way."""
        if type(self) is not LlmcacheSession:
            return False
        async with self._lock:
            self._check_not_closed()
            if items:
                await self._append(items, replace=True)
            else:
                await self._clear()
        return True

    async def _append(self, items: list[TResponseInputItem], replace: bool) -> None:
        self._check_can_write()
        session = cast(SessionFlows, self._session)
        flow = SessionFlows.append(session, *await self._messages(items), replace=replace)
        await _settled(self._carry_out(flow, replace))

    async def _clear(self) -> None:
        self._check_can_write()
        forgotten = self._forgotten() if self._metadata else []
        await _settled(self._write([("UNLINK", self._messages_key), *forgotten]))

    async def _carry_out(self, flow: Flow[Any], replace: bool) -> None:
        """Sends the commands of an append, the metadata with the first."""
        beside: list[Sequence[Argument]] = self._forgotten() if self._metadata and replace else []
        if self._metadata:
            now = str(int(time.time()))
            beside += [("HSETNX", self._session_key, "created_at", now)]
            beside += [("HSET", self._session_key, "session_id", self.session_id, "updated_at", now)]
            beside += [("EXPIRE", self._session_key, self._ttl)] if self._ttl is not None else []
        try:
            effect = next(flow)
            while True:
                assert isinstance(effect, Command)
                reply = await self._write([effect.args, *beside])
                beside = []
                effect = flow.send(reply)
        except StopIteration:
            return

    def _forgotten(self) -> list[Sequence[Argument]]:
        """What stands beside the messages; of the counter only what is one, and not another session's hash."""
        return [("UNLINK", self._session_key), ("GETDEL", self._counter_key)]

    def _check_can_write(self) -> None:
        if self._metadata and is_cluster(self._redis):
            raise TypeError(
                f"{type(self).__name__} does not support transactions with RedisCluster, as metadata needs them: use "
                "redis.asyncio.Redis connected to a standalone Redis server, metadata=False or a custom Session backend"
            )

    async def _write(self, commands: Sequence[Sequence[Argument]]) -> Any:
        """Carries commands out in one trip, and in one transaction where there are several; the first's reply."""
        client = self._session._connection.client
        for pause in (*AGAIN_SECONDS, None):
            async with client.pipeline(transaction=len(commands) > 1) as pipe:
                for args in commands:
                    # redis-py hands the option on to what it makes of the replies of commands it knows.
                    raw = {"NEVER_DECODE": True} if "." in str(args[0]) else {}
                    pipe.execute_command(*args, **raw)
                try:
                    replies = await pipe.execute(raise_on_error=False)
                except Exception as error:
                    raise told(error) from error
            failures = [told(one) for one in replies if isinstance(one, Exception)]
            failed = next((one for one in failures if not isinstance(one, WrongType)), None)
            if isinstance(replies[0], Exception):
                failed = failures[0]
            if failed is None:
                return replies[0]
            if pause is None or not isinstance(failed, PASSING):
                raise failed
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

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


async def _settled(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of a write; who is cancelled meanwhile is so after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        if not task.cancelled():
            # Looked at, so that nobody is told of an exception that was never retrieved.
            task.exception()
        raise cancelled
    return task.result()


def _no_threads(client: Any) -> None:
    raise TypeError("a session of agents is awaited")


def _ping() -> Flow[bool]:
    return (yield Command(("PING",))) in (b"PONG", "PONG", True)
