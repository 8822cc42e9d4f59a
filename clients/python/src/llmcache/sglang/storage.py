"""`HiCacheStorage` of SGLang: pages of its host memory in and out of namespaces of the module.

A key is the SHA-256 chain that SGLang computes, as hex digits; model, layout, ranks and pool name a namespace. A page
is one chunk, its buffers (keys and values, or a pair for each layer) in a row, straight from and to host memory.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, PoolHitPolicy, PoolName, PoolTransferResult

from .._engine import Endpoint, Found, Names, Options, open_store
from .._engine.terms import Chunk
from .._engine.wire import password_of

log = logging.getLogger("llmcache.sglang")

T = TypeVar("T")
_OWN = {
    "backend_name",
    "module_path",
    "class_name",
    "url",
    "prefix",
    "password_env",
    "extra_backend_tag",
    "interface_v1",
}


class LLMCacheHiCacheStorage(HiCacheStorage):  # type: ignore[misc]
    """The third tier of HiCache; SGLang makes one for each rank."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any] | None = None) -> None:
        extra: dict[str, Any] = dict(storage_config.extra_config or {})
        of_endpoint = {each.name for each in fields(Endpoint)}
        of_options = {each.name for each in fields(Options)} - {"form"}
        said = {name: extra[name] for name in of_endpoint & set(extra)} | {"password": password_of(extra)}
        endpoint = Endpoint.of_url(extra["url"], **said) if "url" in extra else Endpoint(**said)
        # Nobody says when a page that was found is loaded: a look-up holds it for a short time.
        chosen: dict[str, Any] = {"lease_ms": 5_000, **{name: extra[name] for name in of_options & set(extra)}}
        ignored = set(extra) - _OWN - of_endpoint - of_options
        if ignored:
            log.info("not known here, and left to SGLang: %s", sorted(ignored))
        self._store = open_store(endpoint, Options(**chosen, form="sglang"))
        self._base = _base(storage_config, extra)
        self.registered_pools: dict[Any, Any] = {}

    # Look-ups.

    def exists(self, key: str) -> bool:
        return bool(self.batch_exists([key]))

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """How many of the first keys are there."""
        return self._match([self._base], keys)[0].leading

    def batch_exists_v2(self, keys: list[str], pool_transfers: Any = None, extra_info: Any = None) -> Any:
        """The usable prefix: of the pools that SGLang names too, in the same trip."""
        transfers = list(pool_transfers or [])
        names = [self._base, *(self._name_of(transfer.name) for transfer in transfers)]
        kv, *others = self._match(names, keys)
        hits: dict[Any, int] = {PoolName.KV: kv.leading} if kv.leading else {}
        usable = kv.leading
        for transfer, found in zip(transfers, others, strict=True):
            if transfer.hit_policy == PoolHitPolicy.ALL_PAGES:
                pages = min(found.leading, kv.leading)
            elif transfer.hit_policy == PoolHitPolicy.TRAILING_PAGES:
                pages = _trailing(found.there, kv.leading, max(1, len(transfer.keys or ())))
            else:
                # A second form of pages, which never shortens the prefix: none of it is offered.
                continue
            if pages:
                hits[transfer.name] = pages
            usable = min(usable, pages)
        return PoolTransferResult(usable, hits)

    def _match(self, names: Sequence[str], keys: Sequence[str]) -> list[Found]:
        if not keys:
            return [Found() for _ in names]
        nothing = [[Found([False] * len(keys)) for _ in names]]
        asked = [(list(dict.fromkeys(names)), Names([_digest(key) for key in keys]))]
        told = self._waited(lambda done: self._store.match(asked, done), nothing)[0]
        by_name = dict(zip(asked[0][0], told, strict=False))
        return [by_name[name] for name in names] if len(by_name) == len(asked[0][0]) else nothing[0]

    # Pages of host memory.

    def batch_get_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        return self._get(self._base, keys, _pages(self.mem_pool_host, host_indices, len(keys)))

    def batch_set_v1(self, keys: list[str], host_indices: Any, extra_info: Any = None) -> list[bool]:
        return self._set(self._base, keys, _pages(self.mem_pool_host, host_indices, len(keys)), extra_info)

    def batch_get_v2(self, transfers: list[Any], extra_info: Any = None) -> dict[str, list[bool]]:
        return {
            each.name: self._get(self._name_of(each.name), each.keys or [], self._pages_of(each)) for each in transfers
        }

    def batch_set_v2(self, transfers: list[Any], extra_info: Any = None) -> dict[str, list[bool]]:
        told = {}
        for each in transfers:
            told[each.name] = self._set(self._name_of(each.name), each.keys or [], self._pages_of(each), extra_info)
        return told

    def _pages_of(self, transfer: Any) -> list[list[memoryview]]:
        pool = self.registered_pools.get(transfer.name)
        if pool is None and transfer.name == PoolName.KV:
            pool = self.mem_pool_host
        if pool is None:
            raise ValueError(f"no host pool {transfer.name} was registered")
        return _pages(pool, transfer.host_indices, len(transfer.keys or ()))

    def _get(self, name: str, keys: Sequence[str], pages: Sequence[Sequence[memoryview]]) -> list[bool]:
        chunks: list[Chunk] = [(_digest(key), page) for key, page in zip(keys, pages, strict=True)]
        return self._waited(lambda done: self._store.load(name, chunks, done), [False] * len(keys))

    def _set(
        self, name: str, keys: Sequence[str], pages: Sequence[Sequence[memoryview]], extra_info: Any
    ) -> list[bool]:
        chunks: list[Chunk] = [(_digest(key), page) for key, page in zip(keys, pages, strict=True)]
        before = getattr(extra_info, "prefix_keys", None) or []
        ahead = _digest(before[-1]) if before else None
        return self._waited(lambda done: self._store.put(name, chunks, done, ahead), [False] * len(keys))

    # Single values, for callers of the older interface.

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """Fills `target_location` and answers it, or None."""
        if target_location is None:
            return None
        return target_location if self._get(self._base, [key], [[_view(target_location)]])[0] else None

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:
        if target_locations is None:
            return [None] * len(keys)
        told = self._get(self._base, keys, [[_view(target)] for target in target_locations])
        return [target if is_there else None for target, is_there in zip(target_locations, told, strict=True)]

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return self.batch_set([key], [value if value is not None else target_location])

    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool:
        given = values if values is not None else target_locations
        if given is None or any(value is None for value in given):
            return False
        return all(self._set(self._base, keys, [[_view(value)] for value in given], None))

    # The rest.

    def clear(self) -> None:
        """Removes this rank's namespaces; other models and ranks keep theirs."""
        for name in {self._base, *(self._name_of(pool) for pool in self.registered_pools)}:
            self._store.call(["UNLINK", name])

    def close(self) -> None:
        """Ends connections and threads."""
        self._store.close()

    def _name_of(self, pool: Any) -> str:
        return self._base if pool == PoolName.KV else f"{self._base}@{pool!s}"

    def _waited(self, begin: Callable[[Callable[[T], None]], None], otherwise: T) -> T:
        told: list[T] = []
        over = threading.Event()

        def done(result: T) -> None:
            told.append(result)
            over.set()

        begin(done)
        # Buffers may be written until the store has ended with them, whatever that takes.
        over.wait()
        return told[0] if told else otherwise


