"""RAG: documents by id and by meaning, filtered, diverse, within a budget, updated in place."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import redis
from harness.cache import Cache
from harness.families import Documents
from harness.names import entry_id
from harness.vectors import FORMS, cosine, fp32, near, unit, units
from harness.wire import Failure

DIM = 32


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def docs(server):
    return Documents(server.client(), "docs")


def test_add_get_delete(server, resp):
    docs = Documents(server.client(resp), "docs")
    assert docs.add("a", unit(1), "text of a", meta={"year": 2024}, tags=["x", "y"], tokens=7) == 1
    assert docs.add("b", unit(2), "text of b", ex=100) == 1
    got = docs.get("a")
    assert (got["id"], got["text"], got["tokens"], got["ttl"]) == (b"a", b"text of a", 7, -1)
    assert json.loads(got["meta"]) == {"year": 2024} and got["tags"] == [b"x", b"y"]
    got = docs.get("b")
    assert got["tokens"] == 3 and got["meta"] is None and got["tags"] == [] and 99_000 < got["ttl"] <= 100_000
    assert docs.get("c") is None
    assert docs.delete("a", "c") == 1
    assert docs.get("a") is None and docs.ids(unit(1)) == [b"b"]
    assert docs.client.type("docs") == b"llm-docmt"


def test_an_update_is_in_place(docs):
    docs.add("a", unit(1), "old", meta={"v": 1}, ex=100)
    assert docs.add("a", unit(2), "new") == 0
    got = docs.get("a")
    assert (got["text"], got["meta"], got["ttl"]) == (b"new", None, -1)
    assert docs.ids(unit(1), similarity="0.99") == []
    assert docs.ids(unit(2), similarity="0.99") == [b"a"]
    info = docs.info()
    assert (info["entries"], info["vectors"], docs.client.dbsize()) == (1, 1, 2)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_vector(docs, form):
    docs.run("ADD", "a", *FORMS[form](unit(1)), "TEXT", "t")
    (found,) = docs.search(FORMS[form](unit(1)))
    assert found["similarity"] == 1.0


def test_madd_tells_of_each_and_stores_all_or_none(server, docs):
    docs.add("b", unit(9), "b")
    assert docs.madd(
        ("a", unit(1), "A", {"meta": {"k": 1}}),
        ("b", unit(2), "B", {"tags": ["t"], "tokens": 5, "ex": 100}),
        ("a", unit(3), "A again"),
    ) == [1, 0, 0]
    assert docs.get("a")["text"] == b"A again" and docs.get("b")["tokens"] == 5
    before = server.digest()
    with server.wire() as wire:
        for bad in (
            (2, "c", *fp32(unit(1)), "TEXT", "C"),
            (1, "c", *fp32(unit(1)), "TEXT", "C", "d", *fp32(unit(1)), "TEXT", "D"),
            (2, "c", *fp32(unit(1)), "TEXT", "C", "d", *fp32(unit(1, 5)), "TEXT", "D"),
            (2, "c", *fp32(unit(1)), "TEXT", "C", "META", *fp32(unit(1)), "TEXT", "D"),
            (2, "c", *fp32(unit(1)), "TEXT", "C", "PERSIST", *fp32(unit(1)), "TEXT", "D"),
            (2, "c", *fp32(unit(1)), "TEXT", "C", "d", *fp32(unit(1)), "TEXT", "D", "META", "[]"),
        ):
            assert isinstance(wire("RAG.MADD", "docs", *bad), Failure), bad
    assert server.digest() == before


ODD_IDS = ["d41d8cd98f00b204e9800998ecf8427e", "x" * 500, "line\nbreak", "META", "ключ", "a b}c{", "0"]


def test_ids_of_every_kind(docs):
    for i, id_ in enumerate(ODD_IDS):
        assert docs.add(id_, unit(i), f"text {i}") == 1
        assert docs.add(id_, unit(i), f"text {i}") == 0
    for i, id_ in enumerate(ODD_IDS):
        assert docs.get(id_)["text"] == b"text %d" % i
        assert docs.ids(unit(i), count=1) == [id_.encode()]
    assert sorted(docs.scan_ids()) == sorted(ODD_IDS)
    assert docs.client.exists(docs.key_of("META"), docs.key_of(entry_id("line\nbreak"))) == 2
    # What looks like a digest is no way to the document of that digest.
    assert docs.get(entry_id("line\nbreak")) is None
    assert docs.delete(*ODD_IDS) == len(ODD_IDS)
    assert docs.info()["entries"] == 0


def test_search_agrees_with_brute_force(docs):
    rows = units(500, DIM)
    docs.madd(*((f"d{i}", row, f"text {i}", {"meta": {"n": i, "even": i % 2 == 0}}) for i, row in enumerate(rows)))
    for seed in range(20):
        query = unit(1_000 + seed)
        scores = np.array([cosine(query, row) for row in rows])
        want = [b"d%d" % i for i in np.argsort(-scores)[:10]]
        found = docs.search(query)
        assert len(set(want) & {one["id"] for one in found}) >= 9
        for one in found:
            assert one["similarity"] == pytest.approx(scores[int(one["id"][1:])], abs=1e-3)
        assert [one["similarity"] for one in found] == sorted((one["similarity"] for one in found), reverse=True)
        few = docs.search(query, count=5, filter=".n < 50 and .even")
        allowed = [i for i in np.argsort(-scores) if i < 50 and i % 2 == 0][:5]
        assert [int(one["id"][1:]) for one in few] == allowed


def test_count_defaults_to_ten(docs):
    docs.madd(*((f"d{i}", row, "t") for i, row in enumerate(units(30, DIM))))
    assert len(docs.search(unit(1))) == 10
    assert len(docs.search(unit(1), count=30)) == 30


def test_similarity_is_the_least(docs):
    for i, similarity in enumerate((0.95, 0.8, 0.5, -0.5)):
        docs.add(f"d{i}", near(unit(1), similarity, seed=i), "t")
    for least, want in ((0.9, 1), (0.79, 2), (0, 3), (-1, 4), (1, 0)):
        assert len(docs.search(unit(1), similarity=least)) == want
    assert len(docs.search(unit(1))) == 4


def test_return_picks_fields(docs):
    docs.add("a", unit(1), "text", meta={"k": 1}, ex=100)
    assert list(docs.search(unit(1))[0]) == ["id", "similarity", "text", "meta", "tags"]
    (one,) = docs.search(unit(1), return_=["tokens", "ttl", "hits", "age", "id"])
    assert list(one) == ["tokens", "ttl", "hits", "age", "id"]
    assert one["tokens"] == 1 and one["hits"] == 2 and one["ttl"] > 99_000


def naive_mmr(query, rows, lambda_, count, pool):
    """Carbonell and Goldstein's formula, evaluated anew for every pick."""
    relevance = [cosine(query, row) for row in rows]
    candidates = sorted(range(len(rows)), key=lambda i: -relevance[i])[:pool]
    picked = [candidates[0]]
    margins = []
    while len(picked) < min(count, len(candidates)):
        left = [i for i in candidates if i not in picked]
        score = {i: lambda_ * relevance[i] - (1 - lambda_) * max(cosine(rows[i], rows[s]) for s in picked) for i in left}
        ranked = sorted(left, key=lambda i: -score[i])
        margins.append(score[ranked[0]] - score[ranked[1]] if len(ranked) > 1 else 1)
        picked.append(ranked[0])
    return picked, min(margins, default=1)


