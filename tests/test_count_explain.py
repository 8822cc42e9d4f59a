"""COUNT, MAXAGE and EXPLAIN: several answers, young answers, and why there was none."""

import time

import pytest
from harness.expiry import set_active_expire
from harness.vectors import near, unit

EXPLAINED = [
    *("status", "reason", "threshold", "tier", "nearest", "guard", "guard_words", "alone"),
    *("candidates", "scanned", "filtered", "opened", "index", "filter_from_entry", "tokens", "embed_us", "hits"),
]


def test_count_answers_the_nearest_first(cache_by):
    for i in range(20):
        cache_by.setsem(f"p{i}", f"r{i}", near(unit(1), 0.99 - i * 0.004, seed=i))
    hits = cache_by.getsem_many(5, vector=unit(1))
    assert [h.prompt for h in hits] == [b"p0", b"p1", b"p2", b"p3", b"p4"]
    similarities = [h.similarity for h in hits]
    assert similarities == sorted(similarities, reverse=True)
    assert {h.tier for h in hits} == {"semantic"}


def test_count_is_a_most_and_the_threshold_holds(cache_by):
    for i in range(10):
        cache_by.setsem(f"p{i}", f"r{i}", near(unit(1), 0.94 if i < 4 else 0.8, seed=i))
    assert len(cache_by.getsem_many(100, vector=unit(1))) == 4
    assert cache_by.getsem_many(3, vector=unit(99)) == []


def test_count_one_answers_an_array(cache_by):
    cache_by.setsem("a", "A", unit(1))
    assert [h.response for h in cache_by.getsem_many(1, vector=unit(1))] == [b"A"]


def test_an_exact_hit_leads_and_is_not_repeated(cache_by):
    cache_by.setsem("this", "T", near(unit(1), 0.93))
    cache_by.setsem("that", "N", near(unit(1), 0.99))
    hits = cache_by.getsem_many(5, prompt="this", vector=unit(1))
    assert [(h.prompt, h.tier) for h in hits] == [(b"this", "exact"), (b"that", "semantic")]


def test_maxage_refuses_what_is_older(cache):
    cache.setsem("a", "A", unit(1))
    cache.client.execute_command("DEBUG", "SLEEP", 3.1)
    assert cache.explain(vector=unit(1), maxage=3)["reason"] == "max-age"
    cache.setsem("b", "B", unit(2))
    assert cache.getsem(vector=unit(1), maxage=3) is None
    assert cache.getsem(prompt="a", maxage=3) is None
    assert cache.getsem(vector=unit(1), maxage=100).response == b"A"
    assert cache.getsem(vector=unit(2), maxage=3).response == b"B"


def test_explain_of_a_hit(cache_by):
    id_ = cache_by.setsem("a", "A", unit(1))
    told = cache_by.explain(vector=near(unit(1), 0.97))
    assert list(told) == EXPLAINED
    assert (told["status"], told["reason"], told["tier"]) == ("hit", "hit", "semantic")
    assert told["threshold"] == pytest.approx(0.9)
    assert told["nearest"]["id"] == id_
    assert told["nearest"]["prompt"] == b"a"
    assert told["nearest"]["similarity"] == pytest.approx(0.97, abs=2e-3)
    assert [h.id for h in told["hits"]] == [id_]
    assert (told["candidates"], told["index"]) == (1, "flat")
    assert told["opened"] == 1


def test_explain_of_an_exact_hit(cache_by):
    cache_by.set("a", "A")
    told = cache_by.explain(prompt="a")
    assert (told["status"], told["tier"], len(told["hits"])) == ("hit", "exact", 1)
    assert told["nearest"] is None
    assert told["index"] == "none"


def test_explain_below_the_threshold_names_the_nearest(cache_by):
    for i in range(10):
        cache_by.setsem(f"p{i}", "r", near(unit(1), 0.8 - i * 0.05, seed=i))
    told = cache_by.explain(prompt="other", vector=unit(1))
    assert (told["status"], told["reason"]) == ("miss", "below-threshold")
    assert told["nearest"]["prompt"] == b"p0"
    assert told["nearest"]["similarity"] == pytest.approx(0.8, abs=3e-3)
    assert told["candidates"] == 10
    assert told["scanned"] >= 10
    assert told["hits"] == []
    assert told["tier"] is None


def test_explain_of_an_empty_scope(cache_by):
    cache_by.setsem("a", "A", unit(1), scope="alice")
    told = cache_by.explain(prompt="a", vector=unit(1), scope="bob")
    assert (told["status"], told["reason"]) == ("miss", "empty")
    assert (told["nearest"], told["candidates"]) == (None, 0)


def test_explain_of_a_filtered_miss(cache_by):
    for i in range(7):
        cache_by.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i), meta={"year": 2000 + i})
    told = cache_by.explain(vector=unit(1), filter=".year > 2100")
    assert (told["status"], told["reason"], told["filtered"]) == ("miss", "filter", 7)


def test_explain_of_an_expired_entry(server, cache_by):
    set_active_expire(cache_by.client, False)
    cache_by.setsem("a", "A", unit(1), px=20)
    time.sleep(0.06)
    told = cache_by.explain(vector=unit(1))
    assert (told["status"], told["reason"]) == ("miss", "expired")


def test_explain_on_an_absent_cache(cache_by):
    told = cache_by.explain(prompt="a", vector=unit(1))
    assert (told["status"], told["reason"]) == ("miss", "no-cache")
    assert cache_by.client.dbsize() == 0


def test_explain_takes_count(cache_by):
    for i in range(5):
        cache_by.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i))
    assert len(cache_by.explain(vector=unit(1), count=3)["hits"]) == 3


def test_an_index_opens_few_entries(cache):
    cache.fill(2_000)
    told = cache.explain(vector=unit(5), threshold=-1, count=10)
    assert told["candidates"] == 2_000
    assert told["opened"] <= 18
