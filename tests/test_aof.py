"""AOF: replayed commands and rewritten files bring back the same keys; kill -9 loses nothing acknowledged."""

import threading
import time

import pytest
from harness.cache import Cache
from harness.persistence import wait_for_rewrite
from harness.vectors import fp32, unit
from harness.waiting import wait_until
from harness.wire import Failure

ALWAYS = {"appendonly": "yes", "appendfsync": "always"}
EVERYSEC = {"appendonly": "yes", "appendfsync": "everysec"}
PREAMBLE = pytest.mark.parametrize("preamble", ["yes", "no"])


def traffic(client):
    """Every command that writes, in every way that matters to replay."""
    faq = Cache(client)
    faq.create(threshold="0.8", ttl=10_000, jitter=30, maxentries=150)
    faq.fill(200)
    faq.setsem("rich", "R", unit(1), id="doc:1", scope="s", tags=["x"], meta={"a": 1}, ex=500, cost="0.01", tokens=3, latency=4)
    faq.setsem("rich", "R2", unit(2), id="doc:2", scope="s")
    faq.setsem("short", "S", unit(3), px=30)
    faq.expire(faq.set("a", "A"), "EX", 100)
    faq.expire(faq.set("b", "B", ex=100), "PERSIST")
    faq.delete(faq.set("c", "C"))
    faq.config_set("THRESHOLD", "0.7")
    auto = Cache(client, "made by its first entry")
    auto.fill(60, dim=48)
    client.delete(auto.key_of(auto.scan_ids()[0]))
    gone = Cache(client, "gone")
    gone.fill(30)
    client.delete("gone")
    renamed = Cache(client, "before")
    renamed.fill(20)
    client.rename("before", "after")
    pipe = client.pipeline(transaction=True)
    for i in range(10):
        pipe.execute_command("LLMCACHE.SET", "in multi", "PROMPT", f"p{i}", "RESPONSE", "r")
    pipe.execute()
    time.sleep(0.05)
    wait_until(lambda: not client.keys("{gone}*"), "the deleted cache's entries are reaped")
    wait_until(lambda: client.dbsize() == len(NAMES) + sum(map(len, caches(client).values())), "all is settled")


NAMES = ("faq", "made by its first entry", "after", "in multi")


def caches(client):
    return {name: sorted(Cache(client, name).scan_ids()) for name in NAMES}


@PREAMBLE
def test_replay_of_commands(fleet, preamble):
    server = fleet.launch(**EVERYSEC, aof_use_rdb_preamble=preamble)
    traffic(server.client())
    before, ids = server.digest(), caches(server.client())
    server.restart()
    assert server.digest() == before
    assert caches(server.client()) == ids
    faq = Cache(server.client())
    assert float(faq.config()["threshold"]) == pytest.approx(0.7)
    assert faq.getsem(vector=unit(2), scope="s").id == "doc:2"


@PREAMBLE
def test_rewritten_file(fleet, preamble):
    server = fleet.launch(**EVERYSEC, aof_use_rdb_preamble=preamble)
    client = server.client()
    traffic(client)
    ids, uid = caches(client), Cache(client).uid
    rewrite(client)
    Cache(client).set("after the rewrite", "x")
    before = server.digest()
    ids["faq"] = sorted(Cache(client).scan_ids())
    server.restart()
    assert server.digest() == before
    assert caches(server.client()) == ids
    faq = Cache(server.client())
    assert faq.uid == uid
    auto = Cache(server.client(), "made by its first entry")
    assert len(auto.found_by_meaning(range(60), dim=48)) == 59
    renamed = Cache(server.client(), "after")
    assert renamed.found_by_meaning(range(20)) == set(range(20))


# A key of each type that has an owner, by the commands that make one.
OWNED = {
    "answer": ("LLMCACHE.SET", "box", "PROMPT", "p", "RESPONSE", "r"),
    "document": ("RAG.ADD", "box", "d", "VALUES", 2, 1, 0, "TEXT", "some words", "META", "{}"),
    "embedding": ("EMBCACHE.SET", "box", "MODEL", "m", "TEXT", "some words", "VALUES", 2, 1, 0),
    "chunk": ("KVCHUNK.PUT", "box", "HASH", b"digest", "PAYLOAD", 1, "bytes"),
    "message": ("SESSION.APPEND", "box", "MSG", "user", "some words"),
}


