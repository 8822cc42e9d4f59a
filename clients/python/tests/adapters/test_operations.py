"""Metrics and spans, as Prometheus and OpenTelemetry get them."""

from __future__ import annotations

import pytest
import redis
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from llmcache import LLMCache, otel
from llmcache.metrics import LlmcacheCollector


def test_what_caches_did_is_scraped(r):
    cache = LLMCache(r, "faq")
    cache.set("q", "a", tokens=5, latency=1.5, cost=0.25)
    cache.get("q")
    cache.get("none")
    LLMCache(r, "other").set("q", "a")
    registry = CollectorRegistry()
    registry.register(LlmcacheCollector(r))
    said = generate_latest(registry).decode()
    for line in (
        "llmcache_up 1.0", 'llmcache_hits_total{cache="faq",tier="exact"} 1.0', 'llmcache_lookups_total{cache="faq"} 2.0',
        'llmcache_misses_total{cache="faq",reason="empty"} 1.0', 'llmcache_saved_usd_total{cache="faq"} 0.25',
        'llmcache_saved_seconds_total{cache="faq"} 1.5', 'llmcache_entries{cache="other"} 1.0',
    ):  # fmt: skip
        assert line in said, line
    named = CollectorRegistry()
    named.register(LlmcacheCollector(r, ["faq", "absent"]))
    assert 'cache="other"' not in generate_latest(named).decode()


def test_a_server_that_is_away_is_down():
    registry = CollectorRegistry()
    registry.register(LlmcacheCollector(redis.Redis(port=1, socket_connect_timeout=0.1, retry=None)))
    assert "llmcache_up 0.0" in generate_latest(registry).decode()


def test_look_ups_are_spans(r):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel.instrument(provider)
    try:
        cache = LLMCache(r, "faq")
        cache.get_or_make("q", lambda: "a")
        cache.get_or_make("q", lambda: "never")
        with pytest.raises(ValueError, match="no"):
            cache.get_or_make("p", lambda: (_ for _ in ()).throw(ValueError("no")))
        cache.search("nothing")
    finally:
        otel.uninstrument()
    cache.search("nothing")
    spans = [
        (s.name, s.attributes["llmcache.result"], s.attributes.get("llmcache.tier"))
        for s in exporter.get_finished_spans()
    ]
    assert spans == [
        ("llmcache.get_or_make", "lead", None), ("llmcache.get_or_make", "hit", "exact"), ("llmcache.get_or_make", "lead", None),
        ("llmcache.search", "miss", None),
    ]  # fmt: skip
