"""RDB, AOF, kill -9, replicas, DUMP and RESTORE of chunks; DURABLE."""

import random
import struct
import threading
import time

import pytest
from harness.dump import Payload, damaged, resealed, sections
from harness.kv import Kv, blob, fields_of, payload
from harness.persistence import save, wait_for_rewrite
from harness.primary import Primary
from harness.replication import Pair, pair
from harness.waiting import wait_until
from harness.wire import Failure

AOF = {"appendonly": "yes", "appendfsync": "always"}
PREAMBLE = pytest.mark.parametrize("preamble", ["yes", "no"])


def traffic(client):
    """Every command that writes; answers the prompts."""
    kv = Kv(client)
    kv.create(model="m", dtype="bf16", budget=3_000_000)
    prompts = [[100 * chain + at for at in range(20)] for chain in range(40)]
    for at, prompt in enumerate(prompts):
        given = [{}, {"px": 600_000}, {"prio": 2}][at % 3]
        kv.mput(prompt, [payload((at, i), 30_000 if at % 4 else 200) for i in range(5)], **given)
    kv.put(prompts[0][:8], b"replaced", meta={"a": 1}, px=900_000)
    kv.put([1, 2, 3, 4], b"short", px=30)
    kv.run("DEL", kv.digests(prompts[39])[2])
    client.delete(kv.key(kv.digests(prompts[38])[4]))
    kv.run("PIN", kv.digests(prompts[37])[2], "PREFIX")
    kv.run("PIN", kv.digests(prompts[36])[2])
    kv.run("UNPIN", kv.digests(prompts[36])[2])
    kv.run("TOUCH", kv.digests(prompts[35])[0])
    kv.put_hash(b"own", b"1")
    kv.put_hash(b"two", b"2", parent=b"own")
    kv.run("BUDGET", 2_500_000)
    gone = Kv(client, "gone")
    gone.create()
    gone.mput(list(range(80)), [b"x"] * 20)
    client.delete("gone")
    client.eval("return redis.call('KVCHUNK.PUT', KEYS[1], 'HASH', 'lua', 'PAYLOAD', 1, ARGV[1])", 1, "ns", "p" * 50_000)
    pipe = client.pipeline(transaction=True)
    pipe.execute_command("KVCHUNK.PUT", "ns", "HASH", "multi", "PAYLOAD", 1, b"m" * 70_000)
    pipe.execute()
    wait_until(lambda: not client.keys("{gone}*"), "the deleted namespace's chunks are reaped")
    time.sleep(0.3)
    return prompts


def seen(kv, prompts):
    return [[chunk[::3] for chunk in kv.fetch(prompt)[3]] for prompt in prompts]


def test_rdb(fleet):
    server = fleet.launch()
    client = server.client()
    prompts = traffic(client)
    kv = Kv(client)
    before, info, digest = seen(kv, prompts), kv.info(), server.digest()
    assert sum(map(len, before)) > 50
    ttls = {key: client.pexpiretime(key) for key in kv.keys()}
    client.save()
    server.restart()
    kv = Kv(server.client())
    assert server.digest() == digest
    assert kv.info()["chunks"] == info["chunks"], "the tree is whole before the first client is served"
    assert seen(kv, prompts) == before
    assert {key: kv.client.pexpiretime(key) for key in kv.keys()} == ttls
    for name in ("bytes", "payload_bytes", "pinned", "orphans", "uid", "budget"):
        assert kv.info()[name] == pytest.approx(info[name], rel=0.02) if name == "bytes" else kv.info()[name] == info[name]
    assert server.client().execute_command("DEBUG", "RELOAD") == b"OK"
    assert server.digest() == digest


@PREAMBLE
@pytest.mark.parametrize("rewritten", [False, True], ids=["replay", "rewrite"])
def test_aof(fleet, preamble, rewritten):
    server = fleet.launch(**AOF, aof_use_rdb_preamble=preamble)
    client = server.client()
    prompts = traffic(client)
    if rewritten:
        client.bgrewriteaof()
        wait_for_rewrite(client)
        Kv(client).put_hash(b"after", b"y")
    before, digest, chunks = seen(Kv(client), prompts), server.digest(), Kv(client).info()["chunks"]
    server.kill9()
    server.start()
    kv = Kv(server.client())
    assert server.digest() == digest
    assert seen(kv, prompts) == before
    assert kv.info()["chunks"] == chunks


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_a_store_behind_the_preamble_raises_the_deadline_of_its_prefix(fleet, preamble):
    """The chunk before it was in the rewritten part: both must be in the tree before the deadlines are."""
    server = fleet.launch(appendonly="yes", aof_use_rdb_preamble=preamble, auto_aof_rewrite_percentage=0)
    with server.wire() as wire:
        assert wire("KVCHUNK.CREATE", "kv") == "OK"
        assert wire("KVCHUNK.PUT", "kv", "DIGEST", "aa", "PAYLOAD", 1, "x", "EX", 1_000) == b"STORED"
    server.client().bgrewriteaof()
    wait_for_rewrite(server.client())
    with server.wire() as wire:
        stored = wire("KVCHUNK.PUT", "kv", "DIGEST", "bb", "PARENT", "aa", "PAYLOAD", 1, "x", "EX", 5_000)
        assert stored == b"STORED"
    before = server.digest()
    server.restart()
    assert server.digest() == before


