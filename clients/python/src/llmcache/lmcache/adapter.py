"""The L2 adapter of LMCache's MP mode, type `plugin`.

An `ObjectKey` is (chunk_hash, model_name, kv_rank, object_group_id, cache_salt): model and salt name a namespace, hash,
rank and group a chunk of it, so that another model, rank, group or tenant cannot be answered. Look-ups hold what they
find by a lease of the server, which ends with the unlock, or by itself where the engine died. Owns: tasks, event fds,
which lease holds which key.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import compress
from types import MappingProxyType
from typing import Any

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import AdapterUsage, L2AdapterInterface
from lmcache.v1.distributed.l2_adapters.config import L2AdapterConfigBase

from .._engine import Endpoint, Found, Names, Options, open_store
from .._engine.wire import password_of

log = logging.getLogger("llmcache.lmcache")

# Of so many chunks that were looked for and not found it is remembered which comes before them.
_ORDER_MAX = 1 << 16
_HELP = """LLMCacheL2Adapter, adapter_params:
- url (str): redis://[user:password@]host:port/db, rediss:// for TLS, or unix:///path; or host, port, db
- username, password, password_env (str): the ACL user; password_env names an environment variable
- ca_file, cert_file, key_file (str), check_hostname (bool): TLS
- connections (int, 4), page_bytes (int, 512 KiB), timeout, connect_timeout, pause (seconds)
- lease_ms (int, 60000): how long a look-up holds what it found unless it is unlocked sooner
- ttl (int, 0): seconds that a chunk lives; 0 is until it is evicted
- budget (int, 0): most bytes of one namespace (model, salt); 0 leaves it to llmcache.kv-share
- durable (NONE, META or FULL), checksum (bool, true), chunk_tokens (int, 256)
- native (bool, where it is installed): whether llmcache-native moves the bytes; not over TLS
- prefix (str): put before namespaces, to tell deployments apart
- max_capacity_gb (float, 0): of what LMCache's own eviction is to take care; 0 leaves eviction to the server"""


class LLMCacheL2AdapterConfig(L2AdapterConfigBase):  # type: ignore[misc]
    """`adapter_params` of the JSON."""

    def __init__(
        self,
        endpoint: Endpoint,
        options: Options,
        prefix: str = "",
        max_capacity_gb: float = 0.0,
        lease_ms: int = 60_000,
    ) -> None:
        self.endpoint, self.options, self.prefix = endpoint, options, prefix
        self.max_capacity_gb, self.lease_ms = max_capacity_gb, lease_ms

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> LLMCacheL2AdapterConfig:
        own = {"prefix", "max_capacity_gb", "password_env", "url", "type"}
        of_endpoint = {each.name for each in fields(Endpoint)}
        of_options = {each.name for each in fields(Options)} - {"form"}
        unknown = set(d) - own - of_endpoint - of_options
        if unknown:
            raise ValueError(f"unknown adapter_params {sorted(unknown)}; {cls.help()}")
        said = {name: d[name] for name in of_endpoint & set(d)} | {"password": password_of(d)}
        try:
            endpoint = Endpoint.of_url(d["url"], **said) if "url" in d else Endpoint(**said)
            options = Options(**{name: d[name] for name in of_options & set(d)}, form="lmcache")
            _check(endpoint, options)
            capacity = float(d.get("max_capacity_gb", 0))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{error}; {cls.help()}") from error
        return cls(endpoint, options, str(d.get("prefix", "")), capacity, options.lease_ms)

    @classmethod
    def help(cls) -> str:
        return _HELP


