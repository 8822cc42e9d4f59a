"""FILTER: conditions on META in the syntax of VSIM."""

import pytest
from harness.vectors import near, unit

ENTRIES = {
    "old": {"year": 1999, "model": "gpt-2", "tags": ["a", "b"], "ok": True},
    "mid": {"year": 2020, "model": "gpt-3", "price": 1.5, "ok": False},
    "new": {"year": 2024, "model": "gpt-5", "price": 0.25, "lang": "de"},
    "bare": None,
}

CASES = [
    (".year >= 2020", {"mid", "new"}),
    (".year > 2020", {"new"}),
    (".year < 2020", {"old"}),
    (".year <= 2020", {"old", "mid"}),
    (".year == 2020", {"mid"}),
    (".year != 2020", {"old", "new"}),
    ('.model == "gpt-5"', {"new"}),
    (".model == 'gpt-5'", {"new"}),
    ('.year >= 2020 and .model == "gpt-5"', {"new"}),
    ('.year >= 2020 && .model == "gpt-5"', {"new"}),
    ('.year == 1999 or .model == "gpt-5"', {"old", "new"}),
    ('.year == 1999 || .model == "gpt-5"', {"old", "new"}),
    ('not (.year >= 2020) and .year > 0', {"old"}),
    ('!(.year >= 2020) and .year > 0', {"old"}),
    ('.model in ["gpt-2", "gpt-5"]', {"old", "new"}),
    (".year in [1999, 2024]", {"old", "new"}),
    ('"a" in .tags', {"old"}),
    ('.year > 2000 and (.model == "gpt-3" or .price < 1)', {"mid", "new"}),
    # A member that an entry lacks makes the whole expression false for it, `or` included.
    ('.year > 2000 and (.lang == "de" or .price > 1)', {"new"}),
    ("not (.lang == 'fr')", {"new"}),
    (".price * 4 == 1", {"new"}),
    (".year - 20 < 1980", {"old"}),
    (".year % 2 == 0", {"mid", "new"}),
    (".price + .price == 3", {"mid"}),
    (".ok == true", {"old"}),
    (".ok == 1", {"old"}),
    ('.nothing == "x"', set()),
]


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def filled(cache):
    for number, (prompt, meta) in enumerate(ENTRIES.items()):
        cache.setsem(prompt, prompt.upper(), near(unit(1), 0.95, seed=number), meta=meta)
    return cache


@pytest.mark.parametrize(("expression", "wanted"), CASES, ids=[c[0] for c in CASES])
def test_an_expression_chooses(filled, expression, wanted):
    hits = filled.getsem_many(10, vector=unit(1), filter=expression)
    assert {h.prompt.decode() for h in hits} == wanted


@pytest.mark.parametrize(("expression", "wanted"), CASES, ids=[c[0] for c in CASES])
def test_an_expression_judges_an_exact_hit_too(filled, expression, wanted):
    for prompt in ENTRIES:
        hit = filled.getsem(prompt=prompt, filter=expression)
        assert (hit is not None) == (prompt in wanted), prompt


def test_the_nearest_that_passes_is_served(cache):
    for i in range(300):
        cache.setsem(f"p{i}", f"r{i}", near(unit(1), 0.999 - i * 1e-4, seed=i), meta={"n": i})
    hit = cache.getsem(vector=unit(1), filter=".n >= 250")
    assert hit.prompt == b"p250"


def test_a_filter_that_refuses_everything_is_a_miss(filled):
    assert filled.getsem(vector=unit(1), filter=".year > 3000") is None
    assert filled.explain(vector=unit(1), filter=".year > 3000")["reason"] == "filter"


def test_fields_of_entries_whose_meta_is_larger_than_a_record(cache):
    """META beyond the compact record is read from the entry itself: same answers."""
    for i in range(20):
        meta = {f"pad{k}": "x" * 40 for k in range(50)} | {"n": i}
        cache.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i), meta=meta)
    hits = cache.getsem_many(20, vector=unit(1), filter=".n in [3, 17]")
    assert {h.prompt for h in hits} == {b"p3", b"p17"}
    assert cache.getsem(vector=unit(1), filter='.pad49 == "no"') is None


def test_text_with_every_kind_of_character(cache):
    cache.setsem("a", "A", unit(1), meta={"name": 'O"Neil\n\u00e9', "empty": ""})
    assert cache.getsem(vector=unit(1), filter='.name == "O\\"Neil\\n\u00e9"') is not None
    assert cache.getsem(vector=unit(1), filter='.empty == ""') is not None
    assert cache.getsem(vector=unit(1), filter='.name == "O"') is None


def test_scan_takes_the_same_filter(filled):
    ids = filled.scan_ids(filter=".year >= 2020")
    prompts = {bytes(filled.entry(id_)["prompt"]) for id_ in ids}
    assert prompts == {b"mid", b"new"}
