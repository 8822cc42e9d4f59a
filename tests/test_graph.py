"""Large scopes have a graph: it is built between commands, saved, replicated as nothing but a hint, and
true to what lives through any churn."""

import time
from pathlib import Path

import numpy as np
import pytest
from harness import vectors
from harness.cache import Cache
from harness.names import entry_id
from harness.prober import Prober
from harness.replication import pair
from harness.waiting import wait_until

DIM = 48
COUNT = 6_000
SEED = 11


def linked(cache, seconds=60):
    """Waits until no entry of a large scope waits to be linked, and no removed one to be repaired."""

    def done():
        info = cache.info()
        return info["tail"] == 0 and info["tombstones"] == 0

    wait_until(done, "the graph is built", seconds)
    return cache.info()


def answers(cache, numbers, count=10, **given):
    """The ids of the nearest entries to each numbered query."""
    rows = vectors.units(max(numbers) + 1, DIM, seed=99)
    return [
        [hit.id for hit in cache.getsem_many(count, vector=rows[i], threshold=-1, **given)] for i in numbers
    ]


def recall(cache, alive, queries=100, k=10, **given):
    """Share of the truly nearest among what is found; `alive` maps a prompt's number to its vector,
    `queries` are vectors or how many random ones."""
    names = list(alive)
    base = np.array([alive[name] for name in names])
    rows = vectors.units(queries, DIM, seed=99) if isinstance(queries, int) else queries
    hits = 0
    for row in rows:
        ids = [hit.id for hit in cache.getsem_many(k, vector=row, threshold=-1, **given)]
        best = np.argsort(-(base @ row), kind="stable")[:k]
        hits += len({entry_id(f"prompt {names[i]}") for i in best} & set(ids))
    return hits / (len(rows) * k)


def living(numbers):
    rows = vectors.units(max(numbers) + 1, DIM, SEED)
    return {i: rows[i] for i in numbers}


@pytest.fixture(scope="module")
def real():
    """Embeddings of real sentences and of questions about them; see bench/data."""
    folder = Path(__file__).resolve().parent.parent / "bench" / "data"
    parts = [np.load(folder / name).astype(np.float64) for name in ("base.f16.npy", "queries.f16.npy")]
    return [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]


@pytest.fixture
def large(cache):
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED)
    linked(cache)
    return cache


def test_a_large_scope_is_searched_by_a_graph(large):
    info = large.info()
    assert (info["mode"], info["graphs"], info["linked"]) == (b"graph", 1, COUNT)
    assert info["levels"] >= 2 and info["link_bytes"] > COUNT * 100
    found = large.explain(vector=vectors.unit(5, DIM), threshold=-1)
    assert found["index"] == "graph"
    assert found["scanned"] < COUNT / 3
    assert recall(large, living(range(COUNT)), ef=400) >= 0.99
    # Everyone finds himself.
    assert len(large.found_by_meaning(range(0, COUNT, 7), dim=DIM, seed=SEED)) >= 0.995 * len(range(0, COUNT, 7))


def test_a_wider_walk_finds_more(large):
    narrow, wide = (recall(large, living(range(COUNT)), ef=ef) for ef in (10, 500))
    assert narrow < wide >= 0.99


def test_lookups_are_right_while_the_graph_is_built(cache):
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED)
    seen = 0
    while cache.info()["tail"] > 0:
        assert recall(cache, living(range(COUNT)), queries=3, ef=400) >= 0.9
        seen += 1
    assert seen > 0, "the graph was built before anybody could look"


def test_a_restart_finds_the_graph_as_it_was(server, large):
    before = answers(large, range(40))
    client = large.client
    client.execute_command("SAVE")
    server.kill9()
    server.start()
    again = Cache(server.client())
    info = again.info()
    assert (info["linked"], info["tail"]) == (COUNT, 0), "nothing is left to be linked"
    assert answers(again, range(40)) == before


def test_a_replica_answers_alike(fleet):
    primary = fleet.launch()
    cache = Cache(primary.client())
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED)
    linked(cache)
    replica = fleet.launch(replicaof=["127.0.0.1", primary.port])
    here = Cache(replica.client())
    wait_until(lambda: here.client.dbsize() == COUNT + 1, "the replica is in step")
    assert here.info()["linked"] == COUNT
    assert answers(here, range(40)) == answers(cache, range(40))
    assert primary.digest() == replica.digest()