def _check(endpoint: Endpoint, options: Options) -> None:
    for name, least in (("connections", 1), ("page_bytes", 1), ("lease_ms", 0), ("ttl", 0), ("chunk_tokens", 1)):
        value = getattr(options, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is a whole number of at least {least}, not {value!r}")
    if options.durable not in ("NONE", "META", "FULL"):
        raise ValueError(f"durable is NONE, META or FULL, not {options.durable!r}")
    if endpoint.timeout <= 0 or endpoint.connect_timeout <= 0:
        raise ValueError("timeout and connect_timeout are above 0")


# A namespace, the names of its chunks in the order of the prompt, and where the keys of these are: a range where keys
# are in that order already.
_Prompt = tuple[str, Names, Sequence[int]]


@dataclass
class _Lease:
    """A lease of the server, and how many of its keys are locked still."""

    namespace: str
    name: int | bytes
    ends: float
    left: int


class _Tasks:
    """Tasks of one kind: their results, and the event fd that tells of them."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.results: dict[int, Any] = {}
        self._lock = threading.Lock()

    def end(self, task: int, result: Any) -> None:
        with self._lock:
            self.results[task] = result
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def pop(self, task: int) -> Any:
        with self._lock:
            return self.results.pop(task, None)

    def pop_all(self) -> dict[int, Any]:
        with self._lock:
            results, self.results = self.results, {}
            return results

    def close(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


class LLMCacheL2Adapter(L2AdapterInterface):  # type: ignore[misc]
    """Chunks of LMCache in namespaces of the module."""

    config_class_name = "LLMCacheL2AdapterConfig"

    def __init__(self, config: LLMCacheL2AdapterConfig | dict[str, Any], **_: Any) -> None:
        if isinstance(config, dict):
            config = LLMCacheL2AdapterConfig.from_dict(config)
        super().__init__(max_capacity_bytes=int(config.max_capacity_gb * (1 << 30)))
        self._config = config
        self._store = open_store(config.endpoint, config.options)
        self._stores, self._lookups, self._loads = _Tasks(), _Tasks(), _Tasks()
        self._lock = threading.Lock()
        self._next_task = 0
        self._open = 0
        self._idle = threading.Condition(self._lock)
        self._held: dict[str, dict[bytes, list[_Lease]]] = {}
        # Leases whose chunks are not in `_held` yet: an engine waits for a look-up, not for its unlock.
        self._fresh: deque[tuple[_Lease, Names, Sequence[bool]]] = deque()
        # For a chunk that was not found, the one before it.
        self._ahead: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        # Namespaces by model and salt.
        self._names: dict[tuple[str, str], str] = {}
        self._is_closed = False

    # Event fds.

    def get_store_event_fd(self) -> int:
        return self._stores.fd

    def get_lookup_and_lock_event_fd(self) -> int:
        return self._lookups.fd

    def get_load_event_fd(self) -> int:
        return self._loads.fd

    # Stores.

    def submit_store_task(self, keys: list[ObjectKey], objects: list[Any]) -> int:
        task = self._begin(keys, objects)
        views = [_bytes_of(each) for each in objects]
        sizes = [view.nbytes for view in views]
        stored = [False] * len(keys)

        def end() -> None:
            kept = [at for at, is_stored in enumerate(stored) if is_stored]
            if kept:
                self._notify_keys_stored([keys[at] for at in kept], [sizes[at] for at in kept])
            moved = sum(sizes[at] for at in kept)
            self._end(self._stores, task, L2StoreResult(len(kept) == len(keys), moved))

        waits = _Waits(end)
        for namespace, names, places in self._prompts(keys):
            digests = names.listed
            chunks = [(digest, views[at]) for digest, at in zip(digests, places, strict=True)]
            ahead = self._ahead_of(namespace, digests)
            self._store.put(namespace, chunks, waits.more(_into(stored, places)), ahead)
        waits.go()
        return task

    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]:
        return self._stores.pop_all()

    # Look-ups.

    def submit_lookup_and_lock_task(
        self, keys: list[ObjectKey], group_layout_descs: dict[int, Any] | None = None
    ) -> int:
        task = self._begin(keys, keys)
        prompts = self._prompts(keys)

        def done(found: list[list[Found]]) -> None:
            there = [False] * len(keys)
            for (namespace, names, places), (told,) in zip(prompts, found, strict=True):
                _into(there, places)(told.there)
                self._hold(namespace, names, told)
                if not told.is_whole:
                    self._note_order(namespace, names.listed, told.there)
            self._end(self._lookups, task, _bitmap(there))

        said = [([namespace], names) for namespace, names, _ in prompts]
        if said:
            self._store.match(said, done)
        else:
            done([])
        return task

    def query_lookup_and_lock_result(self, task_id: int) -> Bitmap | None:
        return self._lookups.pop(task_id)

    def submit_unlock(self, keys: list[ObjectKey]) -> None:
        over: list[_Lease] = []
        prompts = self._prompts(keys)
        with self._lock:
            self._list_fresh()
            for namespace, names, _ in prompts:
                of_namespace = self._held.get(namespace, {})
                for digest in names.listed:
                    leases = of_namespace.get(digest)
                    if not leases:
                        continue
                    lease = leases.pop(0)
                    if not leases:
                        del of_namespace[digest]
                    lease.left -= 1
                    if not lease.left:
                        over.append(lease)
        for lease in over:
            self._store.release(lease.namespace, lease.name)

    def _hold(self, namespace: str, names: Names, told: Found) -> None:
        count = told.leading if told.is_whole else sum(told.there)
        if told.lease is None or not count:
            return
        now = time.monotonic()
        lease = _Lease(namespace, told.lease, now + self._config.lease_ms / 1000, count)
        with self._lock:
            # Those that lapsed on the server, because nobody unlocked what they held.
            while self._fresh and self._fresh[0][0].ends < now:
                self._fresh.popleft()
            self._fresh.append((lease, names, told.there))

    def _list_fresh(self) -> None:
        """Notes of each chunk which leases hold it; with the lock."""
        now = time.monotonic()
        while self._fresh:
            lease, names, there = self._fresh.popleft()
            if lease.ends < now:
                continue
            of_namespace = self._held.setdefault(lease.namespace, {})
            for digest in compress(names.listed, there):
                held = of_namespace.get(digest)
                if held is None:
                    of_namespace[digest] = [lease]
                    continue
                while held and held[0].ends < now:
                    held.pop(0)
                held.append(lease)

    # Loads.

    def submit_load_task(self, keys: list[ObjectKey], objects: list[Any]) -> int:
        task = self._begin(keys, objects)
        views, loaded = [_bytes_of(each) for each in objects], [False] * len(keys)

        def end() -> None:
            found = [key for key, is_loaded in zip(keys, loaded, strict=True) if is_loaded]
            if found:
                self._notify_keys_accessed(found)
            self._end(self._loads, task, _bitmap(loaded))

        waits = _Waits(end)
        for namespace, names, places in self._prompts(keys):
            chunks = [(digest, views[at]) for digest, at in zip(names.listed, places, strict=True)]
            self._store.load(namespace, chunks, waits.more(_into(loaded, places)))
        waits.go()
        return task

    def query_load_result(self, task_id: int) -> Bitmap | None:
        return self._loads.pop(task_id)

    # Removal and usage.

    def delete(self, keys: list[ObjectKey]) -> None:
        for namespace, names, places in self._prompts(keys):
            digests = names.listed
            known = self._store.call(["KVCHUNK.MATCH", namespace, *names.words(), "SPARSE"])
            if known is None:
                continue
            digits = format(int.from_bytes(known[3][0][2], "big"), f"0{len(known[3][0][2]) * 8}b")
            there = [
                (keys[at], digest.hex())
                for at, digest, digit in zip(places, digests, digits, strict=False)
                if digit == "1"
            ]
            sizes = [self._size_of(namespace, name) for _, name in there]
            if there and self._store.call(["KVCHUNK.DEL", namespace, *(name for _, name in there)]):
                self._notify_keys_deleted([key for key, _ in there], sizes)

    def _size_of(self, namespace: str, name: str) -> int:
        told = self._store.call(["KVCHUNK.GET", namespace, name, "NOPAYLOAD"])
        return int(told[1]) if told else 0

    def get_usage(self) -> AdapterUsage:
        """What the server says that namespaces of this adapter take, tenants apart; else what was counted here."""
        with self._lock:
            names = dict(self._names)
        by_salt: dict[str, int] = {}
        for (_, salt), namespace in names.items():
            told = self._store.call(["KVCHUNK.INFO", namespace], wait=1.0) if self._store.is_up else None
            if told is None:
                if self._store.is_up:
                    continue
                return super().get_usage()
            info = dict(zip(told[::2], told[1::2], strict=False))
            bytes_ = int(info[b"payload_bytes"])
            if bytes_:
                by_salt[salt] = by_salt.get(salt, 0) + bytes_
        return AdapterUsage(
            total_bytes_used=sum(by_salt.values()),
            total_capacity_bytes=self._max_capacity_bytes,
            bytes_by_cache_salt=MappingProxyType(by_salt),
        )

    def report_status(self) -> dict[str, Any]:
        counts = self._store.counts
        with self._lock:
            self._list_fresh()
            held, open_ = sum(len(held) for held in self._held.values()), self._open
        return {
            "is_healthy": self._store.is_up and not self._is_closed,
            "type": "LLMCacheL2Adapter",
            "server": str(self._config.endpoint),
            "native": self._store.is_native,
            "locked_key_count": held,
            "tasks": open_,
            **vars(counts),
        }

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._list_fresh()
            held = [each for of in self._held.values() for leases in of.values() for each in leases]
            leases = {(each.namespace, each.name) for each in held}
            self._held.clear()
        for namespace, name in leases:
            self._store.release(namespace, name)
        self._store.close()
        for tasks in (self._stores, self._lookups, self._loads):
            tasks.close()

    # Names and order.

    def _namespace(self, model: str, salt: str) -> str:
        """The namespace of a model and a tenant, the whole name its hash tag."""
        name = self._names.get((model, salt))
        if name is None:
            name = f"{self._config.prefix}{{{model}@{salt}}}" if salt else f"{self._config.prefix}{{{model}}}"
            with self._lock:
                self._names[model, salt] = name
        return name

    def _prompts(self, keys: Sequence[ObjectKey]) -> list[_Prompt]:
        """Keys by namespace, in the order of their prompt: all ranks and groups of a chunk, then those of the next.

        So one command looks all of them up, and a chunk of one rank is evicted with those of the others.
        """
        if not keys:
            return []
        models, salts = [key.model_name for key in keys], [key.cache_salt for key in keys]
        if models.count(models[0]) == len(keys) == salts.count(salts[0]):
            rows: dict[tuple[str, str], Sequence[int]] = {(models[0], salts[0]): range(len(keys))}
        else:
            places: dict[tuple[str, str], list[int]] = {}
            for at, tenant in enumerate(zip(models, salts, strict=True)):
                places.setdefault(tenant, []).append(at)
            rows = {**places}
        prompts: list[_Prompt] = []
        for (model, salt), row in rows.items():
            there = keys if len(row) == len(keys) else [keys[at] for at in row]
            hashes = [key.chunk_hash for key in there]
            if len(set(hashes)) < len(hashes):
                first: dict[bytes, int] = {}
                for at, digest in zip(row, hashes, strict=True):
                    first.setdefault(digest, at)
                row = sorted(row, key=lambda at: first[keys[at].chunk_hash])
                there = [keys[at] for at in row]
                hashes = [key.chunk_hash for key in there]
            ranks, groups = [key.kv_rank for key in there], [key.object_group_id for key in there]
            prompts.append((self._namespace(model, salt), self._store.slices(hashes, ranks, groups), row))
        return prompts

    def _note_order(self, namespace: str, hashes: Sequence[bytes], there: Sequence[bool]) -> None:
        with self._lock:
            for at, is_there in enumerate(there):
                if at and not is_there:
                    self._ahead[namespace, hashes[at]] = hashes[at - 1]
                    self._ahead.move_to_end((namespace, hashes[at]))
            while len(self._ahead) > _ORDER_MAX:
                self._ahead.popitem(last=False)

    def _ahead_of(self, namespace: str, hashes: Sequence[bytes]) -> bytes | None:
        with self._lock:
            known = [self._ahead.pop((namespace, digest), None) for digest in hashes]
        return known[0] if known else None

    # Tasks.

    def _begin(self, keys: Sequence[Any], objects: Sequence[Any]) -> int:
        if len(keys) != len(objects):
            raise ValueError(f"{len(keys)} keys and {len(objects)} objects")
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the adapter is closed")
            self._next_task += 1
            self._open += 1
            return self._next_task

    def _end(self, tasks: _Tasks, task: int, result: Any) -> None:
        with self._lock:
            self._open -= 1
        tasks.end(task, result)


class _Waits:
    """Calls `end` when all that was begun has ended."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._left, self._end, self._lock = 1, end, threading.Lock()

    def more(self, use: Callable[[list[bool]], None]) -> Callable[[list[bool]], None]:
        with self._lock:
            self._left += 1

        def done(told: list[bool]) -> None:
            use(told)
            self.go()

        return done

    def go(self) -> None:
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            self._end()


def _into(all_: list[bool], places: Sequence[int]) -> Callable[[Sequence[bool]], None]:
    def use(told: Sequence[bool]) -> None:
        if len(places) == len(all_) and isinstance(places, range):
            all_[:] = told
            return
        for at, value in zip(places, told, strict=True):
            all_[at] = value

    return use


def _bitmap(bits: Sequence[bool]) -> Bitmap:
    if all(bits):
        return Bitmap(len(bits), len(bits))
    bitmap = Bitmap(len(bits))
    bitmap.batched_set([at for at, bit in enumerate(bits) if bit])
    return bitmap


def _bytes_of(obj: Any) -> memoryview:
    """The engine's own memory, as bytes."""
    view = memoryview(obj.byte_array)
    return view if view.format == "B" else view.cast("B")
