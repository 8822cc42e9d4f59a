"""What is another's stays another's: salts and scopes; and what the primary accepted is everywhere."""

import pytest
from harness.kv import Kv, blob
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from redis.exceptions import ResponseError


@pytest.fixture
def server(emptied):
    return emptied


def test_find_tells_nothing_of_another_salt(server):
    kv = Kv(server.client())
    kv.create()
    with server.wire() as wire:
        assert wire("KVCHUNK.PUT", "ns", "TOKENS", blob([1, 2, 3, 4]), "SALT", "A", "PAYLOAD", 1, "secret") == b"STORED"
        for salt in ((), ("SALT", "B"), ("SALT", "")):
            assert wire("KVCHUNK.FIND", "ns", "TOKENS", blob([9, 1, 2, 3, 4]), *salt) == []
        ((offset, position, digest, size),) = wire("KVCHUNK.FIND", "ns", "TOKENS", blob([9, 1, 2, 3, 4]), "SALT", "A")
        assert (offset, position, size) == (1, 0, 6)
        for reload in (False, True):
            if reload:
                assert wire("DEBUG", "RELOAD") == "OK"
            assert wire("KVCHUNK.FIND", "ns", "TOKENS", blob([1, 2, 3, 4]), "SALT", "A")[0][2] == digest
            assert wire("KVCHUNK.FIND", "ns", "TOKENS", blob([1, 2, 3, 4])) == []


def test_an_id_of_another_scope_replaces_nothing(client):
    run = lambda *rest: client.execute_command("LLMCACHE.SET", "faq", *rest)  # noqa: E731
    run("PROMPT", "p", "RESPONSE", "mine", "ID", "x", "SCOPE", "a")
    before = client.execute_command("DEBUG", "DIGEST-VALUE", *client.keys())
    for scope in (("SCOPE", "b"), ()):
        with pytest.raises(ResponseError, match="another scope"):
            run("PROMPT", "p", "RESPONSE", "theirs", "ID", "x", *scope)
    assert client.execute_command("DEBUG", "DIGEST-VALUE", *client.keys()) == before
    run("PROMPT", "other", "RESPONSE", "new", "ID", "x", "SCOPE", "a")
    assert client.execute_command("LLMCACHE.GET", "faq", "PROMPT", "other", "SCOPE", "a") == b"new"
    client.execute_command("LLMCACHE.INVALIDATE", "faq", "SCOPE", "a")
    run("PROMPT", "p", "RESPONSE", "theirs", "ID", "x", "SCOPE", "b")


def test_what_the_primary_stored_at_the_longest_settings_is_everywhere(fleet):
    both = pair(fleet, appendonly="yes")
    client = both.primary.client()
    run = client.execute_command
    run("LLMCACHE.CREATE", "faq", "GRACE", 10 * 365 * 86_400, "JITTER", 100, "MAXMEMORY", 2**64 - 1, "MAXENTRIES", 2**32 - 2)
    run("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r", "EX", 3_153_600_000, "TOKENS", 2**32 - 1, "COST", "1000000", "LATENCY", 604_800_000)
    run("LLMCACHE.SET", "faq", "PROMPT", "q" * 1_000_000, "RESPONSE", "r", "CONTEXT", "c" * (1 << 20), "SCOPE", "s" * 1_024, "ID", "i" * 128, "TAGS", 64, *(f"{n}".rjust(256, "t") for n in range(64)))
    run("RAG.ADD", "docs", "d" * 1_024, "VALUES", 1, 1, "TEXT", "t", "EX", 3_153_600_000)
    run("EMBCACHE.SET", "emb", "TEXT", "t", "VALUES", 2, "3e38", "1e-38", "EX", 3_153_600_000, "MODEL", "m" * 256)
    run("KVCHUNK.CREATE", "ns", "TTL", 3_153_600_000, "BUDGET", 2**64 - 1)
    run("KVCHUNK.PUT", "ns", "HASH", b"h" * 64, "PAYLOAD", 1, "x", "PRIO", 15, "EX", 3_153_600_000, "META", '{"a":"' + "x" * 60_000 + '"}')
    run("SESSION.APPEND", "s", "TTL", 3_153_600_000, "MSG", "r" * 32, "x", "ID", "i" * 128, "TOKENS", 2**32 - 1, "META", '{"a":"' + "x" * 60_000 + '"}', "CALL", "c" * 128)
    run("SESSION.BEGIN", "s", "assistant", "LEASE", 86_400_000)
    both.assert_equal()
    assert len(both.replica.client().keys()) == len(client.keys()) == 10
    digest = both.primary.digest()
    both.primary.restart()
    assert both.primary.digest() == digest
    client = both.primary.client()
    client.config_set("aof-use-rdb-preamble", "no")
    client.bgrewriteaof()
    wait_for_rewrite(client)
    both.primary.restart()
    assert both.primary.digest() == digest
