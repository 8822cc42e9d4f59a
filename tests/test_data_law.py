"""What holds for the containers of every family, from one body: answers, documents, embeddings.

Deeper tests of the same code stand in the files of LLMCACHE; these show that no family is left out.
"""

import random
import time

import pytest
from harness.cluster import Cluster
from harness.dump import Payload, damaged, resealed, sections
from harness.expiry import set_active_expire
from harness.families import FAMILIES, Answers, Documents, Embeddings
from harness.names import key_slot
from harness.persistence import wait_for_rewrite
from harness.primary import Primary
from harness.replies import fields
from harness.replication import pair
from harness.vectors import fp32, unit
from harness.waiting import wait_until
from harness.wire import Failure

COUNT = 60
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.family)


def filled(family, client, name="box", count=COUNT, **given):
    box = family(client, name)
    box.make(**given)
    box.fill(count)
    return box


def whole(box, count=COUNT):
    return box.held(range(count)) == set(range(count)) and box.number_of_entries() == count


# Types.


@EVERY_FAMILY
def test_types_are_published_and_kept_apart(server, client, family):
    box = filled(family, client)
    assert client.type("box") == family.type_name
    assert list(client.scan_iter(_type=family.type_name.decode())) == [b"box"]
    assert client.type(box.key_number(3)) == b"llm-entry"
    assert whole(box)


OF_EACH = {
    "LLMCACHE": [
        *(("SETSEM", "PROMPT", "p", "RESPONSE", "r"), ("GETSEM", "PROMPT", "p"), ("MGETSEM", 1, "VALUES", 1, 1)),
        *(("GET", "PROMPT", "p"), ("ENTRY", "x"), ("DEL", "x"), ("EXPIRE", "x", "EX", 5), ("SCAN", 0), ("INFO",)),
        *(("CONFIG", "GET"), ("CONFIG", "SET", "TTL", 5), ("STATS",), ("FETCH", "PROMPT", "p"), ("DROP",)),
        *(("FAIL", "0" * 16), ("EXTEND", "0" * 16, 5), ("INVALIDATE", "ALL"), ("CREATE",), ("SET", "PROMPT", "p", "RESPONSE", "r")),
    ],
    "RAG": [
        *(("CREATE",), ("ADD", "x", "VALUES", 1, 1, "TEXT", "t"), ("MADD", 1, "x", "VALUES", 1, 1, "TEXT", "t")),
        *(("SEARCH", "VALUES", 1, 1), ("GET", "x"), ("DEL", "x"), ("SCAN", 0), ("INFO",), ("DROP",)),
        *(("MGET", "IDS", 1, "x"), ("DEL", "FILTER", ".n == 1"), ("DEL", "TAG", "t"), ("ADD", "x", "NOVECTOR", "TEXT", "t")),
    ],
    "EMBCACHE": [
        *(("CREATE", "MODEL", "m", "DIM", 3), ("SET", "TEXT", "t", "VALUES", 1, 1), ("GET", "TEXT", "t"), ("INFO",)),
        *(("MSET", 1, "TEXT", "t", "VALUES", 1, 1), ("MGET", "TEXTS", 1, "t"), ("MGETEX", "TEXTS", 1, "t", "EX", 5)),
        *(("FETCH", "TEXT", "t"), ("FAIL", "0" * 16), ("EXTEND", "0" * 16, 5), ("DEL", "TEXTS", 1, "t")),
    ],
}


@EVERY_FAMILY
def test_no_command_of_another_family_touches_it(server, client, family):
    box = filled(family, client)
    before = server.digest()
    with server.wire() as wire:
        for other, calls in OF_EACH.items():
            if other != family.family:
                for command, *rest in calls:
                    reply = wire(f"{other}.{command}", "box", *rest)
                    assert getattr(reply, "word", reply) == "WRONGTYPE", (other, command, reply)
    assert server.digest() == before and whole(box)


# Persistence.


@EVERY_FAMILY
def test_rdb(fleet, family):
    server = fleet.launch()
    box = filled(family, server.client(), ttl=1_000)
    box.drop_number(7)
    before, uid, info = server.digest(), box.uid, box.info()
    box.client.save()
    server.restart()
    box = family(server.client(), "box")
    assert server.digest() == before and box.uid == uid
    assert box.held(range(COUNT)) == set(range(COUNT)) - {7}
    settings = {"dim", "model", "quant", "ttl", "maxentries", "maxmemory", "entries", "prefix"}
    assert {s: box.info()[s] for s in settings} == {s: info[s] for s in settings}
    box.fill(5, start=COUNT)
    assert box.held([COUNT + 4]) == {COUNT + 4}


