"""A Prometheus collector: what caches did, each with its label; asked of the servers when it is scraped.

    from prometheus_client import REGISTRY
    REGISTRY.register(LlmcacheCollector(client, ["faq", "support"]))

Without names every cache of the server is found by SCAN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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


class LlmcacheCollector(Collector):
    """Counters and gauges with the label `cache`; look-ups also by `tier`, misses by `reason`."""

    def __init__(self, client: Any, names: Sequence[str] | None = None):
        self._client, self._names = client, names

    def _caches(self) -> list[LLMCache]:
        names = self._names
        if names is None:
            names = sorted(r.text(key) for key in self._client.scan_iter(_type="llm-cache"))
        return [LLMCache(self._client, name) for name in names]

    def describe(self) -> Iterable[Any]:
        # Named without a look at the server, so that registering does not need it.
        return [GaugeMetricFamily("llmcache_up", "Whether the server answered")]

    def collect(self) -> Iterable[Any]:
        told: list[tuple[str, Fields, Fields]] = []
        up = GaugeMetricFamily("llmcache_up", "Whether the server answered")
        try:
            for cache in self._caches():
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
        yield from families(told)


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
