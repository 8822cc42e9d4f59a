"""Stores that wait for the graph: a stream of them is held to the pace of linking, and nobody else is held up."""

import threading

import pytest
from harness.cache import Cache
from harness.replies import fields
from harness.vectors import fp32, units
from harness.waiting import wait_until
from harness.wire import encode

TAIL_MAX = 1_024
DIM = 256
SENT = TAIL_MAX + 1_500


def store(i, vector, name="faq"):
    return ("LLMCACHE.SETSEM", name, "PROMPT", f"prompt {i}", "RESPONSE", "r", *fp32(vector))


@pytest.fixture(scope="module")
def rows():
    return [encode(store(i, row)) for i, row in enumerate(units(9_000, DIM))]


@pytest.fixture
def behind(cache):
    """A cache with a graph, so slow to link that stores soon have to wait."""
    cache.create(dim=DIM, index="HNSW", efc=2_000)
    return cache


def tail(server):
    with server.wire() as wire:
        return fields(wire("LLMCACHE.INFO", "faq"))["tail"]


def blocked(server):
    return int(server.info("clients")["blocked_clients"])


def test_stores_wait_and_all_are_answered_in_their_order(server, behind, rows):
    replies, seen = {}, []

    def keep_storing(part):
        with server.wire() as wire:
            replies[part] = wire.pipeline(rows[part::4][:750], batch=250)

    threads = [threading.Thread(target=keep_storing, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    with server.wire() as other:
        while any(thread.is_alive() for thread in threads):
            assert other("PING") == "PONG"
            seen.append(fields(other("LLMCACHE.INFO", "faq"))["tail"])
    assert max(seen) <= TAIL_MAX + 4, "one store of each client beyond"
    ids = [id_ for part in range(4) for id_ in replies[part]]
    assert len(set(ids)) == 3_000 and all(isinstance(id_, bytes) and len(id_) == 32 for id_ in ids)
    assert behind.info()["entries"] == 3_000
    assert len(seen) > 10, "others are served between slices of linking"


def fall_behind(server, rows, client):
    """Sends stores until one waits."""
    client.socket.sendall(b"".join(rows[: SENT]))
    wait_until(lambda: blocked(server) == 1, "a store waits")


def test_a_client_that_goes_while_it_waits_leaves_nothing(server, behind, rows):
    client = server.wire()
    fall_behind(server, rows, client)
    client.close()
    wait_until(lambda: blocked(server) == 0, "nobody waits")
    stored = behind.info()["entries"]
    assert TAIL_MAX < stored < SENT, "what was sent after the store that waited was not run"
    wait_until(lambda: tail(server) == 0, "all is linked", 60)
    assert behind.info()["entries"] == stored


@pytest.mark.parametrize("ending", [("DEL", "faq"), ("FLUSHALL",), ("FLUSHALL", "ASYNC")], ids=" ".join)
def test_nobody_waits_for_a_cache_that_is_gone(server, behind, rows, ending):
    with server.wire() as client:
        fall_behind(server, rows, client)
        with server.wire() as other:
            other(*ending)
        answers = [client.read() for _ in range(SENT)]
        assert all(isinstance(answer, bytes) for answer in answers), "each store was done, and says so"


def test_nothing_waits_in_multi_or_lua(server, behind, rows):
    with server.wire() as client, server.wire() as other:
        fall_behind(server, rows, client)
        vector = units(1, DIM, seed=99)[0]
        assert other("MULTI") == "OK"
        assert other(*store("in multi", vector)) == "QUEUED"
        (id_,) = other("EXEC")
        assert len(id_) == 32
        script = "return redis.call('LLMCACHE.SETSEM', KEYS[1], 'PROMPT', 'lua', 'RESPONSE', 'r', 'FP32', ARGV[1])"
        assert len(other("EVAL", script, 1, "faq", fp32(vector)[1])) == 32
        for _ in range(SENT):
            assert len(client.read()) == 32


def test_a_replica_obeys_without_waiting(fleet, rows):
    from harness.replication import pair

    both = pair(fleet)
    cache = Cache(both.primary.client())
    cache.create(dim=DIM, index="HNSW", efc=500)
    with both.primary.wire() as wire:
        wire.pipeline(rows[:2_500], batch=250)
    both.assert_equal()
    assert blocked(both.replica) == 0


def test_other_partitions_do_not_wait(server, behind, rows):
    with server.wire() as client, server.wire() as other:
        fall_behind(server, rows, client)
        for i in range(20):
            vector = units(1, DIM, seed=i)[0]
            assert len(other(*store(f"other {i}", vector), "SCOPE", f"s{i}")) == 32
            assert other("LLMCACHE.SET", "faq", "PROMPT", f"exact {i}", "RESPONSE", "r", "SCOPE", "x")
        for _ in range(SENT):
            assert len(client.read()) == 32
