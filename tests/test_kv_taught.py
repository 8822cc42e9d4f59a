"""Chunks without their prefix, as engines hand them over: MPUT LOOSE, MATCH SPARSE and ALSO, and the order they teach."""

import pytest
from harness.wire import Failure


def names(count, first=0):
    return [f"chunk-{at:04}" for at in range(first, first + count)]


def store(wire, namespace, hashes, *words, size=1_000):
    each = [part for name in hashes[words[words.index("FROM") + 1] if "FROM" in words else 0 :] for part in (1, name.encode().ljust(size))]
    count = len(each) // 2
    return wire("KVCHUNK.MPUT", namespace, "HASHES", len(hashes), *hashes, *words, "PAYLOADS", count, *each)


def bits(string, count):
    return [bool(string[at // 8] >> (7 - at % 8) & 1) for at in range(count)]


def match(wire, namespace, hashes, *words):
    return wire("KVCHUNK.MATCH", namespace, "HASHES", len(hashes), *hashes, *words)


@pytest.fixture
def wire(emptied):
    with emptied.wire() as wire:
        yield wire


def leases(wire, namespace):
    info = wire("KVCHUNK.INFO", namespace)
    return dict(zip(info[::2], info[1::2], strict=True))[b"leases"]


def test_loose_chunks_are_answered_without_those_before_them(wire):
    hashes = names(6)
    assert store(wire, "ns", hashes, "LOOSE", "FROM", 2) == [b"STORED"] * 4
    assert wire("KVCHUNK.DEL", "ns", hashes[3].encode().hex()) == 1
    found = wire("KVCHUNK.FETCH", "ns", "HASHES", 6, *hashes, "SPARSE")
    assert [chunk and chunk[2] for chunk in found[3]] == [None, None, 1_000, None, 1_000, 1_000]
    assert wire("KVCHUNK.GET", "ns", hashes[4].encode().hex())[1] == 1_000
    # Those stored behind another are cut off by its loss, as before.
    assert store(wire, "firm", hashes) == [b"STORED"] * 6
    assert wire("KVCHUNK.DEL", "firm", hashes[3].encode().hex()) == 1
    assert wire("KVCHUNK.FETCH", "firm", "HASHES", 6, *hashes, "SPARSE")[1] == 3


def test_a_loose_chunk_that_is_rejected_takes_none_along(wire):
    assert wire("KVCHUNK.CREATE", "ns", "DTYPE", "int8", "SHAPE", 1, 4) == "OK"
    call = ["KVCHUNK.MPUT", "ns", "HASHES", 3, "a", "b", "c", "PAYLOADS", 3, 1, "four", 1, "wrong", 1, "more"]
    assert wire(*call, "LOOSE") == [b"STORED", b"REJECTED length", b"STORED"]
    assert wire(*call)[1:] == [b"REJECTED length", b"REJECTED prefix"]
    assert wire(*call, "LOOSE", "LOOSE").word == "ERR"


def test_match_says_of_each_chunk_whether_it_is_there(wire):
    hashes = names(20)
    assert match(wire, "ns", hashes, "SPARSE") == [0, 0, None, [[0, None, bytes(3)]]]
    stored = [at for at in range(20) if at % 3]
    store(wire, "ns", [hashes[at] for at in stored], "LOOSE")
    chunks, tokens, lease, places = match(wire, "ns", hashes, "SPARSE", "LEASE", 60_000)
    assert (chunks, tokens) == (0, 0)
    assert places == [[0, lease, places[0][2]]]
    assert bits(places[0][2], 20) == [at in stored for at in range(20)]
    assert wire("KVCHUNK.RELEASE", "ns", lease) == len(stored)
    assert match(wire, "ns", hashes[1:], "SPARSE")[0] == 2
    assert match(wire, "ns", hashes[1:]) == [2, 512, None]


def test_one_match_looks_into_several_namespaces_and_tells_the_least(wire):
    hashes = names(8)
    for namespace, count in (("{m}0", 8), ("{m}1", 5), ("{m}2", 7)):
        store(wire, namespace, hashes[:count], "LOOSE")
    several = ("ALSO", 2, "{m}1", "{m}2")
    assert match(wire, "{m}0", hashes, *several) == [5, 1_280, None, [[8, None, None], [5, None, None], [7, None, None]]]
    held = match(wire, "{m}0", hashes, *several, "LEASE", 60_000)
    assert held[2] == held[3][0][1]
    assert [wire("KVCHUNK.RELEASE", f"{{m}}{at}", place[1]) for at, place in enumerate(held[3])] == [8, 5, 7]
    # A namespace that is not there has nothing, and holds nothing.
    told = match(wire, "{m}0", hashes, "ALSO", 1, "{m}9", "SPARSE", "LEASE", 60_000)
    assert told[:2] == [0, 0]
    assert [bits(place[2], 8).count(True) for place in told[3]] == [8, 0]
    assert told[3][1][1] is None
    assert wire("KVCHUNK.RELEASE", "{m}0", told[2]) == 8


def test_what_is_wrong_is_refused_and_holds_nothing(wire):
    hashes = names(3)
    store(wire, "{m}0", hashes, "LOOSE")
    wire("SET", "{m}text", "x")
    assert match(wire, "{m}0", hashes, "ALSO", 1, "{m}text", "LEASE", 60_000).word == "WRONGTYPE"
    for words in (("ALSO",), ("ALSO", 0), ("ALSO", 2, "{m}1"), ("SPARSE", "SPARSE"), ("ALSO", 1, "{m}1", "ALSO", 1, "{m}2"), ("ALSO", 300, *["{m}1"] * 300)):
        assert isinstance(match(wire, "{m}0", hashes, *words), Failure), words
    many = names(40_000)
    assert match(wire, "{m}0", many, "ALSO", 1, "{m}1").word == "TOOBIG"
    assert leases(wire, "{m}0") == 0


def test_prompts_are_evicted_from_their_ends_once_their_order_is_known(wire):
    """The same stores, with and without a look-up that names the chunks of a prompt in their order."""
    left = {}
    for namespace, is_taught in (("unknown", False), ("known", True)):
        first, second = names(8), names(8, 100)
        assert wire("KVCHUNK.CREATE", namespace) == "OK"
        for name in first:
            store(wire, namespace, [name], "LOOSE", size=20_000)
        if is_taught:
            match(wire, namespace, first)
        used = wire("KVCHUNK.INFO", namespace)
        taken = dict(zip(used[::2], used[1::2], strict=True))[b"bytes"]
        wire("KVCHUNK.BUDGET", namespace, int(taken * 1.56))  # room for twelve and a half
        for name in second:
            assert store(wire, namespace, [name], "LOOSE", size=20_000) == [b"STORED"]
        left[namespace] = bits(match(wire, namespace, first, "SPARSE")[3][0][2], 8)
    for there in left.values():
        assert 0 < there.count(True) < 8
    assert left["known"] == sorted(left["known"], reverse=True)
    assert left["unknown"] == sorted(left["unknown"])


def test_a_chunk_stored_behind_one_named_before_from_goes_before_it(wire):
    """MPUT alone teaches: the second half of a prompt, stored later, is evicted before the first."""
    hashes = names(8)
    assert wire("KVCHUNK.CREATE", "ns") == "OK"
    for at in range(8):
        ahead = ["FROM", 1] if at else []
        store(wire, "ns", hashes[max(at - 1, 0) : at + 1], "LOOSE", *ahead, size=20_000)
    info = wire("KVCHUNK.INFO", "ns")
    taken = dict(zip(info[::2], info[1::2], strict=True))[b"bytes"]
    assert wire("KVCHUNK.BUDGET", "ns", taken // 2) >= 3
    there = bits(match(wire, "ns", hashes, "SPARSE")[3][0][2], 8)
    assert there == sorted(there, reverse=True)
    assert 0 < there.count(True) < 8


def test_leased_chunks_keep_those_before_them(wire):
    hashes = names(6)
    for name in hashes:
        store(wire, "ns", [name], "LOOSE", size=20_000)
    lease = match(wire, "ns", hashes, "LEASE", 60_000)[2]
    assert wire("KVCHUNK.RELEASE", "ns", lease) == 6
    last = hashes[-1].encode().hex()
    assert wire("KVCHUNK.LEASE", "ns", 60_000, last)[0] == 1
    assert wire("KVCHUNK.BUDGET", "ns", 1) == 0, "all are before the one that is leased"


def test_access_and_order_survive_a_script_and_a_transaction(wire):
    hashes = names(4)
    store(wire, "ns", hashes, "LOOSE")
    script = "return redis.call('KVCHUNK.MATCH', KEYS[1], 'HASHES', 4, ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'SPARSE', 'ALSO', 1, KEYS[2])"
    assert wire("EVAL", script, 2, "ns", "no", *hashes)[3][0][0] == 4
    assert wire("MULTI") == "OK"
    match(wire, "ns", hashes, "SPARSE")
    assert wire("EXEC")[0][3] == [[4, None, b"\xf0"]]
