"""Searches that go on in threads: the answers are the same, others are served meanwhile, and whatever happens
to the client, the cache or the server under a search does no harm."""

import json
import threading

import pytest
from harness.cache import Cache
from harness.replication import pair
from harness.server import settle_memory
from harness.vectors import fp32, near, unit, units
from harness.waiting import wait_until

DIM = 256
ROWS = 4_000
# So many at once that they are under way while a test does something else.
QUESTIONS = 400


@pytest.fixture(scope="module")
def vectors():
    return units(ROWS, DIM)


def fill(cache, vectors, **settings):
    cache.create(dim=DIM, **settings)
    cache.bulk(
        ("LLMCACHE.SETSEM", cache.name, "PROMPT", f"p{i}", "RESPONSE", f"r{i}", "META", json.dumps({"n": i}), *fp32(row))
        for i, row in enumerate(vectors)
    )
    return cache


@pytest.fixture
def server(fleet):
    return fleet.launch(**{"llmcache.search-inline-us": 0})


@pytest.fixture
def cache(server, vectors):
    return fill(Cache(server.client()), vectors, index="FLAT")


def given(server):
    return int(server.info()["llmcache_searches_in_threads"])


def out(server):
    return int(server.info()["llmcache_searches_out"])


def blocked(server):
    return int(server.info("clients")["blocked_clients"])


def many(vectors, name="faq", count=QUESTIONS):
    asked = [part for row in vectors[:count] for part in fp32(row)]
    return ("LLMCACHE.MGETSEM", name, count, *asked, "THRESHOLD", -1, "RETURN", 1, "response")


def responses(reply):
    return [found and found[1] for found in reply]


def under_way(server, client, vectors, name="faq"):
    """Has a client search, and comes back while it does."""
    before = given(server)
    client.send(*many(vectors, name))
    wait_until(lambda: given(server) >= before + QUESTIONS, "searches go on in threads")


def quiet(server):
    wait_until(lambda: out(server) == 0 and blocked(server) == 0, "no search is out and nobody waits")


@pytest.mark.parametrize("index", ["FLAT", "HNSW", "AUTO"])
def test_answers_are_those_of_the_main_thread(server, vectors, index):
    cache = fill(Cache(server.client()), vectors, index=index)
    wait_until(lambda: cache.info()["tail"] == 0, "all is linked", 60)
    for i in range(0, 40):
        asked = near(vectors[i], 0.9, seed=i)
        questions = [
            {"vector": asked, "threshold": 0.5},
            {"vector": asked, "count": 10, "threshold": -1, "ef": 200},
            {"vector": asked, "count": 5, "threshold": -1, "filter": f".n % 2 == {i % 2}"},
            {"vector": asked, "count": 5, "threshold": -1, "filter": f".n == {i}"},
            {"vector": asked, "prompt": f"p{i}", "count": 3, "threshold": -1},
        ]
        for question in questions:
            count = question.pop("count", 1)
            found = []
            for inline_us in (0, 1_000_000):
                server.client().config_set("llmcache.search-inline-us", inline_us)
                hits = cache.getsem_many(count, **question)
                found.append([(hit.id, hit.similarity, hit.tier, hit.response) for hit in hits])
            assert found[0] == found[1], question
        explained = []
        for inline_us in (0, 1_000_000):
            server.client().config_set("llmcache.search-inline-us", inline_us)
            explained.append(cache.explain(vector=asked, threshold=0.5, filter=".n < 100"))
        assert explained[0]["nearest"] == explained[1]["nearest"]
        assert explained[0]["scanned"] == explained[1]["scanned"]
    assert given(server) >= 40 * 5


def test_rag_searches_in_threads_too(server, vectors):
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "DIM", DIM, "INDEX", "FLAT")
    for i, row in enumerate(vectors[:500]):
        client.execute_command("RAG.ADD", "docs", f"d{i}", "TEXT", f"t{i}", *fp32(row))
    for i in range(20):
        found = client.execute_command("RAG.SEARCH", "docs", *fp32(vectors[i]), "COUNT", 3, "MMR", 0.5)
        assert len(found) == 3 and found[0][1] == b"d%d" % i
    assert given(server) >= 20


def test_others_are_served_while_a_client_searches(server, cache, vectors):
    seen = []
    with server.wire() as client, server.wire() as other:
        under_way(server, client, vectors)
        while blocked(server):
            assert other("PING") == "PONG"
            assert other("LLMCACHE.SET", "faq", "PROMPT", f"new {len(seen)}", "RESPONSE", "r")
            seen.append(out(server))
        assert responses(client.read()) == [b"r%d" % i for i in range(QUESTIONS)]
    assert sum(waiting > 0 for waiting in seen) > 3, seen
    stats = server.client().info("commandstats")["cmdstat_LLMCACHE.MGETSEM"]
    assert stats["calls"] == 1 and stats["usec"] > 1_000, "the time in threads is the command's"


