"""Search by words beside RediSearch, in one run: queries a second, memory and stores of the same passages.

`hybrid` beside it measures words and meaning together, and how good what is found is.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from contest import Contender, rate_ratio, rates, spread
from host import Host
from report import Report, check, number
from stalls import probe
from wire import Failure, Wire, encode, joined, learn, percentile

K, DEPTH, VOCABULARY = 10, 32, 30_000
# Passages stored in one go, before the other contender stores the same.
GO = 1_000
TEXT = f"""Passages of 40 to 120 words from a vocabulary of {VOCABULARY:,}, as frequent as words of a language are (Zipf). A question has
three words, any of which counts: `RAG.SEARCH … WORDS "a b c" COUNT {K} RETURN 1 id` on an index with `WORDS english`,
`FT.SEARCH … "a|b|c" NOCONTENT LIMIT 0 {K}` over hashes with a TEXT field, scored by BM25 (`SCORER BM25STD`). One client,
pipelines of {DEPTH}; median of the rounds, lowest and highest in brackets. Passages are stored {GO:,} at a time in turn; stores are
counted by the CPU time of the server, all its threads, and the ratio is the median of these turns. Memory is that of the
server for all passages, their texts included, less that of an empty one. A PING goes each millisecond beside two connections that
search on end; what it took while the server's thread waited for a core is left out."""


@dataclass(frozen=True)
class Plan:
    size: int
    rounds: int
    seconds: float
    ping_seconds: float


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
    with contextlib.ExitStack() as stack:
        kinds, hosts = (Rag(), Search()), []
        for kind, loaded in zip(kinds, (module, redisearch.path)):
            host = Host(kind.name, server.path, folder / f"words-{type(kind).__name__}", loaded)
            hosts.append(stack.enter_context(host))
        store_all(report, kinds, hosts, passages)
        contenders = []
        for kind, host in zip(kinds, hosts):
            commands = [encode(kind.find(words)) for words in questions]
            contenders.append(Contender(kind.name, host, joined(learn(host.control, commands, 1), DEPTH), 1))
        rates(contenders, plan.rounds, plan.seconds)
        ours, theirs = contenders
        table = report.table("contender", "queries/s", "CPU us", "ours is faster by", "PING beside it: p50 us", "p99 us")
        ratio, pings = rate_ratio(ours, theirs), []
        for kind, one in zip(kinds, contenders):
            pings.append(pinged(one.host, [encode(kind.find(words)) for words in questions], plan.ping_seconds))
            shown = "" if one is ours else ratio
            table.add(one.name, number(one.rate()), number(one.cpu()), shown, *map(number, pings[-1]))
    report.add_target(f"queries/s, {plan.size:,} passages", ">= 3 x RediSearch", str(ratio), ratio.median >= 3)
    (_, mine), (_, other) = pings
    report.add_target("p99 of PING beside searches by words", "<= beside RediSearch", f"{mine:.0f} us against {other:.0f} us", mine <= other)
    report.figures["words"] = {"ratio": ratio.raw(), "ping_p99_us": [round(mine), round(other)]}
    return report


def store_all(report: Report, kinds, hosts: list[Host], passages: list[str]) -> None:
    """Stores the passages in both, in turn, and tells what that takes."""
    empty = [used(host) for host in hosts]
    taken: list[list[float]] = [[], []]
    for kind, host in zip(kinds, hosts):
        kind.create(host)
    for start in range(0, len(passages), GO):
        for kind, host, cpu in zip(kinds, hosts, taken):
            commands = [encode(kind.store(start + n, text)) for n, text in enumerate(passages[start : start + GO])]
            before = host.cpu_seconds()
            replies = host.control.pipeline(iter(commands), batch=64)
            cpu.append(host.cpu_seconds() - before)
            check(all(isinstance(reply, int) for reply in replies), f"{kind.name} stored {replies[:1]}")
    # RediSearch frees and merges in threads.
    time.sleep(1)
    table = report.table("contender", "stores/s by CPU", "bytes a passage", "of which text")
    text_bytes = sum(map(len, passages)) / len(passages)
    each = [(used(host) - before) / len(passages) for host, before in zip(hosts, empty)]
    for kind, cpu, held in zip(kinds, taken, each):
        table.add(kind.name, number(GO / statistics.median(cpu)), number(held), number(text_bytes))
    stores, memory = spread([theirs / ours for ours, theirs in zip(*taken)]), each[0] / each[1]
    report.add_target("stores/s by CPU", ">= 2 x RediSearch", str(stores), stores.median >= 2)
    report.add_target("bytes a passage, text included", "<= 0.6 x RediSearch", f"{memory:.2f}", memory <= 0.6)
    report.figures["stored"] = {"stores": stores.raw(), "memory": round(memory, 3), "bytes": [round(one) for one in each]}


def pinged(host: Host, commands: list[bytes], seconds: float) -> tuple[float, float]:
    """p50 and p99 of PING in us, beside two connections that search on end."""
    searching = multiprocessing.get_context("fork").Process(target=keep_asking, args=(host.port, commands, seconds))
    searching.start()
    own = probe(host, searching, 0).own
    searching.join()
    check(searching.exitcode == 0, f"{host.name} answered the searches")
    return percentile(own, 0.5), percentile(own, 0.99)


def keep_asking(port: int, commands: list[bytes], seconds: float) -> None:
    # The prober comes first.
    os.nice(5)
    wires, at, end = [Wire(port), Wire(port)], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for wire in wires:
            wire.socket.sendall(commands[at % len(commands)])
            at += 1
        for wire in wires:
            check(not isinstance(reply := wire.read(), Failure), f"the search was refused: {reply}")


def used(host: Host) -> int:
    lines = host.control("INFO", "memory").decode().splitlines()
    return int(next(line.split(":")[1] for line in lines if line.startswith("used_memory:")))
