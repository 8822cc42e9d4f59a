"""INVALIDATE: answers taken out of use by id, tag, scope, radius, filter and age."""

import json
import struct
import time
from pathlib import Path

import pytest
from harness.cache import Cache
from harness.persistence import wait_for_rewrite
from harness.primary import Primary
from harness.replication import pair
from harness.replies import fields, hit
from harness.vectors import fp32, near, unit
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure


@pytest.fixture
def server(emptied):
    return emptied


def invalidate(cache, *arguments):
    return cache.run("INVALIDATE", *arguments)


def settled(cache):
    wait_until(lambda: cache.info()["invalidating"] == 0, "invalidations are carried out")


def stock(cache, count=30):
    """Entry i: scope s<i % 3>, tags even or odd and t<i % 5>, META n."""
    for i in range(count):
        tags = ["even" if i % 2 == 0 else "odd", f"t{i % 5}"]
        cache.setsem(f"p{i}", f"r{i}", unit(i), scope=f"s{i % 3}", tags=tags, meta={"n": i}, id=f"e{i}")


def left(cache):
    return {int(id_[1:]) for id_ in cache.scan_ids(count=1_000)}


CASES = {
    "ids": (["IDS", 3, "e1", "e5", "nothing"], {1, 5}),
    "tag": (["TAG", "t2"], {i for i in range(30) if i % 5 == 2}),
    "unknown tag": (["TAG", "nothing"], set()),
    "scope": (["SCOPE", "s1"], {i for i in range(30) if i % 3 == 1}),
    "the empty scope": (["SCOPE", ""], set()),
    "all": (["ALL"], set(range(30))),
    "filter": (["FILTER", ".n >= 20"], set(range(20, 30))),
    "age": (["OLDER", 0], set(range(30))),
    "age, none": (["OLDER", 1_000], set()),
    "near": (["NEAR", "FP32", struct.pack("<32f", *unit(7)), "SIMILARITY", "0.999"], {7}),
}


@pytest.mark.parametrize(("arguments", "gone"), CASES.values(), ids=CASES)
def test_what_is_named_is_gone_at_once_and_unlinked_soon(cache_by, arguments, gone):
    stock(cache_by)
    assert invalidate(cache_by, *arguments, "DRYRUN") == len(gone)
    assert left(cache_by) == set(range(30)), "only counted"
    assert invalidate(cache_by, *arguments) == len(gone)
    assert left(cache_by) == set(range(30)) - gone
    for i in range(30):
        scope = f"s{i % 3}"
        found = cache_by.getsem(prompt=f"p{i}", scope=scope)
        by_meaning = cache_by.getsem(vector=unit(i), scope=scope, threshold=0.999)
        assert (found is None) == (by_meaning is None) == (i in gone), i
        assert (cache_by.get(f"p{i}", scope=scope) is None) == (cache_by.entry(f"e{i}") is None) == (i in gone)
    settled(cache_by)
    assert cache_by.info()["entries"] == 30 - len(gone) == len(cache_by.entry_keys())
    assert invalidate(cache_by, *arguments) == 0, "once is enough"


@pytest.mark.parametrize(("arguments", "gone"), CASES.values(), ids=CASES)
def test_softly_they_are_stale(cache_by, arguments, gone):
    stock(cache_by)
    assert invalidate(cache_by, *arguments, "SOFT") == len(gone)

    def stale():
        every = range(30)
        return {i for i in every if cache_by.getsem(prompt=f"p{i}", scope=f"s{i % 3}").stale == 1}

    assert stale() == gone
    settled(cache_by)
    assert stale() == gone, "and marked so"
    for i in gone:
        assert cache_by.get(f"p{i}", scope=f"s{i % 3}") is None, "GET cannot say it"
        cache_by.setsem(f"p{i}", "new", unit(i), scope=f"s{i % 3}", id=f"e{i}")
    assert stale() == set(), "made anew"
    assert cache_by.info()["entries"] == 30


def test_what_is_stored_afterwards_is_not_meant(cache_by):
    stock(cache_by, 10)
    assert invalidate(cache_by, "TAG", "even") == 5
    cache_by.set("new", "r", tags=["even"], id="new")
    assert cache_by.get("new") == b"r"
    settled(cache_by)
    assert cache_by.get("new") == b"r" and cache_by.info()["entries"] == 6
    assert invalidate(cache_by, "ALL") == 6
    cache_by.set("newer", "r", id="newer")
    settled(cache_by)
    assert cache_by.scan_ids() == ["newer"]