@pytest.mark.parametrize("rewrite", [False, True], ids=["log", "rewritten"])
@pytest.mark.parametrize("preamble", ["yes", "no"])
@EVERY_FAMILY
def test_aof(fleet, family, preamble, rewrite):
    server = fleet.launch(appendonly="yes", appendfsync="always", aof_use_rdb_preamble=preamble)
    box = filled(family, server.client(), ttl=1_000)
    box.fill(10, start=5)
    box.drop_number(7)
    if rewrite:
        box.client.bgrewriteaof()
        wait_for_rewrite(box.client)
    box.fill(10, start=COUNT)
    before = server.digest()
    server.kill9()
    server.start()
    assert server.digest() == before
    box = family(server.client(), "box")
    assert box.held(range(COUNT + 10)) == set(range(COUNT + 10)) - {7}


# Replication.


@EVERY_FAMILY
def test_a_replica_holds_and_answers_the_same(fleet, family):
    both = pair(fleet)
    client = both.primary.client()
    box = filled(family, client, maxentries=50, ttl=1_000)
    for i in range(0, COUNT, 3):
        box.drop_number(i)
    box.fill(30, start=100)
    client.delete(box.key_number(110))
    client.pexpire(box.key_number(111), 30)
    pipe = client.pipeline(transaction=True)
    for i in range(200, 205):
        pipe.execute_command(*box.store_number(i))
    pipe.execute()
    script = "return redis.call(unpack(ARGV))"
    client.eval(script, 1, "box", *box.store_number(205))
    filled(family, client, "gone", 20)
    client.delete("gone")
    wait_until(lambda: not client.keys("{gone}*"), "the deleted one's are reaped")
    time.sleep(0.1)
    both.assert_equal()
    here = family(both.replica.client(), "box")
    assert here.number_of_entries() == box.number_of_entries() <= 50
    assert here.held(range(100, 206)) == box.held(range(100, 206))
    with both.replica.wire() as wire:
        assert wire(*box.store_number(1)).word == "READONLY"
    both.catch_up()
    both.primary.kill9()
    here.client.execute_command("REPLICAOF", "NO", "ONE")
    here.fill(10, start=300)
    assert here.held([309]) == {309} and here.number_of_entries() == 50


@EVERY_FAMILY
def test_a_full_synchronisation(fleet, family):
    primary = fleet.launch()
    box = filled(family, primary.client())
    replica = fleet.launch()
    replica.client().execute_command("REPLICAOF", "127.0.0.1", primary.port)
    wait_until(lambda: replica.info("replication").get("master_link_status") == "up", "linked")
    wait_until(lambda: replica.digest() == primary.digest(), "equal digests")
    assert whole(family(replica.client(), "box")) and whole(box)


# Expiry, eviction, limits.


@EVERY_FAMILY
def test_expired_entries_are_gone(client, family):
    box = filled(family, client)
    set_active_expire(client, False)
    for i in range(10):
        client.pexpire(box.key_number(i), 40)
    pipe = client.pipeline(transaction=True)
    pipe.pexpire(box.key_number(10), 40)
    pipe.persist(box.key_number(10))
    assert pipe.execute() == [True, True]
    time.sleep(0.08)
    assert box.held(range(COUNT)) == set(range(10, COUNT))
    set_active_expire(client, True)
    wait_until(lambda: box.number_of_entries() == COUNT - 10, "the server removes them")


@EVERY_FAMILY
def test_maxmemory_of_the_server_evicts_entries_and_spares_the_container(fleet, family):
    server = fleet.launch(maxmemory=5_000_000, maxmemory_policy="allkeys-lfu")
    box = family(server.client(), "box")
    box.dim = 256
    box.make(dim=256)
    uid = box.uid
    for start in range(0, 9_000, 500):
        box.fill(500, dim=256, start=start, size=600)
    assert int(server.info("stats")["evicted_keys"]) > 1_000
    box.client.config_set("maxmemory", 0)
    assert box.uid == uid
    alive = len([key for key in box.entry_keys()])
    wait_until(lambda: box.number_of_entries() == alive, "the index forgot the evicted")


@EVERY_FAMILY
def test_own_limits(client, family):
    box = filled(family, client, maxentries=20)
    assert box.number_of_entries() == 20 and len(box.entry_keys()) == 20
    small = filled(family, client, "small", maxmemory=20_000)
    assert small.info()["bytes"] <= 20_000 and 0 < small.number_of_entries() < COUNT


