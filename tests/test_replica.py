"""A replica holds the same, answers the same, and decides nothing by itself."""

import time

import pytest
from harness.cache import Cache
from harness.expiry import set_active_expire
from harness.replication import Pair, pair
from harness.vectors import near, unit
from harness.waiting import wait_until


@pytest.fixture
def both(fleet):
    return pair(fleet)


def mixed_traffic(client, rounds=3):
    faq = Cache(client)
    faq.create(threshold="0.8", maxentries=200, ttl=1_000, jitter=50)
    for round_ in range(rounds):
        faq.fill(150, start=round_ * 100, meta={"round": round_}, tags=["t"])
        faq.setsem("named", f"N{round_}", unit(round_), id="doc:1")
        faq.setsem(f"short {round_}", "S", unit(50 + round_), px=40)
        faq.expire(faq.set(f"e{round_}", "E"), "EX", 500)
        faq.expire(faq.set(f"f{round_}", "F", px=60_000), "PERSIST")
        faq.delete(*faq.scan_ids()[:10])
        faq.config_set("THRESHOLD", f"0.{7 + round_ % 2}")
        client.delete(faq.key_of(faq.scan_ids()[0]))
        pipe = client.pipeline(transaction=True)
        for i in range(5):
            pipe.execute_command("LLMCACHE.SET", "faq", "PROMPT", f"multi {i}", "RESPONSE", f"{round_}")
        pipe.execute()
        client.eval(
            "return redis.call('LLMCACHE.SETSEM', KEYS[1], 'PROMPT', ARGV[1], 'RESPONSE', 'L', 'VALUES', 2, 1, 2)",
            1,
            "lua",
            f"from lua {round_}",
        )
    Cache(client, "gone").fill(50)
    client.delete("gone")
    # The shortest entries live 40 ms; nobody should compare two servers while they fall due.
    time.sleep(0.1)


def test_digests_are_equal_after_mixed_traffic_and_expiry(both):
    client = both.primary.client()
    mixed_traffic(client)
    wait_until(lambda: not client.keys("{gone}*"), "the deleted cache's entries are reaped")
    both.assert_equal()
    assert both.replica.client().dbsize() == client.dbsize()


def test_digests_are_equal_after_a_full_synchronisation(fleet):
    primary = fleet.launch()
    mixed_traffic(primary.client())
    replica = fleet.launch()
    replica.client().execute_command("REPLICAOF", "127.0.0.1", primary.port)
    late = Pair(primary, replica)
    late.assert_equal()
    mixed = Cache(primary.client())
    mixed.fill(50, start=10_000)
    late.assert_equal()
    assert sorted(Cache(replica.client()).scan_ids()) == sorted(mixed.scan_ids())


def test_a_replica_serves_lookups_of_every_kind(both, resp):
    faq = Cache(both.primary.client())
    faq.fill(200)
    id_ = faq.setsem("q", "A", unit(1), scope="s", meta={"k": 1})
    both.catch_up()
    here = Cache(both.replica.client(resp))
    assert here.found_by_meaning(range(200)) == set(range(200))
    assert here.get("prompt 5").startswith(b"answer 5")
    hit = here.getsem(vector=near(unit(1), 0.95), scope="s", filter=".k == 1")
    assert (hit.id, hit.response) == (id_, b"A")
    assert here.explain(vector=unit(77))["reason"] == "below-threshold"
    assert here.entry(id_)["response"] == b"A"
    assert len(here.scan_ids()) == 201
    assert here.info()["entries"] == 201
    assert here.stats()["lookups"] >= 203


def test_a_replica_refuses_writes(both):
    Cache(both.primary.client()).set("a", "A")
    both.catch_up()
    writes = [
        ("LLMCACHE.CREATE", "new"),
        ("LLMCACHE.SET", "faq", "PROMPT", "b", "RESPONSE", "B"),
        ("LLMCACHE.SETSEM", "faq", "PROMPT", "b", "RESPONSE", "B"),
        ("LLMCACHE.DEL", "faq", "x"),
        ("LLMCACHE.EXPIRE", "faq", "x", "EX", 5),
        ("LLMCACHE.CONFIG", "faq", "SET", "THRESHOLD", "0.5"),
    ]
    with both.replica.wire() as wire:
        for command in writes:
            reply = wire(*command)
            assert getattr(reply, "word", reply) == "READONLY", command


