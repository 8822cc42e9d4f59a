"""Search by words beside RediSearch, in one run: queries a second, memory and stores of the same passages."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import dataclass
from pathlib import Path

from contest import Contender, rate_ratio, rates
from host import Host
from report import Report, check, number
from wire import encode, joined, learn

K, DEPTH, VOCABULARY = 10, 32, 30_000
TEXT = f"""Passages of 40 to 120 words from a vocabulary of {VOCABULARY:,}, as frequent as words of a language are (Zipf). A question has
three words, any of which counts: `RAG.SEARCH … WORDS "a b c" COUNT {K} RETURN 1 id` on an index with `WORDS english`,
`FT.SEARCH … "a|b|c" NOCONTENT LIMIT 0 {K}` over hashes with a TEXT field, scored by BM25 (`SCORER BM25STD`). One client,
pipelines of {DEPTH}; median of the rounds, lowest and highest in brackets. Memory is that of the server for all
passages, their texts included, less that of an empty one."""


@dataclass(frozen=True)
class Plan:
    size: int
    rounds: int
    seconds: float


def vocabulary(draw: random.Random) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "or", "ist")]
    words: set[str] = set()
    while len(words) < VOCABULARY:
        words.add("".join(draw.choice(syllables) for _ in range(draw.randrange(2, 5))))
    return sorted(words, key=lambda _: draw.random())


class Words:
    """Words as frequent as in a language."""

    def __init__(self, seed: int):
        self.draw = random.Random(seed)
        self.words = vocabulary(self.draw)
        self.weights = [1 / (rank + 10) for rank in range(VOCABULARY)]

    def take(self, count: int) -> list[str]:
        return self.draw.choices(self.words, self.weights, k=count)


class Rag:
    name = "RAG.SEARCH WORDS"

    def create(self, host: Host) -> None:
        host("RAG.CREATE", "docs", "WORDS", "english")

    def store(self, n: int, text: str) -> list:
        return ["RAG.ADD", "docs", f"d{n:08d}", "NOVECTOR", "TEXT", text]

    def find(self, words: list[str]) -> list:
        return ["RAG.SEARCH", "docs", "WORDS", " ".join(words), "COUNT", K, "RETURN", 1, "id"]


class Search:
    name = "RediSearch"

    def create(self, host: Host) -> None:
        host("FT.CREATE", "docs", "PREFIX", 1, "d", "SCHEMA", "t", "TEXT")

    def store(self, n: int, text: str) -> list:
        return ["HSET", f"d{n:08d}", "t", text]

    def find(self, words: list[str]) -> list:
        return ["FT.SEARCH", "docs", "|".join(words), "NOCONTENT", "SCORER", "BM25STD", "LIMIT", 0, K, "DIALECT", 2]


def run(server, redisearch, module: Path, folder: Path, plan: Plan) -> Report:
    report = Report("Search by words", TEXT)
    if redisearch.path is None:
        report.text += f"\n\nRediSearch could not be had: {redisearch.problem}."
        return report
    source = Words(7)
    passages = [" ".join(source.take(source.draw.randrange(40, 121))) for _ in range(plan.size)]
    questions = [source.take(3) for _ in range(512)]
    stored = report.table("contender", "stores/s by CPU", "bytes a passage", "of which text")
    text_bytes = sum(map(len, passages)) / plan.size
    contenders, figures = [], {}
    with contextlib.ExitStack() as stack:
        for kind, loaded in ((Rag(), module), (Search(), redisearch.path)):
            host = stack.enter_context(Host(kind.name, server.path, folder / f"words-{type(kind).__name__}", loaded))
            empty = used(host)
            kind.create(host)
            before = host.cpu_seconds()
            replies = host.control.pipeline((encode(kind.store(n, text)) for n, text in enumerate(passages)), batch=64)
            check(all(isinstance(reply, int) for reply in replies), f"{kind.name} stored {replies[:1]}")
            a_second = plan.size / (host.cpu_seconds() - before)
            # RediSearch frees and merges in threads.
            time.sleep(1)
            each = (used(host) - empty) / plan.size
            stored.add(kind.name, number(a_second), number(each), number(text_bytes))
            figures[kind.name] = (a_second, each)
            commands = [encode(kind.find(words)) for words in questions]
            contenders.append(Contender(kind.name, host, joined(learn(host.control, commands, 1), DEPTH), 1))
        rates(contenders, plan.rounds, plan.seconds)
    ours, theirs = contenders
    table = report.table("contender", "queries/s", "CPU us", "ours is faster by")
    table.add(ours.name, number(ours.rate()), number(ours.cpu()), "")
    table.add(theirs.name, number(theirs.rate()), number(theirs.cpu()), rate_ratio(ours, theirs))
    ratio = rate_ratio(ours, theirs)
    report.add_target(f"queries/s, {plan.size:,} passages", ">= 3 x RediSearch", str(ratio), ratio.median >= 3)
    stores, memory = (figures[ours.name][at] / figures[theirs.name][at] for at in (0, 1))
    report.add_target("stores/s by CPU", ">= 2 x RediSearch", f"{stores:.2f}", stores >= 2)
    report.add_target("bytes a passage, text included", "<= 0.6 x RediSearch", f"{memory:.2f}", memory <= 0.6)
    report.figures["words"] = {"ratio": ratio.raw(), "stores": round(stores, 2), "memory": round(memory, 2)}
    return report


def used(host: Host) -> int:
    lines = host.control("INFO", "memory").decode().splitlines()
    return int(next(line.split(":")[1] for line in lines if line.startswith("used_memory:")))
