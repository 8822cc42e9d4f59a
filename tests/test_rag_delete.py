"""RAG.DEL by filter and by tag, documents without a vector, and RAG.MGET of many: what a document is without its vector."""

import numpy as np
import pytest
import redis
from harness.families import Documents
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.vectors import fp32, unit
from harness.wire import Failure

COUNT = 40


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def docs(server, resp):
    return Documents(server.client(resp), "docs")


def stock(docs, count=COUNT):
    """Document d<i>: META n, tags even or odd and t<i % 5>; every third without a vector."""
    parts = []
    for i in range(count):
        vector = ["NOVECTOR"] if i % 3 == 0 else fp32(unit(i))
        meta = '{"n":%d}' % i
        parts += [f"d{i}", *vector, "TEXT", f"text {i}", "META", meta, "TAGS", 2, "even" if i % 2 == 0 else "odd", f"t{i % 5}"]
    docs.run("MADD", count, *parts)


def left(docs) -> set[int]:
    cursor, found = b"0", set()
    while True:
        cursor, page = docs.run("SCAN", cursor, "COUNT", 1_000)
        found |= {int(id[1:]) for id in page}
        if cursor == b"0":
            return found


@pytest.mark.parametrize(
    ("words", "goes"),
    [
        (("FILTER", ".n < 10"), lambda i: i < 10),
        (("filter", ".n in [1, 2, 3]"), lambda i: i in (1, 2, 3)),
        (("FILTER", ".absent == 1"), lambda i: False),
        (("TAG", "even"), lambda i: i % 2 == 0),
        (("TAG", "t3"), lambda i: i % 5 == 3),
        (("TAG", "none"), lambda i: False),
        (("IDS", 3, "d1", "none", "d2"), lambda i: i in (1, 2)),
        (("d1", "d2", "none"), lambda i: i in (1, 2)),
    ],
)
def test_what_is_named_goes_and_no_more(docs, words, goes):
    stock(docs)
    gone = {i for i in range(COUNT) if goes(i)}
    if words[0] in ("FILTER", "TAG"):
        assert docs.run("DEL", *words, "DRYRUN") == len(gone)
        assert left(docs) == set(range(COUNT))
    assert docs.run("DEL", *words) == len(gone)
    assert left(docs) == set(range(COUNT)) - gone
    assert docs.info()["entries"] == COUNT - len(gone)
    assert {i for i in range(COUNT) if docs.get(f"d{i}") is None} == gone
    found = {int(row["id"][1:]) for row in docs.search(unit(1), count=COUNT)}
    assert found == {i for i in range(COUNT) if i % 3} - gone
    # Memory goes with it: as many keys as documents, and the index.
    assert docs.client.dbsize() == COUNT - len(gone) + 1


def test_limit_takes_so_many(docs):
    stock(docs)
    assert docs.run("DEL", "TAG", "even", "LIMIT", 7) == 7
    assert docs.run("DEL", "FILTER", ".n >= 0", "LIMIT", 100) == COUNT - 7


def test_words_that_are_ids_too_go_by_ids(docs):
    for id in ("FILTER", "tag", "IDS"):
        docs.run("ADD", id, "NOVECTOR", "TEXT", "x")
        with pytest.raises(redis.ResponseError):
            docs.run("DEL", id)
    assert docs.run("DEL", "IDS", 3, "FILTER", "tag", "IDS") == 3


@pytest.mark.parametrize(
    "words",
    [
        ("FILTER",),
        ("FILTER", ".n ="),
        ("FILTER", ".n == 1", "TAG", "even"),
        ("TAG", ""),
        ("TAG", "even", "LIMIT", 0),
        ("TAG", "even", "DRYRUN", "DRYRUN"),
        ("TAG", "even", "d1"),
        ("IDS", 0),
        ("IDS", 2, "d1"),
        ("IDS", 1, "d1", "d2"),
        ("IDS", 1, ""),
    ],
)
def test_bad_input_changes_nothing(docs, server, words):
    stock(docs, 6)
    before = server.digest()
    with pytest.raises(redis.ResponseError):
        docs.run("DEL", *words)
    assert server.digest() == before


def test_of_an_absent_index_and_of_another_type(docs):
    assert docs.run("DEL", "TAG", "x") == 0
    assert docs.run("DEL", "FILTER", ".n == 1") == 0
    docs.client.execute_command("LLMCACHE.CREATE", "docs")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        docs.run("DEL", "TAG", "x")


def test_multi_and_lua_in_one_go(docs):
    stock(docs)
    pipe = docs.client.pipeline(transaction=True)
    pipe.execute_command("RAG.DEL", "docs", "TAG", "t1")
    pipe.execute_command("RAG.MGET", "docs", "IDS", 2, "d1", "d2", "RETURN", 1, "id")
    removed, rows = pipe.execute()
    assert removed == COUNT // 5 and rows[0] is None and rows[1] is not None
    assert docs.client.eval("return redis.call('RAG.DEL', KEYS[1], 'FILTER', '.n >= 20')", 1, "docs") == 16
    assert left(docs) == {i for i in range(20) if i % 5 != 1}


