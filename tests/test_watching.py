"""What a console and an exporter look at: containers by name in INFO, sums that never fall, entries cut short, and what
eviction would take next. Whoever looks counts as no use."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from harness.cache import Cache
from harness.replies import fields

GAUGES = {
    "caches", "entries", "entries_hidden", "bytes", "index_bytes", "leases", "lease_bytes", "waiters", "clients_blocked",
    "searches_out", "commands_in_slices", "last_command_keys", "last_command_steps", "last_command_reply_bytes",
    "last_command_longest_run",
    "orphan_groups", "models", "model_bytes", "texts_memo", "texts_memo_bytes", "texts_queued", "namespaces", "chunks",
    "chunk_bytes", "chunk_payload_bytes", "chunk_leases", "chunk_bytes_in_flight", "session_followers",
    "document_indexes", "documents", "document_bytes", "document_index_bytes", "embedding_caches", "embeddings",
    "embedding_bytes", "embedding_index_bytes", "document_words", "document_word_bytes",
}  # fmt: skip


@pytest.fixture
def server(emptied):
    return emptied


def containers(server) -> list[dict]:
    lines = server.info("llmcache_containers")
    rows = [dict(pair.split("=", 1) for pair in value.split(",")) for name, value in lines.items() if "_container_" in name]
    return [{**row, "name": unquote_to_bytes(row["name"])} for row in rows]


def test_info_names_containers_of_every_kind(server):
    odd = b'a,b=c:d\r\n#"\xff\x00 {e}%41'
    with server.wire() as wire:
        wire("LLMCACHE.SET", odd, "PROMPT", "p", "RESPONSE", "r")
        wire("RAG.ADD", "docs", "d", "NOVECTOR", "TEXT", "t")
        wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 2)
        wire("KVCHUNK.PUT", "ns", "DIGEST", "0a", "PAYLOAD", 1, "x")
        wire("SELECT", 3)
        wire("LLMCACHE.CREATE", "other")
        info = fields(wire("LLMCACHE.INFO", "other"))
    told = {(row["kind"], row["db"], row["name"]): row for row in containers(server)}
    assert set(told) == {
        ("answers", "0", odd), ("documents", "0", b"docs"), ("embeddings", "0", b"emb"), ("chunks", "0", b"ns"),
        ("answers", "3", b"other"),
    }  # fmt: skip
    assert told["answers", "0", odd]["entries"] == told["chunks", "0", b"ns"]["entries"] == "1"
    assert int(told["answers", "3", b"other"]["bytes"]) == info["bytes"] > 0
    server.client().flushall()
    assert containers(server) == []


def test_names_are_told_as_texts_by_clients_that_read_numbers(server):
    names = [b"007", b"1.50", b"-3", b".5", b"1e5", b"nan", b"faq"]
    client = server.client()
    for name in names:
        client.execute_command("LLMCACHE.CREATE", name)
    told = [row["name"] for field, row in client.info("llmcache_containers").items() if "_container_" in field]
    assert sorted(unquote_to_bytes(name) for name in told) == sorted(names)


def test_info_names_so_many_and_no_more(server):
    Cache(server.client()).bulk(("LLMCACHE.CREATE", f"c{n}") for n in range(300))
    assert len(containers(server)) == 256
    assert server.info("llmcache_caches")["llmcache_caches"] == "300"


def counters(server) -> dict[str, int]:
    told = server.info()
    named = {name.removeprefix("llmcache_"): value for name, value in told.items() if name.startswith("llmcache_")}
    return {name: int(value) for name, value in named.items() if value.isdigit() and name not in GAUGES}


def act(server, question: str) -> None:
    v = ("VALUES", 2, 1, 0.5)
    with server.wire() as wire:
        wire("LLMCACHE.SETSEM", "faq", "PROMPT", "p 1", "RESPONSE", "r", *v, "TOKENS", 9, "COST", "0.1", "LATENCY", 50)
        wire("LLMCACHE.GET", "faq", "PROMPT", "p 1")
        wire("LLMCACHE.GETSEM", "faq", *v)
        wire("LLMCACHE.GETSEM", "faq", *v, "PROMPT", "p 2")
        token = fields(wire("LLMCACHE.FETCH", "faq", "PROMPT", question))["token"]
        wire("LLMCACHE.FETCH", "faq", "PROMPT", question)
        wire("LLMCACHE.FAIL", "faq", token)
        wire("LLMCACHE.FETCH", "faq", "PROMPT", question)
        wire("RAG.ADD", "docs", "d", *v, "TEXT", "t")
        wire("RAG.SEARCH", "docs", *v)
        wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", 2)
        wire("EMBCACHE.SET", "emb", "TEXT", "t", *v)
        wire("EMBCACHE.GET", "emb", "TEXT", "t")
        wire("KVCHUNK.CREATE", "ns", "BUDGET", 6_000)
        for digest in ("0a", "0b", "0c"):
            wire("KVCHUNK.PUT", "ns", "DIGEST", digest, "PAYLOAD", 1, "x" * 2_000)
        wire("KVCHUNK.FETCH", "ns", "DIGESTS", 1, "0c")


ENDS = {
    "statistics are reset": [("LLMCACHE.STATS", "faq", "RESET"), ("KVCHUNK.STATS", "ns", "RESET")],
    "the server's are reset": [("CONFIG", "RESETSTAT")],
    "containers are dropped": [("LLMCACHE.DROP", "faq"), ("RAG.DROP", "docs"), ("DEL", "emb", "ns")],
    "containers are unlinked": [("UNLINK", "faq", "docs", "emb", "ns")],
    "all is flushed": [("FLUSHALL",)],
    "databases are swapped": [("SWAPDB", 0, 5), ("FLUSHDB",)],
}


# The sums that `act` raises, whatever the background does meanwhile.
RAISED = {
    "lookups", "hits", "hits_exact", "hits_semantic", "refused_by_guards", "fetch_lead", "fetch_busy", "fetch_negative",
    "failures", "tokens_saved", "ms_saved", "micro_usd_saved", "document_lookups", "document_hits",
    "embedding_lookups", "embedding_hits", "chunks_asked", "chunks_matched", "chunks_evicted",
}  # fmt: skip


def raised(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if after[name] > before[name]}


@pytest.mark.parametrize("end", ENDS)
def test_sums_of_info_never_fall(server, end):
    before = counters(server)
    act(server, "once")
    did = counters(server)
    assert raised(before, did) >= RAISED
    with server.wire() as wire:
        for command in ENDS[end]:
            wire(*command)
    after = counters(server)
    assert not {name: (did[name], after[name]) for name in did if after[name] < did[name]}
    act(server, "again")
    again = counters(server)
    assert raised(after, again) >= RAISED


def test_an_entry_is_shown_cut(server):
    client = server.client()
    cache = Cache(client)
    id_ = cache.set("p" * 100, "<b>" * (1 << 20), context="c" * 50, meta={"k": "v" * 90})
    whole = cache.entry(id_)
    told = fields(cache.run("ENTRY", id_, "CUT", 10))
    sizes = {name: told.pop(f"{name}_bytes") for name in ("prompt", "response", "context", "meta")}
    assert sizes == {name: len(whole[name]) for name in sizes}
    assert [told[name] for name in sizes] == [whole[name][:10] for name in sizes]
    assert fields(cache.run("ENTRY", id_, "CUT", 0))["response"] == b""
    assert fields(cache.run("ENTRY", id_, "CUT", 64 << 20))["response"] == whole["response"]
    assert len(fields(cache.run("ENTRY", id_, "VECTOR", "CUT", 1))) == len(whole) + 5
    with server.wire() as wire:
        for bad in (("CUT",), ("CUT", -1), ("CUT", (64 << 20) + 1), ("CUT", "x"), ("CUT", 1, "CUT", 1)):
            assert wire("LLMCACHE.ENTRY", "faq", id_, *bad).word == "ERR"
        assert wire("LLMCACHE.ENTRY", "faq", "none", "CUT", 1) is None


# KVCHUNK.TREE.


def put(client, name, parent=None, size=100):
    parent = ("PARENT", parent) if parent else ()
    assert client.execute_command("KVCHUNK.PUT", "ns", "HASH", name, *parent, "PAYLOAD", 1, "x" * size) == b"STORED"


def tree(client, *options):
    next_, rows = client.execute_command("KVCHUNK.TREE", "ns", *options)
    return next_, [fields(row) for row in rows]


def name_of(row) -> str:
    return bytes.fromhex(row["digest"].decode()).decode()


@pytest.mark.parametrize("resp", [2, 3])
def test_the_tree_is_told(server, resp):
    client = server.client(resp)
    put(client, "a")
    put(client, "b", "a")
    put(client, "c", "a")
    client.execute_command("KVCHUNK.TOUCH", "ns", b"c".hex())
    client.execute_command("KVCHUNK.PIN", "ns", b"b".hex())
    client.execute_command("KVCHUNK.LEASE", "ns", 60_000, b"c".hex())
    told = {name_of(row): row for row in tree(client)[1]}
    assert {name: row["parent"] and bytes.fromhex(row["parent"].decode()) for name, row in told.items()} == {
        "a": None, "b": b"a", "c": b"a",
    }  # fmt: skip
    assert {name: (row["leaf"], row["pinned"], row["leases"], row["hits"]) for name, row in told.items()} == {
        "a": (0, 0, 0, 0), "b": (1, 1, 0, 0), "c": (1, 0, 1, 1),
    }  # fmt: skip
    assert float(told["c"]["heat"]) > float(told["b"]["heat"]) > 0
    assert told["a"]["payload_bytes"] == 100 and told["a"]["bytes"] > 100 and told["a"]["deadline"] == 0


def test_the_tree_is_paged(server):
    client = server.client()
    for n in range(250):
        put(client, f"n{n:03}")
    found, at, pages = [], b"0", 0
    while True:
        at, rows = tree(client, "FROM", at, "COUNT", 60)
        found += [name_of(row) for row in rows]
        pages += 1
        if at == b"0":
            break
    assert sorted(found) == [f"n{n:03}" for n in range(250)] and pages >= 4
    assert len(tree(client)[1]) == 100


def test_what_is_to_be_evicted_next_is_what_is_evicted(server):
    """Whole chains, some used, some pinned: BUDGET takes exactly those told, in that order."""
    client = server.client()
    for chain in range(6):
        for at in range(4):
            put(client, f"{chain}.{at}", f"{chain}.{at - 1}" if at else None)
    for chain in (1, 3):
        client.execute_command("KVCHUNK.TOUCH", "ns", f"{chain}.3".encode().hex())
    client.execute_command("KVCHUNK.PIN", "ns", b"5.3".hex(), "PREFIX")
    told = [name_of(row) for row in tree(client, "EVICTION", "COUNT", 1000)[1]]
    assert len(told) == 20 and len(set(told)) == 20
    assert not [name for name in told if name.startswith("5.")]
    assert [name_of(row) for row in tree(client, "EVICTION", "COUNT", 7)[1]] == told[:7]
    info = fields(client.execute_command("KVCHUNK.INFO", "ns"))
    each = info["bytes"] // info["chunks"]
    hits = {name_of(row): row["hits"] for row in tree(client)[1]}
    assert client.execute_command("KVCHUNK.BUDGET", "ns", info["bytes"] - 5 * each) >= 5
    left = {name_of(row) for row in tree(client)[1]}
    gone = [name for name in told if name not in left]
    assert gone == told[: len(gone)] and len(gone) >= 5
    assert {name: row for name, row in hits.items() if name in left} == {name_of(row): row["hits"] for row in tree(client)[1]}


def test_looking_at_the_tree_with_bad_arguments(server):
    with server.wire() as wire:
        assert wire("KVCHUNK.TREE", "ns").word == "NOCACHE"
        wire("LLMCACHE.CREATE", "faq")
        assert wire("KVCHUNK.TREE", "faq").word == "WRONGTYPE"
        wire("KVCHUNK.CREATE", "ns")
        assert wire("KVCHUNK.TREE", "ns") == [b"0", []] == wire("KVCHUNK.TREE", "ns", "EVICTION")
        for bad in (("FROM",), ("FROM", -1), ("COUNT", 0), ("COUNT", 1001), ("EVICTION", "FROM", 0), ("X",), ("EVICTION", "EVICTION")):
            assert wire("KVCHUNK.TREE", "ns", *bad).word == "ERR"
