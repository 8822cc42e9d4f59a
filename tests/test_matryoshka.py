"""MATRYOSHKA: the index compares the first dimensions, whole vectors decide what is answered."""

import numpy as np
import pytest
from harness.cache import Cache
from harness.families import Documents
from harness.replication import pair
from harness.vectors import cosine, fp32, near, normalised, unit, units
from harness.waiting import wait_until
from harness.wire import Failure

DIM, FIRST = 128, 32
QUANTS = {"NONE": 1e-5, "F16": 1e-3, "Q8": 1.5e-2}


def nested(count: int, seed: int = 3):
    """Vectors whose first dimensions carry most: of a quarter of the dimensions, some 9 tenths of the length squared."""
    weight = 0.96 ** np.arange(DIM)
    return [normalised(vector * weight) for vector in units(count, dim=DIM, seed=seed)]


def same_first(base, seed: int):
    """A vector with the first dimensions of another, and a rest of its own that is as long."""
    rest = unit(seed, dim=DIM - FIRST)
    return np.concatenate([base[:FIRST], rest * np.linalg.norm(base[FIRST:])])


def best(vectors, query, count: int) -> list[int]:
    return np.argsort(-(np.array(vectors) @ query), kind="stable")[:count].tolist()


def built(cache: Cache) -> None:
    wait_until(lambda: cache.info()["tail"] == 0, "the graph is built")


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def docs(server):
    return Documents(server.client(), "docs")


def filled(docs: Documents, vectors, **given) -> None:
    docs.run("CREATE", "DIM", DIM, "MATRYOSHKA", FIRST, *(word for pair in given.items() for word in pair))
    docs.bulk(("RAG.ADD", "docs", f"d{i}", *fp32(vector), "TEXT", "t", "META", f'{{"n":{i % 7}}}') for i, vector in enumerate(vectors))


@pytest.mark.parametrize("family", ["LLMCACHE", "RAG"])
def test_the_setting_is_checked_shown_and_fixed(server, family):
    with server.wire() as wire:
        for bad in (0, 31, 33, 100, 16_384, "x", -32):
            assert isinstance(wire(f"{family}.CREATE", "c", "MATRYOSHKA", bad), Failure), bad
        refused = wire(f"{family}.CREATE", "c", "DIM", 128, "MATRYOSHKA", 128)
        assert "MATRYOSHKA must be less than DIM" in refused.text
        assert wire("EXISTS", "c") == 0
        assert wire(f"{family}.CREATE", "c", "MATRYOSHKA", 64) == "OK"
        assert wire(f"{family}.CREATE", "c", "MATRYOSHKA", 64) == "OK"
        assert isinstance(wire(f"{family}.CREATE", "c"), Failure)
        assert isinstance(wire(f"{family}.CREATE", "c", "MATRYOSHKA", 32), Failure)
        reply = wire(f"{family}.INFO", "c")
        assert dict(zip(reply[::2], reply[1::2]))[b"matryoshka"] == 64
        assert wire(f"{family}.CREATE", "plain") == "OK"
        reply = wire(f"{family}.INFO", "plain")
        assert dict(zip(reply[::2], reply[1::2]))[b"matryoshka"] == 0
    if family == "LLMCACHE":
        cache = Cache(server.client(), "c")
        with pytest.raises(Exception, match="MATRYOSHKA is fixed"):
            cache.config_set("MATRYOSHKA", 32)
        assert cache.config()["matryoshka"] == 64


def test_embeddings_are_not_searched_and_have_none(server):
    with server.wire() as wire:
        assert isinstance(wire("EMBCACHE.CREATE", "e", "MODEL", "m", "DIM", 64, "MATRYOSHKA", 32), Failure)


