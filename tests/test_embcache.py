"""EMBCACHE: embeddings by the digest of their text, within the error of their form, one trip for many."""

import time

import numpy as np
import pytest
from harness.families import Embeddings, embedding_digest
from harness.replies import fields
from harness.vectors import FORMS, fp32, unit, units
from harness.waiting import wait_until
from harness.wire import Failure, encode

DIM = 48


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def emb(server):
    emb = Embeddings(server.client(), "emb")
    emb.dim = DIM
    return emb


def blob(reply):
    return np.frombuffer(reply, "<f4")


def bound(quant, vector):
    """The table of docs/commands/EMBCACHE.CREATE.md."""
    norm = np.linalg.norm(vector)
    return {
        "NONE": np.zeros(len(vector)),
        "F16": 0.0005 * np.abs(vector) + 3.1e-8 * norm,
        "Q8": np.full(len(vector), np.abs(vector).max() / 253),
    }[quant]


@pytest.mark.parametrize("quant", ["NONE", "F16", "Q8"])
@pytest.mark.parametrize("length", [1.0, 23.5, 1e-12])
def test_what_was_stored_comes_back_within_the_stated_error(emb, quant, length):
    emb.make(quant=quant)
    for i, row in enumerate(units(40, DIM)):
        vector = np.asarray(row * length, "<f4")
        assert emb.set(f"t{i}", vector) == b"OK"
        error = np.abs(blob(emb.get(f"t{i}")).astype("f8") - vector)
        assert (error <= bound(quant, vector.astype("f8"))).all()


def test_quant_none_is_bit_for_bit(emb):
    emb.make(quant="NONE", dim=4)
    vector = np.array([3e38, -1e-44, 0.0, 1 / 3], "<f4")
    emb.set("odd", vector)
    assert emb.get("odd") == vector.tobytes()


@pytest.mark.parametrize("form", FORMS)
def test_forms_in_and_out(server, resp, form):
    emb = Embeddings(server.client(resp), "emb")
    emb.make(dim=4, quant="NONE")
    vector = np.array([0.5, -0.25, 2.0, 0.125], "<f4")
    emb.run("SET", "TEXT", "t", *FORMS[form](vector))
    assert emb.get("t") == emb.get("t", "AS", "FP32") == vector.tobytes()
    assert emb.get("t", "AS", "FP16") == vector.astype("<f2").tobytes()
    assert [float(x) for x in emb.get("t", "AS", "values")] == vector.tolist()
    third = np.array([1 / 3, 0, 0, 0], "<f4")
    emb.set("third", third)
    assert np.float32(float(emb.get("third", "AS", "VALUES")[0])) == third[0]


def test_the_digest_is_the_documented_one(emb):
    emb.make()
    emb.set("How do I get my money back?", unit(1, DIM))
    digest = embedding_digest("m", "How do I get my money back?")
    assert emb.run("GET", "DIGEST", digest) == emb.get("How do I get my money back?") is not None
    emb.run("SET", "DIGEST", embedding_digest("m", "other"), *fp32(unit(2, DIM)))
    assert emb.get("other") is not None
    assert emb.client.exists(emb.text_key("other"), emb.text_key("How do I get my money back?")) == 2
    assert emb.client.type("emb") == b"llm-embed"
    assert emb.client.type(emb.text_key("other")) == b"llm-entry"


def test_one_ordinary_key_for_each_in_the_slot_of_the_cache(emb):
    emb.make()
    emb.fill(30, DIM)
    keys = set(emb.client.keys("*")) - {b"emb"}
    assert len(keys) == 30 and all(key.startswith(b"{emb}:") for key in keys)
    assert emb.number_of_entries() == 30


def test_the_text_is_not_kept(emb):
    emb.make()
    emb.set("a very private text", unit(1, DIM))
    assert b"private" not in emb.client.dump(emb.text_key("a very private text"))


def test_mget_answers_in_order_with_nulls(emb):
    emb.make()
    emb.fill(5, DIM)
    texts = ["prompt 3", "absent", "prompt 0", "prompt 3"]
    replies = emb.mget(texts)
    assert [reply is None for reply in replies] == [False, True, False, False]
    assert replies[0] == replies[3] == emb.get("prompt 3") and replies[2] == emb.get("prompt 0")
    digests = [embedding_digest("m", text) for text in texts]
    assert emb.run("MGET", "DIGESTS", 4, *digests) == replies