@pytest.mark.parametrize("quant", ["NONE", "F16"])
def test_mmr_equals_the_naive_implementation(docs, quant):
    docs.create(quant=quant)
    base = [near(unit(c), 0.9, seed=s) for c in range(5) for s in range(40)]
    docs.madd(*((f"d{i}", row, "t") for i, row in enumerate(base)))
    compared = 0
    for seed in range(12):
        query = near(unit(seed % 5), 0.6, seed=99 + seed)
        for lambda_, count in ((0.0, 6), (0.3, 8), (0.7, 10), (1.0, 10)):
            want, margin = naive_mmr(query, base, lambda_, count, max(20, 4 * count))
            if margin < 1e-3:
                continue
            compared += 1
            found = [int(id_[1:]) for id_ in docs.ids(query, count=count, mmr=lambda_)]
            assert found == want, (seed, lambda_)
    assert compared >= 12


def test_mmr_brings_variety(docs):
    for i in range(15):
        docs.add(f"same{i}", near(unit(1), 0.99, seed=i), "said again")
    docs.add("other", near(unit(1), 0.6, seed=50), "something else")
    assert b"other" not in docs.ids(unit(1), count=3)
    assert docs.ids(unit(1), count=3, mmr="0.4")[1] == b"other"


def test_mmr_of_one_is_the_plain_order(docs):
    docs.madd(*((f"d{i}", near(unit(1), 0.95 - 0.03 * i, seed=i), "t") for i in range(30)))
    assert docs.ids(unit(1), count=12, mmr=1) == docs.ids(unit(1), count=12) == [b"d%d" % i for i in range(12)]


