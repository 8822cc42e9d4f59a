"""FILTER: conditions on META in the syntax of VSIM."""

import base64
import json
import struct
from pathlib import Path

import pytest
import redis
from harness.cache import Cache, options
from harness.vectors import fp32, near, unit

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
    (".year != 2020", {"old", "new", "bare"}),
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
    # A member that an entry lacks is null.
    ('.year > 2000 and (.lang == "de" or .price > 1)', {"mid", "new"}),
    ("not (.lang == 'fr')", {"old", "mid", "new", "bare"}),
    ("not exists(.lang)", {"old", "mid", "bare"}),
    ("exists(.lang) and .lang != 'fr'", {"new"}),
    (".lang == null and exists(.tags)", {"old"}),
    (".price < 1", {"new"}),
    ('.tags contains "b"', {"old"}),
    ('.tags[0] == "a" or .tags[1] == "a"', {"old"}),
    ('.model >= "gpt-3"', {"mid", "new"}),
    ('.year < "2020"', set()),
    (".price * 4 == 1", {"new"}),
    (".year - 20 < 1980", {"old"}),
    (".year % 2 == 0", {"mid", "new"}),
    (".price + .price == 3", {"mid"}),
    (".ok == true", {"old"}),
    (".ok == 1", {"old"}),
    ('.nothing == "x"', set()),
]


BIG = 700_000_000_000_000_000


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


def test_whole_numbers_are_exact_wherever_a_filter_is_taken(cache):
    for i in range(1, 5):
        cache.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i), meta={"user": BIG + i, "ids": [BIG + i]})
    for expression in (f".user == {BIG + 4}", f"{BIG + 4} in .ids", f".user > {BIG + 3}"):
        hits = cache.getsem_many(10, vector=unit(1), filter=expression)
        assert [h.prompt for h in hits] == [b"p4"], expression
        assert len(cache.scan_ids(filter=expression)) == 1
        assert cache.getsem(prompt="p3", filter=expression) is None
        assert cache.run("INVALIDATE", "FILTER", expression, "DRYRUN") == 1
    assert cache.run("INVALIDATE", "FILTER", f".user == {BIG + 4}") == 1
    assert cache.info()["entries"] == 3


def test_documents_and_chunks_take_the_same_filter(server):
    client = server.client()
    client.execute_command("RAG.CREATE", "docs", "DIM", 3)
    client.execute_command("KVCHUNK.CREATE", "kv", "CHUNK", 1)
    for i in range(1, 5):
        meta = json.dumps({"user": BIG + i, "day": f"2025-01-0{i}", "a b": {"k": i}})
        client.execute_command("RAG.ADD", "docs", f"d{i}", "TEXT", "t", "META", meta, "VALUES", 3, 1, 0, i / 10)
        client.execute_command("KVCHUNK.PUT", "kv", "TOKENS", struct.pack("<I", i), "META", meta, "PAYLOAD", 1, "x")
    for expression in (
        f".user == {BIG + 4}", '.day >= "2025-01-04"', '."a b".k == 4', "not (.user != 700000000000000004)",
    ):
        found = client.execute_command("RAG.SEARCH", "docs", "VALUES", 3, 1, 0, 0, "FILTER", expression, "RETURN", 1, "id")
        assert found == [[b"id", b"d4"]], expression
        assert client.execute_command("RAG.SCAN", "docs", 0, "FILTER", expression)[1] == [b"d4"]
        assert len(client.execute_command("KVCHUNK.SCAN", "kv", 0, "FILTER", expression)[1]) == 1
        for i in range(1, 5):
            matched = client.execute_command("KVCHUNK.MATCH", "kv", "TOKENS", struct.pack("<I", i), "FILTER", expression)
            assert matched[0] == (i == 4), (expression, i)


def opened_for(cache, expression):
    return cache.explain(vector=unit(1), filter=expression, threshold=-1)["filter_from_entry"]


def test_arrays_nested_members_and_long_meta_are_judged_without_opening_entries(cache):
    for i in range(50):
        meta = {"tags": ["x", f"t{i}"], "o": {"n": i}, "abstract": "word " * 150, "n": i}
        cache.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i), meta=meta)
    for expression in ('"t7" in .tags', ".o.n == 7", "exists(.nothing) or .n == 7", '"word" in .abstract and .n == 7'):
        hits = cache.getsem_many(10, vector=unit(1), filter=expression)
        assert [h.prompt for h in hits] == [b"p7"], expression
        assert opened_for(cache, expression) == 0, expression


