"""META, TAGS and RETURN: what is stored beside an answer, and how much of it comes back."""

import json

import pytest
from harness.replies import HIT_FIELDS, fields
from harness.vectors import unit
from harness.wire import Pairs

META = {"text": "grün\n", "n": -1.5, "yes": True, "none": None, "list": [1, "a"], "deep": {"k": [{}]}}


@pytest.fixture
def server(emptied):
    return emptied


def test_meta_comes_back_as_the_json_that_was_stored(cache_by):
    cache_by.setsem("a", "A", unit(1), meta=META)
    assert cache_by.getsem(prompt="a").meta == META
    assert cache_by.getsem(vector=unit(1)).meta == META


def test_without_meta_and_tags_there_are_none(cache_by):
    cache_by.setsem("a", "A", unit(1))
    hit = cache_by.getsem(vector=unit(1))
    assert hit.meta is None
    assert hit.tags == []


def test_tags_come_back_in_their_order_and_as_bytes(cache_by):
    tags = [b"zeta", b"alpha", b"\x00\xff", "grün".encode()]
    cache_by.setsem("a", "A", unit(1), tags=tags)
    assert cache_by.getsem(vector=unit(1)).tags == tags


def test_a_hit_has_its_fields_in_the_documented_order(server, cache):
    cache.setsem("a", "A", unit(1), meta=META, tags=["t"])
    with server.wire(3) as wire:
        reply = wire("LLMCACHE.GETSEM", "faq", "PROMPT", "a")
        assert isinstance(reply, Pairs)
        assert [key.decode() if isinstance(key, bytes) else key for key, _ in reply] == list(HIT_FIELDS)
        named = fields(reply)
        assert isinstance(named["similarity"], float)
        assert json.loads(named["meta"]) == META
        assert named["tags"] == [b"t"]
    with server.wire(2) as wire:
        reply = wire("LLMCACHE.GETSEM", "faq", "PROMPT", "a")
        assert type(reply) is list
        assert [name.decode() for name in reply[::2]] == list(HIT_FIELDS)


@pytest.mark.parametrize("wanted", [["response"], ["tags", "id"], ["similarity", "meta", "ttl", "prompt"], [*HIT_FIELDS]])
def test_return_names_the_fields_and_their_order(cache_by, wanted):
    cache_by.setsem("a", "A", unit(1), meta=META, tags=["t"])
    reply = cache_by.run("GETSEM", "PROMPT", "a", "RETURN", len(wanted), *wanted)
    assert list(fields(reply)) == wanted
    whole = fields(cache_by.run("GETSEM", "PROMPT", "a"))
    for name in set(wanted) - {"age", "hits", "ttl"}:
        assert fields(reply)[name] == whole[name]


def test_return_goes_with_count(cache_by):
    cache_by.setsem("a", "A", unit(1))
    cache_by.setsem("b", "B", unit(1))
    replies = cache_by.run("GETSEM", *["VALUES", 32, *map(repr, map(float, unit(1)))], "COUNT", 2, "RETURN", 1, "prompt")
    assert sorted(fields(reply)["prompt"] for reply in replies) == [b"a", b"b"]
    assert all(list(fields(reply)) == ["prompt"] for reply in replies)


def test_hits_counts_how_often_an_entry_answered(cache):
    cache.setsem("a", "A", unit(1))
    counts = [cache.getsem(prompt="a").hits for _ in range(3)]
    counts += [cache.getsem(vector=unit(1)).hits]
    steps = [later - earlier for earlier, later in zip(counts, counts[1:])]
    assert steps == [1, 1, 1]


def test_age_grows_and_starts_anew_with_a_replacing_store(cache):
    cache.setsem("a", "A", unit(1))
    cache.client.execute_command("DEBUG", "SLEEP", 0.3)
    assert 300 <= cache.getsem(prompt="a").age < 30_000
    cache.setsem("a", "B", unit(1))
    assert cache.getsem(prompt="a").age < 300


def test_entry_shows_one_entry_with_its_sizes(cache_by):
    id_ = cache_by.setsem("a question", "an answer", unit(1), meta=META, tags=["t"], scope="s", context="c", tokens=120, cost="0.0025", latency=900)
    entry = cache_by.entry(id_)
    assert entry["id"] == id_.encode()
    assert (entry["prompt"], entry["response"]) == (b"a question", b"an answer")
    assert (entry["scope"], entry["context"]) == (b"s", b"c")
    assert json.loads(entry["meta"]) == META
    assert entry["tags"] == [b"t"]
    assert (entry["tokens"], entry["latency"]) == (120, 900)
    assert float(entry["cost"]) == pytest.approx(0.0025)
    assert entry["bytes"] >= len("a question") + len("an answer")
    assert cache_by.entry("0" * 32) is None
