"""MGETSEM: many questions in one trip, each answered as GETSEM answers it."""

import pytest
from harness.cache import hit, hits
from harness.vectors import fp16, fp32, near, unit, units, values


@pytest.fixture
def server(emptied):
    return emptied


def question(vector, prompt=None, form=fp32):
    return [*form(vector), *(["PROMPT", prompt] if prompt is not None else [])]


def test_each_question_has_its_reply_in_order(cache_by):
    cache_by.setsem("first", "A", unit(1))
    cache_by.setsem("second", "B", unit(2))
    asked = [
        *question(near(unit(2), 0.97)),
        *question(unit(9), "first", fp16),
        *question(unit(9), form=values),
        *question(unit(1), "another"),
    ]
    replies = [hit(reply) for reply in cache_by.run("MGETSEM", 4, *asked)]
    assert [reply and (reply.response, reply.tier) for reply in replies] == [
        (b"B", "semantic"),
        (b"A", "exact"),
        None,
        (b"A", "semantic"),
    ]
    assert cache_by.stats()["lookups"] == 4


def test_options_hold_for_all(cache_by):
    for i in range(20):
        cache_by.setsem(f"p{i}", f"r{i}", near(unit(1), 0.99 - i / 100, seed=i), scope="s", meta={"n": i})
    asked = [*question(unit(1)), *question(unit(1))]
    many = cache_by.run("MGETSEM", 2, *asked, "SCOPE", "s", "COUNT", 3, "THRESHOLD", -1, "FILTER", ".n > 4")
    alone = cache_by.getsem_many(3, vector=unit(1), scope="s", threshold=-1, filter=".n > 4")
    for reply in many:
        assert [found.id for found in hits(reply)] == [found.id for found in alone]
    assert cache_by.run("MGETSEM", 2, *asked) == [None, None], "another scope"


def test_a_cache_that_is_not_there_answers_like_a_miss(cache_by):
    assert cache_by.run("MGETSEM", 2, *question(unit(1)), *question(unit(2))) == [None, None]


BAD = {
    "no question": [0],
    "too many announced": [3, *question(unit(1)), *question(unit(2))],
    "more follow": [1, *question(unit(1)), *question(unit(2))],
    "no number": ["x", *question(unit(1))],
    "a prompt without a vector": [1, "PROMPT", "p"],
    "one of another dimension": [2, *question(unit(1)), *question(unit(2, dim=8))],
    "a broken vector": [2, *question(unit(1)), "FP32", b"abc"],
    "an unknown option": [1, *question(unit(1)), "FOO"],
    "results without end": [11, *[part for i in range(11) for part in question(unit(i))], "COUNT", 1_000],
    "too many questions": [1_001, *question(unit(1))],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_answers_nothing(server, cache, case):
    cache.setsem("a", "A", unit(1))
    with server.wire() as wire:
        reply = wire("LLMCACHE.MGETSEM", "faq", *BAD[case])
    assert reply.word in {"ERR", "BADVECTOR", "DIMMISMATCH", "TOOBIG"}, reply
    assert cache.stats()["lookups"] == 0


def test_a_thousand_questions(cache):
    ids = cache.fill(1_000)
    rows = units(1_000, seed=7)
    reply = cache.run("MGETSEM", 1_000, *(part for row in rows for part in question(row)))
    assert [hit(one).id for one in reply] == ids
