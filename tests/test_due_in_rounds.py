"""An entry that falls due between a search on a thread and its answer: it is not found, and AOF and replica are not left
without its removal.

Where the event loop calls the module by itself, servers from 7.2 on end with a failed assertion if a key that is due is
removed by being looked at: nobody would tell AOF and replicas.
"""

from __future__ import annotations

import pytest
from harness.replication import pair
from harness.vectors import fp32, units
from harness.wire import Failure

ROWS = 2_000
DIM = 32
DUE_MS = 60
STANDS_STILL_S = 0.15
VECTORS = units(ROWS + 1, DIM)
TARGET = fp32(VECTORS[ROWS])

SEARCHES = {
    "GETSEM": ("LLMCACHE.GETSEM", "c", *TARGET, "THRESHOLD", 0.1, "RETURN", 1, "prompt"),
    "MGETSEM": ("LLMCACHE.MGETSEM", "c", 2, *TARGET, *TARGET, "THRESHOLD", 0.1, "RETURN", 1, "prompt"),
    "FETCH": ("LLMCACHE.FETCH", "c", "PROMPT", "other words", *TARGET, "THRESHOLD", 0.1, "LEASE", 10, "RETURN", 1, "prompt"),
    "SEARCH": ("RAG.SEARCH", "c", *TARGET, "COUNT", 3, "RETURN", 1, "text"),
}


def stored(family: str, name: str, vector: list, *options) -> tuple:
    if family == "RAG":
        return ("RAG.ADD", "c", name, "TEXT", name, *vector, *options)
    return ("LLMCACHE.SETSEM", "c", "PROMPT", name, "RESPONSE", "r", *vector, *options)


@pytest.mark.parametrize("name", SEARCHES)
def test_an_entry_that_is_due_before_the_answer(fleet, name):
    words = SEARCHES[name]
    family = words[0].split(".")[0]
    options = {"appendonly": "yes", "llmcache__search_threads": 2, "llmcache__search_inline_us": 0, "llmcache__index": "flat"}
    both = pair(fleet, **options)
    with both.primary.wire() as wire, both.primary.wire() as asks, both.primary.wire() as stops:
        told = wire.pipeline(stored(family, f"p{at}", fp32(VECTORS[at])) for at in range(ROWS))
        assert not [reply for reply in told if isinstance(reply, Failure)]
        # Nobody removes what is due but who looks at it.
        assert wire("DEBUG", "SET-ACTIVE-EXPIRE", 0) == "OK"
        assert wire("CONFIG", "SET", "llmcache.active-expire", "no") == "OK"
        for _ in range(8):
            assert not isinstance(wire(*stored(family, "target", TARGET, "PX", DUE_MS)), Failure)
            asks.send(*words)
            # The thread finds it meanwhile.
            stops.send("DEBUG", "SLEEP", STANDS_STILL_S)
            assert not isinstance(asks.read(), Failure)
            assert stops.read() == "OK"
        assert b"target" not in repr(wire(*words)).encode()
        assert wire("PING") == "PONG"
        both.assert_equal()