def test_a_walk_that_is_too_long_where_nobody_may_wait_is_refused(server):
    docs = Documents(server.client(), "docs")
    count = 40_000
    for first in range(0, count, 1_000):
        rows = [part for i in range(first, first + 1_000) for part in (f"d{i}", "NOVECTOR", "TEXT", "x", "TAGS", 1, "t")]
        docs.run("MADD", 1_000, *rows)
    script = "return redis.call('RAG.DEL', KEYS[1], 'TAG', 't', unpack(ARGV))"
    with pytest.raises(redis.ResponseError, match="LIMIT"):
        docs.client.eval(script, 1, "docs")
    assert docs.info()["entries"] == count
    assert docs.client.eval(script, 1, "docs", "LIMIT", 100) == 100
    assert docs.run("DEL", "TAG", "t") == count - 100


def test_a_long_walk_lets_others_through(server):
    docs = Documents(server.client(), "docs")
    # Long enough for slices: filters over META that no record holds open every document.
    count = 12_000
    for first in range(0, count, 1_000):
        parts = []
        for i in range(first, first + 1_000):
            parts += [f"d{i}", "NOVECTOR", "TEXT", "x", "META", '{"n":%d}' % i]
        docs.run("MADD", 1_000, *parts)
    with server.wire() as walker, server.wire() as other:
        walker.send("RAG.DEL", "docs", "FILTER", ".n >= 1000")
        while int(server.info("clients")["blocked_clients"]) == 0 and docs.info()["entries"] == count:
            pass
        asked = 0
        while docs.info()["entries"] > 1_000:
            assert other("RAG.GET", "docs", "d5") is not None
            asked += 1
        assert walker.read() == count - 1_000
        assert asked >= 2, "nobody was served while the walk went on"
    assert left(docs) == set(range(1_000))


def test_replicas_and_the_log_follow(fleet):
    both = pair(fleet)
    docs = Documents(both.primary.client(), "docs")
    stock(docs)
    docs.run("DEL", "FILTER", ".n < 10")
    docs.run("DEL", "TAG", "t4")
    both.catch_up()
    assert both.replica.digest() == both.primary.digest()
    with both.replica.wire() as wire:
        assert isinstance(wire("RAG.DEL", "docs", "TAG", "t3"), Failure)


@pytest.mark.parametrize("how", ["rdb", "aof", "rewritten"])
def test_documents_without_a_vector_are_kept(fleet, how):
    server = fleet.launch(appendonly="no" if how == "rdb" else "yes")
    docs = Documents(server.client(), "docs")
    stock(docs)
    docs.run("ADD", "d1", "NOVECTOR", "TEXT", "without now")
    if how == "rewritten":
        server.client().bgrewriteaof()
        wait_for_rewrite(server.client())
    if how == "rdb":
        server.client().save()
    before = server.digest()
    server.restart()
    docs = Documents(server.client(), "docs")
    assert server.digest() == before
    assert docs.get("d1")["text"] == b"without now"
    info = docs.info()
    assert (info["entries"], info["vectors"]) == (COUNT, sum(1 for i in range(COUNT) if i % 3) - 1)
    assert docs.run("DEL", "TAG", "even") == COUNT // 2


def test_a_document_without_a_vector(docs):
    """Answered by its id and by filters, never by meaning; a vector comes and goes with what is stored."""
    assert docs.run("ADD", "plain", "NOVECTOR", "TEXT", "no vector", "META", '{"lang":"en"}') == 1
    assert "dim" not in docs.info() or not docs.info()["dim"]
    assert docs.search(unit(1)) == []
    assert docs.run("ADD", "other", *fp32(unit(1)), "TEXT", "with one") == 1
    assert [row["id"] for row in docs.search(unit(1), count=10)] == [b"other"]
    assert docs.run("SCAN", 0, "FILTER", '.lang == "en"') == [b"0", [b"plain"]]
    assert docs.get("plain")["text"] == b"no vector"
    assert docs.run("ADD", "plain", *fp32(unit(1)), "TEXT", "now with") == 0
    assert {row["id"] for row in docs.search(unit(1), count=10)} == {b"other", b"plain"}
    assert docs.run("ADD", "plain", "NOVECTOR", "TEXT", "without again") == 0
    assert [row["id"] for row in docs.search(unit(1), count=10)] == [b"other"]
    for words in (("NOVECTOR", *fp32(unit(1))), (*fp32(unit(1)), "NOVECTOR"), ("NOVECTOR", "NOVECTOR"), ()):
        with pytest.raises(redis.ResponseError):
            docs.run("ADD", "bad", *words, "TEXT", "x")
    assert docs.get("bad") is None


def test_vectors_are_returned_or_null(docs):
    stock(docs, 6)
    rows = docs.run("MGET", "IDS", 3, "d1", "d3", "none", "RETURN", 2, "id", "vector")
    rows = [row and (dict(zip(row[::2], row[1::2], strict=True)) if isinstance(row, list) else row) for row in rows]
    assert np.allclose(np.frombuffer(rows[0][b"vector"], "<f4"), unit(1), atol=0.02)
    assert rows[1] == {b"id": b"d3", b"vector": None} and rows[2] is None


def test_replies_of_mget_are_bounded(fleet):
    server = fleet.launch(llmcache__reply_max_bytes=1 << 20)
    docs = Documents(server.client(), "docs")
    for i in range(20):
        docs.run("ADD", f"d{i}", "NOVECTOR", "TEXT", "x" * 100_000)
    ids = [f"d{i}" for i in range(20)]
    with pytest.raises(redis.ResponseError, match="^TOOBIG"):
        docs.run("MGET", "IDS", 20, *ids)
    assert len(docs.run("MGET", "IDS", 20, *ids, "RETURN", 1, "id")) == 20
    assert len(docs.run("MGET", "IDS", 5, *ids[:5])) == 5
