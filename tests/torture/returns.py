"""Containers that go and come back: their keys are dumped, they are dropped, and what was in them is restored, entries
first, the container first, all mixed, or the entries alone and their container much later.

Meanwhile a server knows such a container by what is left of it. What comes then is no remainder: it must not be removed
with the rest, and belongs to its container again as soon as that is back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from harness.server import Server
from harness.waiting import wait_until
from harness.wire import Argument as Word
from harness.wire import Failure, Wire

from .ledger import CONTAINERS, SETTLES_SECONDS
from .values import KEYS_A_FAMILY

Words = list[Word]
# Name, dump, and deadline in Unix milliseconds, -1 for none.
Key = tuple[bytes, bytes, int]

# Those with containers, and the type of the keys that are in them.
FAMILIES = {info.split(".")[0]: entries for info, _, entries in CONTAINERS.values()}
KEYS_MOST = 20
# A container and what is in it, in one step, so that they fit together. Arguments: the command that tells of it, its name,
# and the type of the keys that are in it.
LISTING = f"""local told, prefix, names = redis.call(ARGV[1], ARGV[2]), '', {{ARGV[2]}}
for at = 1, #told, 2 do if told[at] == 'prefix' then prefix = told[at + 1] end end
for _, name in ipairs(redis.call('KEYS', prefix .. '*')) do
  if redis.call('TYPE', name).ok == ARGV[3] then table.insert(names, name) end