def test_vectors_must_have_more_dimensions_and_something_in_the_first(server):
    empty = np.concatenate([np.zeros(FIRST), unit(1, dim=DIM - FIRST)])
    with server.wire() as wire:
        wire("LLMCACHE.CREATE", "faq", "MATRYOSHKA", FIRST)
        wire("RAG.CREATE", "docs", "MATRYOSHKA", FIRST, "DIM", DIM)
        for short in (1, FIRST):
            refused = wire("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", *fp32(unit(1, dim=short)))
            assert (refused.word, "compares the first 32" in refused.text) == ("DIMMISMATCH", True)
        for call in (
            ("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", *fp32(empty)),
            ("LLMCACHE.GETSEM", "faq", *fp32(empty)),
            ("LLMCACHE.MGETSEM", "faq", 2, *fp32(unit(1, dim=DIM)), *fp32(empty)),
            ("LLMCACHE.FETCH", "faq", "PROMPT", "p", *fp32(empty)),
            ("RAG.ADD", "docs", "a", *fp32(empty), "TEXT", "t"),
            ("RAG.MADD", "docs", 2, "a", *fp32(unit(1, dim=DIM)), "TEXT", "t", "b", *fp32(empty), "TEXT", "t"),
            ("RAG.SEARCH", "docs", *fp32(empty)),
        ):
            refused = wire(*call)
            assert isinstance(refused, Failure) and refused.word == "BADVECTOR", (call[0], refused)
        assert wire("DBSIZE") == 2
        assert wire("LLMCACHE.INVALIDATE", "faq", "NEAR", *fp32(empty), "SIMILARITY", 0.5) == 0


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
@pytest.mark.parametrize("quant", QUANTS)
def test_similarity_and_order_are_those_of_the_whole_vectors(docs, index, quant):
    vectors = nested(600)
    filled(docs, vectors, INDEX=index, QUANT=quant)
    built(docs)
    found_of_ten = 0
    for seed in range(40):
        query = near(vectors[seed * 11], 0.7, seed=seed) if seed % 2 else nested(40, seed=9)[seed]
        found = docs.search(query, count=10)
        similarities = [hit["similarity"] for hit in found]
        assert similarities == sorted(similarities, reverse=True)
        for hit in found:
            assert hit["similarity"] == pytest.approx(cosine(vectors[int(hit["id"][1:])], query), abs=QUANTS[quant])
        found_of_ten += len({int(hit["id"][1:]) for hit in found} & set(best(vectors, query, 10)))
    assert found_of_ten >= 360, "of the best ten of forty questions"


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
@pytest.mark.parametrize("quant", QUANTS)
def test_a_stored_vector_finds_itself_first(docs, index, quant):
    bases = nested(40)
    # Of each there are more whose first dimensions are the same: as many as are compared whole, or as a graph links.
    more = 20 if index == "FLAT" else 7
    vectors = [v for n, base in enumerate(bases) for v in (base, *(same_first(base, 100 * n + i) for i in range(more)))]
    filled(docs, vectors, INDEX=index, QUANT=quant)
    built(docs)
    for i in range(0, len(vectors), 7):
        (found,) = docs.search(vectors[i], count=1)
        assert (found["id"], found["similarity"]) == (b"d%d" % i, 1.0)


def test_the_threshold_is_that_of_the_whole_vector(server):
    cache = Cache(server.client())
    cache.create(dim=DIM, matryoshka=FIRST, threshold="0.97", quant="NONE", guard="OFF")
    base = nested(1)[0]
    cache.setsem("same beginning", "R", same_first(base, 5))
    explained = cache.explain(vector=base)
    assert cache.getsem(vector=base) is None
    assert explained["reason"] == "below-threshold"
    assert explained["nearest"]["similarity"] == pytest.approx(cosine(base, same_first(base, 5)), abs=1e-5)
    cache.setsem("near", "N", near(base, 0.98))
    hit = cache.getsem(vector=base)
    assert (hit.response, hit.similarity) == (b"N", pytest.approx(0.98, abs=1e-5))
    # A filter, a scope and the statistics of what was refused are as ever.
    cache.setsem("scoped", "S", base, scope="eu", meta={"n": 1})
    assert cache.getsem(vector=base).response == b"N"
    assert cache.getsem(vector=base, scope="eu", filter=".n == 1").response == b"S"
    assert cache.getsem(vector=base, scope="eu", filter=".n == 2") is None


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
def test_filters(docs, index):
    vectors = nested(700)
    filled(docs, vectors, INDEX=index)
    built(docs)
    for seed in range(10):
        query = near(vectors[seed * 13], 0.8, seed=seed)
        found = [int(id_[1:]) for id_ in docs.ids(query, count=5, filter=".n == 3")]
        passing = [i for i in range(700) if i % 7 == 3]
        truth = [passing[place] for place in best([vectors[i] for i in passing], query, 5)]
        assert all(i % 7 == 3 for i in found) and len(found) == 5
        assert len(set(found) & set(truth)) >= 4


