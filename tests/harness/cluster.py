"""Cluster nodes on loopback, a client that follows redirections, and the moving of a slot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from .names import key_slot
from .server import Fleet, Server
from .waiting import wait_until
from .wire import Argument, Failure, Wire


class Cluster:
    """Nodes that know each other. `shares` says which slots each owns, as (first, last) pairs."""

    def __init__(self, fleet: Fleet, shares: Sequence[Sequence[tuple[int, int]]], **options):
        # fsync of the node's configuration and long timeouts are not what is tested here.
        given = {"cluster_enabled": "yes", "cluster_node_timeout": 15_000, **options}
        self.nodes = [fleet.launch(**given) for _ in shares]
        self.ids: list[str] = []
        for number, (node, share) in enumerate(zip(self.nodes, shares, strict=True), 1):
            with node.wire() as wire:
                expect_ok(wire("CLUSTER", "SET-CONFIG-EPOCH", number))
                for first, last in share:
                    expect_ok(wire("CLUSTER", "ADDSLOTSRANGE", first, last))
                self.ids.append(wire("CLUSTER", "MYID").decode())
        with self.nodes[0].wire() as wire:
            for other in self.nodes[1:]:
                expect_ok(wire("CLUSTER", "MEET", "127.0.0.1", other.port))
        for node in self.nodes:
            wait_until(lambda node=node: self._is_whole(node), "the cluster is whole", 30, step=0.05)

    def _is_whole(self, node: Server) -> bool:
        with node.wire() as wire:
            info = wire("CLUSTER", "INFO").decode()
        return f"cluster_known_nodes:{len(self.nodes)}\r\n" in info and "cluster_state:ok" in info

    def client(self) -> ClusterWire:
        return ClusterWire([node.port for node in self.nodes])

    def start_move(self, slot: int, source: int, target: int) -> None:
        with self.nodes[target].wire() as wire:
            expect_ok(wire("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source]))
        with self.nodes[source].wire() as wire:
            expect_ok(wire("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target]))

    def move_keys(self, source: int, target: int, keys: Sequence[bytes]) -> None:
        """Sends these keys over, as redis-cli does."""
        port = self.nodes[target].port
        with self.nodes[source].wire() as wire:
            for batch in batches(keys, 100):
                reply = wire("MIGRATE", "127.0.0.1", port, "", 0, 30_000, "KEYS", *batch)
                assert reply in ("OK", "NOKEY"), reply

    def keys_in_slot(self, node: int, slot: int, count: int = 1_000_000) -> list[bytes]:
        with self.nodes[node].wire() as wire:
            return wire("CLUSTER", "GETKEYSINSLOT", slot, count)

    def end_move(self, slot: int, target: int) -> None:
        others = [n for i, n in enumerate(self.nodes) if i != target]
        for node in [self.nodes[target], *others]:
            with node.wire() as wire:
                expect_ok(wire("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target]))


class ClusterWire:
    """A client of the whole cluster: asks again where a node sends it."""

    def __init__(self, ports: Sequence[int], timeout: float = 60.0):
        self.ports = list(ports)
        self.timeout = timeout
        self.wires: dict[int, Wire] = {}
        self.owner: dict[int, int] = {}

    def __enter__(self) -> ClusterWire:
        return self

    def __exit__(self, *_) -> None:
        for wire in self.wires.values():
            wire.close()

    def _wire(self, port: int) -> Wire:
        if port not in self.wires:
            self.wires[port] = Wire(port, timeout=self.timeout)
        return self.wires[port]

    def forget(self) -> None:
        """Ends all connections; whom to ask is found out anew."""
        self.__exit__()
        self.wires.clear()
        self.owner.clear()

    def confirmed(self, key: bytes | str, milliseconds: int) -> bool:
        """Whether a replica has all that this client wrote to the owner of the key."""
        port = self.owner.get(key_slot(key))
        try:
            reply = self._wire(port)("WAIT", 1, milliseconds) if port else 0
        except OSError:
            self.forget()
            return False
        return isinstance(reply, int) and reply >= 1

    def __call__(self, command: str, key: bytes | str, *arguments: Argument):
        slot = key_slot(key)
        port = self.owner.get(slot, self.ports[0])
        asking = False
        for _ in range(16):
            wire = self._wire(port)
            if asking:
                expect_ok(wire("ASKING"))
            reply = wire(command, key, *arguments)
            if not isinstance(reply, Failure) or reply.word not in ("MOVED", "ASK"):
                return reply
            asking = reply.word == "ASK"
            port = int(reply.text.rsplit(":", 1)[1])
            if not asking:
                self.owner[slot] = port
        raise AssertionError(f"sent in circles: {reply}")


def expect_ok(reply) -> None:
    assert reply == "OK", reply


def batches(items: Sequence[bytes], size: int) -> Callable:
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])
