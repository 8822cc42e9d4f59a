"""A container moves as its settings, whatever its size; its entries bring their rows, each one, in any order."""

import base64
import itertools
import json
import random
from pathlib import Path

import pytest
from harness.cache import Cache, answer
from harness.cluster import Cluster
from harness.names import key_slot
from harness.persistence import wait_for_rewrite
from harness.replication import pair
from harness.vectors import fp32, units
from harness.waiting import wait_until
from harness.wire import Failure

DIM = 16
OLD = json.loads((Path(__file__).parent / "fixtures/dumps_of_the_first_release.json").read_text())["dumps"]
DUMP_MAX = 1_000


def rows_and_keys(server, name="faq"):
    """INFO's entries, the keys there are, what SCAN lists."""
    cache = Cache(server.client(), name)
    info = cache.info()
    keys = list(server.client().scan_iter(match=info["prefix"] + b"*", count=10_000))
    return info["entries"], len(keys), sorted(cache.scan_ids(count=100))


def assert_exact(server, name="faq", count=None):
    entries, keys, listed = rows_and_keys(server, name)
    assert entries == keys == len(listed) == len(set(listed)), (entries, keys, len(listed), len(set(listed)))
    if count is not None:
        assert entries == count


# --- 2.6: what a DUMP holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LLMCACHE", "RAG"])
def test_a_dump_does_not_grow_with_the_entries(server, kind):
    wire = server.wire()
    sizes = []
    for count in (10, 5_000):
        if kind == "LLMCACHE":
            Cache(server.client()).fill(count, dim=DIM)
        else:
            replies = wire.pipeline(
                ("RAG.ADD", "faq", f"doc {i}", "TEXT", "x", *fp32(v)) for i, v in enumerate(units(count, DIM))
            )
            assert not any(isinstance(reply, Failure) for reply in replies), replies[0]
        sizes.append(len(server.client().dump("faq")))
    # The next place of the store order takes a byte more or less.
    assert abs(sizes[0] - sizes[1]) < 8 and sizes[1] < DUMP_MAX


def test_a_dump_while_a_child_saves_is_small_and_what_it_saves_is_whole(server):
    """The child that saves knows that it does; the process that serves does not take its DUMP for that."""
    cache = Cache(server.client())
    cache.create(dim=DIM, index="HNSW")
    cache.fill(3_000, dim=DIM)
    wait_until(lambda: cache.info()["tail"] == 0, "the graph is built", 60)
    client = server.client()
    client.config_set("rdb-key-save-delay", 300)
    client.bgsave()
    assert client.info("persistence")["rdb_bgsave_in_progress"] == 1
    assert len(client.dump("faq")) < DUMP_MAX
    client.config_set("rdb-key-save-delay", 0)
    wait_until(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0, "saved", 60)
    server.kill9()
    server.start()
    cache = Cache(server.client())
    info = cache.info()
    # Links that were saved are there at once; those that are made anew come later.
    assert (info["entries"], info["linked"], info["tail"]) == (3_000, 3_000, 0)
    assert_exact(server, count=3_000)


def test_a_debug_reload_and_a_full_synchronisation_are_whole(fleet):
    both = pair(fleet)
    cache = Cache(both.primary.client())
    cache.create(dim=DIM, index="HNSW")
    cache.fill(1_000, dim=DIM)
    wait_until(lambda: cache.info()["tail"] == 0, "the graph is built", 60)
    assert both.primary.client().execute_command("DEBUG", "RELOAD")
    assert cache.info()["linked"] == 1_000
    other = fleet.launch(replicaof=f"127.0.0.1 {both.primary.port}")
    wait_until(lambda: other.client().info("replication")["master_link_status"] == "up", "in sync", 60)
    assert Cache(other.client()).info()["linked"] == 1_000
    assert_exact(other, count=1_000)


