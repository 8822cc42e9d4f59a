"""What happens between two slices of a command that does many things.

One table of commands that go on in slices while their client waits, and everything that may come between two slices:
the client goes or is unblocked, the data set is flushed, the key deleted, databases are swapped, the server becomes a
replica, the hash slot begins to move or has moved. What only reads ends with its client and never answers what is not
so; what writes is finished, or refused with what is there being whole; nothing that was removed comes back.
"""

from __future__ import annotations

import select
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from harness.cluster import Cluster
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure, Wire

# Several slices of 512 things each.
MANY = 3_000
DIM = 16
SLOT = 12_182
TAG = "{foo}"


def v(at: int) -> list:
    return ["FP32", struct.pack(f"<{DIM}f", 1, at % 97, *([0.5] * (DIM - 2)))]


def tokens() -> bytes:
    return b"".join(at.to_bytes(4, "little") for at in range(MANY))


def filled(wire: Wire, commands) -> None:
    for reply in wire.pipeline(commands):
        assert not isinstance(reply, Failure), reply.text


def embeddings(wire: Wire, name: str) -> None:
    wire("EMBCACHE.CREATE", name, "MODEL", "m", "DIM", DIM)
    filled(wire, (
        ("EMBCACHE.MSET", name, 100, *(part for at in range(first, first + 100) for part in ("TEXT", f"t{at}", *v(at))))
        for first in range(0, MANY, 100)
    ))  # fmt: skip


def documents(wire: Wire, name: str, count: int = MANY) -> None:
    filled(wire, (("RAG.ADD", name, f"d{at}", "VALUES", 2, 1, at, "TEXT", f"text {at}") for at in range(count)))


def answers(wire: Wire, name: str) -> None:
    filled(wire, (("LLMCACHE.SET", name, "PROMPT", f"q{at}", "RESPONSE", "r", "ID", f"a{at}") for at in range(MANY)))


def chunks(wire: Wire, name: str) -> None:
    wire("KVCHUNK.CREATE", name, "CHUNK", 1)
    wire("KVCHUNK.MPUT", name, "TOKENS", tokens(), "PAYLOADS", MANY, *[1, "x"] * MANY)


TEXTS = ["TEXTS", MANY, *(f"t{at}" for at in range(MANY))]
IDS = [f"d{at}" for at in range(MANY)]


def entries(wire: Wire, name: str, family: str) -> int:
    info = wire(f"{family}.INFO", name)
    return int(info[info.index(b"entries") + 1])


def expiring(wire: Wire, _: str) -> int:
    text = wire("INFO", "keyspace").decode()
    return int(text.split("expires=")[1].split(",")[0]) if "expires=" in text else 0


@dataclass(frozen=True)
class Case:
    """A command on a key, with what has to be there; of one that writes, how much of it is done."""

    fill: Callable
    command: Callable[[Wire, str], list]
    done: Callable | None = None
    most: int = MANY


