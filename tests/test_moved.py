"""MOVED: an answer that is brought over from another cache is there what it was."""

import pytest
import redis
from harness.replies import fields
from harness.vectors import fp32, unit
from harness.waiting import wait_until

DAY_MS = 86_400_000



@pytest.fixture
def server(emptied):
    return emptied


def moved(age: int = DAY_MS, hits: int = 0, grace: int = 0, state: str = "FRESH") -> list:
    return ["MOVED", age, hits, grace, state]


def stored(cache, *arguments, prompt: str = "p") -> None:
    assert cache.run("SETSEM", "PROMPT", prompt, "RESPONSE", "r", *fp32(unit(1, 8)), "ID", "e", *arguments) == b"e"


def now_ms(client) -> int:
    seconds, micros = client.time()
    return seconds * 1_000 + micros // 1_000


def test_an_answer_keeps_its_age(cache_by):
    stored(cache_by, *moved(age=DAY_MS))
    before = now_ms(cache_by.client)
    entry = cache_by.entry("e")
    assert entry["age"] >= DAY_MS
    assert entry["created"] <= before - DAY_MS
    assert cache_by.getsem(vector=unit(1, 8), maxage=2 * 86_400).response == b"r"
    assert cache_by.getsem(vector=unit(1, 8), maxage=86_399) is None
    # What is old is removed as that, wherever it was when it was made.
    assert cache_by.run("INVALIDATE", "OLDER", 2 * 86_400) == 0
    assert cache_by.run("INVALIDATE", "OLDER", 3_600) == 1


def test_an_answer_keeps_its_hits(cache):
    stored(cache, *moved(age=60_000, hits=7))
    assert cache.entry("e")["hits"] == 7
    cache.getsem(vector=unit(1, 8))
    assert cache.entry("e")["hits"] == 8
    stored(cache, *moved(hits=2**32 - 1))
    cache.getsem(vector=unit(1, 8))
    assert cache.entry("e")["hits"] == 2**32 - 1
    # One stored anew begins anew.
    stored(cache)
    assert cache.entry("e")["hits"] == 0


def test_hits_of_before_decide_what_is_evicted(cache):
    cache.create(maxentries=3)
    for n in range(3):
        hits = 50 if n == 0 else 0
        cache.run("SET", "PROMPT", f"q{n}", "RESPONSE", "r", "ID", f"e{n}", *moved(age=60_000, hits=hits))
    for n in range(3, 9):
        cache.set(f"q{n}", "r", id=f"e{n}")
    assert cache.entry("e0") is not None
    assert cache.entry("e1") is None


def test_hits_of_before_are_an_lfu_hint(fleet):
    server = fleet.launch(maxmemory_policy="allkeys-lfu", maxmemory="1gb")
    with server.wire() as wire:
        for name, hits in (("new", 0), ("hot", 10_000)):
            assert wire("LLMCACHE.SET", "faq", "PROMPT", name, "RESPONSE", "r", "ID", name, *moved(hits=hits)) == name.encode()
        keys = {name: fields(wire("LLMCACHE.ENTRY", "faq", name))["key"] for name in ("new", "hot")}
        assert wire("OBJECT", "FREQ", keys["hot"]) > wire("OBJECT", "FREQ", keys["new"]) + 30


def test_a_stale_answer_stays_stale(cache_by):
    stored(cache_by, *moved(state="STALE"))
    assert cache_by.entry("e")["stale"] == 1
    stored(cache_by, *moved(state="FRESH"))
    assert cache_by.entry("e")["stale"] == 0


def test_the_deadline_is_that_of_the_entry_told(cache):
    """An answer in its grace is brought over as one, and with what is left of it."""
    cache.create(grace=5)
    deadline = now_ms(cache.client) + 50_000
    # It became stale ten seconds ago: it has a grace of its own, whatever the cache would give.
    stored(cache, "PXAT", deadline, *moved(grace=60_000))
    entry = cache.entry("e")
    assert (entry["deadline"], entry["grace"], entry["stale"], entry["ttl"]) == (deadline, 60_000, 1, 0)
    stored(cache, "PXAT", deadline, *moved(grace=20_000))
    entry = cache.entry("e")
    assert (entry["deadline"], entry["grace"], entry["stale"]) == (deadline, 20_000, 0)
    assert 0 < entry["ttl"] <= 30_000
    stored(cache, "PERSIST", *moved(grace=20_000))
    assert (cache.entry("e")["deadline"], cache.entry("e")["ttl"]) == (0, -1)
    stored(cache, "PXAT", 1, *moved(grace=20_000))
    assert cache.entry("e") is None
    # Without MOVED the grace of the cache is added, as ever.
    stored(cache, "PXAT", deadline)
    assert cache.entry("e")["deadline"] == deadline + 5_000


