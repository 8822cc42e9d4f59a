"""Guards: near by vector, and another question. What they refuse, where, and what they cost."""

import sys
from pathlib import Path

import numpy as np
import pytest
from harness.cache import Cache
from harness.replication import pair
from harness.vectors import near, unit
from harness.wire import Failure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from pairs import load  # noqa: E402

CHILD, TEEN = "What is the dose for a 6-year-old?", "What is the dose for a 16-year-old?"


@pytest.fixture
def server(emptied):
    return emptied


def test_a_guard_refuses_what_similarity_would_serve(cache_by):
    cache_by.setsem(CHILD, "A", unit(1))
    asked = {"prompt": TEEN, "vector": near(unit(1), 0.98)}
    assert cache_by.getsem(**asked) is None
    why = cache_by.explain(**asked)
    assert (why["reason"], why["guard"], why["nearest"]["prompt"]) == ("guard", b"number", CHILD.encode())
    assert cache_by.stats()["misses_guard"] == 2
    # The same words, and other words for the same, are served.
    assert cache_by.getsem(prompt=CHILD, vector=unit(5)).tier == "exact"
    assert cache_by.getsem(prompt="How much for a child of 6 years?", vector=near(unit(1), 0.98)) is not None


@pytest.mark.parametrize(
    ("asked", "guard"),
    [
        ("Is the shop closed on Sunday?", b"polarity"),
        ("Isn't the shop open on Sunday?", b"polarity"),
        ("Is the shop open on Monday?", b"number"),
        ("Is the shop open on Sundays?", None),
        ("the shop, open on sunday", None),
    ],
)
def test_which_guard(cache, asked, guard):
    cache.setsem("Is the shop open on Sunday?", "A", unit(1))
    why = cache.explain(prompt=asked, vector=near(unit(1), 0.97))
    assert why["guard"] == guard
    assert why["status"] == ("hit" if guard is None else "miss")


def test_the_next_nearest_is_served(cache):
    cache.setsem(CHILD, "6", unit(1))
    cache.setsem(TEEN, "16", near(unit(1), 0.97))
    hits = cache.getsem_many(5, prompt="dose for a 16-year-old", vector=unit(1))
    assert [hit.response for hit in hits] == [b"16"]


def test_the_level_of_the_cache_is_a_floor(cache):
    cache.create(guard="STRICT")
    cache.setsem("Rent in London?", "A", unit(1))
    asked = {"prompt": "Rent in Leeds?", "vector": near(unit(1), 0.97)}
    for level in (None, "OFF", "ON", "STRICT"):
        assert cache.getsem(**asked, **({} if level is None else {"guard": level})) is None
    assert cache.getsem(vector=unit(1)) is None, "nothing to judge by"
    assert cache.explain(vector=unit(1))["guard"] == b"unjudged"
    assert cache.config_set("GUARD", "ON") == b"OK"
    assert cache.getsem(**asked) is None, "names are compared under ON too"
    assert cache.explain(**asked)["guard"] == b"name"
    assert cache.explain(**asked)["guard_words"] == [b"leeds", b"london"]
    assert cache.getsem(vector=unit(1)) is not None
    assert cache.getsem(vector=unit(1), guard="STRICT") is None
    assert cache.config_set("GUARD", "OFF") == b"OK"
    assert cache.getsem(prompt="Rent in Leeds on 4 May", vector=unit(1)) is not None
    assert cache.getsem(**asked, guard="ON") is None


@pytest.mark.parametrize(
    ("stored", "asked", "words"),
    [
        ("Is it legal with consent?", "Is it legal without consent?", [b"without", b"with"]),
        ("When do I start the tablets?", "When do I stop the tablets?", [b"stop", b"start"]),
        ("Is everything included?", "Is nothing included?", [b"nothing", b"everything"]),
        ("How do I pay?", "How do I not pay?", [b"not", b""]),
    ],
)
def test_a_word_that_negates_and_is_an_opposite_counts_once(cache, stored, asked, words):
    cache.setsem(stored, "A", unit(1))
    why = cache.explain(prompt=asked, vector=near(unit(1), 0.99))
    assert (why["guard"], why["guard_words"]) == (b"polarity", words)


def test_other_languages_are_judged_by_numbers_alone(cache):
    cache.setsem("Kann ich mit Karte in London zahlen?", "A", unit(1))
    vector = near(unit(1), 0.97)
    assert cache.getsem(prompt="Kann ich ohne Karte in Leeds zahlen?", vector=vector) is not None
    assert cache.explain(prompt="Kann ich am 3. zahlen?", vector=vector)["guard"] == b"number"


def test_numbers_of_one_side_alone_pass_where_the_cache_says_conflict(cache):
    cache.create(numbers="CONFLICT")
    cache.setsem("What is the weather in Rome?", "A", unit(1))
    vector = near(unit(1), 0.97)
    assert cache.getsem(prompt="What is the weather in Rome tomorrow?", vector=vector) is not None
    cache.setsem("Who won in 2023?", "B", unit(2))
    assert cache.getsem(prompt="Who won in 2024?", vector=near(unit(2), 0.97)) is None
    assert cache.config()["numbers"] == b"CONFLICT"
    assert cache.config_set("NUMBERS", "EQUAL") == b"OK"
    assert cache.getsem(prompt="What is the weather in Rome tomorrow?", vector=vector) is None


