"""Values for arguments: few of each kind, so that commands meet on the same keys, ids and texts.

What replies show (ids, tokens of leases, tickets, digests) is kept and used again.
"""

from __future__ import annotations

import json
import random
import re
import struct
import time
from collections import deque

from harness.wire import Argument as Word

from .grammar import Argument, Command

DIM = 4
KEYS_A_FAMILY = 3
PLAIN_KEYS = ("s", "zset")
# Names that nobody guesses: ids, tokens of leases, tickets, digests.
NAME = re.compile(rb"[0-9a-f]{16}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f-]{24,80}")
NAMES_KEPT = 60
IDS = ("id:1", "id:2", "id:3")
SHA256_HEX, LEASE_HEX = 64, 16
# Of a namespace that was not told otherwise.
CHUNK_TOKENS = 256
DAY_MS = 86_400_000

PROMPTS = (
    "How do I get my money back?",
    "How can I get my money back?",
    "Where is my parcel 4711?",
    "Where is my parcel 4712?",
    "Is it safe with alcohol?",
    "Is it safe without alcohol?",
    "¿Dónde está mi año?",
    "日本語の質問です",
    "x",
)
FILTERS = (
    ".year >= 2025",
    ".lang == 'en' and .year < 2030",
    "exists(.a)",
    "not (.a in [1, 2]) or .tags contains 'x'",
    ".s == \"it's\"",
    ".deep.er > 1.5",
    ".year >=",
    "(((((.a == 1)))))",
)
METAS = ({"year": 2025}, {"lang": "en", "year": 2024}, {"a": 1, "tags": ["x", "y"]}, {"deep": {"er": 2}}, {})
ODD: tuple[Word, ...] = (
    "",
    "-1",
    "0",
    "nan",
    "1e309",
    str(2**63),
    str(-(2**63)),
    b"\x00\xff\xfe",
    "FP32",
    "VALUES",
    "{",
    "*",
    "a" * 300,
    "b" * 70_000,
)