READS = {
    "EMBCACHE.MGET": Case(embeddings, lambda wire, key: [key, *TEXTS]),
    "LLMCACHE.SCAN": Case(answers, lambda wire, key: [key, 0, "COUNT", 10_000]),
    "RAG.SCAN": Case(documents, lambda wire, key: [key, 0, "COUNT", 10_000]),
    "RAG.MGET": Case(documents, lambda wire, key: [key, "IDS", 1_000, *IDS[:1_000]]),
    "KVCHUNK.MATCH": Case(chunks, lambda wire, key: [key, "TOKENS", tokens()]),
    "KVCHUNK.FETCH": Case(chunks, lambda wire, key: [key, "TOKENS", tokens()]),
    "KVCHUNK.MISSING": Case(chunks, lambda wire, key: [key, "TOKENS", tokens()]),
    "KVCHUNK.DIGESTS": Case(chunks, lambda wire, key: [key, "TOKENS", tokens()]),
    "KVCHUNK.SCAN": Case(chunks, lambda wire, key: [key, 0, "COUNT", 10_000]),
    "KVCHUNK.VERIFY": Case(chunks, lambda wire, key: [key, "COUNT", 10_000]),
}
WRITES = {
    "EMBCACHE.MSET": Case(
        lambda wire, key: wire("EMBCACHE.CREATE", key, "MODEL", "m", "DIM", DIM),
        lambda wire, key: [key, 1_000, *(part for at in range(1_000) for part in ("TEXT", f"t{at}", *v(at)))],
        lambda wire, key: entries(wire, key, "EMBCACHE"),
        1_000,
    ),
    "EMBCACHE.MGETEX": Case(embeddings, lambda wire, key: [key, *TEXTS, "EX", 1_000], expiring),
    "EMBCACHE.DEL": Case(embeddings, lambda wire, key: [key, *TEXTS], lambda wire, key: MANY - entries(wire, key, "EMBCACHE")),
    "RAG.MADD": Case(
        lambda wire, key: documents(wire, key, 1),
        lambda wire, key: [key, 1_000, *(part for at in range(1_000) for part in (f"d{at}", "VALUES", 2, 1, at, "TEXT", "x"))],
        lambda wire, key: entries(wire, key, "RAG"),
        1_000,
    ),
    "RAG.DEL": Case(documents, lambda wire, key: [key, *IDS], lambda wire, key: MANY - entries(wire, key, "RAG")),
    "LLMCACHE.DEL": Case(answers, lambda wire, key: [key, *(f"a{at}" for at in range(MANY))], lambda wire, key: MANY - entries(wire, key, "LLMCACHE")),
    "KVCHUNK.MPUT": Case(
        lambda wire, key: wire("KVCHUNK.CREATE", key, "CHUNK", 1),
        lambda wire, key: [key, "TOKENS", tokens(), "PAYLOADS", MANY, *[1, "x"] * MANY],
        lambda wire, key: wire("KVCHUNK.MATCH", key, "TOKENS", tokens())[0],
    ),
    "KVCHUNK.DEL": Case(
        chunks, lambda wire, key: [key, wire("KVCHUNK.DIGESTS", key, "TOKENS", tokens())[0], "SUBTREE"], lambda wire, key: MANY - wire("KVCHUNK.MATCH", key, "TOKENS", tokens())[0]
    ),
}  # fmt: skip
CASES = {**READS, **WRITES}


def in_slices(wire: Wire) -> int:
    return slices_of(wire("INFO", "everything"))


def slices_of(info: bytes) -> int:
    return int(info.decode().split("llmcache_commands_in_slices:")[1].split()[0])


def in_the_middle(server, name: str, key: str, event: Callable[[int], list], before: Callable = lambda wire: None):
    """The reply to a command with an event in its middle, or the exception that its client met. A server that is
    quick may have ended before the event: then all is done again."""
    case = CASES[name]
    for _ in range(30):
        with server.wire() as admin:
            before(admin)
            case.fill(admin, key)
            # Hints to eviction follow a command in slices of their own.
            wait_until(lambda admin=admin: not in_slices(admin), "nothing is left of filling")
            worker = server.wire()
            client = worker("CLIENT", "ID")
            worker.send(name, *case.command(admin, key))
            while not in_slices(admin) and not select.select([worker.socket], [], [], 0)[0]:
                pass
            # In one step: the command goes on before and behind it, and never within.
            *queued, replies = admin.pipeline([("MULTI",), ("INFO", "everything"), *event(client), ("EXEC",)])
            assert not [reply for reply in queued if isinstance(reply, Failure)], queued
            info, *replies = replies
            assert not [reply for reply in replies if isinstance(reply, Failure)], replies
            try:
                reply = worker.read()
            except (ConnectionError, OSError, EOFError) as gone:
                reply = gone
            worker.close()
            if slices_of(info):
                wait_until(lambda admin=admin: not in_slices(admin), "no command is left in slices")
                return reply
    raise AssertionError(f"{name} never went on in slices")


def flush(wire: Wire) -> None:
    wire("FLUSHALL")


def undisturbed(server, name: str, key: str):
    with server.wire() as wire:
        wire("FLUSHALL")
        CASES[name].fill(wire, key)
        reply = wire(name, *CASES[name].command(wire, key))
        assert not isinstance(reply, Failure), reply.text
        return reply


def parts(reply) -> set:
    """What a reply holds, each value once: nothing in it may be what was never there."""
    if isinstance(reply, list):
        return set().union(*map(parts, reply))
    # Numbers tell ages and uses.
    return {reply} if isinstance(reply, bytes) else set()