def test_many_clients_search_while_others_store_and_remove(server, cache, vectors):
    wrong, stop = [], threading.Event()

    def search(part):
        with server.wire() as client:
            for i in range(part, 120, 4):
                reply = client("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "THRESHOLD", 0.99, "RETURN", 1, "response")
                if reply is None or reply[1] != b"r%d" % i:
                    wrong.append((i, reply))

    def churn():
        with server.wire() as client:
            number = 0
            while not stop.is_set():
                number += 1
                id_ = client("LLMCACHE.SETSEM", "faq", "PROMPT", f"c{number}", "RESPONSE", "c", *fp32(unit(10_000 + number, DIM)))
                if number % 2:
                    client("LLMCACHE.DEL", "faq", id_)

    threads = [threading.Thread(target=search, args=(part,)) for part in range(4)]
    other = threading.Thread(target=churn)
    other.start()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    stop.set()
    other.join()
    assert not wrong
    assert given(server) >= 120


def test_a_client_that_goes_while_it_searches_leaves_nothing(server, cache, vectors):
    base = settle_memory(server)
    for _ in range(5):
        client = server.wire()
        under_way(server, client, vectors)
        client.close()
    quiet(server)
    with server.wire() as client, server.wire() as other:
        under_way(server, client, vectors)
        for line in other("CLIENT", "LIST").decode().splitlines():
            if "cmd=llmcache.mgetsem" in line.lower():
                assert other("CLIENT", "KILL", "ID", line.split()[0].split("=")[1]) == 1
    quiet(server)
    assert cache.getsem(vector=vectors[3]).response == b"r3"
    assert settle_memory(server) < base + 3_000_000


@pytest.mark.parametrize(
    "ending", [("DEL", "faq"), ("UNLINK", "faq"), ("FLUSHALL",), ("FLUSHALL", "ASYNC"), ("SWAPDB", 0, 1)], ids=str
)
def test_a_cache_that_goes_while_it_is_searched(server, cache, vectors, ending):
    with server.wire() as client, server.wire() as other:
        under_way(server, client, vectors)
        other(*ending)
        assert responses(client.read()) in ([None] * QUESTIONS, [b"r%d" % i for i in range(QUESTIONS)])
        quiet(server)
        assert client("PING") == "PONG"
        other("FLUSHALL")
    wait_until(lambda: int(server.info()["llmcache_bytes"]) == 0, "memory goes with the cache", 20)


def test_what_was_found_in_a_cache_says_nothing_of_the_next_of_its_name(server, cache, vectors):
    with server.wire() as client, server.wire() as other:
        under_way(server, client, vectors)
        other("DEL", "faq")
        other("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "another", *fp32(vectors[0]))
        # All of one moment: before the first cache went, between the two, or after.
        assert responses(client.read()) in (
            [b"r%d" % i for i in range(QUESTIONS)], [None] * QUESTIONS, [b"another"] * QUESTIONS
        )
        again = other(*many(vectors, count=3))
        assert responses(again) == [b"another"] * 3


def test_entries_that_go_while_they_are_searched_are_not_answered(server, cache, vectors):
    with server.wire() as client, server.wire() as other:
        for _ in range(3):
            under_way(server, client, vectors)
            assert other("LLMCACHE.INVALIDATE", "faq", "ALL") >= 0
            assert set(responses(client.read())) <= {None} | {b"r%d" % i for i in range(QUESTIONS)}
            assert set(responses(other(*many(vectors, count=5)))) == {None}
            cache.bulk(
                ("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", f"r{i}", *fp32(row))
                for i, row in enumerate(vectors)
            )
        under_way(server, client, vectors)
        other("FLUSHALL")
        client.read()
    quiet(server)


def test_multi_and_scripts_search_at_once(server, cache, vectors):
    before = given(server)
    with server.wire() as client:
        client("MULTI")
        client("LLMCACHE.GETSEM", "faq", *fp32(vectors[5]), "RETURN", 1, "response")
        assert client("EXEC")[0][1] == b"r5"
        script = "return redis.call('LLMCACHE.GETSEM', KEYS[1], 'FP32', ARGV[1], 'RETURN', 1, 'response')"
        assert client("EVAL", script, 1, "faq", fp32(vectors[6])[1])[1] == b"r6"
    assert given(server) == before


def test_client_unblock_has_it_answered_at_once(server, cache, vectors):
    with server.wire() as client, server.wire() as other:
        me = client("CLIENT", "ID")
        under_way(server, client, vectors)
        if other("CLIENT", "UNBLOCK", me):
            assert responses(client.read()) == [b"r%d" % i for i in range(QUESTIONS)]
        else:
            client.read()
    quiet(server)


def test_saving_while_searches_are_under_way(server, cache, vectors):
    with server.wire() as client, server.wire() as other:
        for _ in range(3):
            under_way(server, client, vectors)
            assert "Background saving" in str(other("BGSAVE"))
            assert responses(client.read()) == [b"r%d" % i for i in range(QUESTIONS)]
            wait_until(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", "saved", 30)
        assert server.info("persistence")["rdb_last_bgsave_status"] == "ok"
    server.restart()
    assert Cache(server.client()).getsem(vector=vectors[9]).response == b"r9"
    assert given(server) == 1, "a server that was restarted has threads of its own"


def test_a_replica_searches_in_threads(fleet, vectors):
    both = pair(fleet)
    fill(Cache(both.primary.client()), vectors[:1_500], index="FLAT")
    both.assert_equal()
    client = both.replica.client()
    client.config_set("llmcache.search-inline-us", 0)
    assert Cache(client).getsem(vector=vectors[7]).response == b"r7"
    assert given(both.replica) == 1
    both.assert_equal()


def test_without_threads_and_for_cheap_searches_all_is_done_at_once(server, cache, vectors):
    client = server.client()
    before = given(server)
    client.config_set("llmcache.search-threads", 0)
    assert cache.getsem(vector=vectors[1]).response == b"r1"
    client.config_set("llmcache.search-threads", 3)
    client.config_set("llmcache.search-inline-us", 400)
    assert cache.getsem(vector=vectors[1]).response == b"r1", "4,000 rows take some 50 us"
    assert given(server) == before
    client.config_set("llmcache.search-inline-us", 10)
    assert cache.getsem(vector=vectors[1]).response == b"r1"
    assert given(server) == before + 1
