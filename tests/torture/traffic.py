"""The mix: commands of the module, right and wrong, between what else clients and operators ask a server.

A stream is made of steps. A step is what one connection sends at once: one command, a pipeline, a
transaction, or a script. Its replies are fed back, so that later steps use the names they showed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from harness.wire import Argument as Word

from .grammar import Command, sentence, spoil
from .returns import LISTING, Returns
from .values import Values

WRONG_SHARE = 0.08
INTERNAL_SHARE = 0.02
GENERAL_SHARE = 0.15
RARE_SHARE = 0.004
SELECT_SHARE = 0.15
# Of the connections' databases, most of what there is is in the first.
RETURN_DATABASES = (0, 0, 1, 2)
# What stores comes more often than what removes, or there would be little to remove.
STORES = ("SETSEM", "SET", "ADD", "MADD", "MSET", "APPEND", "LOAD", "PUT", "MPUT", "BEGIN", "CHUNK", "FETCH", "GETSEM", "SEARCH")
REMOVES = ("DROP", "CLEAR")
SCRIPT = "return redis.call(unpack(ARGV))"
PROTECTED_SCRIPT = "return redis.pcall(unpack(ARGV))"

# What says for how long a client waits.
WAITS = ("BLOCK", "WAIT", "LINGER")
WAIT_MAX_MS = 1_000

Words = list[Word]

# Settings that traffic may change, with values for them.
SETTINGS: dict[str, tuple[Word, ...]] = {
    "llmcache.threshold": ("0.5", "0.9"),
    "llmcache.guard": ("on", "off", "strict"),
    "llmcache.index": ("auto", "flat", "hnsw"),
    "llmcache.quant": ("f16", "q8"),
    "llmcache.grace": ("0", "100"),
    "llmcache.search-inline-us": ("0", "400"),
    "llmcache.active-expire": ("yes",),
    "llmcache.sweep-interval-ms": ("10", "100"),
    "llmcache.kv-share": ("1", "75"),
    "llmcache.auto-create": ("yes", "no", "yes"),
    "maxmemory-policy": ("noeviction", "allkeys-lfu", "volatile-lru", "allkeys-random"),
}


def bounded(words: Words) -> Words:
    """The same where nothing waits longer than the harness: spoiling makes a 0 of `BLOCK 5`, which has no end."""
    for at, word in enumerate(words[:-1]):
        if word in WAITS and str(words[at + 1]).lstrip("+").isdigit():
            words[at + 1] = min(int(words[at + 1]) or WAIT_MAX_MS, WAIT_MAX_MS)
    return words


def weight(command: Command) -> float:
    """How often a command comes beside others."""
    verb = command.name.split(".")[1]
    return 3.0 if verb in STORES else 0.1 if verb in REMOVES else 1.0


class Traffic:
    """Makes steps, from one seed."""

    def __init__(self, seed: int, commands: Sequence[Command], return_share: float = 0):
        self.return_share = return_share
        self.rng = random.Random(seed)
        self.values = Values(self.rng)
        self.returns = Returns(self.rng, RETURN_DATABASES, self.values.key)
        self.plain = [command for command in commands if not command.internal]
        self.internal = [command for command in commands if command.internal]
        self.weights = [weight(command) for command in self.plain]
        self.general: tuple[Callable[[], Words], ...] = (
            lambda: ["DEL", self.values.any_key()],
            lambda: ["UNLINK", self.values.any_key()],
            lambda: ["PEXPIRE", self.values.any_key(), self.rng.choice((1, 30, 600_000))],
            lambda: ["EXPIRE", self.values.any_key(), 1_000],
            lambda: ["PERSIST", self.values.any_key()],
            lambda: ["RENAME", self.values.any_key(), self.values.any_key()],
            lambda: ["RENAMENX", self.values.any_key(), self.values.any_key()],
            lambda: ["COPY", self.values.any_key(), self.values.any_key(), "REPLACE"],
            lambda: ["COPY", self.values.any_key(), self.values.any_key(), "DB", self.rng.randrange(3)],
            lambda: ["MOVE", self.values.any_key(), self.rng.randrange(3)],
            lambda: ["DUMP", self.values.any_key()],
            self._restore,
            lambda: ["TYPE", self.values.any_key()],
            lambda: ["OBJECT", "FREQ", self.values.any_key()],
            lambda: ["TOUCH", self.values.any_key()],
            lambda: ["MEMORY", "USAGE", self.values.any_key()],
            lambda: ["DEBUG", "DIGEST-VALUE", self.values.any_key()],
            lambda: ["SCAN", 0, "COUNT", 100],
            lambda: ["SET", self.rng.choice(("s", "llmcache0", "rag1")), "text"],
            lambda: ["INFO", "everything"],
        )
        self.rare: tuple[Callable[[], Words], ...] = (
            lambda: ["SWAPDB", self.rng.randrange(3), self.rng.randrange(3)],
            lambda: ["FLUSHDB", self.rng.choice(("SYNC", "ASYNC"))],
            lambda: ["FLUSHALL"],
            self._setting,
            self._memory,
            lambda: ["BGREWRITEAOF"],
            lambda: ["SELECT", self.rng.randrange(3)],
        )

    def _restore(self) -> Words:
        if not self.values.dumps:
            return ["PING"]
        ttl = self.rng.choice((0, 0, 600_000))
        return ["RESTORE", self.values.any_key(), ttl, self.rng.choice(self.values.dumps), "REPLACE"]

    def _setting(self) -> Words:
        name = self.rng.choice(sorted(SETTINGS))
        return ["CONFIG", "SET", name, self.rng.choice(SETTINGS[name])]

    def _memory(self) -> Words:
        return ["CONFIG", "SET", "maxmemory", self.rng.choice((0, 0, 4_000_000, 20_000_000))]

    def command(self) -> Words:
        """One command of the module."""
        if self.internal and self.rng.random() < INTERNAL_SHARE:
            command = self.rng.choice(self.internal)
        else:
            command = self.rng.choices(self.plain, self.weights)[0]
        words = sentence(self.rng, self.values, command)
        if self.rng.random() < WRONG_SHARE:
            words = bounded(spoil(self.rng, words, self.values.odd()))
        return words

    def _any(self) -> Words:
        luck = self.rng.random()
        if luck < RARE_SHARE:
            return self.rng.choice(self.rare)()
        if luck < RARE_SHARE + GENERAL_SHARE:
            return self.rng.choice(self.general)()
        return self.command()

    def step(self) -> list[Words]:
        """What a connection sends next."""
        if self.return_share and self.rng.random() < self.return_share:
            return self.returns.step()
        luck = self.rng.random()
        if luck < 0.70:
            return [self._any() for _ in range(self.rng.choice((1, 1, 1, 5, 20)))]
        if luck < 0.92:
            return [["MULTI"], *self._transaction(), ["EXEC"]]
        script = self.rng.choice((SCRIPT, PROTECTED_SCRIPT))
        return [["EVAL", script, 0, *self.command()]]

    def _transaction(self) -> list[Words]:
        """Commands of one transaction, of one database or of several."""
        words: list[Words] = []
        for _ in range(self.rng.randint(1, 6)):
            if self.rng.random() < SELECT_SHARE:
                words.append(["SELECT", self.rng.randrange(3)])
            words.append(self._any())
        return words

    def learn(self, words: Words, reply: object) -> None:
        """Takes in what a command returned."""
        self.values.learn(reply)
        match words[0]:
            case "EVAL" if words[1] == LISTING:
                self.returns.learn(reply)
            case "DUMP" if isinstance(reply, bytes):
                self.values.dumps.append(reply)
            case "SCAN" if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list):
                self.values.keys.extend(reply[1])
