"""Entries that are due go by themselves, before the server's own cycle comes to them, and as it would do it.

The server's cycle is off in these tests, so that what goes went by the module.
"""

import threading
import time

import pytest
from harness.cache import Cache
from harness.expiry import set_active_expire, set_server_cycle
from harness.families import Answers, Documents, Embeddings
from harness.replication import pair
from harness.vectors import unit, units
from harness.waiting import hold, wait_until

COUNT = 500


@pytest.fixture
def client(server):
    client = server.client()
    set_server_cycle(client, False)
    return client


def expired_keys(server):
    return int(server.info("stats")["expired_keys"])


def gone(cache, left=0):
    wait_until(lambda: cache.info()["entries"] == left, "the cache forgets what was due")
    assert cache.client.dbsize() == left + 1


@pytest.mark.parametrize("family", [Answers, Documents, Embeddings], ids=["LLMCACHE", "RAG", "EMBCACHE"])
def test_what_is_due_goes_unread(server, client, family):
    box = family(client, "box")
    box.make(dim=32)
    box.bulk([*box.store_number(i), "PX", 100 if i % 2 else 100_000] for i in range(COUNT))
    wait_until(lambda: box.number_of_entries() == COUNT // 2, "those that are due are gone")
    assert client.dbsize() == 1 + COUNT // 2
    assert expired_keys(server) == COUNT // 2
    assert box.held(range(COUNT)) == {i for i in range(COUNT) if i % 2 == 0}
    hold(lambda: box.number_of_entries() == COUNT // 2, "nothing else goes", 0.5)


def test_each_is_told_of_as_expired(server, client, cache):
    client.config_set("notify-keyspace-events", "Ex")
    heard = client.pubsub()
    heard.psubscribe("__keyevent@0__:expired")
    ids = cache.fill(COUNT, px=100)
    keys = {cache.key_of(id_) for id_ in ids}
    gone(cache)
    told = []
    # What was told before is read before the answer.
    heard.ping()
    while (message := heard.get_message(timeout=10))["type"] != "pong":
        if message["type"] == "pmessage":
            told.append(message["data"])
    heard.close()
    assert sorted(told) == sorted(keys)
    assert expired_keys(server) == COUNT


def test_their_memory_comes_back(server, client, cache):
    cache.create(dim=256)
    cache.setsem("stays", "S", units(1, 256)[0])
    time.sleep(0.2)
    before = server.used_memory()
    cache.fill(2_000, dim=256, px=200)
    full = server.used_memory() - before
    gone(cache, left=1)
    # The server's own tables shrink when they please.
    wait_until(lambda: server.used_memory() - before < full * 0.15, "the memory is free")


def test_a_setting_leaves_them_to_the_server(server, client, cache):
    client.config_set("llmcache.active-expire", "no")
    stored = time.monotonic()
    cache.fill(50, px=20)
    # Whatever is two seconds past its deadline is settled.
    hold(lambda: cache.info()["entries"] == 50 or time.monotonic() > stored + 1.5, "they stay until read", 0.6)
    client.config_set("llmcache.active-expire", "yes")
    gone(cache)
    assert expired_keys(server) == 50


# Deadlines that are moved.


def test_moved_deadlines_count(client, cache):
    ids = cache.fill(60, px=2_000)
    # Sent at once: none may be late.
    pipe = client.pipeline(transaction=False)
    for number, id_ in enumerate(ids[:40]):
        if number < 10:
            pipe.persist(cache.key_of(id_))
        elif number < 20:
            pipe.pexpire(cache.key_of(id_), 100_000)
        elif number < 30:
            pipe.execute_command("LLMCACHE.EXPIRE", "faq", id_, "PERSIST")
        else:
            pipe.execute_command("LLMCACHE.EXPIRE", "faq", id_, "PX", 100_000)
    assert [int(reply) for reply in pipe.execute()] == [1] * 40
    wait_until(lambda: cache.info()["entries"] == 40, "the rest is gone")
    hold(lambda: client.dbsize() == 41, "the moved ones stay", 0.7)
    assert {hit.id for hit in cache.getsem_many(60, vector=unit(1), threshold=-1)} <= set(ids[:40])
    for id_ in ids[:40]:
        assert client.exists(cache.key_of(id_))


def test_a_deadline_given_later_is_kept(client, cache):
    ids = cache.fill(60)
    for id_ in ids[:20]:
        client.pexpire(cache.key_of(id_), 50)
    for id_ in ids[20:40]:
        assert cache.expire(id_, "PX", 50) == 1
    gone(cache, left=20)


def test_a_deadline_brought_forward_is_kept(client, cache):
    ids = cache.fill(60, px=100_000)
    for id_ in ids[:20]:
        client.pexpire(cache.key_of(id_), 50)
    gone(cache, left=40)


def test_a_replaced_entry_has_the_new_deadline(client, cache):
    cache.fill(30, px=150)
    cache.fill(30)
    hold(lambda: client.dbsize() == 31, "nothing goes", 1.5)


def test_deadlines_survive_a_reload(fleet):
    server = fleet.launch(appendonly="yes")
    client = server.client()
    cache = Cache(client)
    cache.fill(40, px=2_500)
    cache.fill(40, start=40)
    client.execute_command("DEBUG", "RELOAD")
    set_server_cycle(client, False)
    wait_until(lambda: cache.info()["entries"] == 40, "those with a deadline are gone")
    assert client.dbsize() == 41


# Where the cache is.


def test_in_whichever_database(fleet):
    server = fleet.launch()
    set_server_cycle(server.client(), False)
    third = server.client(db=3)
    Cache(third).fill(50, px=400)
    Cache(third).fill(10, start=50)
    server.client().execute_command("SWAPDB", 3, 5)
    fifth = Cache(server.client(db=5))
    gone(fifth, left=10)


def test_under_another_name(client, cache):
    cache.fill(50, px=400)
    client.rename("faq", "moved")
    gone(Cache(client, "moved"))


def test_of_many_caches(server, client):
    pipe = client.pipeline(transaction=False)
    for i in range(600):
        for j in range(3):
            pipe.execute_command(
                "LLMCACHE.SET", f"c{i}", "PROMPT", f"p{j}", "RESPONSE", "r", *(("PX", 200) if j else ())
            )
    pipe.execute()
    wait_until(lambda: client.dbsize() == 1_200, "one entry of each cache stays")
    assert expired_keys(server) == 1_200


# Replicas, AOF, transactions, pauses.


def test_replicas_and_the_aof_are_told(fleet):
    both = pair(fleet, appendonly="yes", appendfsync="always")
    client = both.primary.client()
    set_server_cycle(client, False)
    set_active_expire(both.replica.client(), False)
    cache = Cache(client)
    cache.fill(COUNT, px=300)
    cache.fill(100, start=COUNT)
    gone(cache, left=100)
    both.assert_equal()
    here = both.replica.client()
    wait_until(lambda: here.dbsize() == 101, "the replica removed them too")
    assert Cache(here).info()["entries"] == 100
    digest = both.primary.digest()
    both.primary.kill9()
    both.primary.start()
    assert both.primary.digest() == digest


def test_a_replica_removes_nothing_by_itself(fleet):
    both = pair(fleet)
    client, here = both.primary.client(), both.replica.client()
    set_active_expire(client, False)
    cache = Cache(client)
    stored = time.monotonic()
    cache.fill(60, px=2_000)
    both.catch_up()
    time.sleep(max(0.0, stored + 2.5 - time.monotonic()))
    # The primary settles what is two seconds past its deadline.
    hold(lambda: here.dbsize() == 61 or time.monotonic() > stored + 3.5, "the replica waits to be told", 0.4)
    # Promoted, it decides by itself.
    set_server_cycle(here, False)
    here.execute_command("REPLICAOF", "NO", "ONE")
    gone(Cache(here))


def test_nothing_goes_within_a_transaction(server, client, cache):
    cache.set("stays", "S")
    time.sleep(1.2)
    with server.wire() as wire:
        assert wire("MULTI") == "OK"
        for i in range(20):
            wire("LLMCACHE.SET", "faq", "PROMPT", f"p{i}", "RESPONSE", "r", "PX", 1)
        wire("DEBUG", "SLEEP", "0.2")
        wire("DBSIZE")
        wire("LLMCACHE.SET", "faq", "PROMPT", "last", "RESPONSE", "r")
        replies = wire("EXEC")
    assert replies[-2] == 22
    gone(cache, left=2)


def test_nothing_goes_while_writes_are_paused(server, client, cache):
    # Sent at once: the pause begins before any is due.
    pipe = client.pipeline(transaction=False)
    for i in range(50):
        pipe.execute_command("LLMCACHE.SET", "faq", "PROMPT", f"p{i}", "RESPONSE", "r", "PX", 300)
    pipe.execute_command("CLIENT", "PAUSE", 100_000, "WRITE")
    pipe.execute()
    hold(lambda: client.dbsize() == 51, "they stay while writes are paused", 0.8)
    client.execute_command("CLIENT", "UNPAUSE")
    gone(cache)
    assert expired_keys(server) == 50


def test_it_keeps_up_with_a_stream_of_short_lives(server, client, cache):
    """Of what was stored, little is there past its time while more is stored."""
    cache.create(dim=32, index="FLAT")
    done, over = [], threading.Event()

    def keep_storing():
        with server.wire() as wire:
            at = 0
            while not over.is_set():
                rows = units(64, 32, seed=at)
                wire.pipeline(
                    [
                        ["LLMCACHE.SETSEM", "faq", "PROMPT", f"p{at + i}", "RESPONSE", "r", "FP32", row.tobytes(), "PX", 500]
                        for i, row in enumerate(rows)
                    ],
                    batch=64,
                )
                at += 64
                done.append((time.monotonic(), at))

    thread = threading.Thread(target=keep_storing)
    thread.start()
    try:
        time.sleep(3)
        for _ in range(20):
            time.sleep(0.05)
            there, now = cache.info()["entries"], time.monotonic()
            old = max((n for at, n in done if at < now - 2.0), default=0)
            assert there <= done[-1][1] + 64 - old, "nothing is there long past its time"
    finally:
        over.set()
        thread.join()
    gone(cache)
