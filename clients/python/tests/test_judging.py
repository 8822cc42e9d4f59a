"""A cache with MAXERROR, used by `get_or_make`: tickets are reported on without the caller's doing."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis.asyncio

import llmcache.asyncio
from llmcache import LLMCache

WARM_UP = 100


def at(similarity: float) -> list[float]:
    return [similarity, (1 - similarity * similarity) ** 0.5]


def warmed(r, name="faq", **given) -> LLMCache:
    cache = LLMCache(r, name, **given)
    r.execute_command("LLMCACHE.CREATE", name, "MAXERROR", "0.05", "GUARD", "OFF", "AUDIT", "1")
    cache.set("stored question", "stored answer", vector=[1.0, 0.0])
    for _ in range(WARM_UP):
        assert r.execute_command("LLMCACHE.GETSEM", name, "VALUES", 2, *at(0.95)) is None
    return cache


def labels(r, name="faq", *, of: int) -> tuple[int, int]:
    """Labels and wrong ones, when as many have come in: they are told behind the caller's back."""
    end = time.monotonic() + 60
    while True:
        stats = r.execute_command("LLMCACHE.STATS", name)
        pairs = stats if isinstance(stats, dict) else dict(zip(stats[::2], stats[1::2], strict=True))
        found = pairs[b"labels"], pairs[b"labels_wrong"]
        if found[0] >= of or time.monotonic() > end:
            return found
        time.sleep(0.02)


def test_equal_bytes_are_right_and_others_are_not(r):
    cache = warmed(r)
    assert cache.get_or_make("one", lambda: "stored answer", vector=at(0.96)) == "stored answer"
    assert cache.get_or_make("two", lambda: "another answer", vector=at(0.91)) == "another answer"
    assert labels(r, of=2) == (2, 1)


def test_a_judge_sees_both_questions_and_both_answers(r):
    seen = []
    cache = warmed(r, judge=lambda case: seen.append(case) or True)
    cache.get_or_make("asked question", lambda: "made answer", vector=at(0.96))
    assert labels(r, of=1) == (1, 0)
    (case,) = seen
    assert (case.asked, case.made) == ("asked question", "made answer")
    assert (case.stored, case.candidate) == ("stored question", "stored answer")


def test_embeddings_of_the_answers_decide_where_the_cache_embeds(r):
    vectors = {
        "stored answer": [1.0, 0.0],
        "the same, said otherwise": at(0.97),
        "no": at(0.5),
        "q": at(0.96),
        "p": at(0.93),
    }
    cache = warmed(r, embed=vectors.__getitem__)
    cache.get_or_make("q", lambda: "the same, said otherwise")
    assert labels(r, of=1) == (1, 0)
    # Nearest is now the question stored last, whose answer is another.
    cache.get_or_make("p", lambda: "no", vector=at(0.93))
    assert labels(r, of=2) == (2, 1)


def test_a_hit_is_audited_behind_the_back_of_who_was_served(r):
    cache = warmed(r)
    for number in range(107):
        fetched = cache.fetch(f"question {number}", vector=at(0.96), audit=True)
        assert fetched.status == "LEAD"
        assert fetched.candidate.response == "stored answer"
        assert cache.feedback(fetched.audit, True)
        assert not cache.feedback(fetched.audit, True)
    made = []
    served = cache.get_or_make("another", lambda: made.append(1) or "stored answer", vector=at(0.96))
    assert served == "stored answer"
    assert labels(r, of=108) == (108, 0)
    assert made == [1]
    assert not cache.feedback(b"0" * 64, True), "no ticket: nothing counts"


def test_nothing_is_audited_where_that_is_off_or_no_promise_is_made(r):
    cache = warmed(r, audit=False)
    cache.get_or_make("one", lambda: "a", vector=at(0.96))
    plain = LLMCache(r, "plain")
    plain.set("stored", "answer", vector=[1.0, 0.0])
    assert plain.get_or_make("asked", lambda: "x", vector=at(0.96)) == "answer"
    assert plain.search("asked", vector=at(0.96)).verified is None
    assert labels(r, of=0) == (0, 0)


def test_a_judge_that_fails_is_told_of_in_the_log_alone(r, caplog):
    def judge(_):
        raise RuntimeError("out of order")

    cache = warmed(r, judge=judge)
    assert cache.get_or_make("one", lambda: "made", vector=at(0.96)) == "made"
    end = time.monotonic() + 60
    while "was not audited" not in caplog.text and time.monotonic() < end:
        time.sleep(0.02)
    assert "out of order" in caplog.text
    assert labels(r, of=0) == (0, 0)


def test_asyncio_does_the_same(r):
    warmed(r)

    async def main():
        async with redis.asyncio.Redis(port=r.connection_pool.connection_kwargs["port"]) as client:
            cache = llmcache.asyncio.LLMCache(client, "faq")
            assert await cache.get_or_make("one", make, vector=at(0.96)) == "stored answer"
            return await asyncio.to_thread(labels, r, of=1)

    async def make():
        return "stored answer"

    assert asyncio.run(main()) == (1, 0)


@pytest.fixture(autouse=True)
def _empty(r):
    r.flushall()
