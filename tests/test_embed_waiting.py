"""Clients that wait for their text to be embedded, and everything that can happen to them meanwhile.

A batch holds the one thread up (`harness/holding.py`), so that what is asked next waits until the test ends the hold.
"""

from __future__ import annotations

import threading

import pytest
import redis
from harness.cache import Cache
from harness.holding import LONG, TEXTS, all_told, blocked, create, held, queued
from harness.holding import options as options_of
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.waiting import hold, wait_until
from redis.backoff import NoBackoff
from redis.retry import Retry


@pytest.fixture(scope="session")
def options(tmp_path_factory):
    return options_of(tmp_path_factory.mktemp("models"))


@pytest.fixture
def server(fleet, options):
    server = fleet.launch(**options)
    Cache(server.client()).create(embed="small")
    create(server)
    return server


class Background:
    """A command that runs beside the test; its reply or error is there when it has ended."""

    def __init__(self, server, *command):
        # A command is sent once: one that the client sends again by itself would hide what became of the first.
        self.client = server.client(retry=Retry(NoBackoff(), 0))
        self.id = self.client.client_id()
        self.reply = self.error = None
        self.thread = threading.Thread(target=self._run, args=command)
        self.thread.start()

    def _run(self, *command):
        try:
            self.reply = self.client.execute_command(*command)
        # Whoever stops a server closes its clients, also one that waits in this thread: the client finds itself without a buffer.
        except (redis.RedisError, OSError, ValueError, AttributeError) as error:
            self.error = error

    def end(self):
        self.thread.join(60)
        assert not self.thread.is_alive(), "it hangs"
        return self


def wait_for(server, *command) -> Background:
    # Not the length of the queue: that changes too when a text of somebody else is done.
    before = blocked(server)
    waiting = Background(server, *command)
    wait_until(lambda: blocked(server) > before or waiting.reply or waiting.error, "it waits")
    return waiting


def store(server, prompt="xx yy", *more):
    return wait_for(server, "LLMCACHE.SETSEM", "faq", "PROMPT", prompt, "RESPONSE", "yes", *more)


def test_others_are_served_while_a_text_is_embedded(server):
    with held(server):
        waiting = store(server)
        assert server.client().ping()
        assert waiting.thread.is_alive()
        assert blocked(server) == 2
    assert len(waiting.end().reply) == 32


@pytest.mark.parametrize("how", ["FLUSHALL", "DROP", "SWAPDB"])
def test_a_store_finds_its_cache_gone(server, how):
    client = server.client()
    with held(server):
        waiting = store(server)
        if how == "FLUSHALL":
            client.flushall()
        elif how == "DROP":
            client.execute_command("LLMCACHE.DROP", "faq")
        else:
            client.swapdb(0, 1)
    assert waiting.end().error is None
    # As a store that comes then: it makes a cache of its own, without a model.
    info = Cache(client).info()
    assert info["entries"] == 1
    assert info["model"] == b""
    assert Cache(client).get("xx yy") == b"yes"


@pytest.mark.parametrize("how", ["kill", "unblock", "unblock-error"])
def test_a_client_leaves(server, how):
    client = server.client()
    with held(server):
        waiting = store(server)
        if how == "kill":
            client.execute_command("CLIENT", "KILL", "ID", waiting.id)
        else:
            client.execute_command("CLIENT", "UNBLOCK", waiting.id, "ERROR" if how == "unblock-error" else "TIMEOUT")
        waiting.end()
        words = {"kill": ("closed", "reset"), "unblock": ("waited too long",), "unblock-error": ("UNBLOCKED",)}[how]
        assert any(word in str(waiting.error).lower() or word in str(waiting.error) for word in words)
    assert Cache(client).info()["entries"] == 0
    wait_until(lambda: queued(server) == 0, "nothing is left")