def test_invalidation_by_radius_misses_none(server):
    cache = Cache(server.client())
    cache.create(dim=DIM, matryoshka=FIRST, quant="NONE", guard="OFF")
    base = nested(1)[0]
    flat = unit(77, dim=DIM)
    vectors = [near(centre, s / 100, seed=s + 100) for centre in (base, flat) for s in range(-100, 101, 4)]
    vectors += [same_first(base, seed) for seed in range(50)]
    for i, vector in enumerate(vectors):
        cache.setsem(f"p{i}", "R", vector)
    cache.set("exact alone", "E")
    for centre in (base, flat, -flat, unit(5, dim=DIM)):
        for least in (0.99, 0.9, 0.505, 0.105, -0.495):
            expected = sum(cosine(vector, centre) >= least for vector in vectors)
            told = cache.run("INVALIDATE", "NEAR", *fp32(centre), "SIMILARITY", least, "DRYRUN")
            assert told == expected, least
    expected = sum(cosine(vector, base) >= 0.605 for vector in vectors)
    assert cache.run("INVALIDATE", "NEAR", *fp32(base), "SIMILARITY", 0.605) == expected
    assert cache.info()["entries"] == len(vectors) + 1 - expected


def check_answers(docs: Documents, vectors) -> None:
    info = docs.info()
    assert (info["matryoshka"], info["dim"], info["vectors"]) == (FIRST, DIM, len(vectors))
    for i in range(0, len(vectors), 37):
        (found,) = docs.search(vectors[i], count=1)
        assert (found["id"], found["similarity"]) == (b"d%d" % i, 1.0)


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
def test_it_survives_saving_loading_and_rewriting(fleet, index):
    server = fleet.launch(appendonly="yes", aof_use_rdb_preamble="no", enable_debug_command="yes")
    docs = Documents(server.client(), "docs")
    vectors = nested(400)
    filled(docs, vectors, INDEX=index)
    built(docs)
    bytes_before = docs.info()["index_bytes"]
    digest = server.client().execute_command("DEBUG", "DIGEST")
    client = server.client()
    client.execute_command("DEBUG", "RELOAD")
    check_answers(docs, vectors)
    assert docs.info()["index_bytes"] == pytest.approx(bytes_before, rel=0.1)
    client.bgrewriteaof()
    wait_until(
        lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0
        and client.info("persistence")["aof_rewrite_scheduled"] == 0,
        "the AOF is rewritten",
    )
    client.execute_command("DEBUG", "LOADAOF")
    wait_until(lambda: docs.info()["filling"] == 0 and docs.info()["vectors"] == len(vectors), "entries are taken over")
    check_answers(docs, vectors)
    assert client.execute_command("DEBUG", "DIGEST") == digest


def test_entries_that_come_before_their_container_are_coded_anew(server):
    docs = Documents(server.client(), "docs")
    vectors = nested(300)
    filled(docs, vectors)
    client = docs.client
    head = client.dump("docs")
    entries = {key: client.dump(key) for key in client.keys("{docs}*")}
    client.flushall()
    for key, dump in entries.items():
        client.restore(key, 0, dump)
    client.restore("docs", 0, head)
    wait_until(lambda: docs.info()["filling"] == 0 and docs.info()["vectors"] == len(vectors), "entries are taken over")
    check_answers(docs, vectors)


def test_a_replica_answers_alike(fleet):
    both = pair(fleet)
    docs = Documents(both.primary.client(), "docs")
    vectors = nested(300)
    filled(docs, vectors)
    both.assert_equal()
    check_answers(Documents(both.replica.client(), "docs"), vectors)


def test_an_index_of_the_first_dimensions_is_smaller(server):
    taken = {}
    for name, more in (("whole", ()), ("first", ("MATRYOSHKA", 64))):
        docs = Documents(server.client(), name)
        docs.run("CREATE", "DIM", 512, *more)
        docs.bulk(("RAG.ADD", name, f"d{i}", *fp32(v), "TEXT", "t") for i, v in enumerate(units(512, dim=512, seed=2)))
        taken[name] = docs.info()["index_bytes"] / 512
    # A code of 512 bytes and a plane of 128 against a code of 64.
    assert taken["whole"] - taken["first"] == pytest.approx(512 + 128 - 64, abs=40)