def test_nx_stores_over_what_is_invalidated(cache_by):
    cache_by.fill(5_000, tags=["t"])
    assert invalidate(cache_by, "TAG", "t") == 5_000
    assert cache_by.set("prompt 4999", "new", nx=True) is not None
    assert cache_by.get("prompt 4999") == b"new"


def test_large_tags_are_gone_at_once(cache_by):
    cache_by.fill(20_000, dim=8, tags=["t"])
    assert invalidate(cache_by, "TAG", "t") == 20_000
    assert cache_by.found_by_meaning(range(0, 20_000, 500), dim=8) == set()
    assert cache_by.getsem(prompt="prompt 19999") is None
    settled(cache_by)
    info = cache_by.info()
    assert (info["entries"], info["partitions"]) == (0, 0) and cache_by.entry_keys() == []


def test_limit_bounds_the_walks(cache_by):
    stock(cache_by)
    assert invalidate(cache_by, "FILTER", ".n >= 0", "LIMIT", 7) == 7
    assert invalidate(cache_by, "OLDER", 0, "LIMIT", 3, "DRYRUN") == 3
    assert invalidate(cache_by, "OLDER", 0, "LIMIT", 3) == 3
    assert invalidate(cache_by, "IDS", 30, *(f"e{i}" for i in range(30)), "LIMIT", 5) == 5
    assert len(left(cache_by)) == 15


def test_long_walks_let_others_through(server, cache):
    cache.fill(30_000, dim=8)
    with server.wire() as walker, server.wire() as other:
        walker.send("LLMCACHE.INVALIDATE", "faq", "OLDER", 0)
        pings = 0
        walker.socket.settimeout(0)
        while True:
            try:
                walker.socket.recv(1, 2)  # MSG_PEEK
                break
            except BlockingIOError:
                assert other("PING") == "PONG"
                pings += 1
        walker.socket.settimeout(60)
        assert walker.read() == 30_000
    assert pings > 5, f"{pings} PINGs were answered while 30,000 entries went"


def test_a_walk_goes_on_when_its_client_goes(server, cache):
    cache.fill(20_000, dim=8)
    walker = server.wire()
    walker.send("LLMCACHE.INVALIDATE", "faq", "OLDER", 0)
    time.sleep(0.02)
    walker.close()
    wait_until(lambda: cache.info()["entries"] == 0, "all are gone")


def test_multi_and_lua_walk_in_one_go(server, cache, client):
    cache.fill(5_000, dim=8)
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command("LLMCACHE.INVALIDATE", "faq", "OLDER", 0, "LIMIT", 2_000)
        pipe.execute_command("LLMCACHE.INFO", "faq")
        count, info = pipe.execute()
    assert count == 2_000 and fields(info)["entries"] == 3_000
    script = "return redis.call('LLMCACHE.INVALIDATE', KEYS[1], 'OLDER', '0')"
    assert client.eval(script, 1, "faq") == 3_000


def test_a_walk_that_is_too_long_where_nobody_may_wait_is_refused(server, cache, client):
    cache.fill(6_000, dim=8, meta={"n": 1})
    many = " and ".join([".n == 1"] * 60)
    for what in (
        ("OLDER", 0), ("FILTER", ".n == 1"), ("FILTER", many, "LIMIT", 1), ("NEAR", *fp32(unit(1, 8)), "SIMILARITY", -1),
    ):
        with client.pipeline(transaction=True) as pipe:
            pipe.execute_command("LLMCACHE.INVALIDATE", "faq", *what)
            pipe.execute_command("LLMCACHE.INFO", "faq")
            refused, info = pipe.execute(raise_on_error=False)
        assert str(refused).startswith("BUSY this takes too long"), what
        assert fields(info)["entries"] == 6_000
    assert cache.run("INVALIDATE", "FILTER", many, "DRYRUN") == 6_000
    script = "return redis.call('LLMCACHE.INVALIDATE', KEYS[1], 'FILTER', '.n == 1', 'LIMIT', 500)"
    assert client.eval(script, 1, "faq") == 500


