"""A long text that several threads embed together: equal bits, whoever helps, and nothing left behind by who leaves."""

from __future__ import annotations

import random

import pytest
from harness.model import models_option, write_model
from harness.waiting import wait_until
from harness.wire import Failure

PIECES = ["ab", "cd", "ef", "gh", "mn", "op", "pq"]


def words(number: int, count: int = 58) -> str:
    """A text of its own of so many words, two tokens fewer than it has."""
    chosen = random.Random(number)
    return " ".join(chosen.choice(PIECES) for _ in range(count))


@pytest.fixture(scope="module")
def option(tmp_path_factory):
    small = write_model(tmp_path_factory.mktemp("models") / "small", threshold=0.8)
    return {"llmcache.embed-models": models_option(small=small), "llmcache.embed-memo": 0, "llmcache.embed-timeout-ms": 60_000}


@pytest.fixture
def launch(fleet, option):
    def launched(**more):
        server = fleet.launch(**option, **{f"llmcache.embed-{name.replace('_', '-')}": value for name, value in more.items()})
        server.client().execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small")
        return server

    return launched


def vector(server, text: str) -> bytes:
    return server.client().execute_command("EMBCACHE.GET", "emb", "TEXT", text)


def counted(server, name: str) -> int:
    return int(server.info("llmcache")[f"llmcache_{name}"])


def rests(server) -> None:
    wait_until(lambda: counted(server, "texts_queued") == 0, "no text waits")


@pytest.mark.parametrize("engine", ["scalar", ""], ids=["scalar", "best"])
def test_the_vector_is_that_of_one_thread(launch, engine):
    lengths = [5, 30, 31, 46, 62]
    alone = launch(threads=1, engine=engine)
    wanted = [vector(alone, words(count, count)) for count in lengths]
    assert counted(alone, "texts_shared") == 0
    for threads in (2, 3):
        together = launch(threads=threads, engine=engine)
        assert [vector(together, words(count, count)) for count in lengths] == wanted
        # Two more tokens than words: the shortest has fewer than are shared.
        assert counted(together, "texts_shared") == len(lengths) - 1
    together.client().config_set("llmcache.embed-share-tokens", 48)
    assert [vector(together, words(count, count)) for count in lengths] == wanted
    assert counted(together, "texts_shared") == len(lengths) - 1 + 2
    for setting in ({"llmcache.embed-share-tokens": 0}, {"llmcache.embed-share-tokens": 1, "llmcache.embed-threads": 1}):
        before = counted(together, "texts_shared")
        for name, value in setting.items():
            together.client().config_set(name, value)
        assert [vector(together, words(count, count)) for count in lengths] == wanted
        assert counted(together, "texts_shared") == before


def test_in_a_crowd_each_has_the_vector_it_has_alone(launch):
    alone, together = launch(threads=1), launch(threads=3)
    texts = [words(number) for number in range(400)]
    wanted = [vector(alone, text) for text in texts]
    wires = [together.wire(timeout=60) for _ in range(20)]
    for start in range(0, len(texts), len(wires)):
        part = list(zip(wires, texts[start : start + len(wires)], strict=True))
        for wire, text in part:
            wire.send("EMBCACHE.GET", "emb", "TEXT", text)
        assert [wire.read() for wire, _ in part] == wanted[start : start + len(wires)]
    assert counted(together, "texts_embedded") == len(texts)
    rests(together)


@pytest.mark.parametrize("how", ["close", "kill", "unblock", "flush", "drop", "swap"])
def test_who_leaves_leaves_nothing(launch, how):
    server = launch(threads=3, engine="scalar")
    client, wanted = server.client(), vector(server, words(1))
    for number in range(60):
        with server.wire(timeout=60) as wire:
            number_of = wire("CLIENT", "ID")
            wire.send("EMBCACHE.GET", "emb", "TEXT", words(1_000 + number))
            match how:
                case "kill":
                    client.execute_command("CLIENT", "KILL", "ID", number_of)
                case "unblock":
                    client.client_unblock(number_of)
                    wire.read()
                case "flush":
                    client.flushall()
                    wire.read()
                case "drop":
                    client.execute_command("DEL", "emb")
                    wire.read()
                case "swap":
                    client.swapdb(0, 1)
                    wire.read()
        if how in ("flush", "drop", "swap"):
            client.flushall()
            assert not isinstance(client.execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small"), Failure)
    rests(server)
    assert vector(server, words(1)) == wanted
    assert counted(server, "texts_shared") > 0


def test_the_server_stops_while_threads_share_a_text(launch):
    server = launch(threads=3, engine="scalar")
    wires = [server.wire(timeout=60) for _ in range(3)]
    for number, wire in enumerate(wires):
        wire.send("EMBCACHE.FETCH", "emb", "TEXT", words(number))
    server.stop()
    server.check_log()
    for wire in wires:
        wire.close()
