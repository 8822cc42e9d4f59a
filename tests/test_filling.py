"""A container whose index does not know all its entries yet says so, instead of missing them in silence."""

import time

import pytest
from harness.replies import fields
from harness.vectors import fp32
from harness.wire import Failure

V = fp32([1, 0, 0])
# Embeddings are looked up by their keys, not by an index.
FILL = {
    "LLMCACHE": ("LLMCACHE.SETSEM", "own", "PROMPT", "p", "RESPONSE", "r", "ID", "x", *V),
    "RAG": ("RAG.ADD", "own", "x", *V, "TEXT", "t"),
}
NEEDS_ALL = {
    "LLMCACHE": [
        ("LLMCACHE.SCAN", "own", 0),
        ("LLMCACHE.INVALIDATE", "own", "OLDER", 0),
        ("LLMCACHE.INVALIDATE", "own", "FILTER", ".a == 1"),
        ("LLMCACHE.INVALIDATE", "own", "NEAR", *V, "SIMILARITY", 0.5),
        ("LLMCACHE.INVALIDATE", "own", "NEAR", *V, "SIMILARITY", 0.5, "DRYRUN"),
    ],
    "RAG": [("RAG.SEARCH", "own", *V), ("RAG.SCAN", "own", 0), ("RAG.DEL", "own", "FILTER", ".a == 1")],
}


def filling(fleet, family):
    """A server that was started with the entry alone, and was then given the container: no walk has met it yet."""
    server = fleet.launch(llmcache__sweep_interval_ms=60_000)
    with server.wire() as wire:
        assert not isinstance(wire(*FILL[family]), Failure)
        head = wire("DUMP", "own")
        (entry,) = (key for key in wire("KEYS", "*") if key != b"own")
        dump = wire("DUMP", entry)
        wire("FLUSHALL")
        assert wire("RESTORE", entry, 0, dump) == "OK" and wire("SAVE") == "OK"
    server.restart()
    with server.wire() as wire:
        assert wire("RESTORE", "own", 0, head) == "OK"
        assert fields(wire(f"{family}.INFO", "own"))["filling"] == 1
    return server


@pytest.mark.parametrize("family", FILL)
def test_what_needs_all_entries_is_told_to_come_again(fleet, family):
    server = filling(fleet, family)
    with server.wire() as wire:
        for call in NEEDS_ALL[family]:
            assert wire(*call).word == "TRYAGAIN", call
            wire("MULTI")
            wire(*call)
            assert wire("EXEC")[0].word == "TRYAGAIN", call


def test_a_miss_says_that_the_index_is_being_filled(fleet, resp):
    server = filling(fleet, "LLMCACHE")
    with server.wire(resp) as wire:
        assert wire("LLMCACHE.GETSEM", "own", *V) is None
        assert wire("LLMCACHE.GET", "own", "PROMPT", "p") is None
        told = fields(wire("LLMCACHE.GETSEM", "own", *V, "EXPLAIN"))
        assert told["reason"] == b"filling"
        stats = fields(wire("LLMCACHE.STATS", "own"))
        assert stats["misses_filling"] == 3 and stats["misses"] == 3
        # What is stored meanwhile is found, and what holds for all holds for those unknown.
        wire("LLMCACHE.SETSEM", "own", "PROMPT", "q", "RESPONSE", "r", *V)
        assert wire("LLMCACHE.GETSEM", "own", *V) is not None
        assert wire("LLMCACHE.INVALIDATE", "own", "ALL") >= 1


def test_sessions_of_one_moment_are_on_one_page(server):
    client = server.client()
    for number in range(6):
        client.execute_command("SESSION.APPEND", f"s{number}", "OWNER", "o", "MSG", "user", "hi")
        client.zadd("o", {f"s{number}": (1_000, 2_000, 2_000, 2_000, 3_000, 4_000)[number]})
    seen, before = [], ()
    while page := client.execute_command("SESSION.LIST", "o", "COUNT", 3, *before):
        seen += [row[0] for row in page]
        before = ("BEFORE", page[-1][1])
    assert sorted(seen) == [b"s%d" % number for number in range(6)]


def test_what_waits_for_its_container_is_not_forgotten_by_a_walk_that_passed_it(fleet):
    """A walk over many keys is under way when an entry comes of a container that is being removed, and ends before that is back."""
    server = fleet.launch(llmcache__sweep_interval_ms=10, llmcache__orphan_grace=2)
    with server.wire() as wire:
        assert not isinstance(wire(*FILL["LLMCACHE"]), Failure)
        head = wire("DUMP", "own")
        (entry,) = (key for key in wire("KEYS", "*") if key != b"own")
        dump = wire("DUMP", entry)
        assert wire("DEBUG", "POPULATE", 200_000) == "OK"
        checked = 0
        for _ in range(12):
            began = time.monotonic()
            words = [("MULTI",), ("DEL", "own", entry), ("RESTORE", entry, 0, dump), ("EXEC",)]
            assert wire.pipeline(words)[-1] == [2, "OK"]
            time.sleep(0.7)
            assert wire("RESTORE", "own", 0, head) == "OK"
            if time.monotonic() - began > 1.5:
                # On a machine that stalled the grace was over, rightly.
                wire("RESTORE", entry, 0, dump, "REPLACE")
                continue
            checked += 1
            while wire("LLMCACHE.GET", "own", "PROMPT", "p") is None:
                told = fields(wire("LLMCACHE.GETSEM", "own", *V, "EXPLAIN"))
                # Or it was attached between the two look-ups.
                assert told["reason"] in (b"filling", b"hit"), told
        assert checked