def rows(name, count):
    folder = Path(__file__).parent.parent / "bench" / "data"
    raw = (folder / name).read_bytes()[-count * 768 :]
    return [struct.unpack_from("<384e", raw, i * 768) for i in range(count)]


def test_a_radius_equals_brute_force_on_real_vectors(cache):
    base, queries = rows("base.f16.npy", 4_000), rows("queries.f16.npy", 200)
    cache.bulk(
        ("LLMCACHE.SETSEM", "faq", "PROMPT", f"p{i}", "RESPONSE", "r", "ID", f"e{i}", "FP32", struct.pack("<384f", *row))
        for i, row in enumerate(base)
    )
    for number, rank in ((3, 5), (50, 60), (120, 400), (199, 900)):
        query = struct.pack("<384f", *queries[number])
        exact = cache.run("GETSEM", "FP32", query, "THRESHOLD", -1, "COUNT", 1_000, "EF", 10_000, "RETURN", 2, "id", "similarity")
        exact = {found.id: found.similarity for found in map(hit, exact)}
        least = sorted(exact.values(), reverse=True)[rank]
        expected = {id_ for id_, similarity in exact.items() if similarity >= least}
        before = set(cache.scan_ids(count=10_000))
        assert invalidate(cache, "NEAR", "FP32", query, "SIMILARITY", least, "DRYRUN") == len(expected)
        assert invalidate(cache, "NEAR", "FP32", query, "SIMILARITY", least) == len(expected)
        assert before - set(cache.scan_ids(count=10_000)) == expected


def test_subscribers_are_told(server, client, cache_by):
    stock(cache_by)
    heard = client.pubsub()
    heard.subscribe("llmcache:invalidate:faq")
    assert heard.get_message(timeout=60)["type"] == "subscribe"

    def message():
        return json.loads(heard.get_message(timeout=60)["data"])

    invalidate(cache_by, "TAG", "t1", "DRYRUN")
    invalidate(cache_by, "TAG", "t1")
    told = message()
    assert (told["kind"], told["name"], told["soft"]) == ("tag", "t1", False) and told["epoch"] > 30
    invalidate(cache_by, "SCOPE", "s0", "SOFT")
    assert message() | {"epoch": 0} == {"kind": "scope", "name": "s0", "epoch": 0, "soft": True}
    invalidate(cache_by, "IDS", 2, "e2", "e3")
    assert message() == {"kind": "ids", "ids": ["e2", "e3"], "soft": False}
    cache_by.fill(2_500)
    assert invalidate(cache_by, "OLDER", 0) > 2_500
    lengths = []
    # What was told before is read before the answer.
    heard.ping()
    while (got := heard.get_message(timeout=60))["type"] != "pong":
        lengths.append(len(json.loads(got["data"])["ids"]))
    assert lengths[:2] == [1_000, 1_000] and sum(lengths) > 2_500
    heard.close()


@pytest.mark.parametrize("db, channel", [(0, "llmcache:invalidate:faq"), (3, "llmcache:invalidate@3:faq")])
def test_each_database_has_a_channel_that_replicas_hear(fleet, db, channel):
    """Whoever may invalidate may do so without a right to channels; whoever listens needs it."""
    both = pair(fleet)
    listeners = [server.client().pubsub() for server in (both.primary, both.replica)]
    for listener in listeners:
        listener.psubscribe("llmcache:invalidate*")
        assert listener.get_message(timeout=30)["type"] == "psubscribe"
    with both.primary.wire() as wire:
        assert wire("ACL", "SETUSER", "app", "reset", "on", ">pw", "resetchannels", "~faq", "+@all") == "OK"
        assert wire("AUTH", "app", "pw") == "OK"
        assert wire("SUBSCRIBE", channel).word == "NOPERM"
        assert wire("SELECT", db) == "OK"
        for kind, ways in {"tag": ("TAG", "t"), "ids": ("IDS", 1, "x"), "all": ("ALL",)}.items():
            assert wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r", "ID", "x", "TAGS", 1, "t") == b"x"
            assert wire("LLMCACHE.INVALIDATE", "faq", *ways) == 1
            heard = [listener.get_message(timeout=30) for listener in listeners]
            assert [message["channel"].decode() for message in heard] == [channel] * 2
            assert [json.loads(message["data"])["kind"] for message in heard] == [kind] * 2
        # A walk in slices, a transaction and a script tell too.
        wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r")
        assert wire("LLMCACHE.INVALIDATE", "faq", "OLDER", 0) == 1
        wire("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r", "TAGS", 1, "t")
        wire("MULTI")
        wire("LLMCACHE.INVALIDATE", "faq", "TAG", "t")
        wire("EVAL", "return redis.call('LLMCACHE.INVALIDATE', KEYS[1], 'SCOPE', 's')", 1, "faq")
        assert wire("EXEC")[0] == 1
    for listener in listeners:
        kinds = [json.loads(listener.get_message(timeout=30)["data"])["kind"] for _ in range(3)]
        assert kinds == ["ids", "tag", "scope"]
        listener.close()
    both.assert_equal()


