"""KVCHUNK refuses what it cannot use, and what it refuses leaves nothing."""

import pytest
from harness.kv import Kv, blob, payload
from harness.waiting import wait_until
from harness.wire import Failure, encode

T = blob([1, 2, 3, 4])
MIB = 1 << 20


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def wire(server):
    with server.wire() as wire:
        wire("KVCHUNK.CREATE", "ns", "CHUNK", 4)
        wire("KVCHUNK.PUT", "ns", "TOKENS", T, "PAYLOAD", 1, "there")
        yield wire


REFUSED = {
    "zero tokens": ("PUT", "TOKENS", "", "PAYLOAD", 1, "x"),
    "no whole chunk": ("PUT", "TOKENS", blob([1, 2, 3]), "PAYLOAD", 1, "x"),
    "a trailing partial chunk": ("PUT", "TOKENS", blob(range(6)), "PAYLOAD", 1, "x"),
    "a blob that is no multiple of 4": ("PUT", "TOKENS", T + b"x", "PAYLOAD", 1, "x"),
    "the same in MATCH": ("MATCH", "TOKENS", T + b"x"),
    "the same in FETCH": ("FETCH", "TOKENS", b"x"),
    "the same in MISSING": ("MISSING", "TOKENS", b"xyz"),
    "the same in FIND": ("FIND", "TOKENS", b"xyz"),
    "the same in DIGESTS": ("DIGESTS", "TOKENS", b"xyz"),
    "a partial chunk in MPUT": ("MPUT", "TOKENS", blob(range(6)), "PAYLOADS", 1, 1, "x"),
    "an empty payload": ("PUT", "TOKENS", T, "PAYLOAD", 1, ""),
    "no payload": ("PUT", "TOKENS", T, "NX", "PRIO", 1),
    "no segments": ("PUT", "TOKENS", T, "PAYLOAD", 0, "x"),
    "fewer segments than announced": ("PUT", "TOKENS", T, "PAYLOAD", 3, "x", "y"),
    "more segments than announced": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "y"),
    "an empty hash": ("PUT", "HASH", "", "PAYLOAD", 1, "x"),
    "a long hash": ("PUT", "HASH", "x" * 65, "PAYLOAD", 1, "x"),
    "its own parent": ("PUT", "HASH", "a", "PARENT", "a", "PAYLOAD", 1, "x"),
    "tokens and a hash": ("PUT", "HASH", "a", "TOKENS", T, "PAYLOAD", 1, "x"),
    "tokens and a parent": ("PUT", "PARENT", "a", "TOKENS", T, "PAYLOAD", 1, "x"),
    "hashes in PUT": ("PUT", "HASHES", 1, "a", "PAYLOAD", 1, "x"),
    "META that is no object": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "META", "[1]"),
    "META that is no JSON": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "META", "{"),
    "a high priority": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "PRIO", 16),
    "a negative expiry": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "EX", -1),
    "two expiries": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "EX", 1, "PX", 1),
    "a long salt": ("PUT", "TOKENS", T, "SALT", "s" * 129, "PAYLOAD", 1, "x"),
    "an unknown option": ("PUT", "TOKENS", T, "PAYLOAD", 1, "x", "XX"),
    "more payloads than chunks": ("MPUT", "TOKENS", T, "PAYLOADS", 2, 1, "x", 1, "y"),
    "payloads behind the end": ("MPUT", "TOKENS", T, "FROM", 1, "PAYLOADS", 1, 1, "x"),
    "a payload cut short": ("MPUT", "TOKENS", T, "PAYLOADS", 1, 2, "x"),
    "salt with hashes": ("MATCH", "HASHES", 1, "a", "SALT", "s"),
    "hex digits of half a byte": ("MATCH", "DIGESTS", 1, "abc"),
    "upper-case hex digits": ("MATCH", "DIGESTS", 1, "AB"),
    "no hex digits": ("FETCH", "DIGESTS", 1, "zz"),
    "too many hex digits": ("MISSING", "DIGESTS", 1, "ab" * 65),
    "an empty digest": ("PUT", "DIGEST", "", "PAYLOAD", 1, "x"),
    "a digest that is no hex": ("PUT", "DIGEST", "zz", "PAYLOAD", 1, "x"),
    "a parent in another form": ("PUT", "DIGEST", "aa", "PARENT", "z", "PAYLOAD", 1, "x"),
    "a digest that is its own parent": ("PUT", "DIGEST", "aa", "PARENT", "aa", "PAYLOAD", 1, "x"),
    "a hash and a digest": ("PUT", "HASH", "a", "DIGEST", "61", "PAYLOAD", 1, "x"),
    "packed hashes cut short": ("MATCH", "PACKED", 3, "abcd"),
    "packed hashes of nothing": ("MISSING", "PACKED", 3, ""),
    "packed hashes of no length": ("FETCH", "PACKED", 0, "abc"),
    "packed hashes that are too long": ("MATCH", "PACKED", 65, "a" * 65),
    "packed hashes without their bytes": ("MATCH", "PACKED", 3),
    "more packed hashes than may be": ("MATCH", "PACKED", 1, "a" * 65_537),
    "packed hashes twice": ("MATCH", "PACKED", 1, "a", "PACKED", 1, "a"),
    "packed hashes and hashes": ("MATCH", "PACKED", 1, "a", "HASHES", 1, "a"),
    "salt with packed hashes": ("MATCH", "PACKED", 1, "a", "SALT", "s"),
    "packed hashes in FIND": ("FIND", "PACKED", 1, "a"),
    "packed hashes in PUT": ("PUT", "PACKED", 1, "a", "PAYLOAD", 1, "x"),
    "packed hashes in DIGESTS": ("DIGESTS", "PACKED", 1, "a"),
    "hashes and digests": ("MATCH", "HASHES", 1, "a", "DIGESTS", 1, "61"),
    "salt with digests": ("MATCH", "DIGESTS", 1, "61", "SALT", "s"),
    "digests in FIND": ("FIND", "DIGESTS", 1, "61"),
    "digests in PUT": ("PUT", "DIGESTS", 1, "61", "PAYLOAD", 1, "x"),
    "no hashes": ("MATCH", "HASHES", 0, "x"),
    "tokens and hashes": ("MATCH", "HASHES", 1, "a", "TOKENS", T),
    "a bad filter": ("MATCH", "TOKENS", T, "FILTER", ".a >="),
    "a lease of no time": ("MATCH", "TOKENS", T, "LEASE", 0),
    "a range of nothing": ("FETCH", "TOKENS", T, "RANGE", 0, 0),
    "MAXBYTES 0": ("FETCH", "TOKENS", T, "MAXBYTES", 0),
    "a digest in capitals": ("GET", "AB"),
    "half a digit": ("GET", "abc"),
    "no digest": ("DEL", "SUBTREE"),
    "no lease": ("RELEASE", 0),
    "a negative budget": ("BUDGET", -1),
    "an unknown dtype": ("CREATE", "DTYPE", "float17"),
    "a shape of zero": ("CREATE", "SHAPE", 2, 0, 1),
    "a huge shape": ("CREATE", "DTYPE", "float64", "SHAPE", 3, 4_000_000_000, 4_000_000_000, 4_000_000_000),
    "nine dimensions": ("CREATE", "SHAPE", 9, *range(1, 10)),
    "no tokens in a chunk": ("CREATE", "CHUNK", 0),
    "durable perhaps": ("CREATE", "DURABLE", "PERHAPS"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_refused_and_nothing_changed(server, wire, call):
    key = "new" if call[0] == "CREATE" else "ns"
    before = server.digest()
    reply = wire(f"KVCHUNK.{call[0]}", key, *call[1:])
    assert isinstance(reply, Failure) and reply.word in ("ERR", "TOOBIG", "BADFILTER"), reply
    assert server.digest() == before
    assert wire("KVCHUNK.MATCH", "ns", "TOKENS", T)[0] == 1


def test_zero_tokens_match_nothing(wire):
    assert wire("KVCHUNK.MATCH", "ns", "TOKENS", "") == [0, 0, None]
    assert wire("KVCHUNK.FETCH", "ns", "TOKENS", "") == [0, 0, 0, []]
    assert wire("KVCHUNK.MISSING", "ns", "TOKENS", "") == []
    assert wire("KVCHUNK.FIND", "ns", "TOKENS", "") == []
    assert wire("KVCHUNK.DIGESTS", "ns", "TOKENS", "") == []


def test_names_whose_chunks_could_not_share_their_slot(wire):
    for name in ("a}b", "{}", "x" * 1_025):
        assert isinstance(wire("KVCHUNK.CREATE", name), Failure)
        assert isinstance(wire("KVCHUNK.PUT", name, "TOKENS", blob(range(256)), "PAYLOAD", 1, "x"), Failure)
    assert wire("DBSIZE") == 2


def test_a_payload_of_another_length_than_dtype_and_shape_make(server, wire):
    assert wire("KVCHUNK.CREATE", "kv", "CHUNK", 4, "DTYPE", "bf16", "SHAPE", 2, 3, 4) == "OK"
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", T, "PAYLOAD", 1, "x" * 23) == b"REJECTED length"
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", T, "PAYLOAD", 2, "x" * 20, "y" * 4) == b"STORED"
    eight = blob([1, 2, 3, 4, 5, 6, 7, 8])
    words = wire("KVCHUNK.MPUT", "kv", "TOKENS", eight, "PAYLOADS", 2, 1, "short", 1, "z" * 24)
    assert words == [b"REJECTED length", b"REJECTED prefix"]
    assert wire("KVCHUNK.MATCH", "kv", "TOKENS", eight)[0] == 1


def test_a_rejected_chunk_moves_no_deadline(server, wire):
    assert wire("KVCHUNK.CREATE", "kv", "CHUNK", 4, "DTYPE", "bf16", "SHAPE", 2, 3, 4) == "OK"
    eight = blob([1, 2, 3, 4, 5, 6, 7, 8])
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", T, "PAYLOAD", 1, "x" * 24, "PX", 600_000) == b"STORED"
    before = server.digest()
    late = ("PX", 900_000)
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", eight, "PAYLOAD", 1, "short", *late) == b"REJECTED length"
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", eight, "PAYLOAD", 1, "x" * 24, "PXAT", 1) == b"REJECTED expired"
    words = wire("KVCHUNK.MPUT", "kv", "TOKENS", eight, "PAYLOADS", 2, 1, "x" * 24, 1, "short", "NX", *late)
    assert words == [b"EXISTS", b"REJECTED length"]
    assert server.digest() == before
    assert wire("KVCHUNK.PUT", "kv", "TOKENS", eight, "PAYLOAD", 1, "x" * 24, *late) == b"STORED"
    assert server.digest() != before


def test_a_deadline_in_the_past(wire):
    assert wire("KVCHUNK.PUT", "ns", "TOKENS", blob(range(4)), "PAYLOAD", 1, "x", "PXAT", 5) == b"REJECTED expired"
    assert wire("DBSIZE") == 2


def test_a_circle_of_parents(wire):
    for name, parent in ((b"a", b"c"), (b"b", b"a")):
        assert wire("KVCHUNK.PUT", "ns", "HASH", name, "PARENT", parent, "PAYLOAD", 1, "x") == b"STORED"
    assert isinstance(wire("KVCHUNK.PUT", "ns", "HASH", "c", "PARENT", "b", "PAYLOAD", 1, "x"), Failure)
    assert wire("KVCHUNK.PUT", "ns", "HASH", "c", "PAYLOAD", 1, "x") == b"STORED"
    assert wire("KVCHUNK.MATCH", "ns", "HASHES", 3, "c", "a", "b")[0] == 3
    reply = wire("KVCHUNK.MPUT", "ns", "HASHES", 2, "b", "c", "PAYLOADS", 2, 1, "x", 1, "y")
    assert reply == [b"STORED", b"STORED"] or b"REJECTED parent" in reply
    assert wire("PING") == "PONG"


def test_a_payload_of_more_than_512_mib_is_refused(fleet):
    server = fleet.launch()
    with server.wire(timeout=120) as wire:
        segment = bytes(8 * MIB)
        wire.socket.sendall(b"*%d\r\n" % (6 + 65) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in [b"KVCHUNK.PUT", b"ns", b"HASH", b"a", b"PAYLOAD", b"65"]))
        for _ in range(65):
            wire.socket.sendall(b"$%d\r\n" % len(segment))
            wire.socket.sendall(segment)
            wire.socket.sendall(b"\r\n")
        assert wire.read().word == "TOOBIG"
        assert wire("DBSIZE") == 0
    assert server.used_memory() < 64 * MIB


