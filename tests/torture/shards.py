"""A cluster of shards, a primary and a replica each, and what happens to it: slots that move, failovers, pauses, kills.

A replica fails over only while an act asks for it (`cluster-replica-no-failover`), so that a slow machine makes no
failover of its own, and which acknowledged writes may be lost is known exactly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

from harness.cluster import Cluster, expect_ok
from harness.server import Fleet, Server
from harness.waiting import wait_until
from harness.wire import Failure

COUNT = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_500
OPTIONS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "auto_aof_rewrite_percentage": 0,
    "cluster_node_timeout": NODE_TIMEOUT_MS,
    "cluster_replica_no_failover": "yes",
    "cluster_replica_validity_factor": 0,
    "cluster_allow_replica_migration": "no",
    "cluster_require_full_coverage": "no",
    "llmcache__sweep_interval_ms": 20,
}


class Shards:
    """Shard n is `cluster.nodes[n]`, its primary, and `replicas[n]`."""

    def __init__(self, fleet: Fleet):
        width = SLOTS // COUNT
        shares = [[(n * width, SLOTS - 1 if n == COUNT - 1 else (n + 1) * width - 1)] for n in range(COUNT)]
        self.cluster = Cluster(fleet, shares, **OPTIONS)
        self.replicas: list[Server] = []
        for number in range(COUNT):
            replica = fleet.launch(cluster_enabled="yes", **OPTIONS)
            self.replicas.append(replica)
            with replica.wire() as wire:
                expect_ok(wire("CLUSTER", "MEET", "127.0.0.1", self.primary(number).port))
        for number, replica in enumerate(self.replicas):
            wait_until(lambda replica=replica: len(_lines(replica)) == 2 * COUNT, "all nodes are known", 30)
            with replica.wire() as wire:
                expect_ok(wire("CLUSTER", "REPLICATE", self.cluster.ids[number]))
        self.settle()

    def primary(self, number: int) -> Server:
        return self.cluster.nodes[number]

    @property
    def servers(self) -> list[Server]:
        return [*self.cluster.nodes, *self.replicas]

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    # What is so once nothing happens any more.

    def settle(self) -> None:
        """Waits until all nodes know each other, all replicas have all, and the cluster is whole."""
        for server in self.servers:
            wait_until(lambda server=server: _is_whole(server), "the cluster is whole", 60, step=0.05)
        for number in range(COUNT):
            wait_until(lambda number=number: self._is_level(number), "the replica has all", 60, step=0.05)

    def settle_primaries(self) -> None:
        for number in range(COUNT):
            primary = self.primary(number)
            wait_until(lambda primary=primary: _is_whole(primary), "primaries know all nodes", 60, step=0.05)

    def _is_level(self, number: int) -> bool:
        ours, theirs = (server.info("replication") for server in (self.primary(number), self.replicas[number]))
        return (
            ours["role"] == "master"
            and theirs["role"] == "slave"
            and theirs["master_link_status"] == "up"
            and theirs["master_port"] == str(self.primary(number).port)
            and theirs["slave_repl_offset"] == ours["master_repl_offset"]
        )

    def owner(self, slot: int) -> int:
        """The shard that has this slot, as its own primary says."""
        for number in range(COUNT):
            own = next(line for line in _lines(self.primary(number)) if "myself" in line)
            if _has(own, slot):
                return number
        raise AssertionError(f"slot {slot} has no owner")

    # What happens to it.

    def move(self, slot: int, target: int, halfway: Callable[[], None] = lambda: None) -> None:
        """Key by key, as redis-cli does; `halfway` happens when half of the keys are over."""
        source, cluster = self.owner(slot), self.cluster
        cluster.start_move(slot, source, target)
        keys = cluster.keys_in_slot(source, slot)
        cluster.move_keys(source, target, keys[: len(keys) // 2])
        halfway()
        while keys := cluster.keys_in_slot(source, slot):
            cluster.move_keys(source, target, keys)
        cluster.end_move(slot, target)
        # Replicas learn it by gossip; the source's would else be asked about keys that are gone.
        for server in self.servers:
            wait_until(lambda server=server: self._knows(server, slot, target), "all know the new owner", 30)

    def _knows(self, server: Server, slot: int, target: int) -> bool:
        of = self.cluster.ids[target]
        return any(line.startswith(of) and _has(line, slot) for line in _lines(server))

    def migrate(self, slot: int, target: int, gives_up: bool) -> bool:
        """Atomically, where servers do that; returns whether the slot went over."""
        with self.primary(self.owner(slot)).wire() as wire:
            expect_ok(wire("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.cluster.ids[target]))
            if gives_up:
                # Too late is no fault: then it is over.
                cancelled = wire("CLUSTER", "CANCELSLOTMIGRATIONS")
                assert cancelled == "OK" or isinstance(cancelled, Failure), cancelled

            def state() -> str:
                jobs = wire("CLUSTER", "GETSLOTMIGRATIONS")
                return dict(zip(jobs[0][::2], jobs[0][1::2]))[b"state"].decode()

            ended = wait_until(lambda: state() in ("success", "failed", "cancelled") and state(), "the migration ends", 60)
        assert gives_up or ended == "success", ended
        return ended == "success"

    def hand_over(self, number: int) -> None:
        """A failover that the operator asks for: the primary stops writing until its replica has all."""
        replica = self.replicas[number]

        def promoted() -> bool:
            """Asks again where it came to nothing: servers give up after five seconds, which a busy machine may need."""
            with replica.wire() as wire:
                expect_ok(wire("CLUSTER", "FAILOVER"))
            given_up = time.monotonic() + 8
            while time.monotonic() < given_up and _role(replica) != "master":
                time.sleep(0.05)
            return _role(replica) == "master"

        wait_until(promoted, "the replica is promoted", 120)
        self._await_promotion(number)

    @contextlib.contextmanager
    def failing_over(self, number: int) -> Iterator[None]:
        """What happens to the primary within is answered by a failover, which has happened at the end."""
        _set(self.replicas[number], "cluster-replica-no-failover", "no")
        yield
        self._await_promotion(number)
        # The other server has never been told that it may.
        _set(self.primary(number), "cluster-replica-no-failover", "yes")

    def _await_promotion(self, number: int) -> None:
        old, new = self.primary(number), self.replicas[number]
        wait_until(lambda: _role(new) == "master", "the replica is promoted", 60, step=0.05)
        self.cluster.nodes[number], self.replicas[number] = new, old
        with new.wire() as wire:
            self.cluster.ids[number] = wire("CLUSTER", "MYID").decode()

    def rewrite(self, number: int) -> None:
        with self.primary(number).wire() as wire:
            wire("BGREWRITEAOF")


@contextlib.contextmanager
def paused(server: Server) -> Iterator[None]:
    """The process stands still, as behind a partition: its connections stay, and nothing is answered."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def kill(server: Server, down_seconds: float = 0.0) -> None:
    """`kill -9`, and started again on what its folder holds."""
    server.kill9()
    time.sleep(down_seconds)
    server.start()


def _role(server: Server) -> str:
    return server.info("replication")["role"]


def _set(server: Server, name: str, value: str) -> None:
    with server.wire() as wire:
        expect_ok(wire("CONFIG", "SET", name, value))


def _lines(server: Server) -> list[str]:
    with server.wire() as wire:
        return wire("CLUSTER", "NODES").decode().splitlines()


def _has(line: str, slot: int) -> bool:
    """Whether a line of CLUSTER NODES says that this slot is the node's."""
    for share in line.split()[8:]:
        if not share.startswith("["):
            first, _, last = share.partition("-")
            if int(first) <= slot <= int(last or first):
                return True
    return False


def _is_whole(server: Server) -> bool:
    with server.wire() as wire:
        info = wire("CLUSTER", "INFO").decode()
    lines = _lines(server)
    bad = any(_is_away(line) for line in lines)
    return "cluster_state:ok" in info and f"cluster_size:{COUNT}\r\n" in info and len(lines) == 2 * COUNT and not bad


def _is_away(line: str) -> bool:
    _, _, flags, *_, link = line.split()[:8]
    return link != "connected" or any(flag in ("fail", "fail?", "handshake", "noaddr") for flag in flags.split(","))
