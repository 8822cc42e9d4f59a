"""Payloads that went bad in memory, and answers under way while their chunks are replaced and removed."""

import random
import threading
import time
import zlib

import pytest
from harness.flipping import flip_in_memory
from harness.kv import Kv, blob, cut, payload
from harness.replication import pair
from harness.server import settle_memory
from harness.waiting import wait_until
from harness.wire import encode
from redis.exceptions import ResponseError

MIB = 1 << 20


@pytest.mark.parametrize("finder", ["VERIFY", "FETCH", "GET"])
def test_a_payload_that_went_bad_in_memory_is_a_miss_and_goes(server, finder):
    kv = Kv(server.client())
    kv.create()
    prompt = list(range(16))
    kv.mput(prompt, [payload(i, 50_000) for i in range(4)])
    names = kv.digests(prompt)
    assert flip_in_memory(server.pid, payload(1, 50_000)[20_000:20_064]) >= 1
    match finder:
        case "VERIFY":
            assert kv.run("VERIFY")[1::2][::2] == [4, [names[1].encode()]]
        case "FETCH":
            matched, returned, following, chunks = kv.fetch(prompt)
            assert (matched, returned, following) == (1, 1, 1)
            assert [chunk[3] for chunk in chunks] == [payload(0, 50_000)]
        case "GET":
            assert kv.get(names[1]) is None
    assert kv.stats()["damaged"] == 1
    assert kv.match(prompt) == 1 and kv.get(names[2]) is None
    wait_until(lambda: not kv.client.exists(kv.key(names[1])), "the damaged chunk is removed")
    assert kv.missing(prompt) == [1]
    assert kv.put(prompt[:8], payload(1, 50_000)) == "STORED"
    assert [chunk[3] for chunk in kv.fetch(prompt)[3]] == [payload(i, 50_000) for i in range(4)]
    assert kv.run("VERIFY")[5] == []


@pytest.mark.parametrize("sparse", [(), ("SPARSE",)], ids=["prefix", "sparse"])
def test_a_client_that_compares_checksums_sees_what_went_bad_and_has_the_server_look(server, sparse):
    kv = Kv(server.client())
    kv.create()
    prompt = list(range(12))
    kv.mput(prompt, [payload(i, 50_000) for i in range(3)])
    ask = ["FETCH", "TOKENS", blob(prompt), *sparse]

    def sums():
        """Of each chunk whether its bytes fit the checksum that came with them."""
        chunks = kv.run(*ask, "CHECKSUMS")[3]
        return [b"%08x" % zlib.crc32(b"".join(segments)) == told for _, _, _, segments, told in chunks]

    assert sums() == [True, True, True]
    assert flip_in_memory(server.pid, payload(1, 50_000)[20_000:20_064]) >= 1
    # At each answer, also within the minute after another.
    assert sums() == [True, False, True] == sums()
    assert kv.stats()["damaged"] == 0
    there = [chunk is not None for chunk in kv.run(*ask)[3]]
    assert there == ([True, False, True] if sparse else [True])
    assert kv.stats()["damaged"] == 1
    wait_until(lambda: not kv.client.exists(kv.key(kv.digests(prompt)[1])), "the damaged chunk is removed")


