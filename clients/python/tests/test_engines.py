"""The adapters of inference engines on a real server: bytes, leases, order, failures.

All of it twice: with the sockets of the extension (`native/`), which is built for it, and with those in Python.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
import stand_ins
from harness.flipping import flip_in_memory
from harness.waiting import wait_until
from relay import Relay
from stand_ins import ExtraInfo, Memory, ObjectKey, PoolHitPolicy, PoolName, PoolTransfer, StorageConfig

stand_ins.install()

from llmcache._engine import Endpoint, Names, Options, ReplyError, open_store  # noqa: E402
from llmcache._engine.wire import Wire, encode, password_of  # noqa: E402
from llmcache.lmcache import LLMCacheL2Adapter, LLMCacheL2AdapterConfig  # noqa: E402
from llmcache.sglang import LLMCacheHiCacheStorage  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "native"))
import build  # noqa: E402

NATIVE = str(build.built())
sys.path.insert(0, NATIVE)
BIG = (1 << 20) + 12_345


def key(at: int, model: str = "m", rank: int = 0, group: int = 0, salt: str = "") -> ObjectKey:
    return ObjectKey(at.to_bytes(32, "big"), model, rank, group, salt)


def data(at: int, size: int = 5_000) -> bytes:
    return bytes([at % 251 + 1, at % 13]) * (size // 2)


SOCKETS = {"native": True, "python": False}


@pytest.fixture(autouse=True, params=SOCKETS)
def native(request):
    """Which sockets are tried."""
    Engine.native = SOCKETS[request.param]
    return Engine.native


class Engine:
    """What LMCache's controllers do with an adapter."""

    native = False

    def __init__(self, **params):
        self.adapter = LLMCacheL2Adapter({"connections": 2, "timeout": 20, "native": self.native, **params})

    def _wait(self, fd: int, result):
        while (told := result()) is None:
            assert select.select([fd], [], [], 60)[0], "nothing came"
            os.eventfd_read(fd)
        return told

    def store(self, keys, payloads):
        task = self.adapter.submit_store_task(keys, [Memory(each) for each in payloads])
        done = {}
        return self._wait(
            self.adapter.get_store_event_fd(),
            lambda: (done.update(self.adapter.pop_completed_store_tasks()), done.get(task))[1],
        )

    def look_up(self, keys):
        task = self.adapter.submit_lookup_and_lock_task(keys, {})
        told = self._wait(
            self.adapter.get_lookup_and_lock_event_fd(), lambda: self.adapter.query_lookup_and_lock_result(task)
        )
        assert self.adapter.query_lookup_and_lock_result(task) is None, "told once"
        return told.all()

    def load(self, keys, sizes):
        memory = [Memory(size) for size in sizes]
        task = self.adapter.submit_load_task(keys, memory)
        told = self._wait(self.adapter.get_load_event_fd(), lambda: self.adapter.query_load_result(task)).all()
        return [bytes(each.data) if is_loaded else None for each, is_loaded in zip(memory, told, strict=True)]


@pytest.fixture
def engine(server):
    engine = Engine(port=server.port)
    yield engine
    engine.adapter.close()


def info(server, name):
    with server.wire() as wire:
        told = wire("KVCHUNK.INFO", name)
        return dict(zip(told[::2], told[1::2], strict=True))


def calls(server, command):
    stats = server.client().info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name.lower().endswith(command))


def test_what_is_stored_is_found_held_loaded_and_let_go(server, engine):
    keys = [key(at) for at in range(20)]
    sizes = [5_000, BIG] * 10
    assert engine.store(keys[:10], [data(at, sizes[at]) for at in range(10)]) == sum(
        len(data(at, sizes[at])) for at in range(10)
    )
    assert engine.adapter.stored[0][0] == keys[:10]
    assert engine.look_up(keys) == [True] * 10 + [False] * 10
    name = "{m}"
    assert info(server, name)[b"leases"] == 1
    assert info(server, name)[b"durable"] == b"none"
    assert (
        engine.load(keys[:12], [len(data(at, sizes[at])) for at in range(12)])
        == [data(at, sizes[at]) for at in range(10)] + [None] * 2
    )
    assert engine.adapter.accessed == [keys[:10]]
    engine.adapter.submit_unlock(keys[:9])
    assert engine.look_up(keys[9:10]) == [True]
    engine.adapter.submit_unlock(keys[9:10])
    engine.adapter.submit_unlock(keys[9:10])
    wait_until(lambda: info(server, name)[b"leases"] == 0, "both leases ended", 30)
    engine.adapter.submit_unlock(keys), "what is not held is no error"
    assert engine.adapter.report_status()["is_healthy"]


def test_a_look_up_of_all_ranks_and_groups_is_one_trip(server, engine):
    keys = [key(at, rank=rank, group=group) for group in range(2) for rank in range(4) for at in range(16)]
    engine.store(keys, [data(at) for at in range(len(keys))])
    before = calls(server, "kvchunk.match")
    assert engine.look_up(keys) == [True] * len(keys)
    assert calls(server, "kvchunk.match") == before + 1
    # So are ranks of which each has another part of the prompt.
    mixed = [*keys[:16], *keys[16:24], key(99, rank=2)]
    assert engine.look_up(mixed) == [True] * 24 + [False]
    assert calls(server, "kvchunk.match") == before + 2


def test_look_ups_of_two_tenants_are_one_trip_with_a_command_each(server, engine):
    keys = [key(at, salt=salt) for salt in ("a", "b") for at in range(3)]
    engine.store(keys, [data(at) for at in range(6)])
    before = calls(server, "kvchunk.match")
    mixed = [keys[0], keys[3], key(0), keys[1], keys[4]]
    assert engine.look_up(mixed) == [True, True, False, True, True]
    assert calls(server, "kvchunk.match") == before + 3
    assert engine.load(mixed, [5_000] * 5) == [data(0), data(3), None, data(1), data(4)]