def test_a_store_after_memory_ran_out_is_refused(server):
    client = server.client()
    with held(server):
        waiting = store(server)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    waiting.end()
    client.config_set("maxmemory", 0)
    assert str(waiting.error).startswith("command not allowed when used memory") or "OOM" in str(waiting.error)
    assert Cache(client).info()["entries"] == 0


def test_a_store_on_a_server_that_became_a_replica_is_refused(fleet, server):
    other = fleet.launch()
    with held(server):
        waiting = store(server)
        server.client().replicaof("127.0.0.1", other.port)
    waiting.end()
    assert "READONLY" in f"{type(waiting.error)} {waiting.error}".upper() or "UNBLOCKED" in str(waiting.error)
    assert other.client().dbsize() == 0


def test_a_store_waits_for_the_end_of_a_pause(server):
    client = server.client()
    with held(server):
        waiting = store(server)
        client.execute_command("CLIENT", "PAUSE", 100_000, "WRITE")
    wait_until(lambda: queued(server) == 0, "the text is embedded")
    hold(lambda: waiting.thread.is_alive() and client.dbsize() == 2, "it waits", 0.1)
    client.execute_command("CLIENT", "UNPAUSE")
    assert len(waiting.end().reply) == 32


def test_a_failover_loses_no_store(fleet, options):
    both = pair(fleet, **options)
    Cache(both.primary.client()).create(embed="small")
    create(both.primary)
    with held(both.primary):
        waiting = store(both.primary)
        both.primary.client().execute_command("FAILOVER", "TIMEOUT", 20_000)
        wait_until(lambda: both.replica.info("replication")["role"] == "master", "the replica leads")
    waiting.end()
    entries = Cache(both.replica.client()).info()["entries"]
    # Either it was stored before, and is there, or it was refused.
    assert entries == (0 if waiting.error else 1)


def test_the_server_stops_with_work_in_flight(server):
    with held(server):
        waiting = store(server)
        server.stop()
        assert waiting.end().error is not None
    server.check_log()


def test_saving_with_work_in_flight(server):
    client = server.client()
    with held(server):
        waiting = store(server)
        client.bgsave()
        client.execute_command("CONFIG", "SET", "appendonly", "yes")
        # One that is under way would refuse another.
        wait_for_rewrite(client)
        client.execute_command("BGREWRITEAOF")
    waiting.end()
    wait_for_rewrite(client)
    digest = server.digest()
    client.execute_command("DEBUG", "LOADAOF")
    assert server.digest() == digest


def test_a_full_queue_is_busy_and_nobody_hangs(server):
    bound = TEXTS + 8
    texts = [f"{LONG} {one}{two}" for one in "abcdefgh" for two in "abcdefgh"]
    wires = [server.wire() for _ in texts]
    server.client().config_set("llmcache.embed-queue", bound)
    with held(server):
        for wire, text in zip(wires, texts, strict=True):
            wire.send("LLMCACHE.GETSEM", "faq", "PROMPT", text)
        wait_until(lambda: all_told(server, len(wires)), "all wait or are refused")
    told = [wire.read() for wire in wires]
    refused = [reply for reply in told if reply is not None]
    assert refused and len(refused) < len(texts)
    assert all("too many texts wait" in reply.text for reply in refused)
    info = server.info("llmcache")
    assert int(info["llmcache_texts_busy"]) == len(refused)
    assert int(info["llmcache_texts_queued_most"]) <= bound


def test_what_waits_too_long_is_held(server):
    with held(server), server.wire() as wire:
        server.client().config_set("llmcache.embed-timeout-ms", 1)
        assert "waited too long" in wire("LLMCACHE.GETSEM", "faq", "PROMPT", "xx yy").text


def test_equal_texts_share_one_pass(server):
    wires = [server.wire() for _ in range(12)]
    with held(server):
        for wire in wires:
            wire.send("LLMCACHE.GETSEM", "faq", "PROMPT", "xx yy")
        wait_until(lambda: blocked(server) == 13, "all wait")
        info = server.info("llmcache")
        assert int(info["llmcache_texts_coalesced"]) == 11
        # Of one reply: those that are done, and those of the batch that wait, and one for all twelve.
        assert int(info["llmcache_texts_embedded"]) + int(info["llmcache_texts_queued"]) == TEXTS + 1
    assert [wire.read() for wire in wires] == [None] * 12


