"""Keyspace commands of Redis on cache keys and entry keys: what they do, and that nothing lies after."""

import time

import pytest
import redis
from harness.cache import Cache
from harness.vectors import unit, units
from harness.waiting import wait_until

COUNT = 40


@pytest.fixture
def filled(cache):
    cache.create(threshold="0.8", model="minilm")
    cache.ids = cache.fill(COUNT)
    return cache


def other_db(server, number=1):
    return server.client(db=number)


def all_found(cache, count=COUNT):
    return cache.found_by_meaning(range(count)) == set(range(count))


def nothing_found(cache, count=COUNT):
    return (
        not cache.found_by_meaning(range(count))
        and not any(cache.get(f"prompt {i}") for i in range(count))
    )


# The cache key.


@pytest.mark.parametrize("command", ["delete", "unlink"])
def test_deleting_the_cache_takes_its_entries(filled, command):
    assert getattr(filled.client, command)("faq") == 1
    assert nothing_found(filled)
    wait_until(lambda: filled.client.dbsize() == 0, "the entries are reaped")


@pytest.mark.parametrize("command", ["delete", "unlink"])
def test_a_new_cache_of_the_old_name_never_answers_from_the_old_life(filled, command):
    old_uid = filled.uid
    getattr(filled.client, command)("faq")
    filled.setsem("prompt 3", "new", unit(500))
    assert filled.uid != old_uid
    assert filled.get("prompt 3") == b"new"
    assert filled.get("prompt 4") is None
    assert filled.found_by_meaning(range(COUNT)) == set()
    wait_until(lambda: filled.client.dbsize() == 2, "the old entries are reaped")
    assert filled.get("prompt 3") == b"new"


def test_overwriting_the_cache_with_a_string_takes_its_entries(filled):
    filled.client.set("faq", "no cache any more")
    wait_until(lambda: filled.client.dbsize() == 1, "the entries are reaped")
    assert filled.client.get("faq") == b"no cache any more"


def test_expiring_the_cache_takes_its_entries(filled):
    filled.client.pexpire("faq", 30)
    wait_until(lambda: filled.client.dbsize() == 0, "cache and entries are gone")


def test_a_renamed_cache_keeps_its_entries(filled):
    filled.client.rename("faq", "help")
    renamed = Cache(filled.client, "help")
    assert all_found(renamed)
    assert renamed.get("prompt 5").startswith(b"answer 5")
    assert nothing_found(filled)
    renamed.setsem("later", "L", unit(900))
    assert renamed.get("later") == b"L"
    assert filled.client.dbsize() == COUNT + 2


def test_a_cache_renamed_over_another_replaces_it(filled):
    target = Cache(filled.client, "help")
    target.fill(10, seed=99)
    filled.client.rename("faq", "help")
    assert all_found(target)
    wait_until(lambda: filled.client.dbsize() == COUNT + 1, "the overwritten cache's entries are reaped")
    assert all_found(target)


def test_renamed_there_and_back(filled):
    filled.client.rename("faq", "help")
    filled.client.rename("help", "faq")
    assert all_found(filled)


def test_copy_of_a_cache_and_of_an_entry_is_refused(filled):
    key = filled.key_of(filled.ids[0])
    for source in ("faq", key):
        with pytest.raises(redis.ResponseError):
            filled.client.copy(source, "copy")
    assert filled.client.exists("copy") == 0
    assert all_found(filled)


def test_a_moved_cache_leaves_its_entries_and_never_lies(server, filled):
    assert filled.client.move("faq", 1) == 1
    moved = Cache(other_db(server))
    assert nothing_found(moved)
    assert nothing_found(filled)
    moved.setsem("fresh", "F", unit(77))
    assert moved.get("fresh") == b"F"


def test_a_cache_moved_with_its_entries_finds_them(server, filled):
    for key in filled.client.keys("{faq}*"):
        assert filled.client.move(key, 1) == 1
    assert filled.client.move("faq", 1) == 1
    moved = Cache(other_db(server))
    wait_until(lambda: all_found(moved), "the moved cache finds its moved entries")


