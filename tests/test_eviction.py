"""maxmemory of the server: Redis evicts entries one by one, the cache key stays, the index follows."""

import time

import pytest
from harness import vectors
from harness.cache import Cache, answer
from harness.names import entry_id
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure

MAXMEMORY = 12_000_000
SIZE = 4_000
DIM = 64
COUNT = 10 * MAXMEMORY // SIZE
WITH_DEADLINE = {"volatile-lfu": ["EX", 3_600]}


@pytest.mark.parametrize("policy", ["allkeys-lfu", "volatile-lfu", "allkeys-lru"])
def test_ten_times_maxmemory_of_data(fleet, policy):
    server = fleet.launch(maxmemory=MAXMEMORY, maxmemory_policy=policy)
    rows = vectors.units(COUNT, DIM)
    expiry = WITH_DEADLINE.get(policy, [])
    samples = []
    with server.wire() as wire:
        assert wire("LLMCACHE.CREATE", "faq", "DIM", DIM) == "OK"
        uid = Cache(server.client()).uid
        for first in range(0, COUNT, 100):
            batch = range(first, min(first + 100, COUNT))
            replies = wire.pipeline(
                ["LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", answer(i, SIZE), *vectors.fp32(rows[i]), *expiry]
                for i in batch
            )
            refused = [reply for reply in replies if isinstance(reply, Failure)]
            assert not refused, refused[0]
            samples.append(used_memory(wire("INFO", "memory")))
        evicted = int(server.info("stats")["evicted_keys"])
    assert len(samples) == COUNT // 100
    assert max(samples) <= MAXMEMORY * 1.02, f"{sum(s > MAXMEMORY * 1.02 for s in samples)} samples over"
    assert evicted > COUNT * 0.8

    client = server.client()
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 0)
    wait_until(lambda: client.exists("faq") == 1, "an evicted cache key is put back")
    cache = Cache(client)
    # The same life of the cache, not a new one made by the next store after an eviction.
    assert cache.uid == uid
    keys = {key.rsplit(b":", 1)[1].decode() for key in cache.entry_keys()}
    alive = [i for i in range(COUNT) if entry_id(f"prompt {i}") in keys]
    assert len(alive) == len(keys) > 500
    found = cache.found_by_meaning(alive, dim=DIM, seed=0)
    assert len(found) >= 0.8 * len(alive), f"{len(found)} of {len(alive)}"
    # The index forgot the dead, so it is no larger than the living need.
    assert cache.info()["entries"] <= len(alive) * 1.05 + 50


def used_memory(info: bytes) -> int:
    line = next(line for line in info.splitlines() if line.startswith(b"used_memory:"))
    return int(line.split(b":")[1])


def test_what_is_asked_for_survives_under_lfu(fleet):
    server = fleet.launch(maxmemory=MAXMEMORY, maxmemory_policy="allkeys-lfu")
    cache = Cache(server.client())
    cache.fill(100, size=SIZE, dim=DIM)
    for _ in range(200):
        assert None not in cache.bulk(("LLMCACHE.GET", "faq", "PROMPT", f"prompt {i}") for i in range(100))
    cache.fill(6_000, start=100, size=SIZE, dim=DIM)
    assert int(server.info("stats")["evicted_keys"]) > 2_000
    alive = sum(cache.get(f"prompt {i}") is not None for i in range(100))
    assert alive >= 90


@pytest.mark.parametrize("policy", ["allkeys-lfu", "allkeys-lru", "allkeys-random"])
def test_the_cache_key_of_a_quiet_cache_stays_too(fleet, policy):
    """Shielded by its own timer, not only by being used; and put back where no shield helps."""
    server = fleet.launch(maxmemory=MAXMEMORY, maxmemory_policy=policy)
    client = server.client()
    quiet, busy = Cache(client, "quiet"), Cache(client, "busy")
    quiet.create(dim=DIM)
    busy.create(dim=DIM)
    uids = (quiet.uid, busy.uid)
    for start in range(0, 12_000, 100):
        busy.fill(100, start=start, size=SIZE // 2, dim=DIM)
    assert int(server.info("stats")["evicted_keys"]) > 5_000
    wait_until(lambda: client.exists("quiet", "busy") == 2, "evicted cache keys are put back")
    assert (quiet.uid, busy.uid) == uids


def test_an_evicted_cache_key_is_put_back_with_its_deadline_and_told_to_the_replica(fleet):
    """allkeys-random takes it sooner or later: the only way to see it evicted for certain."""
    both = pair(fleet, maxmemory=MAXMEMORY, maxmemory_policy="allkeys-random", repl_backlog_size="1mb", appendonly="yes")
    client = both.primary.client()
    cache = Cache(client)
    cache.create(dim=DIM)
    uid, deadline = cache.uid, int(time.time()) + 10_000
    assert client.expireat("faq", deadline)
    for first in range(0, 100_000, 500):
        cache.fill(500, start=first, size=SIZE // 2, dim=DIM)
        if put_back(both.primary) >= 3:
            break
    else:
        raise AssertionError("the cache key was never evicted")
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 0)
    wait_until(lambda: client.exists("faq") == 1, "an evicted cache key is put back")
    assert (cache.uid, client.expiretime("faq")) == (uid, deadline)
    alive = assert_whole(cache)
    both.assert_equal()
    assert assert_whole(Cache(both.replica.client())) == alive
    both.primary.restart()
    again = Cache(both.primary.client())
    assert (again.uid, again.client.expiretime("faq")) == (uid, deadline)
    assert assert_whole(again) == alive


def put_back(server) -> int:
    return int(server.info("everything")["llmcache_caches_put_back"])


def assert_whole(cache) -> int:
    """Every living entry is in the index, and nothing else is."""
    keys = {key.rsplit(b":", 1)[1].decode() for key in cache.entry_keys()}
    wait_until(lambda: set(cache.scan_ids()) == keys, "the index holds what lives")
    assert cache.info()["vectors"] == len(keys)
    return len(keys)
