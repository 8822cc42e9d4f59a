"""LangGraph: a saver with every capability, and a cache for nodes.

Of a thread each namespace is one session, all in the hash slot of the thread: a message for a checkpoint (its id,
role `c`), and one for the writes of each task (`<checkpoint>:<task>`, role `w`). A sorted set lists the thread's
sessions. So one deadline holds for a thread, and nothing needs a search module.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ._both import Both, needs

try:
    from langchain_core.runnables import RunnableConfig
    from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT
    from langgraph.checkpoint.base import (
        WRITES_IDX_MAP,
        BaseCheckpointSaver,
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        get_checkpoint_id,
        get_checkpoint_metadata,
        writes_sort_key,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
except ImportError as error:
    raise needs("langgraph", "langgraph-checkpoint") from error

from .. import _replies as r
from .._clients import AsyncConnection, Connection
from .._flow import Argument, Awaiting, Blocking, Command, Flow, Many
from .._several import expiry
from ..errors import ServerError
from ..types import Message

if TYPE_CHECKING:
    import builtins

_PAGE = 100
# Read along with the newest checkpoint, so that a thread that goes on takes one trip.
_RECENT_WRITES = 32


class _Runner(Blocking):
    def __init__(self, client: Any):
        self._connection = Connection.of(client)


class _AsyncRunner(Awaiting):
    def __init__(self, client: Any):
        self._connection = AsyncConnection.of(client)


def pack(header: Mapping[str, Any], *blobs: bytes) -> bytes:
    """A header of JSON and blobs as one payload."""
    head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    return struct.pack("<I", len(head)) + head + b"".join(blobs)


def unpack(payload: bytes) -> tuple[dict[str, Any], list[bytes]]:
    (length,) = struct.unpack_from("<I", payload)
    header = json.loads(payload[4 : 4 + length])
    at, blobs = 4 + length, []
    for size in header["sizes"]:
        blobs.append(payload[at : at + size])
        at += size
    return header, blobs


class _Saved:
    """A checkpoint as it was stored; decoded when it is asked for."""

    def __init__(self, message: Message):
        self.seq, self.id, self.payload = message.seq, message.id or "", message.raw
        self.header, self.blobs = unpack(self.payload)


class LlmcacheSaver(BaseCheckpointSaver[str]):
    """Keeps checkpoints of graphs in sessions; for threads and asyncio. `ttl` (seconds) holds for a whole thread.

    `LlmcacheSaver(client)` takes the application's client, or a url. Sessions are data: an `allkeys-*` policy may
    evict threads; `setup` warns of it.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "checkpoint",
        ttl: int | None = None,
        serde: SerializerProtocol | None = None,
    ):
        super().__init__(serde=serde)
        self.prefix, self.ttl = prefix, ttl
        self._both = Both(client, _Runner, _AsyncRunner)

    def setup(self) -> None:
        """Warns where threads may be evicted; needs to be called by nobody."""
        _warn_of(self._both.sync._run(_policy()))

    async def asetup(self) -> None:
        """Warns where threads may be evicted; needs to be called by nobody."""
        _warn_of(await self._both.aio._run(_policy()))

    def get_next_version(self, current: str | None, channel: None) -> str:
        number = 0 if current is None else int(str(current).split(".", 1)[0])
        return f"{number + 1:032}.{time.time_ns():020}"

    # Names.

    def _owner(self, thread: str) -> str:
        return f"{self.prefix}:{{{quote(thread, safe='')}}}"

    def _key(self, thread: str, namespace: str) -> str:
        return f"{self._owner(thread)}:{quote(namespace, safe='')}"

    def _named(self, key: str) -> tuple[str, str]:
        """Thread and namespace of a session."""
        thread, namespace = key[len(self.prefix) + 2 :].split("}:", 1)
        return unquote(thread), unquote(namespace)

    def _sessions(self, thread: str) -> Flow[builtins.list[str]]:
        return r.texts((yield Command(("ZRANGE", self._owner(thread), 0, -1))))

    # Storing.

    def _append(self, key: str, owner: str, upsert: bool, rows: Sequence[tuple[str, str, bytes]]) -> Flow[Any]:
        args: builtins.list[Argument] = ["SESSION.APPEND", key]
        if self.ttl is not None:
            args += ["TTL", self.ttl]
        args += ["OWNER", owner, *(["UPSERT"] if upsert else [])]
        for role, id, payload in rows:
            args += ["MSG", role, payload, "ID", id, "TOKENS", 0]
        if self.ttl is None:
            return (yield Command(args))
        replies = yield Many([args, ("EXPIRE", owner, self.ttl)])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies[0]

    def _put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> Flow[RunnableConfig]:
        where = config["configurable"]
        thread, namespace = str(where["thread_id"]), where.get("checkpoint_ns", "")
        kind, body = self.serde.dumps_typed(checkpoint)
        meta_kind, meta = self.serde.dumps_typed(get_checkpoint_metadata(config, metadata))
        header = {"kinds": [kind, meta_kind], "parent": where.get("checkpoint_id")}
        row = ("c", checkpoint["id"], pack(header, body, meta))
        yield from self._append(self._key(thread, namespace), self._owner(thread), True, [row])
        return _config(thread, namespace, checkpoint["id"])

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Flow[None]:
        where = config["configurable"]
        thread, key = str(where["thread_id"]), self._key(str(where["thread_id"]), where.get("checkpoint_ns", ""))
        id = f"{where['checkpoint_id']}:{task_id}"
        rows = {}
        for at, (channel, value) in enumerate(writes):
            rows[WRITES_IDX_MAP.get(channel, at)] = (channel, *self.serde.dumps_typed(value))
        try:
            yield from self._append(key, self._owner(thread), False, [("w", id, _written(task_id, task_path, rows))])
        except ServerError:
            # The task has written before: what it wrote first stays, special writes (of negative place) are replaced.
            reply = yield Command(("SESSION.GET", key, "ID", id))
            if reply is None:
                raise
            before = _rows(Message.of_map(reply).raw)
            merged = {**rows, **{place: row for place, row in before.items() if place >= 0 or place not in rows}}
            payload = _written(task_id, task_path, merged)
            yield from self._append(key, self._owner(thread), True, [("w", id, payload)])

    # Reading.

    def _get_tuple(self, config: RunnableConfig) -> Flow[CheckpointTuple | None]:
        where = config["configurable"]
        thread, namespace = str(where["thread_id"]), where.get("checkpoint_ns", "")
        key, wanted = self._key(thread, namespace), get_checkpoint_id(config)
        writes: builtins.list[Message] = []
        if wanted:
            reply = yield Command(("SESSION.GET", key, "ID", wanted))
            if reply is None:
                return None
            saved = _Saved(Message.of_map(reply))
            reply = yield Command(("SESSION.RANGE", key, saved.seq, "+", "ROLES", 1, "w"))
            writes = [Message.of(one) for one in reply]
        else:
            last = ("SESSION.RANGE", key, "-", "+", "COUNT", 1, "REV", "ROLES", 1, "c")
            recent = ("SESSION.RANGE", key, "-", "+", "COUNT", _RECENT_WRITES, "REV", "ROLES", 1, "w")
            newest, some = yield Many([last, recent])
            for reply in (newest, some):
                if isinstance(reply, Exception):
                    raise reply
            if not newest:
                return None
            saved = _Saved(Message.of(newest[0]))
            writes = [Message.of(one) for one in reversed(some)]
            if len(writes) == _RECENT_WRITES and writes[0].seq > saved.seq:
                reply = yield Command(("SESSION.RANGE", key, saved.seq, "+", "ROLES", 1, "w"))
                writes = [Message.of(one) for one in reply]
        return self._tuple(thread, namespace, saved, writes)

    def _tuple(self, thread: str, namespace: str, saved: _Saved, writes: Sequence[Message]) -> CheckpointTuple:
        found = []
        for message in writes:
            if (message.id or "").startswith(f"{saved.id}:"):
                header, blobs = unpack(message.raw)
                for (place, channel, kind), blob in zip(header["writes"], blobs, strict=True):
                    order = writes_sort_key(header["path"], header["task"], place)
                    found.append((order, (header["task"], channel, self.serde.loads_typed((kind, blob)))))
        found.sort(key=lambda one: one[0])
        kinds, parent = saved.header["kinds"], saved.header["parent"]
        return CheckpointTuple(
            config=_config(thread, namespace, saved.id),
            checkpoint=self.serde.loads_typed((kinds[0], saved.blobs[0])),
            metadata=self.serde.loads_typed((kinds[1], saved.blobs[1])),
            parent_config=_config(thread, namespace, parent) if parent else None,
            pending_writes=[write for _, write in found],
        )

    def _pages(self, key: str) -> _Pages:
        return _Pages(key)

    def _page(self, pages: _Pages) -> Flow[builtins.list[tuple[_Saved, builtins.list[Message]]]]:
        """The next checkpoints of a session, newest first, each with the writes that may be its."""
        if pages.before == 0:
            return []
        upto: Argument = "+" if pages.before is None else pages.before
        asked = ("SESSION.RANGE", pages.key, "-", upto, "COUNT", _PAGE, "REV", "ROLES", 1, "c")
        reply = yield Command(asked)
        saved = [_Saved(Message.of(one)) for one in reply]
        if not saved:
            pages.before = 0
            return []
        first = saved[-1].seq
        tail: Argument = "+" if pages.read_from is None else pages.read_from - 1
        reply = yield Command(("SESSION.RANGE", pages.key, first, tail, "ROLES", 1, "w"))
        for one in reply:
            message = Message.of(one)
            pages.writes.setdefault((message.id or "").rsplit(":", 1)[0], []).append(message)
        pages.read_from = first
        pages.before = first - 1 if len(saved) == _PAGE else 0
        return [(one, pages.writes.pop(one.id, [])) for one in saved]

    def _fits(self, saved: _Saved, only: str | None, filter: Mapping[str, Any] | None, before: str | None) -> bool:
        if only and saved.id != only:
            return False
        if before and saved.id >= before:
            return False
        if filter:
            metadata = self.serde.loads_typed((saved.header["kinds"][1], saved.blobs[1]))
            return all(metadata.get(name) == value for name, value in filter.items())
        return True

    # Whole threads.

    def _delete_thread(self, thread: str) -> Flow[None]:
        keys = yield from self._sessions(thread)
        yield Command(("UNLINK", *keys, self._owner(thread)))

    def _everything(self, key: str) -> Flow[builtins.list[Message]]:
        found: builtins.list[Message] = []
        first: Argument = "-"
        while True:
            reply = yield Command(("SESSION.RANGE", key, first, "+", "COUNT", 1_000))
            page = [Message.of(one) for one in reply]
            found += page
            if len(page) < 1_000:
                return found
            first = page[-1].seq + 1

    def _copy_thread(self, source: str, target: str) -> Flow[None]:
        """Message by message, so that the threads may be in different hash slots."""
        for key in (yield from self._sessions(source)):
            messages = yield from self._everything(key)
            copy, owner = self._key(target, self._named(key)[1]), self._owner(target)
            batch: builtins.list[tuple[str, str, bytes]] = []
            size = 0
            for message in messages:
                if batch and (len(batch) == 1_000 or size + len(message.raw) > 16 << 20):
                    yield from self._append(copy, owner, True, batch)
                    batch, size = [], 0
                batch.append((message.role, message.id or "", message.raw))
                size += len(message.raw)
            if batch:
                yield from self._append(copy, owner, True, batch)

    def _delete_runs(self, key: str, runs: set[str]) -> Flow[None]:
        messages = yield from self._everything(key)
        gone: set[str] = set()
        for message in messages:
            if message.role == "c":
                saved = _Saved(message)
                metadata = self.serde.loads_typed((saved.header["kinds"][1], saved.blobs[1]))
                if metadata.get("run_id") in runs:
                    gone.add(saved.id)
        yield from self._remove(key, messages, gone)

    def _remove(self, key: str, messages: Sequence[Message], gone: set[str]) -> Flow[None]:
        seqs = [m.seq for m in messages if _checkpoint_of(m) in gone]
        for at in range(0, len(seqs), 1_000):
            yield Command(("SESSION.DEL", key, *seqs[at : at + 1_000]))

    def _keep_latest(self, key: str) -> Flow[None]:
        messages = yield from self._everything(key)
        saved = {m.id or "": _Saved(m) for m in messages if m.role == "c"}
        if not saved:
            return
        latest = max(saved)
        kept = self._needed(saved, messages, latest)
        yield from self._remove(key, messages, set(saved) - kept)

    def _needed(self, saved: Mapping[str, _Saved], messages: Sequence[Message], latest: str) -> set[str]:
        """The latest checkpoint, and the ancestors that its delta channels are rebuilt from.

        A delta channel has a version and no value: its value is that of the nearest ancestor that has one, and what
        was written since. Of a channel that no ancestor has a value of, all that wrote to it are needed.
        """
        head = self._checkpoint(saved[latest])
        values = head.get("channel_values", {})
        open_ = {
            name for name in head.get("channel_versions", {})
            if name not in values and not name.startswith(("__", "branch:"))
        }  # fmt: skip
        wrote: dict[str, set[str]] = {}
        for message in messages:
            if message.role == "w":
                header, _ = unpack(message.raw)
                wrote.setdefault(_checkpoint_of(message), set()).update(channel for _, channel, _ in header["writes"])
        kept, path = {latest}, []
        at = saved[latest].header["parent"]
        while open_ and at in saved:
            path.append(at)
            has = self._checkpoint(saved[at]).get("channel_values", {})
            if any(name in has for name in open_):
                open_ -= set(has)
                kept |= set(path)
            at = saved[at].header["parent"]
        for number, id in enumerate(path):
            if wrote.get(id, set()) & open_:
                kept |= set(path[: number + 1])
        return kept

    def _checkpoint(self, saved: _Saved) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.serde.loads_typed((saved.header["kinds"][0], saved.blobs[0]))
        return found

    # For threads.

    def _all_keys(self) -> builtins.list[str]:
        client = self._both.sync._connection.client
        return sorted(r.text(key) for key in client.scan_iter(match=f"{self.prefix}:{{*", _type="llm-sessn"))

    async def _aall_keys(self) -> builtins.list[str]:
        client = self._both.aio._connection.client
        return sorted([r.text(key) async for key in client.scan_iter(match=f"{self.prefix}:{{*", _type="llm-sessn")])

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._both.sync._run(self._get_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        run = self._both.sync._run
        keys = self._all_keys() if config is None else run(self._keys_of(config))
        only = get_checkpoint_id(config) if config else None
        until = get_checkpoint_id(before) if before else None
        left = -1 if limit is None else limit
        for key in keys:
            pages = self._pages(key)
            while left != 0 and (page := run(self._page(pages))):
                for saved, writes in page:
                    if left != 0 and self._fits(saved, only, filter, until):
                        left -= 1
                        yield self._tuple(*self._named(key), saved, writes)

    def _keys_of(self, config: RunnableConfig) -> Flow[builtins.list[str]]:
        where = config["configurable"]
        namespace = where.get("checkpoint_ns")
        if namespace is not None:
            return [self._key(str(where["thread_id"]), namespace)]
        return (yield from self._sessions(str(where["thread_id"])))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._both.sync._run(self._put(config, checkpoint, metadata))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._both.sync._run(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._both.sync._run(self._delete_thread(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        for key in self._all_keys():
            self._both.sync._run(self._delete_runs(key, {str(run) for run in run_ids}))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._both.sync._run(self._copy_thread(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread in map(str, thread_ids):
            self._both.sync._run(self._prune(thread, strategy))

    def _prune(self, thread: str, strategy: str) -> Flow[None]:
        if strategy == "delete":
            yield from self._delete_thread(thread)
        elif strategy == "keep_latest":
            for key in (yield from self._sessions(thread)):
                yield from self._keep_latest(key)
        else:
            raise ValueError(f"a thread is pruned by keep_latest or delete, not by {strategy!r}")

    # For asyncio.

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._both.aio._run(self._get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        run = self._both.aio._run
        keys = await self._aall_keys() if config is None else await run(self._keys_of(config))
        only = get_checkpoint_id(config) if config else None
        until = get_checkpoint_id(before) if before else None
        left = -1 if limit is None else limit
        for key in keys:
            pages = self._pages(key)
            while left != 0 and (page := await run(self._page(pages))):
                for saved, writes in page:
                    if left != 0 and self._fits(saved, only, filter, until):
                        left -= 1
                        yield self._tuple(*self._named(key), saved, writes)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._both.aio._run(self._put(config, checkpoint, metadata))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._both.aio._run(self._put_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._both.aio._run(self._delete_thread(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        for key in await self._aall_keys():
            await self._both.aio._run(self._delete_runs(key, {str(run) for run in run_ids}))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._both.aio._run(self._copy_thread(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread in map(str, thread_ids):
            await self._both.aio._run(self._prune(thread, strategy))


class _Pages:
    """How far the checkpoints of a session were read, from the newest back; None before the first page."""

    def __init__(self, key: str):
        self.key = key
        self.before: int | None = None
        self.read_from: int | None = None
        self.writes: dict[str, list[Message]] = {}


def _checkpoint_of(message: Message) -> str:
    id = message.id or ""
    return id if message.role == "c" else id.rsplit(":", 1)[0]


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}


def _written(task: str, path: str, rows: Mapping[int, tuple[str, str, bytes]]) -> bytes:
    header = {"task": task, "path": path, "writes": [[at, channel, kind] for at, (channel, kind, _) in rows.items()]}
    return pack(header, *(blob for _, _, blob in rows.values()))


def _rows(payload: bytes) -> dict[int, tuple[str, str, bytes]]:
    header, blobs = unpack(payload)
    return {at: (channel, kind, blob) for (at, channel, kind), blob in zip(header["writes"], blobs, strict=True)}


def _policy() -> Flow[str]:
    reply = yield Command(("INFO", "memory"))
    if isinstance(reply, Mapping):
        return r.text(r.mapping(reply).get("maxmemory_policy"))
    for line in r.text(reply).splitlines():
        if line.startswith("maxmemory_policy:"):
            return line.split(":", 1)[1]
    return ""


def _warn_of(policy: str) -> None:
    import warnings

    if policy.startswith("allkeys"):
        warnings.warn(
            f"maxmemory-policy is {policy}: whole threads may be evicted; use volatile-* or noeviction", stacklevel=3
        )


class LlmcacheNodeCache(BaseCache[ValueT]):
    """The results of nodes: `graph.compile(cache=LlmcacheNodeCache(client))`. Emptying a namespace takes one step."""

    def __init__(self, client: Any, *, name: str = "nodes", serde: SerializerProtocol | None = None):
        super().__init__(serde=serde)
        self.name = name
        self._both = Both(client, _Runner, _AsyncRunner)

    @staticmethod
    def _scope(namespace: Namespace) -> str:
        return json.dumps(list(namespace), ensure_ascii=False) if namespace else ""

    def _get(self, keys: Sequence[FullKey]) -> Flow[dict[FullKey, ValueT]]:
        if not keys:
            return {}
        replies = yield Many(
            [("LLMCACHE.GET", self.name, "PROMPT", key, "SCOPE", self._scope(tuple(space))) for space, key in keys]
        )
        found: dict[FullKey, ValueT] = {}
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, Exception):
                raise reply
            if reply is not None:
                header, blobs = unpack(reply)
                found[key] = self.serde.loads_typed((header["kind"], blobs[0]))
        return found

    def _set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> Flow[None]:
        commands = []
        for (namespace, key), (value, ttl) in pairs.items():
            kind, blob = self.serde.dumps_typed(value)
            commands.append((
                "LLMCACHE.SET", self.name, "PROMPT", key, "RESPONSE", pack({"kind": kind}, blob),
                "SCOPE", self._scope(tuple(namespace)), *expiry(ttl),
            ))  # fmt: skip
        for reply in (yield Many(commands)) if commands else ():
            if isinstance(reply, Exception):
                raise reply

    def _clear(self, namespaces: Sequence[Namespace] | None) -> Flow[None]:
        if namespaces is None:
            ways: list[tuple[Argument, ...]] = [("ALL",)]
        else:
            ways = [("SCOPE", self._scope(tuple(namespace))) for namespace in namespaces]
        for reply in (yield Many([("LLMCACHE.INVALIDATE", self.name, *way) for way in ways])) if ways else ():
            if isinstance(reply, Exception) and "NOCACHE" not in str(reply):
                raise reply

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        return self._both.sync._run(self._get(keys))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        return await self._both.aio._run(self._get(keys))

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        self._both.sync._run(self._set(pairs))

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        await self._both.aio._run(self._set(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        self._both.sync._run(self._clear(namespaces))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        await self._both.aio._run(self._clear(namespaces))