def test_swapdb_takes_cache_and_entries_together(server, filled):
    here = Cache(other_db(server))
    here.fill(10, seed=50)
    filled.client.swapdb(0, 1)
    assert all_found(here)
    assert filled.found_by_meaning(range(10), seed=50) == set(range(10))
    assert filled.get("prompt 20") is None
    here.setsem("after", "A", unit(5))
    assert here.get("after") == b"A"
    assert here.info()["entries"] == COUNT + 1


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("command", ["flushdb", "flushall"])
def test_flush_empties_and_the_name_can_be_used_again(filled, command, asynchronous):
    getattr(filled.client, command)(asynchronous=asynchronous)
    assert filled.client.dbsize() == 0
    assert nothing_found(filled)
    filled.fill(COUNT)
    assert all_found(filled)
    assert filled.info()["entries"] == COUNT


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_flushdb_leaves_other_databases_alone(server, filled, asynchronous):
    other = Cache(other_db(server))
    other.fill(10, seed=50)
    filled.client.flushdb(asynchronous=asynchronous)
    assert other.found_by_meaning(range(10), seed=50) == set(range(10))


def test_a_cache_restored_under_its_name_finds_its_entries(filled):
    payload = filled.client.dump("faq")
    assert filled.client.restore("faq", 0, payload, replace=True) == b"OK"
    wait_until(lambda: all_found(filled), "every entry is found again")
    assert float(filled.config()["threshold"]) == pytest.approx(0.8)


def test_a_cache_restored_after_its_deletion_has_its_settings_and_no_lies(filled):
    payload = filled.client.dump("faq")
    filled.client.delete("faq")
    wait_until(lambda: filled.client.dbsize() == 0, "the entries are reaped")
    filled.client.restore("faq", 0, payload)
    assert nothing_found(filled)
    assert filled.info()["model"] == b"minilm"
    filled.fill(COUNT)
    assert all_found(filled)


def test_a_cache_restored_under_another_name_starts_empty_beside_the_first(filled):
    filled.client.restore("twin", 0, filled.client.dump("faq"))
    twin = Cache(filled.client, "twin")
    assert twin.uid != filled.uid
    assert nothing_found(twin)
    twin.setsem("own", "T", unit(3))
    assert twin.get("own") == b"T"
    assert all_found(filled)
    filled.client.delete("twin")
    assert all_found(filled)


def test_containers_can_be_listed_by_type(filled):
    filled.client.set("text", "x")
    Cache(filled.client, "second").create()
    assert sorted(filled.client.scan_iter(_type="llm-cache")) == [b"faq", b"second"]
    assert len(list(filled.client.scan_iter(_type="llm-entry", count=1_000))) == COUNT


# An entry key.


@pytest.mark.parametrize("command", ["delete", "unlink"])
def test_a_deleted_entry_key_is_a_miss_in_both_tiers(filled, command):
    for id_ in filled.ids[:10]:
        assert getattr(filled.client, command)(filled.key_of(id_)) == 1
    assert filled.found_by_meaning(range(COUNT)) == set(range(10, COUNT))
    assert filled.get("prompt 3") is None
    wait_until(lambda: filled.info()["entries"] == COUNT - 10, "the cache forgets them")


def test_an_overwritten_entry_key_is_a_miss(filled):
    filled.client.set(filled.key_of(filled.ids[4]), "not an entry")
    assert filled.get("prompt 4") is None
    assert filled.found_by_meaning(range(COUNT)) == set(range(COUNT)) - {4}
    filled.setsem("prompt 4", "again", unit(4_000))
    assert filled.get("prompt 4") == b"again"


def test_a_renamed_entry_leaves_the_cache(filled):
    filled.client.rename(filled.key_of(filled.ids[4]), "elsewhere")
    assert filled.get("prompt 4") is None
    assert filled.found_by_meaning(range(COUNT)) == set(range(COUNT)) - {4}


def test_an_entry_renamed_back_is_found_again(filled):
    key = filled.key_of(filled.ids[4])
    filled.client.rename(key, "elsewhere")
    filled.client.rename("elsewhere", key)
    assert filled.get("prompt 4").startswith(b"answer 4")
    wait_until(lambda: all_found(filled), "it is found by meaning again")


def test_an_entry_put_in_another_s_place_is_not_served(filled):
    keys = [filled.key_of(id_) for id_ in filled.ids[:2]]
    filled.client.rename(keys[0], keys[1])
    assert filled.get("prompt 1") is None
    assert filled.get("prompt 0") is None
    for i in (0, 1):
        hit = filled.getsem(vector=units(2, seed=7)[i])
        assert hit is None or hit.prompt == b"prompt %d" % i


