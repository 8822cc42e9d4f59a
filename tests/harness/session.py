"""The SESSION commands as calls, messages as values, and readers and writers of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from .cache import options
from .kv import fields_of


@dataclass(frozen=True)
class Message:
    """A message as WINDOW, RANGE, POP and RECALL answer it."""

    seq: int
    role: str
    payload: bytes
    tokens: int
    extra: tuple = ()

    @classmethod
    def of(cls, reply: list) -> Message:
        seq, role, payload, tokens, *rest = reply
        extra = tuple((rest[at].decode(), rest[at + 1]) for at in range(0, len(rest), 2))
        return cls(seq, role.decode(), payload, tokens, extra)


@dataclass(frozen=True)
class Window:
    tokens: int
    first: int
    more: bool
    messages: list[Message]

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]


def msg(role: str, payload: bytes | str, **given) -> list:
    """The arguments of one message: `msg("user", "hi", id="a", tokens=3, pin=True, vector=v)`."""
    return ["MSG", role, payload, *options(given)]


def roles(names: Sequence[str] | None) -> list:
    return [] if names is None else ["ROLES", len(names), *names]


class Session:
    """One session behind one client."""

    def __init__(self, client: redis.Redis, name: bytes | str = "s"):
        self.client, self.name = client, name

    def run(self, command: str, *arguments) -> Any:
        return self.client.execute_command(f"SESSION.{command}", self.name, *arguments)

    def append(self, *messages: list, **given) -> Any:
        """The outcomes `[seq, new]`, then length and tokens; None when a condition does not hold."""
        parts = [part for message in messages for part in message]
        return self.run("APPEND", *options(given), *parts)

    def say(self, *texts: str, role: str = "user", **given) -> list[int]:
        """Appends plain messages and answers their places."""
        reply = self.append(*(msg(role, text) for text in texts), **given)
        return [seq for seq, _ in reply[:-2]]

    def window(self, roles_: Sequence[str] | None = None, **given) -> Window:
        tokens, first, more, messages = self.run("WINDOW", *options(given), *roles(roles_))
        return Window(tokens, first, bool(more), [Message.of(m) for m in messages])

    def range(self, start="-", end="+", roles_: Sequence[str] | None = None, **given) -> list[Message]:
        return [Message.of(m) for m in self.run("RANGE", start, end, *options(given), *roles(roles_))]

    def get(self, seq: int | None = None, id: str | None = None) -> dict | None:
        reply = self.run("GET", "SEQ", seq) if id is None else self.run("GET", "ID", id)
        return None if reply is None else {k.decode(): v for k, v in fields_of(reply).items()}

    def info(self) -> dict | None:
        reply = self.run("INFO")
        return None if reply is None else {k.decode(): v for k, v in fields_of(reply).items()}

    def export(self) -> list[bytes]:
        return self.run("EXPORT")

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.range()]

    def begin(self, role: str = "assistant", **given) -> tuple[int, bytes | None, int]:
        return tuple(self.run("BEGIN", role, *options(given)))

    def follow(self, which: int | str, offset: int = 0, **given) -> tuple[str, int, bytes] | None:
        """Follows a message by its sequence number or, a text, by its ID."""
        named = ("ID", which) if isinstance(which, str) else (which,)
        reply = self.run("FOLLOW", *named, offset, *options(given))
        return None if reply is None else (reply[0].decode(), reply[1], reply[2])

    def read_to_end(self, seq: int, offset: int = 0, block: int = 5_000, **given) -> tuple[str, bytes]:
        """Follows until the message is not open any more, as a client does."""
        text = b""
        while True:
            status, offset, data = self.follow(seq, offset, block=block, **given)
            text += data
            if status != "open":
                return status, text


class Writer:
    """The producer of one message."""

    def __init__(self, session: Session, role: str = "assistant", **given):
        self.session = session
        self.seq, self.token, self.offset = session.begin(role, **given)

    def write(self, text: bytes | str) -> bool:
        """Adds text; whether somebody ended the message."""
        self.offset, stop = self.session.run("CHUNK", self.seq, self.token, self.offset, text)
        return bool(stop)

    def end(self, **given) -> list:
        return self.session.run("END", self.seq, self.token, *options(given))
