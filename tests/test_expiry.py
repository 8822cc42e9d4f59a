"""Deadlines of entries: given at the store, by the cache, by LLMCACHE.EXPIRE, by plain Redis."""

import time

import pytest
from harness.vectors import unit
from harness.waiting import wait_until

FORMS = {
    "EX": lambda ms: ["EX", ms // 1000],
    "PX": lambda ms: ["PX", ms],
    "EXAT": lambda ms: ["EXAT", int(time.time()) + ms // 1000],
    "PXAT": lambda ms: ["PXAT", int(time.time() * 1000) + ms],
}


# Some hundred times what the next command takes, and a little later.
SOON_MS, AFTER_S = 1_000, 1.1


def store(cache, *expiry):
    return cache.run("SETSEM", "PROMPT", "a", "RESPONSE", "A", "VALUES", 2, 1, 2, *expiry).decode()


def found(cache):
    return cache.getsem(vector=["VALUES", 2, 1, 2]) is not None


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_say_a_deadline_sets_the_ttl_of_the_entry_key(cache, form):
    id_ = store(cache, *FORMS[form](100_000))
    assert 90_000 <= cache.client.pttl(cache.key_of(id_)) <= 101_000
    assert 90_000 <= cache.getsem(prompt="a").ttl <= 101_000


@pytest.mark.parametrize("form", FORMS)
def test_expire_takes_every_way_too(cache_by, form):
    id_ = store(cache_by)
    assert cache_by.expire(id_, *FORMS[form](100_000)) == 1
    assert 90_000 <= cache_by.client.pttl(cache_by.key_of(id_)) <= 101_000
    assert 90_000 <= cache_by.getsem(vector=["VALUES", 2, 1, 2]).ttl <= 101_000


def test_expire_persist_takes_the_deadline_away(cache_by):
    id_ = store(cache_by, "PX", SOON_MS)
    assert cache_by.expire(id_, "PERSIST") == 1
    assert cache_by.client.pttl(cache_by.key_of(id_)) == -1
    time.sleep(AFTER_S)
    assert found(cache_by)


def test_expire_of_an_unknown_id_is_zero(cache_by):
    store(cache_by)
    assert cache_by.expire("0" * 32, "EX", 100) == 0


def test_expire_in_the_past_deletes(cache):
    id_ = store(cache)
    assert cache.expire(id_, "PXAT", 1) == 1
    assert not found(cache)
    assert cache.client.keys() == [b"faq"]


def test_an_entry_goes_when_its_time_is_over(cache):
    cache.setsem("keeps", "K", unit(1, 2))
    store(cache, "PX", SOON_MS)
    assert found(cache)
    time.sleep(AFTER_S)
    assert cache.getsem(prompt="a") is None
    assert not found(cache)
    wait_until(lambda: cache.client.dbsize() == 2, "Redis removes the key")
    wait_until(lambda: cache.info()["entries"] == 1, "the cache forgets the entry")


def test_a_store_in_the_past_leaves_no_entry(cache):
    store(cache, "PXAT", 1)
    assert not found(cache)
    assert cache.client.keys("{faq}*") == []


def test_the_ttl_of_the_cache_is_the_default_and_an_option_overrides_it(cache):
    cache.create(ttl=1_000)
    default = cache.set("default", "A")
    own = cache.set("own", "A", ex=50)
    none = cache.run("SET", "PROMPT", "none", "RESPONSE", "A", "PERSIST").decode()
    assert 950 <= cache.client.ttl(cache.key_of(default)) <= 1_000
    assert 20 <= cache.client.ttl(cache.key_of(own)) <= 50
    assert cache.client.ttl(cache.key_of(none)) == -1


def test_a_replacing_store_sets_the_deadline_anew(cache):
    id_ = store(cache, "EX", 100)
    store(cache)
    assert cache.client.ttl(cache.key_of(id_)) == -1
    store(cache, "PX", 60)
    store(cache, "EX", 100)
    time.sleep(0.1)
    assert found(cache)


def test_jitter_shortens_and_spreads(cache):
    cache.create(ttl=1_000, jitter=50, dim=2)
    before = time.time() * 1_000
    ids = cache.fill(300, dim=2)
    after = time.time() * 1_000
    pipe = cache.client.pipeline(transaction=False)
    for id_ in ids:
        pipe.pexpiretime(cache.key_of(id_))
    deadlines = pipe.execute()
    assert all(before + 499_990 <= deadline <= after + 1_000_010 for deadline in deadlines)
    assert min(deadlines) < after + 600_000
    assert max(deadlines) > before + 900_000
    assert len(set(deadlines)) > 200


def test_without_jitter_deadlines_are_as_told(cache):
    cache.create(ttl=1_000)
    ids = cache.fill(50, dim=2)
    assert all(cache.client.pttl(cache.key_of(id_)) > 990_000 for id_ in ids)


# Plain Redis on the entry key.


def test_redis_expire_is_obeyed(cache):
    id_ = store(cache)
    cache.client.pexpire(cache.key_of(id_), 50)
    time.sleep(0.08)
    assert cache.getsem(prompt="a") is None
    assert not found(cache)


def test_redis_expire_can_lengthen(cache):
    id_ = store(cache, "PX", SOON_MS)
    cache.client.expire(cache.key_of(id_), 100)
    time.sleep(AFTER_S)
    assert found(cache)


def test_redis_persist_is_obeyed(cache):
    id_ = store(cache, "PX", SOON_MS)
    assert cache.client.persist(cache.key_of(id_)) == 1
    time.sleep(AFTER_S)
    assert found(cache)
    assert cache.getsem(prompt="a").ttl == -1


def test_ttl_and_object_freq_of_an_entry_can_be_read_by_plain_redis(fleet):
    server = fleet.launch(maxmemory="100mb", maxmemory_policy="allkeys-lfu")
    client = server.client()
    client.execute_command("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A", "EX", 77)
    (key,) = client.keys("{faq}*")
    assert 60 <= client.ttl(key) <= 77
    assert client.object("freq", key) >= 5


def test_expiry_of_the_cache_key_takes_all_of_it(cache):
    cache.fill(20)
    cache.client.pexpire("faq", 50)
    wait_until(lambda: cache.client.dbsize() == 0, "cache and entries are gone")
    cache.setsem("prompt 1", "new life", unit(1))
    assert cache.getsem(prompt="prompt 1").response == b"new life"


def test_entries_of_one_cache_expire_apart(cache):
    pipe = cache.client.pipeline(transaction=False)
    for i in range(200):
        pipe.execute_command(
            *("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", "r", "VALUES", 3, 1, 2, i),
            *(("PX", 40) if i % 2 else ("EX", 100)),
        )
    pipe.execute()
    wait_until(lambda: cache.client.dbsize() == 101, "the short-lived are gone")
    assert sum(cache.get(f"p{i}") is not None for i in range(200)) == 100
    hits = cache.getsem_many(200, vector=["VALUES", 3, 1, 2, 0], threshold=-1)
    assert {int(h.prompt[1:]) % 2 for h in hits} == {0}
    assert len(hits) == 100
