"""Several databases: SELECT within MULTI, live, in the AOF and on a replica; containers of one name stay apart."""

import pytest
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.vectors import fp32, unit
from harness.waiting import wait_until

DATABASES = (2, 0, 1)
CHUNK = "aa" * 32


def stores(database):
    """One store of each family, told apart by the number of the database."""
    text = f"of {database}"
    return [
        ["LLMCACHE.SETSEM", "faq", "PROMPT", "q", "RESPONSE", text, *fp32(unit(1))],
        ["EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 2],
        ["EMBCACHE.SET", "emb", "TEXT", "q", "VALUES", 2, 1, database],
        ["RAG.ADD", "docs", "d", "TEXT", text, *fp32(unit(2))],
        ["SESSION.APPEND", "talk", "MSG", "user", text],
        ["KVCHUNK.PUT", "kv", "DIGEST", CHUNK, "PAYLOAD", 1, text],
    ]


def transaction(wire, first, by_database):
    """Commands in one transaction that a client of database `first` sends."""
    wire("SELECT", first)
    commands = [["MULTI"]]
    for database, words in by_database:
        commands += [["SELECT", database], *words]
    replies = wire.pipeline([*commands, ["EXEC"]])
    assert all(getattr(reply, "word", None) is None for reply in replies[-1]), replies[-1]


def check(server, databases=DATABASES):
    """Each look-up finds what was stored in its database; every entry counts there alone."""
    with server.wire() as wire:
        for database in databases:
            text = f"of {database}".encode()
            wire("SELECT", database)
            replies = wire.pipeline(
                [
                    ["LLMCACHE.GET", "faq", "PROMPT", "q"],
                    ["LLMCACHE.GETSEM", "faq", *fp32(unit(1))],
                    ["RAG.SEARCH", "docs", *fp32(unit(2)), "COUNT", 1],
                    ["SESSION.RANGE", "talk", "-", "+"],
                    ["KVCHUNK.GET", "kv", CHUNK],
                    ["EMBCACHE.GET", "emb", "TEXT", "q", "AS", "VALUES"],
                    ["LLMCACHE.INFO", "faq"],
                    ["RAG.INFO", "docs"],
                    ["KVCHUNK.INFO", "kv"],
                ]
            )
            for reply in replies[:5]:
                assert text in repr(reply).encode(), (database, reply)
            for reply in replies[6:]:
                told = dict(zip(reply[::2], reply[1::2])) if isinstance(reply, list) else reply
                count = told.get(b"entries", told.get(b"chunks"))
                assert count == 1, (database, reply)


def everywhere():
    return [(database, stores(database)) for database in DATABASES]


@pytest.mark.parametrize("first", DATABASES)
def test_a_transaction_over_databases_stores_each_in_its_own(fleet, first):
    both = pair(fleet, appendonly="yes")
    with both.primary.wire() as wire:
        transaction(wire, first, everywhere())
    check(both.primary)
    both.assert_equal()
    check(both.replica)
    digest = both.primary.digest()
    both.primary.restart()
    assert both.primary.digest() == digest
    check(both.primary)


def test_a_transaction_behind_a_rewritten_aof_finds_its_databases(fleet):
    """What the base of the AOF brought is taken in by the first command behind it, in whatever database that is."""
    server = fleet.launch(appendonly="yes")
    with server.wire() as wire:
        for database, commands in everywhere():
            wire("SELECT", database)
            wire.pipeline(commands)
        server.client().bgrewriteaof()
        wait_for_rewrite(server.client())
        more = [["KVCHUNK.PUT", "kv", "DIGEST", "bb" * 32, "PARENT", CHUNK, "PAYLOAD", 1, "more"], ["SET", "plain", "x"]]
        transaction(wire, 2, [(0, more)])
        wire("SET", "behind", "x")
    digest = server.digest()
    server.restart()
    assert server.digest() == digest
    with server.wire() as wire:
        wire("SELECT", 0)
        assert sorted(wire("KEYS", "[pb]*")) == [b"behind", b"plain"]


def test_a_container_deleted_in_a_transaction_takes_its_own_entries_alone(fleet):
    server = fleet.launch()
    with server.wire() as wire:
        transaction(wire, 0, everywhere())
        transaction(wire, 2, [(1, [["DEL", "faq", "emb", "docs", "kv", "talk"]]), (0, [["PING"]])])

        def empty():
            wire("SELECT", 1)
            return wire("DBSIZE") == 0

        wait_until(empty, "the entries are removed")
    check(server, (2, 0))


def test_a_script_in_a_transaction_writes_to_the_database_selected_there(server):
    with server.wire() as wire:
        script = "return redis.call(unpack(ARGV))"
        by_database = [(n, [["EVAL", script, 0, *command] for command in commands]) for n, commands in everywhere()]
        transaction(wire, 1, by_database)
    check(server)