def test_ranks_of_a_chunk_are_evicted_with_it(server, engine):
    """A prompt is as long as the shortest of its ranks: what one rank has beyond the others would be kept for nothing."""
    ranks = 4
    keys = [key(at, rank=rank) for rank in range(ranks) for at in range(12)]
    # Each rank is stored by itself, in any order.
    for rank in (2, 0, 3, 1):
        own = keys[rank * 12 : rank * 12 + 12]
        engine.store(own, [data(at, 20_000) for at in range(12)])
    assert engine.look_up(keys) == [True] * len(keys)
    engine.adapter.submit_unlock(keys)
    wait_until(lambda: info(server, "{m}")[b"leases"] == 0, "all let go", 30)
    with server.wire() as wire:
        wire("KVCHUNK.BUDGET", "{m}", info(server, "{m}")[b"bytes"] // 2)
    there = engine.look_up(keys)
    lengths = [sum(there[rank * 12 : rank * 12 + 12]) for rank in range(ranks)]
    assert 0 < min(lengths) < 12
    assert max(lengths) - min(lengths) <= 1, lengths
    for rank in range(ranks):
        assert there[rank * 12 : rank * 12 + 12] == [True] * lengths[rank] + [False] * (12 - lengths[rank])


@pytest.mark.parametrize("other", [{"salt": "tenant"}, {"model": "other"}, {"rank": 1}, {"group": 1}])
def test_another_tenant_model_rank_or_group_is_answered_nothing(engine, other):
    assert engine.store([key(1, salt="mine")], [data(1)]).is_successful()
    wrong = key(1, **{"salt": "mine", **other})
    assert engine.look_up([key(1, salt="mine"), wrong]) == [True, False]
    assert engine.load([wrong], [len(data(1))]) == [None]


def test_a_buffer_of_another_size_is_a_miss_and_takes_none_along(engine):
    keys = [key(at) for at in range(4)]
    engine.store(keys, [data(at) for at in range(3)] + [data(3, BIG)])
    assert engine.load(keys, [4_998, 5_000, 5_002, 5_000]) == [None, data(1), None, None]
    assert engine.load(keys, [5_000, 5_000, 5_000, len(data(3, BIG))]) == [*(data(at) for at in range(3)), data(3, BIG)]


def test_a_namespace_that_is_removed_comes_back_with_the_settings_asked_for(server):
    """MPUT would make it with defaults: without a budget, durable. The connections know nothing of it."""
    engine = Engine(port=server.port, budget=10_000_000, chunk_tokens=16)
    wanted = {b"budget": 10_000_000, b"durable": b"none", b"chunk": 16}
    asked = lambda: {name: info(server, "{m}")[name] for name in wanted}  # noqa: E731
    assert engine.store([key(1)], [data(1)]).is_successful()
    assert asked() == wanted
    for remove in (["FLUSHALL"], ["DEL", "{m}"]):
        with server.wire() as wire:
            wire(*remove)
        keys = [key(at) for at in range(2, 8)]
        payloads = [data(at, BIG) for at in range(2, 8)]
        assert engine.store(keys, payloads).is_successful()
        assert asked() == wanted
        assert engine.load(keys, [len(each) for each in payloads]) == payloads
    assert engine.adapter.report_status()["failed"] == 0
    engine.adapter.close()


def test_a_stored_chunk_has_the_checksum_of_all_its_pieces(server):
    """The extension computes it while it sends, part by part."""
    engine = Engine(port=server.port)
    sizes = [2, 5_000, 512 << 10, (512 << 10) + 2, BIG, 9_000_000]
    keys, payloads = [key(at) for at in range(len(sizes))], [data(at, size) for at, size in enumerate(sizes)]
    assert engine.store(keys, payloads).is_successful()
    with server.wire() as wire:
        for each, payload in zip(keys, payloads, strict=True):
            name = (each.chunk_hash + struct.pack(">QI", each.kv_rank, each.object_group_id)).hex()
            told = wire("KVCHUNK.GET", "{m}", name, "NOPAYLOAD")[0]
            assert dict(zip(told[::2], told[1::2], strict=True))[b"checksum"] == b"%08x" % zlib.crc32(payload)
    assert engine.load(keys, [len(each) for each in payloads]) == payloads
    engine.adapter.close()


def test_empty_batches_and_closed_adapters(engine):
    assert engine.store([], []) == 0
    assert engine.look_up([]) == []
    assert engine.load([], []) == []
    with pytest.raises(ValueError, match="2 keys and 1 objects"):
        engine.adapter.submit_load_task([key(1), key(2)], [Memory(1)])
    engine.adapter.close()
    engine.adapter.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.store([key(1)], [data(1)])


def test_what_a_look_up_did_not_find_is_stored_behind_what_it_found(server, engine):
    """LMCache stores the middle of a prompt without what is before it; its look-up told the order."""
    keys = [key(at) for at in range(12)]
    for first in range(0, 12, 3):
        engine.look_up(keys)
        engine.store(keys[first : first + 3], [data(at, 20_000) for at in range(first, first + 3)])
    name = "{m}"
    assert engine.look_up(keys) == [True] * 12
    with server.wire() as wire:
        assert wire("KVCHUNK.BUDGET", name, info(server, name)[b"bytes"] // 2) == 0, "a look-up holds what it found"
        wait_until(
            lambda: (engine.adapter.submit_unlock(keys), info(server, name)[b"leases"])[1] == 0, "all let go", 30
        )
        wire("KVCHUNK.BUDGET", name, info(server, name)[b"bytes"] // 2)
    there = engine.look_up(keys)
    assert 0 < sum(there) < 12
    assert there == sorted(there, reverse=True), "the end of the prompt went first"


def test_delete_and_usage_are_the_servers_and_apart_for_tenants(server, engine):
    keys = [key(at, salt=salt) for salt in ("", "a") for at in range(3)]
    engine.store(keys, [data(at) for at in range(6)])
    assert engine.adapter.get_usage() == stand_ins.AdapterUsage(30_000, 0, {"": 15_000, "a": 15_000})
    # Stored again it is not counted twice.
    engine.store(keys[:1], [data(0)])
    assert engine.adapter.get_usage().total_bytes_used == 30_000
    engine.adapter.delete([*keys[3:], key(77, salt="a")])
    assert engine.adapter.deleted == [(keys[3:], [5_000] * 3)]
    assert engine.adapter.get_usage().bytes_by_cache_salt == {"": 15_000}
    assert engine.look_up(keys) == [True] * 3 + [False] * 3


def test_full_memory_fails_a_store_and_nothing_else(fleet):
    server = fleet.launch(maxmemory="40mb", maxmemory_policy="noeviction", **{"llmcache.kv-share": 0})
    engine = Engine(port=server.port)
    fitted = 0
    while engine.store([key(fitted)], [data(fitted, 1 << 20)]).is_successful():
        fitted += 1
        assert fitted < 60, "the server was never full"
    assert fitted
    assert engine.load([key(0), key(fitted)], [1 << 20] * 2) == [data(0, 1 << 20), None]
    assert engine.adapter.report_status()["failed"]
    engine.adapter.close()


def test_a_budget_full_of_what_is_held_rejects(server):
    engine = Engine(port=server.port, budget=100_000, lease_ms=60_000)
    keys = [key(at) for at in range(3)]
    engine.store(keys, [data(at, 30_000) for at in range(3)])
    assert engine.look_up(keys) == [True] * 3
    assert not engine.store([key(9)], [data(9, 30_000)]).is_successful()
    assert engine.adapter.report_status()["rejected"] == 1
    engine.adapter.submit_unlock(keys)
    wait_until(lambda: engine.store([key(9)], [data(9, 30_000)]).is_successful(), "room was made", 30)
    engine.adapter.close()


def test_a_lease_ends_when_the_engine_that_took_it_is_gone(server):
    """A process that looks up and is killed: what it held may be evicted once its lease lapsed."""
    engine = Engine(port=server.port)
    engine.store([key(1)], [data(1)])
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import threading\n"
        "from llmcache._engine import Endpoint, Names, Options, open_store\n"
        "store = open_store(Endpoint(port=int(sys.argv[1])), Options(native=sys.argv[2] == 'True'))\n"
        "over = threading.Event()\n"
        "store.match([(['{m}'], Names([(1).to_bytes(32, 'big') + bytes(12)]))], lambda told: over.set(), lease_ms=1500)\n"
        "over.wait(); print('held', flush=True); threading.Event().wait()\n"
    )
    args = [sys.executable, "-c", program, str(server.port), str(Engine.native), str(HERE.parent / "src"), NATIVE]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    wait_until(lambda: info(server, "{m}")[b"leases"] == 0, "the lease lapsed", 60)
    engine.adapter.close()


@pytest.mark.parametrize("cut", [3, 60, 200, 5_200, 40_000, 700_000, 2_000_000])
def test_a_server_killed_in_the_midst_of_a_load_gives_no_byte_that_was_not_stored(fleet, cut):
    server = fleet.launch(save="")
    relay = Relay(server.port)
    engine = Engine(port=relay.port, connections=1, pause=0.01)
    keys, payloads = [key(at) for at in range(4)], [data(at, 5_000 if at % 2 else BIG) for at in range(4)]
    assert engine.store(keys, payloads).is_successful()
    relay.cut("server", cut, server.kill9)
    loaded = engine.load(keys, [len(each) for each in payloads])
    # A page that broke off is a miss; one that was whole before is what was stored.
    assert None in loaded
    assert all(each in (None, payload) for each, payload in zip(loaded, payloads, strict=True))
    assert engine.look_up(keys) == [False] * 4
    assert not engine.adapter.report_status()["is_healthy"] or engine.adapter.report_status()["failed"]
    # A new server has none of it, and takes it again.
    server.start()
    wait_until(lambda: engine.store(keys, payloads).is_successful(), "the server is back", 60)
    assert engine.load(keys, [len(each) for each in payloads]) == payloads
    assert info(server, "{m}")[b"durable"] == b"none", "made again with the settings"
    engine.adapter.close()
    relay.close()


@pytest.mark.parametrize("cut", [10, 300, 5_400, 900_000])
def test_a_client_cut_off_in_the_midst_of_a_store_leaves_whole_chunks_or_none(server, cut):
    relay = Relay(server.port)
    engine, other = Engine(port=relay.port, connections=1), Engine(port=server.port)
    keys, payloads = [key(at) for at in range(3)], [data(0), data(1, BIG), data(2)]
    assert engine.store([key(50)], [data(50)]).is_successful()
    relay.cut("client", cut)
    # Over a new connection it is stored after all; until then there is all of a chunk or nothing.
    assert engine.store(keys, payloads).is_successful()
    assert other.load(keys, [len(each) for each in payloads]) == payloads
    for each in (engine, other):
        each.adapter.close()
    relay.close()


@pytest.mark.parametrize("cut", [40, 5_300, 400_000, 1_500_000])
def test_a_server_killed_in_the_midst_of_a_store_has_whole_chunks_or_none_afterwards(fleet, cut):
    server = fleet.launch(appendonly="yes", appendfsync="always")
    relay = Relay(server.port)
    engine = Engine(port=relay.port, connections=1, pause=0.01, durable="FULL")
    kept, payloads = data(9), [data(0), data(1, BIG), data(2, BIG)]
    keys = [key(at) for at in range(3)]
    assert engine.store([key(9)], [kept]).is_successful()
    relay.cut("client", cut, server.kill9)
    assert not engine.store(keys, payloads).is_successful()
    server.start()
    wait_until(lambda: engine.look_up([key(9)]) == [True], "the server is back", 60)
    assert engine.load([key(9)], [len(kept)]) == [kept]
    loaded = engine.load(keys, [len(each) for each in payloads])
    assert all(each in (None, payload) for each, payload in zip(loaded, payloads, strict=True))
    assert loaded[-1] is None, "what was not sent whole is not there"
    engine.adapter.close()
    relay.close()


def test_an_engine_killed_in_the_midst_of_loading_leaves_the_server_as_it_was(server):
    engine = Engine(port=server.port)
    keys, payloads = [key(at) for at in range(8)], [data(at, BIG) for at in range(8)]
    assert engine.store(keys, payloads).is_successful()
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import threading\n"
        "from llmcache._engine import Endpoint, Names, Options, open_store\n"
        "store = open_store(Endpoint(port=int(sys.argv[1])), Options(native=sys.argv[2] == 'True'))\n"
        "into = [(at.to_bytes(32, 'big') + bytes(12), memoryview(bytearray(1_060_920))) for at in range(8)]\n"
        "print('begun', flush=True)\n"
        "while True:\n"
        "    over = threading.Event()\n"
        "    store.load('{m}', into, lambda told: over.set())\n"
        "    over.wait()\n"
    )
    before = calls(server, "kvchunk.fetch")
    args = [sys.executable, "-c", program, str(server.port), str(Engine.native), str(HERE.parent / "src"), NATIVE]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        wait_until(lambda: calls(server, "kvchunk.fetch") > before, "it loads", 60)
        process.kill()
    assert engine.look_up(keys) == [True] * 8
    assert engine.load(keys, [len(each) for each in payloads]) == payloads
    engine.adapter.close()


def test_an_engine_killed_in_the_midst_of_storing_leaves_whole_chunks_or_none(server):
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import threading\n"
        "from llmcache._engine import Endpoint, Names, Options, open_store\n"
        "store = open_store(Endpoint(port=int(sys.argv[1])), Options(native=sys.argv[2] == 'True'))\n"
        "for at in range(10_000):\n"
        "    over, pair = threading.Event(), bytes([at % 251 + 1, at % 13])\n"
        "    store.put('{m}', [(at.to_bytes(32, 'big') + bytes(12), memoryview(pair * 200_000))], lambda told: over.set())\n"
        "    over.wait()\n"
        "    if at == 5: print('begun', flush=True)\n"
    )
    args = [sys.executable, "-c", program, str(server.port), str(Engine.native), str(HERE.parent / "src"), NATIVE]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
    engine = Engine(port=server.port)
    keys = [key(at) for at in range(200)]
    there = engine.look_up(keys)
    count = sum(there)
    assert count >= 6
    assert there == [True] * count + [False] * (200 - count)
    assert engine.load(keys[:count], [400_000] * count) == [data(at, 400_000) for at in range(count)]
    engine.adapter.close()


