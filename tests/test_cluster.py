"""Cluster: everything of a cache is in one slot, and the slot moves whole, under traffic, in any order."""

import subprocess
import threading

import pytest
from harness.cache import answer
from harness.cluster import Cluster
from harness.names import entry_id, key_slot
from harness.vectors import fp32, unit, units
from harness.waiting import wait_until
from harness.wire import Failure

COUNT = 10_000
DIM = 16
SLOT = key_slot("faq")


@pytest.fixture
def cluster(fleet):
    """Node 0 owns the slot of `faq` as its first, so that redis-cli, which moves from the first on, moves it."""
    return Cluster(fleet, [[(SLOT, 16_383)], [(0, SLOT - 1)]])


@pytest.fixture(scope="module")
def rows():
    return units(COUNT + 3_000, DIM)


def setsem(i, rows):
    return ("LLMCACHE.SETSEM", "faq", "PROMPT", f"prompt {i}", "RESPONSE", answer(i, 40), *fp32(rows[i]))


def getsem(i, rows):
    return ("LLMCACHE.GETSEM", "faq", *fp32(rows[i]), "THRESHOLD", 0.999, "RETURN", 1, "prompt")


def fill(cluster, rows):
    with cluster.nodes[0].wire() as wire:
        wire("LLMCACHE.CREATE", "faq", "DIM", DIM)
        replies = wire.pipeline(setsem(i, rows) for i in range(COUNT))
        assert [reply.decode() for reply in replies] == [entry_id(f"prompt {i}") for i in range(COUNT)]


class Traffic:
    """A client that asks and stores all the while, following redirections."""

    def __init__(self, cluster, rows):
        self.stored: list[int] = []
        self.put_off = 0
        self.asked = 0
        self.wrong: list = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(cluster, rows))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self, cluster, rows):
        with cluster.client() as client:
            i = COUNT
            while not self._stop.is_set():
                if i < len(rows):
                    reply = client(*setsem(i, rows))
                    if not isinstance(reply, Failure):
                        self.stored.append(i)
                    elif reply.word == "TRYAGAIN":
                        # The entry may be on the other node; the same store succeeds later.
                        self.put_off += 1
                        i -= 1
                    else:
                        self.wrong.append(reply)
                    i += 1
                for asked in (i * 37 % COUNT, self.stored[-1] if self.stored else 0):
                    reply = client(*getsem(asked, rows))
                    self.asked += 1
                    # A miss while the slot is on its way is allowed, another's answer is not.
                    if reply is not None and reply != [b"prompt", b"prompt %d" % asked]:
                        self.wrong.append((asked, reply))


def check_arrived(cluster, rows, stored):
    assert cluster.keys_in_slot(0, SLOT) == []
    everything = [*range(COUNT), *stored]
    with cluster.nodes[1].wire() as wire:
        assert wire("DBSIZE") == len(everything) + 1

        def found():
            replies = wire.pipeline(getsem(i, rows) for i in everything)
            right = sum(r == [b"prompt", b"prompt %d" % i] for i, r in zip(everything, replies, strict=True))
            return right == len(everything) or None

        wait_until(found, "every entry is found by meaning on the new node", step=0.3)
        assert wire("LLMCACHE.GET", "faq", "PROMPT", "prompt 77") == answer(77, 40).encode()
        info = wire("LLMCACHE.INFO", "faq")
        assert dict(zip(info[::2], info[1::2]))[b"entries"] == len(everything)


