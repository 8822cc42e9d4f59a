"""Guards and contexts on real questions, through a server: a part of what `make quality` prints, held to bounds."""

from __future__ import annotations

import pytest
from harness import quality
from harness.quality import CONTEXTS, LEVELS, THRESHOLDS, share
from harness.wire import Wire


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def wire(server):
    with Wire(server.port) as wire:
        yield wire


def test_pairs_of_the_demo(wire):
    """At most 5 % of traps served: at least 58 % of repeats, at the best threshold, under ON and STRICT."""
    served = {level: quality.pairs(wire, level) for level in LEVELS}
    for level in ("ON", "STRICT"):
        best = 0.0
        for threshold in range(70, 100):
            at = [(similarity >= threshold / 100, repeat) for similarity, repeat in served[level]]
            traps = share([hit for hit, repeat in at if not repeat])
            if traps <= 0.05:
                best = max(best, share([hit for hit, repeat in at if repeat]))
        assert best >= 0.58, f"{level}: {best:.3f}"
    at = {level: [(s >= 0.90, repeat) for s, repeat in rows] for level, rows in served.items()}
    repeats = {level: share([hit for hit, repeat in rows if repeat]) for level, rows in at.items()}
    traps = {level: share([hit for hit, repeat in rows if not repeat]) for level, rows in at.items()}
    assert traps["OFF"] > 0.25, "without guards they are traps"
    assert traps["ON"] <= 0.02 and repeats["OFF"] - repeats["ON"] <= 0.015, (traps, repeats)


@pytest.mark.parametrize(("kind", "points"), [("clinc", 1.5), ("banking", 2.0)])
def test_a_stream_of_utterances(wire, kind, points):
    """Guards take few of the lookups that are served rightly, and add none that are served wrongly, at every threshold.

    Most are taken by their numbers, where "set an alarm for 4" and "for 7" count as one intent.
    """
    asked = {level: quality.stream(wire, kind, level) for level in LEVELS}
    for threshold in THRESHOLDS:
        right = {level: sum(a.similarity >= threshold and a.is_right for a in rows) for level, rows in asked.items()}
        wrong = {level: sum(a.similarity >= threshold and not a.is_right for a in rows) for level, rows in asked.items()}
        for level in ("ON", "STRICT"):
            assert (right["OFF"] - right[level]) * 100 <= points * len(asked[level]), (threshold, right)
            assert wrong[level] <= wrong["OFF"], (threshold, wrong)


def test_conversations(wire):
    hits, wrong = {}, {}
    for number, (name, context) in enumerate(CONTEXTS.items()):
        rows = quality.served_conversations(wire, f"talks-{number}", context)
        assert len(rows) == 240
        hits[name] = share([served for served, repeat, _ in rows if repeat])
        wrong[name] = share([served for served, repeat, _ in rows if not repeat])
    assert wrong["nothing"] > 0.9, "a last message alone is a trap"
    assert wrong["digest of the whole history"] == 0
    assert hits["the same, UNLESS-ALONE"] >= 0.29 and wrong["the same, UNLESS-ALONE"] <= 0.05, (hits, wrong)
