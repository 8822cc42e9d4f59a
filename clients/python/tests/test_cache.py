"""LLMCache over a real server: storing, finding, explaining, taking back; RESP2 and 3, decoded and not."""

from __future__ import annotations

import array

import numpy as np
import pytest
from words import embed

import llmcache
from llmcache import FP16, Context, F, LLMCache, Pipeline, errors


def test_an_answer_is_found_by_its_prompt_and_by_meaning(any_r):
    cache = LLMCache(any_r, "faq", embed=embed, threshold=0.6)
    id = cache.set(
        "how do I get my money back",
        "In 5 days. \N{EURO SIGN}",
        tags=["shop"],
        meta={"year": 2026},
        tokens=12,
        cost=0.002,
    )
    assert cache.get("how do I get my money back") == "In 5 days. \N{EURO SIGN}"
    assert cache.get("another") is None
    hit = cache.search("how can I get my money back")
    assert hit is not None
    assert (hit.id, hit.tier, hit.response, hit.meta, hit.tags) == (
        id,
        "semantic",
        "In 5 days. \N{EURO SIGN}",
        {"year": 2026},
        ["shop"],
    )
    assert 0.6 < hit.similarity < 1
    assert hit.ttl is None
    assert cache.search("completely other words here") is None
    exact = cache.search("how do I get my money back")
    assert exact is not None
    assert (exact.tier, exact.similarity) == ("exact", 1.0)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.hits_semantic) == (3, 2, 1)
    assert stats.usd_saved == pytest.approx(0.006)


def test_bytes_that_are_no_text_come_back(any_r):
    cache = LLMCache(any_r, "faq")
    cache.set(b"\xff\x00p", b"\xfe\x01")
    found = cache.get(b"\xff\x00p")
    assert found is not None
    assert found.encode("utf-8", "surrogateescape") == b"\xfe\x01"


def test_scopes_and_contexts_are_walls(r):
    eu = LLMCache(r, "faq", scope="eu", context=Context(model="a", system="s"))
    us = LLMCache(r, "faq", scope="us", context=Context(model="a", system="s"))
    other = LLMCache(r, "faq", scope="eu", context=Context(model="b", system="s"))
    eu.set("p", "4.90")
    assert eu.get("p") == "4.90"
    assert us.get("p") is None
    assert other.get("p") is None
    assert us.get("p", scope="eu") == "4.90"
    assert eu.get("p", context=Context(system="s", model="a")) == "4.90"


def test_a_context_refuses_what_differs_between_processes():
    with pytest.raises(TypeError, match="cannot hold"):
        Context(tools=[object()])
    assert str(Context(a=1, b={"x": {2, 1}})) == str(Context(b={"x": {1, 2}}, a=1))
    assert Context(a=b"\xff") != Context(a="\xff")
    assert "model='m'" in repr(Context(model="m"))
    assert len({Context(a=1), Context(a=1)}) == 1


@pytest.mark.parametrize(
    "form",
    [list, tuple, lambda v: np.array(v), lambda v: np.array(v, "f4"), lambda v: np.array(v, "f2"), lambda v: array.array("d", v),
     lambda v: np.array(v, "<f4").tobytes(), lambda v: FP16(np.array(v, "<f2").tobytes()), lambda v: memoryview(np.array(v, "<f4").tobytes())],
)  # fmt: skip
def test_vectors_come_in_every_form(r, form):
    cache = LLMCache(r, "faq")
    cache.set("a", "answer", vector=form([0.6, 0.8, 0.0]))
    hit = cache.search(vector=form([0.6, 0.8, 0.01]), threshold=0.9)
    assert hit is not None
    assert hit.response == "answer"


def test_filters_ages_and_many_hits(r):
    cache = LLMCache(r, "faq")
    for year in range(2020, 2027):
        cache.set(
            f"q{year}",
            str(year),
            vector=[1.0, year - 2019, 0.0],
            meta={"year": year, "tags": ["x"], "on": year % 2 == 0},
        )
    found = cache.search_all(vector=[1.0, 7.0, 0.0], count=3, threshold=0.5)
    assert [hit.response for hit in found] == ["2026", "2025", "2024"]
    found = cache.search_all(vector=[1.0, 7.0, 0.0], threshold=-1, filter=(F.year >= 2021) & (F.year < 2024))
    assert sorted(hit.response for hit in found) == ["2021", "2022", "2023"]
    found = cache.search_all(
        vector=[1.0, 7.0, 0.0], threshold=-1, filter=F.year.in_([2020, 2026]) | (F.year * 2 == 4044)
    )
    assert sorted(hit.response for hit in found) == ["2020", "2022", "2026"]
    found = cache.search_all(
        vector=[1.0, 7.0, 0.0], threshold=-1, filter=~(F.year > 2021) & F.tags.contains("x") & F.on.true()
    )
    assert [hit.response for hit in found] == ["2020"]
    assert cache.search(vector=[1.0, 7.0, 0.0], max_age=100) is not None
    assert len(cache.ids(filter=F.year == 2024)) == 1
    assert len(cache.ids()) == 7


