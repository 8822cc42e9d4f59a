"""Whatever writes by itself, while writes are paused: by CLIENT PAUSE and by FAILOVER, with the AOF on and a replica
attached, where a server ends itself over a write. And what waits for such work when the server is demoted."""

import threading

import pytest
from harness.replication import pair
from harness.vectors import fp32, units
from harness.waiting import wait_until
from harness.wire import Failure

QUICK = {"llmcache__sweep_interval_ms": 5, "llmcache__orphan_grace": 0}
COUNT = 3_000
ROWS = units(COUNT, 8)


def fill(wire, name="faq", count=COUNT, *tail):
    wire.pipeline(
        ("LLMCACHE.SETSEM", name, "PROMPT", f"p{i}", "RESPONSE", "r" * 50, "TAGS", 1, "x", "META", '{"n":%d}' % (i % 3), *fp32(ROWS[i]), *tail)
        for i in range(count)
    )


def entries(wire):
    return wire("DBSIZE")


def walk(*which):
    def begin(wire, waiter):
        fill(wire)
        waiter.send("LLMCACHE.INVALIDATE", "faq", *which)
        return lambda: wire("LLMCACHE.INFO", "faq") and entries(wire) == 1

    return begin


def drop(wire, _):
    fill(wire)
    wire("LLMCACHE.DROP", "faq")
    return lambda: entries(wire) == 0


def invalidate(*which):
    def begin(wire, _):
        fill(wire)
        wire("LLMCACHE.INVALIDATE", "faq", *which)
        return lambda: entries(wire) == 1

    return begin


def mark_stale(wire, _):
    wire("LLMCACHE.CREATE", "faq", "GRACE", 600)
    fill(wire)
    wire("LLMCACHE.INVALIDATE", "faq", "ALL", "SOFT")
    return lambda: dict(zip(*[iter(wire("LLMCACHE.INFO", "faq"))] * 2))[b"invalidating"] == 0


def expire(wire, _):
    fill(wire, "faq", COUNT, "PX", 60)
    return lambda: entries(wire) == 1


def lower_limit(wire, _):
    fill(wire, "faq", 300)
    wire("LLMCACHE.CONFIG", "faq", "SET", "maxentries", 10)
    return lambda: entries(wire) == 11


def sweep_orphans(wire, _):
    """Entries whose cache went while nobody looked."""
    fill(wire, "faq", 300)
    key = next(k for k in wire("KEYS", "{faq}*"))
    dump = wire("DUMP", key)
    wire("LLMCACHE.DROP", "faq")
    wait_until(lambda: entries(wire) == 0, "reaped")
    for n in range(300):
        wire("RESTORE", key + b"%d" % n, 0, dump)
    return lambda: entries(wire) == 0


