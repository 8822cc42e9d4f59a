"""Heads of containers that arrive by RESTORE: what was another's stays another's, and what is one's own comes along."""

import pytest
from harness.cluster import Cluster
from harness.names import key_slot
from harness.replication import pair
from harness.replies import fields
from harness.vectors import fp32
from harness.waiting import hold, wait_until
from harness.wire import Failure

V = fp32([1, 0, 0])
# How one entry is stored in the container `{}` of each kind, and read, and what the reading answers.
KINDS = {
    "answers": (
        [("LLMCACHE.SETSEM", "{}", "PROMPT", "p", "RESPONSE", "secret", "ID", "x", *V)],
        ("LLMCACHE.GET", "{}", "PROMPT", "p"),
    ),
    "documents": (
        [("RAG.ADD", "{}", "x", *V, "TEXT", "secret")],
        ("RAG.SEARCH", "{}", *V, "RETURN", 1, "text"),
    ),
    "embeddings": (
        [("EMBCACHE.CREATE", "{}", "MODEL", "m", "DIM", 3), ("EMBCACHE.SET", "{}", "TEXT", "t", *V, "MODEL", "m")],
        ("EMBCACHE.GET", "{}", "TEXT", "t"),
    ),
    "chunks": (
        [("KVCHUNK.CREATE", "{}", "CHUNK", 4), ("KVCHUNK.PUT", "{}", "HASH", "h", "PAYLOAD", 1, "secret")],
        ("KVCHUNK.GET", "{}", "68"),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def named(call, name):
    return tuple(name if part == "{}" else part for part in call)


def read(wire, kind, name="faq"):
    """What the container answers of its entry; of a chunk its payload, since the rest counts uses."""
    reply = wire(*named(KINDS[kind][1], name))
    return reply[-1] if kind == "chunks" and reply else reply


def fill(wire, kind, name="faq"):
    """A container with one entry; answers the dumps of all keys, and the reply to who reads the entry."""
    for store in KINDS[kind][0]:
        assert not isinstance(wire(*named(store, name)), Failure)
    answer = read(wire, kind, name)
    assert answer and not isinstance(answer, Failure)
    return {key: wire("DUMP", key) for key in wire("KEYS", "*")}, answer


def restore(wire, dumps):
    for key, dump in dumps.items():
        assert wire("RESTORE", key, 0, dump) == "OK", key


@kinds
@pytest.mark.parametrize("state", ["deleted", "awaited", "restarted"])
def test_a_head_under_another_name_takes_up_nothing(fleet, kind, state):
    """Whatever is left of a container waits for a head under the name that its keys are named after."""
    server = fleet.launch()
    with server.wire() as wire:
        dumps, answer = fill(wire, kind)
        head = dumps.pop(b"faq")
        if state != "deleted":
            wire("FLUSHALL")
            restore(wire, dumps)
            before = wire("DBSIZE")
        if state == "restarted":
            assert wire("SAVE") == "OK"
    if state == "restarted":
        server.restart()
    with server.wire() as wire:
        if state == "deleted":
            # In one go, so that nothing is removed between.
            wire("MULTI")
            for call in [("DEL", "faq"), ("SELECT", 1), ("RESTORE", "evil", 0, head), ("SELECT", 0), ("RESTORE", "evil", 0, head), ("DBSIZE",), ("RESTORE", "faq", 0, head)]:
                assert wire(*call) == "QUEUED"
            _, _, other, _, refused, size, own = wire("EXEC")
            assert isinstance(other, Failure) and isinstance(refused, Failure) and size == len(dumps) and own == "OK"
        else:
            for db in (1, 0):
                wire("SELECT", db)
                assert isinstance(wire("RESTORE", "evil", 0, head), Failure)
            assert wire("DBSIZE") == before
            assert wire("RESTORE", "faq", 0, head) == "OK"
        # The one whose keys they are has them.
        wait_until(lambda: read(wire, kind) == answer, "the walk after loading has met the entry")


@kinds
def test_who_renames_or_moves_a_container_keeps_its_entries(fleet, kind):
    """RENAME; DUMP and RESTORE under the name it had last; MIGRATE of a renamed one, before its entries."""
    one, other = fleet.launch(), fleet.launch()
    with one.wire() as wire, other.wire() as there:
        dumps, answer = fill(wire, kind)
        assert wire("RENAME", "faq", "new") == "OK"
        assert read(wire, kind, "new") == answer
        head = wire("DUMP", "new")
        assert wire("RESTORE", "new", 0, head, "REPLACE") == "OK"
        assert read(wire, kind, "new") == answer
        wire("MULTI")
        wire("DEL", "new")
        wire("RESTORE", "new", 0, head)
        assert wire("EXEC") == [1, "OK"]
        assert read(wire, kind, "new") == answer
        assert wire("MOVE", "new", 1) == 1 and wire("SELECT", 1) == "OK"
        for key in (key for key in dumps if key != b"faq"):
            wire("SELECT", 0)
            assert wire("MOVE", key, 1) == 1
        wire("SELECT", 1)
        assert read(wire, kind, "new") == answer
        rest = [key for key in dumps if key != b"faq"]
        assert wire("MIGRATE", "127.0.0.1", other.port, "", 0, 30_000, "KEYS", "new", *rest) == "OK"
        assert read(there, kind, "new") == answer


@kinds
def test_a_living_container_shares_nothing_with_a_copy_of_its_head(server, kind):
    with server.wire() as wire:
        dumps, answer = fill(wire, kind)
        assert wire("RESTORE", "copy", 0, dumps[b"faq"]) == "OK"
        assert read(wire, kind, "copy") in (None, [])
        assert read(wire, kind, "faq") == answer


@kinds
@pytest.mark.parametrize("order", ["first", "last"])
def test_a_renamed_container_moves_with_its_slot(fleet, kind, order):
    """Its entries go before it or behind it, and it stands under another name than they are named after."""
    cluster = Cluster(fleet, [[(0, 8_191)], [(8_192, 16_383)]])
    slot = key_slot("faq")
    source, target = (0, 1) if slot < 8_192 else (1, 0)
    with cluster.nodes[source].wire() as wire, cluster.nodes[target].wire() as there:
        dumps, answer = fill(wire, kind)
        assert wire("RENAME", "faq", "{faq}new") == "OK"
        rest = [key for key in dumps if key != b"faq"]
        cluster.start_move(slot, source, target)
        parts = [[b"{faq}new"], rest] if order == "first" else [rest, [b"{faq}new"]]
        for part in parts:
            cluster.move_keys(source, target, part)
        cluster.end_move(slot, target)
        assert read(there, kind, "{faq}new") == answer


@kinds
def test_a_key_of_nobody_moves_with_its_slot(fleet, kind):
    """An entry under a name that is not its own, beside its container; at once where the server can."""
    cluster = Cluster(fleet, [[(0, 8_191)], [(8_192, 16_383)]])
    slot = key_slot("faq")
    source, target = (0, 1) if slot < 8_192 else (1, 0)
    with cluster.nodes[source].wire() as wire, cluster.nodes[target].wire() as there:
        dumps, answer = fill(wire, kind)
        entry = next(key for key in dumps if key != b"faq")
        assert wire("RESTORE", "{faq}elsewhere", 5_000_000, dumps[entry]) == "OK"
        kept, digest = wire("PEXPIRETIME", "{faq}elsewhere"), wire("DEBUG", "DIGEST-VALUE", "{faq}elsewhere")
        if cluster.nodes[source].is_valkey:
            assert wire("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", cluster.ids[target]) == "OK"
            wait_until(lambda: b"success" in wire("CLUSTER", "GETSLOTMIGRATIONS")[0], "the slot went", 60)
        else:
            cluster.start_move(slot, source, target)
            cluster.move_keys(source, target, [b"faq", *(key for key in dumps if key != b"faq"), b"{faq}elsewhere"])
            cluster.end_move(slot, target)
        assert read(there, kind) == answer
        assert there("DEBUG", "DIGEST-VALUE", "{faq}elsewhere") == digest
        # MIGRATE tells how long a key lives, not until when.
        assert abs(there("PEXPIRETIME", "{faq}elsewhere") - kept) < 60_000
        assert there("DBSIZE") == len(dumps) + 1


@kinds
def test_replicas_and_the_aof_obey(fleet, kind):
    both = pair(fleet, appendonly="yes")
    with both.primary.wire() as wire:
        dumps, answer = fill(wire, kind)
        wire("RENAME", "faq", "new")
        wire("MULTI")
        wire("DEL", "new")
        wire("RESTORE", "new", 0, dumps[b"faq"])
        assert wire("EXEC") == [1, "OK"]
        assert read(wire, kind, "new") == answer
    both.assert_equal()
    both.primary.restart()
    with both.primary.wire() as wire:
        assert read(wire, kind, "new") == answer


STORES = {
    "a store": ("LLMCACHE.SET", "faq", "PROMPT", "p", "RESPONSE", "r"),
    "a store by meaning": ("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", *V),
    # Asked by each user once: who asks again is told that the answer is being made.
    "a miss for the loader": ("LLMCACHE.FETCH", "faq", "PROMPT", "{user}", "VIA"),
    "the end of a stream": ("SESSION.END", "faq:s", "{seq}", "{token}", "CACHE", "faq", "PROMPT", "p"),
}
WAYS = {
    "alone": lambda wire, call: wire(*call),
    "in a transaction": lambda wire, call: (wire("MULTI"), wire(*call), wire("EXEC")[0])[-1],
    "in a script": lambda wire, call: wire("EVAL", "return redis.pcall(unpack(ARGV))", 2, "faq", "faq:s", *call),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", STORES)
def test_streams_of_a_dump_are_written_to_in_the_name_of_the_caller(fleet, what, way):
    """Whoever restores a head was not asked for the right to its streams; replicas and files keep them."""
    both = pair(fleet, appendonly="yes")
    call = STORES[what]

    def run(server, user):
        with server.wire() as wire:
            if user != "default":
                assert wire("AUTH", user, "pw") == "OK"
            given = {"{user}": user}
            if call[0] == "SESSION.END":
                given["{seq}"], given["{token}"], _ = wire("SESSION.BEGIN", "faq:s", "assistant")
                wire("SESSION.CHUNK", "faq:s", given["{seq}"], given["{token}"], 0, "text")
            return WAYS[way](wire, [given.get(part, part) for part in call])

    with both.primary.wire() as wire:
        assert wire("LLMCACHE.CREATE", "faq") == "OK"
        for stream in ("sink", "loader"):
            assert wire("LLMCACHE.CONFIG", "faq", "SET", stream, "theirs") == "OK"
        head = wire("DUMP", "faq")
        wire("DEL", "faq")
        assert wire("ACL", "SETUSER", "app", "reset", "on", ">pw", "~faq*", "+@all") == "OK"
        assert wire("AUTH", "app", "pw") == "OK"
        wire("MULTI")
        wire("RESTORE", "faq", 0, head)
        wire("LLMCACHE.SET", "faq", "PROMPT", "at once", "RESPONSE", "r")
        done, refused = wire("EXEC")
        assert done == "OK" and refused.word == "NOPERM"
    both.assert_equal()
    digest = both.primary.digest()
    both.primary.restart()
    assert both.primary.digest() == digest, "the file keeps what is known of the streams"
    with both.primary.wire() as wire:
        assert wire("ACL", "SETUSER", "app", "reset", "on", ">pw", "~faq*", "+@all") == "OK"
        assert run(both.primary, "app").word == "NOPERM"
        assert wire("EXISTS", "theirs") == 0 and wire("DBSIZE") == (2 if call[0] == "SESSION.END" else 1)
        # Whoever may write to the streams does, as before the move; whoever names them vouches for all.
        assert not isinstance(run(both.primary, "default"), Failure)
        assert wire("XLEN", "theirs") == 1
        for stream in ("sink", "loader"):
            assert wire("LLMCACHE.CONFIG", "faq", "SET", stream, "theirs") == "OK"
        wire("LLMCACHE.INVALIDATE", "faq", "ALL")
        wire("DEL", "faq:s")
        wire("ACL", "SETUSER", "other", "reset", "on", ">pw", "~faq*", "+@all")
        assert not isinstance(run(both.primary, "other"), Failure)
        assert wire("XLEN", "theirs") == 2
    both.assert_equal()


# How a dump comes back under the name that it had.
WAYS_BACK = {
    "restored": lambda key, dump: [("RESTORE", key, 0, dump)],
    "renamed": lambda key, dump: [("RESTORE", "{faq}elsewhere", 0, dump), ("RENAME", "{faq}elsewhere", key)],
    "moved": lambda key, dump: [("SELECT", 1), ("RESTORE", key, 0, dump), ("MOVE", key, 0), ("SELECT", 0)],
}


@kinds
@pytest.mark.parametrize("way", WAYS_BACK)
def test_what_comes_while_its_container_is_being_removed_waits_for_the_next(server, kind, way):
    """The container is dropped, and what was in it is restored before the entries of the dropped one are gone."""
    with server.wire() as wire:
        dumps, answer = fill(wire, kind)
        head = dumps.pop(b"faq")
        ((key, dump),) = dumps.items()
        # In one go, so that nothing is removed between.
        words = [("MULTI",), ("DEL", "faq"), ("DEL", key), *WAYS_BACK[way](key, dump), ("EXEC",)]
        *_, told = wire.pipeline(words)
        assert not [reply for reply in told if isinstance(reply, Failure) or reply == 0]
        hold(lambda: wire("EXISTS", key) == 1, "it is not taken for one of those that are removed", 0.5)
        assert wire("RESTORE", "faq", 0, head) == "OK"
        wait_until(lambda: read(wire, kind) == answer, "it is its container's")


@kinds
def test_a_container_that_comes_back_at_once_knows_what_came_before_it(server, kind):
    with server.wire() as wire:
        dumps, answer = fill(wire, kind)
        head = dumps.pop(b"faq")
        ((key, dump),) = dumps.items()
        look = named(KINDS[kind][1], "faq")
        words = [("DEL", "faq"), ("DEL", key), ("RESTORE", key, 0, dump), ("RESTORE", "faq", 0, head), look]
        *_, told = wire.pipeline([("MULTI",), *words, ("EXEC",)])
        assert (told[-1][-1] if kind == "chunks" else told[-1]) == answer


def test_a_container_of_which_much_came_before_it_says_that_it_is_being_filled(server):
    with server.wire() as wire:
        for at in range(100):
            wire("LLMCACHE.SETSEM", "faq", "PROMPT", f"p {at}", "RESPONSE", "r", *fp32([1, at, 0]))
        dumps = {key: wire("DUMP", key) for key in wire("KEYS", "*")}
        head = dumps.pop(b"faq")
        comes = [("RESTORE", key, 0, dump) for key, dump in dumps.items()]
        # The first stays, to be removed.
        words = [("DEL", "faq", *list(dumps)[1:]), *comes[1:], ("RESTORE", "faq", 0, head), ("LLMCACHE.INFO", "faq")]
        *_, told = wire.pipeline([("MULTI",), *words, ("EXEC",)])
        assert fields(told[-1])["filling"] == 1
        wait_until(lambda: not fields(wire("LLMCACHE.INFO", "faq"))["filling"], "all are looked at")
        assert fields(wire("LLMCACHE.INFO", "faq"))["entries"] == 100


@kinds
def test_what_came_after_its_container_was_removed_outlives_a_failover(fleet, kind):
    """A replica keeps what is left of a dropped container for some seconds, should it be promoted."""
    both = pair(fleet)
    with both.primary.wire() as wire, both.replica.wire() as there:
        dumps, answer = fill(wire, kind)
        head = dumps.pop(b"faq")
        ((key, dump),) = dumps.items()
        assert wire("DEL", "faq") == 1
        wait_until(lambda: wire("DBSIZE") == 0, "what was in it is removed")
        assert wire("RESTORE", key, 0, dump) == "OK"
        both.catch_up()
        assert there("REPLICAOF", "NO", "ONE") == "OK"
        hold(lambda: there("EXISTS", key) == 1, "it is not taken for one of those that are removed", 1)
        assert there("RESTORE", "faq", 0, head) == "OK"
        wait_until(lambda: read(there, kind) == answer, "it is its container's")


@kinds
@pytest.mark.parametrize("name", ["faq", "{faq}other"])
def test_a_head_that_comes_right_after_its_container_was_evicted_is_the_same_on_the_replica(fleet, kind, name):
    """The replica was told of the eviction and knows of no container that is to be put back."""
    both = pair(fleet, maxmemory_policy="allkeys-lru")
    with both.primary.wire() as wire:
        dumps, _ = fill(wire, kind)
        both.catch_up()
        # In one go, so that it is not put back between: PING has the server evict all.
        words = [("CONFIG", "SET", "maxmemory", 1), ("PING",), ("CONFIG", "SET", "maxmemory", 0), ("EXISTS", "faq"), ("RESTORE", name, 0, dumps[b"faq"])]
        *_, there, restored = wire.pipeline(words)
        assert there == 0
        assert restored == "OK" or name != "faq", restored
        wait_until(lambda: wire("EXISTS", "faq") == 1, "it is back, by whoever was first")
    both.assert_equal()
    both.replica.check_log()