@EVERY_FAMILY
def test_out_of_memory(server, client, family):
    box = filled(family, client)
    client.config_set("maxmemory", 1)
    before = server.digest()
    with server.wire() as wire:
        assert wire(*box.store_number(500)).word == "OOM"
        assert wire("EVAL", "return redis.call(unpack(ARGV))", 1, "box", *box.store_number(500)).word == "OOM"
        assert not isinstance(wire(*box.read_number(5)), Failure)
    assert server.digest() == before and whole(box)
    assert box.drop_number(5) == 1
    client.delete("box")
    wait_until(lambda: client.dbsize() == 0, "the reaper works above maxmemory")


# Keyspace commands.


@EVERY_FAMILY
def test_rename_delete_and_a_new_life(client, family):
    box = filled(family, client)
    client.rename("box", "chest")
    chest = family(client, "chest")
    assert whole(chest) and box.held(range(5)) == set()
    chest.fill(1, start=COUNT)
    uid = chest.uid
    client.delete("chest")
    chest.make()
    assert chest.uid != uid and chest.held(range(COUNT)) == set()
    wait_until(lambda: client.dbsize() == 1, "the former life is reaped")


@EVERY_FAMILY
def test_move_and_swapdb(server, client, family):
    box = filled(family, client)
    other = family(server.client(db=1), "box")
    for key in client.keys("{box}*"):
        client.move(key, 1)
    client.move("box", 1)
    wait_until(lambda: whole(other), "found where they went")
    client.execute_command("SWAPDB", 0, 1)
    assert whole(box) and other.held(range(3)) == set()


@EVERY_FAMILY
def test_dump_and_restore(fleet, client, family):
    box = filled(family, client)
    dumps = {key: client.dump(key) for key in client.keys("*")}
    for order in ("container first", "entries first"):
        fresh = family(fleet.launch().client(), "box")
        for key in sorted(dumps, key=len, reverse=order == "entries first"):
            fresh.client.restore(key, 0, dumps[key])
        wait_until(lambda fresh=fresh: whole(fresh), f"restored, {order}")
        assert fresh.uid == box.uid


@EVERY_FAMILY
def test_an_entry_of_one_family_is_none_of_another(client, family):
    """Restored under the name that another container of the same uid would look for."""
    box = filled(family, client)
    dump = client.dump(box.key_number(3))
    for other in FAMILIES:
        if other is not family:
            stranger = other(client, "stranger")
            stranger.make()
            client.restore(stranger.key_number(3), 0, dump, replace=True)
            assert stranger.held(range(5)) == set()
            assert stranger.number_of_entries() == 0
            client.delete("stranger")


@EVERY_FAMILY
def test_flush(client, family):
    box = filled(family, client)
    client.flushdb()
    assert box.held(range(3)) == set() and client.dbsize() == 0
    box.make()
    box.fill(3)
    assert box.held(range(5)) == {0, 1, 2}


# MULTI, scripts, ACL.


@EVERY_FAMILY
def test_multi_and_watch(server, client, family):
    box = filled(family, client)
    pipe = client.pipeline(transaction=True)
    pipe.execute_command(*box.store_number(100))
    pipe.execute_command(*box.read_number(100))
    stored, read = pipe.execute()
    assert stored is not None and read is not None
    with server.wire() as watcher:
        watcher("WATCH", "box")
        box.fill(1, start=101)
        watcher("MULTI")
        watcher("PING")
        assert watcher("EXEC") is None


@EVERY_FAMILY
def test_acl_keeps_names_apart(server, client, family):
    box = filled(family, client)
    other = filled(family, client, "other", 3)
    with server.wire() as admin, server.wire() as wire:
        admin("ACL", "SETUSER", "app", "reset", "on", ">secret", "~box", "+@all")
        wire("AUTH", "app", "secret")
        for store, read in ((box.store_number(200), box.read_number(200)),):
            assert not isinstance(wire(*store), Failure) and wire(*read) is not None
        for call in (other.store_number(1), other.read_number(1), ("GET", box.key_number(3))):
            assert wire(*call).word == "NOPERM"
        admin("ACL", "SETUSER", "app", "resetkeys", "%R~box")
        assert wire(*box.store_number(201)).word == "NOPERM" and wire(*box.read_number(200)) is not None
        admin("ACL", "DELUSER", "app")


# Cluster.


