"""A Prometheus collector: what caches did, each with its label; asked of the servers when it is scraped.

    from prometheus_client import REGISTRY
    REGISTRY.register(LlmcacheCollector(client, ["faq", "support"]))

Without names the caches that INFO names are told, 64 at most, and what INFO sums up over all of them. The names are
those of `packaging/monitoring/llmcache.lua`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("prometheus-client is not installed: pip install 'llmcache-client[prometheus]'") from error

from . import _replies as r
from ._cache import log
from ._sync import LLMCache
from .errors import NoCache, is_outage
from .types import Fields

_COUNTED = (
    ("lead", "llmcache_leads", "Leases given to make an answer"),
    ("busy", "llmcache_busy", "Callers told that somebody makes the answer"),
    ("coalesced", "llmcache_coalesced", "Callers answered after they had waited"),
    ("stale", "llmcache_stale", "Stale answers served"),
    ("negative", "llmcache_negative", "Callers told of a failure a moment ago"),
    ("open", "llmcache_breaker_open", "Callers told that making answers rests"),
    ("stores", "llmcache_stores", "Answers stored"),
    ("replaced", "llmcache_replaced", "Answers that took the place of another"),
    ("evicted", "llmcache_evicted", "Answers evicted by MAXENTRIES or MAXMEMORY"),
    ("failures", "llmcache_failures", "Answers whose making failed"),
    ("tokens_saved", "llmcache_saved_tokens", "Tokens that hits saved"),
    ("usd_saved", "llmcache_saved_usd", "Dollars that hits saved"),
)
_GAUGES = (
    ("entries", "llmcache_entries", "Answers held"),
    ("bytes", "llmcache_bytes", "Memory of index and answers"),
    ("leases", "llmcache_leases_open", "Answers that are being made"),
    ("waiters", "llmcache_waiters", "Clients that wait for an answer"),
    ("threshold", "llmcache_threshold", "Similarity from which an answer is served"),
)


_SUMMED_GAUGES = frozenset(
    (
        "caches", "entries", "entries_hidden", "bytes", "index_bytes", "leases", "lease_bytes", "waiters",
        "clients_blocked", "searches_out", "commands_in_slices", "last_command_keys", "last_command_steps",
        "last_command_reply_bytes", "orphan_groups", "models", "model_bytes", "texts_memo", "texts_memo_bytes",
        "texts_queued", "texts_queued_most", "namespaces", "chunks", "chunk_bytes", "chunk_payload_bytes",
        "chunk_leases", "chunk_bytes_in_flight", "session_followers", "document_indexes", "documents",
        "document_bytes", "document_index_bytes", "embedding_caches", "embeddings", "embedding_bytes",
        "embedding_index_bytes",
    )
)  # fmt: skip
MOST = 64
"""Caches told of when none is named."""


class LlmcacheCollector(Collector):
    """Counters and gauges with the label `cache`; look-ups also by `tier`, misses by `reason`."""

    def __init__(self, client: Any, names: Sequence[str] | None = None):
        self._client, self._names = client, names

    def _caches(self, nodes: Sequence[Fields]) -> list[LLMCache]:
        names = self._names
        if names is None:
            named = [row for node in nodes for field, row in node.items() if field.startswith("llmcache_container_")]
            found = [row["name"] for row in named if row["kind"] == "answers" and int(row["db"]) == 0]
            names = sorted(r.text(unquote_to_bytes(str(name))) for name in found)[:MOST]
        return [LLMCache(self._client, name) for name in names]

    def _nodes(self) -> list[Fields]:
        """INFO of the server, or of each primary of a cluster."""
        if not hasattr(self._client, "get_primaries"):
            return [Fields(self._client.info("llmcache"))]
        return [Fields(self._client.info("llmcache", target_nodes=node)) for node in self._client.get_primaries()]

    def describe(self) -> Iterable[Any]:
        # Named without a look at the server, so that registering does not need it.
        return [GaugeMetricFamily("llmcache_up", "Whether the server answered")]

    def collect(self) -> Iterable[Any]:
        told: list[tuple[str, Fields, Fields]] = []
        up = GaugeMetricFamily("llmcache_up", "Whether the server answered")
        nodes: list[Fields] = []
        try:
            nodes = self._nodes()
            for cache in self._caches(nodes):
                try:
                    told.append((cache.name, Fields(cache.stats()), cache.info()))
                except NoCache:
                    # Not made yet: it has done nothing.
                    continue
            up.add_metric([], 1)
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("llmcache: the collector got no answer: %s", error)
            up.add_metric([], 0)
        yield up
        yield from sums(nodes)
        yield from families(told)


def sums(nodes: Sequence[Fields]) -> Iterable[Any]:
    """What INFO sums up over all containers, of all nodes."""
    fields = dict.fromkeys(field for node in nodes for field, value in node.items() if isinstance(value, int))
    for field in fields:
        name = field.removeprefix("llmcache_")
        family = GaugeMetricFamily if name in _SUMMED_GAUGES else CounterMetricFamily
        told = family(f"llmcache_server_{name}", f"{name} of INFO")
        told.add_metric([], sum(node.get(field, 0) for node in nodes))
        yield told


def families(told: Sequence[tuple[str, Fields, Fields]]) -> Iterable[Any]:
    """The metrics of caches: name, STATS, INFO."""
    hits = CounterMetricFamily("llmcache_hits", "Answers found", labels=["cache", "tier"])
    misses = CounterMetricFamily("llmcache_misses", "Look-ups without an answer", labels=["cache", "reason"])
    lookups = CounterMetricFamily("llmcache_lookups", "Look-ups", labels=["cache"])
    seconds = CounterMetricFamily("llmcache_saved_seconds", "Seconds of making that hits saved", labels=["cache"])
    for name, stats, _ in told:
        lookups.add_metric([name], stats["lookups"])
        for tier in ("exact", "semantic"):
            hits.add_metric([name, tier], stats[f"hits_{tier}"])
        for field, count in stats.items():
            if field.startswith("misses_"):
                misses.add_metric([name, field.removeprefix("misses_")], count)
        seconds.add_metric([name], stats["ms_saved"] / 1_000)
    yield from (lookups, hits, misses, seconds)
    for field, metric, text in _COUNTED:
        family = CounterMetricFamily(metric, text, labels=["cache"])
        for name, stats, _ in told:
            family.add_metric([name], stats[field])
        yield family
    for field, metric, text in _GAUGES:
        gauge = GaugeMetricFamily(metric, text, labels=["cache"])
        for name, _, info in told:
            gauge.add_metric([name], info[field])
        yield gauge
    near = GaugeMetricFamily("llmcache_near_misses", "Near misses that the log holds", labels=["cache"])
    for name, stats, _ in told:
        near.add_metric([name], stats["near_misses"])
    yield near