def test_of_a_herd_one_leads_and_all_get_its_answer(server):
    with held(server):
        asked = [
            Background(server, "LLMCACHE.FETCH", "faq", "PROMPT", "xx yy", "WAIT", 50_000) for _ in range(10)
        ]
        wait_until(lambda: blocked(server) == 11, "all wait")
    wait_until(lambda: sum(one.reply is not None for one in asked) == 1, "one leads")
    leader = next(one for one in asked if one.reply is not None)
    reply = dict(zip(leader.reply[::2], leader.reply[1::2], strict=True))
    assert reply[b"status"] == b"LEAD"
    command = ["LLMCACHE.SETSEM", "faq", "PROMPT", "xx yy", "RESPONSE", "made", "LEASE", reply[b"token"]]
    server.client().execute_command(*command)
    for one in asked:
        if one is not leader:
            assert one.end().error is None
            assert b"HIT" in one.reply
    leader.end()
    # Other words find it by meaning.
    assert b"HIT" in server.client().execute_command("LLMCACHE.FETCH", "faq", "PROMPT", "XX yy")


def test_fetch_and_its_store_cost_one_pass(server):
    client = server.client()
    client.config_set("llmcache.embed-memo", 16)
    reply = client.execute_command("LLMCACHE.FETCH", "faq", "PROMPT", "xx yy")
    token = reply[reply.index(b"token") + 1]
    client.execute_command("LLMCACHE.SETSEM", "faq", "PROMPT", "xx yy", "RESPONSE", "made", "LEASE", token)
    assert int(server.info("llmcache")["llmcache_texts_embedded"]) == 1


def test_a_store_under_a_lease_that_was_lost_meanwhile_is_refused(server):
    client = server.client()
    reply = client.execute_command("LLMCACHE.FETCH", "faq", "PROMPT", "xx yy")
    token = reply[reply.index(b"token") + 1]
    with held(server):
        waiting = store(server, "xx yy", "LEASE", token)
        client.execute_command("LLMCACHE.INVALIDATE", "faq", "ALL")
    assert "LEASELOST" in str(waiting.end().error) or "lease" in str(waiting.error)
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "xx yy") is None


def test_invalidation_near_a_text(server):
    client, cache = server.client(), Cache(server.client())
    for number in range(300):
        cache.setsem(f"ab cd {chr(97 + number % 26)}{chr(97 + number // 26)}", str(number))
    near = cache.getsem_many(300, prompt="ab cd aa", threshold=0.9)
    assert 1 < len(near) < 300
    command = ["LLMCACHE.INVALIDATE", "faq", "NEAR", "PROMPT", "ab cd aa", "SIMILARITY", "0.9"]
    assert client.execute_command(*command, "DRYRUN") == len(near)
    assert client.execute_command(*command) == len(near)
    assert cache.getsem_many(300, prompt="ab cd aa", threshold=0.9) == []
    assert cache.info()["entries"] == 300 - len(near)
    pipeline = client.pipeline(transaction=True)
    pipeline.execute_command("LLMCACHE.INVALIDATE", "faq", "NEAR", "PROMPT", "ab", "SIMILARITY", "-1")
    assert pipeline.execute() == [300 - len(near)]
    with pytest.raises(redis.ResponseError, match="not embedded"):
        client.execute_command("LLMCACHE.INVALIDATE", "faq", "NEAR", "PROMPT", "สวัสดี", "SIMILARITY", "0.9")
    Cache(client, "plain").create()
    with pytest.raises(redis.ResponseError, match="a vector is needed"):
        client.execute_command("LLMCACHE.INVALIDATE", "plain", "NEAR", "PROMPT", "ab", "SIMILARITY", "0.9")
