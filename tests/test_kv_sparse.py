"""KVCHUNK.FETCH … SPARSE: any set of chunks, past those that are absent."""

import pytest
from harness.kv import Kv, blob
from harness.wire import Failure

TOKENS = list(range(40))


@pytest.fixture
def server(emptied):
    return emptied


@pytest.fixture
def kv(server, resp):
    kv = Kv(server.client(resp))
    kv.create()
    return kv


def answered(chunks):
    return [None if chunk is None else b"".join(chunk[3]) for chunk in chunks]


def test_holes_are_null_and_end_nothing(kv):
    names = [b"h%d" % n for n in range(6)]
    for n in (0, 1, 3, 5):
        kv.put_hash(names[n], b"data %d" % n)
    asked, there, following, chunks = kv.run("FETCH", "HASHES", 6, *names, "SPARSE")
    assert (asked, there, following) == (6, 4, 6)
    assert answered(chunks) == [b"data 0", b"data 1", None, b"data 3", None, b"data 5"]
    assert [chunk and bytes.fromhex(chunk[0].decode()) for chunk in chunks] == [n if i in (0, 1, 3, 5) else None for i, n in enumerate(names)]
    # Without the word the first hole ends it.
    assert kv.run("FETCH", "HASHES", 6, *names)[:3] == [2, 2, 2]
    # In any order, and one that is named twice is answered twice.
    assert answered(kv.run("FETCH", "HASHES", 3, names[5], names[2], names[5], "SPARSE")[3]) == [b"data 5", None, b"data 5"]


def test_what_stands_behind_a_gap_is_not_answered(kv):
    digests = kv.mput(TOKENS, [b"%d" % n for n in range(10)]) and kv.digests(TOKENS)
    kv.client.delete(kv.key(digests[4]))
    chunks = kv.run("FETCH", "TOKENS", blob(TOKENS), "SPARSE")[3]
    assert answered(chunks) == [b"0", b"1", b"2", b"3", None, None, None, None, None, None]
    other = [9] * 8
    kv.mput(other, [b"a", b"b"])
    hashes = [bytes.fromhex(d) for d in (digests[7], *kv.digests(other), digests[2])]
    assert answered(kv.run("FETCH", "HASHES", 4, *hashes, "SPARSE")[3]) == [None, b"a", b"b", b"2"]


def test_pages_by_count_bytes_and_from(kv):
    names = [b"h%d" % n for n in range(12)]
    for n in range(0, 12, 2):
        kv.put_hash(names[n], b"x" * 100)
    seen, start, trips = [], 0, 0
    while start < 12:
        asked, there, start, chunks = kv.run("FETCH", "HASHES", 12, *names, "SPARSE", "FROM", start, "MAXBYTES", 250)
        assert asked == 12 and there == sum(chunk is not None for chunk in chunks) <= 2
        seen += answered(chunks)
        trips += 1
    assert seen == [b"x" * 100 if n % 2 == 0 else None for n in range(12)] and trips == 3
    assert kv.run("FETCH", "HASHES", 12, *names, "SPARSE", "COUNT", 3)[:3] == [12, 2, 3]
    assert kv.run("FETCH", "HASHES", 12, *names, "SPARSE", "FROM", 500) == [12, 0, 12, []]
    # One payload in any case; a range of it.
    assert kv.run("FETCH", "HASHES", 12, *names, "SPARSE", "MAXBYTES", 1)[:3] == [12, 1, 2]
    assert answered(kv.run("FETCH", "HASHES", 1, names[0], "SPARSE", "RANGE", 5, 3)[3]) == [b"xxx"]


def test_a_lease_keeps_what_is_answered(kv):
    names = [b"h%d" % n for n in range(4)]
    for n in (0, 2):
        kv.put_hash(names[n], b"x" * 1_000)
    lease = kv.run("FETCH", "HASHES", 4, *names, "SPARSE", "LEASE", 60_000)[4]
    assert type(lease) is bytes and lease.isdigit(), "a string, for clients without 64-bit integers"
    kv.run("BUDGET", 1)
    assert kv.run("FETCH", "HASHES", 4, *names, "SPARSE")[1] == 2
    kv.run("RELEASE", lease)
    kv.run("BUDGET", 1)
    assert kv.run("FETCH", "HASHES", 4, *names, "SPARSE", "LEASE", 60_000) == [4, 0, 4, [None] * 4, None]


def test_bad_input_and_what_is_absent(server):
    with server.wire() as wire:
        assert wire("KVCHUNK.FETCH", "no", "HASHES", 2, "a", "b", "SPARSE") == [0, 0, 0, []]
        wire("KVCHUNK.CREATE", "ns", "CHUNK", 4)
        for bad in (("HASHES", 1, "a", "SPARSE", "SPARSE"), ("SPARSE",)):
            assert isinstance(wire("KVCHUNK.FETCH", "ns", *bad), Failure), bad


def test_many_holes_cost_no_more_than_the_chunks(fleet):
    """Each chunk behind a long prefix, with a hole beside it: the prefix is walked once."""
    server = fleet.launch(llmcache__check_work="yes")
    kv = Kv(server.client())
    count = 125
    kv.create()
    tokens = list(range(4 * count))
    kv.mput(tokens, [b"x"] * count)
    digests = [bytes.fromhex(d) for d in kv.digests(tokens)]
    hashes = [part for n, digest in enumerate(digests) for part in (digest, b"none%d" % n)]
    hashes.reverse()
    asked, there, following, chunks = kv.run("FETCH", "HASHES", len(hashes), *hashes, "SPARSE")
    assert (asked, there, following, len(chunks)) == (2 * count, count, 2 * count, 2 * count)
    info = server.info()
    assert int(info["llmcache_last_command_steps"]) < 20 * count
    assert int(info["llmcache_bounds_broken"]) == 0
