"""The console on a cache of many entries among keys of others: what pages take, and what an open page costs the server.

As many as `ENTRIES` says; collected where it says so, as `make console-test` does with a million.
"""

from __future__ import annotations

import os
import signal
import time

from harness.wire import Failure

ENTRIES = int(os.environ.get("ENTRIES", "1000000"))
WITHIN_SECONDS = 0.3
OF_A_CORE = 0.01
OPEN_SECONDS = 20


def microseconds_of(server) -> int:
    """What the main thread spent on commands since RESETSTAT; nobody but the console sends any."""
    rows = server.info("commandstats")
    return sum(int(dict(pair.split("=") for pair in row.split(","))["usec"]) for row in rows.values())


def test_pages_answer_at_once_and_cost_little(fleet, console):
    # Longer than the deadline of tests.
    signal.alarm(1_200)
    server = fleet.launch()
    step = 10_000
    with server.wire(timeout=300) as wire:
        wire("LLMCACHE.CREATE", "faq", "DIM", 2, "NEARMISSES", 100)
        for first in range(0, ENTRIES, step):
            told = wire.pipeline(
                ("LLMCACHE.SET", "faq", "PROMPT", f"question {n}", "RESPONSE", f"answer {n}", "TAGS", 1, f"t{n % 9}")
                for n in range(first, min(first + step, ENTRIES))
            )
            assert not [one for one in told if isinstance(one, Failure)]
        wire("SESSION.APPEND", "chat:1", "MSG", "user", "hello")
        wire("KVCHUNK.PUT", "ns", "HASH", "a", "PAYLOAD", 1, "x")
        wire("RAG.ADD", "docs", "d", "NOVECTOR", "TEXT", "t")
    shown = console(url=f"redis://127.0.0.1:{server.port}")
    pages = {
        "overview": {},
        "cache": {"name": "faq"},
        "near-misses": {"name": "faq"},
        "entries": {"name": "faq"},
        "sessions": {},
        "namespace": {"name": "ns"},
        "index": {"name": "docs"},
    }
    took = {}
    for path, query in pages.items():
        shown.get(path, **query)
        tries = []
        for _ in range(5):
            start = time.perf_counter()
            shown.get(path, **query)
            tries.append(time.perf_counter() - start)
        # The best of some: another process of the machine may take its turn in between.
        took[path] = min(tries)
    assert {path: seconds for path, seconds in took.items() if seconds > WITHIN_SECONDS} == {}
    assert shown.get("cache", name="faq")["settings"]["entries"] == ENTRIES

    with shown.events("/api/events") as events, server.wire() as wire:
        next(events)
        wire("CONFIG", "RESETSTAT")
        start, samples = time.monotonic(), 0
        while time.monotonic() - start < OPEN_SECONDS:
            next(events)
            samples += 1
            # What the page Cache asks at each sample.
            shown.get("cache", name="faq")
            shown.get("near-misses", name="faq")
        seconds = time.monotonic() - start
        cost = microseconds_of(server) / 1e6 / seconds
    pages_took = ", ".join(f"{path} {1000 * s:.0f} ms" for path, s in took.items())
    print(f"\n{ENTRIES:,} entries: {pages_took}; an open page costs the server {100 * cost:.3f} % of a core")
    assert samples >= 3
    assert cost < OF_A_CORE