def test_a_graph_built_by_a_replica_itself_finds_as_much(fleet):
    both = pair(fleet)
    cache = Cache(both.primary.client())
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED)
    both.assert_equal()
    here = Cache(both.replica.client())
    assert linked(here)["linked"] == COUNT
    assert recall(here, living(range(COUNT)), ef=400) >= 0.99


WAYS = ["DEL", "UNLINK of keys", "EXPIRE", "replaced", "evicted by MAXENTRIES"]
LIVE = 2_000


@pytest.mark.parametrize("way", WAYS)
def test_recall_stays_when_nine_of_ten_entries_are_replaced_by_others(cache, real, way):
    """On embeddings of real texts, at the default EF."""
    rows, queries = real
    gone = [i for i in range(LIVE) if i % 10]
    alive = {i: rows[i] for i in range(LIVE)}
    options = {"maxentries": LIVE} if way == "evicted by MAXENTRIES" else {}
    cache.create(index="HNSW", **options)
    store(cache, alive)
    linked(cache)
    before = recall(cache, alive, queries)
    for turn in range(0, len(gone), 300):
        part = gone[turn : turn + 300]
        alive = churn(cache, way, alive, part, {LIVE + turn + n: rows[LIVE + turn + n] for n in range(len(part))})
    if way == "EXPIRE":
        wait_until(lambda: cache.client.dbsize() == LIVE + 1, "what is due is gone")
    info = linked(cache)
    assert info["entries"] == info["linked"] == LIVE
    after = recall(cache, alive, queries)
    assert after >= before - 0.005, f"{before} before, {after} after"
    assert before >= 0.95


def churn(cache, way, alive, gone, fresh):
    """Replaces entries by others; answers what lives then."""
    ids = [entry_id(f"prompt {i}") for i in gone]
    match way:
        case "replaced":
            # The same prompts with other vectors.
            fresh = dict(zip(gone, fresh.values(), strict=True))
        case "DEL":
            assert cache.delete(*ids) == len(ids)
        case "UNLINK of keys":
            assert cache.client.unlink(*(cache.key_of(id_) for id_ in ids)) == len(ids)
        case "EXPIRE":
            assert set(cache.bulk(("LLMCACHE.EXPIRE", "faq", id_, "PX", 20) for id_ in ids)) == {1}
    store(cache, fresh)
    if way == "evicted by MAXENTRIES":
        # The cache chooses whom.
        kept = set(cache.scan_ids())
        return {i: row for i, row in (alive | fresh).items() if entry_id(f"prompt {i}") in kept}
    return {i: row for i, row in alive.items() if i not in set(gone)} | fresh


def store(cache, rows):
    cache.bulk(
        ("LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", "x", *vectors.fp32(row))
        for i, row in rows.items()
    )


def test_evictions_of_the_server_leave_a_true_graph(fleet):
    server = fleet.launch(maxmemory=12_000_000, maxmemory_policy="allkeys-lfu")
    cache = Cache(server.client())
    cache.create(dim=DIM)
    cache.fill(20_000, dim=DIM, seed=SEED, size=1_000)
    assert int(server.info("stats")["evicted_keys"]) > 5_000
    cache.client.config_set("maxmemory", 0)
    info = linked(cache)
    ids = set(cache.scan_ids())
    alive = [i for i in range(20_000) if entry_id(f"prompt {i}") in ids]
    assert info["linked"] == len(alive) == len(ids)
    assert recall(cache, living(alive), ef=400) >= 0.98


def test_when_all_has_expired_the_index_is_empty(large):
    full = large.info()["index_bytes"]
    large.bulk(("LLMCACHE.EXPIRE", "faq", entry_id(f"prompt {i}"), "PX", 30) for i in range(COUNT))
    wait_until(lambda: large.client.dbsize() == 1, "all entries are gone")
    wait_until(lambda: large.info()["index_bytes"] < full / 100, "the memory is given back")
    info = large.info()
    assert (info["entries"], info["linked"], info["tombstones"], info["graphs"]) == (0, 0, 0, 0)
    assert info["mode"] == b"none"


