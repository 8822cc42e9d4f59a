"""A text that several threads embed together: equal bits, whoever helps, and nothing left behind by who leaves or by
what happens to the server meanwhile."""

from __future__ import annotations

import contextlib
import random

import pytest
from harness.by_text import CACHE, CHAT, DOCS, KEPT, effects, fill, reads, shape, word, writes
from harness.cluster import Cluster
from harness.model import models_option, write_model
from harness.names import key_slot
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure, encode

PIECES = ["ab", "cd", "ef", "gh", "mn", "op", "pq"]


def words(number: int, count: int = 58) -> str:
    """A text of its own of so many words, two tokens fewer than it has."""
    chosen = random.Random(number)
    return " ".join(chosen.choice(PIECES) for _ in range(count))


@pytest.fixture(scope="module")
def option(tmp_path_factory):
    small = write_model(tmp_path_factory.mktemp("models") / "small", threshold=0.8)
    return {
        "llmcache.embed-models": models_option(small=small),
        "llmcache.embed-memo": 0,
        "llmcache.embed-timeout-ms": 60_000,
    }


@pytest.fixture
def launch(fleet, option):
    def launched(**more):
        server = fleet.launch(
            **option,
            **{f"llmcache.embed-{name.replace('_', '-')}": value for name, value in more.items()},
        )
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
    lengths = [5, 6, 10, 20, 30, 31, 46, 62]
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
    for setting in (
        {"llmcache.embed-share-tokens": 0},
        {"llmcache.embed-share-tokens": 1, "llmcache.embed-threads": 1},
    ):
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
            assert not isinstance(
                client.execute_command("EMBCACHE.CREATE", "emb", "EMBED", "small"),
                Failure,
            )
    rests(server)
    assert vector(server, words(1)) == wanted
    assert counted(server, "texts_shared") > 0


# What happens to the server while a text is shared. Commands of two connections that come while it sleeps are run one
# after the other when it wakes: between them it takes nothing from its threads, so the text is on its way, however quick they are.

# Parts of the first are columns, of the second rows.
SHORT, LONG = words(1, 12), words(2, 60)


def changing(text):
    return {
        **writes(text),
        "APPEND": ("SESSION.APPEND", CHAT, "MSG", "user", text),
        "SET": ("EMBCACHE.SET", KEPT, "TEXT", text),
        "KEEP": ("EMBCACHE.FETCH", KEPT, "TEXT", text),
    }


def every(text):
    return {**changing(text), **reads(text), "GET": ("EMBCACHE.GET", KEPT, "TEXT", text)}


WRITES, ALL = list(changing(SHORT)), list(every(SHORT))
TEXTS = pytest.mark.parametrize("text", [SHORT, LONG], ids=["short", "long"])
# How often it is tried again where the second came too late for the server's sleep.
TRIES = 20


@pytest.fixture
def options(option):
    return {**option, "llmcache.embed-threads": 3, "llmcache.embed-engine": "scalar"}


def prepare(server):
    with server.wire() as wire:
        wire("FLUSHALL")
        fill(wire, words(3, 3))


def is_shared(info, before: int) -> bool:
    """Whether INFO, as it came, tells of one text that is on its way and shared."""
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    return fields["llmcache_texts_queued"] == "1" and int(fields["llmcache_texts_shared"]) == before + 1


def meanwhile(server, command, *events) -> tuple[bool, object, list]:
    """Runs the events while the text of the command is shared: whether it was, the command's reply and theirs. An
    event may have `ID` for the number of the client that waits."""
    before = counted(server, "texts_shared")
    with contextlib.ExitStack() as stack:
        sleeper, asker, actor = (stack.enter_context(server.wire(timeout=60)) for _ in range(3))
        number = asker("CLIENT", "ID")
        events = [[number if part == "ID" else part for part in event] for event in events]
        actor("PING")
        sleeper.send("DEBUG", "SLEEP", "0.05")
        asker.send(*command)
        actor.socket.sendall(b"".join(encode(event) for event in [("INFO", "llmcache"), *events]))
        shared = is_shared(actor.read(), before)
        told = [closed_or(actor) for _ in events]
        closed_or(sleeper)
        return shared, closed_or(asker), told