def test_mset_stores_all_or_none(emb):
    emb.make()
    rows = units(3, DIM)
    items = [part for i in range(3) for part in ("TEXT", f"t{i}", *fp32(rows[i]))]
    assert emb.run("MSET", 3, *items, "EX", 100) == 3
    assert all(99_000 < emb.client.pttl(emb.text_key(f"t{i}")) <= 100_000 for i in range(3))
    for bad in (
        (2, "TEXT", "n0", *fp32(rows[0]), "TEXT", "n1", *fp32(rows[1][:7])),
        (2, "TEXT", "n0", *fp32(rows[0]), "TEXT", "n1", "FP32", b"\0" * 4 * DIM),
        (3, "TEXT", "n0", *fp32(rows[0]), "TEXT", "n1", *fp32(rows[1])),
        (1, "TEXT", "n0", *fp32(rows[0]), "TEXT", "n1", *fp32(rows[1])),
    ):
        with pytest.raises(Exception, match="BADVECTOR|DIMMISMATCH|ERR|syntax|dimensions|zero"):
            emb.run("MSET", *bad)
        assert emb.number_of_entries() == 3


def test_mgetex_touches_in_the_same_trip(emb):
    emb.make(ttl=50)
    emb.fill(3, DIM)
    texts = [f"prompt {i}" for i in range(4)]
    replies = emb.run("MGETEX", "TEXTS", 4, *texts, "PX", 90_000)
    assert [reply is None for reply in replies] == [False, False, False, True]
    assert all(85_000 < emb.client.pttl(emb.text_key(f"prompt {i}")) <= 90_000 for i in range(3))
    emb.run("MGETEX", "TEXTS", 4, *texts, "PERSIST")
    assert [emb.client.pttl(emb.text_key(f"prompt {i}")) for i in range(3)] == [-1] * 3
    assert len(emb.run("MGETEX", "TEXTS", 1, "prompt 1", "PXAT", 1)[0]) == 4 * DIM
    assert emb.get("prompt 1") is None and emb.number_of_entries() == 2


def test_expiry(emb):
    emb.make(ttl=100)
    emb.set("default", unit(1, DIM))
    emb.set("short", unit(2, DIM), px=60)
    emb.set("for ever", unit(3, DIM), persist=True)
    assert 99_000 < emb.client.pttl(emb.text_key("default")) <= 100_000
    assert emb.client.pttl(emb.text_key("for ever")) == -1
    time.sleep(0.1)
    assert emb.get("short") is None and emb.get("for ever") is not None


def test_models_and_dimensions_are_checked(server, emb):
    emb.make()
    before = server.digest()
    with server.wire() as wire:
        for call, word in [
            (("CREATE", "emb", "MODEL", "other", "DIM", DIM), "MODELMISMATCH"),
            (("CREATE", "emb", "MODEL", "m", "DIM", 7), "DIMMISMATCH"),
            (("CREATE", "emb", "MODEL", "m", "DIM", DIM, "TTL", 5), "ERR"),
            (("SET", "emb", "TEXT", "t", *fp32(unit(1, 7))), "DIMMISMATCH"),
            (("SET", "emb", "TEXT", "t", *fp32(unit(1, DIM)), "MODEL", "other"), "MODELMISMATCH"),
            (("MSET", "emb", 1, "TEXT", "t", *fp32(unit(1, DIM)), "MODEL", "other"), "MODELMISMATCH"),
            (("GET", "emb", "TEXT", "t", "MODEL", "other"), "MODELMISMATCH"),
            (("MGET", "emb", "TEXTS", 1, "t", "MODEL", "other"), "MODELMISMATCH"),
            (("MGETEX", "emb", "TEXTS", 1, "t", "EX", 5, "MODEL", "other"), "MODELMISMATCH"),
            (("FETCH", "emb", "TEXT", "t", "MODEL", "other"), "MODELMISMATCH"),
            (("DEL", "emb", "TEXTS", 1, "t", "MODEL", "other"), "MODELMISMATCH"),
        ]:
            reply = wire(f"EMBCACHE.{call[0]}", *call[1:])
            assert isinstance(reply, Failure) and reply.word == word, (call, reply)
        assert wire("EMBCACHE.CREATE", "emb", "MODEL", "m", "DIM", DIM) == "OK"
    assert server.digest() == before