def test_a_whole_512_mib(fleet):
    server = fleet.launch()
    with server.wire(timeout=120) as wire:
        data = payload(1, MIB) * 512
        wire.socket.sendall(b"*7\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in [b"KVCHUNK.PUT", b"ns", b"HASH", b"a", b"PAYLOAD", b"1"]) + b"$%d\r\n" % len(data))
        wire.socket.sendall(data)
        wire.socket.sendall(b"\r\n")
        assert wire.read() == b"STORED"
        matched, returned, following, chunks = wire("KVCHUNK.FETCH", "ns", "HASHES", 1, "a", "RANGE", len(data) - 100, 200)
        assert (matched, returned) == (1, 1) and b"".join(chunks[0][3]) == data[-100:]
        used = wire("MEMORY", "USAGE", "{ns}@61")
        assert used <= 1.03 * len(data)


def test_too_much_in_flight_is_refused(fleet):
    server = fleet.launch(llmcache__kv_in_flight=20 * MIB)
    kv = Kv(server.client())
    kv.create()
    kv.put([1, 2, 3, 4], payload(1, 8 * MIB))
    with server.wire() as wire:
        # Nothing is read while these are asked, so the answers wait in the server.
        wire.socket.sendall(encode(["KVCHUNK.FETCH", "ns", "TOKENS", T]) * 8)
        replies = [wire.read() for _ in range(8)]
        words = [reply.word if isinstance(reply, Failure) else "data" for reply in replies]
        assert words.count("data") >= 3 and words.count("BUSY") >= 3, words
    wait_until(lambda: kv.run("MATCH", "TOKENS", T)[0] == 1 and try_fetch(kv), "it is served again", step=0.2)


def try_fetch(kv):
    try:
        return kv.fetch([1, 2, 3, 4])[0] == 1
    except Exception as error:
        assert "too many payload bytes" in str(error)
        return False


@pytest.mark.parametrize(
    "call",
    [
        ("PUT", "TOKENS", blob(range(255)), "PAYLOAD", 1, "x"),
        ("PUT", "TOKENS", "", "PAYLOAD", 1, "x"),
        ("PUT", "TOKENS", blob(range(257)), "PAYLOAD", 1, "x"),
        ("MPUT", "TOKENS", blob(range(256)), "PAYLOADS", 2, 1, "x", 1, "y"),
        ("MPUT", "TOKENS", "", "PAYLOADS", 1, 1, "x"),
    ],
)
def test_a_refused_store_makes_no_namespace(server, call):
    with server.wire() as wire:
        assert wire(f"KVCHUNK.{call[0]}", "new", *call[1:]).word == "ERR"
        assert wire("DBSIZE") == 0
