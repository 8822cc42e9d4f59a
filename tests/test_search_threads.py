"""Searches that go on in threads: the answers are the same, others are served meanwhile, and whatever happens
to the client, the cache or the server under a search does no harm."""

import contextlib
import fcntl
import json
import os
import sys
import termios
import threading
import time

import pytest
from harness.cache import Cache
from harness.prober import Prober
from harness.replication import pair
from harness.server import settle_memory
from harness.vectors import fp32, near, unit, units
from harness.waiting import wait_until
from harness.wire import encode

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


def in_turn(found, *moments):
    """Whether answers are those of one moment, from some question on those of the next, and so on."""
    at = 0
    for number, answer in enumerate(found):
        while at < len(moments) and answer != moments[at][number]:
            at += 1
    return len(found) == len(moments[0]) and at < len(moments)


def under_way(server, client, vectors, name="faq", count=QUESTIONS):
    """Has a client search, and comes back while it does."""
    before = given(server)
    client.send(*many(vectors, name, count))
    wait_until(lambda: given(server) > before, "searches go on in threads")


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
    seen, calls = [], 0
    with server.wire() as client, server.wire() as other:
        # How long each takes is for the machine to say.
        while sum(waiting > 0 for waiting in seen) <= 3 and calls < 100:
            under_way(server, client, vectors)
            calls += 1
            while blocked(server):
                assert other("PING") == "PONG"
                assert other("LLMCACHE.SET", "faq", "PROMPT", f"new {len(seen)}", "RESPONSE", "r")
                seen.append(out(server))
            assert responses(client.read()) == [b"r%d" % i for i in range(QUESTIONS)]
    assert sum(waiting > 0 for waiting in seen) > 3, seen
    stats = server.client().info("commandstats")["cmdstat_LLMCACHE.MGETSEM"]
    assert stats["calls"] == calls and stats["usec"] > 1_000 * calls, "the time in threads is the command's"


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
        assert in_turn(responses(client.read()), [b"r%d" % i for i in range(QUESTIONS)], [None] * QUESTIONS)
        quiet(server)
        assert client("PING") == "PONG"
        other("FLUSHALL")
    wait_until(lambda: int(server.info()["llmcache_bytes"]) == 0, "memory goes with the cache")


def test_what_was_found_in_a_cache_says_nothing_of_the_next_of_its_name(server, cache, vectors):
    with server.wire() as client, server.wire() as other:
        under_way(server, client, vectors)
        other("DEL", "faq")
        other("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "another", *fp32(vectors[0]))
        # Each of its own moment: before the first cache went, between the two, or after.
        moments = [b"r%d" % i for i in range(QUESTIONS)], [None] * QUESTIONS, [b"another"] * QUESTIONS
        assert in_turn(responses(client.read()), *moments)
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


def counted(server, client, *command):
    """What a command adds to the server's statistics and to its own cache's."""
    def counts():
        stats = server.info("stats")
        return [int(stats[f"keyspace_{what}"]) for what in ("hits", "misses")] + [
            Cache(client).stats()[what] for what in ("hits", "misses")
        ]

    before = counts()
    client.execute_command(*command)
    return [after - before for before, after in zip(before, counts(), strict=True)]


def test_a_search_in_a_thread_counts_what_one_on_the_main_thread_counts(server, cache, vectors):
    client = server.client()
    version = server.info("server")["redis_version"].split(".")
    asked = [part for i in (3, 4) for part in (*fp32(vectors[i]), "PROMPT", f"p{i}" if i == 3 else "none")]
    told = server.client().pubsub()
    client.config_set("notify-keyspace-events", "Em")
    told.psubscribe("__keyevent@0__:keymiss")
    wait_until(lambda: told.get_message(), "subscribed")
    for command in (
        ("LLMCACHE.GETSEM", "faq", *fp32(vectors[3])),
        ("LLMCACHE.GETSEM", "faq", *fp32(vectors[3]), "PROMPT", "none"),
        ("LLMCACHE.GETSEM", "faq", *fp32(vectors[3]), "PROMPT", "none", "FILTER", ".n == 1"),
        ("LLMCACHE.GETSEM", "faq", *fp32(vectors[3]), "PROMPT", "p3", "COUNT", 3),
        ("LLMCACHE.GETSEM", "faq", *fp32(vectors[3]), "PROMPT", "p3", "COUNT", 3, "FILTER", ".n == 3"),
        ("LLMCACHE.MGETSEM", "faq", 2, *asked),
    ):
        found = []
        for inline_us in (0, 1_000_000):
            client.config_set("llmcache.search-inline-us", inline_us)
            counts = counted(server, client, *command)
            misses = 0
            # What was told before is read before the answer.
            told.ping()
            while told.get_message(timeout=10)["type"] != "pong":
                misses += 1
            found.append((counts, misses))
        if (int(version[0]), int(version[1])) >= (7, 2):
            assert found[0] == found[1], command
        assert found[0][0][2:] == found[1][0][2:], command


def test_uses_of_keys_count_once_when_a_search_went_on_in_a_thread(fleet, vectors):
    server = fleet.launch(
        **{"llmcache.search-inline-us": 0, "maxmemory-policy": "allkeys-lfu", "lfu-log-factor": 0}
    )
    cache = fill(Cache(server.client()), vectors[:500], index="FLAT")
    client = server.client()
    key = cache.key_of(cache.getsem(vector=vectors[3]).id)
    before = int(client.object("freq", key))
    for _ in range(20):
        client.execute_command("LLMCACHE.GETSEM", "faq", *fp32(vectors[3]), "PROMPT", "p3", "COUNT", 2)
    assert int(client.object("freq", key)) == before + 20
    assert given(server) == 21


def bytes_in_pipes(server):
    """Most bytes that wait in any pipe of the server."""
    waiting, folder = [0], f"/proc/{server.pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            if os.readlink(f"{folder}/{name}").startswith("pipe:"):
                pipe = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NONBLOCK)
                count = bytearray(4)
                fcntl.ioctl(pipe, termios.FIONREAD, count)
                os.close(pipe)
                waiting.append(int.from_bytes(count, sys.byteorder))
    return max(waiting)