def test_a_budget_of_tokens_is_never_exceeded(docs):
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 60, 100)
    for i, row in enumerate(units(100, DIM)):
        tokens = {"tokens": int(sizes[i])} if i % 3 else {}
        docs.add(f"d{i}", row, "x" * int(4 * sizes[i]), **tokens)
    for seed in range(20):
        plain = [one["tokens"] for one in docs.search(unit(500 + seed), count=30, return_=["tokens"])]
        for budget in (0, 1, 50, 200, 10_000):
            for mmr in ({}, {"mmr": "0.5"}):
                whole = docs.search(unit(500 + seed), count=30, return_=["tokens"], **mmr)
                cut = docs.search(unit(500 + seed), count=30, tokens=budget, return_=["tokens"], **mmr)
                tokens = [one["tokens"] for one in cut]
                assert sum(tokens) <= budget
                assert tokens == [one["tokens"] for one in whole][: len(tokens)]
                if len(cut) < len(whole):
                    assert sum(tokens) + whole[len(cut)]["tokens"] > budget
        assert len(plain) == 30


def test_tokens_are_estimated_where_none_are_given(docs):
    for i, (size, want) in enumerate(((0, 0), (1, 1), (4, 1), (5, 2), (4_000, 1_000))):
        docs.add(f"d{i}", unit(1), "x" * size)
        assert docs.get(f"d{i}")["tokens"] == want


def test_only_what_is_answered_counts_as_used(fleet):
    server = fleet.launch(maxmemory_policy="allkeys-lfu", lfu_log_factor=0, lfu_decay_time=0)
    docs = Documents(server.client(), "docs")
    docs.madd(*((f"d{i}", near(unit(1), 0.9 - i / 100, seed=i), "t" * 40) for i in range(30)))
    for _ in range(20):
        assert len(docs.search(unit(1), count=10, mmr="0.5", tokens=20)) == 2
    hits = {i: docs.get(f"d{i}")["hits"] - 1 for i in range(30)}
    assert sum(hits.values()) == 40 and sorted(hits.values())[-2:] == [20, 20]
    freq = {i: docs.client.object("freq", docs.key_of(f"d{i}")) for i in range(30)}
    quiet = max(freq[i] for i in range(30) if not hits[i])
    assert min(freq[i] for i in range(30) if hits[i]) > quiet


def test_several_indexes_of_one_application(server):
    client = server.client()
    one, two = Documents(client, "{app}:faq"), Documents(client, "{app}:manual")
    one.create(dim=DIM)
    two.create(dim=8, quant="Q8", index="FLAT")
    one.add("a", unit(1), "in the faq")
    two.add("a", unit(1, 8), "in the manual")
    assert one.get("a")["text"] == b"in the faq" and two.get("a")["text"] == b"in the manual"
    assert one.ids(unit(1)) == two.ids(unit(1, 8)) == [b"a"]
    assert two.run("DROP") == 1 and two.get("a") is None and one.get("a") is not None
    assert two.run("DROP") == 0


