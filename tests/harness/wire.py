"""A RESP connection that shows replies as the server wrote them, and counts their bytes.

For tests of the protocol itself: error words, types of RESP3, bytes that no client library would
send, pipelines by the ten thousand; and for benchmarks. Tests of behaviour use redis-py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Argument = bytes | str | int | float


@dataclass(frozen=True)
class Failure:
    """An error reply, as a value: its upper-case word, and all of it."""

    text: str

    @property
    def word(self) -> str:
        return self.text.split(" ", 1)[0]


class Pairs(list):
    """A RESP3 map in its order; `dict(...)` of it is the map."""


class Status(str):
    """A simple string, such as OK."""


def encode(arguments: Sequence[Argument]) -> bytes:
    """One command as the protocol has it."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts += (b"$%d\r\n" % len(raw), raw, b"\r\n")
    return b"".join(parts)


class Wire:
    """One connection."""

    def __init__(self, port: int, resp: int = 2, timeout: float = 60.0):
        self._speak_over(socket.create_connection(("127.0.0.1", port), timeout=timeout))
        if resp == 3:
            hello = self("HELLO", 3)
            assert isinstance(hello, Pairs), hello

    @classmethod
    def over(cls, connection: socket.socket) -> Wire:
        """One that is connected already."""
        wire = cls.__new__(cls)
        wire._speak_over(connection)
        return wire

    def _speak_over(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        self.bytes_read = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __call__(self, *arguments: Argument):
        """Sends one command, answers its reply; errors come back as `Failure`."""
        self.send(*arguments)
        return self.read()

    def send(self, *arguments: Argument) -> None:
        """Sends one command, whose reply is to be read later."""
        self.socket.sendall(encode(arguments))

    def pipeline(self, commands: Iterable[Sequence[Argument] | bytes], batch: int = 500) -> list:
        """Sends many commands in batches, encoded or not, and answers their replies."""
        replies: list = []
        waiting: list[bytes] = []
        for command in commands:
            waiting.append(command if isinstance(command, bytes) else encode(command))
            if len(waiting) == batch:
                replies += self.flush(waiting)
                waiting.clear()
        return replies + self.flush(waiting)

    def flush(self, commands: Sequence[bytes]) -> list:
        """Sends encoded commands at once and answers their replies."""
        self.socket.sendall(b"".join(commands))
        return [self.read() for _ in commands]

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"the server closed the connection; last bytes {line!r}")
        self.bytes_read += len(line)
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return Status(rest.decode())
            case b"-":
                return Failure(rest.decode(errors="replace"))
            case b":":
                return int(rest)
            case b",":
                return float(rest)
            case b"#":
                return rest == b"t"
            case b"_":
                return None
            case b"$" | b"=" | b"!":
                return self._bulk(kind, int(rest))
            case b"*" | b"~" | b">":
                return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
            case b"%":
                return Pairs((self.read(), self.read()) for _ in range(int(rest)))
        raise ConnectionError(f"not a reply: {line!r}")

    def _bulk(self, kind: bytes, length: int):
        if length < 0:
            return None
        raw = self.file.read(length + 2)[:-2]
        self.bytes_read += length + 2
        if kind == b"!":
            return Failure(raw.decode(errors="replace"))
        return raw[4:] if kind == b"=" else raw