def _base(config: Any, extra: dict[str, Any]) -> str:
    """Whose pages these are. Ranks of MLA hold the same, so they share a namespace."""
    model = str(config.model_name or "").replace("{", "(").replace("}", ")")
    tag = f"{extra.get('prefix', '')}{extra.get('extra_backend_tag') or ''}"
    rank = "mla" if config.is_mla_model else f"tp{config.tp_rank}of{config.tp_size}"
    parts = [rank, f"pp{config.pp_rank}of{config.pp_size}"]
    for short in ("attn_cp", "dcp"):
        size = getattr(config, f"{short}_size", 1) or 1
        if size > 1:
            parts.append(f"{short}{getattr(config, f'{short}_rank', 0)}of{size}")
    parts.append("pages" if config.is_page_first_layout else "layers")
    return f"{tag}{{{model}}}@{'@'.join(parts)}"


def _digest(key: str) -> bytes:
    """A key as the bytes that name a chunk: those of its hex digits, else its own, up to 64."""
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raw = key.encode()
    if not 1 <= len(raw) <= 64:
        raise ValueError(f"a key of {len(raw)} bytes cannot name a chunk")
    return raw


def _trailing(there: Sequence[bool], most: int, window: int) -> int:
    """The longest prefix whose last pages are there."""
    return next((pages for pages in range(most, 0, -1) if all(there[max(0, pages - window) : pages])), 0)


def _pages(pool: Any, indices: Any, count: int) -> list[list[memoryview]]:
    """The buffers of each page, where they lie in host memory."""
    if not count:
        return []
    pointers, sizes = pool.get_page_buffer_meta(indices)
    if len(pointers) % count:
        raise ValueError(f"{len(pointers)} buffers are no {count} pages")
    each = len(pointers) // count
    lengths = list(sizes) if not isinstance(sizes, int) else [sizes] * len(pointers)
    views = [_at(pointer, size) for pointer, size in zip(pointers, lengths, strict=True)]
    return [views[at : at + each] for at in range(0, len(views), each)]


def _at(pointer: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(int(pointer))).cast("B")


def _view(value: Any) -> memoryview:
    """A tensor's own memory, or a buffer's."""
    if hasattr(value, "data_ptr"):
        return _at(value.data_ptr(), value.numel() * value.element_size())
    return memoryview(value).cast("B")
