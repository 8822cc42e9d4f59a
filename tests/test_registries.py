"""What many containers cost: sums that are kept and never fall, and memory that comes back."""

import pytest
from harness.cache import Cache
from harness.replication import pair
from harness.server import settle_memory
from harness.vectors import fp32, units
from harness.waiting import wait_until

DIM = 16


def of(server, *names):
    info = server.info()
    return [int(info[f"llmcache_{name}"]) for name in names]


def test_sums_follow_containers_and_counts_outlive_them(server):
    caches = [Cache(server.client(), name) for name in ("a", "b")]
    for cache in caches:
        cache.fill(50, dim=DIM)
        assert cache.get("prompt 3") is not None and cache.get("nowhere") is None
    held = ("caches", "entries", "bytes", "index_bytes")
    did = ("lookups", "hits", "hits_exact")
    sums = [sum(cache.info()[name] for cache in caches) for name in ("entries", "bytes", "index_bytes")]
    assert of(server, *held) == [2, *sums]
    assert of(server, *did) == [4, 2, 2]
    caches[0].stats("RESET")
    caches[1].client.delete("b")
    wait_until(lambda: len(server.client().keys("*")) == 51, "reaped")
    info = caches[0].info()
    assert of(server, *held) == [1, info["entries"], info["bytes"], info["index_bytes"]]
    assert of(server, *did) == [4, 2, 2], "neither RESET nor DEL takes away what happened"
    server.client().flushall()
    # Valkey frees in a thread what was flushed.
    wait_until(lambda: of(server, *held) == [0, 0, 0, 0], "flushed")
    assert of(server, *did) == [4, 2, 2]


def test_sums_follow_a_container_to_another_database_and_through_a_swap(server):
    Cache(server.client()).fill(20, dim=DIM)
    client = server.client()
    client.swapdb(0, 1)
    assert of(server, "caches", "entries") == [1, 20]
    client.flushdb()
    assert of(server, "caches", "entries") == [1, 20], "it is in the other one"
    with server.wire() as wire:
        wire("SELECT", 1)
        wire("FLUSHDB", "ASYNC")
    wait_until(lambda: of(server, "caches", "entries") == [0, 0], "flushed")


def test_leases_that_end_leave_no_timers(server):
    """Each of 30,000 leases of an hour ends at once, by its answer."""
    with server.wire() as wire:
        wire("LLMCACHE.CREATE", "faq")

        def round_(number):
            commands = []
            for i in range(1_000):
                prompt = f"p {number} {i}"
                commands.append(("LLMCACHE.FETCH", "faq", "PROMPT", prompt, "LEASE", 3_600_000))
                commands.append(("LLMCACHE.SET", "faq", "PROMPT", prompt, "RESPONSE", "r", "PX", 1))
            wire.pipeline(commands)

        def settled():
            wait_until(lambda: wire("DBSIZE") == 1, "all expired")
            return settle_memory(server)

        round_(0)
        before = settled()
        for number in range(1, 31):
            round_(number)
        assert settled() - before < 30_000 * 16, "a timer takes some ninety bytes"
        assert of(server, "leases", "waiters") == [0, 0]


def test_failures_are_forgotten_when_their_time_is_over(server):
    cache = Cache(server.client())
    cache.create()
    server.client().config_set("llmcache.breaker-failures", 0)
    for i in range(50):
        reply = cache.run("FETCH", "PROMPT", f"p {i}")
        token = dict(zip(reply[::2], reply[1::2], strict=True))[b"token"]
        cache.run("FAIL", token, "BACKOFF", 5_000)
    assert cache.info()["failures_remembered"] == 50
    wait_until(lambda: cache.info()["failures_remembered"] == 0, "forgotten, though nobody asked")


@pytest.mark.parametrize("rounds", [4])
def test_memory_of_orphans_comes_back(fleet, rounds):
    """Entries that wait for a container which never comes are indexed for it, and leave nothing when they go."""
    server = fleet.launch()
    cache = Cache(server.client())
    cache.create(dim=DIM)
    cache.fill(2_000, dim=DIM)
    client = server.client()
    dumps = [(key, client.dump(key)) for key in client.keys("*") if key != b"faq"]
    client.flushall()
    sizes = []
    for _ in range(rounds):
        with server.wire() as wire:
            assert set(wire.pipeline(("RESTORE", key, 0, dump) for key, dump in dumps)) == {"OK"}
            wire.pipeline(("UNLINK", key) for key, _ in dumps)
        sizes.append(settle_memory(server))
    assert max(sizes[1:]) - sizes[0] < 64 << 10, sizes


def test_many_containers_are_visited_a_few_at_a_time(server):
    """2,000 caches with a limit each and 500 namespaces: all are seen to, none is listed in one piece."""
    with server.wire() as wire:
        wire.pipeline(("LLMCACHE.CREATE", f"c{i}") for i in range(2_000))
        wire.pipeline(("KVCHUNK.CREATE", f"n{i}") for i in range(500))
        vector = fp32(units(1, DIM)[0])
        wire.pipeline(
            ("LLMCACHE.SETSEM", f"c{i}", "PROMPT", "p", "RESPONSE", "r", *vector, "PX", 300) for i in range(2_000)
        )
        assert of(server, "caches", "namespaces", "entries") == [2_000, 500, 2_000]
        wait_until(lambda: of(server, "entries") == [0], "each of them expired")
        assert wire("DBSIZE") == 2_500


@pytest.mark.parametrize(
    "create",
    [
        ("LLMCACHE.CREATE", "DIM", 2),
        ("RAG.CREATE", "DIM", 2),
        ("EMBCACHE.CREATE", "MODEL", "m", "DIM", 2),
        ("KVCHUNK.CREATE", "MODEL", "m"),
    ],
    ids=lambda create: create[0].split(".")[0],
)
def test_one_dump_restored_many_times_makes_containers_of_their_own(fleet, create):
    """Also where the copy that took a name first was renamed: the next one there is another."""
    both = pair(fleet)
    family = create[0].split(".")[0]
    with both.primary.wire() as wire:
        assert wire(create[0], "c", *create[1:]) == "OK"
        dump = wire("DUMP", "c")
        for step in (
            ("RESTORE", "c2", 0, dump),
            ("RENAME", "c2", "c3"),
            ("RESTORE", "c2", 0, dump),
            ("RENAME", "c2", "c4"),
            ("RESTORE", "c2", 0, dump),
        ):
            assert wire(*step) == "OK"
        infos = [wire(f"{family}.INFO", name) for name in ("c", "c2", "c3", "c4")]
        uids = {dict(zip(info[::2], info[1::2]))[b"uid"] for info in infos}
        assert len(uids) == 4
    both.assert_equal()