def test_scan_with_a_filter(docs):
    docs.madd(*((f"d{i}", row, "t", {"meta": {"n": i}}) for i, row in enumerate(units(95, DIM))))
    assert sorted(docs.scan_ids(7)) == sorted(f"d{i}" for i in range(95))
    assert sorted(docs.scan_ids(7, filter=".n >= 90")) == [f"d{i}" for i in range(90, 95)]


def test_expiry_and_defaults(docs):
    docs.create(ttl=100)
    docs.add("default", unit(1), "t")
    docs.add("short", unit(2), "t", px=50)
    docs.add("for ever", unit(3), "t", persist=True)
    docs.add("past", unit(4), "t", pxat=1)
    assert 99_000 < docs.get("default")["ttl"] <= 100_000 and docs.get("for ever")["ttl"] == -1
    time.sleep(0.08)
    assert set(docs.ids(unit(2))) == {b"default", b"for ever"}


def test_create_again(server, docs):
    with server.wire() as wire:
        assert wire("RAG.CREATE", "docs", "MODEL", "m") == "OK"
        docs.add("a", unit(1), "t")
        # The dimension that the first document set is no other setting.
        assert wire("RAG.CREATE", "docs", "MODEL", "m") == "OK"
        assert wire("RAG.CREATE", "docs", "MODEL", "m", "DIM", DIM) == "OK"
        assert wire("RAG.CREATE", "docs", "MODEL", "n").word == "MODELMISMATCH"
        assert wire("RAG.CREATE", "docs", "MODEL", "m", "DIM", 7).word == "ERR"
        assert wire("RAG.CREATE", "docs", "MODEL", "m", "EF", 7).word == "ERR"


def test_settings_of_answers_do_not_reach_documents(server, docs):
    with server.wire() as wire:
        for name, value in (("threshold", "0.99"), ("grace", 100), ("jitter", 50), ("guard", "strict")):
            wire("CONFIG", "SET", f"llmcache.{name}", value)
    docs.add("a", unit(1), "t", ex=10)
    assert docs.ids(near(unit(1), 0.2)) == [b"a"]
    assert docs.client.pttl(docs.key_of("a")) <= 10_000
    with server.wire() as wire:
        for name, value in (("threshold", "0.9"), ("grace", 0), ("jitter", 0), ("guard", "on")):
            wire("CONFIG", "SET", f"llmcache.{name}", value)


def test_without_an_index(server, docs):
    assert docs.search(unit(1)) == [] and docs.get("a") is None and docs.delete("a") == 0
    assert docs.scan_ids() == []
    with server.wire() as wire:
        assert wire("RAG.INFO", "docs").word == "NOCACHE"
        wire("CONFIG", "SET", "llmcache.auto-create", "no")
        assert wire("RAG.ADD", "docs", "a", *fp32(unit(1)), "TEXT", "t").word == "NOCACHE"
        wire("CONFIG", "SET", "llmcache.auto-create", "yes")
        assert wire("DBSIZE") == 0


def test_large_indexes_get_a_graph(docs):
    docs.create(index="HNSW")
    docs.fill(3_000)
    assert docs.held(range(0, 3_000, 30)) == set(range(0, 3_000, 30))
    info = docs.info()
    assert info["mode"] == b"graph" and info["linked"] + info["tail"] == 3_000


def test_info(docs):
    docs.fill(20)
    docs.search(unit(1))
    docs.get("doc:1"), docs.get("absent")
    info = docs.info()
    assert (info["name"], info["entries"], info["vectors"], info["dim"]) == (b"docs", 20, 20, DIM)
    assert (info["lookups"], info["hits"], info["stores"], info["evicted"]) == (3, 2, 20, 0)


