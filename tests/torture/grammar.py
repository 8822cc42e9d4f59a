"""What commands may look like: the argument trees of COMMAND DOCS, as a server tells them.

Nothing here knows a command by name. Values of arguments come from the caller (`values.Values`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.wire import Argument as Word
from harness.wire import Wire

# Arguments that say how many of the next one follow.
COUNTS = ("count", "segment-count", "questions")
REPEATS_MOST = 4
# Few options most often: with all of them hardly a command is right.
OPTION_SHARES = (0.05, 0.15, 0.15, 0.3, 0.8)


@dataclass(frozen=True)
class Argument:
    """A node of the tree, as COMMAND DOCS has it."""

    name: str
    kind: str
    token: str
    optional: bool
    multiple: bool
    parts: tuple[Argument, ...]

    @property
    def counts(self) -> bool:
        return self.kind == "integer" and not self.token and self.name in COUNTS


@dataclass(frozen=True)
class Command:
    name: str
    internal: bool
    arguments: tuple[Argument, ...]

    @property
    def family(self) -> str:
        return self.name.split(".")[0]


class Source(Protocol):
    """Where values come from."""

    def value(self, command: Command, argument: Argument) -> Word: ...

    def vector(self, command: Command) -> list[Word]: ...

    def leaves_out(self, argument: Argument) -> bool: ...


def _fields(flat) -> dict[str, object]:
    """A map that RESP2 has as a flat array."""
    words = [name.decode() for name in flat[::2]]
    return dict(zip(words, flat[1::2]))


def _argument(flat) -> Argument:
    of = _fields(flat)
    flags = {str(flag) for flag in of.get("flags", [])}
    return Argument(
        name=of["name"].decode(),
        kind=of["type"].decode(),
        token=of.get("token", b"").decode(),
        optional="optional" in flags,
        multiple="multiple" in flags,
        parts=tuple(_argument(part) for part in of.get("arguments", [])),
    )


def read(wire: Wire) -> list[Command]:
    """Every command of the module, by the connection's server (RESP2)."""
    names = wire("COMMAND", "LIST", "FILTERBY", "MODULE", "llmcache")
    docs = wire("COMMAND", "DOCS", *names)
    commands = []
    for name, of in zip(docs[::2], docs[1::2]):
        text = name.decode().upper()
        arguments = tuple(_argument(one) for one in _fields(of).get("arguments", []))
        commands.append(Command(text, internal="._" in text, arguments=arguments))
    assert commands, "the server tells of no command of the module"
    return sorted(commands, key=lambda command: command.name)


class Sentence:
    """Puts one command together."""

    def __init__(self, rng: random.Random, source: Source, command: Command):
        self.rng = rng
        self.source = source
        self.command = command
        self.words: list[Word] = [command.name]
        self.share = rng.choice(OPTION_SHARES)
        self._sequence(command.arguments)

    def _sequence(self, arguments: Sequence[Argument]) -> None:
        following = 0
        for argument in arguments:
            if argument.optional and (self.rng.random() > self.share or self.source.leaves_out(argument)):
                continue
            if argument.counts:
                following = self.rng.randint(1, REPEATS_MOST)
                self.words.append(following)
                continue
            times = 1
            if argument.multiple:
                times, following = following or self.rng.randint(1, REPEATS_MOST), 0
            for _ in range(times):
                self._one(argument)

    def _one(self, argument: Argument) -> None:
        if argument.token:
            self.words.append(argument.token)
        match argument.kind:
            case "pure-token":
                pass
            case "oneof":
                self._one(self.rng.choice(argument.parts))
            case "block":
                if argument.name == "values":
                    self.words += self.source.vector(self.command)
                else:
                    self._sequence(argument.parts)
            case _:
                self.words.append(self.source.value(self.command, argument))


def sentence(rng: random.Random, source: Source, command: Command) -> list[Word]:
    """One command that the grammar allows, though its values need not fit."""
    return Sentence(rng, source, command).words


def spoil(rng: random.Random, words: list[Word], odd: Word) -> list[Word]:
    """The same with one thing changed, so that it is most likely wrong."""
    words = list(words)
    at = rng.randrange(1, len(words)) if len(words) > 1 else 0
    match rng.randrange(6):
        case 0:
            del words[at]
        case 1:
            words.insert(at, words[at])
        case 2:
            words[at] = odd
        case 3:
            words.insert(at, odd)
        case 4:
            other = rng.randrange(1, len(words)) if len(words) > 1 else 0
            words[at], words[other] = words[other], words[at]
        case 5:
            del words[at:]
    return words or ["PING"]