def test_a_moved_entry_leaves_the_cache(server, filled):
    assert filled.client.move(filled.key_of(filled.ids[4]), 1) == 1
    assert filled.get("prompt 4") is None
    assert filled.found_by_meaning(range(COUNT)) == set(range(COUNT)) - {4}


@pytest.mark.parametrize("ttl", [0, 100_000])
def test_a_restored_entry_is_found_again_by_both_tiers(filled, ttl):
    key = filled.key_of(filled.ids[4])
    payload = filled.client.dump(key)
    filled.client.delete(key)
    assert filled.get("prompt 4") is None
    filled.client.restore(key, ttl, payload)
    assert filled.get("prompt 4").startswith(b"answer 4")
    wait_until(lambda: all_found(filled), "it is found by meaning again")
    assert (filled.client.pttl(key) > 0) == (ttl > 0)


def test_an_entry_restored_over_a_newer_one_is_what_is_served(filled):
    key = filled.key_of(filled.ids[4])
    payload = filled.client.dump(key)
    filled.setsem("prompt 4", "newer", unit(4_000))
    filled.client.restore(key, 0, payload, replace=True)
    assert filled.get("prompt 4").startswith(b"answer 4")
    wait_until(lambda: all_found(filled), "it is found by its old vector again")
    assert filled.getsem(vector=unit(4_000)) is None


def test_an_entry_restored_under_another_name_is_not_served(filled):
    payload = filled.client.dump(filled.key_of(filled.ids[4]))
    filled.client.delete(filled.key_of(filled.ids[4]))
    filled.client.restore("elsewhere", 0, payload)
    assert filled.get("prompt 4") is None
    assert 4 not in filled.found_by_meaning(range(COUNT))


def test_debug_reload_keeps_everything(filled):
    before = filled.client.execute_command("DEBUG", "DIGEST")
    filled.client.execute_command("DEBUG", "RELOAD")
    assert filled.client.execute_command("DEBUG", "DIGEST") == before
    assert all_found(filled)
    assert filled.info()["entries"] == COUNT


def test_object_and_memory_commands_know_the_keys(filled):
    key = filled.key_of(filled.ids[0])
    assert filled.client.object("encoding", "faq") is not None
    assert filled.client.memory_usage("faq") > 0
    assert filled.client.memory_usage(key) > 64
    assert filled.client.touch("faq", key) == 2
    assert filled.client.randomkey() is not None


GOING = {
    "DEL": [("DEL", "faq")],
    "UNLINK": [("UNLINK", "faq")],
    "RENAME": [("RENAME", "faq", "other")],
    "RENAME of another over it": [("SET", "other", "x"), ("RENAME", "other", "faq")],
    "MOVE": [("MOVE", "faq", 1)],
    "SWAPDB": [("SWAPDB", 0, 1)],
    "FLUSHDB": [("FLUSHDB",)],
    "FLUSHALL ASYNC": [("FLUSHALL", "ASYNC")],
    "SET": [("SET", "faq", "x")],
    "a deadline": [("PEXPIRE", "faq", 30)],
    "a deadline that is past": [("PEXPIREAT", "faq", 1)],
    "COPY of another over it": [("SET", "other", "x"), ("COPY", "other", "faq", "REPLACE")],
}


@pytest.mark.parametrize("way", GOING)
def test_a_cache_known_by_name_is_not_answered_from_when_its_key_is_gone(emptied, way):
    """Lookups do not open the key of a cache they have seen: whatever takes it away must tell them."""
    client = emptied.client()
    faq = Cache(client)
    faq.set("a", "A")
    for _ in range(3):
        assert faq.get("a") == b"A"
    for command in GOING[way]:
        client.execute_command(*command)
    time.sleep(0.05 if way == "a deadline" else 0)
    with emptied.wire() as wire:
        reply = wire("LLMCACHE.GET", "faq", "PROMPT", "a")
    assert reply is None or reply.word == "WRONGTYPE"
    # And back again.
    client.delete("faq")
    faq.create()
    faq.set("a", "B")
    assert faq.get("a") == b"B"
