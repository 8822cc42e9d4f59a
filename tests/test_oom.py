"""A server that is out of memory refuses what stores, serves what reads, and lets things go."""

import pytest
from harness.vectors import fp32, unit
from harness.waiting import wait_until
from harness.wire import Failure


@pytest.fixture
def full(server, cache):
    cache.create(threshold="0.8")
    cache.ids = cache.fill(50)
    cache.client.config_set("maxmemory", 1)
    return cache


STORES = [
    ("LLMCACHE.CREATE", "new"),
    ("LLMCACHE.SET", "faq", "PROMPT", "n", "RESPONSE", "N"),
    ("LLMCACHE.SETSEM", "faq", "PROMPT", "n", "RESPONSE", "N", *fp32(unit(1))),
    ("LLMCACHE.SETSEM", "faq", "PROMPT", "prompt 1", "RESPONSE", "replaced"),
]


@pytest.mark.parametrize("command", STORES, ids=lambda c: f"{c[0]} {c[3] if len(c) > 3 else ''}")
def test_what_stores_is_refused_and_changes_nothing(server, full, command):
    before = server.digest()
    with server.wire() as wire:
        assert wire(*command).word == "OOM"
    assert server.digest() == before
    assert full.info()["entries"] == 50


def test_what_reads_is_served(full):
    assert full.found_by_meaning(range(50)) == set(range(50))
    assert full.get("prompt 3").startswith(b"answer 3")
    assert full.entry(full.ids[0]) is not None
    assert len(full.scan_ids()) == 50
    assert full.info()["entries"] == 50
    assert full.stats()["hits"] >= 51


def test_what_lets_go_or_sets_is_done(full):
    assert full.delete(full.ids[0]) == 1
    assert full.expire(full.ids[1], "PX", 1) == 1
    assert full.config_set("THRESHOLD", "0.5") == b"OK"
    assert full.client.delete("faq") == 1


def test_scripts_are_refused_alike(server, full):
    before = server.digest()
    with server.wire() as wire:
        script = "return redis.call('LLMCACHE.SET', KEYS[1], 'PROMPT', 'n', 'RESPONSE', 'N')"
        assert wire("EVAL", script, 1, "faq").word == "OOM"
        wire("MULTI")
        assert wire("LLMCACHE.SET", "faq", "PROMPT", "n", "RESPONSE", "N").word == "OOM"
        assert wire("EXEC").word == "EXECABORT"
    assert server.digest() == before


def test_the_reaper_works_above_maxmemory(full):
    full.client.delete("faq")
    wait_until(lambda: full.client.dbsize() == 0, "the entries are reaped")


def test_stores_go_on_when_there_is_room_again(full):
    full.client.config_set("maxmemory", 0)
    assert full.set("n", "N") is not None
    assert full.get("n") == b"N"


def test_a_noeviction_server_fills_up_to_its_limit_and_no_further(fleet):
    server = fleet.launch(maxmemory=6_000_000)
    with server.wire() as wire:
        replies = wire.pipeline(
            ("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", "x" * 2_000, *fp32(unit(i))) for i in range(4_000)
        )
        refused = [reply for reply in replies if isinstance(reply, Failure)]
        assert {reply.word for reply in refused} == {"OOM"}
        assert 0 < len(refused) < 4_000
        assert server.used_memory() <= 6_000_000 * 1.02
        stored = [i for i, reply in enumerate(replies) if not isinstance(reply, Failure)]
        assert wire("DBSIZE") == len(stored) + 1
        for i in stored[::50]:
            assert wire("LLMCACHE.GET", "faq", "PROMPT", f"p{i}") == b"x" * 2_000