def test_the_sink_is_not_told_again(cache, client):
    cache.create()
    cache.config_set("sink", "{faq}:sink")
    stored(cache)
    assert client.xlen("{faq}:sink") == 1
    stored(cache, *moved())
    assert client.xlen("{faq}:sink") == 1


def test_replicas_and_aof_are_told(fleet):
    primary, replica = fleet.launch(appendonly="yes"), fleet.launch()
    replica.client().replicaof("127.0.0.1", primary.port)
    wait_until(lambda: replica.info().get("master_link_status") == "up", "the replica is linked")
    client = primary.client()
    args = ["PROMPT", "p", "RESPONSE", "r", "ID", "e", "PXAT", now_ms(client) + 90_000]
    assert client.execute_command("LLMCACHE.SET", "faq", *args, *moved(grace=100_000, state="STALE")) == b"e"
    told = fields(client.execute_command("LLMCACHE.ENTRY", "faq", "e"))
    assert client.wait(1, 30_000) == 1
    there = fields(replica.client().execute_command("LLMCACHE.ENTRY", "faq", "e"))
    assert [there[name] for name in ("created", "deadline", "grace", "stale")] == [
        told[name] for name in ("created", "deadline", "grace", "stale")
    ]
    client.execute_command("DEBUG", "LOADAOF")
    again = fields(client.execute_command("LLMCACHE.ENTRY", "faq", "e"))
    assert [again[name] for name in ("created", "deadline", "grace", "stale")] == [
        told[name] for name in ("created", "deadline", "grace", "stale")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ["MOVED"],
        ["MOVED", 1, 2, 3],
        ["MOVED", 1, 2, 3, "OTHER"],
        ["MOVED", -1, 0, 0, "FRESH"],
        ["MOVED", 2**63, 0, 0, "FRESH"],
        ["MOVED", 0, 2**32, 0, "FRESH"],
        ["MOVED", 0, 0, 2**62, "FRESH"],
        [*moved(), *moved()],
        [*moved(), "LEASE", "a" * 32],
        [*moved(), "TICKET", "a" * 64, "RIGHT"],
    ],
)
def test_what_is_refused(client, wrong):
    with pytest.raises(redis.ResponseError):
        client.execute_command("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r", *wrong)
    assert client.dbsize() == 0


def test_a_document_keeps_its_age_and_its_hits(client):
    def document(*tail):
        return client.execute_command("RAG.ADD", "docs", "d", *fp32(unit(1, 8)), "TEXT", "t", *tail)

    assert document("META", '{"a":1}', "EX", 500, "MOVED", DAY_MS, 5) == 1
    row = fields(client.execute_command("RAG.GET", "docs", "d"))
    assert row["age"] >= DAY_MS
    # Reading it counts, too.
    assert (row["hits"], row["meta"]) == (6, b'{"a":1}')
    assert document() == 0
    assert fields(client.execute_command("RAG.GET", "docs", "d"))["hits"] == 1
    # Comes last; in a batch the word is the next document's id, as ever.
    for tail in (["MOVED"], ["MOVED", 1], ["MOVED", 1, 2, "META", "{}"], ["MOVED", -1, 0], ["MOVED", 0, 2**32]):
        with pytest.raises(redis.ResponseError):
            document(*tail)
    two = ["a", "TEXT", "t", "NOVECTOR", "MOVED", "TEXT", "u", "NOVECTOR"]
    assert client.execute_command("RAG.MADD", "docs", 2, *two) == [1, 1]
    assert fields(client.execute_command("RAG.GET", "docs", "MOVED"))["text"] == b"u"