def test_many_questions_in_one_trip(r):
    cache = LLMCache(r, "faq")
    for n in range(5):
        cache.set(f"q{n}", f"a{n}", vector=np.eye(8)[n])
    before = r.info("commandstats").get("cmdstat_LLMCACHE.MGETSEM", {"calls": 0})["calls"]
    found = cache.search_many([(None, np.eye(8)[n]) for n in range(6)])
    assert [hit and hit.response for hit in found] == ["a0", "a1", "a2", "a3", "a4", None]
    assert r.info("commandstats")["cmdstat_LLMCACHE.MGETSEM"]["calls"] - before == 1
    found = cache.search_many([("q1", np.eye(8)[1])] * 1_500)
    assert len(found) == 1_500
    assert {hit.response for hit in found if hit} == {"a1"}


def test_a_miss_is_explained(any_r):
    cache = LLMCache(any_r, "faq")
    assert cache.explain("x", vector=[1, 0]).reason == "no-cache"
    cache.set("p", "r", vector=[1.0, 0.0, 0.0])
    told = cache.explain("other", vector=[0.6, 0.8, 0.0])
    assert (told.status, told.reason, told.tier) == ("miss", "below-threshold", None)
    assert told.nearest is not None
    assert told.nearest["similarity"] == pytest.approx(0.6, abs=0.01)
    assert told.nearest["prompt"] == "p"
    assert told.threshold == pytest.approx(0.9)
    assert cache.explain("p", vector=[1.0, 0.0, 0.0]).hits[0].response == "r"


def test_answers_are_taken_back(r):
    cache = LLMCache(r, "faq")
    ids = [
        cache.set(f"q{n}", "a", vector=[1.0, n, 0.0], tags=["even" if n % 2 == 0 else "odd"], meta={"n": n})
        for n in range(10)
    ]
    assert cache.invalidate(tag="even", dry_run=True) == 5
    assert cache.invalidate(tag="even") == 5
    assert cache.get("q2") is None
    assert cache.invalidate(filter=F.n == 3) == 1
    assert cache.invalidate(ids=[i for i in ids[5:6] if i]) == 1
    assert cache.invalidate(near=[1.0, 9.0, 0.0], similarity=0.9999, soft=True) == 1
    stale = cache.search("q9", vector=[1.0, 9.0, 0.0])
    assert stale is None or stale.stale
    assert cache.delete(str(ids[7]), "nothing") == 1
    assert cache.delete() == 0
    assert cache.expire(str(ids[1]), 100)
    entry = cache.entry(str(ids[1]))
    assert entry is not None
    assert 90_000 < entry.ttl <= 100_000
    assert cache.expire(str(ids[1]), None)
    assert cache.entry("none") is None
    assert cache.clear() >= 1
    assert cache.get("q1") is None
    assert cache.drop()
    assert not cache.drop()
    with pytest.raises(TypeError, match="exactly one"):
        cache.invalidate(tag="a", all=True)
    with pytest.raises(TypeError, match="go together"):
        cache.invalidate(near=[1.0])


def test_settings_are_made_and_changed(any_r):
    cache = LLMCache(any_r, "faq")
    cache.create(dim=3, model="m", threshold=0.8, ttl=60, guard="STRICT")
    told = cache.config(threshold=0.85, ttl=120)
    assert (told.threshold, told.ttl) == (0.85, 120)
    assert cache.info().dim == 3
    cache.set_threshold(0.3)
    cache.set_ttl()
    assert cache.config().threshold == pytest.approx(0.7)
    with pytest.raises(TypeError, match="no setting"):
        cache.create(nonsense=1)
    with pytest.raises(errors.NoCache):
        LLMCache(any_r, "absent").info()
    with pytest.raises(errors.NoCache):
        LLMCache(any_r, "absent").stats()
    with pytest.raises(AttributeError):
        _ = told.nonsense


