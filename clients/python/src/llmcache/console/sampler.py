"""What the server did of late: one INFO every few seconds, whoever watches, kept for half an hour.

All pages see the same samples, so that a second reader costs the server nothing. While nobody watches, the server is
asked rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from .store import Refused, Store
from .text import bytes_of, line

WATCHED_SECONDS = 2.0
IDLE_SECONDS = 30.0
KEPT = 900
SECTIONS = ("server", "clients", "memory", "stats", "replication", "llmcache")
_COUNTS = (
    "lookups", "hits_exact", "hits_semantic", "refused_by_guards", "fetch_lead", "fetch_busy", "fetch_coalesced",
    "fetch_stale", "failures", "tokens_saved", "ms_saved", "micro_usd_saved", "searches_in_threads", "searches_out",
    "commands_in_slices", "leases", "waiters", "entries", "bytes", "index_bytes", "caches", "documents",
    "document_bytes", "document_indexes", "document_lookups", "document_hits", "embeddings", "embedding_bytes",
    "embedding_caches", "embedding_lookups", "embedding_hits", "namespaces", "chunks", "chunk_bytes",
    "chunk_leases", "chunks_asked", "chunks_matched", "chunks_evicted", "session_followers", "texts_embedded",
)  # fmt: skip
_SERVER = (
    "used_memory", "maxmemory", "evicted_keys", "expired_keys", "connected_clients", "blocked_clients",
    "instantaneous_ops_per_sec", "uptime_in_seconds",
)  # fmt: skip


def containers(info: dict[str, str]) -> list[dict[str, Any]]:
    """The containers that INFO names."""
    found = []
    for name, value in info.items():
        if name.startswith("llmcache_container_"):
            row: dict[str, Any] = dict(pair.split("=", 1) for pair in value.split(","))
            for number in ("db", "entries", "bytes"):
                row[number] = int(row[number])
            found.append({**row, "shown": line(bytes_of(row["name"]))})
    return sorted(found, key=lambda row: (-row["bytes"], row["shown"]))


def replicas(info: dict[str, str]) -> list[dict[str, Any]]:
    """What the server replicates to, and how far behind it is."""
    sent = int(info.get("master_repl_offset", 0))
    rows = []
    for number in range(min(64, int(info.get("connected_slaves", 0)))):
        told = dict(pair.split("=", 1) for pair in info.get(f"slave{number}", "").split(",") if "=" in pair)
        if told:
            behind = max(0, sent - int(told.get("offset", sent)))
            rows.append(
                {"address": f"{told.get('ip')}:{told.get('port')}", "state": told.get("state"), "behind": behind}
            )
    return rows


def sample_of(info: dict[str, str], at: float) -> dict[str, Any]:
    """A sample for the page."""
    valkey = info.get("valkey_version")
    return {
        "at": round(at, 3),
        "server": f"{'Valkey' if valkey else 'Redis'} {valkey or info.get('redis_version', '?')}",
        "module": info.get("llmcache_version"),
        "role": info.get("role"),
        "link": info.get("master_link_status"),
        "policy": info.get("maxmemory_policy"),
        "replicas": replicas(info),
        "containers": containers(info),
        **{name: int(info.get(name, 0)) for name in _SERVER},
        "did": {name: int(info.get(f"llmcache_{name}", 0)) for name in _COUNTS},
    }


class Sampler:
    """Takes samples and tells those who watch."""

    def __init__(self, store: Store):
        self._store = store
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._told = asyncio.Condition()
        self._watchers = 0
        self._woken = asyncio.Event()
        self.problem: str | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.take()
            self._woken.clear()
            seconds = WATCHED_SECONDS if self._watchers else IDLE_SECONDS
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)

    async def take(self) -> None:
        """Takes one sample."""
        try:
            self._kept.append(sample_of(await self._store.info(*SECTIONS), time.time()))
            self.problem = None
        except Refused as refused:
            self.problem = str(refused)
        async with self._told:
            self._told.notify_all()

    async def latest(self) -> dict[str, Any]:
        """The latest sample; takes one where the latest is old."""
        if not self._kept or time.time() - self._kept[-1]["at"] > 2 * WATCHED_SECONDS:
            await self.take()
        if self.problem or not self._kept:
            raise Refused(self.problem or "no sample was taken", 503)
        return self._kept[-1]

    def history(self) -> list[dict[str, Any]]:
        """All samples without the lists that only the latest is asked for."""
        lists = ("containers", "replicas")
        return [{name: value for name, value in one.items() if name not in lists} for one in self._kept]

    async def watch(self) -> AsyncIterator[dict[str, Any]]:
        """Each sample from now on, or what is wrong."""
        self._watchers += 1
        self._woken.set()
        try:
            while True:
                async with self._told:
                    await self._told.wait()
                yield {"problem": self.problem} if self.problem else self._kept[-1]
        finally:
            self._watchers -= 1
