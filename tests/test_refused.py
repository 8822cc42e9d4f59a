"""A refused command has no effect: every command of the command table, refused in every way that its grammar offers.

The calls are those of the access matrix, each of them spoiled in turn: cut short, with an option that there is not, with
an option said twice, with every number too low, too high or none, with every vector of another length or of no numbers,
with texts beyond any limit. Each is given to a key that is absent, that is filled, and that holds something else. What is
answered by an error must leave keys, digests, counts, events, and what AOF and replicas are told as they were.
"""

from __future__ import annotations

import pytest
from harness.kv import blob
from harness.waiting import wait_until
from harness.wire import Failure
from test_access_matrix import FILL, KEY, OTHER, ROWS, V

EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
NO_NUMBERS = (-1, 2**63, 10**20, "x", "")
LONG = "x" * (2 << 20)
VECTORS = (
    ("VALUES", 3, 1, 2, 3),
    ("VALUES", 2, "nan", 1),
    ("VALUES", 2, 0, 0),
    ("VALUES", 0),
    ("FP32", b"abc"),
    ("FP32", b"\0\0\x80\x7f" * 2),
)
# What a call does to these is told by the call itself, is no state of the data, or is summed up a moment later.
VOLATILE = ("last_command_", "clients_blocked", "bounds_broken", "bytes_in_flight", "index_bytes")
SUMS_WITH_INDEX = ("llmcache_bytes", "llmcache_document_bytes", "llmcache_embedding_bytes")
# What is zero once all that was flushed has been freed, which is done between commands.
HELD = ("caches", "entries", "document_indexes", "documents", "embedding_caches", "embeddings", "namespaces", "chunks", "leases")


@pytest.fixture
def server(emptied):
    with emptied.wire() as wire:
        assert wire("CONFIG", "SET", "notify-keyspace-events", "KEA") == "OK"
    yield emptied
    with emptied.wire() as wire:
        assert wire("CONFIG", "SET", "notify-keyspace-events", "", "maxmemory", 0) == "OK"


def spoiled(call):
    """The call in all ways that may be wrong; some of them are right."""
    name, key, *rest = call
    yield from ([name, key, *rest[:length]] for length in range(len(rest)))
    yield [*call, "NOSUCHOPTION"]
    yield [*call, "NOSUCHOPTION", 1]
    yield [*call, *rest]
    for at, part in enumerate(rest):
        # Every option once more, with what stands behind it.
        if isinstance(part, str) and part.isupper():
            yield [*call, *rest[at:]]
        others = NO_NUMBERS if isinstance(part, int) or (isinstance(part, str) and part.isdigit()) else ("", LONG, b"\xff\0")
        yield from ([name, key, *rest[:at], other, *rest[at + 1 :]] for other in others)
    for at in range(len(rest) - len(V) + 1):
        if tuple(rest[at : at + len(V)]) == V:
            yield from ([name, key, *rest[:at], *vector, *rest[at + len(V) :]] for vector in VECTORS)
    # A vector or a condition where there was none.
    for more in (*VECTORS, ("FILTER", ".a =="), ("EX", 0), ("PX", 10**20), ("LEASE", "0" * 16), ("ID", "x" * 129), ("TAGS", 65, *"x" * 65), ("META", "[1]"), ("VIA",)):
        yield [*call, *more]
    yield [name, LONG, *rest]


def is_refused(reply) -> bool:
    return isinstance(reply, Failure) or (isinstance(reply, bytes) and reply.startswith(b"REJECTED"))


def info(wire) -> dict[str, str]:
    lines = wire("INFO", "everything").decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def state(wire) -> dict:
    own = info(wire)
    counts = {k: v for k, v in own.items() if k.startswith("llmcache_") and not any(word in k for word in VOLATILE)}
    return {
        "keys": wire("DBSIZE"),
        "digest": wire("DEBUG", "DIGEST"),
        "written": own["rdb_changes_since_last_save"],
        **{name: value for name, value in counts.items() if name not in SUMS_WITH_INDEX},
    }


def flush(wire) -> None:
    """Empties the server, and waits until what was in it is counted no more."""

    def counted() -> list[str]:
        own = info(wire)
        return [name for name in HELD if own[f"llmcache_{name}"] != "0"]

    wire("FLUSHALL")
    wait_until(lambda: not counted(), "what was flushed is counted no more")


def events(listener, admin) -> list:
    """What the listener heard up to now."""
    admin("PUBLISH", "up to now", "")
    heard = []
    while (message := listener.read())[2:3] != [b"up to now"]:
        heard.append(message[2:])
    return heard