def closed_or(wire):
    try:
        reply = wire.read()
    except (OSError, EOFError):
        return "closed"
    return word(reply)


def while_shared(server, command, *events, undo=("PING",)):
    """The same on data of its own, undone and tried again until the text was on its way; what there was before, and
    the replies."""
    for _ in range(TRIES):
        prepare(server)
        before = effects(server)
        shared, outcome, told = meanwhile(server, command, *events)
        if shared:
            return before, outcome, told
        server.client().execute_command(*undo)
    raise AssertionError("the text was never on its way")


def all_rests(server):
    rests(server)
    wait_until(lambda: int(server.info("clients")["blocked_clients"]) == 0, "nobody waits")
    assert server.client().ping()


@TEXTS
def test_memory_runs_out_while_threads_share(fleet, options, text):
    server = fleet.launch(**options)
    client = server.client()
    client.config_set("maxmemory-policy", "noeviction")
    for name, command in changing(text).items():
        before, outcome, told = while_shared(
            server, command, ("CONFIG", "SET", "maxmemory", "1"), undo=("CONFIG", "SET", "maxmemory", "0")
        )
        assert told == ["OK"]
        # What makes room is not refused, neither after it waited nor when it comes then.
        with server.wire() as wire:
            fresh = wire(*command)
        assert ("OOM" in str(outcome)) == ("OOM" in str(fresh)) == (name != "NEAR"), (name, outcome, fresh)
        if "OOM" in str(outcome):
            assert effects(server) == before, name
        client.config_set("maxmemory", 0)
    all_rests(server)


@TEXTS
@pytest.mark.parametrize("how", ["KILL", "TIMEOUT", "ERROR"])
def test_who_leaves_while_threads_share_has_no_effect(fleet, options, text, how):
    server = fleet.launch(**options)
    # `Id` is a word of the command, `ID` stands for the number.
    event = ("CLIENT", "KILL", "Id", "ID") if how == "KILL" else ("CLIENT", "UNBLOCK", "ID", how)
    wanted = {"KILL": "closed", "TIMEOUT": "waited too long", "ERROR": "UNBLOCKED"}[how]
    for name, command in every(text).items():
        before, outcome, told = while_shared(server, command, event)
        assert told == [1] and wanted in str(outcome), (name, told, outcome)
        rests(server)
        assert effects(server) == before, name
    all_rests(server)


@TEXTS
@pytest.mark.parametrize("how", ["FLUSHALL", "SWAPDB", "DEL"])
def test_what_it_concerns_goes_while_threads_share(fleet, options, text, how):
    """The outcome is that of the same command which comes then."""
    server = fleet.launch(**options)
    events = {
        "FLUSHALL": [("FLUSHALL",)],
        "SWAPDB": [("SWAPDB", 0, 1)],
        "DEL": [("DEL", CACHE, DOCS, CHAT, KEPT)],
    }[how]
    for name, command in every(text).items():
        _, outcome, told = while_shared(server, command, *events)
        assert told == [4 if how == "DEL" else "OK"]
        with server.wire() as wire:
            wire("FLUSHALL")
            fresh = wire(*command)
        assert shape(outcome) == shape(word(fresh)), name
    all_rests(server)


@TEXTS
def test_the_server_becomes_a_replica_while_threads_share(fleet, options, text):
    server, other = fleet.launch(**options), fleet.launch()
    for name, command in changing(text).items():
        follow, lead = (
            ("REPLICAOF", "127.0.0.1", other.port),
            ("REPLICAOF", "NO", "ONE"),
        )
        _, outcome, told = while_shared(server, command, follow, undo=lead)
        assert told[0].startswith("OK") and ("READONLY" in str(outcome) or "UNBLOCKED" in str(outcome)), (name, outcome)
        assert other.client().dbsize() == 0
        server.client().execute_command(*lead)
    all_rests(server)