def test_the_main_thread_never_waits_for_room_in_a_pipe(server, cache, vectors):
    """While there is always work, what calls for it must not add up: a pipe takes 65,536 bytes, and a full
    one would hold up the main thread until all is done."""
    end, most = time.monotonic() + 4, 0
    command = encode(many(vectors, count=50))

    def search():
        with server.wire() as client:
            while time.monotonic() < end:
                client.flush([command])

    threads = [threading.Thread(target=search) for _ in range(6)]
    [thread.start() for thread in threads]
    while time.monotonic() < end:
        most = max(most, bytes_in_pipes(server))
        time.sleep(0.005)
    [thread.join() for thread in threads]
    assert 0 < most <= 6 * 50, f"{most} bytes"


def test_an_event_loop_within_another_may_have_taken_the_answers(server, cache, vectors):
    """A script that is slow has the server look after other events meanwhile; what it took must not be waited for
    by the loop outside, which saw it before."""
    server.client().config_set("busy-reply-threshold", 1)
    slow = "local sum = 0 for i = 1, 2e7 do sum = sum + i end return 1"
    for _ in range(8):
        with server.wire(timeout=10) as client, server.wire() as sleeper, server.wire(timeout=10) as other:
            under_way(server, client, vectors, count=1_000)
            # The script comes before the answers do, and both are seen at once.
            sleeper.send("DEBUG", "SLEEP", 0.1)
            other.send("EVAL", slow, 0)
            assert other.read() == 1
            assert responses(client.read()) == [b"r%d" % i for i in range(1_000)]
            assert sleeper.read() == "OK"
    quiet(server)


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
            wait_until(lambda: server.info("persistence")["rdb_bgsave_in_progress"] == "0", "saved")
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


def costly(terms=250):
    """A filter that nothing passes, of so many terms that are all judged."""
    return " or ".join(f".n == {-1 - i}" for i in range(terms))


