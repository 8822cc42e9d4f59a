"""One connection that moves large payloads: commands out of many buffers, replies into the caller's own.

redis-py copies each payload at least once into a `bytes` object of its own; an engine has pinned memory that the bytes
are to land in. Owns: the socket, RESP2 as far as `KVCHUNK.*` answers it. Not for several threads at once.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Part = bytes | bytearray | memoryview
Reply = Any

# Buffers of one sendmsg: Linux takes at most 1,024.
_PARTS_AT_ONCE = 512
# Headers are read in pieces of this size; what is behind them belongs to a payload and is copied.
_SCRATCH = 4_096
_LINE_MAX = 64 << 10


class ReplyError(Exception):
    """The server answered an error."""

    @property
    def word(self) -> str:
        """Its first word: `OOM`, `BUSY`, `NOPERM`."""
        return str(self).split(" ", 1)[0]


class ProtocolError(OSError):
    """What came is no reply; the connection is of no use any more."""


@dataclass(frozen=True)
class Endpoint:
    """Where the server is and how it is spoken to."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    check_hostname: bool = True
    timeout: float = 5.0
    connect_timeout: float = 2.0

    @classmethod
    def of_url(cls, url: str, **more: Any) -> Endpoint:
        """`redis://[user:password@]host:port/db`, `rediss://…`, or `unix:///path?db=0`."""
        split = urlsplit(url)
        said: dict[str, Any] = {"username": unquote(split.username or ""), "password": unquote(split.password or "")}
        if split.scheme == "unix":
            said |= {"path": split.path, "db": int(parse_qs(split.query).get("db", ["0"])[0])}
        elif split.scheme in ("redis", "rediss"):
            said |= {
                "host": split.hostname or "127.0.0.1",
                "port": split.port or 6379,
                "db": int(split.path.strip("/") or 0),
            }
            said["tls"] = split.scheme == "rediss"
        else:
            raise ValueError(f"{url!r} is no redis://, rediss:// or unix:// address")
        return cls(**{**said, **{name: value for name, value in more.items() if value not in (None, "")}})

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def encode(args: Iterable[Part | str | int]) -> list[Part]:
    """A command as RESP: small parts joined, large ones as they are."""
    parts: list[Part] = []
    small: list[bytes] = []
    count = 0
    for arg in args:
        count += 1
        if not isinstance(arg, bytes | bytearray | memoryview):
            arg = str(arg).encode()
        size = arg.nbytes if isinstance(arg, memoryview) else len(arg)
        if size <= _SCRATCH:
            small.append(b"$%d\r\n%b\r\n" % (size, bytes(arg)))
            continue
        small.append(b"$%d\r\n" % size)
        parts += [b"".join(small), arg]
        small = [b"\r\n"]
    return [b"*%d\r\n" % count, *parts, b"".join(small)]