BAD = [
    ("CREATE", "new", "THRESHOLD", "0.5"),
    ("CREATE", "new", "GUARD", "ON"),
    ("CREATE", "new", "DIM", 0),
    ("CREATE", "new", "M", 3),
    ("ADD", "docs", "", "VALUES", 3, 1, 2, 3, "TEXT", "t"),
    ("ADD", "docs", "x" * 1_025, "VALUES", 3, 1, 2, 3, "TEXT", "t"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "META", "{}"),
    ("ADD", "docs", "a", "TEXT", "t", "META", "{}", "TOKENS", 5),
    ("ADD", "docs", "a", "VALUES", 4, 1, 2, 3, 4, "TEXT", "t"),
    ("ADD", "docs", "a", "VALUES", 3, 0, 0, 0, "TEXT", "t"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, "inf", "TEXT", "t"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "META", "[1]"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "META", "{"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "TAGS", 2, "x"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "TAGS", 1, ""),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "TOKENS", 0),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "EX", -5),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "TEXT", "u"),
    ("ADD", "docs", "a", "VALUES", 3, 1, 2, 3, "TEXT", "t", "COST", 1),
    ("MADD", "docs", 0, "a", "VALUES", 3, 1, 2, 3, "TEXT", "t"),
    ("MADD", "docs", 1_001, "a", "VALUES", 3, 1, 2, 3, "TEXT", "t"),
    ("SEARCH", "docs", "COUNT", 5),
    ("SEARCH", "docs", "VALUES", 2, 1, 2),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "COUNT", 0),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "COUNT", 1_001),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "MMR", "1.1"),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "MMR", "nan"),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "SIMILARITY", 2),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "TOKENS", -1),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "FILTER", ".a =="),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "RETURN", 1, "response"),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "RETURN", 2, "id", "ID"),
    ("SEARCH", "docs", "VALUES", 3, 1, 2, 3, "SCOPE", "s"),
    ("GET", "docs", ""),
    ("DEL", "docs", "a", ""),
    ("SCAN", "docs", "x"),
    ("SCAN", "docs", 0, "COUNT", 0),
    ("INFO", "docs", "x"),
    ("DROP", "docs", "x"),
]


@pytest.mark.parametrize("call", BAD, ids=lambda call: " ".join(map(str, call))[:70])
def test_bad_input_changes_nothing(server, docs, call):
    docs.create(dim=3)
    docs.add("kept", np.array([1, 2, 3]), "t")
    before = server.digest()
    with server.wire() as wire:
        reply = wire(f"RAG.{call[0]}", *call[1:])
        assert isinstance(reply, Failure), reply
        assert reply.word in ("ERR", "BADVECTOR", "BADFILTER", "DIMMISMATCH", "TOOBIG"), reply
    assert server.digest() == before


def test_a_document_larger_than_maxmemory_is_refused_with_all_of_its_batch(server, docs):
    docs.create(maxmemory=2_000)
    with server.wire() as wire:
        batch = ("a", *fp32(unit(1)), "TEXT", "small", "b", *fp32(unit(2)), "TEXT", "x" * 5_000)
        assert wire("RAG.MADD", "docs", 2, *batch).word == "TOOBIG"
    assert docs.info()["entries"] == 0


def test_a_cache_beside_it_is_another_world(server, docs):
    Cache(server.client(), "faq").setsem("a", "A", unit(1))
    docs.add("a", unit(1), "t")
    assert docs.ids(unit(1)) == [b"a"] and docs.search(unit(1))[0]["text"] == b"t"


@pytest.mark.parametrize("of", [1, 2, 20, 200])
def test_recall_on_real_vectors_with_filters_of_every_selectivity(server, docs, of):
    """At least 95 of the 100 true neighbours, of all documents, half of them, 5 % and 0.5 %."""
    data = Path(__file__).resolve().parent.parent / "bench" / "data"
    base, queries = (np.load(data / f"{name}.f16.npy").astype("f4") for name in ("base", "queries"))
    docs.bulk(
        ("RAG.ADD", "docs", f"d{i}", *fp32(row), "TEXT", "t", "META", json.dumps({"n": i % of}))
        for i, row in enumerate(base)
    )
    there = np.arange(0, len(base), of)
    found = total = 0
    for query in queries[:100]:
        true = there[np.argsort(-(base[there] @ query))[:10]]
        ids = docs.ids(query, count=10, filter=".n == 0", return_=["id"])
        assert len(ids) == 10 and all(int(id_[1:]) % of == 0 for id_ in ids)
        found += len({int(id_[1:]) for id_ in ids} & set(true.tolist()))
        total += len(true)
    assert found / total >= 0.95