def test_searches_take_turns_between_clients(fleet, vectors):
    """Somebody's hours of searches, and another's that takes milliseconds: it is not behind them."""
    server = fleet.launch(**{"llmcache.search-threads": 1})
    fill(Cache(server.client()), vectors, index="FLAT")
    heavy = (*many(vectors, count=100)[:-3], "FILTER", costly())
    with server.wire() as hog, server.wire() as other:
        hog.send(*heavy)
        wait_until(lambda: out(server) > 0, "the costly searches go on")
        for i in range(5):
            began = time.monotonic()
            answer = other("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "FILTER", f"{costly(40)} or .n == {i}")
            assert dict(zip(answer[::2], answer[1::2], strict=True))[b"response"] == b"r%d" % i
            assert time.monotonic() - began < 30
        assert out(server) > 0, "the costly ones are not over"
        began = time.monotonic()
        hog.close()
        quiet(server)
        assert time.monotonic() - began < 30, "what a client that went asked for is dropped"


def longest_ping(server, during):
    """The longest PING, in seconds of the server's own time, while a thread does something."""
    thread = threading.Thread(target=during)
    longest = 0.0
    with Prober(server.port, server.pid) as prober:
        thread.start()
        while thread.is_alive():
            longest = max(longest, prober.ping()[0] / 1e9)
    thread.join()
    return longest


def test_costly_filters_and_many_questions_hold_up_nobody(fleet, vectors):
    server = fleet.launch()
    cache = fill(Cache(server.client()), vectors, index="FLAT")
    asked = {
        "one costly filter": (*many(vectors, count=1)[:-3], "FILTER", costly()),
        "twenty": (*many(vectors, count=20)[:-3], "FILTER", costly()),
        "a thousand questions": (*many(vectors, count=1_000),),
    }
    for name, command in asked.items():
        def run(command=command):
            with server.wire() as client:
                client(*command)

        # Twenty were 2.5 s at once, a hundred 9 s.
        before = given(server)
        assert longest_ping(server, run) < 0.5, name
        if "FILTER" in command:
            assert given(server) > before, name
    assert cache.getsem(vector=vectors[3]).response == b"r3"


def test_members_that_no_record_holds_are_learned_between_commands(fleet, vectors):
    server = fleet.launch()
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "DIM", 8)
    rows = units(3_000, 8)
    with server.wire() as wire:
        wire.pipeline(
            (
                "RAG.ADD", "docs", f"d{i}", "TEXT", "t", "META",
                json.dumps({"body": "word " * 300 + str(i), "tags": [f"tag{i}-{j}" for j in range(150)]}), *fp32(row),
            )
            for i, row in enumerate(rows)
        )
    for expression in ('"tag7-3" in .tags', '.body contains "word 7"'):
        found = []

        def run(expression=expression, found=found):
            with server.wire() as one:
                found.append(one("RAG.SEARCH", "docs", *fp32(rows[0]), "FILTER", expression, "COUNT", 1_000, "RETURN", 1, "id"))

        assert longest_ping(server, run) < 0.5, expression
        ids = {hit[1] for hit in found[0]}
        wanted = {7} if "tags" in expression else {i for i in range(3_000) if str(i).startswith("7")}
        assert ids == {b"d%d" % i for i in wanted}
    with server.wire() as wire:
        wire("MULTI")
        wire("RAG.SEARCH", "docs", *fp32(rows[0]), "FILTER", '.tags[3] == "tag9-3"', "RETURN", 1, "id")
        assert wire("EXEC") == [[[b"id", b"d9"]]], "what was learned is there for all"


def test_what_would_stall_multi_and_scripts_is_refused(fleet, vectors):
    server = fleet.launch()
    cache = fill(Cache(server.client()), vectors, index="FLAT")
    command = ("LLMCACHE.GETSEM", "faq", *fp32(vectors[5]), "FILTER", costly())
    with server.wire() as client:
        client("MULTI")
        client(*command)
        client("LLMCACHE.GETSEM", "faq", *fp32(vectors[5]), "RETURN", 1, "response")
        refused, found = client("EXEC")
        assert refused.text.startswith("BUSY this takes too long where the client cannot be made to wait")
        assert found[1] == b"r5"
        script = "return redis.pcall(unpack(ARGV))"
        answer = client("EVAL", script, 1, "faq", *command)
        assert "BUSY this takes too long" in answer.text
        many_ = client("EVAL", script, 1, "faq", *many(vectors, count=1_000))
        # Valkey makes one error of a reply that holds some.
        many_ = many_ if isinstance(many_, list) else [many_]
        assert any("BUSY" in getattr(found, "text", "") for found in many_), "one command of a thousand questions"
        fetched = client("LLMCACHE.FETCH", "faq", "PROMPT", "new", *fp32(vectors[5]), "FILTER", costly())
        assert fetched.text.startswith("BUSY this takes too long")
    assert cache.getsem(vector=vectors[5], filter=costly()) is None, "outside of both it is answered"


def test_rounds_answer_in_the_protocol_of_the_client(server, cache, vectors):
    import redis

    port = server.client().connection_pool.connection_kwargs["port"]
    for protocol in (2, 3):
        client = redis.Redis(port=port, protocol=protocol)
        asked = [part for row in vectors[:50] for part in fp32(row)]
        here = client.execute_command("LLMCACHE.GETSEM", "faq", *fp32(vectors[0]), "RETURN", 2, "similarity", "response")
        there = client.execute_command("LLMCACHE.MGETSEM", "faq", 50, *asked, "RETURN", 2, "similarity", "response")
        assert type(there[0]) is type(here) and len(there) == 50
        if protocol == 3:
            assert isinstance(there[0][b"similarity"], float)
        client.close()