def test_a_document_that_passes_is_opened_once(server):
    """Its record is believed: it is opened as served, and counts as used by that."""
    client = server.client()
    client.config_set("llmcache.check-work", "yes")
    try:
        client.execute_command("RAG.CREATE", "docs", "DIM", 3)
        for i in range(20):
            meta = f'{{"n":{i % 2}}}'
            client.execute_command("RAG.ADD", "docs", f"d{i}", "TEXT", "t", "META", meta, "VALUES", 3, 1, 0, i / 20)
        query = ("RAG.SEARCH", "docs", "VALUES", 3, 1, 0, 0, "COUNT", 5, "RETURN", 1, "id")
        for tail in ((), ("FILTER", ".n == 0")):
            found = client.execute_command(*query, *tail)
            opened = int(server.info()["llmcache_last_command_keys"])
            # The key of the index may be one of them.
            assert len(found) == 5 and 5 <= opened <= 6, (tail, opened)
    finally:
        client.config_set("llmcache.check-work", "no")


def test_what_a_filter_asked_for_is_kept(cache):
    def fill(first):
        for i in range(first, first + 20):
            meta = {"body": f"{'long ' * 800}{i % 5}", "other": "y" * 3_000, "n": i}
            cache.setsem(f"p{i}", "r", near(unit(1), 0.95, seed=i), meta=meta)

    fill(0)
    assert opened_for(cache, ".n == 3") == 0
    before = cache.info()["index_bytes"]
    assert len(cache.getsem_many(20, vector=unit(1), filter='"long 3" in .body')) == 4
    assert opened_for(cache, '"long 3" in .body') == 0, "what was opened once is known"
    fill(20)
    assert opened_for(cache, '"long 4" in .body') == 0, "what comes later is kept from the start"
    assert len(cache.getsem_many(40, vector=unit(1), filter='"long 4" in .body')) == 8
    kept = cache.info()["index_bytes"] - before
    assert 40 * 4_000 < kept < 40 * 5_600, "the memory is that of the member asked for"
    # A search that met many entries which it could not judge has what it asked for kept, and goes on with that.
    assert opened_for(cache, '"yyyy" in .other') == 0
    assert cache.info()["index_bytes"] - before - kept > 40 * 2_900, "the other is kept since it was asked for"


def test_a_filter_that_takes_too_long_on_one_entry_is_refused(cache):
    cache.setsem("p", "r", unit(1), meta={"a": list(range(9_000)), "n": 1})
    many = " or ".join(["-1 in .a"] * 20)
    message = "BADFILTER the expression takes more than 65536 steps on the META of one entry"
    for command in (
        ("GETSEM", *options({"vector": unit(1), "filter": many})),
        ("GETSEM", "PROMPT", "p", "FILTER", many),
        ("FETCH", "PROMPT", "p", "FILTER", many),
        ("SCAN", 0, "FILTER", many),
        ("INVALIDATE", "FILTER", many),
    ):
        with pytest.raises(redis.ResponseError, match=message):
            cache.run(*command)
    answers = cache.run("MGETSEM", 2, *fp32(unit(1)), *fp32(unit(2)), "FILTER", many)
    assert [type(answer) for answer in answers] == [redis.ResponseError] * 2
    assert cache.info()["entries"] == 1
    assert cache.getsem(prompt="p", filter="-1 in .a or .n == 1") is not None


def test_records_of_former_releases_are_read_and_brought_up(server):
    client = server.client()
    for value in json.loads((Path(__file__).parent / "data/first_records.json").read_text()):
        client.restore(base64.b64decode(value["key"]), 0, base64.b64decode(value["dump"]))
    cache = Cache(client)
    for expression, wanted in (
        (".user == 700000000000000001", {"numbers"}),
        (".user == 700000000000000002", set()),
        ('"x" in .tags', {"arrays"}),
        (".objects[0].k == 1", {"arrays"}),
        (".o.k == 7", {"nested"}),
        ('."a b" == 1 and .day > "2025"', {"nested"}),
        (".n == 3", {"long"}),
        ("not exists(.user) and not exists(.tags) and not exists(.o) and not exists(.n)", {"bare"}),
    ):
        for _ in range(2):
            hits = cache.getsem_many(10, vector=unit(1, 8), filter=expression)
            assert {h.prompt.decode() for h in hits} == wanted, expression
            assert len(cache.scan_ids(filter=expression)) == len(wanted), expression
        assert cache.explain(vector=unit(1, 8), filter=expression)["filter_from_entry"] == 0, expression
