"""The connection: waits below the socket's timeout, a pool of its own for them, every version of redis-py, valkey-py."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio
from harness.waiting import wait_until

from llmcache import LLMCache, Session, errors, user
from llmcache._clients import Connection, is_async, is_cluster, socket_timeout, twin, uncut

SRC = Path(__file__).resolve().parents[1] / "src"


@pytest.mark.parametrize(
    ("timeout", "wait", "sent"), [(None, 30, 30), (5, 30, 4.0), (5, 2, 2), (1, 30, 0.7), (0.2, 30, 0.1)]
)
def test_waits_end_before_the_socket_gives_up(timeout, wait, sent):
    assert uncut(timeout, wait) == pytest.approx(sent)


def test_the_timeout_of_a_client_is_known(server):
    given = redis.Redis(port=server.port, socket_timeout=3)
    assert socket_timeout(given) == 3
    assert socket_timeout(redis.Redis(port=server.port, socket_timeout=None)) is None
    # 5 s by default from redis-py 8 on, none before.
    major = int(redis.__version__.split(".")[0])
    assert socket_timeout(redis.Redis(port=server.port)) == (5 if major >= 8 else None)
    assert socket_timeout(redis.asyncio.Redis(port=server.port)) == (5 if major >= 8 else None)
    assert not is_async(given)
    assert is_async(redis.asyncio.Redis(port=server.port))
    assert not is_cluster(given)


def test_a_wait_beyond_the_default_timeout_is_sent_in_pieces_and_never_twice(server, r):
    """redis-py 8 gives up after 5 s and sends the command again, up to ten times."""
    leader = LLMCache(r, "faq")
    token = leader.fetch("q", lease=60).token
    assert token is not None
    answered = []
    with redis.Redis(port=server.port) as other:
        asking = threading.Thread(target=lambda: answered.append(LLMCache(other, "faq").fetch("q", wait=30)))
        start = time.monotonic()
        asking.start()
        time.sleep(6)
        leader.set("q", "answer", lease=token)
        asking.join()
        assert time.monotonic() - start < 25
    assert answered[0].status == "HIT"
    stats = r.info("commandstats")["cmdstat_LLMCACHE.FETCH"]
    assert stats["calls"] <= 4
    assert r.info("stats")["total_connections_received"] < 30


def test_waiters_have_a_pool_of_their_own(server, r):
    with redis.Redis(port=server.port, max_connections=2) as small:
        cache = LLMCache(small, "faq")
        token = cache.fetch("q", lease=600).token
        assert token is not None
        waiting = [threading.Thread(target=lambda: LLMCache(small, "faq").fetch("q", wait=120)) for _ in range(8)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: int(r.info("clients")["blocked_clients"]) == 8, "all wait")
        # The application's two connections are free.
        assert small.ping()
        cache.set("q", "answer", lease=token)
        for thread in waiting:
            thread.join()
        cache.close()


def test_a_command_that_is_refused_for_a_moment_is_sent_again(r):
    class Flaky:
        """A client whose server is busy twice."""

        connection_pool = r.connection_pool

        def __init__(self, failures):
            self.failures = failures

        def execute_command(self, *args, **options):
            if self.failures:
                raise redis.ResponseError(self.failures.pop())
            return r.execute_command(*args, **options)

        def pipeline(self, transaction):
            return r.pipeline(transaction)

    LLMCache(r, "faq").set("p", "r")
    flaky = Flaky(["TRYAGAIN the slot is moving", "BUSY too many bytes on their way"])
    assert LLMCache(flaky, "faq").get("p") == "r"
    assert flaky.failures == []
    flaky.failures = ["TRYAGAIN moving"] * 20
    with pytest.raises(errors.TryAgain):
        LLMCache(flaky, "faq").get("p")


def test_an_append_sent_twice_is_one_message(server, r):
    """The reply is lost and redis-py sends the command again: the ID makes it the same message."""
    seen = []

    class Twice(redis.Redis):
        def execute_command(self, *args, **options):
            if args[0] == "SESSION.APPEND":
                seen.append(args)
                super().execute_command(*args, **options)
            return super().execute_command(*args, **options)

    session = Session(Twice(port=server.port), "chat:1")
    session.append(user("hello"))
    assert session.count() == 1
    assert "ID" in seen[0]


def test_a_twin_speaks_to_the_same_server(server):
    client = redis.Redis(port=server.port, db=0, protocol=3, socket_timeout=7)
    client.set("k", "v")

    async def read():
        other = twin(client, asynchronous=True)
        try:
            return await other.get("k"), socket_timeout(other)
        finally:
            await other.aclose()

    assert asyncio.run(read()) == (b"v", 7)
    back = twin(redis.asyncio.Redis(port=server.port), asynchronous=False)
    assert back.get("k") == b"v"
    back.close()


def test_one_connection_for_all_that_is_built_on_a_client(r):
    assert LLMCache(r, "a")._connection is Session(r, "b")._connection is Connection.of(r)


SCENARIO = f"""
import sys; sys.path.insert(0, {str(SRC)!r})
import asyncio, threading, time
library = __import__(sys.argv[2]); aio = __import__(sys.argv[2] + ".asyncio", fromlist=["x"])
Client = getattr(library, sys.argv[3])
print(library.__version__)
from llmcache import *
import llmcache.asyncio
for protocol in (2, 3):
    for decoded in (False, True):
        r = Client(port=int(sys.argv[1]), protocol=protocol, decode_responses=decoded)
        r.flushall()
        cache = LLMCache(r, "faq")
        assert cache.get_or_make("q", lambda: "a", vector=[1, 0]) == "a"
        assert cache.search(vector=[1, 0.01]).response == "a"
        assert cache.stats().lookups == 2, cache.stats()
        try:
            cache.search(vector=[1.0]); raise SystemExit("no error")
        except errors.DimMismatch: pass
        s = Session(r, "chat"); s.append(user(b"\\xff"), assistant("b"))
        assert [m.raw for m in s.window().messages] == [b"\\xff", b"b"]
        emb = EmbeddingCache(r, "emb", model="m")
        emb.create(2, quant="NONE")
        assert list(emb.embed_many(["x", "y"], lambda t: [[0.5, 1.0]] * len(t))[0]) == [0.5, 1.0]
        assert list(emb.get("x")) == [0.5, 1.0]
        with Pipeline(r) as p: got = [p(cache.get, "q"), p(emb.get, "y")]
        assert got[0].value == "a" and list(got[1].value) == [0.5, 1.0]
        with s.stream(id="a1") as w: w.write("hel"); w.write("lo")
        assert "".join(p.text for p in s.follow(id="a1")) == "hello"
        cache.close(); r.close()

        async def main():
            r = getattr(aio, sys.argv[3])(port=int(sys.argv[1]), protocol=protocol, decode_responses=decoded)
            cache = llmcache.asyncio.LLMCache(r, "faq2")
            async def model(): await asyncio.sleep(0.1); return "b"
            assert await asyncio.gather(*(cache.get_or_make("q", model) for _ in range(20))) == ["b"] * 20
            token = (await cache.fetch("other")).token
            async def later(): await asyncio.sleep(0.3); await cache.set("other", "late", lease=token)
            task = asyncio.create_task(later())
            assert (await llmcache.asyncio.LLMCache(r, "faq2").fetch("other", wait=5)).hit.response == "late"
            await task
            async with llmcache.asyncio.Pipeline(r) as p: one = p(cache.get, "q")
            assert one.value == "b"
            await cache.aclose()
            await r.aclose() if hasattr(r, "aclose") else await r.close()
        asyncio.run(main())
print("all right")
"""


def libraries() -> list[tuple[str, str, str]]:
    """The library of this environment, and those in folders named by LLMCACHE_TEST_LIBRARIES (name=folder, ...)."""
    others = os.environ.get("LLMCACHE_TEST_LIBRARIES", "")
    return [
        ("redis", "Redis", ""),
        *(
            ("valkey" if "valkey" in p else "redis", "Valkey" if "valkey" in p else "Redis", p)
            for p in others.split(":")
            if p
        ),
    ]


@pytest.mark.parametrize(("library", "kind", "folder"), libraries())
def test_every_client_library_does(server, library, kind, folder):
    # valkey-py replaces nothing: the package's own dependency, redis-py, is there too.
    environment = {**os.environ, "PYTHONPATH": folder}
    command = [sys.executable, "-c", SCENARIO, str(server.port), library, kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.endswith("all right\n"), done.stdout + done.stderr