def same(reply, whole) -> bool:
    """Whether a reply is that to the same command at another time."""
    if isinstance(reply, list) and isinstance(whole, list):
        return len(reply) == len(whole) and all(map(same, reply, whole))
    # Numbers tell ages and uses.
    return type(reply) is type(whole) and (reply == whole or isinstance(reply, int))


@pytest.mark.parametrize("name", CASES)
def test_client_that_goes(server, name):
    reply = in_the_middle(server, name, "k", lambda client: [("CLIENT", "KILL", "ID", client)], flush)
    assert isinstance(reply, Exception)
    if name in WRITES:
        with server.wire() as wire:
            assert CASES[name].done(wire, "k") == CASES[name].most, "what writes is finished without its client"


@pytest.mark.parametrize("name", CASES)
def test_client_that_is_unblocked(server, name):
    reply = in_the_middle(server, name, "k", lambda client: [("CLIENT", "UNBLOCK", client)], flush)
    assert reply is None or not isinstance(reply, (Failure, Exception)), reply
    if name in WRITES:
        with server.wire() as wire:
            assert CASES[name].done(wire, "k") == CASES[name].most


EVENTS = {
    "FLUSHALL": [("FLUSHALL",)],
    "DEL": [("DEL", "k")],
    "SWAPDB": [("SWAPDB", 0, 1)],
    "RENAME": [("RENAME", "k", "other")],
    "REPLICAOF": [("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE")],
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("name", CASES)
def test_what_it_works_on_changes(server, name, event):
    whole = undisturbed(server, name, "k")
    reply = in_the_middle(server, name, "k", lambda _: EVENTS[event], flush)
    assert not isinstance(reply, Exception), reply
    if isinstance(reply, Failure):
        words = {"UNBLOCKED"} if event == "REPLICAOF" else {"BUSY"}
        assert reply.word in words, reply.text
    elif name in READS and name.split(".")[1] in ("MGET", "SCAN", "FETCH", "DIGESTS"):
        assert parts(reply) <= parts(whole) | {b"0"}, "what was never there is not answered"
        if name.endswith("MGET"):
            assert len(reply) == len(whole)
    with server.wire() as wire:
        if event in ("FLUSHALL", "DEL"):
            wait_until(lambda: wire("DBSIZE") == 0, "nothing comes back")
        if event == "SWAPDB":
            # Databases were swapped: what was there is in the other, and nothing of it was made here.
            assert wire("DBSIZE") == 0


@pytest.mark.parametrize("name", WRITES)
def test_replicas_and_a_restart_from_the_log_have_all_of_it(fleet, name):
    both = pair(fleet, appendonly="yes", appendfsync="always")
    in_the_middle(both.primary, name, "k", lambda client: [("CLIENT", "KILL", "ID", client)], flush)
    both.assert_equal()
    before = both.primary.digest()
    both.primary.kill9()
    both.primary.restart()
    assert both.primary.digest() == before


MOVES = {
    # Entries may be on the other side from here on.
    "begins": lambda cluster: [("CLUSTER", "SETSLOT", SLOT, "MIGRATING", cluster.ids[1])],
    # And here all are: MIGRATE deletes what it has sent by the same path.
    "over": lambda cluster: [
        ("CLUSTER", "SETSLOT", SLOT, "MIGRATING", cluster.ids[1]),
        ("FLUSHALL",),
        ("CLUSTER", "SETSLOT", SLOT, "NODE", cluster.ids[1]),
    ],
}


@pytest.mark.parametrize("move", MOVES)
def test_its_hash_slot_moves(fleet, move):
    cluster = Cluster(fleet, [[(0, 16383)], []])
    node = cluster.nodes[0]
    key = f"{TAG}k"

    def stable(wire: Wire) -> None:
        wire("CLUSTER", "SETSLOT", SLOT, "STABLE")
        wire("CLUSTER", "SETSLOT", SLOT, "NODE", cluster.ids[0])
        wire("FLUSHALL")

    for name in CASES:
        whole = undisturbed(node, name, key)
        reply = in_the_middle(node, name, key, lambda _: MOVES[move](cluster), stable)
        with node.wire() as wire:
            stable(wire)
        if name == "EMBCACHE.MGET":
            # A look-up may miss what has gone, and its reply may have begun.
            assert isinstance(reply, Failure) or parts(reply) <= parts(whole)
        elif name in READS and not isinstance(reply, Failure) and same(reply, whole):
            # All of it was read before, and its reply had begun.
            pass
        elif move == "over" or name in WRITES:
            words = {"MOVED"} if move == "over" else {"TRYAGAIN"}
            assert isinstance(reply, Failure) and reply.word in words, (name, reply)
        elif name.endswith(".SCAN") and not name.startswith("KVCHUNK"):
            assert isinstance(reply, Failure) and reply.word == "TRYAGAIN", (name, reply)
        elif not isinstance(reply, Failure):
            assert parts(reply) <= parts(whole), name


LONG = {
    "RAG.SEARCH": ["COUNT", 1_000, "RETURN", 3, "id", "text", "similarity"],
    "RAG.SEARCH MMR": ["COUNT", 200, "MMR", 0.5, "RETURN", 2, "id", "similarity"],
    "RAG.SEARCH TOKENS": ["COUNT", 1_000, "TOKENS", 2_000, "RETURN", 3, "id", "text", "similarity"],
    "LLMCACHE.GETSEM": ["COUNT", 1_000, "THRESHOLD", -1, "GUARD", "OFF", "RETURN", 3, "prompt", "response", "similarity"],
}


@pytest.mark.parametrize("resp", [2, 3])
def test_long_searches_answer_the_same_in_parts_and_at_once(server, resp):
    """What is measured, chosen and written between other commands by itself is done at once in MULTI."""
    dim, many = 512, 1_200

    def vector(at: int) -> list:
        return ["FP32", struct.pack(f"<{dim}f", 1, *(((at * bit) % 13) / 13 for bit in range(1, dim)))]

    with server.wire(resp=resp, timeout=120) as wire:
        filled(wire, (("RAG.ADD", "docs", f"d{at}", *vector(at), "TEXT", f"text {at}") for at in range(many)))
        filled(wire, (
            ("LLMCACHE.SETSEM", "faq", "PROMPT", f"question {at}", "RESPONSE", "r" * 300, *vector(at)) for at in range(many)
        ))  # fmt: skip
        for name, options in LONG.items():
            command = [name.split()[0], "docs" if name.startswith("RAG") else "faq", *vector(3), *options]
            alone = wire(*command)
            assert wire("MULTI") == "OK"
            wire(*command)
            (at_once,) = wire("EXEC")
            assert not isinstance(alone, Failure), alone.text
            assert alone == at_once, name
            assert len(alone) >= 100, name


def test_a_choice_of_documents_that_go(server):
    """MMR compares between other commands: what went meanwhile is not answered."""
    dim = 2_048

    def vector(at: int) -> list:
        return ["FP32", struct.pack(f"<{dim}f", 1, *(((at * bit) % 13) / 13 for bit in range(1, dim)))]

    with server.wire(timeout=120) as wire, server.wire() as other:
        filled(wire, (("RAG.ADD", "docs", f"d{at}", *vector(at), "TEXT", "t") for at in range(400)))
        search = ["RAG.SEARCH", "docs", *vector(3), "COUNT", 50, "MMR", 0.5, "RETURN", 1, "id"]
        for at in range(0, 300, 30):
            wire.send(*search)
            gone = [f"d{n}" for n in range(at, at + 30)]
            assert other("RAG.DEL", "docs", *gone) == 30
            reply = wire.read()
            assert not isinstance(reply, Failure), reply.text
            ids = [hit[1] for hit in reply]
            assert len(set(ids)) == len(ids) <= 50
            # By now they are gone for good.
            again = {hit[1] for hit in wire(*search)}
            assert not again & {name.encode() for name in gone}
        wire.send(*search)
        other("FLUSHALL")
        assert not isinstance(wire.read(), Failure)


def threads_of(server) -> set[str]:
    from pathlib import Path

    return {path.read_text().strip() for path in Path(f"/proc/{server.pid}/task").glob("*/comm")}


@pytest.mark.parametrize("ending", [("FLUSHALL", "SYNC"), ("DEL", "k"), ("RAG.DROP", "k"), ("EXPIRE", "k", 0)])
def test_a_large_container_is_dropped_by_a_thread(server, ending):
    with server.wire() as wire:
        documents(wire, "k")
        assert "llmcache-free" not in threads_of(server)
        wire(*ending)
        wait_until(lambda: wire("DBSIZE") == 0 and "llmcache-free" in threads_of(server), "a thread dropped it")
