"""A primary with a replica, and the proof that both hold the same."""

from __future__ import annotations

from dataclasses import dataclass

from .server import Fleet, Server
from .waiting import wait_until


@dataclass
class Pair:
    primary: Server
    replica: Server

    def catch_up(self, seconds: float = 60) -> None:
        """Waits until the replica has processed everything that the primary wrote."""

        def level() -> bool:
            theirs = self.replica.info("replication")
            ours = self.primary.info("replication")
            return (
                theirs.get("master_link_status") == "up"
                and theirs.get("slave_repl_offset") == ours.get("master_repl_offset")
            )

        wait_until(level, "the replica has caught up", seconds)

    def assert_equal(self) -> None:
        """The digests of both agree, or the keys that differ are named."""

        def equal() -> bool:
            self.catch_up()
            return self.primary.digest() == self.replica.digest()

        try:
            wait_until(equal, "equal digests", step=0.1)
        except AssertionError:
            raise AssertionError(f"primary and replica differ: {self.differences()}") from None

    def differences(self) -> list[str]:
        ours, theirs = (digests(server) for server in (self.primary, self.replica))
        return [
            f"{key!r}: {ours.get(key)} / {theirs.get(key)}"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ][:20]


def digests(server: Server) -> dict[bytes, str]:
    """The digest of every value of database 0 by its key."""
    with server.wire() as wire:
        keys = wire("KEYS", "*")
        return {key: str(digest) for key, digest in zip(keys, wire.pipeline(["DEBUG", "DIGEST-VALUE", k] for k in keys))}


def pair(fleet: Fleet, **options) -> Pair:
    """Starts a primary and a replica of it, both with these options, and waits for the link."""
    primary = fleet.launch(**options)
    replica = fleet.launch(replicaof=["127.0.0.1", primary.port], **options)
    both = Pair(primary, replica)
    both.catch_up()
    return both