def test_a_server_that_is_not_there_is_a_miss_and_no_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    engine = Engine(port=port, pause=60)
    assert engine.look_up([key(1)]) == [False]
    assert not engine.store([key(1)], [data(1)]).is_successful()
    assert engine.load([key(1)], [5_000]) == [None]
    engine.adapter.delete([key(1)])
    assert engine.adapter.get_usage().total_bytes_used == -1, "what was counted here"
    status = engine.adapter.report_status()
    assert (status["is_healthy"], status["tasks"]) == (False, 0)
    engine.adapter.close()


def test_a_server_that_ends_each_connection_is_tried_once_a_pause():
    pause = 0.3
    with socket.create_server(("127.0.0.1", 0)) as rude:
        accepted = []

        def serve():
            while True:
                try:
                    connection, _ = rude.accept()
                except OSError:
                    return
                accepted.append(connection.close())

        threading.Thread(target=serve, daemon=True).start()
        begun = time.monotonic()
        engine = Engine(port=rude.getsockname()[1], password="x", pause=pause)
        asked = 0
        while len(accepted) < 4:
            assert engine.look_up([key(1)]) == [False]
            asked += 1
            assert time.monotonic() < begun + 60
        assert len(accepted) <= 1 + (time.monotonic() - begun) / pause, "each a pause after the one before"
        assert asked >= 4
        engine.adapter.close()
        rude.shutdown(socket.SHUT_RDWR)


