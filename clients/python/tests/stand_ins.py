"""What the adapters of engines need of LMCache and SGLang, by their signatures, where neither is installed.

`make suites-lmcache` runs LMCache's own tests over the real one. `install()` puts these into `sys.modules`.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from enum import Enum


class Bitmap:
    def __init__(self, size: int, prefix: int = 0):
        self._bits = [at < prefix for at in range(size)]

    def batched_set(self, places):
        for at in places:
            self._bits[at] = True

    def test(self, at: int) -> bool:
        return self._bits[at]

    def popcount(self) -> int:
        return sum(self._bits)

    def __len__(self) -> int:
        return len(self._bits)

    def all(self) -> list[bool]:
        return list(self._bits)


@dataclass(frozen=True)
class ObjectKey:
    chunk_hash: bytes
    model_name: str
    kv_rank: int
    object_group_id: int = 0
    cache_salt: str = ""


class L2StoreResult(int):
    def __new__(cls, success: bool, bytes_transferred: int):
        return super().__new__(cls, bytes_transferred if success else -1)

    def is_successful(self) -> bool:
        return int(self) >= 0

    def bytes_transferred(self) -> int:
        return max(0, int(self))


@dataclass(frozen=True)
class AdapterUsage:
    total_bytes_used: int
    total_capacity_bytes: int
    bytes_by_cache_salt: dict = field(default_factory=dict)


class L2AdapterInterface:
    def __init__(self, max_capacity_bytes: int = 0):
        self._max_capacity_bytes = max_capacity_bytes
        self.stored, self.accessed, self.deleted = [], [], []

    def _notify_keys_stored(self, keys, sizes):
        self.stored.append((list(keys), list(sizes)))

    def _notify_keys_accessed(self, keys):
        self.accessed.append(list(keys))

    def _notify_keys_deleted(self, keys, sizes):
        self.deleted.append((list(keys), list(sizes)))

    def get_usage(self):
        return AdapterUsage(-1, self._max_capacity_bytes)


class L2AdapterConfigBase:
    pass


class Memory:
    """A MemoryObj as far as an adapter sees it."""

    def __init__(self, data: bytes | int):
        self.data = bytearray(data)

    @property
    def byte_array(self):
        return memoryview(self.data)


class HiCacheStorage:
    def register_mem_pool_host(self, pool):
        self.mem_pool_host = pool

    def register_mem_host_pool_v2(self, pool, name):
        self.registered_pools[name] = pool


class PoolName(str, Enum):
    KV = "kv"
    MAMBA = "mamba"
    INDEXER = "indexer"

    def __str__(self) -> str:
        return self.value


class PoolHitPolicy(str, Enum):
    ALL_PAGES = "all_pages"
    TRAILING_PAGES = "trailing_pages"
    BLOCK_GROUPS = "block_groups"


@dataclass
class PoolTransfer:
    name: PoolName
    host_indices: object = None
    keys: list | None = None
    hit_policy: PoolHitPolicy = PoolHitPolicy.ALL_PAGES


@dataclass
class PoolTransferResult:
    kv_hit_pages: int
    extra_pool_hit_pages: dict


@dataclass
class ExtraInfo:
    prefix_keys: list | None = None


@dataclass
class StorageConfig:
    model_name: str = "org/m"
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    attn_cp_rank: int = 0
    attn_cp_size: int = 1
    is_mla_model: bool = False
    is_page_first_layout: bool = True
    extra_config: dict | None = None


MODULES = {
    "lmcache.lmcache_native": {"Bitmap": Bitmap},
    "lmcache.v1.distributed.api": {"ObjectKey": ObjectKey},
    "lmcache.v1.distributed.internal_api": {"L2StoreResult": L2StoreResult},
    "lmcache.v1.distributed.l2_adapters.base": {"AdapterUsage": AdapterUsage, "L2AdapterInterface": L2AdapterInterface},
    "lmcache.v1.distributed.l2_adapters.config": {"L2AdapterConfigBase": L2AdapterConfigBase},
    "sglang.srt.mem_cache.hicache_storage": {
        "HiCacheStorage": HiCacheStorage, "PoolHitPolicy": PoolHitPolicy, "PoolName": PoolName, "PoolTransferResult": PoolTransferResult,
    },
}  # fmt: skip


def install() -> None:
    """Once for the process: nothing else of these packages is in the environment of these tests."""
    for name, holds in MODULES.items():
        parts = name.split(".")
        for upto in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:upto]), types.ModuleType(".".join(parts[:upto])))
        for attribute, value in holds.items():
            setattr(sys.modules[name], attribute, value)