def restore_old(server, order, rng):
    client = server.client()
    names = list(OLD)
    entries = [name for name in names if name != "faq"]
    rng.shuffle(entries)
    cut = {"first": 0, "middle": len(entries) // 2, "last": len(entries)}[order]
    for name in [*entries[:cut], "faq", *entries[cut:]]:
        assert client.restore(name, 0, base64.b64decode(OLD[name])) == b"OK"
    return len(entries)


@pytest.mark.parametrize("order", ["first", "middle", "last"])
def test_dumps_of_the_first_release_load_in_any_order(server, order):
    count = restore_old(server, order, random.Random(order))
    assert_exact(server, count=count)
    cache = Cache(server.client())
    assert cache.config()["threshold"] == b"0.7" and cache.config()["m"] == 4
    assert cache.getsem(prompt="prompt 3") is not None
    found = cache.getsem_many(5, vector=units(4, 8, 7)[3], threshold=0.99)
    assert [hit.prompt for hit in found][:1] == [b"prompt 3"]


def test_rows_of_an_old_dump_without_their_entries_are_none(server):
    """What a dump says of entries that are not here counts nothing."""
    client = server.client()
    assert client.restore("faq", 0, base64.b64decode(OLD["faq"])) == b"OK"
    assert_exact(server, count=0)


# --- 2.7, 2.8: rows come with entries, each once ------------------------------------------------------------------


def test_a_container_that_comes_last_knows_its_entries_at_once(server):
    """No look-up misses, no page leaves out, no limit undercounts, however short a while after."""
    count = 4_000
    cache = Cache(server.client())
    cache.create(dim=DIM, maxentries=count)
    cache.fill(count, dim=DIM)
    client = server.client()
    keys = sorted(client.keys("*"), key=lambda key: key == b"faq")
    dumps = [(key, client.dump(key)) for key in keys]
    client.flushall()
    with server.wire() as wire:
        replies = wire.pipeline(("RESTORE", key, 0, dump) for key, dump in dumps[:-1])
        assert set(replies) == {"OK"}
        # In one pipeline: nothing runs between the container and what is asked of it.
        vectors = units(count, DIM, 7)
        asked = range(0, count, 97)
        replies = wire.pipeline(
            [
                ("RESTORE", *dumps[-1][:1], 0, dumps[-1][1]),
                ("LLMCACHE.INFO", "faq"),
                *(("LLMCACHE.GETSEM", "faq", *fp32(vectors[i]), "THRESHOLD", 0.999, "RETURN", 1, "prompt") for i in asked),
                ("LLMCACHE.SETSEM", "faq", "PROMPT", "one more", "RESPONSE", "x", *fp32(vectors[0])),
                ("LLMCACHE.INFO", "faq"),
            ]
        )
    assert replies[0] == "OK"
    infos = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in (replies[1], replies[-1])]
    assert [info[b"entries"] for info in infos] == [count, count], "MAXENTRIES counts what has arrived"
    assert replies[2:-2] == [[b"prompt", b"prompt %d" % i] for i in asked]
    assert_exact(server, count=count)


def test_a_store_does_not_wait_for_the_links_of_what_has_just_moved(server):
    """It has two nodes linked for its own, not the thousands that came before it."""
    count = 6_000
    cache = Cache(server.client())
    cache.create(dim=DIM, index="HNSW")
    cache.fill(count, dim=DIM)
    client = server.client()
    dumps = {key: client.dump(key) for key in client.keys("*")}
    client.flushall()
    last = dumps.pop(b"faq")
    with server.wire() as wire:
        replies = wire.pipeline(
            [
                *(("RESTORE", key, 0, dump) for key, dump in dumps.items()),
                ("RESTORE", "faq", 0, last),
                *(("LLMCACHE.SETSEM", "faq", "PROMPT", f"new {i}", "RESPONSE", "x", *fp32(v)) for i, v in enumerate(units(20, DIM))),
                ("LLMCACHE.INFO", "faq"),
            ]
        )
    info = dict(zip(replies[-1][::2], replies[-1][1::2], strict=True))
    assert info[b"entries"] == count + 20
    assert info[b"tail"] > count // 2, "the stores waited for the rows of others"
    wait_until(lambda: cache.info()["tail"] == 0, "all is linked in the end", 60)
    assert_exact(server, count=count + 20)