def test_pages_to_a_far_server_are_asked_for_before_those_before_them_came(server):
    """The extension has several under way on a connection; Python has one, and as many as it has connections."""
    relay = Relay(server.port, delay=0.005, word=b"KVCHUNK.FETCH")
    engine = Engine(port=relay.port, connections=1, page_bytes=10_000, timeout=60)
    keys, payloads = [key(at) for at in range(12)], [data(at, 10_000) for at in range(12)]
    assert engine.store(keys, payloads).is_successful()
    relay.gate.clear()
    loaded = []
    helper = threading.Thread(target=lambda: loaded.extend(engine.load(keys, [10_000] * 12)))
    helper.start()
    under_way = 4 if Engine.native else 1
    wait_until(lambda: relay.seen == under_way, "as many are asked for", 30)
    relay.gate.set()
    helper.join()
    assert loaded == payloads
    assert relay.seen == 12
    engine.adapter.close()
    relay.close()


@pytest.mark.parametrize("cut", [100, 15_000, 35_000])
def test_pages_under_way_when_a_far_connection_breaks_are_asked_for_again(server, cut):
    relay = Relay(server.port, delay=0.005, word=b"KVCHUNK.FETCH")
    engine = Engine(port=relay.port, connections=1, page_bytes=10_000, timeout=60)
    keys, payloads = [key(at) for at in range(12)], [data(at, 10_000) for at in range(12)]
    assert engine.store(keys, payloads).is_successful()
    before = relay.connections
    relay.cut("server", cut)
    assert engine.load(keys, [10_000] * 12) == payloads
    assert relay.connections == before + 1
    engine.adapter.close()
    relay.close()


LONG = (9 << 20) + 10


def test_the_next_part_of_a_long_chunk_that_is_far_is_asked_for_before_one_came(server):
    relay = Relay(server.port, delay=0.001, word=b"KVCHUNK.FETCH")
    engine = Engine(port=relay.port, connections=1, timeout=60)
    keys, payloads = [key(at) for at in range(3)], [data(0, LONG), data(1), data(2, LONG)]
    assert engine.store(keys, payloads).is_successful()
    relay.gate.clear()
    loaded = []
    helper = threading.Thread(target=lambda: loaded.extend(engine.load(keys, [len(each) for each in payloads])))
    helper.start()
    wait_until(lambda: relay.seen == (2 if Engine.native else 1), "as many are asked for", 30)
    relay.gate.set()
    helper.join()
    assert loaded == payloads
    engine.adapter.close()
    relay.close()


