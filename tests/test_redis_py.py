"""redis-py as an application uses it: pipelines, RESP3, text, asyncio, lost connections."""

import asyncio
import threading

import pytest
import redis
import redis.asyncio
from harness.cache import Cache
from harness.replies import HIT_FIELDS, fields, hit
from harness.vectors import fp32, near, unit
from harness.wire import encode
from redis.backoff import ConstantBackoff
from redis.retry import Retry


def test_one_pipeline_of_many_commands(server, resp):
    client = server.client(resp)
    pipe = client.pipeline(transaction=False)
    for i in range(500):
        pipe.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", f"r{i}", *fp32(unit(i)))
    for i in range(500):
        pipe.execute_command("LLMCACHE.GETSEM", "faq", *fp32(near(unit(i), 0.97)))
        pipe.execute_command("LLMCACHE.GET", "faq", "PROMPT", f"p{i}")
    replies = pipe.execute()
    assert len(set(replies[:500])) == 500
    for i in range(500):
        found = hit(replies[500 + 2 * i])
        assert (found.response, found.id.encode()) == (b"r%d" % i, replies[i])
        assert replies[501 + 2 * i] == b"r%d" % i


def test_errors_in_a_pipeline_stand_where_they_happened(server):
    pipe = server.client().pipeline(transaction=False)
    pipe.execute_command("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A")
    pipe.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", "b", "RESPONSE", "B", "VALUES", 2, 0, 0)
    pipe.execute_command("LLMCACHE.GET", "faq", "PROMPT", "a")
    first, second, third = pipe.execute(raise_on_error=False)
    assert len(first) == 32
    assert isinstance(second, redis.ResponseError)
    assert "BADVECTOR" in str(second)
    assert third == b"A"


def test_resp3_maps_are_dicts_with_numbers(server):
    client = server.client(3)
    cache = Cache(client)
    cache.setsem("a", "A", unit(1), tags=["t"], meta={"k": 1}, ex=50)
    reply = client.execute_command("LLMCACHE.GETSEM", "faq", *fp32(unit(1)))
    assert isinstance(reply, dict)
    assert list(reply) == [name.encode() for name in HIT_FIELDS]
    assert isinstance(reply[b"similarity"], float)
    assert isinstance(reply[b"ttl"], int)
    assert reply[b"tags"] == [b"t"]
    info = client.execute_command("LLMCACHE.INFO", "faq")
    assert isinstance(info, dict)
    assert info[b"entries"] == 1
    assert isinstance(info[b"threshold"], float)


def test_text_replies(server):
    client = server.client(3, decode_responses=True)
    client.execute_command("LLMCACHE.SET", "faq", "PROMPT", "größe?", "RESPONSE", "süß")
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "größe?") == "süß"
    assert client.execute_command("LLMCACHE.GETSEM", "faq", "PROMPT", "größe?")["prompt"] == "größe?"


def test_a_client_comes_back_after_a_restart(fleet):
    server = fleet.launch(appendonly="yes", appendfsync="always")
    client = redis.Redis(port=server.port, protocol=3, retry=Retry(ConstantBackoff(0.05), 100), retry_on_error=[redis.ConnectionError, redis.BusyLoadingError])
    Cache(client).setsem("a", "A", unit(1))
    server.kill9()
    server.start()
    found = hit(client.execute_command("LLMCACHE.GETSEM", "faq", *fp32(unit(1))))
    assert found.response == b"A"
    client.close()


def test_a_killed_connection_is_replaced(server):
    client = server.client(retry=Retry(ConstantBackoff(0.01), 3))
    Cache(client).set("a", "A")
    for _ in range(5):
        server.client().client_kill_filter(_type="normal", skipme=True)
        assert Cache(client).get("a") == b"A"


def test_connections_dropped_in_mid_pipeline_do_no_harm(server):
    survivor = server.client()
    for round_ in range(20):
        wire = server.wire()
        command = ["LLMCACHE.SETSEM", "faq", "PROMPT", f"p{round_}", "RESPONSE", "x" * 10_000, *fp32(unit(round_))]
        wire.socket.sendall(encode(command) * 50 + encode(command)[:-1_000])
        wire.close()
    assert survivor.ping()
    cache = Cache(survivor)
    assert cache.set("after", "A") is not None
    assert cache.info()["entries"] <= 21


def test_many_clients_at_once(server):
    def work(number, problems):
        try:
            cache = Cache(server.client(2 + number % 2))
            for i in range(60):
                vector = unit(number * 1_000 + i)
                cache.setsem(f"{number} {i}", f"{number} {i}", vector)
                assert cache.getsem(vector=vector).response == b"%d %d" % (number, i)
        except BaseException as problem:
            problems.append(problem)

    problems: list[BaseException] = []
    threads = [threading.Thread(target=work, args=(number, problems)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert Cache(server.client()).info()["entries"] == 480


def test_asyncio(server):
    async def main():
        client = redis.asyncio.Redis(port=server.port, protocol=3)
        await client.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", "a", "RESPONSE", "A", *fp32(unit(1)))
        replies = await asyncio.gather(
            *(client.execute_command("LLMCACHE.GETSEM", "faq", *fp32(near(unit(1), 0.95, seed=i))) for i in range(50))
        )
        await client.aclose()
        return replies

    replies = asyncio.run(main())
    assert [fields(reply)["response"] for reply in replies] == [b"A"] * 50


@pytest.mark.parametrize("command", ["LLMCACHE.GETSEM", "LLMCACHE.GET"])
def test_client_side_caching_hears_of_changes(server, command):
    """CLIENT TRACKING of the cache key: a store invalidates what a client remembered."""
    with server.wire(3, timeout=5) as wire:
        wire("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A")
        assert wire("CLIENT", "TRACKING", "ON", "NOLOOP") == "OK"
        wire(command, "faq", "PROMPT", "a")
        Cache(server.client()).set("a", "B")
        assert wire.read() == [b"invalidate", [b"faq"]]
