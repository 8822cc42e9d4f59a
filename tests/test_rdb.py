"""RDB: a restart and DEBUG RELOAD bring back what was saved."""

import time

import pytest
from harness.cache import Cache
from harness.vectors import near, unit, units
from harness.waiting import wait_until

COUNT = 300


def fill_mixed(client):
    """Caches of every setting, entries of every kind."""
    faq = Cache(client)
    faq.create(threshold="0.8", ttl=10_000, jitter=10, maxentries=5_000, quant="F16", model="minilm")
    faq.fill(COUNT)
    faq.setsem("rich", "R", unit(1, 32), id="doc:1", scope="s", context="c", tags=["x", "y"], meta={"a": [1]}, tokens=9, cost="0.01", latency=7)
    faq.set("plain", "P", scope="s")
    faq.setsem("gone", "G", unit(2))
    faq.delete(faq.setsem("gone", "G", unit(2)))
    for quant in ("NONE", "Q8"):
        cache = Cache(client, f"quant {quant}")
        cache.create(quant=quant, dim=48)
        cache.fill(50, dim=48)
    Cache(client, "app:{t}:empty").create()
    return faq


def check_mixed(client):
    faq = Cache(client)
    assert faq.found_by_meaning(range(COUNT)) == set(range(COUNT))
    hit = faq.getsem(vector=near(unit(1, 32), 0.95), scope="s", context="c")
    assert (hit.id, hit.tags, hit.meta, hit.response) == ("doc:1", [b"x", b"y"], {"a": [1]}, b"R")
    assert faq.get("plain", scope="s") == b"P"
    assert faq.get("gone") is None
    info = faq.info()
    assert (info["entries"], info["dim"], info["model"]) == (COUNT + 2, 32, b"minilm")
    assert float(info["threshold"]) == pytest.approx(0.8)
    for quant in ("NONE", "Q8"):
        cache = Cache(client, f"quant {quant}")
        assert cache.info()["quant"] == quant.encode()
        assert cache.found_by_meaning(range(50), dim=48) == set(range(50))
    assert Cache(client, "app:{t}:empty").info()["entries"] == 0


def test_save_and_restart(server):
    client = server.client()
    fill_mixed(client)
    before, uid = server.digest(), Cache(client).uid
    client.save()
    server.kill9()
    server.start()
    client = server.client()
    assert server.digest() == before
    assert Cache(client).uid == uid
    check_mixed(client)


def test_bgsave_under_writes_is_whole(server):
    client = server.client()
    faq = fill_mixed(client)
    saved_at = client.lastsave()
    client.execute_command("DEBUG", "SLEEP", 1.1)
    client.bgsave()
    for i in range(300):
        faq.setsem(f"during {i}", "D", unit(10_000 + i))
    wait_until(lambda: client.lastsave() != saved_at, "the background save ends")
    assert client.info("persistence")["rdb_last_bgsave_status"] == "ok"
    server.kill9()
    server.start()
    client = server.client()
    assert Cache(client).found_by_meaning(range(COUNT)) == set(range(COUNT))
    assert Cache(client).info()["entries"] >= COUNT + 2


def test_debug_reload_twice(server):
    client = server.client()
    fill_mixed(client)
    before = server.digest()
    for _ in range(2):
        client.execute_command("DEBUG", "RELOAD")
        assert server.digest() == before
    check_mixed(client)


def test_after_a_restart_the_cache_goes_on_as_before(server):
    client = server.client()
    fill_mixed(client)
    client.save()
    server.restart()
    faq = Cache(server.client())
    faq.setsem("prompt 3", "newer", unit(9_999))
    assert faq.get("prompt 3") == b"newer"
    assert faq.getsem(vector=unit(9_999)).response == b"newer"
    assert 3 not in faq.found_by_meaning(range(COUNT))
    faq.fill(20, start=COUNT)
    assert faq.found_by_meaning(range(COUNT, COUNT + 20)) == set(range(COUNT, COUNT + 20))
    assert faq.info()["entries"] == COUNT + 22
    assert faq.delete("doc:1") == 1
    assert faq.getsem(vector=unit(1, 32), scope="s", context="c") is None


def test_deadlines_survive_a_restart(server):
    faq = Cache(server.client())
    long = faq.setsem("long", "L", unit(1), ex=1_000)
    faq.setsem("short", "S", unit(2), px=400)
    faq.client.save()
    server.restart()
    faq = Cache(server.client())
    assert 990 <= faq.client.ttl(faq.key_of(long)) <= 1_000
    assert faq.getsem(vector=unit(1)).ttl > 990_000
    time.sleep(0.45)
    assert faq.getsem(vector=unit(2)) is None
    assert faq.get("short") is None


def test_entries_that_expired_while_the_server_was_down_are_gone(server):
    faq = Cache(server.client())
    faq.fill(50, px=300)
    faq.setsem("keeps", "K", unit(1))
    faq.client.save()
    server.kill9()
    time.sleep(0.4)
    server.start()
    faq = Cache(server.client())
    assert faq.found_by_meaning(range(50)) == set()
    assert faq.getsem(vector=unit(1)).response == b"K"
    wait_until(lambda: faq.info()["entries"] == 1, "the cache forgets the expired")


def test_several_databases(server):
    for db in range(4):
        Cache(server.client(db=db)).fill(30, seed=db)
    server.client().save()
    server.restart()
    for db in range(4):
        cache = Cache(server.client(db=db))
        assert cache.found_by_meaning(range(30), seed=db) == set(range(30))
        assert cache.info()["entries"] == 30


def test_ten_thousand_entries_load_without_loss(server):
    faq = Cache(server.client())
    faq.fill(10_000)
    faq.client.save()
    server.restart()
    faq = Cache(server.client())
    assert faq.info()["entries"] == 10_000
    picked = list(range(0, 10_000, 13))
    assert faq.found_by_meaning(picked) == set(picked)
    assert faq.getsem(vector=near(units(51, seed=7)[50], 0.95)).prompt == b"prompt 50"


@pytest.mark.parametrize("kind", ["LLMCACHE", "KVCHUNK"])
def test_a_file_with_one_container_under_two_names_gives_the_second_an_identity_of_its_own(fleet, kind):
    """No server writes such a file; one that was pieced together loads all the same."""
    server = fleet.launch(rdbcompression="no", rdbchecksum="no", dbfilename="dump.rdb")
    path = server.folder / "dump.rdb"
    with server.wire() as wire:
        wire(f"{kind}.CREATE", "one")
        wire("SAVE")
        first = path.read_bytes()
        wire("RENAME", "one", "two")
        wire("SAVE")
    record = path.read_bytes()
    record = record[record.index(b"\x07\x03two") : -9]
    server.stop()
    # What ends the file: a byte and a checksum, which is 0.
    path.write_bytes(first[:-9] + record + first[-9:])
    server.start()
    with server.wire() as wire:
        uids = []
        for name in ("one", "two"):
            info = wire(f"{kind}.INFO", name)
            uids.append(info[info.index(b"uid") + 1])
        assert len(set(uids)) == 2
        store = {"LLMCACHE": ["LLMCACHE.SET", "two", "PROMPT", "q", "RESPONSE", "a"]}
        wire(*store.get(kind, ["KVCHUNK.PUT", "two", "HASH", "h", "PAYLOAD", 1, "a"]))
        assert wire("DEL", "two") == 1
    wait_until(lambda: server.client().keys("*") == [b"one"], "what belongs to the second is removed")