def test_two_models_side_by_side(server):
    client = server.client()
    old, new = Embeddings(client, "{emb}:old"), Embeddings(client, "{emb}:new")
    old.model, new.model = "minilm", "bge"
    old.make(dim=16)
    new.make(dim=24, quant="Q8")
    texts = [f"t{i}" for i in range(20)]
    for i, text in enumerate(texts):
        old.set(text, unit(i, 16))
        if i < 10:
            new.set(text, unit(i, 24))
    pipe = client.pipeline(transaction=True)
    for emb in (new, old):
        pipe.execute_command("EMBCACHE.MGET", emb.name, "TEXTS", len(texts), *texts)
    fresh, former = pipe.execute()
    assert [len(x) if x else None for x in fresh] == [24 * 4] * 10 + [None] * 10
    assert {len(x) for x in former} == {16 * 4}
    assert client.delete("{emb}:old") == 1
    wait_until(lambda: len(client.keys("{emb}:*")) == 11, "the old model's are reaped")
    assert new.get("t3") is not None and old.get("t3") is None


def test_without_a_cache(server, emb):
    assert emb.get("t") is None
    assert emb.mget(["a", "b"]) == [None, None]
    assert emb.run("MGETEX", "TEXTS", 1, "a", "EX", 5) == [None]
    assert emb.delete("a") == 0
    with server.wire() as wire:
        assert wire("EMBCACHE.INFO", "emb").word == "NOCACHE"
        assert wire("EMBCACHE.FETCH", "emb", "TEXT", "a").word == "NOCACHE"
        assert wire("EMBCACHE.SET", "emb", "TEXT", "a", *fp32(unit(1, DIM))).word == "NOCACHE"
        assert wire("DBSIZE") == 0
        assert wire("EMBCACHE.SET", "emb", "TEXT", "a", *fp32(unit(1, DIM)), "MODEL", "m") == "OK"
        wire("CONFIG", "SET", "llmcache.auto-create", "no")
        assert wire("EMBCACHE.SET", "e2", "TEXT", "a", *fp32(unit(1, DIM)), "MODEL", "m").word == "NOCACHE"
        wire("CONFIG", "SET", "llmcache.auto-create", "yes")
    assert emb.info()["dim"] == DIM and emb.get("a") is not None


@pytest.mark.parametrize("quant", ["NONE", "F16", "Q8"])
def test_info_counts_hits_and_bytes(server, resp, quant):
    emb = Embeddings(server.client(resp), "emb")
    emb.make(quant=quant)
    assert emb.info()["hit_ratio"] is None
    emb.fill(10)
    emb.mget([f"prompt {i}" for i in range(20)])
    emb.run("MGETEX", "TEXTS", 2, "prompt 1", "absent", "EX", 50)
    emb.get("prompt 2")
    info = emb.info()
    assert (info["lookups"], info["hits"], info["misses"], info["stores"]) == (23, 12, 11, 10)
    assert float(info["hit_ratio"]) == pytest.approx(12 / 23)
    kept = {"NONE": 4 * 32, "F16": 2 * 32 + 8, "Q8": 4 + 32 + 8}[quant]
    assert info["bytes_saved"] == 10 * (4 * 32 - kept)
    assert info["bytes_served"] == 12 * 4 * 32
    assert info["entries"] == 10 and info["bytes"] > 10 * kept


def test_delete(emb):
    emb.make()
    emb.fill(5, DIM)
    assert emb.delete("prompt 1", "absent", "prompt 1") == 1
    assert emb.run("DEL", "DIGESTS", 1, embedding_digest("m", "prompt 2")) == 1
    assert emb.number_of_entries() == 3
    assert emb.mget([f"prompt {i}" for i in range(5)]).count(None) == 2