STATES = ["absent", "filled", "another type"]


def prepare(wire, row, which) -> None:
    flush(wire)
    if which == "filled":
        for call in FILL[row.kind]:
            assert not isinstance(wire(*call), Failure), call
    elif which == "another type":
        wire("SET", KEY, "text")
        wire("SET", OTHER, "text")


@pytest.mark.parametrize("which", STATES)
@EVERY
def test_what_is_refused_changes_nothing(server, row, which):
    refused = 0
    with server.wire() as wire, server.wire() as listener:
        assert listener("PSUBSCRIBE", "*")
        prepare(wire, row, which)
        events(listener, wire)
        before = state(wire)
        calls = [row.call] if which == "another type" else []
        for call in [*calls, *spoiled(row.call)]:
            reply = wire(*call)
            if is_refused(reply):
                refused += 1
                told = [part if len(str(part)) < 40 else f"{str(part)[:20]}…" for part in call]
                assert events(listener, wire) == [], told
                assert state(wire) == before, told
            else:
                prepare(wire, row, which)
                events(listener, wire)
                before = state(wire)
    assert refused > 1, "the row was not spoiled"


# What is refused for what the server or the container has no room for.
BEYOND = {
    "LLMCACHE": ["LLMCACHE.FETCH", KEY, "PROMPT", "new"],
    "LLMCACHE.SET": ["LLMCACHE.SET", KEY, "PROMPT", "new", "RESPONSE", "r"],
    "LLMCACHE via": ["LLMCACHE.FETCH", KEY, "PROMPT", "new", "VIA"],
    "EMBCACHE": ["EMBCACHE.FETCH", KEY, "TEXT", "new"],
    "KVCHUNK": ["KVCHUNK.PUT", KEY, "HASH", "new", "PAYLOAD", 1, "x"],
    "KVCHUNK parent": ["KVCHUNK.PUT", KEY, "HASH", "new", "PARENT", "none", "PAYLOAD", 1, "x"],
    "RAG": ["RAG.ADD", KEY, "new", *V, "TEXT", "t"],
    "SESSION": ["SESSION.APPEND", KEY, "MSG", "user", "hi"],
}


@pytest.mark.parametrize("filled", [False, True], ids=["absent", "filled"])
@pytest.mark.parametrize("name", BEYOND)
def test_what_there_is_no_memory_for_changes_nothing(server, name, filled):
    call = BEYOND[name]
    with server.wire() as wire, server.wire() as listener:
        assert listener("PSUBSCRIBE", "*")
        flush(wire)
        if filled:
            for fill in FILL[name.split()[0].split(".")[0]]:
                wire(*fill)
        wire("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
        events(listener, wire)
        before = state(wire)
        reply = wire(*call)
        # A cache of embeddings is not made without its model.
        other = {"LLMCACHE via": "ERR", "EMBCACHE": "OOM" if filled else "NOCACHE"}
        assert is_refused(reply) and reply.word in ("OOM", other.get(name)), reply
        assert events(listener, wire) == [] and state(wire) == before
        wire("CONFIG", "SET", "maxmemory", 0)


PAST = ("PXAT", 1)
# What is told to be rejected without an error.
REJECTED = {
    "PUT": ["KVCHUNK.PUT", KEY, "HASH", "new", "PAYLOAD", 1, "x", *PAST],
    "PUT of tokens": ["KVCHUNK.PUT", KEY, "TOKENS", blob(range(1024)), "PAYLOAD", 1, "x", *PAST],
    "MPUT": ["KVCHUNK.MPUT", KEY, "HASHES", 2, "n1", "n2", "PAYLOADS", 2, 1, "x", 1, "x", *PAST],
}


@pytest.mark.parametrize("filled", [False, True], ids=["absent", "filled"])
@pytest.mark.parametrize("name", REJECTED)
def test_chunks_that_are_rejected_make_no_namespace(server, name, filled):
    with server.wire() as wire, server.wire() as listener:
        assert listener("PSUBSCRIBE", "*")
        flush(wire)
        if filled:
            wire("KVCHUNK.CREATE", KEY)
        events(listener, wire)
        before = state(wire)
        reply = wire(*REJECTED[name])
        assert not isinstance(reply, Failure)
        assert all(one.startswith(b"REJECTED") for one in (reply if isinstance(reply, list) else [reply]))
        assert events(listener, wire) == [] and state(wire) == before
