"""The real model through the server, by text alone; only where `make model` has fetched it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.cache import Cache
from harness.model import models_option

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models/all-MiniLM-L6-v2"
PAIRS = ROOT / "demo/data/pairs.jsonl"


@pytest.fixture
def server(fleet):
    return fleet.launch(**{"llmcache.embed-models": models_option(minilm=MODEL)})


def test_pairs_are_told_apart_as_by_f32(server):
    """Within a point of what vectors in f32 give: 47.3 % of repeats, 27.7 % of near-misses, 1.7 % with guards."""
    pairs = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    assert len(pairs) == 600
    served = {}
    for level in ("OFF", "ON"):
        cache = Cache(server.client(), f"pairs-{level}")
        cache.create(embed="minilm", guard=level)
        assert float(cache.config()["threshold"]) == 0.9
        for number, pair in enumerate(pairs):
            cache.setsem(pair["a"], "answer", scope=str(number))
        for same in (True, False):
            kind = [(number, pair) for number, pair in enumerate(pairs) if pair["same_answer"] == same]
            hits = sum(cache.getsem(prompt=pair["b"], scope=str(number)) is not None for number, pair in kind)
            served[level, same] = 100 * hits / len(kind)
    assert abs(served["OFF", True] - 47.3) <= 1
    assert abs(served["OFF", False] - 27.7) <= 1
    # Guards are rules of their own, which may get better: they refuse near-misses, and hardly a repeat.
    assert served["ON", False] <= 2.7
    assert served["ON", True] >= 46.3


def test_the_first_question_of_a_new_user(server):
    cache = Cache(server.client())
    cache.create(embed="minilm")
    cache.setsem("How do I get my money back?", "Refunds take 5 days.")
    found = cache.getsem(prompt="How can I get my money back?")
    assert (found.tier, found.response) == ("semantic", b"Refunds take 5 days.")
    assert found.similarity > 0.98
    # Another question behind the same head, and questions in a script the model does not know.
    head = "word " * 300
    cache.setsem(head + "how much is it?", "ten")
    assert cache.getsem(prompt=head + "where is it?") is None
    cache.setsem("ขอเงินคืนได้อย่างไร", "thai")
    assert cache.explain(prompt="เปลี่ยนที่อยู่ได้อย่างไร")["reason"] == "script"


def test_the_model_takes_at_most_30_megabytes(fleet):
    bare = fleet.launch()
    loaded = fleet.launch(**{"llmcache.embed-models": models_option(minilm=MODEL)})
    assert loaded.used_memory() - bare.used_memory() <= 30 << 20
    assert int(loaded.info("llmcache")["llmcache_model_bytes"]) <= 30 << 20