def test_an_expired_entry_is_a_miss_on_the_replica_before_it_is_told(both):
    faq = Cache(both.primary.client())
    set_active_expire(faq.client, False)
    faq.setsem("a", "A", unit(1), px=4_000)
    both.catch_up()
    here = Cache(both.replica.client())
    assert here.getsem(vector=unit(1)) is not None
    time.sleep(4.1)
    assert here.getsem(vector=unit(1)) is None
    assert here.get("a") is None
    set_active_expire(faq.client, True)
    wait_until(lambda: faq.client.dbsize() == 1, "the primary removes it")
    both.assert_equal()


def test_evictions_by_maxentries_are_equal_on_the_replica(both):
    faq = Cache(both.primary.client())
    faq.create(maxentries=100)
    faq.fill(100)
    for i in range(0, 100, 3):
        faq.get(f"prompt {i}")
    faq.fill(900, start=100)
    both.assert_equal()
    here = Cache(both.replica.client())
    assert sorted(here.scan_ids()) == sorted(faq.scan_ids())
    assert here.info()["entries"] == 100


def test_evictions_by_maxmemory_of_the_cache_are_equal_on_the_replica(both):
    faq = Cache(both.primary.client())
    faq.create(maxmemory=400_000)
    faq.fill(1_000, size=1_500)
    both.assert_equal()
    assert sorted(Cache(both.replica.client()).scan_ids()) == sorted(faq.scan_ids())


def test_eviction_by_the_server_is_followed(fleet):
    # The backlog counts as used memory; Valkey's default of 10 MB would leave nothing for entries.
    both = pair(fleet, maxmemory=8_000_000, maxmemory_policy="allkeys-lru", repl_backlog_size="1mb")
    faq = Cache(both.primary.client())
    faq.fill(6_000, size=4_000)
    assert int(both.primary.info("stats")["evicted_keys"]) > 1_000
    # Its evictions stop with its writes; the replica never evicts by itself.
    faq.client.config_set("maxmemory", 0)
    both.assert_equal()
    assert int(both.replica.info("stats")["evicted_keys"]) == 0


def test_a_smaller_limit_on_the_replica_is_ignored(fleet):
    both = pair(fleet)
    faq = Cache(both.primary.client())
    both.replica.client().config_set("llmcache.auto-create", "no")
    faq.fill(100)
    both.assert_equal()


def test_a_promoted_replica_goes_on(both):
    mixed_traffic(both.primary.client())
    both.catch_up()
    ids = sorted(Cache(both.primary.client()).scan_ids())
    both.primary.kill9()
    client = both.replica.client()
    client.execute_command("REPLICAOF", "NO", "ONE")
    faq = Cache(client)
    assert sorted(faq.scan_ids()) == ids
    faq.fill(300, start=5_000)
    assert faq.info()["entries"] == 200
    assert faq.found_by_meaning([5_299]) == {5_299}
    faq.client.delete("faq")
    wait_until(lambda: not client.keys("{faq}*"), "the new primary reaps")


def test_counters_of_lookups_do_not_travel(both):
    faq = Cache(both.primary.client())
    faq.set("a", "A")
    for _ in range(5):
        faq.get("a")
    both.assert_equal()
    assert faq.stats()["hits"] == 5
    assert Cache(both.replica.client()).stats()["hits"] == 0


def test_lookups_write_nothing_to_the_replication_stream(both):
    faq = Cache(both.primary.client())
    faq.fill(50)
    both.catch_up()
    before = int(both.primary.info("replication")["master_repl_offset"])
    faq.found_by_meaning(range(50))
    faq.getsem(vector=unit(999))
    faq.info(), faq.stats(), faq.scan_ids()
    after = int(both.primary.info("replication")["master_repl_offset"])
    # Only the regular PING of replication may stand between.
    assert after - before <= 3 * 14
