"""A primary made of a socket: what it is given reaches a server as a replication stream does.

Internal commands are taken from a primary and from the AOF alone, so tests that feed them bytes of their own
speak as one. Replies go nowhere on such a link; whether a command was refused is told by the server's statistics.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Sequence

from .server import Server
from .waiting import wait_until
from .wire import Argument, encode

REPLICATION_ID = b"a" * 40
# A dump without a key: its name, its end, and no checksum.
EMPTY_RDB = b"REDIS0009\xff" + bytes(8)


class Primary:
    """The primary of one server, from `with` on. Entering and leaving empties and keeps its data, in this order."""

    def __init__(self, server: Server):
        self.server = server
        server.may_refuse = True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.link: socket.socket | None = None
        self.offset = 0
        self.synced = threading.Event()

    def __enter__(self) -> Primary:
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        with self.server.wire() as wire:
            assert wire("REPLICAOF", "127.0.0.1", self.port) == "OK"
        assert self.synced.wait(30), "the server did not take this for its primary"
        wait_until(lambda: self.server.info("replication")["master_link_status"] == "up", "the link is up", 30)
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(OSError), self.server.wire() as wire:
            wire("REPLICAOF", "NO", "ONE")
        self.listener.close()
        if self.link is not None:
            self.link.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self.synced.is_set():
                link, _ = self.listener.accept()
                self._greet(link)

    def _greet(self, link: socket.socket) -> None:
        lines = link.makefile("rb")
        while head := lines.readline():
            count = int(head[1:])
            words = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(count)]
            match words[0].upper():
                case b"PING":
                    link.sendall(b"+PONG\r\n")
                case b"PSYNC":
                    link.sendall(b"+FULLRESYNC " + REPLICATION_ID + b" 0\r\n")
                    link.sendall(b"$%d\r\n" % len(EMPTY_RDB) + EMPTY_RDB)
                    self.link = link
                    self.synced.set()
                    threading.Thread(target=self._drain, args=(lines,), daemon=True).start()
                    return
                case _:
                    link.sendall(b"+OK\r\n")

    @staticmethod
    def _drain(lines) -> None:
        with contextlib.suppress(OSError, ValueError):
            while lines.readline():
                pass

    def send(self, *commands: Sequence[Argument]) -> None:
        """Sends commands, and waits until the server has processed them."""
        data = b"".join(encode(command) for command in commands)
        self.offset += len(data)
        self.link.sendall(data)
        wait_until(self._is_level, "the server has processed what its primary sent", 60)

    def _is_level(self) -> bool:
        told = self.server.info("replication")
        assert told["role"] == "slave", "the server left its primary"
        return int(told["slave_repl_offset"]) >= self.offset

    def refused(self, commands: Iterable[Sequence[Argument]]) -> int:
        """Sends commands of one name, and answers how many of them were refused."""
        commands = list(commands)
        name = str(commands[0][0]).upper()
        before = self._failures(name)
        for at in range(0, len(commands), 500):
            self.send(*commands[at : at + 500])
        return self._failures(name) - before

    def _failures(self, name: str) -> int:
        every = {key.upper(): value for key, value in self.server.info("commandstats").items()}
        stats = every.get(f"CMDSTAT_{name}", "")
        fields = dict(field.split("=") for field in stats.split(",") if field)
        return int(fields.get("failed_calls", 0)) + int(fields.get("rejected_calls", 0))