def test_checksums_of_a_client_are_kept_and_compared_when_the_payload_is_asked_for(server):
    kv = Kv(server.client())
    kv.create()
    prompt, data = list(range(12)), [payload(i, 50_000) for i in range(3)]
    sums = [b"%08x" % zlib.crc32(each) for each in data]
    wrong = b"%08x" % (zlib.crc32(data[1]) ^ 1)
    given = [part for each in data for part in (1, each)]
    ask = ["MPUT", "TOKENS", blob(prompt), "PAYLOADS", 3, *given, "CHECKSUMS", 3]
    assert kv.run(*ask, sums[0], wrong.upper(), sums[2]) == [b"STORED"] * 3
    assert [chunk[4] for chunk in kv.run("FETCH", "TOKENS", blob(prompt), "CHECKSUMS")[3]] == [sums[0], wrong, sums[2]]
    # Bytes that went bad on their way are a miss, and go.
    assert kv.run("FETCH", "TOKENS", blob(prompt))[:2] == [1, 1]
    assert kv.stats()["damaged"] == 1
    wait_until(lambda: not kv.client.exists(kv.key(kv.digests(prompt)[1])), "the damaged chunk is removed")
    # Stored anew, also in slices, it is whole.
    assert kv.run(*ask, *sums) == [b"STORED"] * 3
    assert kv.run("FETCH", "TOKENS", blob(prompt))[:2] == [3, 3]
    many = list(range(4 * 200))
    each = [payload(i, 64) for i in range(200)]
    parts = [part for data in each for part in (1, data)]
    told = [b"%08x" % zlib.crc32(data) for data in each]
    kv.run("MPUT", "TOKENS", blob(many), "PAYLOADS", 200, *parts, "CHECKSUMS", 200, *told)
    assert kv.run("FETCH", "TOKENS", blob(many))[:2] == [200, 200]


def test_checksums_of_a_client_are_refused_whole_where_they_are_none(server):
    kv = Kv(server.client())
    kv.create()
    start = ["MPUT", "TOKENS", blob(list(range(8))), "PAYLOADS", 2, 1, b"a", 1, b"b", "CHECKSUMS"]
    for wrong, why in [
        ((1, b"00000000"), "1 checksums for 2 payloads"),
        ((2, b"00000000", b"0000000"), "a checksum is 8 hex digits"),
        ((2, b"00000000", b"+0000000"), "a checksum is 8 hex digits"),
        ((2, b"00000000", b"0000000g"), "a checksum is 8 hex digits"),
        ((3, b"00000000", b"00000000"), "announces 3 values, 2 follow"),
        ((0,), "CHECKSUMS"),
        ((2, b"00000000", b"00000000", "CHECKSUMS", 2, b"00000000", b"00000000"), "CHECKSUMS"),
    ]:
        with pytest.raises(ResponseError, match=why):
            kv.run(*start, *wrong)
    assert kv.info()["chunks"] == 0


def test_checksums_of_a_client_are_left_out_where_a_namespace_has_none(server):
    kv = Kv(server.client())
    kv.create(checksum="OFF")
    prompt = blob(list(range(4)))
    kv.run("MPUT", "TOKENS", prompt, "PAYLOADS", 1, 1, b"payload", "CHECKSUMS", 1, b"00000000")
    assert kv.run("FETCH", "TOKENS", prompt)[3][0][3] == [b"payload"]
    assert kv.run("FETCH", "TOKENS", prompt, "CHECKSUMS")[3][0][4] is None


def test_checksums_of_a_client_reach_replicas_and_the_aof(fleet):
    both = pair(fleet, appendonly="yes")
    kv = Kv(both.primary.client())
    kv.create(durable="FULL")
    prompt, data = blob(list(range(4))), payload(1, 50_000)
    kv.run("MPUT", "TOKENS", prompt, "PAYLOADS", 1, 1, data, "CHECKSUMS", 1, b"%08x" % zlib.crc32(data))
    ask = ["FETCH", "TOKENS", prompt, "CHECKSUMS"]
    want = kv.run(*ask)
    both.assert_equal()
    assert Kv(both.replica.client()).run(*ask) == want
    both.primary.restart()
    assert Kv(both.primary.client()).run(*ask) == want


def test_a_store_with_nocreate_leaves_a_namespace_that_is_gone_unmade(server):
    kv = Kv(server.client())
    store = ["MPUT", "TOKENS", blob(list(range(256))), "PAYLOADS", 1, 1, b"payload", "NOCREATE"]
    with pytest.raises(ResponseError, match="NOCACHE"):
        kv.run(*store)
    assert server.client().dbsize() == 0
    kv.run("CREATE")
    assert kv.run(*store) == [b"STORED"]
    kv.client.flushall()
    with pytest.raises(ResponseError, match="NOCACHE"):
        kv.run(*store)