class Copies:
    """Dumps of entries at several times of their lives."""

    def __init__(self, server, count):
        self.cache = Cache(server.client())
        self.cache.create(dim=DIM, index="HNSW", m=4)
        self.client = server.client()
        self.count = count
        self.dumps: dict[bytes, list[bytes]] = {}

    def store(self):
        self.cache.fill(self.count, dim=DIM)
        self.note()

    def note(self):
        for key in self.client.keys("*"):
            self.dumps.setdefault(key, []).append(self.client.dump(key))


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_arrivals_gives_an_entry_one_row(server, seed):
    """Stored, restored over itself, removed and restored, older and newer copies, renamed away and back, the
    container dumped, deleted and restored between: rows, keys and pages agree after each step."""
    rng = random.Random(seed)
    copies = Copies(server, 120)
    copies.store()
    copies.store()
    client, cache = copies.client, copies.cache
    entries = [key for key in copies.dumps if key != b"faq"]

    def restore():
        for key in rng.sample(entries, 30):
            client.restore(key, 0, rng.choice(copies.dumps[key]), replace=True)

    def remove():
        client.delete(*rng.sample(entries, 15))

    def rename():
        for key in rng.sample(entries, 5):
            if client.exists(key):
                client.rename(key, "elsewhere")
                client.rename("elsewhere", key)

    def store():
        for i in rng.sample(range(copies.count), 20):
            cache.setsem(f"prompt {i}", answer(i, 40), vector=units(copies.count, DIM, 7)[i])

    def again():
        client.restore("faq", 0, rng.choice(copies.dumps[b"faq"]), replace=True)

    def gone_and_back():
        dump = client.dump("faq")
        pipe = client.pipeline(transaction=True)
        pipe.delete("faq").restore("faq", 0, dump).execute()

    for step in range(25):
        what = rng.choice([restore, remove, rename, store, again, gone_and_back])
        what()
        entries_in, keys, listed = rows_and_keys(server)
        assert entries_in == keys == len(listed) == len(set(listed)), (seed, step, what.__name__)
    copies.note()


def test_entries_of_an_aof_in_any_order(fleet):
    """Without a preamble the container may come after its entries, and entries may come twice."""
    server = fleet.launch(appendonly="yes", aof_use_rdb_preamble="no", appendfsync="always")
    cache = Cache(server.client())
    cache.create(dim=DIM)
    for _ in range(2):
        cache.fill(300, dim=DIM)
    client = server.client()
    client.bgrewriteaof()
    wait_for_rewrite(client, 60)
    cache.fill(300, dim=DIM)
    cache.delete(*cache.scan_ids()[:50])
    server.kill9()
    server.start()
    assert_exact(server, count=250)
    assert cache.info()["hidden"] == 0


SLOT = key_slot("faq")


def test_there_and_back_with_the_other_node_killed_on_the_way(fleet):
    """A to B to A under replacement, B killed in the middle of the second move and started again from its AOF."""
    cluster = Cluster(fleet, [[(SLOT, 16_383)], [(0, SLOT - 1)]], appendonly="yes", appendfsync="always")
    count = 1_500
    rows = units(count, DIM)
    with cluster.nodes[0].wire() as wire:
        wire("LLMCACHE.CREATE", "faq", "DIM", DIM, "INDEX", "HNSW", "M", 4)

    def store(node, some):
        with cluster.nodes[node].wire() as wire:
            replies = wire.pipeline(
                ("LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", answer(i, 40), *fp32(rows[i])) for i in some
            )
            assert not any(isinstance(reply, Failure) for reply in replies)

    def move(source, target, halt=None):
        cluster.start_move(SLOT, source, target)
        keys = sorted(cluster.keys_in_slot(source, SLOT), key=lambda key: key == b"faq")
        for at in range(0, len(keys), 100):
            if halt == at:
                cluster.nodes[source].kill9()
                cluster.nodes[source].start()
                for node in cluster.nodes:
                    wait_until(lambda node=node: cluster._is_whole(node), "it is back", 60)
            cluster.move_keys(source, target, keys[at : at + 100])
        cluster.end_move(SLOT, target)

    store(0, range(count))
    store(0, range(0, count, 3))
    move(0, 1)
    assert_exact(cluster.nodes[1], count=count)
    store(1, range(0, count, 2))
    move(1, 0, halt=700)
    assert_exact(cluster.nodes[0], count=count)
    store(0, range(0, count, 5))
    assert_exact(cluster.nodes[0], count=count)