def test_limits_evict_the_least_used(emb):
    emb.make(maxentries=50)
    emb.fill(50, DIM)
    for _ in range(3):
        emb.mget([f"prompt {i}" for i in range(10)])
    emb.fill(200, DIM, start=1_000)
    assert emb.number_of_entries() == 50
    assert emb.mget([f"prompt {i}" for i in range(10)]).count(None) <= 1
    assert emb.info()["evicted"] == 200


# Leases, as those of LLMCACHE.FETCH, whose tests look closer.


def fetch(wire, *tail):
    reply = wire("EMBCACHE.FETCH", "emb", "TEXT", "t", *tail)
    return reply if isinstance(reply, Failure) else fields(reply)


def test_one_worker_computes_a_missing_embedding(server, emb):
    emb.make()
    with server.wire() as leader, server.wire() as other, server.wire() as third:
        told = fetch(leader)
        assert told["status"] == b"LEAD" and told["lease_ms"] == 30_000
        assert fetch(other)["status"] == b"BUSY"
        for waiter in (other, third):
            waiter.send("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 20_000)
        wait_until(lambda: emb.info()["waiters"] == 2, "both wait")
        vector = unit(1, DIM)
        stored = leader("EMBCACHE.SET", "emb", "TEXT", "t", *fp32(vector), "LEASE", told["token"])
        assert stored == "OK"
        for waiter in (other, third):
            told = fields(waiter.read())
            assert told["status"] == b"HIT" and told["vector"] == emb.get("t")
        assert fetch(other)["vector"] == emb.get("t")
        values = fetch(other, "AS", "VALUES")["vector"]
        assert np.allclose([float(x) for x in values], vector, atol=1e-3)
    info = emb.info()
    assert (info["lead"], info["busy"], info["coalesced"], info["leases"]) == (1, 1, 2, 0)


def test_a_stampede_of_forty_computes_once(server, emb):
    emb.make()
    wires = [server.wire() for _ in range(40)]
    try:
        for wire in wires:
            wire.send("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 30_000)
        wait_until(lambda: emb.info()["waiters"] == 39, "all but one wait")
        told = [fields(wires[0].read())]
        assert told[0]["status"] == b"LEAD"
        emb.set("t", unit(1, DIM), lease=told[0]["token"])
        told += [fields(wire.read()) for wire in wires[1:]]
        assert [t["status"] for t in told[1:]] == [b"HIT"] * 39
    finally:
        for wire in wires:
            wire.close()


def test_a_lease_that_lapsed_goes_to_the_oldest_waiter(server, emb):
    emb.make()
    with server.wire() as leader, server.wire() as first, server.wire() as second:
        token = fetch(leader, "LEASE", 60_000)["token"]
        first.send("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 20_000)
        wait_until(lambda: emb.info()["waiters"] == 1, "one waits")
        second.send("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 20_000)
        wait_until(lambda: emb.info()["waiters"] == 2, "both wait")
        assert leader("EMBCACHE.EXTEND", "emb", token, 50) == "OK"
        told = fields(first.read())
        assert told["status"] == b"LEAD" and told["token"] != token
        late = leader("EMBCACHE.SET", "emb", "TEXT", "t", *fp32(unit(1, DIM)), "LEASE", token)
        assert late.word == "LEASELOST" and emb.get("t") is None
        wrong = first("EMBCACHE.SET", "emb", "TEXT", "u", *fp32(unit(1, DIM)), "LEASE", told["token"])
        assert wrong.word == "LEASELOST", "a lease is for one text"
        second.send("PING")
        assert fields(second.read())["status"] == b"LEAD"
        assert second.read() == "PONG"


def test_a_failure_is_told_to_who_asks_next(server, emb):
    emb.make()
    with server.wire() as leader, server.wire() as other:
        token = fetch(leader)["token"]
        assert leader("EMBCACHE.EXTEND", "emb", token, 60_000) == "OK"
        assert leader("EMBCACHE.FAIL", "emb", token, "BACKOFF", 5_000, "ERR", "model is down") == "OK"
        told = fetch(other)
        assert told["status"] == b"NEG" and told["error"] == b"model is down" and told["retry_ms"] <= 5_000
        assert leader("EMBCACHE.FAIL", "emb", token).word == "LEASELOST"
        assert leader("EMBCACHE.EXTEND", "emb", token, 5).word == "LEASELOST"


def test_nobody_waits_in_multi_and_scripts(server, emb):
    emb.make()
    with server.wire() as leader, server.wire() as other:
        fetch(leader)
        other("MULTI")
        other("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 20_000)
        assert fields(other("EXEC")[0])["status"] == b"BUSY"
        script = "return redis.call('EMBCACHE.FETCH', KEYS[1], 'TEXT', 't', 'WAIT', 20000)"
        assert fields(other("EVAL", script, 1, "emb"))["status"] == b"BUSY"


def test_waiters_are_told_when_the_cache_goes(server, emb):
    emb.make()
    with server.wire() as leader, server.wire() as waiter:
        fetch(leader)
        waiter.send("EMBCACHE.FETCH", "emb", "TEXT", "t", "WAIT", 20_000)
        wait_until(lambda: emb.info()["waiters"] == 1, "one waits")
        emb.client.delete("emb")
        assert waiter.read().word == "NOCACHE"


BAD = [
    ("CREATE", "new"),
    ("CREATE", "new", "MODEL", "m", "TTL", 5),
    ("CREATE", "new", "DIM", 3, "TTL", 5),
    ("CREATE", "new", "MODEL", "", "DIM", 3),
    ("CREATE", "new", "MODEL", "m", "DIM", 0),
    ("CREATE", "new", "MODEL", "m", "DIM", 16_385),
    ("CREATE", "new", "MODEL", "m" * 257, "DIM", 3),
    ("CREATE", "new", "MODEL", "m", "DIM", 3, "QUANT", "Q4"),
    ("CREATE", "new", "MODEL", "m", "DIM", 3, "THRESHOLD", "0.5"),
    ("CREATE", "new", "MODEL", "m", "DIM", 3, "INDEX", "FLAT"),
    ("CREATE", "new", "MODEL", "m", "DIM", 3, "DIM", 3),
    ("SET", "emb", "TEXT", "t", "TEXT", "u", "VALUES", 3, 1, 2, 3),
    ("SET", "emb", "TEXT", "t", "DIGEST", "0" * 64, "VALUES", 3, 1, 2, 3),
    ("SET", "emb", "DIGEST", "0" * 63, "VALUES", 3, 1, 2, 3),
    ("SET", "emb", "DIGEST", "A" * 64, "VALUES", 3, 1, 2, 3),
    ("SET", "emb", "TEXT", "t", "VALUES", 3, 0, 0, 0),
    ("SET", "emb", "TEXT", "t", "VALUES", 3, 1, 2, "nan"),
    ("SET", "emb", "TEXT", "t", "VALUES", 4, 1, 2, 3),
    ("SET", "emb", "TEXT", "t", "FP32", "abc"),
    ("SET", "emb", "TEXT", "t", "VALUES", 3, 1, 2, 3, "EX", 0),
    ("SET", "emb", "TEXT", "t", "VALUES", 3, 1, 2, 3, "META", "{}"),
    ("SET", "emb", "TEXT", "t", "VALUES", 3, 1, 2, 3, "LEASE", "xyz"),
    ("SET", "emb", "VALUES", 3, 1, 2, 3, "EX", 5),
    ("MSET", "emb", 0, "TEXT", "t", "VALUES", 3, 1, 2, 3),
    ("MSET", "emb", 1_001, "TEXT", "t", "VALUES", 3, 1, 2, 3),
    ("MSET", "emb", 1, "TEXT", "t", "VALUES", 3, 1, 2, 3, "LEASE", "0" * 16),
    ("GET", "emb", "TEXT", "t", "AS", "Q8"),
    ("GET", "emb", "TEXTS", 1, "t"),
    ("GET", "emb", "AS", "FP32", "MODEL", "m"),
    ("MGET", "emb", "TEXT", "t", "AS", "FP32"),
    ("MGET", "emb", "TEXTS", 2, "t"),
    ("MGET", "emb", "TEXTS", 0, "t"),
    ("MGET", "emb", "TEXTS", 1, "t", "DIGESTS", 1, "0" * 64),
    ("MGET", "emb", "DIGESTS", 1, "x"),
    ("MGET", "emb", "TEXTS", 1, "t", "EX", 5),
    ("MGETEX", "emb", "TEXTS", 1, "t", "AS", "FP32"),
    ("MGETEX", "emb", "TEXTS", 1, "t", "EX", 5, "PX", 5),
    ("FETCH", "emb", "TEXT", "t", "BETA", 1),
    ("FETCH", "emb", "TEXT", "t", "VIA"),
    ("FETCH", "emb", "TEXT", "t", "LEASE", 0),
    ("FETCH", "emb", "LEASE", 5, "WAIT", 5),
    ("FAIL", "emb", "x"),
    ("EXTEND", "emb", "0" * 16, 0),
    ("DEL", "emb", "TEXTS", 3, "a"),
    ("DEL", "emb", "TEXT", "a"),
    ("INFO", "emb", "x"),
]


@pytest.mark.parametrize("call", BAD, ids=lambda call: " ".join(map(str, call))[:60])
def test_bad_input_changes_nothing(server, emb, call):
    emb.make(dim=3)
    emb.set("kept", np.array([1, 2, 3]))
    before = server.digest()
    with server.wire() as wire:
        reply = wire(f"EMBCACHE.{call[0]}", *call[1:])
        assert isinstance(reply, Failure), reply
        assert reply.word in ("ERR", "BADVECTOR", "TOOBIG", "LEASELOST"), reply
    assert server.digest() == before


def test_too_much_at_once_is_refused(server, emb):
    emb.make(dim=3)
    with server.wire() as wire:
        wire.socket.sendall(encode(("EMBCACHE.MGET", "emb", "TEXTS", 10_001, *["t"] * 10_001)))
        assert wire.read().word == "ERR"
        wire.socket.sendall(encode(("EMBCACHE.MGET", "emb", "TEXTS", 10_000, *["t"] * 10_000)))
        assert wire.read() == [None] * 10_000
        reply = wire("EMBCACHE.GET", "emb", "TEXT", "x" * ((16 << 20) + 1))
        assert reply.word == "TOOBIG"


def test_an_entry_larger_than_maxmemory_is_refused(server, emb):
    emb.make(maxmemory=150)
    with server.wire() as wire:
        assert wire("EMBCACHE.SET", "emb", "TEXT", "t", *fp32(unit(1, DIM))).word == "TOOBIG"
    assert emb.number_of_entries() == 0


def test_memory_beside_a_plain_string_of_the_same_bytes(fleet):
    """At 1,536 dimensions, keys and index included: at most 0.35 of it as Q8 and 0.6 as F16."""
    server = fleet.launch()
    client = server.client()
    count, dim = 1_000, 1_536
    rows = [fp32(row)[1] for row in units(count, dim)]

    def grown(commands):
        before = server.used_memory()
        with server.wire() as wire:
            assert not [r for r in wire.pipeline(commands) if isinstance(r, Failure)]
        return (server.used_memory() - before) / count

    plain = grown(("SET", f"emb:{embedding_digest('m', f't{i}')[:32]}", row) for i, row in enumerate(rows))
    for quant, most in (("Q8", 0.35), ("F16", 0.6)):
        emb = Embeddings(client, quant)
        emb.make(dim=dim, quant=quant)
        own = grown(("EMBCACHE.SET", quant, "TEXT", f"t{i}", "FP32", row) for i, row in enumerate(rows))
        assert own <= most * plain, (quant, own, plain)


def test_a_hundred_texts_are_one_command(server, emb):
    emb.make()
    emb.fill(100, DIM)
    emb.client.config_resetstat()
    emb.run("MGETEX", "TEXTS", 100, *(f"prompt {i}" for i in range(100)), "EX", 50)
    stats = server.info("commandstats")
    counted = {name for name in stats if name.startswith("cmdstat_") and "config" not in name and "info" not in name}
    assert {name.lower() for name in counted} == {"cmdstat_embcache.mgetex"}
