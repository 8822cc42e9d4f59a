"""`get_or_make`: one makes the answer for all, leases live as long as the model works, and nothing depends on the cache."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from words import embed

import llmcache.asyncio
from llmcache import Answer, LLMCache, errors

ONCE, ASYNC_ONCE = Retry(NoBackoff(), 0), AsyncRetry(NoBackoff(), 0)

SRC = Path(__file__).resolve().parents[1] / "src"


def commands(client, name: str) -> int:
    told = client.info("commandstats").get(f"cmdstat_{name}")
    return 0 if told is None else told["calls"]


def test_a_stampede_of_100_tasks_makes_one_answer(server, r, loop_run):
    made = []

    async def work(client):
        # Two objects: what one process joins locally, and what the server joins.
        caches = [llmcache.asyncio.LLMCache(client, "faq") for _ in range(2)]

        async def model() -> Answer:
            made.append(1)
            await asyncio.sleep(0.3)
            return Answer("made", tokens=5, cost=0.1)

        return await asyncio.gather(*(caches[n % 2].get_or_make("q", model, vector=[1.0, n / 1e6]) for n in range(100)))

    assert loop_run(work, max_connections=10) == ["made"] * 100
    assert made == [1]
    assert commands(r, "LLMCACHE.SETSEM") == 1
    # All tasks of one process ask the server once, and once more where the first was told to wait.
    assert commands(r, "LLMCACHE.FETCH") <= 3


def test_a_stampede_of_processes_makes_one_answer(server, r):
    code = f"""
import sys, time; sys.path.insert(0, {str(SRC)!r})
import redis
from llmcache import LLMCache
def model():
    print("made", flush=True); time.sleep(0.5); return "answer"
