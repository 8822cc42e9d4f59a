"""Payloads that went bad in memory, and answers under way while their chunks are replaced and removed."""

import random
import re
import threading
import time

import pytest
from harness.kv import Kv, blob, cut, payload
from harness.server import settle_memory
from harness.waiting import wait_until
from harness.wire import encode

MIB = 1 << 20


def flip_in_memory(pid: int, wanted: bytes) -> int:
    """Flips a bit in every copy of these bytes that a process holds; answers how many there were."""
    flipped = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ 0\s*(\[heap\])?$", line)
            if not found:
                continue
            start, end = (int(found[n], 16) for n in (1, 2))
            memory.seek(start)
            held = memory.read(end - start)
            at = held.find(wanted)
            while at >= 0:
                memory.seek(start + at)
                memory.write(bytes([wanted[0] ^ 1]))
                flipped += 1
                at = held.find(wanted, at + 1)
    return flipped


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