def test_an_exchanged_word_asks_for_more_where_the_cache_says_so(cache):
    cache.setsem("How do I clean the oven?", "A", unit(1))
    asked = "How do I clean the fridge?"
    assert cache.getsem(prompt=asked, vector=near(unit(1), 0.93)) is not None
    assert cache.config_set("EXCHANGE", "ON") == b"OK"
    assert cache.getsem(prompt=asked, vector=near(unit(1), 0.93)) is None
    why = cache.explain(prompt=asked, vector=near(unit(1), 0.93))
    assert (why["guard"], why["guard_words"]) == (b"exchange", [b"fridge", b"oven"])
    assert cache.getsem(prompt=asked, vector=near(unit(1), 0.96)) is not None


def test_rules_survive_restart_and_reach_the_replica(fleet):
    both = pair(fleet, appendonly="yes", aof_use_rdb_preamble="no")
    Cache(both.primary.client()).create(numbers="CONFLICT", exchange="ON")
    both.assert_equal()
    both.primary.restart()
    for server in (both.replica, both.primary):
        config = Cache(server.client()).info()
        assert (config["numbers"], config["exchange"]) == (b"CONFLICT", b"ON")


ALONE, REFERS = "How do I reset the password of my account?", "How do I reset it?"


def test_a_prompt_that_stands_alone_leaves_the_context(cache_by):
    cache = cache_by
    for prompt, answer in ((ALONE, "1"), (REFERS, "2")):
        cache.setsem(prompt, answer, unit(len(answer) + len(prompt)), context="one", **{"unless-alone": True})

    def ask(prompt, context, *flags):
        return cache.client.execute_command(
            "LLMCACHE.GETSEM", "faq", "PROMPT", prompt, "CONTEXT", context, *flags, "RETURN", 1, "response"
        )

    assert ask(ALONE, "two", "UNLESS-ALONE") is not None
    assert ask(REFERS, "two", "UNLESS-ALONE") is None
    assert ask(REFERS, "one", "UNLESS-ALONE") is not None
    assert ask(ALONE, "one") is None, "filed under the empty context"
    assert ask(ALONE, "") is not None
    for prompt, alone in ((ALONE, 1), (REFERS, 0)):
        assert cache.explain(prompt=prompt, context="two", **{"unless-alone": True})["alone"] == alone


def test_unless_alone_needs_a_context(server):
    with server.wire() as wire:
        for command in (
            ("LLMCACHE.GETSEM", "faq", "PROMPT", ALONE, "UNLESS-ALONE"),
            ("LLMCACHE.FETCH", "faq", "PROMPT", ALONE, "UNLESS-ALONE"),
            ("LLMCACHE.MGETSEM", "faq", 1, "VALUES", 1, 1, "PROMPT", ALONE, "UNLESS-ALONE"),
            ("LLMCACHE.SETSEM", "faq", "PROMPT", ALONE, "RESPONSE", "x", "UNLESS-ALONE"),
            ("LLMCACHE.SET", "faq", "PROMPT", ALONE, "RESPONSE", "x", "UNLESS-ALONE"),
        ):
            assert wire(*command).word == "ERR", command


def test_the_default_is_a_config(server):
    client = server.client()
    assert client.config_get("llmcache.guard") == {"llmcache.guard": "on"}
    client.config_set("llmcache.guard", "off")
    try:
        cache = Cache(client, "loose")
        cache.setsem(CHILD, "A", unit(1))
        assert cache.config()["guard"] == b"OFF"
        assert cache.getsem(prompt=TEEN, vector=unit(1)) is not None
    finally:
        client.config_set("llmcache.guard", "on")


def test_thousands_that_differ_by_a_number_are_not_all_opened(cache):
    cache.bulk(
        ("LLMCACHE.SETSEM", "faq", "PROMPT", f"Where is order {i}?", "RESPONSE", "x", "VALUES", 3, 1, 2, 3)
        for i in range(2_000)
    )
    why = cache.explain(prompt="Where is order 5000?", vector=np.array([1, 2, 3]))
    assert why["reason"] == "guard"
    assert why["opened"] < 100


@pytest.mark.parametrize("value", ["MAYBE", "", 1])
def test_a_level_that_is_none_is_refused(server, value):
    with server.wire() as wire:
        assert wire("LLMCACHE.CREATE", "faq", "GUARD", value).word == "ERR"
        wire("LLMCACHE.CREATE", "faq")
        assert wire("LLMCACHE.CONFIG", "faq", "SET", "GUARD", value).word == "ERR"
        assert isinstance(wire("LLMCACHE.GETSEM", "faq", "PROMPT", "a", "GUARD", value), Failure)


def test_real_pairs(cache):
    """300 true repeats and 300 traps, each in a scope of its own, at 0.90: what is served."""
    pairs = load()
    served = {True: 0, False: 0}
    for pair in pairs:
        tail = ("SCOPE", pair.id)
        cache.client.execute_command(
            "LLMCACHE.SETSEM", "faq", "PROMPT", pair.first, "RESPONSE", "x", "FP16", pair.first_vector, *tail
        )
        hit = cache.client.execute_command(
            "LLMCACHE.GETSEM", "faq", "PROMPT", pair.second, "FP16", pair.second_vector, "THRESHOLD", "0.90", *tail
        )
        served[pair.same_answer] += hit is not None
    assert served[True] >= 0.46 * 300, f"{served[True]} of 300 true repeats"
    assert served[False] <= 0.01 * 300, f"{served[False]} of 300 traps"