def test_redis_cli_reshard_under_traffic(cluster, rows, redis_cli):
    fill(cluster, rows)
    with Traffic(cluster, rows) as traffic:
        run = subprocess.run(
            [
                *(redis_cli, "--cluster", "reshard", f"127.0.0.1:{cluster.nodes[0].port}"),
                *("--cluster-from", cluster.ids[0], "--cluster-to", cluster.ids[1]),
                *("--cluster-slots", "1", "--cluster-yes"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert run.returncode == 0, run.stdout[-2_000:] + run.stderr
    assert traffic.wrong == []
    assert traffic.asked > 20
    check_arrived(cluster, rows, traffic.stored)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_the_container_may_move_at_any_time(cluster, rows, place):
    fill(cluster, rows)
    with Traffic(cluster, rows) as traffic:
        cluster.start_move(SLOT, 0, 1)
        entries = [key for key in cluster.keys_in_slot(0, SLOT) if key != b"faq"]
        cut = {"first": 0, "middle": len(entries) // 2, "last": len(entries)}[place]
        cluster.move_keys(0, 1, entries[:cut])
        if place == "last":
            # What was stored meanwhile goes too, until the container is all that is left.
            while rest := [key for key in cluster.keys_in_slot(0, SLOT) if key != b"faq"]:
                if len(rest) < 20:
                    break
                cluster.move_keys(0, 1, rest)
        cluster.move_keys(0, 1, [b"faq"])
        cluster.move_keys(0, 1, entries[cut:])
        while rest := cluster.keys_in_slot(0, SLOT):
            cluster.move_keys(0, 1, rest)
        cluster.end_move(SLOT, 1)
    assert traffic.wrong == []
    check_arrived(cluster, rows, traffic.stored)


def test_a_slow_move_outlives_the_grace(fleet, rows):
    """Entries of a slot on its way are no orphans, on neither node, however long it takes."""
    quick = {"llmcache__orphan_grace": 1, "llmcache__sweep_interval_ms": 50}
    cluster = Cluster(fleet, [[(SLOT, 16_383)], [(0, SLOT - 1)]], **quick)
    with cluster.nodes[0].wire() as wire:
        wire.pipeline(setsem(i, rows) for i in range(200))
    cluster.start_move(SLOT, 0, 1)
    cluster.move_keys(0, 1, [b"faq"])
    pause(2.5)
    entries = cluster.keys_in_slot(0, SLOT)
    assert len(entries) == 200, "the old node reaped entries of a migrating slot"
    cluster.move_keys(0, 1, entries)
    cluster.end_move(SLOT, 1)
    # And back, the container last.
    cluster.start_move(SLOT, 1, 0)
    cluster.move_keys(1, 0, entries)
    pause(2.5)
    assert len(cluster.keys_in_slot(0, SLOT)) == 200, "the new node reaped entries of an importing slot"
    cluster.move_keys(1, 0, [b"faq"])
    cluster.end_move(SLOT, 0)
    with cluster.nodes[0].wire() as wire:
        wait_until(
            lambda: all(r == [b"prompt", b"prompt %d" % i] for i, r in enumerate(wire.pipeline(getsem(i, rows) for i in range(200)))),
            "every entry is found by meaning",
            20,
        )


def pause(seconds):
    threading.Event().wait(seconds)


def test_entries_share_the_slot_of_their_cache(cluster):
    with cluster.client() as client:
        for name in ("faq", "app:{tenant}:faq", "x{", "{{a}b"):
            reply = client("LLMCACHE.SETSEM", name, "PROMPT", "p", "RESPONSE", "r", *fp32(unit(1, DIM)))
            assert not isinstance(reply, Failure), (name, reply)
            assert client("LLMCACHE.GET", name, "PROMPT", "p") == b"r"
    for node in cluster.nodes:
        with node.wire() as wire:
            for key in wire("KEYS", "*"):
                assert wire("CLUSTER", "KEYSLOT", key) == key_slot(key)
                assert wire("TYPE", key) in ("llm-cache", "llm-entry")


def test_another_node_redirects(cluster):
    with cluster.nodes[1].wire() as wire:
        for command in (
            ("LLMCACHE.GET", "faq", "PROMPT", "a"),
            ("LLMCACHE.SET", "faq", "PROMPT", "a", "RESPONSE", "A"),
            ("LLMCACHE.INFO", "faq"),
        ):
            assert wire(*command).text.startswith(f"MOVED {SLOT} ")


def test_three_nodes_with_many_caches(fleet):
    cluster = Cluster(fleet, [[(0, 5_000)], [(5_001, 10_000)], [(10_001, 16_383)]])
    names = [f"cache {i}" for i in range(30)]
    with cluster.client() as client:
        for name in names:
            for i in range(10):
                assert client("LLMCACHE.SETSEM", name, "PROMPT", f"p{i}", "RESPONSE", name, *fp32(unit(i, DIM))) is not None
        for name in names:
            for i in range(10):
                assert client("LLMCACHE.GETSEM", name, *fp32(unit(i, DIM)), "RETURN", 1, "response") == [b"response", name.encode()]
    sizes = []
    for node in cluster.nodes:
        with node.wire() as wire:
            sizes.append(wire("DBSIZE"))
    assert sum(sizes) == 30 * 11
    assert all(sizes)


def test_streams_of_a_cache_share_its_slot(cluster):
    with cluster.client() as client:
        assert client("LLMCACHE.CREATE", "faq") == "OK"
        for setting in ("sink", "loader"):
            refused = client("LLMCACHE.CONFIG", "faq", "SET", setting, "elsewhere")
            assert isinstance(refused, Failure) and refused.word == "CROSSSLOT"
            assert client("LLMCACHE.CONFIG", "faq", "SET", setting, "{faq}:" + setting) == "OK"
        assert client("LLMCACHE.SET", "faq", "PROMPT", "hi", "RESPONSE", "r")
        assert client("XLEN", "{faq}:sink") == 1


def test_who_waits_is_told_when_the_cache_moves_away(cluster):
    with cluster.client() as client:
        assert client("LLMCACHE.CREATE", "faq") == "OK"
    with cluster.nodes[0].wire() as leader, cluster.nodes[0].wire() as waiter:
        leader("LLMCACHE.FETCH", "faq", "PROMPT", "hi")
        waiter.send("LLMCACHE.FETCH", "faq", "PROMPT", "hi", "WAIT", 60_000)
        wait_until(lambda: cluster.nodes[0].info("clients")["blocked_clients"] == "1", "it waits")
        cluster.start_move(SLOT, 0, 1)
        cluster.move_keys(0, 1, [b"faq"])
        cluster.end_move(SLOT, 1)
        assert isinstance(waiter.read(), Failure)
