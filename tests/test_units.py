"""Amounts of memory are taken as redis.conf takes them, by every option that means one."""

import pytest
from harness.replies import fields
from harness.wire import Failure


@pytest.fixture
def server(emptied):
    return emptied


# Option, what sets it, where it can be read.
OPTIONS = {
    "MAXMEMORY of a cache": (("LLMCACHE.CREATE", "c", "DIM", 2, "MAXMEMORY"), ("LLMCACHE.INFO", "c"), "maxmemory"),
    "MAXMEMORY by CONFIG": (("LLMCACHE.CONFIG", "made", "SET", "MAXMEMORY"), ("LLMCACHE.INFO", "made"), "maxmemory"),
    "MAXMEMORY of an index": (("RAG.CREATE", "d", "DIM", 2, "MAXMEMORY"), ("RAG.INFO", "d"), "maxmemory"),
    "MAXMEMORY of embeddings": (("EMBCACHE.CREATE", "e", "MODEL", "m", "DIM", 2, "MAXMEMORY"), ("EMBCACHE.INFO", "e"), "maxmemory"),
    "BUDGET of a namespace": (("KVCHUNK.CREATE", "n", "BUDGET"), ("KVCHUNK.INFO", "n"), "budget"),
    "BUDGET by BUDGET": (("KVCHUNK.BUDGET", "ns"), ("KVCHUNK.INFO", "ns"), "budget"),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("1048576", 1 << 20), ("5b", 5), ("1k", 1_000), ("1KB", 1_024), ("3m", 3_000_000), ("3mb", 3 << 20), ("2g", 2 * 10**9), ("2GB", 2 << 30)],
)
def test_units(client, option, text, bytes_):
    client.execute_command("LLMCACHE.CREATE", "made", "DIM", 2)
    client.execute_command("KVCHUNK.CREATE", "ns")
    sets, reads, name = OPTIONS[option]
    client.execute_command(*sets, text)
    assert fields(client.execute_command(*reads))[name] == bytes_


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("text", ["", "mb", "-1", "1.5gb", "1 gb", "1tb", "0x10", "99999999999gb"])
def test_other_units_are_refused(server, client, option, text):
    client.execute_command("LLMCACHE.CREATE", "made", "DIM", 2)
    client.execute_command("KVCHUNK.CREATE", "ns")
    with server.wire() as wire:
        reply = wire(*OPTIONS[option][0], text)
    assert isinstance(reply, Failure) and "bytes" in str(reply)


def test_names_of_leases_are_digits_that_a_double_holds(client):
    client.execute_command("KVCHUNK.CREATE", "ns", "CHUNK", 1)
    client.execute_command("KVCHUNK.PUT", "ns", "TOKENS", bytes(4), "PAYLOAD", 1, "x")
    for _ in range(20):
        lease = client.execute_command("KVCHUNK.MATCH", "ns", "TOKENS", bytes(4), "LEASE", 1_000)[2]
        assert lease.isdigit() and 0 < int(lease) == int(float(lease)) < 2**53