def test_mmr_over_too_many_long_vectors_is_refused(server):
    client = server.client()
    client.execute_command("RAG.CREATE", "long", "DIM", 16_384)
    row = fp32(unit(1, 16_384))
    client.execute_command("RAG.ADD", "long", "d", "TEXT", "t", *row)
    with pytest.raises(redis.ResponseError, match="^TOOBIG MMR: COUNT x candidates x dimensions"):
        client.execute_command("RAG.SEARCH", "long", *row, "COUNT", 1_000, "MMR", 0.5)
    assert len(client.execute_command("RAG.SEARCH", "long", *row, "COUNT", 20, "MMR", 0.5)) == 1
    assert len(client.execute_command("RAG.SEARCH", "long", *row, "COUNT", 1_000)) == 1


def test_many_documents_by_id_in_one_trip(client):
    for name in ("a", "b"):
        client.execute_command("RAG.ADD", "docs", name, "VALUES", 3, 0.6, 0.8, 0, "TEXT", f"text {name}")
    found = client.execute_command("RAG.MGET", "docs", "IDS", 3, "b", "none", "a")
    assert [row and dict(zip(row[::2], row[1::2], strict=True))[b"text"] for row in found] == [b"text b", None, b"text a"]
    assert client.execute_command("RAG.GET", "docs", "a")[:8] == found[2][:8]
    rows = client.execute_command("RAG.MGET", "docs", "IDS", 1, "a", "RETURN", 2, "id", "vector")
    assert rows[0][:3] == [b"id", b"a", b"vector"]
    assert np.allclose(np.frombuffer(rows[0][3], "<f4"), [0.6, 0.8, 0], atol=0.01)
    assert client.execute_command("RAG.MGET", "absent", "IDS", 2, "a", "b") == [None, None]
    for words in (("IDS", 0), ("IDS", 2, "a"), ("RETURN", 1, "id", "x"), ("IDS", 1, ""), ("IDS", 1_001, *["a"] * 1_001)):
        with pytest.raises(redis.ResponseError):
            client.execute_command("RAG.MGET", "docs", *words)
    client.execute_command("SET", "text", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.execute_command("RAG.MGET", "text", "IDS", 1, "a")


def test_results_are_passed_over_by_offset(client):
    for n in range(20):
        client.execute_command("RAG.ADD", "docs", f"d{n:02}", "VALUES", 2, 1, n / 10, "TEXT", "x" * 8)

    def ids(*words):
        rows = client.execute_command("RAG.SEARCH", "docs", "VALUES", 2, 1, 0, *words, "RETURN", 1, "id")
        return [row[1].decode() for row in rows]

    assert ids("COUNT", 5, "OFFSET", 5) == [f"d{n:02}" for n in range(5, 10)]
    assert ids("COUNT", 5, "OFFSET", 0) == ids("COUNT", 5)
    assert ids("COUNT", 5, "OFFSET", 18) == ["d18", "d19"]
    assert ids("COUNT", 5, "OFFSET", 30) == []
    assert ids("COUNT", 5, "OFFSET", 5, "TOKENS", 4) == ["d05", "d06"]
    assert ids("COUNT", 2, "OFFSET", 1, "MMR", 0.5) == ids("COUNT", 3, "MMR", 0.5)[1:]
    with pytest.raises(redis.ResponseError, match="at most 1000"):
        ids("COUNT", 600, "OFFSET", 600)
    rows = client.execute_command("RAG.SEARCH", "docs", "VALUES", 2, 1, 0, "COUNT", 1, "RETURN", 1, "vector")
    assert np.allclose(np.frombuffer(rows[0][1], "<f4"), [1, 0], atol=0.01)
