"""Entries without their cache: reaped after the grace, never before, whatever was interrupted."""

import pytest
from harness.cache import Cache
from harness.vectors import unit
from harness.waiting import hold, wait_until

QUICK = {"llmcache__orphan_grace": 1, "llmcache__sweep_interval_ms": 50}
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
COUNT = 20_000


def fill(server):
    faq = Cache(server.client())
    faq.fill(COUNT, dim=4, size=16)
    return faq


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_kill_9_in_mid_reap_of_a_deleted_cache(fleet, preamble):
    server = fleet.launch(**QUICK, **DURABLE, aof_use_rdb_preamble=preamble)
    fill(server)
    with server.wire() as wire:
        # In one turn of the event loop, so that the reaper does not come between.
        assert wire.pipeline([("DEL", "faq"), ("DBSIZE",)]) == [1, COUNT]
        wait_until(lambda: wire("DBSIZE") < COUNT, "the reaper has begun", step=0)
        server.kill9()
    server.start()
    client = server.client()
    wait_until(lambda: client.dbsize() == 0, "every entry is reaped after the grace", 60)


def test_kill_9_in_mid_reap_of_an_expired_cache(fleet):
    server = fleet.launch(**QUICK, **DURABLE)
    fill(server)
    with server.wire() as wire:
        expired = [("PEXPIRE", "faq", 1), ("DEBUG", "SLEEP", 0.01), ("EXISTS", "faq"), ("DBSIZE",)]
        assert wire.pipeline(expired) == [1, "OK", 0, COUNT]
        wait_until(lambda: wire("DBSIZE") < COUNT, "the reaper has begun", step=0)
        server.kill9()
    server.start()
    client = server.client()
    wait_until(lambda: client.dbsize() == 0, "every entry is reaped after the grace", 60)


def test_orphans_in_an_rdb_file_are_reaped_after_the_grace_and_not_before(fleet):
    server = fleet.launch(llmcache__orphan_grace=5, llmcache__sweep_interval_ms=50)
    faq = Cache(server.client())
    faq.fill(200)
    payload = faq.client.dump(faq.client.keys("{faq}*")[0])
    key = faq.client.keys("{faq}*")[0]
    faq.client.flushall()
    faq.client.restore(key, 0, payload)
    faq.client.set("bystander", "x")
    faq.client.save()
    server.restart()
    client = server.client()
    hold(lambda: client.exists(key) == 1, "an orphan lives during its grace", 1.5)
    wait_until(lambda: client.exists(key) == 0, "it is reaped after the grace")
    assert client.get("bystander") == b"x"


def test_entries_that_arrive_before_their_cache_are_attached_when_it_comes(fleet):
    server = fleet.launch(llmcache__orphan_grace=10, llmcache__sweep_interval_ms=50)
    faq = Cache(server.client())
    faq.fill(100)
    payloads = {key: faq.client.dump(key) for key in faq.client.keys()}
    faq.client.flushall()
    head = payloads.pop(b"faq")
    for key, payload in payloads.items():
        faq.client.restore(key, 0, payload)
    assert faq.getsem(prompt="prompt 1", vector=unit(1)) is None
    hold(lambda: faq.client.dbsize() == 100, "they wait", 1)
    faq.client.restore("faq", 0, head)
    wait_until(lambda: len(faq.found_by_meaning(range(100))) == 100, "all are found")
    hold(lambda: faq.client.dbsize() == 101, "and stay, grace or not", 11, step=0.2)


def test_the_reaper_leaves_other_keys_alone(fleet):
    server = fleet.launch(**QUICK)
    faq = Cache(server.client())
    faq.fill(300)
    uid = faq.uid
    faq.client.set(f"{{faq}}:{uid}:", "a user's own key")
    faq.client.set(f"{{faq}}:{uid}:{'0' * 32}", "another")
    neighbour = Cache(faq.client, "{faq}")
    neighbour.fill(50)
    faq.client.delete("faq")
    wait_until(lambda: faq.client.dbsize() == 53, "the entries are reaped")
    hold(lambda: faq.client.dbsize() == 53, "nothing else is", 2, step=0.1)
    assert neighbour.found_by_meaning(range(50)) == set(range(50))


def test_reaping_does_not_stall_other_clients(fleet):
    server = fleet.launch(**QUICK)
    faq = fill(server)
    with server.wire() as wire:
        wire("CONFIG", "RESETSTAT")
        wire("CONFIG", "SET", "latency-monitor-threshold", 20)
        faq.client.unlink("faq")
        wait_until(lambda: faq.client.dbsize() == 0, "all are reaped", 60)
        events = [event for event in wire("LATENCY", "LATEST") if event[0] in (b"command", b"fast-command")]
    assert events == []


def test_a_paused_primary_does_not_reap(fleet):
    server = fleet.launch(**QUICK)
    faq = fill(server)
    faq.client.unlink("faq")
    with server.wire() as wire:
        wire("CLIENT", "PAUSE", 3_000, "WRITE")
        left = wire("DBSIZE")
        hold(lambda: wire("DBSIZE") == left, "paused writes stand still", 0.5)
    wait_until(lambda: faq.client.dbsize() == 0, "it goes on afterwards", 60)


def test_a_lower_grace_counts_from_when_it_is_set(fleet):
    """Not from the next walk, which is a minute after the first where the grace was long."""
    server = fleet.launch(llmcache__orphan_grace=86_400, llmcache__sweep_interval_ms=50)
    faq = Cache(server.client())
    faq.fill(1)
    client = server.client()
    (key,) = client.keys("{faq}*")
    payload = client.dump(key)
    client.delete("faq")
    wait_until(lambda: client.dbsize() == 0, "its entry went after it", 30)
    client.restore(key, 0, payload)
    client.config_set("llmcache.orphan-grace", 1)
    wait_until(lambda: client.dbsize() == 0, "the orphan is removed", 30)
