"""MAXMEMORY of a cache: index and entries together stay within the bytes it was given."""

from harness.vectors import unit
from harness.waiting import wait_until

LIMIT = 1_000_000


def test_the_bytes_are_never_passed(cache):
    cache.create(maxmemory=LIMIT)
    for round_ in range(10):
        cache.fill(200, start=round_ * 200, size=2_000)
        assert cache.info()["bytes"] <= LIMIT
    info = cache.info()
    assert info["bytes"] > LIMIT * 0.8
    assert info["bytes"] == info["index_bytes"] + info["entry_bytes"]
    assert cache.stats()["evicted"] == 2_000 - info["entries"]
    assert cache.client.dbsize() == info["entries"] + 1


def test_the_bytes_are_what_redis_counts(cache):
    cache.create(maxmemory=LIMIT)
    cache.fill(1_000, size=2_000)
    entry_keys = cache.client.keys("{faq}*")
    measured = sum(cache.client.memory_usage(key, samples=0) for key in entry_keys)
    assert abs(measured - cache.info()["entry_bytes"]) <= 0.1 * measured
    assert measured <= LIMIT * 1.05


def test_what_was_asked_for_often_stays(cache):
    cache.create(maxmemory=LIMIT)
    cache.fill(20, size=2_000)
    for _ in range(5):
        for i in range(20):
            assert cache.get(f"prompt {i}") is not None
    cache.fill(1_500, start=20, size=2_000)
    assert all(cache.get(f"prompt {i}") is not None for i in range(20))


def test_an_entry_larger_than_the_limit_is_refused_and_evicts_nothing(server, cache):
    cache.create(maxmemory=LIMIT)
    cache.fill(50)
    before = server.digest()
    with server.wire() as wire:
        reply = wire("LLMCACHE.SETSEM", "faq", "PROMPT", "huge", "RESPONSE", "x" * 2 * LIMIT)
    assert getattr(reply, "word", None) == "TOOBIG", reply
    assert server.digest() == before


def test_a_lower_limit_takes_effect(cache):
    cache.fill(500, size=2_000)
    cache.config_set("MAXMEMORY", LIMIT // 2)
    cache.setsem("one more", "x", unit(5_000))
    wait_until(lambda: cache.info()["bytes"] <= LIMIT // 2, "it shrinks to the new limit")
    assert cache.get("one more") == b"x"
    assert cache.client.dbsize() == cache.info()["entries"] + 1


def test_both_limits_hold_together(cache):
    cache.create(maxmemory=LIMIT, maxentries=100)
    cache.fill(300, size=500)
    assert cache.info()["entries"] == 100
    for start in range(300, 600, 50):
        cache.fill(50, start=start, size=30_000)
        info = cache.info()
        assert info["entries"] <= 100
        assert info["bytes"] <= LIMIT