class Values:
    """The source of one stream of commands."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        # By their length, which tells what they name.
        self.names: dict[int, deque[bytes]] = {}
        self.dumps: deque[bytes] = deque(maxlen=20)
        self.keys: deque[bytes] = deque(maxlen=200)

    def learn(self, reply: object) -> None:
        """Keeps what a reply names."""
        if isinstance(reply, bytes):
            if NAME.fullmatch(reply):
                self.names.setdefault(len(reply), deque(maxlen=NAMES_KEPT)).append(reply)
        elif isinstance(reply, (list, tuple)):
            for part in reply[:50]:
                self.learn(part)

    def leaves_out(self, argument: Argument) -> bool:
        """Chunks below a namespace that is not DURABLE are not replicated, and could not be compared."""
        return argument.token == "DURABLE"

    def odd(self) -> Word:
        return self.rng.choice(ODD)

    def key(self, family: str) -> Word:
        """A key of the family; now and then one of another, or of an entry."""
        luck = self.rng.random()
        if luck < 0.02:
            return self.rng.choice(PLAIN_KEYS)
        if luck < 0.04 and self.keys:
            return self.rng.choice(self.keys)
        if luck < 0.05:
            family = self.rng.choice(("LLMCACHE", "RAG", "EMBCACHE", "SESSION", "KVCHUNK"))
        return f"{family.lower()}{self.rng.randrange(KEYS_A_FAMILY)}"

    def any_key(self) -> Word:
        if self.keys and self.rng.random() < 0.5:
            return self.rng.choice(self.keys)
        return self.key(self.rng.choice(("LLMCACHE", "RAG", "EMBCACHE", "SESSION", "KVCHUNK")))

    def numbers(self) -> list[float]:
        return [round(self.rng.gauss(0, 1), 3) for _ in range(DIM if self.rng.random() > 0.02 else DIM + 1)]

    def vector(self, _command: Command) -> list[Word]:
        numbers = self.numbers()
        return [len(numbers), *numbers]

    def name(self, *lengths: int) -> Word:
        """One that a reply showed, most often of one of these lengths."""
        rng = self.rng
        fitting = [length for length in sorted(self.names) if not lengths or length in lengths or rng.random() < 0.03]
        if fitting and rng.random() < 0.8:
            names = self.names[rng.choice(fitting)]
            # A lease or a stream soon ends: what was just shown is more likely still good.
            return names[-rng.randint(1, min(4, len(names)))] if rng.random() < 0.6 else rng.choice(names)
        return rng.choice((*IDS, *("0" * length for length in lengths or (32,))))

    def value(self, command: Command, argument: Argument) -> Word:
        match argument.kind:
            case "key":
                return self.key(command.family)
            case "integer":
                return self._integer(argument)
            case "unix-time":
                return self._time(argument)
            case "double":
                return self.rng.choice((0, 0.05, 0.3, 0.5, 0.9, 0.99, 1, 60, round(self.rng.random(), 3)))
        return self._string(command, argument)

    def _integer(self, argument: Argument) -> Word:
        rng = self.rng
        match argument.token or argument.name:
            case "WAIT" | "BLOCK" | "LINGER":
                return rng.randint(1, 20)
            case "DIM" | "dimension":
                return DIM
            case "EX" | "TTL" | "MAXAGE" | "GRACE" | "OLDER":
                return rng.choice((1_000, 5_000, 100_000))
            case "PX":
                return rng.choice((5, 50, 500_000, 900_000))
            case "LEASE" | "milliseconds":
                return rng.choice((1, 50, 5_000, 60_000))
            case "MAXMEMORY" | "bytes" | "BUDGET":
                return rng.choice((100_000, 1_000_000, 50_000_000))
            case "MAXENTRIES":
                return rng.choice((1, 5, 50, 1_000))
            case "CHUNK" | "STRIDE":
                return 2
            case "PRIO":
                return rng.randint(0, 16)
            case "MAXBYTES" | "MAX":
                return rng.choice((1, 100, 100_000))
            case "cursor":
                return rng.choice((0, 0, 0, 1, 17, 2**40))
        return rng.choice((0, 1, 1, 2, 3, 4, 5, 8, 17, 100))

    def _time(self, argument: Argument) -> Word:
        now = int(time.time() * 1_000) + self.rng.choice((-1_000, 40, DAY_MS, DAY_MS, 10 * DAY_MS))
        return now // 1_000 if argument.token == "EXAT" else now

    def _string(self, command: Command, argument: Argument) -> Word:
        rng = self.rng
        match argument.name:
            case "fp32-blob":
                numbers = self.numbers()
                return struct.pack(f"<{len(numbers)}f", *numbers)
            case "fp16-blob":
                numbers = self.numbers()
                return struct.pack(f"<{len(numbers)}e", *numbers)
            case "token-blob":
                # A few for namespaces that say so, whole chunks for those that were made by themselves.
                count = rng.randint(1, 12) if rng.random() < 0.7 else rng.choice((1, 2)) * CHUNK_TOKENS
                return struct.pack(f"<{count}I", *(rng.choices((1, 1, 2), k=count) if count < CHUNK_TOKENS else [1] * count))
            case "digest" if command.family == "EMBCACHE":
                return self.name(SHA256_HEX) if rng.random() < 0.5 else rng.choice("abc") * SHA256_HEX
            case "hash" | "parent-hash" | "digest" | "parent-digest":
                return self.name() if rng.random() < 0.5 else rng.choice(("aa", "bb", "cc", "dd"))
            case "prompt" | "text" | "question":
                return rng.choice(PROMPTS)
            case "response" | "payload" | "segment" | "data":
                return rng.choice(("yes", "no", "a longer answer " * rng.choice((1, 20, 300)), b"\xff\x00\x80"))
            case "json":
                return json.dumps(rng.choice(METAS))
            case "expression":
                return rng.choice(FILTERS)
            case "tag":
                return rng.choice(("t1", "t2", "t3"))
            case "scope" | "context" | "salt":
                return rng.choice(("de", "en"))
            case "role":
                return rng.choice(("user", "assistant", "system", "tool"))
            case "model":
                return "m"
            case "from" | "to":
                return rng.choice(("-", "+", "1", "2", "5"))
            case "token" | "lease":
                return self.name(LEASE_HEX)
            case "reported":
                return self.name(SHA256_HEX)
            case "id" if argument.token:
                return rng.choice(IDS)
            case "id" | "call-id" | "result-of":
                return self.name() if rng.random() < 0.5 else rng.choice(IDS)
            case "owner-key":
                return "zset"
            case "words":
                return rng.choice(("money", '"my money" -parcel', "+parcel 471*", "monye~"))
            case "language":
                return rng.choice(("english", "off", "german"))
            case "field":
                return rng.choice(("response", "similarity", "id", "text", "meta", "snippet"))
            case "line":
                return json.dumps({"role": "user", "content": rng.choice(PROMPTS)})
            case "cache-key":
                return self.key("LLMCACHE")
            case "name" | "setting":
                return rng.choice(("THRESHOLD", "TTL", "GUARD", "MAXENTRIES", "EF"))
            case "on-or-off":
                return rng.choice(("ON", "OFF"))
        return rng.choice(("a", "b", "0.5", "en"))
