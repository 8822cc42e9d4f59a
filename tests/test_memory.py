"""Memory: what the keys say they use is what the server uses, and what is let go comes back."""

import time

import pytest
from harness.cache import Cache
from harness.server import settle_memory
from harness.waiting import wait_until


@pytest.mark.parametrize(
    ("count", "dim", "size", "given"),
    [
        (5_000, 64, 500, {}),
        (3_000, 384, 600, {"meta": {"year": 2024, "model": "gpt-5", "text": "x" * 100}, "tags": ["a", "b"]}),
        (20_000, 8, 16, {}),
    ],
    ids=["middling", "rich", "tiny"],
)
def test_memory_usage_of_the_keys_is_what_the_server_uses(server, cache, count, dim, size, given):
    cache.fill(10, dim=dim)
    cache.client.flushall()
    before = settle_memory(server)
    cache.fill(count, dim=dim, size=size, **given)
    used = settle_memory(server) - before
    with server.wire() as wire:
        keys = wire("KEYS", "*")
        told = sum(wire.pipeline(("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys))
        # The table of keys belongs to no key; Redis counts it apart, and so does this sum.
        stats = wire("MEMORY", "STATS")
        table = overhead_of_the_table(stats)
    assert len(keys) == count + 1
    assert told + table == pytest.approx(used, rel=0.10)


@pytest.mark.parametrize(
    ("quant", "count", "most", "index_most"),
    [("F16", 2_560, 1_756, 716), ("Q8", 2_560, 1_352, 612), ("Q8", 10_000, 1_352, 612)],
)
def test_what_an_entry_takes_beyond_its_prompt_and_response(server, cache, quant, count, most, index_most):
    """Where entries keep more than a code, so does the index: two bits a dimension. All that is in used_memory: key, entry, index, graph. 2,560 rows fill whole blocks of the index, 10,000 leave
    most of the last one empty."""
    cache.fill(10, dim=384)
    cache.info()
    cache.client.flushall()
    cache.create(dim=384, quant=quant, index="HNSW")
    before = settle_memory(server)
    size = 690
    cache.fill(count, dim=384, size=size)
    wait_until(lambda: cache.info()["tail"] == 0, "the graph is built")
    used = settle_memory(server) - before
    assert used / count - size - len("prompt 1000") <= most
    assert cache.info()["index_bytes"] / count <= index_most


def overhead_of_the_table(stats) -> int:
    named = dict(zip(stats[::2], stats[1::2]))
    database = named.get(b"db.0", [])
    parts = dict(zip(database[::2], database[1::2]))
    # MEMORY USAGE already counts each key's own place in the table, so only its buckets are missing.
    keys = named[b"keys.count"]
    return max(0, parts.get(b"overhead.hashtable.main", 0) - keys * 56)


def test_info_of_the_cache_tells_the_same_as_memory_usage(cache):
    cache.fill(3_000, dim=64, size=300)
    wait_until(lambda: cache.info()["tail"] == 0, "the graph is built")
    info = cache.info()
    with_keys = sum(cache.client.memory_usage(key, samples=0) for key in cache.client.keys("{faq}*"))
    assert info["entry_bytes"] == pytest.approx(with_keys, rel=0.10)
    assert info["index_bytes"] == pytest.approx(cache.client.memory_usage("faq", samples=0), rel=0.10)


def empty_by_entries(cache):
    ids = cache.scan_ids(count=1_000)
    for first in range(0, len(ids), 500):
        cache.delete(*ids[first : first + 500])
    cache.client.delete("faq")


def empty_by_unlink(cache):
    cache.client.unlink("faq")


def empty_by_flush(cache):
    cache.client.flushall(asynchronous=True)


def empty_by_plain_del(cache):
    cache.bulk(("DEL", key) for key in cache.client.keys("{faq}*"))
    cache.client.delete("faq")


@pytest.mark.parametrize("empty", [empty_by_entries, empty_by_unlink, empty_by_flush, empty_by_plain_del])
def test_fill_and_empty_ten_times_without_growth(server, cache, empty):
    levels = []
    for _ in range(11):
        cache.fill(1_000, dim=64, size=200)
        empty(cache)
        wait_until(lambda: cache.client.dbsize() == 0, "all is gone")
        levels.append(settle_memory(server))
    # The first round warms up what the server keeps for itself.
    assert max(levels[1:]) - levels[0] < 60_000, levels


def test_one_cache_filled_and_emptied_ten_times_keeps_no_memory(server, cache):
    """Its entries go one by one while the cache stays: the index gives its blocks back."""
    cache.create(dim=64)
    empty = settle_memory(server)
    levels = []
    for _ in range(10):
        ids = cache.fill(2_000, dim=64, size=100)
        for first in range(0, len(ids), 500):
            cache.delete(*ids[first : first + 500])
        assert cache.info()["entries"] == 0
        levels.append(settle_memory(server))
    assert max(levels) - empty < 300_000, (empty, levels)
    assert max(levels[5:]) - levels[0] < 100_000, levels


def test_replacing_the_same_prompts_does_not_grow(server, cache):
    cache.fill(1_000, dim=64, size=200)
    first = settle_memory(server)
    for round_ in range(10):
        cache.fill(1_000, dim=64, size=200)
    assert settle_memory(server) - first < 150_000
    assert cache.info()["entries"] == 1_000


def test_churn_under_maxentries_does_not_grow(server, cache):
    cache.create(maxentries=500, dim=32)
    cache.fill(2_000)
    first = settle_memory(server)
    cache.fill(10_000, start=2_000)
    assert settle_memory(server) - first < 150_000


def test_caches_that_come_and_go_leave_nothing(server):
    client = server.client()
    levels = []
    for _ in range(4):
        for i in range(200):
            Cache(client, f"cache {i}").set("p", "r", scope=f"s{i}")
        client.flushall()
        levels.append(settle_memory(server))
    assert max(levels[1:]) - levels[0] < 60_000, levels


def test_scopes_that_come_and_go_leave_nothing(server, cache):
    cache.create(dim=2)
    cache.client.execute_command("LLMCACHE.STATS", "faq", "RESET")
    levels = []
    for _ in range(5):
        ids = cache.bulk(
            ("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", "SCOPE", f"scope {i}", "VALUES", 2, 1, i)
            for i in range(2_000)
        )
        cache.delete(*ids)
        levels.append(settle_memory(server))
    assert max(levels[1:]) - levels[0] < 100_000, levels


def test_a_flush_gives_the_index_back_at_once(server, cache):
    """No walk in the background holds on to a cache that is gone."""
    empty = server.used_memory()
    cache.create(dim=32, index="FLAT")
    cache.fill(60_000, size=16)
    index = cache.info()["index_bytes"]
    assert index > 2_000_000
    time.sleep(0.35)  # the background is in the middle of its walk
    cache.client.execute_command("FLUSHALL", "SYNC")
    wait_until(lambda: server.used_memory() - empty < index / 2, "the index is freed", 5, step=0.05)