cache = LLMCache(redis.Redis(port={server.port}), "faq")
sys.stdin.readline()
print(cache.get_or_make("q", model), flush=True)
"""
    askers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for asker in askers:
        assert asker.stdin is not None
        asker.stdin.write("go\n")
        asker.stdin.flush()
    said = [line for asker in askers for line in asker.communicate(timeout=60)[0].splitlines()]
    assert said.count("answer") == 6
    assert said.count("made") == 1


def test_threads_wait_for_one_maker(r):
    cache, made, answers = LLMCache(r, "faq"), [], []

    def model() -> str:
        made.append(1)
        time.sleep(0.3)
        return "made"

    threads = [threading.Thread(target=lambda: answers.append(cache.get_or_make("q", model))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["made"] * 50
    assert made == [1]


def test_a_model_slower_than_its_lease_keeps_it(r, loop_run):
    cache = LLMCache(r, "faq", lease=1.0)
    made = []

    def model() -> str:
        made.append(1)
        time.sleep(3)
        return "slow"

    others = []
    other = threading.Thread(target=lambda: others.append(LLMCache(r, "faq").fetch("q", wait=60).status))
    starter = threading.Timer(0.2, other.start)
    starter.start()
    assert cache.get_or_make("q", model) == "slow"
    starter.join()
    other.join()
    assert others == ["HIT"]
    assert made == [1]
    assert cache.get("q") == "slow"
    assert commands(r, "LLMCACHE.EXTEND") >= 3

    async def work(client):
        async def model() -> str:
            await asyncio.sleep(2.5)
            return "slow too"

        return await llmcache.asyncio.LLMCache(client, "faq", lease=1.0).get_or_make("q2", model)

    assert loop_run(work) == "slow too"
    assert cache.get("q2") == "slow too"


def test_a_failure_is_told_to_all_who_wait(r):
    cache = LLMCache(r, "faq")
    seen = []

    def wait() -> None:
        try:
            seen.append(LLMCache(r, "faq").get_or_make("q", lambda: "never"))
        except errors.MakingFailed as error:
            seen.append(str(error))

    waiting = threading.Thread(target=wait)

    def model() -> str:
        waiting.start()
        time.sleep(0.3)
        raise ValueError("the model is out")

    with pytest.raises(ValueError, match="the model is out"):
        cache.get_or_make("q", model)
    waiting.join()
    assert seen == ["ValueError: the model is out"]
    with pytest.raises(errors.MakingFailed) as told:
        cache.get_or_make("q", lambda: "never")
    assert told.value.retry > 0


def test_a_breaker_that_is_open_is_told(server, r):
    cache = LLMCache(r, "faq", scope="s")
    before = r.config_get("llmcache.breaker-*")
    r.config_set("llmcache.breaker-failures", 2)
    r.config_set("llmcache.breaker-cooldown", 60)

    def model() -> str:
        raise ValueError("no")

    try:
        seen = []
        for n in range(6):
            try:
                cache.get_or_make(f"q{n}", model)
            except (ValueError, errors.BreakerOpen) as error:
                seen.append(type(error).__name__)
        assert seen[:2] == ["ValueError"] * 2
        assert "BreakerOpen" in seen
        with pytest.raises(errors.BreakerOpen) as told:
            cache.get_or_make("q9", lambda: "never")
        assert 0 < told.value.retry <= 60
    finally:
        for name, value in before.items():
            r.config_set(name, value)


def test_a_cancelled_task_gives_its_lease_to_the_next(loop_run):
    async def work(client):
        cache = llmcache.asyncio.LLMCache(client, "faq", lease=30)

        leads = asyncio.Event()

        async def forever() -> str:
            leads.set()
            await asyncio.sleep(60)
            return "never"

        async def model() -> str:
            return "made by the next"

        first = asyncio.create_task(cache.get_or_make("q", forever))
        await leads.wait()
        second = asyncio.create_task(cache.get_or_make("q", model))
        await asyncio.sleep(0.1)
        first.cancel()
        start = time.monotonic()
        answer = await second
        with pytest.raises(asyncio.CancelledError):
            await first
        return answer, time.monotonic() - start

    answer, took = loop_run(work)
    assert answer == "made by the next"
    assert took < 20


def test_an_answer_that_must_not_be_stored_is_not(r):
    cache = LLMCache(r, "faq")
    assert cache.get_or_make("q", lambda: Answer("secret", store=False)) == "secret"
    assert cache.get("q") is None
    assert cache.get_or_make("q", lambda: Answer("kept", ttl=100, tags=["t"], meta={"a": 1}), tags=["u"]) == "kept"
    hit = cache.search("q")
    assert hit is not None
    assert (hit.ttl or 0) > 90
    assert sorted(hit.tags) == ["t", "u"]
    with pytest.raises(TypeError, match="returns text"):
        cache.get_or_make("other", lambda: 5)


def test_an_exact_answer_needs_no_embedding(r):
    asked = []

    def counting(text: str) -> list[float]:
        asked.append(text)
        return embed(text)

    cache = LLMCache(r, "faq", embed=counting, threshold=0.6)
    assert cache.get_or_make("how do I get my money back", lambda: "so") == "so"
    assert len(asked) == 1
    assert cache.get_or_make("how do I get my money back", lambda: "never") == "so"
    assert len(asked) == 1
    assert cache.get_or_make("how can I get my money back", lambda: "never") == "so"
    assert len(asked) == 2


def test_a_stale_answer_is_served_while_one_makes_a_new_one(r):
    cache = LLMCache(r, "faq")
    cache.create(grace=60)
    cache.set("q", "old", tags=["t"])
    cache.invalidate(tag="t", soft=True)
    assert cache.get_or_make("q", lambda: "new", refresh_aside=True) == "old"
    deadline = time.monotonic() + 60
    while cache.get("q") != "new" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cache.get("q") == "new"
    cache.invalidate(all=True, soft=True)
    assert cache.get_or_make("q", lambda: "newer") == "newer"


def test_a_server_that_is_away_is_passed_over(fleet, caplog):
    server = fleet.launch()
    with redis.Redis(port=server.port, socket_timeout=1) as client:
        cache = LLMCache(client, "faq")
        assert cache.get_or_make("q", lambda: "a") == "a"
        server.kill9()
        assert cache.get_or_make("q", lambda: "made again") == "made again"
        assert "passed over" in caplog.text
        # redis-py has tried for seconds; who comes next does not.
        start = time.monotonic()
        assert [cache.get_or_make(f"q{n}", lambda: "x") for n in range(100)] == ["x"] * 100
        assert time.monotonic() - start < 3
    with redis.Redis(port=server.port, retry=ONCE) as client:
        with pytest.raises(redis.exceptions.ConnectionError):
            LLMCache(client, "faq", fail_open=False).get_or_make("q", lambda: "never")
        with pytest.raises(redis.exceptions.ConnectionError):
            LLMCache(client, "faq").get("q")


def test_a_server_killed_while_the_model_works_loses_nothing_but_the_cache(fleet):
    server = fleet.launch()
    with redis.Redis(port=server.port, retry=ONCE) as client:

        def model() -> str:
            server.kill9()
            return "answer"

        assert LLMCache(client, "faq", lease=0.3).get_or_make("q", model) == "answer"


def test_a_server_killed_while_others_wait_answers_them_all(fleet):
    server = fleet.launch()

    async def main():
        async with redis.asyncio.Redis(port=server.port, retry=ASYNC_ONCE) as client:
            cache = llmcache.asyncio.LLMCache(client, "faq", wait=5)

            leads = asyncio.Event()

            async def slow() -> str:
                leads.set()
                await asyncio.sleep(0.5)
                server.kill9()
                await asyncio.sleep(0.2)
                return "first"

            async def model() -> str:
                return "other"

            first = asyncio.create_task(cache.get_or_make("q", slow))
            await leads.wait()
            others = [
                llmcache.asyncio.LLMCache(client, "faq", wait=5).get_or_make("q", model, guard="OFF") for _ in range(5)
            ]
            return await asyncio.gather(first, *others)

    answers = asyncio.run(main())
    assert answers[0] == "first"
    assert set(answers[1:]) <= {"other", "first"}


@pytest.mark.parametrize("refusal", ["oom", "acl", "readonly"])
def test_a_server_that_refuses_is_passed_over(fleet, refusal):
    server = fleet.launch()
    with redis.Redis(port=server.port) as client:
        cache = LLMCache(client, "faq")
        if refusal == "oom":
            client.config_set("maxmemory", 1)
        elif refusal == "acl":
            client.execute_command("ACL", "SETUSER", "default", "-llmcache.set", "-llmcache.setsem")
        else:
            client.replicaof("127.0.0.1", 1)
        assert cache.get_or_make("q", lambda: "a") == "a"
        kinds = {"oom": errors.OutOfMemory, "acl": errors.NoPermission, "readonly": errors.Unavailable}
        with pytest.raises(kinds[refusal]):
            cache.set("p", "r")
        client.execute_command("ACL", "SETUSER", "default", "+@all")


def test_the_mistakes_of_a_caller_are_not_passed_over(r):
    cache = LLMCache(r, "faq")
    cache.create(dim=3)
    with pytest.raises(errors.DimMismatch):
        cache.get_or_make("q", lambda: "a", vector=[1.0, 0.0])


def test_an_answer_in_time_for_nobody_is_made_by_who_waited(r):
    cache = LLMCache(r, "faq")
    assert cache.fetch("q").status == "LEAD"
    start = time.monotonic()
    assert cache.get_or_make("q", lambda: "own", wait=0.3) == "own"
    assert 0.2 < time.monotonic() - start < 30
    assert cache.get("q") is None


def test_a_late_answer_is_returned_and_not_stored(r):
    cache = LLMCache(r, "faq")

    def model() -> str:
        cache.invalidate(all=True)
        return "late"

    assert cache.get_or_make("q", model) == "late"
    assert cache.get("q") is None


def test_functions_are_cached(r, loop_run):
    cache, calls = LLMCache(r, "faq"), []

    @cache.cached()
    def ask(question: str, model: str = "m", *, top: int = 1) -> str:
        calls.append((question, model, top))
        return f"{question} {model} {top}"

    assert ask("q") == ask("q") == ask(question="q") == "q m 1"
    assert ask("q", "n") == "q n 1"
    assert ask("q", top=2) == "q m 2"
    assert len(calls) == 3

    import json

    @cache.cached(prompt=lambda n, **_: f"square of {n}", dumps=json.dumps, loads=json.loads, tags=["squares"])
    def square(n: int) -> dict[str, int]:
        calls.append(n)
        return {"square": n * n}

    assert square(3) == square(3) == {"square": 9}
    assert calls[-1] == 3
    assert cache.invalidate(tag="squares") == 1
    with pytest.raises(TypeError, match="no text"):
        cache.cached()(lambda n: n)(5)
    with pytest.raises(TypeError, match="without arguments"):
        cache.cached()(lambda: "x")()

    async def work(client):
        cache = llmcache.asyncio.LLMCache(client, "faq")

        @cache.cached(scope=lambda q: q[:2])
        async def ask(q: str) -> Answer:
            calls.append(q)
            return Answer(q.upper(), tokens=3)

        return await asyncio.gather(*(ask("hello") for _ in range(10)))

    assert loop_run(work) == ["HELLO"] * 10
    assert calls.count("hello") == 1


def test_a_coroutine_embeds_and_a_plain_function_makes(loop_run):
    async def embedding(text: str) -> list[float]:
        await asyncio.sleep(0)
        return embed(text)

    async def work(client):
        cache = llmcache.asyncio.LLMCache(client, "faq", embed=embedding)
        # A plain function runs in a thread: the loop goes on meanwhile.
        ticks = []

        async def tick() -> None:
            while True:
                ticks.append(1)
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        answer = await cache.get_or_make("q", lambda: time.sleep(1) or "slow")
        ticking.cancel()
        return answer, len(ticks)

    answer, ticks = loop_run(work)
    assert answer == "slow"
    assert ticks > 5