@PREAMBLE
@pytest.mark.parametrize("kind", OWNED)
@pytest.mark.parametrize("owner", ["stays", "is another", "is gone"])
def test_keys_under_names_that_are_not_their_own(fleet, preamble, kind, owner):
    """RENAME and RESTORE bring them there; they belong to nobody, and stay what they are in a file made of commands."""
    server = fleet.launch(**EVERYSEC, aof_use_rdb_preamble=preamble, llmcache__orphan_grace=100)
    client = server.client()
    made = {
        "document": ("RAG.CREATE", "box", "DIM", 2),
        "chunk": ("KVCHUNK.CREATE", "box", "CHUNK", 4),
    }.get(kind, ("PING",))
    client.execute_command(*made)
    client.execute_command(*OWNED[kind])
    key = next((key for key in client.keys() if key != b"box"), b"box")
    for number in range(3):
        client.restore(f"copy:{number}", (0, 3_000_000, 5_000_000)[number], client.dump(key))
    client.pexpire("copy:2", 4_000_000)
    client.rename(key, "elsewhere")
    if owner != "stays":
        client.delete("box")
    if owner == "is another":
        client.execute_command(*made)
        client.execute_command(*OWNED[kind])
    rewrite(client)
    before, names = server.digest(), sorted(client.keys())
    deadlines = [client.pexpiretime(name) for name in names]
    server.restart()
    client = server.client()
    assert sorted(client.keys()) == names and b"copy:1" in names
    assert [client.pexpiretime(name) for name in names] == deadlines
    assert server.digest() == before
    server.check_log()


@PREAMBLE
def test_rewrite_under_load_and_then_kill(fleet, preamble):
    server = fleet.launch(**ALWAYS, aof_use_rdb_preamble=preamble)
    client = server.client()
    faq = Cache(client)
    faq.fill(2_000)
    client.bgrewriteaof()
    faq.fill(1_000, start=2_000)
    wait_for_rewrite(client)
    faq.fill(200, start=3_000)
    before = server.digest()
    server.kill9()
    server.start()
    assert server.digest() == before
    faq = Cache(server.client())
    assert faq.info()["entries"] == 3_200
    picked = list(range(0, 3_200, 7))
    assert faq.found_by_meaning(picked) == set(picked)


def rewrite(client):
    client.bgrewriteaof()
    wait_for_rewrite(client)
    assert client.info("persistence")["aof_last_bgrewrite_status"] == "ok"


@pytest.mark.parametrize("writes", [20, 300])
@PREAMBLE
def test_kill_9_loses_no_acknowledged_write(fleet, preamble, writes):
    server = fleet.launch(**ALWAYS, aof_use_rdb_preamble=preamble)
    acknowledged: list[tuple[int, str]] = []
    deleted: list[str] = []

    def write():
        with server.wire() as wire:
            i = 0
            try:
                while True:
                    reply = wire("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", f"r{i}", *fp32(unit(i, 16)))
                    assert not isinstance(reply, Failure), reply
                    acknowledged.append((i, reply.decode()))
                    if i % 5 == 4:
                        victim = acknowledged[i - 2][1]
                        if wire("LLMCACHE.DEL", "faq", victim) == 1:
                            deleted.append(victim)
                    i += 1
            except (ConnectionError, OSError):
                return

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(acknowledged) >= writes, f"{writes} writes are acknowledged", 60, step=0.001)
    server.kill9()
    writer.join()
    server.start()
    faq = Cache(server.client())
    gone = set(deleted)
    for i, id_ in acknowledged[:-3]:
        if id_ in gone:
            assert faq.entry(id_) is None
        else:
            assert faq.get(f"p{i}") == b"r%d" % i
            assert faq.getsem(vector=unit(i, 16), threshold=1).id == id_
    # Of the last ones a delete may have been on its way, unacknowledged.
    last = [(i, id_) for i, id_ in acknowledged[-3:] if id_ not in gone]
    missing = [i for i, _ in last if faq.get(f"p{i}") is None]
    assert len(missing) <= 1


def test_evictions_by_maxentries_are_the_same_after_replay(fleet):
    server = fleet.launch(**EVERYSEC)
    faq = Cache(server.client())
    faq.create(maxentries=100)
    faq.fill(100)
    for i in range(0, 100, 3):
        faq.get(f"prompt {i}")
    faq.fill(900, start=100)
    before, ids = server.digest(), sorted(faq.scan_ids())
    assert len(ids) == 100
    server.restart()
    assert server.digest() == before
    assert sorted(Cache(server.client()).scan_ids()) == ids


def test_evictions_by_maxmemory_of_the_cache_are_the_same_after_replay(fleet):
    server = fleet.launch(**EVERYSEC)
    faq = Cache(server.client())
    faq.create(maxmemory=400_000)
    faq.fill(1_000, size=1_500)
    before, ids = server.digest(), sorted(faq.scan_ids())
    server.restart()
    assert server.digest() == before
    assert sorted(Cache(server.client()).scan_ids()) == ids


