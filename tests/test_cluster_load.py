"""A slot with every kind of container moves under a load of stores, renewals, removals, invalidations and clients
that wait, key by key and atomically, with and without replacing, with a node killed in the middle: nothing that was
acknowledged is lost or comes back. `LLMCACHE_LOAD_SECONDS` makes it last longer.
"""

import os
import subprocess
import threading
import time

import pytest
from harness.cluster import Cluster, ClusterWire
from harness.kv import blob, digests
from harness.names import key_slot
from harness.vectors import fp32, units
from harness.waiting import wait_until
from harness.wire import Failure

TAG = "{load}"
SLOT = key_slot(TAG)
COUNT = 1_500
SECONDS = float(os.environ.get("LLMCACHE_LOAD_SECONDS", 0))
ROWS = units(COUNT, 8)
CACHE, DOCS, EMBEDDINGS, NAMESPACE, OWNER = (name + TAG for name in ("faq", "docs", "emb", "ns", "owner"))


class Book:
    """What was acknowledged: by key of the test, what it must hold, or that it must be gone."""

    def __init__(self):
        self.holds: dict[tuple, bytes | None] = {}
        # What was asked for and not answered, as when a node dies: it may have been done or not.
        self.unsure: set[tuple] = set()
        self.wrong: list = []
        self.put_off = 0
        self.done = 0


class Worker:
    """A client with its own share of the entries of all containers: it knows what each must be at any time."""

    def __init__(self, cluster: Cluster, number: int, of: int, book: Book):
        self.client: ClusterWire = cluster.client()
        self.mine = list(range(number, COUNT, of))
        self.book = book
        self.turn = 0

    def call(self, what: tuple, becomes: bytes | None, command: str, key: str, *arguments):
        """One command. A refusal leaves things as they were: the worker goes on with another entry."""
        try:
            reply = self.client(command, key, *arguments)
        except (OSError, AssertionError):
            # The node went, with or without having done it.
            self.book.unsure.add(what)
            self.client.wires.clear()
            self.client.owner.clear()
            time.sleep(0.02)
            return
        if not isinstance(reply, Failure):
            self.book.unsure.discard(what)
            self.book.holds[what] = becomes
            self.book.done += 1
        elif reply.word == "TRYAGAIN":
            self.book.put_off += 1
        elif reply.word not in ("CLUSTERDOWN", "LOADING"):
            self.book.wrong.append((command, arguments[:3], reply))

    def step(self):
        self.turn += 1
        i = self.mine[self.turn * 7 % len(self.mine)]
        value = b"%d.%d" % (i, self.turn)
        family = self.turn % 5
        gone = self.turn % 3 == 0
        if family == 0:
            if gone:
                how = ("IDS", 1, f"e{i}") if self.turn % 2 else None
                if how:
                    self.call(("faq", i), None, "LLMCACHE.INVALIDATE", CACHE, *how)
                else:
                    self.call(("faq", i), None, "LLMCACHE.DEL", CACHE, f"e{i}")
            else:
                self.call(("faq", i), value, "LLMCACHE.SETSEM", CACHE, "PROMPT", f"p{i}", "RESPONSE", value, "ID", f"e{i}", *fp32(ROWS[i]))
        elif family == 1:
            if gone:
                self.call(("docs", i), None, "RAG.DEL", DOCS, f"d{i}")
            else:
                self.call(("docs", i), value, "RAG.ADD", DOCS, f"d{i}", *fp32(ROWS[i]), "TEXT", value)
        elif family == 2:
            if gone:
                self.call(("emb", i), None, "EMBCACHE.DEL", EMBEDDINGS, "TEXTS", 1, f"t{i}")
            else:
                self.call(("emb", i), b"", "EMBCACHE.SET", EMBEDDINGS, "TEXT", f"t{i}", *fp32(ROWS[i]))
        elif family == 3:
            token = blob([i, 7])
            if gone:
                self.call(("ns", i), None, "KVCHUNK.DEL", NAMESPACE, digests([i, 7], 2)[0])
            else:
                self.call(("ns", i), value, "KVCHUNK.PUT", NAMESPACE, "TOKENS", token, "PAYLOAD", 1, value)
        else:
            session = f"s{i % 20}:{self.mine[0]}" + TAG
            self.call(("session", session), b"", "SESSION.APPEND", session, "OWNER", OWNER, "MSG", "user", value)


STOP = threading.Event()