def test_checksums_are_null_where_a_namespace_has_none(server):
    kv = Kv(server.client())
    kv.create(checksum="OFF")
    kv.mput(list(range(4)), [b"payload"])
    ask = ["FETCH", "TOKENS", blob(list(range(4))), "CHECKSUMS"]
    assert kv.run(*ask)[3][0][4] is None


def test_a_payload_fetched_in_parts_has_one_checksum_and_is_used_once(server):
    kv = Kv(server.client())
    kv.create()
    data = payload(1, 100_000)
    kv.mput(list(range(4)), [data])
    name = bytes.fromhex(kv.digests(list(range(4)))[0])
    parts = []
    for at in range(0, len(data), 30_000):
        ask = ["HASHES", 1, name, "SPARSE", "CHECKSUMS", "RANGE", at, 30_000]
        (_, _, whole, segments, told) = kv.run("FETCH", *ask)[3][0]
        assert (whole, told) == (len(data), b"%08x" % zlib.crc32(data))
        parts += segments
    assert b"".join(parts) == data
    assert kv.stats()["asked"] == kv.stats()["matched"] == 1
    assert kv.get(name.hex(), "NOPAYLOAD")[0]["hits"] == 1


def test_answers_under_way_while_chunks_are_replaced_and_removed(fleet):
    """With threads that write answers, none may see another version's bytes or freed memory."""
    server = fleet.launch(io_threads=4, io_threads_do_reads="yes")
    kv = Kv(server.client())
    kv.create()
    before = settle_memory(server)
    chunks, size = 6, 3 * MIB + 1_000
    tokens = list(range(4 * chunks))
    over, failures, fetched = threading.Event(), [], [0] * 6

    def version(number: int) -> bytes:
        return bytes([number % 256]) * size

    def put(own: Kv, at: int, number: int, way: str) -> None:
        data = version(number)
        parts = cut(data) if way == "segments" else [data]
        own.run("PUT", "TOKENS", blob(tokens[: 4 * (at + 1)]), "PAYLOAD", len(parts), *parts)

    def read(number: int) -> None:
        rng = random.Random(number)
        try:
            with server.wire() as wire:
                while not over.is_set():
                    command = ["KVCHUNK.FETCH", "ns", "TOKENS", blob(tokens)]
                    if rng.random() < 0.3:
                        command += ["RANGE", rng.randrange(2 * MIB), MIB]
                    depth = rng.randrange(1, 4)
                    wire.socket.sendall(b"".join(map(encode, [command] * depth)))
                    time.sleep(rng.random() * 0.02)
                    for _ in range(depth):
                        matched, returned, _, found = wire.read()
                        assert matched == returned == len(found)
                        for _, _, whole, segments in found:
                            data = b"".join(segments)
                            assert whole == size and data == data[:1] * len(data)
                            assert len(data) == (MIB if len(command) > 4 else size)
                        fetched[number] += matched
        except Exception as error:
            failures.append(error)

    def write(seconds: float) -> None:
        own, rng, end = Kv(server.client()), random.Random("writer"), time.monotonic() + seconds
        names = own.digests(tokens)
        step = 0
        while time.monotonic() < end:
            step, at = step + 1, rng.randrange(chunks)
            match rng.randrange(6):
                case 0:
                    own.run("DEL", names[at], "SUBTREE")
                case 1:
                    own.client.delete(own.key(names[at]))
                case 2:
                    own.client.unlink(own.key(names[at]))
                case _:
                    for missing in (own.missing(tokens) or [at])[:3]:
                        put(own, missing, step, rng.choice(("segments", "whole")))

    for at in range(chunks):
        put(kv, at, at, "segments")
    readers = [threading.Thread(target=read, args=(number,)) for number in range(len(fetched))]
    [reader.start() for reader in readers]
    try:
        write(6)
    finally:
        over.set()
        [reader.join() for reader in readers]
    assert not failures, failures
    assert all(count > 0 for count in fetched), fetched
    kv.client.delete("ns")
    wait_until(lambda: kv.client.dbsize() == 0, "all is reaped")
    server.close_clients()
    # What answers held is let go with them.
    wait_until(lambda: server.used_memory() < before + MIB, "the memory is free again")