def put_back(wire, _):
    """A cache key that the server evicted."""
    wire("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    for n in range(40):
        wire("LLMCACHE.CREATE", f"c{n}")
    wire("CONFIG", "SET", "maxmemory", 1)
    wire("LLMCACHE.GET", "c1", "PROMPT", "x")
    wire("SET", "k", "v")
    wire("CONFIG", "SET", "maxmemory", 0)
    return lambda: entries(wire) >= 40


def chunk_tail(wire, tokens, count=600):
    each = [part for _ in range(count) for part in (1, "x" * 100)]
    return wire("KVCHUNK.MPUT", "ns", "TOKENS", tokens, "PAYLOADS", count, *each)


def tokens(count, salt=0):
    return b"".join((salt * 1_000_000 + i).to_bytes(4, "little") for i in range(count))


def chunks_of_a_dropped_namespace(wire, _):
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL")
    chunk_tail(wire, tokens(600))
    wire("DEL", "ns")
    return lambda: entries(wire) == 0


def chunks_over_budget(wire, _):
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL")
    for n in range(20):
        chunk_tail(wire, tokens(100, n), 100)
    wire("KVCHUNK.BUDGET", "ns", 20_000)
    return lambda: entries(wire) < 200


def chunks_deleted_in_slices(wire, waiter):
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL")
    chunk_tail(wire, tokens(4_000), 4_000)
    first = wire("KVCHUNK.DIGESTS", "ns", "TOKENS", tokens(1))[0]
    waiter.send("KVCHUNK.DEL", "ns", first, "SUBTREE")
    return lambda: entries(wire) == 1


def chunks_pinned_in_slices(wire, waiter):
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL")
    chunk_tail(wire, tokens(4_000), 4_000)
    first = wire("KVCHUNK.DIGESTS", "ns", "TOKENS", tokens(1))[0]
    waiter.send("KVCHUNK.PIN", "ns", first, "SUBTREE")
    return lambda: dict(zip(*[iter(wire("KVCHUNK.INFO", "ns"))] * 2))[b"pinned"] == 4_000


def new_leaves(wire, _):
    """A leaf goes; the chunk before it gets its deadline back."""
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL", "TTL", 1_000)
    for n in range(50):
        chunk_tail(wire, tokens(5, n), 5)
    leaves = [wire("KVCHUNK.DIGESTS", "ns", "TOKENS", tokens(5, n))[-1] for n in range(50)]
    wire("KVCHUNK.DEL", "ns", *leaves)
    return lambda: sum(wire("PTTL", key) > 0 for key in wire("KEYS", "{ns}*")) >= 50


def due_chunks(wire, _):
    wire("KVCHUNK.CREATE", "ns", "CHUNK", 1, "DURABLE", "FULL")
    each = [part for _ in range(200) for part in (1, "x" * 100)]
    wire("KVCHUNK.MPUT", "ns", "TOKENS", tokens(200), "PAYLOADS", 200, *each, "PX", 60)
    return lambda: entries(wire) == 1


def leases(wire, waiter):
    """Nothing of a lease is written; its heir is woken, and looks again."""
    fill(wire, "faq", 10)
    wire("LLMCACHE.FETCH", "faq", "PROMPT", "new", "LEASE", 50)
    waiter.send("LLMCACHE.FETCH", "faq", "PROMPT", "new", "WAIT", 60_000)
    return lambda: True


def followers(wire, waiter):
    wire("SESSION.APPEND", "s", "MSG", "user", "x")
    seq = wire("SESSION.BEGIN", "s", "assistant")[0]
    waiter.send("SESSION.FOLLOW", "s", seq, 0, "BLOCK", 60)
    return lambda: True


WRITERS = [
    walk("OLDER", 0), walk("FILTER", ".n >= 0"), walk("NEAR", *fp32(ROWS[0]), "SIMILARITY", -1), drop, invalidate("ALL"),
    invalidate("TAG", "x"), mark_stale, expire, lower_limit, sweep_orphans, put_back, chunks_of_a_dropped_namespace,
    chunks_over_budget, chunks_deleted_in_slices, chunks_pinned_in_slices, new_leaves, due_chunks, leases, followers,
]  # fmt: skip
NAMES = [
    "walk by age", "walk by filter", "walk by radius", "reaper", "invalidated all", "invalidated tag", "marking stale",
    "expiry", "limits", "sweep", "put back", "chunks reaped", "chunks evicted", "chunks deleted", "chunks pinned", "new leaves",
    "due chunks", "leases", "followers",
]  # fmt: skip


@pytest.fixture
def both(fleet):
    return pair(fleet, appendonly="yes", **QUICK)


@pytest.mark.parametrize("pause", ["WRITE", "ALL"])
@pytest.mark.parametrize("begin", WRITERS, ids=NAMES)
def test_nothing_is_written_during_a_pause(both, begin, pause):
    server = both.primary
    with server.wire() as wire, server.wire() as waiter:
        finished = begin(wire, waiter)
        # ALL lets no look in until it is over.
        wire("CLIENT", "PAUSE", 400 if pause == "ALL" else 60_000, pause)
        if pause == "WRITE":
            offsets = []
            for _ in range(6):
                offsets.append(server.info("replication")["master_repl_offset"])
                threading.Event().wait(0.05)
            assert len(set(offsets)) == 1 or pings(offsets), offsets
            assert wire("CLIENT", "UNPAUSE") == "OK"
        assert wire("PING") == "PONG"
        wait_until(finished, "the work went on after the pause")
    both.assert_equal()


def pings(offsets):
    """A replica is pinged meanwhile, which is no write: by its length it is told apart."""
    steps = {int(b) - int(a) for a, b in zip(offsets, offsets[1:])}
    return steps <= {0, 14}


@pytest.mark.parametrize("begin", WRITERS, ids=NAMES)
def test_a_failover_finds_nobody_writing(both, begin):
    server = both.primary
    with server.wire() as wire, server.wire() as waiter, both.replica.wire() as other:
        begin(wire, waiter)
        assert wire("FAILOVER", "TIMEOUT", 10_000) == "OK"
        wait_until(lambda: other("ROLE")[0] == b"master", "the replica took over")
        wait_until(lambda: wire("ROLE")[0] == b"slave", "the primary follows")
        assert other("LLMCACHE.SET", "after", "PROMPT", "p", "RESPONSE", "r")
        wait_until(lambda: wire("EXISTS", "after") == 1, "it replicates")


def test_a_walk_that_ends_by_demotion_is_no_whole_walk(both):
    server = both.primary
    with server.wire() as wire, server.wire() as waiter, server.wire() as sleeper:
        fill(wire)
        # Both come while the server sleeps, so that the walk has only begun when writes are paused.
        sleeper.send("DEBUG", "SLEEP", 0.3)
        waiter.send("LLMCACHE.INVALIDATE", "faq", "OLDER", 0)
        wire("CLIENT", "PAUSE", 60_000, "WRITE")
        wire("REPLICAOF", "127.0.0.1", both.replica.port)
        reply = waiter.read()
        assert isinstance(reply, Failure) and reply.word == "UNBLOCKED", reply


def test_walks_that_wait_have_a_bound(server):
    with server.wire() as wire:
        fill(wire)
        waiters = [server.wire() for _ in range(80)]
        for waiter in waiters:
            waiter.send("LLMCACHE.INVALIDATE", "faq", "NEAR", *fp32(ROWS[0]), "SIMILARITY", -1, "DRYRUN")
        replies = [waiter.read() for waiter in waiters]
        for waiter in waiters:
            waiter.close()
        refused = [reply for reply in replies if isinstance(reply, Failure)]
        assert all(reply.word == "BUSY" for reply in refused)
        assert {reply for reply in replies if not isinstance(reply, Failure)} <= {COUNT}