class Wire:
    """A connection, made by the first command and made again after a failure."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        # Counts connections: what the caller said to the server before may be forgotten there.
        self.epoch = 0
        self._socket: socket.socket | None = None
        self._wait_all = 0
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = self._end = 0

    def connect(self) -> None:
        """Connects and logs in, where that is not done."""
        if self._socket is not None:
            return
        endpoint = self.endpoint
        if endpoint.path:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(endpoint.connect_timeout)
            made.connect(endpoint.path)
        else:
            made = socket.create_connection((endpoint.host, endpoint.port), endpoint.connect_timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            if endpoint.tls:
                made = self._tls().wrap_socket(made, server_hostname=endpoint.host)
                made.settimeout(endpoint.timeout)
                self._wait_all = 0
            else:
                # The kernel waits: a payload is one call, without a poll before each piece.
                made.settimeout(None)
                whole = int(endpoint.timeout)
                wait = struct.pack("@ll", whole, int((endpoint.timeout - whole) * 1e6))
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
                self._wait_all = socket.MSG_WAITALL
            self._socket, self._start, self._end = made, 0, 0
            if endpoint.password or endpoint.username:
                user = [endpoint.username] if endpoint.username else []
                self.call(["AUTH", *user, endpoint.password])
            if endpoint.db:
                self.call(["SELECT", endpoint.db])
            self.epoch += 1
        except BaseException:
            self._socket = None
            made.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        endpoint = self.endpoint
        context = ssl.create_default_context(cafile=endpoint.ca_file or None)
        context.check_hostname = endpoint.check_hostname
        if endpoint.cert_file:
            context.load_cert_chain(endpoint.cert_file, endpoint.key_file or None)
        return context

    def close(self) -> None:
        """Drops the connection; the next command makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, args: Iterable[Part | str | int]) -> Reply:
        """One command and its reply; an error in it is raised."""
        self.send(encode(args))
        reply = self.read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def send(self, parts: Sequence[Part]) -> None:
        """Sends buffers as they are, one behind the other."""
        assert self._socket is not None
        if isinstance(self._socket, ssl.SSLSocket):
            for part in parts:
                self._socket.sendall(part)
            return
        left = [memoryview(part).cast("B") for part in parts if len(part)]
        while left:
            try:
                sent = self._socket.sendmsg(left[:_PARTS_AT_ONCE])
            except BlockingIOError:
                raise TimeoutError(f"{self.endpoint} took no bytes for {self.endpoint.timeout} s") from None
            done = 0
            while done < len(left) and sent >= left[done].nbytes:
                sent -= left[done].nbytes
                done += 1
            left = left[done:]
            if sent:
                left[0] = left[0][sent:]

    def _receive(self, into: memoryview, flags: int = 0) -> int:
        assert self._socket is not None
        try:
            got = self._socket.recv_into(into, 0, flags)
        except BlockingIOError:
            raise TimeoutError(f"{self.endpoint} answered nothing for {self.endpoint.timeout} s") from None
        if not got:
            raise ProtocolError(f"{self.endpoint} closed the connection")
        return got

    def _line(self) -> bytes:
        """A line without its end, of any length that a header has."""
        line = b""
        while True:
            at = self._scratch.find(b"\n", self._start, self._end)
            if at >= 0:
                line += bytes(self._view[self._start : at])
                self._start = at + 1
                return line[:-1]
            line += bytes(self._view[self._start : self._end])
            if len(line) > _LINE_MAX:
                raise ProtocolError(f"{self.endpoint} answered no RESP")
            self._start = 0
            self._end = self._receive(self._view)

    def read_into(self, into: memoryview) -> None:
        """Fills a buffer with the bytes that come next."""
        ready = min(self._end - self._start, into.nbytes)
        into[:ready] = self._view[self._start : self._start + ready]
        self._start += ready
        while ready < into.nbytes:
            ready += self._receive(into[ready:], self._wait_all)

    def end_of_bulk(self) -> None:
        """The two bytes behind a bulk string."""
        end = bytearray(2)
        self.read_into(memoryview(end))
        if end != b"\r\n":
            raise ProtocolError(f"{self.endpoint} answered a bulk string that does not end")

    def head(self) -> tuple[bytes, int | None]:
        """The next element as far as its first line: its type and number; a null is (b"_", None)."""
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind in b":$*":
            try:
                number = int(rest)
            except ValueError:
                raise ProtocolError(f"{self.endpoint} answered no RESP: {line[:40]!r}") from None
            return (b"_", None) if number < 0 and kind != b":" else (kind, number)
        if kind == b"_":
            return b"_", None
        if kind == b"-":
            raise ReplyError(rest.decode("utf-8", "replace"))
        raise ProtocolError(f"{self.endpoint} answered no RESP: {line[:40]!r}")

    def read(self) -> Reply:
        """A whole reply: numbers, bytes, None, lists, and errors as objects."""
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode("utf-8", "replace"))
        if kind == b"_":
            return None
        try:
            number = int(rest)
        except ValueError:
            raise ProtocolError(f"{self.endpoint} answered no RESP: {line[:40]!r}") from None
        if kind == b":":
            return number
        if kind == b"$":
            if number < 0:
                return None
            body = bytearray(number)
            self.read_into(memoryview(body))
            self.end_of_bulk()
            return bytes(body)
        if kind == b"*":
            return None if number < 0 else [self.read() for _ in range(number)]
        raise ProtocolError(f"{self.endpoint} answered no RESP: {line[:40]!r}")


def skip(wire: Wire, length: int) -> None:
    """Reads bytes that nobody wants."""
    sink = memoryview(bytearray(min(length, 1 << 20)))
    while length:
        piece = min(length, sink.nbytes)
        wire.read_into(sink[:piece])
        length -= piece


def password_of(params: dict[str, Any]) -> str:
    """The password as given, or out of the environment variable that is named."""
    name = params.get("password_env")
    return os.environ.get(str(name), "") if name else str(params.get("password", "") or "")