def test_each_error_has_its_class(any_r):
    cache = LLMCache(any_r, "faq")
    cache.create(dim=3)
    with pytest.raises(errors.DimMismatch, match="DIMMISMATCH"):
        cache.set("p", "r", vector=[1.0, 2.0])
    with pytest.raises(errors.BadFilter, match="at byte"):
        cache.search(vector=[1.0, 0.0, 0.0], filter=".year >=")
    with pytest.raises(errors.BadVector):
        cache.search(vector=b"abc")
    with pytest.raises(errors.LeaseLost):
        cache.set("p", "r", lease=b"0123456789abcdef")
    any_r.set("text", "x")
    with pytest.raises(errors.WrongType):
        LLMCache(any_r, "text").get("p")
    import redis

    with pytest.raises(redis.ResponseError):
        cache.search(vector=[1.0, 0.0, 0.0], ef=10**9)


def test_the_verbs_of_redisvl(r):
    cache = LLMCache(r, "faq", embed=embed)
    key = cache.store(
        "what is the capital of France", "Paris", metadata={"city": True}, filters={"country": "fr"}, ttl=60
    )
    rows = cache.check("what is the capital of France", num_results=2, filter_expression=F.country == "fr")
    assert [(row["response"], row["key"], row["metadata"]) for row in rows] == [
        ("Paris", key, {"city": True, "country": "fr"})
    ]
    assert rows[0]["vector_distance"] == pytest.approx(0, abs=1e-6)
    assert cache.check("what is the capital of France", return_fields=["response"]) == [
        {"key": key, "response": "Paris"}
    ]
    assert cache.check("no such thing", distance_threshold=0.05) == []


def test_methods_of_several_objects_go_in_one_trip(r):
    cache = LLMCache(r, "faq")
    cache.set("a", "1")
    before = r.info("stats")["total_net_input_bytes"], r.info("clients")
    with Pipeline(r) as pipe:
        one = pipe(cache.get, "a")
        two = pipe(cache.get, "b")
        bad = pipe(cache.search, vector=[1.0, 0.0], filter="((")
        many = pipe(cache.ids)
        stats = pipe(cache.stats)
    assert before
    assert one.value == "1"
    assert two.value is None
    with pytest.raises(errors.BadFilter):
        _ = bad.value
    assert len(many.value) == 1
    assert stats.value.lookups >= 2


def test_a_client_of_asyncio_is_refused_with_a_word(server):
    import redis.asyncio

    with pytest.raises(TypeError, match="asyncio"):
        LLMCache(redis.asyncio.Redis(port=server.port), "faq")
    import llmcache.asyncio

    with pytest.raises(TypeError, match="threads"):
        import redis

        llmcache.asyncio.LLMCache(redis.Redis(port=server.port), "faq")


def test_a_url_does_and_is_closed(server):
    cache = LLMCache(f"redis://127.0.0.1:{server.port}", "faq")
    cache.set("p", "r")
    assert cache.get("p") == "r"
    cache.close()


def test_half_of_a_surrogate_pair_is_kept(r):
    """A model may answer it, as JSON may hold it; an answer that was paid for is not lost by it."""
    cache = LLMCache(r, "faq")
    for text in ("a\ud800", "\udfff", "\ud83d half", "\udce9 and \udc80", "whole 👋"):
        assert cache.get_or_make(f"q{text}", lambda text=text: text) == text
        assert cache.get(f"q{text}") == text
    assert cache.info().entries == 5


@pytest.mark.parametrize("wrong", [None, 5, {"a": 1}, ["q"]])
def test_what_is_no_text_is_named(r, wrong):
    cache = LLMCache(r, "faq")
    for call in (
        lambda: cache.set(wrong, "a"),
        lambda: cache.set("q", wrong),
        lambda: cache.get(wrong),
        lambda: cache.get_or_make(wrong, lambda: "never"),
        lambda: llmcache.Session(r, "s").append(llmcache.Message("user", wrong)),
    ):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            call()
    assert r.dbsize() == 0


def test_one_text_is_no_list_of_tags(r):
    with pytest.raises(TypeError, match="'prices'"):
        LLMCache(r, "faq").set("q", "a", tags="prices")
    with pytest.raises(TypeError, match="'prices'"):
        llmcache.DocumentIndex(r, "docs").add([llmcache.Document("d", "t", vector=[1.0], tags="prices")])
    assert r.dbsize() == 0