class Load:
    """Workers in threads, and clients that wait."""

    def __init__(self, cluster, workers=3):
        STOP.clear()
        self.book = Book()
        self.workers = [Worker(cluster, n, workers, self.book) for n in range(workers)]
        self.threads = [threading.Thread(target=self.run, args=(worker,)) for worker in self.workers]

    def run(self, worker):
        while not STOP.is_set():
            worker.step()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self.book

    def __exit__(self, *_):
        STOP.set()
        for thread in self.threads:
            thread.join()


def prepare(fleet, **options) -> Cluster:
    # From the first slot on, so that redis-cli moves it.
    cluster = Cluster(fleet, [[(SLOT, 16_383)], [(0, SLOT - 1)]], **options)
    with cluster.client() as client:
        assert client("LLMCACHE.CREATE", CACHE, "DIM", 8) == "OK"
        assert client("EMBCACHE.CREATE", EMBEDDINGS, "MODEL", "m", "DIM", 8) == "OK"
        assert client("KVCHUNK.CREATE", NAMESPACE, "CHUNK", 2, "DURABLE", "FULL") == "OK"
        assert client("RAG.CREATE", DOCS, "DIM", 8) == "OK"
        assert client("SESSION.APPEND", "told" + TAG, "MSG", "user", "x")
    with cluster.nodes[0].wire() as wire:
        wire.pipeline(("LLMCACHE.SETSEM", CACHE, "PROMPT", f"p{i}", "RESPONSE", "first", "ID", f"e{i}", *fp32(ROWS[i])) for i in range(COUNT))
        wire.pipeline(("RAG.ADD", DOCS, f"d{i}", *fp32(ROWS[i]), "TEXT", "first") for i in range(COUNT))
        wire.pipeline(("KVCHUNK.PUT", NAMESPACE, "TOKENS", blob([i, 7]), "PAYLOAD", 1, "first") for i in range(COUNT))
        wire.pipeline(("EMBCACHE.SET", EMBEDDINGS, "TEXT", f"t{i}", *fp32(ROWS[i])) for i in range(COUNT))
    return cluster


def scan(client, command, key):
    cursor, found = "0", []
    while True:
        cursor, page = client(command, key, cursor, "COUNT", 1_000)
        found += page
        if cursor in (b"0", "0"):
            return found


def check(cluster, book, owner):
    """Everything is where the slot is, as it was acknowledged."""
    assert book.wrong == []
    others = [n for n in range(len(cluster.nodes)) if n != owner]
    for other in others:
        wait_until(lambda other=other: cluster.keys_in_slot(other, SLOT) == [], "nothing is left behind")
    with cluster.nodes[owner].wire() as wire:
        answers = wire.pipeline(("LLMCACHE.ENTRY", CACHE, f"e{i}") for i in range(COUNT))
        texts = wire.pipeline(("RAG.GET", DOCS, f"d{i}") for i in range(COUNT))
        vectors = wire("EMBCACHE.MGET", EMBEDDINGS, "TEXTS", COUNT, *(f"t{i}" for i in range(COUNT)))
        payloads = wire.pipeline(("KVCHUNK.GET", NAMESPACE, digests([i, 7], 2)[0]) for i in range(COUNT))
        answers = [None if reply is None else dict(zip(reply[::2], reply[1::2]))[b"response"] for reply in answers]
        texts = [None if reply is None else dict(zip(reply[::2], reply[1::2]))[b"text"] for reply in texts]
        payloads = [None if reply is None else b"".join(reply[2]) for reply in payloads]
        for name, found in (("faq", answers), ("docs", texts), ("ns", payloads)):
            bad = [
                (i, is_, book.holds.get((name, i), b"first"))
                for i, is_ in enumerate(found)
                if (name, i) not in book.unsure and is_ != book.holds.get((name, i), b"first")
            ]
            assert bad == [], (name, len(bad), bad[:5])
        bad = [
            i
            for i, is_ in enumerate(vectors)
            if ("emb", i) not in book.unsure and (is_ is None) != (book.holds.get(("emb", i), b"") is None)
        ]
        assert bad == []
        # What lists the entries names those keys, each once.
        def client(*arguments):
            return wire(*arguments)

        def settled():
            # What arrived last is taken in between commands.
            for command, key, found in (("LLMCACHE.SCAN", CACHE, answers), ("RAG.SCAN", DOCS, texts), ("KVCHUNK.SCAN", NAMESPACE, payloads)):
                listed = scan(client, command, key)
                if len(listed) != len(set(listed)) or len(listed) != sum(one is not None for one in found):
                    return None
            info = wire("LLMCACHE.INFO", CACHE)
            return dict(zip(info[::2], info[1::2]))[b"entries"] == sum(one is not None for one in answers)

        wait_until(settled, "SCAN and INFO agree with the keys", step=0.2)
        sessions = {what[1].encode() for what in book.holds if what[0] == "session"}
        listed = {row[0] for row in wire("SESSION.LIST", OWNER, "COUNT", 10_000)}
        assert sessions <= listed, (len(sessions), len(listed))
    assert book.done > 50
    return book


