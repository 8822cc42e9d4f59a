"""Every command that waits for a text, in every state that the server may come to meanwhile.

`test_embed_waiting.py` has what is particular to one of them. Here each command that takes a text waits while the one
thread is held up (`harness/holding.py`), something happens, and then the command has the outcome that it would have if
it had just come: a reply or an error, and no effect where there is an error. Nobody hangs.
"""

from __future__ import annotations

import os

import pytest
from harness.by_text import CACHE, CHAT, DOCS, KEPT, effects, fill, reads, shape, word, writes
from harness.cluster import Cluster
from harness.holding import TEXTS, all_told, blocked, create, held, queued
from harness.holding import options as options_of
from harness.names import key_slot
from harness.replication import pair
from harness.waiting import wait_until
from harness.wire import Failure, Wire

TEXT = "xx yy"
KEYS = (CACHE, DOCS, CHAT, KEPT)
WRITES = {
    **writes(TEXT),
    "MADD": ("RAG.MADD", DOCS, 2, "one", "TEXT", TEXT, "two", "TEXT", f"{TEXT} zz"),
    "APPEND": ("SESSION.APPEND", CHAT, "EMBED", "small", "MSG", "user", TEXT),
    "MSET": ("EMBCACHE.MSET", KEPT, 1, "TEXT", TEXT),
    "MGETEX": ("EMBCACHE.MGETEX", KEPT, "TEXTS", 1, TEXT, "EX", 10_000),
}
# How many keys there are more after each.
MAKES = {"NEAR": -1, "SETSEM": 1, "ADD": 1, "MADD": 2, "MSET": 1, "MGETEX": 1}
READS = {
    **reads(TEXT),
    "MGETSEM": ("LLMCACHE.MGETSEM", CACHE, 2, "PROMPT", TEXT, "PROMPT", f"{TEXT} zz"),
    "MGET": ("EMBCACHE.MGET", KEPT, "TEXTS", 1, TEXT),
}
ALL = WRITES | READS


@pytest.fixture(scope="session")
def options(tmp_path_factory):
    return options_of(tmp_path_factory.mktemp("models"))


def prepare(server):
    create(server)
    with server.wire() as wire:
        fill(wire, "mm nn oo")


@pytest.fixture
def server(fleet, options):
    server = fleet.launch(**options)
    prepare(server)
    return server


class Waiting:
    """A client whose command waits for its text."""

    def __init__(self, server, command):
        self.wire = server.wire(timeout=120)
        self.id = self.wire("CLIENT", "ID")
        before = blocked(server)
        self.wire.send(*command)
        wait_until(lambda: blocked(server) > before, "it waits")

    def outcome(self):
        """Its reply, or the word of its error; "closed" where the connection went."""
        with self.wire as wire:
            try:
                return word(wire.read())
            except TimeoutError:
                raise AssertionError("it hangs") from None
            except OSError:
                return "closed"


def rests(server):
    wait_until(lambda: queued(server) == 0, "nothing waits")
    wait_until(lambda: blocked(server) == 0, "nobody waits")
    assert server.client().ping()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", ["KILL", "UNBLOCK", "UNBLOCK ERROR"])
def test_who_leaves_has_no_effect(server, name, how):
    before = effects(server)
    with held(server):
        waiting = Waiting(server, ALL[name])
        if how == "KILL":
            server.client().execute_command("CLIENT", "KILL", "ID", waiting.id)
        else:
            server.client().execute_command("CLIENT", "UNBLOCK", waiting.id, how.split()[-1] if " " in how else "TIMEOUT")
        outcome = waiting.outcome()
    wanted = {"KILL": "closed", "UNBLOCK": "waited too long", "UNBLOCK ERROR": "UNBLOCKED"}[how]
    assert wanted in outcome
    assert effects(server) == before
    rests(server)


@pytest.mark.parametrize("name", WRITES)
def test_memory_runs_out(server, name):
    before, client = effects(server), server.client()
    with held(server):
        waiting = Waiting(server, WRITES[name])
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
    outcome = str(waiting.outcome())
    if "OOM" in outcome:
        assert effects(server) == before
    # What makes room is not refused, neither after it waited nor when it comes then.
    with server.wire() as wire:
        fresh = str(word(wire(*WRITES[name])))
    client.config_set("maxmemory", 0)
    assert ("OOM" in outcome) == ("OOM" in fresh) == (name not in ("NEAR", "MGETEX")), (outcome, fresh)
    rests(server)


@pytest.mark.parametrize("name", WRITES)
def test_the_server_becomes_a_replica(fleet, server, name):
    before, other = effects(server), fleet.launch()
    with held(server):
        waiting = Waiting(server, WRITES[name])
        server.client().replicaof("127.0.0.1", other.port)
    outcome = waiting.outcome()
    assert "READONLY" in outcome or "UNBLOCKED" in outcome
    assert before and other.client().dbsize() == 0
    rests(server)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", ["FLUSHALL", "DEL", "SWAPDB"])
def test_what_it_concerns_is_gone(server, name, how):
    """The outcome is that of the same command which comes then, or a batch says that it is to be repeated."""
    client = server.client()

    def remove():
        if how == "FLUSHALL":
            client.flushall()
        elif how == "DEL":
            client.delete(*KEYS)
        else:
            client.swapdb(0, 1)
            client.execute_command("FLUSHDB")

    with held(server):
        waiting = Waiting(server, ALL[name])
        remove()
    outcome = waiting.outcome()
    rests(server)
    client.flushall()
    if name in ("MADD", "MSET"):
        # As one that came with its vectors and was in the middle of its slices.
        assert outcome == "BUSY the container was removed before all was stored; repeat the command"
        return
    with server.wire() as wire:
        assert shape(outcome) == shape(word(wire(*ALL[name])))