def test_a_truncated_tail_is_repaired_by_redis_and_loses_only_it(fleet):
    server = fleet.launch(**ALWAYS, aof_load_truncated="yes")
    faq = Cache(server.client())
    faq.fill(50)
    server.kill9()
    (tail,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    data = tail.read_bytes()
    tail.write_bytes(data[:-7])
    server.start()
    faq = Cache(server.client())
    assert faq.found_by_meaning(range(50)) == set(range(49))


def test_relative_deadlines_are_replayed_as_the_moments_they_were(fleet):
    server = fleet.launch(**ALWAYS)
    faq = Cache(server.client())
    faq.create(ttl=100, jitter=50)
    ids = [faq.setsem(f"p{i}", "r", unit(i)) for i in range(20)] + [faq.set("own", "r", ex=100)]
    deadlines = [faq.client.pexpiretime(faq.key_of(id_)) for id_ in ids]
    server.kill9()
    time.sleep(1.2)
    server.start()
    faq = Cache(server.client())
    assert [faq.client.pexpiretime(faq.key_of(id_)) for id_ in ids] == deadlines


RESTORED = {
    "LLMCACHE": (
        ["LLMCACHE.CREATE", "one", "DIM", 2],
        ["LLMCACHE.SETSEM", "{}", "PROMPT", "some text", "RESPONSE", "some text", "VALUES", 2, 1, 1],
        ["LLMCACHE.GETSEM", "{}", "VALUES", 2, 1, 1, "RETURN", 1, "response"],
    ),
    "RAG": (
        ["RAG.CREATE", "one", "WORDS", "english"],
        ["RAG.ADD", "{}", "d", "TEXT", "some text", "VALUES", 2, 1, 1],
        ["RAG.SEARCH", "{}", "WORDS", "text"],
    ),
    "EMBCACHE": (
        ["EMBCACHE.CREATE", "one", "MODEL", "m", "DIM", 2],
        ["EMBCACHE.SET", "{}", "TEXT", "q", "VALUES", 2, 1, 1],
        ["EMBCACHE.GET", "{}", "TEXT", "q"],
    ),
    "KVCHUNK": (
        ["KVCHUNK.CREATE", "one"],
        ["KVCHUNK.PUT", "{}", "HASH", "h", "PAYLOAD", 1, "some text"],
        ["KVCHUNK.MATCH", "{}", "HASHES", 1, "h"],
    ),
}


@pytest.mark.parametrize("names", [["one"], ["two", "two"], ["two", "one", "two"]], ids=" ".join)
@pytest.mark.parametrize("family", RESTORED)
def test_a_container_restored_over_a_key_keeps_its_identity_in_an_aof(fleet, family, names):
    """While an AOF is read, RESTORE reads the new value before the former one leaves the key."""
    create, store, look = RESTORED[family]
    server = fleet.launch(appendonly="yes")

    def ask(wire, command, name):
        reply = wire(*(name if word == "{}" else word for word in command))
        assert not isinstance(reply, Failure), reply
        return reply

    with server.wire() as wire:
        ask(wire, create, "one")
        ask(wire, store, "one")
        dump = wire("DUMP", "one")
        for name in names:
            assert wire("RESTORE", name, 0, dump, "REPLACE") == "OK"
            ask(wire, store, name)
        keys = sorted(wire("KEYS", "*"))
        found = [ask(wire, look, name) for name in {"one", *names}]
        assert all(found)
    digest = server.digest()
    server.restart()
    assert server.digest() == digest
    with server.wire() as wire:
        assert sorted(wire("KEYS", "*")) == keys
        assert [ask(wire, look, name) for name in {"one", *names}] == found


# So many that some come before their container in a file and some behind it, whatever the order of its keys.
COPIES = 40


@PREAMBLE
@pytest.mark.parametrize("family", RESTORED)
def test_copies_of_an_entry_under_other_names_are_in_a_rewritten_file(fleet, family, preamble):
    """They are nobody's, and keys all the same; their container has one entry with them and without them."""
    create, store, look = RESTORED[family]
    server = fleet.launch(**EVERYSEC, aof_use_rdb_preamble=preamble)

    def ask(wire, command):
        reply = wire(*("one" if word == "{}" else word for word in command))
        # The words of an index are read again after a start.
        if isinstance(reply, Failure) and reply.word == "TRYAGAIN":
            return None
        assert not isinstance(reply, Failure), reply
        return reply

    def state(wire):
        found = wait_until(lambda: ask(wire, look), "the entry is found", 30)
        info = dict(zip(*[iter(wire(f"{family}.INFO", "one"))] * 2))
        return sorted(wire("KEYS", "*")), info.get(b"entries", info.get(b"chunks")), found

    with server.wire() as wire:
        ask(wire, create)
        ask(wire, store)
        (entry,) = (key for key in wire("KEYS", "*") if key != b"one")
        # Of a name like its own, and of any; one with a deadline.
        names = [name for number in range(COPIES) for name in (entry + b"%d" % number, b"copy %d" % number)]
        dump = wire("DUMP", entry)
        for name in names:
            assert wire("RESTORE", name, 0, dump) == "OK"
        assert wire("PEXPIRE", names[0], 600_000) == 1
        before = state(wire)
        assert (len(before[0]), before[1]) == (2 * COPIES + 2, 1)
    digest = server.digest()
    # A server that starts has its keys in an order of its own.
    for _ in range(2):
        rewrite(server.client())
        server.restart()
        assert server.digest() == digest
        with server.wire() as wire:
            assert state(wire) == before