def test_a_scope_that_empties_beside_another_gives_its_graph_back(cache):
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED, scope="a")
    cache.fill(10, dim=DIM, seed=SEED, scope="b")
    linked(cache)
    large = cache.info()["index_bytes"]
    cache.delete(*(entry_id(f"prompt {i}", "a") for i in range(COUNT)))
    wait_until(lambda: cache.info()["tombstones"] == 0, "the graph is taken down")
    info = cache.info()
    assert (info["graphs"], info["linked"], info["entries"]) == (0, 0, 10)
    assert info["index_bytes"] < large / 10
    assert len(cache.found_by_meaning(range(10), dim=DIM, seed=SEED, scope="b")) == 10


def test_the_index_can_be_changed_and_changed_back(large):
    assert large.config_set("INDEX", "FLAT") == b"OK"
    wait_until(lambda: large.info()["linked"] == 0, "the graph is taken down")
    assert large.explain(vector=vectors.unit(5, DIM))["index"] == "flat"
    assert recall(large, living(range(COUNT)), queries=20) == 1.0
    assert large.config_set("INDEX", "HNSW") == b"OK"
    assert linked(large)["linked"] == COUNT
    assert large.explain(vector=vectors.unit(5, DIM))["index"] == "graph"


def test_a_small_scope_has_a_graph_when_it_is_asked_for(cache):
    cache.create(dim=DIM, index="HNSW", m=8, efc=50, ef=30)
    cache.fill(400, dim=DIM, seed=SEED)
    assert linked(cache)["linked"] == 400
    config = cache.config()
    assert (config["index"], config["m"], config["efc"], config["ef"]) == (b"HNSW", 8, 50, 30)
    assert recall(cache, living(range(400)), ef=200) >= 0.99


@pytest.mark.parametrize(
    "options",
    [
        ("M", 1), ("M", 1_000), ("M", "x"), ("EFC", 0), ("EFC", 20_000), ("EF", 0), ("EF", -1),
        ("INDEX", "TREE"), ("M", 8, "M", 8), ("INDEX", "FLAT", "INDEX", "FLAT"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(server, options):
    with server.wire() as wire:
        assert wire("LLMCACHE.CREATE", "faq", *options).word == "ERR"
        assert wire("EXISTS", "faq") == 0


def test_a_filter_that_few_pass_is_answered_in_full(cache):
    cache.create(dim=DIM)
    rows = vectors.units(COUNT, DIM, SEED)
    cache.bulk(
        ("LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", "x", "META", '{"n": %d}' % i)
        + tuple(vectors.fp32(rows[i]))
        for i in range(COUNT)
    )
    linked(cache)
    few = {i: rows[i] for i in range(0, COUNT, 500)}
    given = {"filter": " or ".join(f".n == {i}" for i in few)}
    assert recall(cache, few, queries=20, **given) == 1.0
    assert cache.explain(vector=vectors.unit(5, DIM), threshold=-1, count=10, **given)["index"] == "graph-then-flat"
    half = {i: rows[i] for i in range(COUNT) if i < COUNT // 2}
    assert recall(cache, half, queries=40, ef=400, filter=f".n < {COUNT // 2}") >= 0.98


def test_count_up_to_a_thousand(large):
    found = answers(large, range(3), count=1_000)
    assert [len(set(ids)) for ids in found] == [1_000] * 3
    assert recall(large, living(range(COUNT)), queries=5, k=1_000) >= 0.97


def test_flush_and_delete_while_the_graph_is_built(cache):
    client = cache.client
    for command in (("FLUSHALL",), ("FLUSHALL", "ASYNC"), ("DEL", "faq"), ("UNLINK", "faq"), ("RENAME", "faq", "other")):
        cache.create(dim=DIM)
        cache.fill(3_000, dim=DIM, seed=SEED)
        client.execute_command(*command)
        time.sleep(0.02)
        client.flushall()
        assert client.ping()
    wait_until(lambda: int(client.info("everything")["llmcache_caches"]) == 0, "all are freed")


def test_a_pause_of_the_main_thread_is_short_while_a_graph_is_built(server, cache):
    """What the server itself takes of a PING beside the build."""
    cache.create(dim=DIM)
    cache.fill(COUNT, dim=DIM, seed=SEED)
    took_ns = []
    with Prober(server.port, server.pid) as prober:
        while cache.info()["tail"] > 0:
            took_ns.append(prober.ping()[0])
    assert len(took_ns) > 10
    assert sorted(took_ns)[len(took_ns) // 2] < 5_000_000