@pytest.mark.parametrize("name", ALL)
def test_the_server_stops(server, name):
    with held(server):
        waiting = Waiting(server, ALL[name])
        with server.wire() as wire:
            wire.send("SHUTDOWN", "NOSAVE")
            server.process.wait(60)
            server.process = None
    outcome = waiting.outcome()
    assert outcome == "closed" or "ERR" in outcome
    server.check_log()


@pytest.mark.parametrize("name", WRITES)
def test_a_failover_keeps_both_equal(fleet, options, name):
    both = pair(fleet, **options)
    prepare(both.primary)
    both.assert_equal()
    with held(both.primary):
        waiting = Waiting(both.primary, WRITES[name])
        both.primary.client().execute_command("FAILOVER", "TIMEOUT", 20_000)
        wait_until(lambda: both.replica.info("replication")["role"] == "master", "the replica leads", 60)
    waiting.outcome()
    both.primary, both.replica = both.replica, both.primary
    both.assert_equal()


def cluster_of_two(fleet, options):
    cluster = Cluster(fleet, [[(0, 16_383)], []], **options)
    prepare(cluster.nodes[0])
    return cluster


def arrive(cluster, name, outcome):
    """Who was sent on finds there what the command concerns, and only there."""
    assert outcome.split()[0] in ("MOVED", "ASK", "TRYAGAIN"), outcome
    source, target = cluster.nodes
    wait_until(lambda: effects(source) == (), "the keys went")
    before = effects(target)
    assert len(before) == 6
    with Wire(target.port) as wire:
        reply = wire(*ALL[name])
        assert not isinstance(reply, Failure), reply.text
    assert len(effects(target)) == 6 + MAKES.get(name, 0)
    rests(source)


@pytest.mark.parametrize("name", ALL)
def test_a_slot_moves_key_by_key(fleet, options, name):
    cluster = cluster_of_two(fleet, options)
    source, slot = cluster.nodes[0], key_slot(CACHE)
    with held(source):
        waiting = Waiting(source, ALL[name])
        cluster.start_move(slot, 0, 1)
        while keys := cluster.keys_in_slot(0, slot):
            cluster.move_keys(0, 1, keys)
        cluster.end_move(slot, 1)
    outcome = waiting.outcome()
    arrive(cluster, name, outcome)


@pytest.mark.parametrize("name", ALL)
def test_a_text_arrives_while_half_of_the_slot_is_elsewhere(fleet, options, name):
    cluster = cluster_of_two(fleet, options)
    source, slot = cluster.nodes[0], key_slot(CACHE)
    with held(source):
        waiting = Waiting(source, ALL[name])
        cluster.start_move(slot, 0, 1)
        cluster.move_keys(0, 1, [key.encode() for key in KEYS])
    outcome = waiting.outcome()
    while keys := cluster.keys_in_slot(0, slot):
        cluster.move_keys(0, 1, keys)
    cluster.end_move(slot, 1)
    arrive(cluster, name, outcome)


@pytest.mark.parametrize("name", ALL)
def test_a_slot_moves_at_once(fleet, options, name):
    """Valkey's atomic migration; the others have none."""
    cluster = cluster_of_two(fleet, options)
    source, slot = cluster.nodes[0], key_slot(CACHE)
    with held(source):
        waiting = Waiting(source, ALL[name])
        with source.wire() as wire:
            reply = wire("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", cluster.ids[1])
            if source.is_valkey:
                assert reply == "OK"
                state = lambda: b"success" in wire("CLUSTER", "GETSLOTMIGRATIONS")[0]  # noqa: E731
                wait_until(state, "the slot went", 60)
    outcome = waiting.outcome()
    if not source.is_valkey:
        assert "unknown subcommand" in reply.text.lower()
        return
    arrive(cluster, name, outcome)


# Whoever comes when the queue is full.


def ask_of_all(server, wires: list) -> None:
    """Every client asks for a text of its own at once; all wait or were refused then."""
    for number, wire in enumerate(wires):
        letters = " ".join(chr(97 + number // 26**place % 26) for place in range(4))
        wire.send("LLMCACHE.GETSEM", CACHE, "PROMPT", f"xx {letters}")
    wait_until(lambda: all_told(server, len(wires)), "all wait or are refused", 60)


def test_a_crowd_at_the_bound_of_the_queue(fleet, options):
    """`LLMCACHE_CROWD=10000 pytest tests/test_embed_states.py -k crowd` is the whole of it."""
    count, bound = int(os.environ.get("LLMCACHE_CROWD", 600)), TEXTS
    server = fleet.launch(**{**options, "llmcache.embed-queue": bound}, maxclients=count + 100)
    prepare(server)
    wires = [server.wire(timeout=300) for _ in range(count)]
    # A quarter of the queue is free, so most are refused.
    with held(server, bound * 3 // 4):
        ask_of_all(server, wires)
    told = [wire.read() for wire in wires]
    for wire in wires:
        wire.close()
    busy_ones = [one for one in told if isinstance(one, Failure)]
    assert all(one.text.startswith("BUSY too many texts wait") for one in busy_ones)
    assert [one for one in told if not isinstance(one, Failure)] == [None] * (count - len(busy_ones))
    info = server.info("llmcache")
    assert int(info["llmcache_texts_busy"]) == len(busy_ones)
    assert int(info["llmcache_texts_queued_most"]) == bound
    assert busy_ones
    rests(server)
