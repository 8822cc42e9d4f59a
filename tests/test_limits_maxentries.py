"""MAXENTRIES: the cache keeps itself within the number it was given."""

from harness.expiry import set_active_expire
from harness.vectors import unit
from harness.waiting import wait_until


def test_the_number_is_never_passed(cache):
    cache.create(maxentries=50)
    for round_ in range(8):
        cache.fill(25, start=round_ * 25)
        assert cache.info()["entries"] <= 50
        assert cache.client.dbsize() == cache.info()["entries"] + 1
    assert cache.info()["entries"] == 50
    assert cache.stats()["evicted"] == 150


def test_the_newest_entry_is_never_the_victim(cache):
    cache.create(maxentries=1)
    for i in range(20):
        cache.setsem(f"p{i}", f"r{i}", unit(i))
        assert cache.get(f"p{i}") == b"r%d" % i
        assert cache.client.dbsize() == 2


def test_a_replacing_store_evicts_nothing(cache):
    cache.create(maxentries=10)
    cache.fill(10)
    for i in range(10):
        cache.setsem(f"prompt {i}", "again", unit(i))
    assert cache.info()["entries"] == 10
    assert cache.stats()["evicted"] == 0


def test_what_was_asked_for_often_stays(cache):
    cache.create(maxentries=100)
    cache.fill(100)
    for _ in range(5):
        for i in range(20):
            assert cache.get(f"prompt {i}") is not None
    cache.fill(300, start=100)
    assert all(cache.get(f"prompt {i}") is not None for i in range(20))


def test_of_equal_use_the_dearer_stays(cache):
    cache.create(maxentries=100)
    cache.fill(20, cost="1.5")
    cache.fill(500, start=20, cost="0.0001")
    assert all(cache.get(f"prompt {i}") is not None for i in range(20))


def test_of_equal_use_and_cost_the_smaller_stays(cache):
    cache.create(maxentries=100)
    cache.fill(20, size=40)
    cache.fill(300, start=20, size=4_000)
    assert all(cache.get(f"prompt {i}") is not None for i in range(20))


def test_evicted_entries_are_gone_from_both_tiers(cache):
    cache.create(maxentries=30)
    cache.fill(90)
    alive = {i for i in range(90) if cache.get(f"prompt {i}") is not None}
    assert len(alive) == 30
    assert cache.found_by_meaning(range(90)) == alive


def test_a_lower_number_takes_effect(cache):
    cache.fill(100)
    cache.config_set("MAXENTRIES", 40)
    cache.setsem("one more", "x", unit(1_000))
    wait_until(lambda: cache.info()["entries"] <= 40, "it shrinks to the new number")
    assert cache.client.dbsize() <= 41
    assert cache.get("one more") == b"x"


def test_zero_means_no_limit(cache):
    cache.create(maxentries=10)
    cache.config_set("MAXENTRIES", 0)
    cache.fill(300)
    assert cache.info()["entries"] == 300


def test_expired_entries_do_not_count_against_the_living(cache):
    cache.create(maxentries=20)
    set_active_expire(cache.client, False)
    cache.fill(10, px=1)
    cache.client.execute_command("DEBUG", "SLEEP", 0.05)
    cache.fill(20, start=10)
    assert sum(cache.get(f"prompt {i}") is not None for i in range(10, 30)) == 20