# --- 4.5: SCAN ----------------------------------------------------------------------------------------------------


def pages(call, between, cursor=b"0"):
    """Every page of a walk, with something done between any two."""
    listed = []
    for number in itertools.count():
        cursor, page = call(cursor)
        listed += page
        if cursor == b"0":
            return listed
        between(number)
        assert number < 10_000, "SCAN does not end"


@pytest.mark.parametrize("index", ["HNSW", "FLAT"])
def test_scan_lists_what_is_there_throughout(server, index):
    """All is stored again between any two pages; a hundred others come and go."""
    cache = Cache(server.client())
    cache.create(dim=DIM, index=index, m=4)
    vectors = units(700, DIM)
    cache.fill(700, dim=DIM)
    kept = set(cache.scan_ids(count=1_000))
    rng = random.Random(index)

    def between(number):
        for i in rng.sample(range(700), 100):
            cache.setsem(f"prompt {i}", f"again {number}", vector=vectors[i])
        others = [cache.setsem(f"other {number} {i}", "x", vector=vectors[i]) for i in range(20)]
        cache.delete(*rng.sample(others, 15))

    listed = [id_.decode() for id_ in pages(lambda cursor: cache.run("SCAN", cursor, "COUNT", 50), between)]
    assert kept <= set(listed), f"{len(kept - set(listed))} left out"
    assert len(listed) == len(set(listed)), "listed twice"


def test_kvchunk_scan_lists_what_is_there_throughout(server):
    client = server.client()
    count = 400
    stored = {bytes([1, i >> 8, i & 255]).hex() for i in range(count)}

    def put(digest):
        assert client.execute_command("KVCHUNK.PUT", "ns", "HASH", digest, "PAYLOAD", 1, "x" * 50) is not None

    for digest in sorted(stored):
        put(bytes.fromhex(digest))
    rng = random.Random(5)

    def between(number):
        again = [bytes.fromhex(d) for d in rng.sample(sorted(stored), 60)]
        for digest in again:
            # Removed and stored at once, as a replaced key is: never gone while a page is made.
            pipe = client.pipeline(transaction=True)
            pipe.execute_command("KVCHUNK.DEL", "ns", digest.hex())
            pipe.execute_command("KVCHUNK.PUT", "ns", "HASH", digest, "PAYLOAD", 1, "y" * 50)
            pipe.execute()
        put(bytes([2, number & 255]))

    listed = pages(lambda cursor: client.execute_command("KVCHUNK.SCAN", "ns", cursor, "COUNT", 30), between)
    listed = [digest.decode() for digest in listed]
    assert stored <= set(listed)
    assert len(listed) == len(set(listed))


# --- MOVE of a container alone ----------------------------------------------------------------------------------


def test_a_namespace_moved_alone_forgets_the_chunks_that_stay_behind(fleet):
    both = pair(fleet, llmcache__orphan_grace=1, llmcache__sweep_interval_ms=20)

    def counted(server):
        with server.wire() as wire:
            wire("SELECT", 1)
            info = wire("KVCHUNK.INFO", "kv")
        return tuple(dict(zip(info[::2], info[1::2]))[name] for name in (b"chunks", b"bytes", b"payload_bytes"))

    with both.primary.wire() as wire:
        assert wire("KVCHUNK.PUT", "kv", "DIGEST", "aa", "PAYLOAD", 1, "x") == b"STORED"
        assert wire("KVCHUNK.PUT", "kv", "DIGEST", "bb", "PARENT", "aa", "PAYLOAD", 1, "x") == b"STORED"
        assert wire("KVCHUNK.PUT", "kv", "DIGEST", "cc", "PAYLOAD", 1, "x") == b"STORED"
        assert wire("MOVE", "kv", 1) == 1
        # One comes along, and is there as before.
        assert wire("MOVE", "{kv}@cc", 1) == 1
        both.catch_up()
        for server in (both.primary, both.replica):
            wait_until(lambda server=server: counted(server)[0] == 1, "one chunk is counted")
            assert counted(server)[2] == 1
        wire("SELECT", 1)
        assert wire("KVCHUNK.MATCH", "kv", "DIGESTS", 1, "cc")[0] == 1
        assert wire("KVCHUNK.GET", "kv", "cc")[2] == [b"x"]