def keep_on():
    time.sleep(SECONDS)


def wait_for_somebody(cluster):
    """A follower and a client that waits for an answer, at the source."""
    follower, waiter = cluster.nodes[0].wire(), cluster.nodes[0].wire()
    with cluster.nodes[0].wire() as wire:
        seq = wire("SESSION.BEGIN", "told" + TAG, "assistant")[0]
        wire("LLMCACHE.FETCH", CACHE, "PROMPT", "nobody knows", "LEASE", 600_000)
    follower.send("SESSION.FOLLOW", "told" + TAG, seq, 0, "BLOCK", 60_000)
    waiter.send("LLMCACHE.FETCH", CACHE, "PROMPT", "nobody knows", "WAIT", 60_000)
    wait_until(lambda: cluster.nodes[0].info("clients")["blocked_clients"] == "2", "both wait")
    return follower, waiter


def check_sent_on(cluster, *waiting):
    for wire in waiting:
        reply = wire.read()
        assert isinstance(reply, Failure) and reply.word in ("ASK", "MOVED"), reply
        assert reply.text.endswith(f":{cluster.nodes[1].port}")
        wire.close()


def reshard(redis_cli, cluster, source, target, *more):
    return subprocess.run(
        [
            *(redis_cli, "--cluster", "reshard", f"127.0.0.1:{cluster.nodes[source].port}"),
            *("--cluster-from", cluster.ids[source], "--cluster-to", cluster.ids[target]),
            *("--cluster-slots", "1", "--cluster-yes", *more),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.mark.parametrize("replaces", [False, True], ids=["plain", "replace"])
def test_reshard_under_load(fleet, redis_cli, replaces):
    cluster = prepare(fleet)
    waiting = wait_for_somebody(cluster)
    with Load(cluster) as book:
        more = ("--cluster-replace",) if replaces else ()
        run = reshard(redis_cli, cluster, 0, 1, *more)
        assert run.returncode == 0, run.stdout[-2_000:] + run.stderr
        check_sent_on(cluster, *waiting)
        # A load that is slow beside the move may miss it: then there and back once more.
        for source, target in ((1, 0), (0, 1)) * 4:
            if book.put_off and target == 0:
                break
            run = reshard(redis_cli, cluster, source, target, *more)
            assert run.returncode == 0, run.stdout[-2_000:] + run.stderr
        keep_on()
    check(cluster, book, 1)
    assert book.put_off > 0, "nothing was ever missing: the load missed the move"


@pytest.mark.parametrize("victim", ["source", "target"])
def test_a_node_killed_in_the_middle(fleet, redis_cli, victim):
    cluster = prepare(fleet, appendonly="yes", appendfsync="always", cluster_node_timeout=60_000)
    number = 0 if victim == "source" else 1
    with Load(cluster) as book:
        cluster.start_move(SLOT, 0, 1)
        keys = cluster.keys_in_slot(0, SLOT)
        cluster.move_keys(0, 1, keys[: len(keys) // 2])
        cluster.nodes[number].kill9()
        time.sleep(0.3)
        cluster.nodes[number].start()
        wait_until(lambda: knows_all(cluster), "the cluster is whole")
        # It remembers that the slot is on its way, as nodes do.
        while rest := cluster.keys_in_slot(0, SLOT):
            cluster.move_keys(0, 1, rest)
        cluster.end_move(SLOT, 1)
        keep_on()
    check(cluster, book, 1)


def knows_all(cluster):
    for node in cluster.nodes:
        with node.wire() as wire:
            if "cluster_state:ok" not in wire("CLUSTER", "INFO").decode():
                return False
            if any("disconnected" in line for line in wire("CLUSTER", "NODES").decode().splitlines()):
                return False
    return True


# Valkey's atomic migration: the slot's keys are sent as they are and change hands in one moment.


def is_atomic(cluster):
    """Whether the servers migrate slots atomically; others are asked too, so that this test says what they answer."""
    if cluster.nodes[0].is_valkey:
        return True
    with cluster.nodes[0].wire() as wire:
        reply = migrate(wire, cluster, 1)
        assert isinstance(reply, Failure) and "unknown subcommand" in reply.text.lower(), reply
    return False


def migrate(wire, cluster, target):
    return wire("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT, "NODE", cluster.ids[target])


def migration_state(node):
    with node.wire() as wire:
        jobs = wire("CLUSTER", "GETSLOTMIGRATIONS")
    return dict(zip(jobs[0][::2], jobs[0][1::2]))[b"state"].decode() if jobs else ""


def caches(node):
    return int(node.info("llmcache")["llmcache_caches"])


def test_atomic_migration_under_load(fleet):
    cluster = prepare(fleet)
    if not is_atomic(cluster):
        return
    waiting = wait_for_somebody(cluster)
    with Load(cluster) as book:
        for source, target in ((0, 1), (1, 0), (0, 1)):
            with cluster.nodes[source].wire() as wire:
                expect = migrate(wire, cluster, target)
                assert expect == "OK", expect
            wait_until(lambda s=source: migration_state(cluster.nodes[s]) in ("success", "failed"), "it ends", 60)
            assert migration_state(cluster.nodes[source]) == "success"
            if source == 0 and waiting:
                check_sent_on(cluster, *waiting)
                waiting = ()
            time.sleep(0.2)
        keep_on()
    check(cluster, book, 1)
    assert caches(cluster.nodes[0]) == 0


def test_an_atomic_migration_given_up_leaves_nothing(fleet):
    cluster = prepare(fleet)
    if not is_atomic(cluster):
        return
    with cluster.nodes[0].wire() as wire:
        wire.pipeline(("RAG.ADD", DOCS, f"big{i}", *fp32(ROWS[i % COUNT]), "TEXT", "x" * 20_000) for i in range(4_000))
    with Load(cluster) as book:
        for _ in range(3):
            with cluster.nodes[0].wire() as source, cluster.nodes[1].wire() as target:
                assert migrate(source, cluster, 1) == "OK"
                begun = wait_until(lambda: migration_state(cluster.nodes[1]), "the target hears of it")
                assert target("LLMCACHE.ENTRY", CACHE, "e1").word == "MOVED"
                reply = source("CLUSTER", "CANCELSLOTMIGRATIONS")
                assert reply == "OK", (begun, reply)
                wait_until(lambda: cluster.keys_in_slot(1, SLOT) == [], "what was staged is gone")
                assert target("DBSIZE") == 0
                wait_until(lambda: caches(cluster.nodes[1]) == 0, "no cache is known there")
        with cluster.nodes[0].wire() as source:
            assert migrate(source, cluster, 1) == "OK"
        wait_until(lambda: migration_state(cluster.nodes[0]) in ("success", "failed"), "it ends", 60)
        assert migration_state(cluster.nodes[0]) == "success"
        keep_on()
    with cluster.nodes[1].wire() as wire:
        assert wire("RAG.DEL", DOCS, *(f"big{i}" for i in range(4_000))) == 4_000
    check(cluster, book, 1)


def test_a_target_killed_while_it_imports(fleet):
    cluster = prepare(fleet, appendonly="yes", cluster_node_timeout=60_000)
    if not is_atomic(cluster):
        return
    with cluster.nodes[0].wire() as wire:
        wire.pipeline(("RAG.ADD", DOCS, f"big{i}", *fp32(ROWS[i % COUNT]), "TEXT", "x" * 20_000) for i in range(2_000))
        assert migrate(wire, cluster, 1) == "OK"
        wait_until(lambda: migration_state(cluster.nodes[1]), "the target hears of it")
        cluster.nodes[1].kill9()
        cluster.nodes[1].start()
        wait_until(lambda: knows_all(cluster), "the cluster is whole")
        wait_until(lambda: cluster.keys_in_slot(1, SLOT) == [], "nothing is staged any more")
        assert caches(cluster.nodes[1]) == 0
        assert wire("DBSIZE") == 4 * COUNT + 2_000 + 4 + 1
        wait_until(lambda: migration_state(cluster.nodes[0]) not in ("waiting-to-snapshot", "snapshotting", "connecting"), "given up")
        assert migrate(wire, cluster, 1) == "OK"
        wait_until(lambda: migration_state(cluster.nodes[0]) in ("success", "failed"), "it ends", 60)
        assert migration_state(cluster.nodes[0]) == "success"
    with cluster.nodes[1].wire() as wire:
        assert wire("RAG.DEL", DOCS, *(f"big{i}" for i in range(2_000))) == 2_000
    book = Book()
    book.done = 100
    check(cluster, book, 1)