LATE = {
    "its id": ["IDS", 1, "e"],
    "its digest": None,
    "its tag": ["TAG", "t"],
    "its tag, softly": ["TAG", "t", "SOFT"],
    "its scope": ["SCOPE", "s"],
    "all": ["ALL"],
    "a radius": ["NEAR", *("VALUES", 2, 1, 0), "SIMILARITY", 0.5],
    "a filter": ["FILTER", ".x == 1"],
    "an age": ["OLDER", 5],
}


@pytest.mark.parametrize("arguments", LATE.values(), ids=LATE)
def test_a_late_answer_stores_nothing(server, cache_by, arguments):
    old = cache_by.setsem("hi", "old", [*("VALUES", 2, 1, 0)], scope="s", tags=["t"], id="e")
    assert old == "e"
    invalidate(cache_by, "IDS", 1, "e", "SOFT")
    told = fields(cache_by.run("FETCH", "PROMPT", "hi", "SCOPE", "s"))
    assert told["status"] == b"LEAD-STALE"
    from harness.names import entry_id

    arguments = arguments or ["IDS", 1, entry_id("hi", "s")]
    invalidate(cache_by, *arguments)
    late = ("PROMPT", "hi", "RESPONSE", "late", "SCOPE", "s", "TAGS", 1, "t", "LEASE", told["token"])
    with server.wire() as wire:
        reply = wire("LLMCACHE.SETSEM", "faq", *late)
        assert isinstance(reply, Failure) and reply.word == "LEASELOST", reply
    found = cache_by.getsem(prompt="hi", scope="s")
    assert found is None or found.response == b"old"


def test_an_unrelated_invalidation_leaves_the_lease(cache_by):
    told = fields(cache_by.run("FETCH", "PROMPT", "hi", "SCOPE", "s"))
    for arguments in (["TAG", "other"], ["SCOPE", "other"], ["IDS", 1, "other"], ["ALL", "DRYRUN"]):
        invalidate(cache_by, *arguments)
    assert cache_by.run("SETSEM", "PROMPT", "hi", "RESPONSE", "r", "SCOPE", "s", "TAGS", 1, "t", "LEASE", told["token"])


def test_replicas_do_the_same(fleet):
    both = pair(fleet)
    cache = Cache(both.primary.client())
    stock(cache)
    invalidate(cache, "TAG", "t1")
    invalidate(cache, "SCOPE", "s2", "SOFT")
    invalidate(cache, "NEAR", "FP32", struct.pack("<32f", *near(unit(8), 0.99)), "SIMILARITY", "0.9")
    invalidate(cache, "FILTER", ".n == 20", "SOFT")
    both.catch_up()
    theirs = Cache(both.replica.client())
    for i in range(30):
        scope = f"s{i % 3}"
        ours, there = (c.getsem(prompt=f"p{i}", scope=scope) for c in (cache, theirs))
        assert (ours is None) == (there is None)
        assert ours is None or ours.stale == there.stale
    settled(cache)
    both.assert_equal()
    both.replica.client().execute_command("REPLICAOF", "NO", "ONE")
    settled(theirs)
    assert theirs.info()["invalidations"] == 2