@EVERY_FAMILY
def test_everything_is_in_one_slot_which_moves_whole(fleet, family):
    slot = key_slot("box")
    cluster = Cluster(fleet, [[(slot, 16_383)], [(0, slot - 1)]])
    box = filled(family, cluster.nodes[0].client())
    keys = cluster.keys_in_slot(0, slot)
    assert len(keys) == COUNT + 1 and {key_slot(key) for key in keys} == {slot}
    cluster.start_move(slot, 0, 1)
    cluster.move_keys(0, 1, sorted(keys, key=len))
    cluster.end_move(slot, 1)
    there = family(cluster.nodes[1].client(), "box")
    wait_until(lambda: whole(there), "all are found on the new node")
    assert cluster.keys_in_slot(0, slot) == []
    with cluster.nodes[0].wire() as wire:
        assert wire(*box.read_number(1)).word == "MOVED"


# Hostile bytes.


@pytest.mark.parametrize("what", ["container", "entry"])
@EVERY_FAMILY
def test_damaged_payloads_are_errors_or_work(fleet, family, what):
    server = fleet.launch(rdbcompression="no")
    client = server.client()
    client.execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
    box = filled(family, client, count=12)
    canary = filled(family, client, "canary", 12)
    source = b"box" if what == "container" else box.key_number(3)
    payload = Payload.parse(client.dump(source))
    where = sections(payload.body)
    rng = random.Random(f"{family.family} {what}")

    def hostile():
        for round_ in range(3_000):
            body = payload.body
            for _ in range(rng.choice((1, 1, 2, 5))):
                body = damaged(body, rng) or body
            if round_ % 2:
                body = resealed(body, [(a, b) for a, b in where if b <= len(body)])
            yield ("RESTORE", rng.choice([source, b"elsewhere"]), 0, payload.with_body(body), "REPLACE")

    with server.wire() as wire:
        accepted = refused = 0
        for command in hostile():
            reply = wire(*command)
            accepted += reply == "OK"
            refused += isinstance(reply, Failure)
            if (accepted + refused) % 100 == 0:
                for i in range(12):
                    wire(*box.read_number(i))
                wire(f"{family.family}.INFO", "box")
                wire(f"{family.family}.INFO", "elsewhere")
        assert refused > 1_000, (accepted, refused)
        assert wire("PING") == "PONG"
    assert whole(canary, 12)


@EVERY_FAMILY
def test_a_payload_of_one_type_is_refused_under_another(server, client, family):
    """The kind is in the head too: a head of another kind than the type is no value."""
    client.execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
    payloads = {}
    for one in FAMILIES:
        made = one(client, one.family)
        made.make()
        payloads[one] = Payload.parse(client.dump(one.family))
    own = payloads[family]
    for other in FAMILIES:
        if other is not family:
            with server.wire() as wire:
                reply = wire("RESTORE", "forged", 0, Payload(own.head, payloads[other].body, own.footer).with_body(payloads[other].body))
                assert isinstance(reply, Failure) and client.exists("forged") == 0
    client.execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 0)


@EVERY_FAMILY
def test_internal_commands_refuse_what_is_not_of_the_kind(server, client, family):
    box = filled(family, client)
    strangers = [filled(other, client, other.family, 3) for other in FAMILIES if other is not family]
    before = box.held(range(COUNT))
    bodies = [Payload.parse(client.dump(stranger.key_number(1))).body for stranger in strangers]
    target, dumps = box.key_number(1), {key: client.dump(key) for key in client.keys()}
    with Primary(server) as primary:
        primary.send(*(("RESTORE", key, 0, dump) for key, dump in dumps.items()))
        tails = [tail for body in bodies for tail in (body, body[9:], b"", fp32(unit(1))[1])]
        assert primary.refused(("LLMCACHE._ENTRY", target, tail) for tail in tails) == len(tails)
    # The container may have come before its entries: until they are looked through, searches say so.
    with server.wire() as wire:
        wait_until(lambda: not fields(wire(f"{box.family}.INFO", box.name)).get("filling"), "the index is filled")
    assert box.held(range(COUNT)) == before


def test_info_of_the_server_tells_the_families_apart(server, client):
    for i, family in enumerate(FAMILIES):
        box = filled(family, client, family.family, 10 * (i + 1))
        box.held(range(3))
    told = {name: int(value) for name, value in server.info().items() if name.startswith("llmcache_") and value.isdigit()}
    assert [told[f"llmcache_{name}"] for name in ("caches", "document_indexes", "embedding_caches")] == [1, 1, 1]
    assert [told[f"llmcache_{name}"] for name in ("entries", "documents", "embeddings")] == [10, 20, 30]
    assert [told[f"llmcache_{name}"] for name in ("hits", "document_hits", "embedding_hits")] == [3, 6, 3]
    assert all(told[f"llmcache_{name}"] > 0 for name in ("bytes", "document_bytes", "embedding_bytes", "document_index_bytes"))