@pytest.mark.parametrize("cut", [100, 1_500_000, 2_500_000, 8_000_000, LONG + 1_000])
def test_parts_under_way_when_a_far_connection_breaks_are_asked_for_again(server, cut):
    relay = Relay(server.port, delay=0.001, word=b"KVCHUNK.FETCH")
    engine = Engine(port=relay.port, connections=1, timeout=60)
    keys, payloads = [key(at) for at in range(2)], [data(at, LONG) for at in range(2)]
    assert engine.store(keys, payloads).is_successful()
    before = relay.connections
    relay.cut("server", cut)
    assert engine.load(keys, [LONG] * 2) == payloads
    assert relay.connections == before + 1
    engine.adapter.close()
    relay.close()


def test_a_long_chunk_that_is_far_and_not_what_was_wanted_leaves_the_answers_of_others_alone(server):
    """Of its parts one is answered and one more is to come."""
    relay = Relay(server.port, delay=0.001, word=b"KVCHUNK.FETCH")
    engine = Engine(port=relay.port, connections=1, timeout=60)
    keys = [key(at) for at in range(5)]
    kept = [data(0, LONG), data(1, LONG), data(2, LONG), data(4)]
    assert engine.store([keys[0], keys[1], keys[2], keys[4]], kept).is_successful()
    assert flip_in_memory(server.pid, data(1, LONG)[:64]) >= 1
    # Of another size, damaged, as it was, not there, and one that is short.
    loaded = engine.load(keys, [LONG + 2, LONG, LONG, LONG, 5_000])
    assert loaded == [None, None, data(2, LONG), None, data(4)]
    # A server that sends one part at a time is waited for.
    server.client().config_set("llmcache.kv-in-flight", 1 << 20)
    assert engine.load([keys[2]], [LONG]) == [data(2, LONG)]
    engine.adapter.close()
    relay.close()


def test_a_server_that_holds_its_tongue_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = Engine(port=silent.getsockname()[1], timeout=0.2)
        assert engine.look_up([key(1)]) == [False]
        assert engine.load([key(1)], [5_000]) == [None]
        engine.adapter.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"*4\r\n:1\r\n:1\r\n:1\r\n$x\r\n",
        b"+OK\r\n",
        b"$5\r\nabcdefgh",
        b"*2\r\n*-1\r\n:1\r\n",
        b"x" * 70_000,
    ],
)
def test_answers_that_are_none_are_misses(answer):
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def serve():
            while True:
                try:
                    connection, _ = odd.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        engine = Engine(port=odd.getsockname()[1], timeout=5, pause=0.01)
        assert engine.load([key(1)], [5_000]) == [None]
        assert engine.look_up([key(1)]) == [False]
        engine.adapter.close()
        odd.shutdown(socket.SHUT_RDWR)


def test_bytes_that_went_bad_in_the_server_are_a_miss_and_take_none_along(server, engine, native):
    keys, payloads = [key(at) for at in range(4)], [os.urandom(50_000) for _ in range(4)]
    engine.store(keys, payloads)
    if native:
        # Compared here at each load; the server compares at the first, and after a minute.
        assert engine.load(keys, [50_000] * 4) == payloads
    assert flip_in_memory(server.pid, payloads[1][20_000:20_064]) >= 1
    assert engine.load(keys, [50_000] * 4) == [payloads[0], None, *payloads[2:]]
    wait_until(lambda: info(server, "{m}")[b"chunks"] == 3, "the damaged chunk is removed")
    engine.store(keys[1:2], payloads[1:2])
    assert engine.load(keys, [50_000] * 4) == payloads