@pytest.mark.parametrize("name", WRITES)
def test_a_failover_while_threads_share_keeps_both_equal(fleet, options, name):
    both = pair(fleet, **options)
    waiting = [SHORT, LONG]
    for _ in range(TRIES):
        prepare(both.primary)
        both.catch_up()
        shared, _, told = meanwhile(both.primary, changing(waiting[-1])[name], ("FAILOVER", "TIMEOUT", 20_000))
        assert told == ["OK"]
        wait_until(
            lambda: both.replica.info("replication")["role"] == "master",
            "the replica leads",
            60,
        )
        wait_until(
            lambda: both.primary.info("replication")["role"] == "slave",
            "the other follows",
            60,
        )
        both.primary, both.replica = both.replica, both.primary
        both.assert_equal()
        if shared:
            waiting.pop()
        if not waiting:
            break
    assert not waiting, "the text was never on its way"
    all_rests(both.primary)
    all_rests(both.replica)


@pytest.mark.parametrize("name", ALL)
def test_a_slot_moves_while_threads_share(fleet, options, name):
    # Both have slots of their own: who loses the last becomes a replica.
    slot = key_slot(CACHE)
    cluster = Cluster(fleet, [[(0, 9_999)], [(10_000, 16_383)]], **options)
    here = int(slot > 9_999)
    waiting = [SHORT, LONG]
    for _ in range(TRIES):
        source, target, there = cluster.nodes[here], cluster.nodes[1 - here], 1 - here
        prepare(source)
        before, keys = effects(source), cluster.keys_in_slot(here, slot)
        cluster.start_move(slot, here, there)
        shared, outcome, told = meanwhile(
            source,
            every(waiting[-1])[name],
            ("MIGRATE", "127.0.0.1", target.port, "", 0, 30_000, "KEYS", *keys),
            ("CLUSTER", "SETSLOT", slot, "NODE", cluster.ids[there]),
        )
        assert told == ["OK", "OK"], told
        cluster.end_move(slot, there)
        if shared:
            assert str(outcome).split()[0] in ("MOVED", "ASK", "TRYAGAIN"), outcome
            assert effects(source) == () and effects(target) == before
            with target.wire() as wire:
                assert not isinstance(wire(*every(waiting.pop())[name]), Failure)
        rests(source)
        here = there
        if not waiting:
            break
    assert not waiting, "the text was never on its way"
    all_rests(cluster.nodes[0])
    all_rests(cluster.nodes[1])


@TEXTS
@pytest.mark.parametrize("name", ["KEEP", "SETSEM", "GETSEM", "APPEND"])
def test_the_server_stops_while_threads_share(fleet, options, text, name):
    server = fleet.launch(**options)
    prepare(server)
    with server.wire(timeout=60) as sleeper, server.wire(timeout=60) as asker, server.wire(timeout=60) as actor:
        actor("PING")
        asker("PING")
        sleeper.send("DEBUG", "SLEEP", "0.05")
        asker.send(*every(text)[name])
        # Nothing that is answered in this turn of the server's loop is sent before it ends, so nobody can be asked.
        actor.send("SHUTDOWN", "NOSAVE")
        server.process.wait(60)
        server.process = None
        outcome = closed_or(asker)
    assert outcome == "closed" or "ERR" in str(outcome)
    server.check_log()


def test_the_server_stops_while_threads_share_a_text(launch):
    server = launch(threads=3, engine="scalar")
    wires = [server.wire(timeout=60) for _ in range(3)]
    for number, wire in enumerate(wires):
        wire.send("EMBCACHE.FETCH", "emb", "TEXT", words(number))
    server.stop()
    server.check_log()
    for wire in wires:
        wire.close()