@pytest.mark.parametrize("how", ["rdb", "aof", "aof without preamble"])
def test_invalidations_are_saved(fleet, how):
    preamble = "no" if "without" in how else "yes"
    server = fleet.launch(appendonly="no" if how == "rdb" else "yes", aof_use_rdb_preamble=preamble)
    cache = Cache(server.client())
    stock(cache)
    old = {f"e{i}": server.client().dump(cache.key_of(f"e{i}")) for i in (1, 2)}
    invalidate(cache, "TAG", "t1")
    invalidate(cache, "SCOPE", "s2", "SOFT")
    with server.wire() as wire:
        assert wire("SAVE" if how == "rdb" else "BGREWRITEAOF")
    wait_for_rewrite(server.client())
    digest = server.digest()
    if how != "rdb":
        server.restart()
    else:
        server.kill9()
        server.start()
    cache = Cache(server.client())
    settled(cache)
    assert {i for i in range(30) if i % 5 != 1} == left(cache)
    assert cache.info()["invalidations"] == 2
    if "aof" in how:
        assert server.digest() == digest or cache.getsem(prompt="p2", scope="s2").stale == 1
    # What was invalidated and comes back is not served.
    for id_, dump in old.items():
        server.client().restore(cache.key_of(id_), 0, dump, replace=True)
    assert cache.getsem(prompt="p1", scope="s1") is None and cache.getsem(vector=unit(1), scope="s1", threshold=0.999) is None
    assert cache.getsem(prompt="p2", scope="s2").stale == 1
    wait_until(lambda: server.client().exists(cache.key_of("e1")) == 0, "it is unlinked again")


def test_thousands_of_tags_are_remembered_and_then_forgotten(cache_by):
    cache_by.create()
    for i in range(4_500):
        if i % 500 == 0:
            settled(cache_by)
        assert invalidate(cache_by, "TAG", f"tag {i}") == 0
    assert 1 <= cache_by.info()["invalidations"] <= 4_096


def test_drop(server, cache_by, client):
    stock(cache_by)
    assert cache_by.run("DROP") == 1
    assert cache_by.get("p1", scope="s1") is None
    wait_until(lambda: client.dbsize() == 0, "the entries follow")
    assert cache_by.run("DROP") == 0
    client.set("faq", "text")
    with server.wire() as wire:
        assert wire("LLMCACHE.DROP", "faq").word == "WRONGTYPE"
    assert client.get("faq") == b"text"


BAD = {
    "nothing": [],
    "two things": ["ALL", "TAG", "t"],
    "no ids": ["IDS", 0],
    "too many ids": ["IDS", 1_001, *["x"] * 1_001],
    "no vector": ["NEAR", "SIMILARITY", 0.5],
    "no similarity": ["NEAR", "VALUES", 32, *[1] * 32],
    "beyond": ["NEAR", "VALUES", 32, *[1] * 32, "SIMILARITY", 2],
    "empty tag": ["TAG", ""],
    "limit of an epoch": ["ALL", "LIMIT", 5],
    "limit of nothing": ["OLDER", 1, "LIMIT", 0],
    "age below": ["OLDER", -1],
    "unknown": ["FOO"],
    "bad filter": ["FILTER", "("],
    "another dimension": ["NEAR", "VALUES", 2, 1, 0, "SIMILARITY", 0.5],
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_bad_input(server, cache, arguments):
    stock(cache)
    with server.wire() as wire:
        reply = wire("LLMCACHE.INVALIDATE", "faq", *arguments)
        assert isinstance(reply, Failure) and reply.word in ("ERR", "BADFILTER", "DIMMISMATCH", "TOOBIG"), reply
    assert left(cache) == set(range(30))


def test_bad_epochs_from_a_primary(server, cache):
    stock(cache)
    head = cache.client.dump("faq")
    with Primary(server) as primary:
        primary.send(("RESTORE", "faq", 0, head))
        bad = (["TAG", "t", 0, "HARD"], ["FOO", "t", 1, "HARD"], ["TAG", "t", 1, "FOO"], ["ALL", "x", 1, "HARD"])
        assert primary.refused(("LLMCACHE._EPOCH", "faq", *epoch) for epoch in bad) == len(bad)


def test_an_absent_cache_has_nothing_to_invalidate(cache_by):
    assert invalidate(cache_by, "ALL") == 0
    assert cache_by.client.exists("faq") == 0
