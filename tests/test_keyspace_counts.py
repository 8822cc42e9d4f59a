"""`keyspace_hits` and `keyspace_misses` count what clients asked for: not what the module looks at by itself.

Redis 7.0 cannot be asked to leave a look-up out, so there the module's own count too (docs/monitoring.md).
"""

from __future__ import annotations

import pytest
from harness.cache import Cache
from harness.families import Answers, Documents, Embeddings
from harness.vectors import fp32, units
from harness.waiting import hold, wait_until
from harness.wire import Failure


def leaves_out(server) -> bool:
    """Whether the server can leave look-ups out of its statistics."""
    major, minor = server.info("server")["redis_version"].split(".")[:2]
    return (int(major), int(minor)) >= (7, 2)


def counts(server) -> tuple[int, int]:
    stats = server.info("stats")
    return int(stats["keyspace_hits"]), int(stats["keyspace_misses"])


def fill(server, number: int = 20) -> None:
    """A container of each family, with entries, and a session."""
    client = server.client()
    for kind, name in ((Answers, "faq"), (Documents, "docs"), (Embeddings, "emb")):
        container = kind(client, name)
        container.make(dim=container.dim)
        container.fill(number)
    client.execute_command("SESSION.APPEND", "chat", "MSG", "user", "hello")


def test_an_idle_server_counts_nothing(fleet):
    server = fleet.launch(**{"maxmemory-policy": "allkeys-lfu"})
    fill(server)
    before = counts(server)
    if leaves_out(server):
        # Containers are protected from eviction each second.
        hold(lambda: counts(server) == before, "nothing is counted", 2.5, step=0.1)
    else:
        wait_until(lambda: counts(server) > before, "the server cannot leave it out")


def entries(client) -> list[bytes]:
    return [key for key in client.keys("*") if key != b"faq"]


def expire_all(client):
    """What is over is the module's to see: the server does not look."""
    client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    for name in entries(client):
        client.pexpire(name, 1)


def leave_an_orphan(client):
    name = entries(client)[0]
    dump = client.dump(name)
    client.flushall()
    client.restore(name, 0, dump)


WORK = {
    "expire": expire_all,
    "invalidate": lambda client: client.execute_command("LLMCACHE.INVALIDATE", "faq", "TAG", "old"),
    "drop": lambda client: client.delete("faq"),
    "sweep": leave_an_orphan,
}


@pytest.mark.parametrize("how", WORK)
def test_work_in_the_background_counts_nothing(fleet, how):
    server = fleet.launch(**{"llmcache.orphan-grace": 0})
    client, cache = server.client(), Cache(server.client())
    cache.create(dim=8)
    cache.bulk(
        ("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{n}", "RESPONSE", "r", "TAGS", 1, "old", *fp32(row))
        for n, row in enumerate(units(300, 8))
    )
    before = counts(server)
    WORK[how](client)
    wait_until(lambda: not entries(client), "all are removed")
    if leaves_out(server):
        hits, misses = counts(server)
        # A client asked for one dump.
        assert (hits - before[0], misses - before[1]) == (int(how == "sweep"), 0)


PLAIN = {
    "SET": [("SET", "k", "v"), ("GET", "k"), ("GET", "none")],
    "EXPIRE": [("SET", "k", "v"), ("EXPIRE", "k", 100), ("PERSIST", "k"), ("EXPIRE", "none", 100)],
    "RENAME": [("SET", "k", "v"), ("RENAME", "k", "l")],
    "COPY": [("SET", "k", "v"), ("COPY", "k", "l")],
    "MOVE": [("SET", "k", "v"), ("MOVE", "k", 1)],
    "DEL": [("SET", "k", "v"), ("DEL", "k"), ("SET", "k", "v"), ("UNLINK", "k")],
    "HSET": [("HSET", "h", "f", "v"), ("HGET", "h", "f"), ("EXPIRE", "h", 10)],
    "GETEX": [("SET", "k", "v", "EX", 10), ("GETEX", "k", "EX", 100), ("GETDEL", "k")],
    "RESTORE": [("SET", "k", "v"), ("RESTORE", "l", 0, "dump of k")],
}


def test_commands_of_the_server_count_as_without_the_module(fleet):
    """The module hears of each key that arrives or gets a deadline, and looks whether that is one of its own."""
    counted = []
    for module in (True, False):
        server = fleet.launch(module)
        if module:
            fill(server)
        counted.append({name: what_counts(server, commands) for name, commands in PLAIN.items()})
        knows = leaves_out(server)
    if knows:
        assert counted[0] == counted[1]
    else:
        assert counted[0].keys() == counted[1].keys()
        assert counted[0]["SET"] == counted[1]["SET"]


def what_counts(server, commands) -> tuple[int, int]:
    with server.wire() as wire:
        hits, misses = counts(server)
        for command in commands:
            given = [wire("DUMP", "k") if part == "dump of k" else part for part in command]
            assert not isinstance(wire(*given), Failure), command
        after = counts(server)
        wire("DEL", "k", "l", "h")
        return after[0] - hits, after[1] - misses