@contextlib.contextmanager
def stood_in(answer):
    """A server of one connection, whose FETCH is answered what `answer` says to its words."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                while head := lines.readline():
                    words = []
                    for _ in range(int(head[1:])):
                        length = int(lines.readline()[1:])
                        words.append(lines.read(length + 2)[:-2])
                    is_fetch = words[0] == b"KVCHUNK.FETCH"
                    connection.sendall(b"".join(answer(words)) if is_fetch else b"+PONG\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(60)


def test_bytes_that_went_bad_on_their_way_are_asked_for_again(native):
    """Of two chunks the second: the first is not loaded twice."""
    asked, payloads = [], [data(1), data(2)]
    names = [key(at).chunk_hash + bytes(12) for at in (1, 2)]

    def reply(some, is_summed):
        yield b"*4\r\n:2\r\n:2\r\n:2\r\n*%d\r\n" % len(some)
        for at in some:
            bytes_ = payloads[at] if at == 0 or not is_summed else b"?" + payloads[at][1:]
            yield b"*%d\r\n$%d\r\n%s\r\n$-1\r\n" % (4 + is_summed, 2 * len(names[at]), names[at].hex().encode())
            yield b":%d\r\n*1\r\n$%d\r\n%s\r\n" % (len(bytes_), len(bytes_), bytes_)
            yield b"$8\r\n%08x\r\n" % zlib.crc32(payloads[at]) if is_summed else b""

    def answer(words):
        asked.append(([at for at, name in enumerate(names) if name in words], b"CHECKSUMS" in words))
        return reply(*asked[-1])

    with stood_in(answer) as port:
        engine = Engine(port=port, connections=1)
        assert engine.load([key(1), key(2)], [5_000] * 2) == payloads
        engine.adapter.close()
    assert asked == ([([0, 1], True), ([1], False)] if native else [([0, 1], False)])


def test_parts_of_two_versions_of_a_chunk_are_never_one(native):
    old, new, asked = data(1, BIG - 1), data(2, BIG - 1), []
    name = key(1).chunk_hash + bytes(12)

    def reply(words):
        start, length = 0, len(new)
        if b"RANGE" in words:
            at = words.index(b"RANGE")
            start, length = int(words[at + 1]), int(words[at + 2])
        asked.append(length)
        # Stored anew behind the first part.
        some = (old if len(asked) == 1 else new)[start : start + length]
        is_summed = b"CHECKSUMS" in words
        yield b"*4\r\n:1\r\n:1\r\n:1\r\n*1\r\n*%d\r\n$%d\r\n" % (4 + is_summed, 2 * len(name))
        yield b"%s\r\n$-1\r\n:%d\r\n*1\r\n$%d\r\n%s\r\n" % (name.hex().encode(), len(new), len(some), some)
        yield b"$8\r\n%08x\r\n" % zlib.crc32(new) if is_summed else b""

    with stood_in(reply) as port:
        engine = Engine(port=port, connections=1)
        assert engine.load([key(1)], [len(new)]) == [new if native else old]
        engine.adapter.close()
    assert asked == ([512 << 10, 512 << 10, len(new) - (1 << 20), len(new)] if native else [len(new)])


def test_chunks_without_checksums_are_loaded_too(server):
    engine = Engine(port=server.port, checksum=False)
    keys, payloads = [key(at) for at in range(3)], [data(at, BIG) for at in range(3)]
    engine.store(keys, payloads)
    for _ in range(2):
        assert engine.load(keys, [len(each) for each in payloads]) == payloads
    engine.adapter.close()


def test_an_acl_user_and_one_that_may_not(server, monkeypatch):
    with server.wire() as wire:
        allowed = ["+kvchunk.match", "+kvchunk.fetch", "+kvchunk.mput", "+kvchunk.create", "+kvchunk.release"]
        assert wire("ACL", "SETUSER", "engine", "on", ">secret", "~{m*}*", *allowed) == "OK"
    monkeypatch.setenv("ENGINE_PASSWORD", "secret")
    engine = Engine(url=f"redis://engine@127.0.0.1:{server.port}/0", password_env="ENGINE_PASSWORD")
    assert engine.store([key(1)], [data(1)]).is_successful()
    assert engine.look_up([key(1)]) == [True]
    assert not engine.store([key(1, model="other")], [data(1)]).is_successful()
    assert engine.load([key(1, model="other"), key(1)], [5_000] * 2) == [None, data(1)]
    engine.adapter.close()
    for params in ({"username": "engine", "password": "wrong"}, {"username": "nobody", "password": "secret"}):
        wrong = Engine(port=server.port, pause=0.01, **params)
        assert wrong.look_up([key(1)]) == [False]
        wrong.adapter.close()
    with server.wire() as wire:
        assert wire("ACL", "DELUSER", "engine") == 1


def test_tls_with_a_certificate_that_is_checked(server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "localhost.pem")
    relay = Relay(server.port, context)
    # Python speaks it whatever is installed.
    engine = Engine(url=f"rediss://localhost:{relay.port}", ca_file=str(HERE / "localhost.pem"), native=None)
    assert not engine.adapter.report_status()["native"]
    payloads = [data(1), data(2, BIG)]
    assert engine.store([key(1), key(2)], payloads).is_successful()
    assert engine.load([key(1), key(2)], [len(each) for each in payloads]) == payloads
    engine.adapter.close()
    unknown = Engine(url=f"rediss://localhost:{relay.port}", pause=0.01, native=None)
    assert unknown.look_up([key(1)]) == [False], "a certificate that nobody vouches for"
    unknown.adapter.close()
    relay.close()


def test_a_unix_socket_and_another_database(fleet, tmp_path):
    server = fleet.launch(unixsocket=str(tmp_path / "s"))
    engine = Engine(url=f"unix://{tmp_path / 's'}?db=3")
    assert engine.store([key(1)], [data(1, BIG)]).is_successful()
    assert engine.load([key(1)], [len(data(1, BIG))]) == [data(1, BIG)]
    assert set(server.client().info("keyspace")) == {"db3"}
    engine.adapter.close()


def test_pages_are_as_long_as_their_bytes_and_in_order(server):
    engine = Engine(port=server.port, page_bytes=1 << 20, connections=3)
    keys = [key(at) for at in range(40)]
    payloads = [data(at, 300_000 if at % 3 else 5_000) for at in range(40)]
    assert engine.store(keys, payloads).is_successful()
    assert calls(server, "kvchunk.mput") > 5
    assert engine.load(keys[::-1], [len(each) for each in payloads[::-1]]) == payloads[::-1]
    # Chunks that are longer than the buffers for them cut pages short, not off.
    assert engine.load(keys, [5_000] * 40) == [None if at % 3 else payloads[at] for at in range(40)]
    engine.adapter.close()


def test_a_server_with_too_many_bytes_under_way_is_asked_again(fleet):
    server = fleet.launch()
    engine = Engine(port=server.port)
    engine.store([key(1)], [data(1, BIG)])
    with server.wire() as wire, server.wire() as slow:
        assert wire("CONFIG", "SET", "llmcache.kv-in-flight", 1) == "OK"
        name = (1).to_bytes(32, "big") + bytes(12)
        slow.send("KVCHUNK.FETCH", "{m}", "HASHES", 1, name)
        tried = calls(server, "kvchunk.fetch")

        def let_through():
            wait_until(lambda: calls(server, "kvchunk.fetch") >= tried + 3, "it asks again", 30)
            wire("CONFIG", "SET", "llmcache.kv-in-flight", 1 << 30)

        helper = threading.Thread(target=let_through)
        helper.start()
        loaded = engine.load([key(1)], [len(data(1, BIG))])
        helper.join()
        assert loaded == [data(1, BIG)]
    engine.adapter.close()


def test_parameters_that_are_wrong_are_named():
    for params, why in (
        ({"prot": 1}, "unknown adapter_params"), ({"url": "http://x"}, "no redis://"), ({"durable": "half"}, "durable is"),
        ({"connections": 0}, "connections is"), ({"lease_ms": "x"}, "lease_ms is"), ({"timeout": 0}, "timeout"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            LLMCacheL2AdapterConfig.from_dict(params)
    config = LLMCacheL2AdapterConfig.from_dict(
        {"url": "rediss://u:p%40@h:1/2", "ttl": 5, "prefix": "x:", "max_capacity_gb": 1}
    )
    assert config.endpoint == Endpoint(host="h", port=1, db=2, username="u", password="p@", tls=True)
    assert (config.options.ttl, config.prefix, config.options.form) == (5, "x:", "lmcache")
    assert "p@" not in repr(config.endpoint)
    assert password_of({}) == ""


def test_chunks_expire_where_a_ttl_says_so(server):
    engine = Engine(port=server.port, ttl=1_000, prefix="x:")
    engine.store([key(1)], [data(1)])
    with server.client() as client:
        (name,) = (each for each in client.keys("*") if client.type(each) == b"llm-kvchk")
        assert 0 < client.ttl(name) <= 1_000
        assert name.startswith(b"x:{m}") or b"{m}" in name
    engine.adapter.close()


# SGLang.


class Pool:
    """Host memory of pages with so many buffers each."""

    page_size = 4

    def __init__(self, pages: int, sizes: tuple[int, ...]):
        self.sizes = sizes
        self.pages = [[bytearray(size) for size in sizes] for _ in range(pages)]

    def get_page_buffer_meta(self, indices):
        import ctypes

        found = [buffer for at in indices[:: self.page_size] for buffer in self.pages[at // self.page_size]]
        return [ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in found], [
            len(buffer) for buffer in found
        ]

    def fill(self):
        for at, page in enumerate(self.pages):
            for part, buffer in enumerate(page):
                buffer[:] = bytes([at + 1, part + 1]) * (len(buffer) // 2)


def indices(pages):
    return [page * Pool.page_size + at for page in pages for at in range(Pool.page_size)]


def hexes(count, first=0):
    return [f"{at:064x}" for at in range(first, first + count)]


@pytest.fixture
def hicache(server):
    made = []

    def make(pool, **config):
        storage = LLMCacheHiCacheStorage(
            StorageConfig(
                extra_config={"url": f"redis://127.0.0.1:{server.port}", "unheard": 1, "native": Engine.native},
                **config,
            ),
            {},
        )
        storage.register_mem_pool_host(pool)
        made.append(storage)
        return storage

    yield make
    for storage in made:
        storage.close()


@pytest.mark.parametrize("sizes", [(70_000, 70_000), (4_000,), (500,) * 64, (BIG - 1, 100_000)])
def test_pages_go_out_of_host_memory_and_back(hicache, sizes):
    source, target = Pool(6, sizes), Pool(6, sizes)
    source.fill()
    writer, reader = hicache(source), hicache(target)
    keys = hexes(6)
    assert writer.batch_set_v1(keys[:4], indices(range(4))) == [True] * 4
    assert reader.batch_exists(keys) == 4
    assert reader.exists(keys[3])
    assert not reader.exists(keys[4])
    assert reader.batch_get_v1(keys[:5], indices(range(5))) == [True] * 4 + [False]
    assert target.pages[:4] == source.pages[:4]
    assert reader.batch_get_v1(keys[:1], indices([5])) == [True]
    assert target.pages[5] == source.pages[0]


def test_other_ranks_layouts_and_models_have_pages_of_their_own(hicache):
    pool = Pool(1, (4_000, 4_000))
    one = hicache(pool, tp_size=2)
    assert one.batch_set_v1(hexes(1), indices([0])) == [True]
    for config in ({"tp_rank": 1, "tp_size": 2}, {"tp_size": 4}, {"tp_size": 2, "model_name": "n"}, {"tp_size": 2, "pp_size": 2},
                   {"tp_size": 2, "is_page_first_layout": False}, {"tp_size": 2, "attn_cp_size": 2}):  # fmt: skip
        assert hicache(pool, **config).batch_exists(hexes(1)) == 0, config
    # Ranks of MLA hold the same.
    assert hicache(pool, is_mla_model=True, tp_size=2).batch_set_v1(hexes(1), indices([0])) == [True]
    assert hicache(pool, is_mla_model=True, tp_size=2, tp_rank=1).batch_exists(hexes(1)) == 1


def test_pools_beside_the_kv_cache_shorten_the_prefix_as_their_policy_says(server, hicache):
    kv, state, index = Pool(8, (4_000,)), Pool(8, (600,)), Pool(8, (300,))
    storage = hicache(kv)
    for pool in (kv, state, index):
        pool.fill()
    storage.register_mem_host_pool_v2(state, PoolName.MAMBA)
    storage.register_mem_host_pool_v2(index, PoolName.INDEXER)
    keys = hexes(8)

    def transfer(name, pages, **more):
        return PoolTransfer(name, indices(pages), [keys[at] for at in pages], **more)

    told = storage.batch_set_v2(
        [transfer(PoolName.KV, range(7)), transfer(PoolName.MAMBA, [2, 3, 5]), transfer(PoolName.INDEXER, range(6))]
    )
    assert told == {PoolName.KV: [True] * 7, PoolName.MAMBA: [True] * 3, PoolName.INDEXER: [True] * 6}
    trailing = PoolTransfer(PoolName.MAMBA, keys=keys[:2], hit_policy=PoolHitPolicy.TRAILING_PAGES)
    every, never = PoolTransfer(PoolName.INDEXER), PoolTransfer(PoolName.INDEXER, hit_policy=PoolHitPolicy.BLOCK_GROUPS)
    before = calls(server, "kvchunk.match")
    for transfers, wanted in (
        ([], (7, {PoolName.KV: 7})),
        ([every], (6, {PoolName.KV: 7, PoolName.INDEXER: 6})),
        ([trailing], (4, {PoolName.KV: 7, PoolName.MAMBA: 4})),
        ([never], (7, {PoolName.KV: 7})),
    ):
        result = storage.batch_exists_v2(keys, transfers)
        assert (result.kv_hit_pages, result.extra_pool_hit_pages) == wanted
    assert calls(server, "kvchunk.match") == before + 4, "one trip for all pools"
    for page in state.pages:
        page[0][:] = bytes(600)
    got = storage.batch_get_v2([transfer(PoolName.MAMBA, [1, 2, 3])])
    assert got == {PoolName.MAMBA: [False, True, True]}
    assert [bytes(state.pages[at][0][:2]) for at in (1, 2, 3)] == [bytes(2), b"\x03\x01", b"\x04\x01"]
    storage.clear()
    wait_until(lambda: storage.batch_exists(keys) == 0, "all of it went", 30)


def test_single_values_and_what_is_no_key(hicache):
    storage = hicache(Pool(1, (4_000,)))
    value, target = bytearray(b"ab" * 500), bytearray(1_000)
    assert storage.set("not hex", value)
    assert storage.get("not hex", target) is target
    assert target == value
    assert storage.get("absent", target) is None
    assert storage.get("not hex") is None
    assert storage.batch_set(["k1", "k2"], [b"12", b"34"])
    assert storage.batch_get(["k1", "k3"], [bytearray(2), bytearray(2)]) == [bytearray(b"12"), None]
    assert storage.batch_get(["k1"]) == [None]
    assert not storage.set("k4")
    with pytest.raises(ValueError, match="cannot name"):
        storage.exists("x" * 65)
    assert storage.batch_exists([]) == 0


def test_pages_behind_a_known_prefix_are_evicted_before_it(server, hicache):
    pool = Pool(8, (20_000,))
    storage, keys = hicache(pool), hexes(8)
    for at in range(8):
        extra = ExtraInfo(keys[:at])
        assert storage.batch_set_v1([keys[at]], indices([at]), extra) == [True]
    name = "{org/m}@tp0of1@pp0of1@pages"
    with server.wire() as wire:
        wire("KVCHUNK.BUDGET", name, info(server, name)[b"bytes"] // 2)
    count = storage.batch_exists(keys)
    assert 0 < count < 8
    assert [storage.exists(each) for each in keys] == [True] * count + [False] * (8 - count)


# The wire.


def test_commands_and_replies_of_every_form(server):
    wire = Wire(Endpoint(port=server.port, timeout=20))
    wire.connect()
    assert wire.call(["SET", "k", memoryview(b"v" * 70_000)]) == b"OK"
    assert wire.call(["GET", "k"]) == b"v" * 70_000
    assert wire.call(["GET", "no"]) is None
    assert wire.call(["MGET", "no", "k"])[0] is None
    with pytest.raises(ReplyError) as told:
        wire.call(["INCR", "k"])
    assert told.value.word == "ERR"
    wire.close()
    assert b"".join(encode(["A", 1, b"x"])) == b"*3\r\n$1\r\nA\r\n$1\r\n1\r\n$1\r\nx\r\n"


def test_a_store_that_is_closed_answers_misses(server):
    store = open_store(Endpoint(port=server.port), Options(connections=1, native=Engine.native))
    store.close()
    told = []
    store.put("ns", [(b"a", memoryview(b"x"))], told.append)
    store.load("ns", [(b"a", memoryview(bytearray(1)))], told.append)
    store.match([(["ns"], Names([b"a"]))], told.append)
    assert told[:2] == [[False], [False]]
    assert not told[2][0][0].there[0]
    assert store.call(["PING"]) is None


def test_names_are_packed_where_they_have_one_length(server):
    store = open_store(Endpoint(port=server.port), Options(connections=1, native=Engine.native))
    hashes = [bytes([at]) * 16 for at in range(3)]
    names = store.slices(hashes, [7, 8, 1 << 40], [0, 1, 2])
    listed = [
        each + struct.pack(">QI", rank, at) for at, (each, rank) in enumerate(zip(hashes, [7, 8, 1 << 40], strict=True))
    ]
    assert len(names) == 3
    assert list(names.listed) == listed
    assert names.words() == ["PACKED", 28, b"".join(listed)]
    # 1 and 3 bytes are as many as 2 and 2, but no names of one length.
    several = store.slices([b"a", b"abc"], [0, 0], [0, 0])
    assert several.words() == ["HASHES", 2, b"a" + bytes(12), b"abc" + bytes(12)]
    assert Names([b"a", b"abc", b"ab"]).words()[0] == "HASHES"
    assert len(store.slices([], [], [])) == 0
    store.close()


def test_look_ups_at_once_are_each_told_their_own_answer(server, engine):
    """Many under way over one connection, of which each has something else: answers are told in the order of commands."""
    engine.store([key(at) for at in range(64)], [data(at) for at in range(64)])
    tasks = {}
    for at in range(64):
        keys = [key(at), key(1_000 + at), key((at + 1) % 64)]
        tasks[engine.adapter.submit_lookup_and_lock_task(keys, {})] = at
    for task in tasks:
        bits = engine._wait(
            engine.adapter.get_lookup_and_lock_event_fd(),
            lambda task=task: engine.adapter.query_lookup_and_lock_result(task),
        )
        assert bits.all() == [True, False, True]
    assert engine.adapter.report_status()["locked_key_count"] == 64
    engine.adapter.submit_unlock([key(at) for at in range(64)] * 2)
    assert engine.adapter.report_status()["locked_key_count"] == 0
    wait_until(lambda: info(server, "{m}")[b"leases"] == 0, "all leases were released")


def test_look_ups_under_way_when_a_connection_breaks_are_asked_again(server):
    """What was sent over a connection that broke, and what waits behind it, is asked over the next, once and in order."""
    relay = Relay(server.port, word=b"KVCHUNK.MATCH")
    engine = Engine(port=relay.port, connections=1, timeout=60)
    there = range(0, 40, 2)
    engine.store([key(at) for at in there], [data(at) for at in there])
    engine.look_up([key(0)])
    relay.gate.clear()
    tasks = [engine.adapter.submit_lookup_and_lock_task([key(at)], {}) for at in range(40)]
    # The extension sends them all ahead, Python one.
    wait_until(lambda: relay.seen == 1 + (40 if Engine.native else 1), "as many are asked", 30)
    relay.drop()
    relay.gate.set()
    for at, task in enumerate(tasks):
        bits = engine._wait(
            engine.adapter.get_lookup_and_lock_event_fd(),
            lambda task=task: engine.adapter.query_lookup_and_lock_result(task),
        )
        assert bits.all() == [at % 2 == 0], at
    engine.adapter.close()
    relay.close()
