"""The semantic tier: another prompt of like meaning, found by its vector."""

import numpy as np
import pytest
from harness import vectors
from harness.names import entry_id
from harness.vectors import cosine, near, unit

QUANTS = ["NONE", "F16", "Q8"]


@pytest.fixture
def server(emptied):
    return emptied


def test_a_near_vector_hits_and_tells_its_similarity(cache_by):
    stored, asked = unit(1), near(unit(1), 0.95)
    id_ = cache_by.setsem("How do I get my money back?", "30 days.", stored)
    hit = cache_by.getsem(prompt="Can I return this?", vector=asked)
    assert (hit.id, hit.tier) == (id_, "semantic")
    assert (hit.prompt, hit.response) == (b"How do I get my money back?", b"30 days.")
    assert hit.similarity == pytest.approx(0.95, abs=2e-3)


def test_a_vector_below_the_threshold_misses(cache_by):
    cache_by.setsem("a", "A", unit(1))
    assert cache_by.getsem(vector=near(unit(1), 0.85)) is None


def test_the_threshold_of_the_lookup_comes_before_the_cache_s(cache):
    cache.create(threshold=0.5)
    cache.setsem("a", "A", unit(1))
    asked = near(unit(1), 0.7)
    assert cache.getsem(vector=asked).similarity == pytest.approx(0.7, abs=2e-3)
    assert cache.getsem(vector=asked, threshold=0.75) is None
    assert cache.getsem(vector=near(unit(1), 0.4), threshold=0.3) is not None


def test_the_default_threshold_is_nine_tenths(cache):
    cache.setsem("a", "A", unit(1))
    assert cache.getsem(vector=near(unit(1), 0.91)) is not None
    assert cache.getsem(vector=near(unit(1), 0.89)) is None


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("form", vectors.FORMS)
def test_threshold_one_finds_the_identical_vector_and_no_other(cache, quant, form):
    cache.create(quant=quant, threshold=1)
    for seed in range(20):
        vector = vectors.FORMS[form](unit(seed, 48) * (seed + 0.5))
        cache.setsem(f"prompt {seed}", f"answer {seed}", vector)
        hit = cache.getsem(vector=vector)
        assert hit is not None, f"vector {seed} does not find itself"
        assert (hit.response, hit.similarity) == (b"answer %d" % seed, 1.0)
    assert cache.getsem(vector=near(unit(3, 48), 0.9)) is None


def test_threshold_zero_takes_all_but_opposite_vectors(cache):
    cache.setsem("a", "A", unit(1))
    assert cache.getsem(vector=near(unit(1), 0.05), threshold=0) is not None
    assert cache.getsem(vector=near(unit(1), -0.05), threshold=0) is None
    assert cache.getsem(vector=-unit(1), threshold=-1).similarity == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize(("quant", "error"), [("NONE", 1e-6), ("F16", 1e-3), ("Q8", 1.5e-2)])
def test_similarity_is_the_cosine_within_what_the_quantiser_states(cache, quant, error):
    cache.create(quant=quant)
    rng = np.random.default_rng(5)
    base = unit(0, 96)
    for i in range(40):
        asked = near(base, float(rng.uniform(-0.99, 0.99)), seed=i)
        cache.setsem("only", "one", base * 3.7)
        hit = cache.getsem(vector=asked * 0.01, threshold=-1)
        assert hit.similarity == pytest.approx(cosine(base, asked), abs=error)


def test_lengths_of_vectors_do_not_matter(cache):
    cache.setsem("a", "A", unit(1) * 1000)
    assert cache.getsem(vector=unit(1) * 0.001).similarity == pytest.approx(1.0, abs=1e-3)


def test_the_nearest_of_many_answers(cache):
    cache.fill(500)
    rows = vectors.units(500, seed=7)
    for i in range(0, 500, 25):
        hit = cache.getsem(vector=near(rows[i], 0.97, seed=i))
        assert hit.prompt == b"prompt %d" % i


def test_the_answer_is_the_brute_force_answer(cache):
    cache.create(quant="NONE")
    count, dim = 800, 64
    cache.fill(count, dim=dim, seed=3)
    rows = np.array(vectors.units(count, dim, seed=3))
    for query in vectors.units(40, dim, seed=4):
        exact = rows @ query
        # Scores are rounded to six decimals, ties go by id.
        best = sorted(range(count), key=lambda i: (-round(float(exact[i]), 6), entry_id(f"prompt {i}")))[:10]
        hits = cache.getsem_many(10, vector=query, threshold=-1)
        assert [h.prompt for h in hits] == [b"prompt %d" % i for i in best]
        for h, i in zip(hits, best, strict=True):
            assert h.similarity == pytest.approx(float(rows[i] @ query), abs=1e-5)


def test_an_exact_prompt_comes_before_a_nearer_vector(cache):
    cache.setsem("this one", "exact", unit(1))
    cache.setsem("that one", "near", unit(2))
    hit = cache.getsem(prompt="this one", vector=unit(2))
    assert (hit.response, hit.tier) == (b"exact", "exact")


def test_without_a_prompt_only_meaning_is_asked(cache):
    cache.setsem("a", "A", unit(1))
    assert cache.getsem(vector=unit(1)).tier == "semantic"


def test_a_second_store_replaces_the_vector(cache):
    cache.setsem("a", "A1", unit(1))
    cache.setsem("a", "A2", unit(2))
    assert cache.getsem(vector=unit(1)) is None
    assert cache.getsem(vector=unit(2)).response == b"A2"


def test_a_store_without_a_vector_takes_the_entry_out_of_the_semantic_tier(cache):
    cache.setsem("a", "A1", unit(1))
    cache.set("a", "A2")
    assert cache.getsem(vector=unit(1)) is None
    assert cache.get("a") == b"A2"


def test_a_lookup_on_an_absent_cache_is_a_miss_and_creates_nothing(cache_by):
    assert cache_by.getsem(prompt="a", vector=unit(1)) is None
    assert cache_by.getsem_many(5, vector=unit(1)) == []
    assert cache_by.client.dbsize() == 0


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 31, 33, 127, 384, 768, 1024, 1536, 3072, 16384])
def test_every_dimension_of_models_in_use_works(cache, dim):
    if dim == 1:
        vector, other = np.array([2.0]), np.array([-3.0])
    else:
        vector, other = unit(1, dim), near(unit(1, dim), 0.5)
    cache.setsem("a", "A", vector)
    assert cache.info()["dim"] == dim
    assert cache.getsem(vector=vector).response == b"A"
    assert cache.getsem(vector=other) is None


def test_the_first_vector_sets_the_dimension_when_create_did_not(cache):
    cache.create()
    cache.set("plain", "no vector yet")
    cache.setsem("a", "A", unit(1, 48))
    assert cache.info()["dim"] == 48
