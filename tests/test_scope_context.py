"""A lookup sees one pair of scope and context, and nothing of any other."""

import itertools

import pytest
from harness.names import entry_id
from harness.vectors import near, unit

PAIRS = list(itertools.product(["", "alice", "bob"], ["", "gpt-5", "gpt-5;t=0"]))


@pytest.fixture
def server(emptied):
    return emptied


def test_each_pair_answers_from_its_own_entries(cache_by):
    for scope, context in PAIRS:
        cache_by.setsem("q", f"{scope}|{context}", unit(1), scope=scope, context=context)
    for scope, context in PAIRS:
        wanted = f"{scope}|{context}".encode()
        assert cache_by.get("q", scope=scope, context=context) == wanted
        assert cache_by.getsem(vector=near(unit(1), 0.95), scope=scope, context=context).response == wanted


def test_an_absent_option_is_the_empty_string_and_not_all(cache):
    cache.setsem("q", "hers", unit(1), scope="alice")
    cache.setsem("q", "modelled", unit(1), context="gpt-5")
    assert cache.getsem(prompt="q", vector=unit(1)) is None
    assert cache.getsem(prompt="q", vector=unit(1), scope="", context="") is None
    cache.setsem("q", "nobody's", unit(1))
    assert cache.getsem(vector=unit(1), scope="", context="").response == b"nobody's"


def test_scope_and_context_do_not_stand_in_for_each_other(cache):
    cache.setsem("q", "scope x", unit(1), scope="x")
    assert cache.getsem(prompt="q", vector=unit(1), context="x") is None


def test_where_one_part_ends_matters(cache):
    """`a`+`bc` is not `ab`+`c`: the parts are hashed behind their lengths."""
    first = cache.setsem("q", "1", unit(1), scope="a", context="bc")
    second = cache.setsem("q", "2", unit(1), scope="ab", context="c")
    assert first == entry_id("q", "a", "bc") != second == entry_id("q", "ab", "c")
    assert cache.getsem(vector=unit(1), scope="a", context="bc").response == b"1"
    assert cache.getsem(vector=unit(1), scope="ab", context="c").response == b"2"


def test_binary_scopes_are_scopes(cache):
    cache.setsem("q", "1", unit(1), scope=b"\x00", context=b"\xff\x00")
    assert cache.getsem(vector=unit(1), scope=b"\x00", context=b"\xff\x00").response == b"1"
    assert cache.getsem(vector=unit(1), scope=b"", context=b"\xff\x00") is None


def test_the_nearest_of_another_scope_is_never_served(cache):
    cache.setsem("far", "own", near(unit(1), 0.92), scope="alice")
    for seed in range(200):
        cache.setsem(f"n{seed}", "foreign", near(unit(1), 0.999, seed=seed), scope=f"user {seed}")
    hits = cache.getsem_many(50, vector=unit(1), scope="alice", threshold=0)
    assert [h.response for h in hits] == [b"own"]


def test_a_thousand_scopes_of_one_entry_each(cache):
    pipe = cache.client.pipeline(transaction=False)
    for i in range(1_000):
        pipe.execute_command(
            *("LLMCACHE.SETSEM", "faq", "PROMPT", "q", "RESPONSE", f"r{i}", "SCOPE", f"s{i}"),
            *("VALUES", 3, 1, 2, i),
        )
    assert len(set(pipe.execute())) == 1_000
    for i in range(0, 1_000, 37):
        assert cache.getsem(vector=["VALUES", 3, 1, 2, i], scope=f"s{i}").response == b"r%d" % i
    assert cache.getsem(vector=["VALUES", 3, 1, 2, 3], scope="s1000") is None


def test_thousands_of_scopes(cache):
    """The table of scopes grows by rehashing and is split on the way. Its groups are read by aligned
    loads, so a server whose allocator aligns to 8 bytes crashed here once."""
    count = 6_000
    with cache.client.pipeline(transaction=False) as pipe:
        for i in range(count):
            pipe.execute_command(
                "LLMCACHE.SETSEM", "faq", "PROMPT", "q", "RESPONSE", str(i), "VALUES", 2, 1, i + 1, "SCOPE", f"s{i}"
            )
        pipe.execute()
    assert cache.info()["partitions"] == count
    for i in range(0, count, 101):
        assert cache.getsem(vector=["VALUES", 2, 1, i + 1], scope=f"s{i}").response == str(i).encode()