end
local found = {{}}
for at = 1, math.min(#names, {KEYS_MOST} + 1) do
  for _, part in ipairs({{names[at], redis.call('DUMP', names[at]), redis.call('PEXPIRETIME', names[at])}}) do
    table.insert(found, part)
  end
end
return found"""
# Those that have a command of their own for it.
DROPPED = ("LLMCACHE", "RAG")
ORDERS = ("entries first", "container first", "mixed", "container later")


def listing(family: str, name: Word) -> Words:
    return ["EVAL", LISTING, 0, f"{family}.INFO", name, FAMILIES[family]]


def keys_of(reply: object) -> list[Key]:
    """The container's own key, then those of what is in it; nothing where there is none."""
    if not isinstance(reply, list) or len(reply) % 3:
        return []
    return list(zip(reply[::3], reply[1::3], reply[2::3]))


def restore(key: Key) -> Words:
    name, dump, until = key
    return ["RESTORE", name, max(until, 0), dump, "REPLACE", "ABSTTL"]


def drop(rng: random.Random, family: str, name: Word) -> Words:
    return rng.choice((["DEL", name], ["UNLINK", name], [f"{family}.DROP" if family in DROPPED else "DEL", name]))


def at_once(words: list[Words]) -> list[Words]:
    return [["MULTI"], *words, ["EXEC"]]


class Returns:
    """Those of a stream of steps: one is looked at, and in steps after that it goes and comes back."""

    def __init__(self, rng: random.Random, databases: tuple[int, ...], name: Callable[[str], Word]):
        self.rng = rng
        self.databases = databases
        self.name = name
        self.asked: tuple[int, str] | None = None
        self.following: deque[list[Words]] = deque()

    def step(self) -> list[Words]:
        if self.following:
            return self.following.popleft()
        database, family = self.rng.choice(self.databases), self.rng.choice(sorted(FAMILIES))
        self.asked = database, family
        return [["SELECT", database], listing(family, self.name(family))]

    def learn(self, reply: object) -> None:
        """Takes in what was found, and plans how that goes and comes back."""
        asked, self.asked = self.asked, None
        if not asked or not (keys := keys_of(reply)):
            return
        database, family = asked
        select: Words = ["SELECT", database]
        head, *entries = keys
        self.rng.shuffle(entries)
        entries = entries[: self.rng.randint(0, len(entries))]
        goes = [drop(self.rng, family, head[0])]
        if self.rng.random() < 0.5:
            goes += [["DEL", name] for name, _, _ in entries]
        order, comes, later = self.rng.choice(ORDERS), [restore(key) for key in entries], [restore(head)]
        match order:
            case "entries first":
                comes += later
            case "container first":
                comes = later + comes
            case "mixed":
                comes.insert(self.rng.randint(0, len(comes)), later[0])
        match self.rng.choice(("all at once", "one by one", "come at once", "in steps")):
            case "all at once":
                self.following.append([select, *at_once(goes + comes)])
            case "one by one":
                self.following.append([select, *goes, *comes])
            case "come at once":
                self.following.append([select, *goes, *at_once(comes)])
            case "in steps":
                self.following += [[select, *goes], [select, *comes]]
        if order == "container later":
            self.following.append([select, *later])


@dataclass
class Bereft:
    """A container that was dropped, and entries that were restored without it."""

    database: int
    family: str
    head: Key
    prefix: bytes
    # The digests and deadlines of entries, by name.
    kept: dict[bytes, tuple[str, int]]
    # Of some containers keys are another's, or copies that are nobody's, or what was moved away is still counted.
    is_exact: bool = False

    def told(self, wire: Wire) -> tuple[bytes, int]:
        """Its prefix, and how many entries it counts; neither where it is not there."""
        reply = wire(f"{self.family}.INFO", self.head[0])
        of = {} if isinstance(reply, Failure) else dict(zip(reply[::2], reply[1::2]))
        return of.get(b"prefix", b""), of.get(b"entries", 0)

    def missing(self, keys: dict[tuple[int, bytes], tuple[str, int]], now: int) -> list[str]:
        """Entries that are not there as they were restored, though their time has not come."""
        found = []
        for name, (digest, until) in self.kept.items():
            there = keys.get((self.database, name))
            if there != (digest, until) and not 0 < until <= now:
                found.append(f"{name!r} of {self.head[0]!r} in database {self.database}: {(digest, until)} / {there}")
        return found

    def return_to(self, server: Server, send: Callable[[Wire, list[Words]], list]) -> str:
        """Restores the container too; returns what is wrong if it does not have its entries then."""
        with server.wire() as wire:
            _, restored = send(wire, [["SELECT", self.database], restore(self.head)])
            # It may be refused where its name or its identity is another's by now.
            if restored != "OK" or not self.is_exact or self.told(wire)[0] != self.prefix:
                return ""
            seen = [(0, 0)]

            def has_all() -> bool:
                prefix, count = self.told(wire)
                types = wire.pipeline(["TYPE", key] for key in wire("KEYS", self.prefix + b"*"))
                seen[0] = count, types.count(FAMILIES[self.family])
                return prefix != self.prefix or seen[0][0] == seen[0][1]

            try:
                wait_until(has_all, "it has its entries", SETTLES_SECONDS, step=0.05)
            except AssertionError:
                count, there = seen[0]
                return f"{self.head[0]!r} in database {self.database} came back and has {count} of {there} entries"
        return ""


def bereave(
    rng: random.Random, wire: Wire, send: Callable[[Wire, list[Words]], list], database: int, family: str
) -> Bereft | None:
    """Drops a container of a family in a database, if there is one, and restores what was in it."""
    name = f"{family.lower()}{rng.randrange(KEYS_A_FAMILY)}"
    _, found = send(wire, [["SELECT", database], listing(family, name)])
    keys = keys_of(found)
    if len(keys) < 2:
        return None
    head, *entries = keys
    bereft = Bereft(database, family, head, b"", {})
    bereft.prefix, count = bereft.told(wire)
    digests = wire.pipeline(["DEBUG", "DIGEST-VALUE", key] for key, _, _ in entries)
    goes = [drop(rng, family, name)]
    if rng.random() < 0.5:
        goes += [["DEL", key] for key, _, _ in entries]
    steps = goes + [restore(key) for key in entries]
    replies = send(wire, at_once(steps))[-1] if rng.random() < 0.5 else send(wire, steps)
    bereft.is_exact = count == len(entries) < KEYS_MOST
    if bereft.is_exact and isinstance(replies, list):
        for (key, _, until), digest, reply in zip(entries, digests, replies[len(goes) :]):
            # Else it was due by then.
            if reply == "OK" and isinstance(digest, list):
                bereft.kept[key] = (str(digest[0]), max(until, -1))
    return bereft
