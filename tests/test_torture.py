"""A short piece of `make torture` on every server, with seeds of its own; and that the harness sees what is wrong."""

import tomllib
from pathlib import Path

import pytest
from harness.names import key_slot
from harness.wire import Failure
from torture.clusters import Clusters, Entry
from torture.crowd import Crowd
from torture.disks import FSYNCS, Disks
from torture.faults import FAULTS
from torture.files import Files
from torture.flood import Flood, Soak
from torture.hostile import Hostile
from torture.kills import KINDS, Kills, Lost
from torture.pairs import Fault, Round, Snapshot
from torture.values import DIM

SECONDS = 8


def test_traffic_leaves_replica_and_reloads_equal(fleet):
    round_ = Round(fleet, seed=1)
    round_.run(SECONDS)
    # Commands that were refused one and all would prove nothing.
    stored = ("LLMCACHE.SETSEM", "EMBCACHE.SET", "RAG.ADD", "SESSION.APPEND", "KVCHUNK.PUT")
    assert all(round_.taken[name] for name in stored), round_.taken


def test_a_flood_leaves_replica_and_reloads_equal(fleet, monkeypatch):
    monkeypatch.setattr("torture.flood.COMMANDS_A_CHECKPOINT", 5_000)
    flood = Flood(fleet, seed=1)
    flood.run(SECONDS)
    assert flood.commands >= 10_000 and flood.comparisons > 1


def test_memory_that_does_not_come_back_ends_a_soak(fleet, monkeypatch):
    monkeypatch.setattr("torture.flood.COMMANDS_A_CHECKPOINT", 5_000)
    monkeypatch.setattr(Soak, "COMPARISONS_A_FLUSH", 1)
    soak = Soak(fleet, seed=1)
    soak.run(0)
    assert len(soak.memory) == 1
    monkeypatch.setattr("torture.flood.LATE_SECONDS", 2)
    # A script is kept when all keys go.
    with soak.pair.primary.wire() as wire:
        assert wire("SCRIPT", "LOAD", f"return '{'x' * 8_000_000}'")
    with pytest.raises(Fault, match="bytes more are in use"):
        soak.checkpoint()


def test_kills_lose_nothing_acknowledged(fleet):
    kills = Kills(fleet, seed=1)
    kills.run(SECONDS)
    assert kills.cycles and kills.changes > 100


def test_a_cluster_loses_nothing_acknowledged(fleet):
    clusters = Clusters(fleet, seed=1)
    clusters.run(60, most=2)
    assert clusters.rounds and clusters.changes > 50


def test_an_entry_lost_by_a_cluster_is_seen(fleet):
    clusters = Clusters(fleet, seed=2)
    clusters.run(0)
    # The first entry is there and certain; a removal that nobody asked for follows.
    entry, owner = clusters.entries[0], clusters.shards.owner(key_slot(clusters.entries[0].tag))
    with clusters.shards.primary(owner).wire() as wire:
        assert not isinstance(wire(*entry.words(entry.kind.store(entry.number, 7))), Failure)
        entry.acknowledged.append(b"7")
        clusters.shards.settle()
        clusters.verify("nothing", set())
        assert wire(*entry.words(entry.kind.remove(entry.number))) == 1
        clusters.shards.settle()
    with pytest.raises(Lost, match="answers 0"):
        clusters.verify("nothing", {entry.tag})


def test_what_a_failover_may_lose_is_what_nobody_confirmed():
    entry = Entry(KINDS[0], "{t}", 0, floor=b"1", acknowledged=[b"2", None], unanswered=[b"4"])
    assert entry.allowed(lossy=False) == [None, b"4"]
    assert entry.allowed(lossy=True) == [b"1", b"2", None, b"4"]


def test_damaged_dumps_and_internal_commands_are_refused_or_work(fleet):
    hostile = Hostile(fleet, seed=1)
    hostile.run(SECONDS)
    assert hostile.restored and hostile.refused and hostile.obeyed


def test_damaged_aofs_load_or_are_declined(fleet):
    files = Files(fleet, seed=1)
    files.run(SECONDS)
    assert files.cut + files.started + files.declined > 3


@pytest.mark.parametrize("fsync", FSYNCS)
def test_a_full_disk_loses_nothing_acknowledged(fleet, fsync):
    disks = Disks(fleet, seed=1, fsync=fsync)
    disks.run(SECONDS)
    assert disks.cycles and disks.changes > 100


def test_a_crowd_of_slow_and_dead_clients_leaves_others_served(fleet):
    crowd = Crowd(fleet, seed=1, connections=1_500)
    crowd.run(0)
    assert crowd.rounds == 1
    assert crowd.answered > 100
    assert len(crowd.what) == 7, crowd.what


def test_planted_faults_have_their_place_in_the_sources():
    root = Path(__file__).resolve().parent.parent
    for fault in FAULTS:
        assert fault.path(root).is_file() and fault.before != fault.after


def test_fuzzing_is_locked_to_what_the_core_needs():
    """`core/fuzz` has a lock of its own, which a new dependency of the core makes useless."""
    root = Path(__file__).resolve().parent.parent

    def needed(lock: str) -> set[str]:
        packages = tomllib.loads((root / lock).read_text())["package"]
        return {name.split()[0] for package in packages if package["name"] == "llmcache-core" for name in package["dependencies"]}

    # What only the core's own tests need.
    assert needed("Cargo.lock") - needed("core/fuzz/Cargo.lock") == {"proptest"}


def test_a_change_that_the_replica_lacks_is_a_fault(fleet):
    round_ = Round(fleet, seed=2)
    round_.run(0)
    # A primary that was just restarted sends all it has once more.
    round_.pair.assert_equal()
    with round_.pair.replica.wire() as wire:
        assert wire("CONFIG", "SET", "replica-read-only", "no") == "OK"
        assert not isinstance(wire("SESSION.APPEND", "session0", "MSG", "user", "only here"), Failure)
    with pytest.raises(Fault, match="differ"):
        round_.checkpoint()


def test_a_lost_entry_is_seen(fleet):
    kills = Kills(fleet, seed=2)
    kills.run(0)
    server = fleet.servers[0]
    kind = KINDS[0]
    with server.wire() as wire:
        assert isinstance(wire(*kind.store(1, 7)), bytes)
        kills.promises[kind.name, 1].version = b"7"
        kills.verify(server, "nothing")
        assert wire(*kind.remove(1)) == 1
    with pytest.raises(Lost, match="answers 1"):
        kills.verify(server, "nothing")


def test_a_key_that_changed_is_a_difference(server):
    with server.wire() as wire:
        assert wire("RAG.CREATE", "docs", "DIM", DIM) == "OK"
        before = Snapshot.of(server)
        assert not before.differences(Snapshot.of(server))
        assert wire("RAG.ADD", "docs", "d", "VALUES", DIM, 1, 2, 3, 4, "TEXT", "t") == 1
    assert before.differences(Snapshot.of(server))