def test_kill_9_in_a_storm_of_puts_leaves_whole_chunks(fleet):
    server = fleet.launch(**AOF)
    acknowledged = []

    def write():
        with server.wire() as wire:
            try:
                wire("KVCHUNK.CREATE", "ns", "CHUNK", 4)
                for at in range(100_000):
                    tokens = blob([at // 3 * 7 + i for i in range(4 * (1 + at % 3))])
                    reply = wire("KVCHUNK.PUT", "ns", "TOKENS", tokens, "PAYLOAD", 1, payload(at, 100_000))
                    assert reply == b"STORED", reply
                    acknowledged.append(at)
            except (ConnectionError, OSError):
                return

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(acknowledged) >= 150, "150 chunks are acknowledged", 60, step=0.001)
    server.kill9()
    writer.join()
    server.start()
    kv = Kv(server.client())
    for first in range(0, len(acknowledged) - 3, 3):
        prompt = [first // 3 * 7 + i for i in range(12)]
        assert [chunk[3] for chunk in kv.fetch(prompt)[3]] == [payload(first + i, 100_000) for i in range(3)]
    assert kv.info()["chunks"] in (len(acknowledged), len(acknowledged) + 1)


def test_a_replica_holds_and_serves_the_same(fleet):
    both = pair(fleet)
    prompts = traffic(both.primary.client())
    time.sleep(0.1)
    both.assert_equal()
    kv, other = Kv(both.primary.client()), Kv(both.replica.client())
    assert seen(other, prompts) == seen(kv, prompts)
    assert other.info()["chunks"] == kv.info()["chunks"]
    assert int(other.lease(prompts[37], 1_000)) > 0, "reads work on a replica"
    late = fleet.launch()
    late.client().execute_command("REPLICAOF", "127.0.0.1", both.primary.port)
    third = Pair(both.primary, late)
    third.assert_equal()
    for at in range(30):
        kv.mput([7_000 + at * 8 + i for i in range(8)], [payload(at, 40_000)] * 2, px=500_000)
    both.assert_equal()
    third.assert_equal()
    assert both.replica.client().dbsize() == both.primary.client().dbsize()
    both.replica.client().execute_command("REPLICAOF", "NO", "ONE")
    assert seen(other, prompts) == seen(kv, prompts)
    assert other.put_hash(b"promoted", b"x") == "STORED"


@pytest.mark.parametrize("durable", ["META", "NONE"])
def test_what_is_not_durable_is_a_miss_after_a_restart_and_goes(fleet, durable):
    both = pair(fleet, appendonly="yes")
    client = both.primary.client()
    kv = Kv(client)
    kv.create(durable=durable)
    prompt = list(range(40))
    kv.mput(prompt, [payload(i, 100_000) for i in range(10)])
    both.catch_up()
    assert (kv.match(prompt), Kv(both.replica.client()).match(prompt)) == (10, 0)
    assert both.replica.client().dbsize() == 1
    late = fleet.launch()
    late.client().execute_command("REPLICAOF", "127.0.0.1", both.primary.port)
    Pair(both.primary, late).catch_up()
    assert Kv(late.client()).match(prompt) == 0
    stub = Payload.parse(client.dump(kv.key(kv.digests(prompt)[0])))
    assert len(stub.body) <= 128 + 16
    save(client)
    assert (both.primary.folder / "dump.rdb").stat().st_size < 10_000
    aof = sum(file.stat().st_size for file in (both.primary.folder / "appendonlydir").iterdir())
    assert aof < 10_000
    client.config_set("appendonly", "no")
    client.save()
    both.primary.options["appendonly"] = "no"
    both.primary.restart()
    kv = Kv(both.primary.client())
    assert kv.match(prompt) == 0
    wait_until(lambda: kv.client.dbsize() == 1, "the stubs are removed")
    assert kv.put(prompt[:4], b"again") == "STORED" and kv.match(prompt) == 1


@pytest.fixture
def lenient(fleet):
    server = fleet.launch(rdbcompression="no")
    assert server.client().execute_command("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1) == b"OK"
    return server


def test_dump_and_restore(server):
    client = server.client()
    kv = Kv(client)
    kv.create()
    prompt = list(range(12))
    kv.mput(prompt, [payload(i, 3_000_000) for i in range(3)])
    keys = [kv.key(name) for name in kv.digests(prompt)]
    dumps = {key: client.dump(key) for key in [b"ns", *keys]}
    client.flushall()
    # In any order: chunks wait for their namespace.
    for key in [keys[2], keys[0], b"ns", keys[1]]:
        client.restore(key, 0, dumps[key])
    wait_until(lambda: kv.match(prompt) == 3, "all are brought together")
    assert [c[3] for c in kv.fetch(prompt)[3]] == [payload(i, 3_000_000) for i in range(3)]
    client.restore("copy", 0, dumps[b"ns"])
    assert Kv(client, "copy").match(prompt) == 0, "a copy claims no chunk"
    assert kv.match(prompt) == 3


# How the section of a stub begins: tag and version.
STUB = struct.pack("<HH", 0x0303, 1)


def saved_whole(client):
    """Digests of the keys that a reload keeps as they are: namespaces, and chunks of the namespace that their key names.

    A damaged head may say DURABLE NONE or META: of what is stored then a stub is saved. It may also have another uid or
    fingerprint: what the namespace held before is removed between commands, sooner or later.
    """
    dumps = {key: client.dump(key) for key in client.keys()}
    namespaces = [key for key in dumps if client.type(key) == b"llm-kvnsp"]
    told = {key: fields_of(client.execute_command("KVCHUNK.INFO", key)) for key in namespaces}
    # What the header of a chunk begins with.
    whose = {key: int(one[b"uid"], 16).to_bytes(8, "little") + bytes.fromhex(one[b"fingerprint"].decode()) for key, one in told.items()}

    def is_kept(key, dump):
        name = key.partition(b"@")[0].strip(b"{}")
        return key in whose or (dump is not None and STUB not in dump and name in whose and whose[name] in dump)

    return {key: client.execute_command("DEBUG", "DIGEST-VALUE", key) for key, dump in dumps.items() if is_kept(key, dump)}


@pytest.mark.parametrize("seal", ["resealed", "as is"])
@pytest.mark.parametrize("kind", ["namespace", "chunk"])
def test_damaged_payloads(lenient, kind, seal):
    rng = random.Random(f"{kind} {seal}")
    client = lenient.client()
    kv = Kv(client)
    kv.create(model="m", shape=(2, 3), salt="s")
    prompt = list(range(12))
    for end in (4, 8, 12):
        kv.put(prompt[:end], payload(end, 300), meta={"a": end})
    canary = Kv(client, "canary")
    canary.create()
    canary.mput(prompt, [b"x", b"y", b"z"])
    key = b"ns" if kind == "namespace" else kv.key(kv.digests(prompt, model="m", shape=(2, 3), salt=b"s")[1])
    intact = Payload.parse(client.dump(key))
    where = sections(intact.body)
    assert len(where) == 1

    def hostile(count):
        for _ in range(count):
            body = intact.body
            for _ in range(rng.choice((1, 1, 2, 5))):
                body = damaged(body, rng) or body
            if seal == "resealed":
                body = resealed(body, [(a, b) for a, b in where if b <= len(body)])
            yield ("RESTORE", rng.choice((key, b"elsewhere")), rng.choice((0, 100_000)), intact.with_body(body), "REPLACE")

    with lenient.wire() as wire:
        replies = []
        for _ in range(20):
            replies += wire.pipeline(hostile(250))
            for name in ("ns", "elsewhere"):
                wire("KVCHUNK.INFO", name)
                fetched = wire("KVCHUNK.FETCH", name, "TOKENS", blob(prompt))
                if not isinstance(fetched, Failure) and seal == "as is":
                    assert all(b"".join(c[3]) in [b"x", *(payload(e, 300) for e in (4, 8, 12))] for c in fetched[3])
                wire("KVCHUNK.SCAN", name, 0)
                wire("KVCHUNK.VERIFY", name)
                wire("KVCHUNK.PUT", name, "TOKENS", blob(prompt), "PAYLOAD", 1, "x")
                wire("MEMORY", "USAGE", key)
        words = {reply.word if isinstance(reply, Failure) else reply for reply in replies}
        assert "ERR" in words and words <= {"OK", "ERR"}
        assert wire("PING") == "PONG"
        kept = saved_whole(client)
        # The canary and its chunks at least.
        assert len([key for key in kept if b"canary" in key]) == 4
        assert wire("DEBUG", "RELOAD") == "OK"
        assert saved_whole(client) == kept
    assert canary.match(prompt) == 3


@pytest.mark.parametrize("command", ["KVCHUNK._CREATE", "KVCHUNK._PUT"])
def test_internal_commands_with_any_bytes(lenient, command):
    client = lenient.client()
    kv = Kv(client)
    kv.create()
    kv.put([1, 2, 3, 4], b"payload")
    key = kv.key(kv.digests([1, 2, 3, 4])[0])
    bodies = [Payload.parse(client.dump(k)).body for k in (b"ns", key)]
    cuts = [body[a:b] for body in bodies for a, b in sections(body)]
    rng = random.Random(command)

    def calls():
        for _ in range(3_000):
            data = damaged(rng.choice(cuts), rng) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
            tail = [] if command.endswith("CREATE") else [rng.choice(["0", "-1", "x", 1 << 62, 5]), b"payload"]
            yield (command, rng.choice([b"ns", key, b"new"]), data, *tail)

    with lenient.wire() as wire:
        assert wire(*next(calls())).word == "NOPERM", "nobody but a primary may"
    dumps = {k: client.dump(k) for k in client.keys()}
    with Primary(lenient) as primary:
        primary.send(*(("RESTORE", k, 0, dump) for k, dump in dumps.items()))
        before = lenient.digest()
        assert primary.refused([("KVCHUNK._PUT", key, cuts[1], 0, b"another")]) == 1, "the checksum does not fit"
        refused = primary.refused(calls())
        assert refused > 0
        if refused == 3_000:
            assert lenient.digest() == before


def test_a_payload_damaged_on_disk_is_a_miss_and_goes(fleet):
    server = fleet.launch(rdbcompression="no", rdbchecksum="no")
    kv = Kv(server.client())
    kv.create()
    prompt = list(range(12))
    kv.mput(prompt, [payload(i, 5_000) for i in range(3)])
    kv.client.save()
    server.stop()
    file = server.folder / "dump.rdb"
    data = bytearray(file.read_bytes())
    at = data.find(payload(1, 5_000)[:64])
    assert at > 0
    data[at + 2_000] ^= 1
    file.write_bytes(bytes(data))
    server.start()
    kv = Kv(server.client())
    assert kv.match(prompt) == 1
    assert kv.missing(prompt) == [1]
    wait_until(lambda: kv.client.dbsize() == 3, "the damaged one is removed")
    assert kv.put(prompt[:8], payload(1, 5_000)) == "STORED" and kv.match(prompt) == 3


def test_verify_walks_over_all_chunks(server):
    kv = Kv(server.client())
    kv.create()
    kv.mput(list(range(80)), [payload(i, 100) for i in range(20)])
    seen = []
    while not seen or seen[-1][1] != 0:
        reply = kv.run("VERIFY", "COUNT", 7)
        seen.append((reply[1], reply[3]))
        assert reply[5] == []
    assert [checked for checked, _ in seen] == [7, 7, 6]


def test_a_chunk_of_another_fingerprint_is_a_miss_and_goes(lenient):
    """Its uid and its key are the namespace's own."""
    client = lenient.client()
    kv = Kv(client)
    kv.create(model="m")
    prompt = list(range(12))
    kv.mput(prompt, [payload(i, 300) for i in range(3)])
    names = kv.digests(prompt, model="m")
    key = kv.key(names[1])
    intact = Payload.parse(client.dump(key))
    own = bytes.fromhex(kv.info()["fingerprint"].decode())
    assert intact.body.count(own) == 1
    other = resealed(intact.body.replace(own, bytes(32)), sections(intact.body))
    client.restore(key, 0, intact.with_body(other), replace=True)
    assert (kv.match(prompt), kv.fetch(prompt)[0], kv.get(names[1]), kv.missing(prompt)) == (1, 1, None, [1])
    assert kv.get(names[2]) is None, "what is behind it cannot be reached"
    wait_until(lambda: not client.exists(key), "it is removed")
    assert kv.info()["chunks"] == 2
    assert kv.put(prompt[:8], payload(1, 300)) == "STORED" and kv.match(prompt) == 3


def test_databases_that_change_places_and_flushes(server):
    client = server.client()
    kv = Kv(client)
    kv.create()
    prompt = list(range(12))
    kv.mput(prompt, [b"x"] * 3)
    client.swapdb(0, 1)
    assert kv.match(prompt) == 0
    other = Kv(server.client(db=1))
    assert other.match(prompt) == 3
    assert other.run("DEL", other.digests(prompt)[0], "SUBTREE") == 3
    other.mput(prompt, [b"y"] * 3)
    client.swapdb(0, 1)
    assert [chunk[3] for chunk in kv.fetch(prompt)[3]] == [b"y"] * 3
    client.flushdb(asynchronous=True)
    assert kv.match(prompt) == 0
    kv.create()
    assert kv.info()["chunks"] == 0