def by_load(server):
    return int(server.info()["llmcache_searches_by_load"])


# On one core no short search goes to threads.
HAS_CORES = len(os.sched_getaffinity(0)) > 1


def pipelined(server, commands, clients):
    """The replies of as many clients who each send all commands at once, from another one on."""
    replies = [None] * clients

    def ask(number):
        with server.wire(timeout=60) as wire:
            turned = commands[number:] + commands[:number]
            found = wire.flush(turned)
            replies[number] = found[len(found) - number :] + found[: len(found) - number]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return replies


@pytest.fixture
def busy(fleet, vectors):
    """A server of its own for searches of some 40 us, by default settings."""
    server = fleet.launch()
    fill(Cache(server.client()), vectors, index="FLAT")
    return server


def test_short_searches_go_to_threads_while_many_clients_ask(busy, vectors):
    asked = [
        encode(("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "PROMPT", f"p{i}", "COUNT", 2, "THRESHOLD", -1, "RETURN", 1, "response"))
        for i in range(100)
    ]
    with busy.wire() as wire:
        expected = wire.flush(asked)
    assert [found[0][1] for found in expected] == [b"r%d" % i for i in range(100)]

    def ask():
        assert pipelined(busy, asked, 8) == [expected] * 8, "each client has its own replies, in order"
        return by_load(busy) > 0 or not HAS_CORES

    wait_until(ask, "searches went to threads by load", 60)
    assert given(busy) >= by_load(busy)
    quiet(busy)
    stats = busy.client().info("commandstats")["cmdstat_LLMCACHE.GETSEM"]
    assert stats["failed_calls"] == stats["rejected_calls"] == 0
    busy.client().config_set("llmcache.search-threads", 0)
    before = given(busy)
    assert pipelined(busy, asked, 8) == [expected] * 8
    assert given(busy) == before, "no threads are no threads"


def test_on_one_core_only_long_searches_go_to_threads(fleet, vectors):
    server = fleet.launch()
    os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
    fill(Cache(server.client()), vectors, index="FLAT")
    asked = [encode(("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "RETURN", 1, "response")) for i in range(100)]
    for _ in range(3):
        assert all(responses(found) == [b"r%d" % i for i in range(100)] for found in pipelined(server, asked, 8))
    assert by_load(server) == given(server) == 0
    server.client().config_set("llmcache.search-inline-us", 0)
    assert responses(pipelined(server, asked, 1)[0]) == [b"r%d" % i for i in range(100)]
    assert given(server) == 100 and by_load(server) == 0


def test_a_batch_that_is_long_goes_to_threads_though_each_search_is_short(busy, vectors):
    before = given(busy)
    with busy.wire() as wire:
        assert responses(wire(*many(vectors))) == [b"r%d" % i for i in range(QUESTIONS)]
        assert given(busy) - before == QUESTIONS - 1, "the first tells how long all are, and is not searched for again"
        assert responses(wire(*many(vectors, count=2))) == [b"r0", b"r1"]
    quiet(busy)


def test_what_happens_under_short_searches_by_load(busy, vectors):
    """Clients that go, a cache that goes and comes back: every reply is of its own moment, and none is left waiting."""
    asked = [
        encode(("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "THRESHOLD", 0.99, "RETURN", 1, "response")) for i in range(40)
    ]
    wrong, stop = [], threading.Event()

    def ask(number):
        while not stop.is_set():
            with busy.wire(timeout=60) as wire:
                if number % 2:
                    # It goes with most of its searches to come: one at a time, or the server would be kept by the dead.
                    wire.socket.sendall(b"".join(asked))
                    wire.read()
                    continue
                wrong.extend(
                    (i, found) for i, found in enumerate(wire.flush(asked)) if found is not None and found[1] != b"r%d" % i
                )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    client = busy.client()
    wait_until(lambda: by_load(busy) > 0 or not HAS_CORES, "searches go to threads by load", 60)
    for ending in (("LLMCACHE.INVALIDATE", "faq", "ALL"), ("DEL", "faq"), ("SWAPDB", 0, 1), ("FLUSHALL",), ("FLUSHALL", "ASYNC")):
        before = by_load(busy)
        client.execute_command(*ending)
        client.execute_command("FLUSHALL")
        fill(Cache(client), vectors[:2_000], index="FLAT")
        wait_until(
            lambda before=before: by_load(busy) > before or not HAS_CORES, f"searches went on after {ending}", 60
        )
    stop.set()
    [thread.join() for thread in threads]
    assert not wrong
    quiet(busy)
