"""Entry ids: NX, replacing, and ids that the caller gives."""

import pytest
from harness.names import entry_id, entry_key
from harness.vectors import unit


@pytest.fixture
def server(emptied):
    return emptied


def test_nx_stores_what_is_new(cache_by):
    assert cache_by.setsem("a", "A", unit(1), nx=True) == entry_id("a")
    assert cache_by.get("a") == b"A"


def test_nx_leaves_what_is_there_and_answers_null(cache_by):
    cache_by.setsem("a", "A", unit(1), ex=100)
    before = cache_by.client.execute_command("DEBUG", "DIGEST")
    assert cache_by.setsem("a", "B", unit(2), nx=True, ex=5) is None
    assert cache_by.get("a") == b"A"
    assert cache_by.getsem(vector=unit(2)) is None
    assert cache_by.client.execute_command("DEBUG", "DIGEST") == before
    assert cache_by.client.ttl(cache_by.key_of(entry_id("a"))) > 90


def test_nx_goes_by_scope_and_context(cache):
    cache.set("a", "A", scope="s")
    assert cache.set("a", "B", scope="t", nx=True) == entry_id("a", "t")


def test_nx_goes_by_id(cache):
    cache.set("a", "A", id="one")
    assert cache.set("b", "B", id="one", nx=True) is None
    assert cache.get("a") == b"A"
    assert cache.get("b") is None


def test_nx_goes_by_digest_too_when_an_id_is_given(cache):
    cache.set("a", "A", id="one")
    assert cache.set("a", "B", id="two", nx=True) is None
    assert cache.get("a") == b"A"
    assert cache.entry("two") is None


def test_nx_stores_after_the_old_one_expired(cache):
    cache.set("a", "A", px=1)
    cache.client.execute_command("DEBUG", "SLEEP", 0.02)
    assert cache.set("a", "B", nx=True) is not None
    assert cache.get("a") == b"B"


def test_an_id_names_the_entry_key_and_the_hit(cache_by):
    assert cache_by.setsem("a", "A", unit(1), id="doc:42") == "doc:42"
    assert cache_by.client.exists(entry_key("faq", cache_by.uid, "doc:42")) == 1
    assert cache_by.getsem(prompt="a").id == "doc:42"
    assert cache_by.getsem(vector=unit(1)).id == "doc:42"
    assert cache_by.entry("doc:42")["response"] == b"A"
    assert cache_by.get("a") == b"A"


def test_the_same_id_replaces_whatever_prompt_it_had(cache):
    cache.setsem("old question", "O", unit(1), id="x")
    cache.setsem("new question", "N", unit(2), id="x")
    assert cache.get("old question") is None
    assert cache.getsem(vector=unit(1)) is None
    assert cache.get("new question") == b"N"
    assert (cache.info()["entries"], cache.client.dbsize()) == (1, 2)


def test_the_same_prompt_replaces_whatever_id_it_had(cache):
    cache.setsem("q", "first", unit(1), id="x")
    cache.setsem("q", "second", unit(2), id="y")
    assert cache.entry("x") is None
    assert cache.getsem(prompt="q").id == "y"
    assert (cache.info()["entries"], cache.client.dbsize()) == (1, 2)


def test_a_store_without_id_replaces_one_with_an_id(cache):
    cache.setsem("q", "first", unit(1), id="x")
    assert cache.setsem("q", "second", unit(2)) == entry_id("q")
    assert cache.entry("x") is None
    assert cache.get("q") == b"second"
    assert (cache.info()["entries"], cache.client.dbsize()) == (1, 2)


def test_a_store_with_an_id_replaces_one_without(cache):
    digest = cache.setsem("q", "first", unit(1))
    assert cache.setsem("q", "second", unit(2), id="x") == "x"
    assert cache.entry(digest) is None
    assert cache.get("q") == b"second"
    assert (cache.info()["entries"], cache.client.dbsize()) == (1, 2)


def test_where_id_and_digest_name_two_entries_both_are_replaced(cache):
    cache.setsem("p1", "1", unit(1), id="x")
    cache.setsem("p2", "2", unit(2), id="y")
    cache.setsem("p1", "3", unit(3), id="y")
    assert cache.entry("x") is None
    assert cache.get("p2") is None
    assert (cache.getsem(prompt="p1").id, cache.get("p1")) == ("y", b"3")
    assert cache.getsem(vector=unit(1)) is None
    assert cache.getsem(vector=unit(2)) is None
    assert (cache.info()["entries"], cache.client.dbsize()) == (1, 2)


def test_an_id_may_hold_any_character_but_control_characters(cache):
    for id_ in ["a b", "x}y{z", "ümläut", "a" * 128, ":", "%00"]:
        assert cache.set(f"prompt {id_}", id_, id=id_) == id_
        assert cache.get(f"prompt {id_}") == id_.encode()
        assert cache.getsem(prompt=f"prompt {id_}").id == id_
    assert cache.info()["entries"] == 6


@pytest.mark.parametrize("given", [{}, {"id": "mine"}])
def test_del_takes_entries_by_id(cache_by, given):
    id_ = cache_by.setsem("a", "A", unit(1), **given)
    other = cache_by.setsem("b", "B", unit(2))
    assert cache_by.delete(id_, "no such id", id_) == 1
    assert cache_by.get("a") is None
    assert cache_by.getsem(vector=unit(1)) is None
    assert cache_by.scan_ids() == [other]
    assert cache_by.client.dbsize() == 2


def test_del_counts_what_it_deleted(cache):
    ids = cache.fill(10)
    assert cache.delete(*ids, "nothing") == 10
    assert cache.delete(*ids) == 0
    assert cache.client.keys() == [b"faq"]


def test_a_deleted_prompt_can_be_stored_again(cache):
    id_ = cache.setsem("a", "A", unit(1), id="x")
    cache.delete(id_)
    cache.setsem("a", "B", unit(1))
    assert cache.get("a") == b"B"
    assert cache.getsem(vector=unit(1)).id == entry_id("a")


def test_scan_lists_every_id_once(cache_by):
    ids = cache_by.fill(500) + [cache_by.set("named", "n", id="mine")]
    for count in (None, 1, 7, 1_000):
        assert sorted(cache_by.scan_ids(count=count)) == sorted(ids)


def test_scan_lists_what_stays_while_others_come_and_go(cache):
    stay = cache.fill(300)
    go = cache.fill(300, start=300)
    seen, cursor, step = [], b"0", 0
    while True:
        cursor, page = cache.run("SCAN", cursor, "COUNT", 20)
        seen += [id_.decode() for id_ in page]
        cache.delete(*go[step * 10 : step * 10 + 10] or ["none"])
        cache.set(f"late {step}", "x")
        step += 1
        if cursor == b"0":
            break
        assert step < 2_000
    assert set(stay) <= set(seen)
    assert len([id_ for id_ in seen if id_ in set(stay)]) == len(stay)


def test_scan_of_an_absent_cache_is_an_empty_page(cache_by):
    assert cache_by.run("SCAN", 0) == [b"0", []]