def test_a_namespace_that_is_moved_and_restored_forgets_the_chunks_that_stayed_behind(fleet):
    """In one go, so that none of them has been looked at before."""
    both = pair(fleet, llmcache__sweep_interval_ms=10)
    with both.primary.wire() as wire:
        for at in range(20):
            assert wire("KVCHUNK.PUT", "ns", "DIGEST", f"{at:02x}", "PAYLOAD", 1, "x") == b"STORED"
        head = wire("DUMP", "ns")
        words = [("MULTI",), ("MOVE", "ns", 1), ("SELECT", 1), ("DEL", "ns"), ("RESTORE", "ns", 0, head), ("EXEC",)]
        assert wire.pipeline(words)[-1] == [1, "OK", 1, "OK"]
    both.catch_up()
    for server in (both.primary, both.replica):
        with server.wire() as wire:
            wire("SELECT", 1)

            def chunks(wire=wire):
                told = wire("KVCHUNK.INFO", "ns")
                return dict(zip(told[::2], told[1::2]))[b"chunks"]

            wait_until(lambda: chunks() == 0, "no chunk of another database is counted")


FAMILIES = {
    "cache": (("LLMCACHE.SETSEM", "c", "PROMPT", "p", "RESPONSE", "r", "VALUES", 2, 1, 0), "LLMCACHE.INFO"),
    "documents": (("RAG.ADD", "c", "d", "TEXT", "t", "VALUES", 2, 1, 0), "RAG.INFO"),
    "embeddings": (("EMBCACHE.SET", "c", "MODEL", "m", "TEXT", "t", "VALUES", 2, 1, 0), "EMBCACHE.INFO"),
    "chunks": (("KVCHUNK.PUT", "c", "DIGEST", "aa", "PAYLOAD", 1, "x"), "KVCHUNK.INFO"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_container_that_moves_leaves_what_it_knows_to_the_database_where_its_entries_stay(fleet, family):
    """Also one that is dropped there and comes from a dump: primary and replica know nothing of what stayed behind."""
    store, info = FAMILIES[family]
    both = pair(fleet)

    def told(wire):
        of = wire(info, "c")
        of = dict(zip(of[::2], of[1::2]))
        return of.get(b"entries", of.get(b"chunks")), of.get(b"dim")

    with both.primary.wire() as wire:
        assert not isinstance(wire(*store), Failure)
        assert wire("DEL", wire("KEYS", "{c}*")[0]) == 1
        empty = wire("DUMP", "c")
        assert not isinstance(wire(*store), Failure)
        count, dim = told(wire)
        assert count == 1
        steps = [("MULTI",), ("MOVE", "c", 1), ("SELECT", 1), (info, "c"), ("DEL", "c"), ("RESTORE", "c", 0, empty), (info, "c")]
        *_, there, _, restored, anew = wire.pipeline([*steps, ("EXEC",)])[-1]
        assert restored == "OK"
        for of in (there, anew):
            of = dict(zip(of[::2], of[1::2]))
            assert of.get(b"entries", of.get(b"chunks")) == 0
        both.assert_equal()
        # Back in the first database, it has what stayed there.
        assert wire.pipeline([("MULTI",), ("MOVE", "c", 0), ("SELECT", 0), (info, "c"), ("EXEC",)])[-1][0] == 1
        assert told(wire) == (1, dim)
        both.assert_equal()
    with both.replica.wire() as wire:
        assert told(wire) == (1, dim)
