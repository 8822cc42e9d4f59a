"""A hit by meaning beside Redis vector sets, on the same vectors with the same stored fields.

Two servers of one binary: the module's cache in the one, a vector set in the other. The peer keeps
prompt and response as the element's attributes, so that it too answers with one command; a peer
that keeps them in keys of their own needs one more trip.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from contest import Contender, latencies, rate_ratio, rates
from exact import PROMPT_BYTES, RESPONSE_BYTES, prompt, response
from graph_peers import Ours
from host import Host
from report import Report, check, number
from wire import encode, learn

COUNTS = (1, 10)
PIPELINE = 32
CONNECTIONS = 1
TARGET = 3.0
MEMORY_TARGETS = {"F16": 1_700, "Q8": 1_300}

TEXT = f"""Every entry has a prompt of {PROMPT_BYTES} bytes, a response of {RESPONSE_BYTES} and a vector of
384 dimensions. A query returns the response of each hit: `LLMCACHE.GETSEM … THRESHOLD -1 COUNT k RETURN
1 response` (without COUNT for k = 1) against `VSIM … COUNT k WITHSCORES WITHATTRIBS`, whose attributes
hold the same prompt and response. `threads` is VSIM's default, `NOTHREAD` runs it on the main thread,
`bare` returns element names only. Latency: one client, one query at a time. Queries/s: one client,
pipelines of {PIPELINE}. Ratios are of queries/s; median of the rounds, lowest and highest in brackets.
Recall is measured against brute force over the float32 vectors. Ours is as `LLMCACHE.CREATE` makes it: searched
whole up to 2,000 entries, by a graph above, which counts as stored when its last entry is linked."""


@dataclass(frozen=True)
class Plan:
    sizes: tuple[int, ...]
    queries: int
    rounds: int
    seconds: float
    latency_count: int


@dataclass
class Peer:
    """A way to ask, and how to read which rows were named."""

    name: str
    host: Host
    commands: list[bytes]
    rows: object


def run(server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("Semantic hit against vector sets", TEXT)
    speed = report.table(
        "entries", "k", "contender", "recall@k", "top-1", "p50 us", "p99 us", "queries/s", "CPU us", "ours is faster by"
    )
    memory = report.table(
        "entries", "contender", "stored/s", "used_memory, B an entry", "beyond prompt and response, B", "index alone, B"
    )
    for size in plan.sizes:
        check(size <= len(base), f"there are {len(base)} vectors, {size} are wanted")
        part, asked = base[:size], queries[: plan.queries]
        name = f"{server.name}-{size}"
        with (
            Host("ours", server.path, folder / f"ours-{name}", module) as ours,
            Host("peer", server.path, folder / f"peer-{name}") as peer,
        ):
            fill_ours(report, memory, ours, part, "Q8")
            fill_ours(report, memory, ours, part, "F16")
            fill_peer(report, memory, peer, part)
            for k in COUNTS:
                measure(report, speed, ours, peer, part, asked, k, plan)
    return report


def fill_ours(report: Report, table, host: Host, part: np.ndarray, quant: str) -> None:
    # What a server allocates the first time that it runs a command belongs to no entry.
    host("LLMCACHE.SETSEM", "faq", "PROMPT", "p", "RESPONSE", "r", "FP32", vectors.blob(part[0]))
    host("LLMCACHE.INFO", "faq")
    host("FLUSHALL")
    host("LLMCACHE.CREATE", "faq", "DIM", part.shape[1], "QUANT", quant)
    before = host.used_memory()
    rate = store(
        host,
        (
            ["LLMCACHE.SETSEM", "faq", "PROMPT", prompt(n), "RESPONSE", response(n), "FP32", vectors.blob(v)]
            for n, v in enumerate(part)
        ),
    )
    size, cache, settling = len(part), Ours("llmcache", host), time.perf_counter()
    # Stored is what is in the graph too.
    cache.settle()
    rate = size / (size / rate + time.perf_counter() - settling)
    index = cache.index_bytes()
    total = (host.used_memory() - before) / size
    row(report, table, size, f"llmcache {quant}", rate, total, index / size)
    beyond = total - PROMPT_BYTES - RESPONSE_BYTES
    wanted = MEMORY_TARGETS[quant]
    report.add_target(
        f"memory beyond prompt and response, {size:,} entries, {quant}",
        f"<= {wanted:,} B", f"{beyond:,.0f} B", beyond <= wanted,
    )
    report.add_target(
        f"index alone, {size:,} entries, {quant}", "<= 600 B", f"{index / size:,.0f} B", index / size <= 600
    )


def fill_peer(report: Report, table, host: Host, part: np.ndarray) -> None:
    size = len(part)
    host("VADD", "set", "FP32", vectors.blob(part[0]), "0")
    host("VSETATTR", "set", "0", attributes(0))
    host("FLUSHALL")
    before = host.used_memory()
    rate = store(host, (["VADD", "set", "FP32", vectors.blob(v), f"{n:08d}"] for n, v in enumerate(part)))
    alone = (host.used_memory() - before) / size
    store(host, (["VSETATTR", "set", f"{n:08d}", attributes(n)] for n in range(size)))
    row(report, table, size, "vector set Q8", rate, (host.used_memory() - before) / size, alone)


def row(report: Report, table, size: int, name: str, rate: float, total: float, index: float) -> None:
    beyond = total - PROMPT_BYTES - RESPONSE_BYTES
    table.add(f"{size:,}", name, number(rate), number(total), number(beyond), number(index))
    report.figures[f"memory/{size}/{name}"] = {
        "stored_per_s": round(rate), "bytes_per_entry": round(total), "index_bytes_per_entry": round(index)
    }


def attributes(n: int) -> bytes:
    return json.dumps({"prompt": prompt(n).decode(), "response": response(n).decode()}).encode()


def store(host: Host, commands) -> float:
    """Entries stored a second, by one client in pipelines."""
    encoded = [encode(command) for command in commands]
    start = time.perf_counter()
    replies = host.control.pipeline(encoded, PIPELINE)
    taken = time.perf_counter() - start
    bad = next((reply for reply in replies if not isinstance(reply, (bytes, int))), None)
    check(bad is None, f"{host.name} answered {bad}")
    return len(encoded) / taken


def peers(ours: Host, peer: Host, asked: np.ndarray, k: int) -> list[Peer]:
    blobs = [vectors.blob(v) for v in asked]
    count = ["COUNT", k] if k > 1 else []
    known = {response(n): n for n in range(max(1, int(peer("VCARD", "set"))))}

    def from_hits(reply) -> list[int]:
        hits = reply if k > 1 else [reply]
        return [known[hit[1]] for hit in hits]

    def from_attributes(reply) -> list[int]:
        # element, score, attributes
        return [known[json.loads(a)["response"].encode()] for a in reply[2::3]]

    def from_names(reply) -> list[int]:
        return [int(name) for name in reply]

    def vsim(*options: str) -> list[bytes]:
        return [encode(["VSIM", "set", "FP32", b, "COUNT", k, *options]) for b in blobs]

    getsem = [
        encode(["LLMCACHE.GETSEM", "faq", "FP32", b, "THRESHOLD", -1, *count, "RETURN", 1, "response"]) for b in blobs
    ]
    fields = ("WITHSCORES", "WITHATTRIBS")
    return [
        Peer("llmcache F16", ours, getsem, from_hits),
        Peer("VSIM threads", peer, vsim(*fields), from_attributes),
        Peer("VSIM NOTHREAD", peer, vsim(*fields, "NOTHREAD"), from_attributes),
        Peer("VSIM NOTHREAD bare", peer, vsim("NOTHREAD"), from_names),
    ]


def measure(report, table, ours: Host, peer: Host, part, asked, k: int, plan: Plan) -> None:
    truth = vectors.nearest(part, asked, k)
    contenders, singles, accuracy = [], [], []
    for one in peers(ours, peer, asked, k):
        answers: list[list[int]] = [[] for _ in truth]

        def note(at: int, reply, answers=answers, one=one) -> None:
            answers[at] = one.rows(reply)
            check(len(answers[at]) == k, f"{one.name} named {len(answers[at])} of {k}")

        single = learn(one.host.control, one.commands, 1, note)
        accuracy.append(recall(answers, truth))
        singles.append(Contender(one.name, one.host, single, 1))
        whole = len(one.commands) - len(one.commands) % PIPELINE
        contenders.append(
            Contender(one.name, one.host, learn(one.host.control, one.commands[:whole], PIPELINE), CONNECTIONS)
        )
    latencies(singles, plan.rounds, plan.latency_count)
    rates(contenders, plan.rounds, plan.seconds)
    mine = contenders[0]
    check(accuracy[0][0] >= 0.95, f"recall of our own search is {accuracy[0][0]:.3f}")
    for single, piped, (share, top) in zip(singles, contenders, accuracy):
        ratio = rate_ratio(mine, piped)
        table.add(
            f"{len(part):,}", k, piped.name, f"{share:.3f}", f"{top:.3f}", number(single.p(0.5)), number(single.p(0.99)),
            number(piped.rate()), number(piped.cpu()), "" if piped is mine else ratio,
        )
        report.figures[f"query/{len(part)}/k {k}/{piped.name}"] = {
            "recall": round(share, 4), "top1": round(top, 4), "p50_us": round(single.p(0.5), 1),
            "p99_us": round(single.p(0.99), 1), "per_s": round(piped.rate()), "cpu_us": round(piped.cpu(), 1),
            "ours_over_it": ratio.raw(),
        }
    best = max(contenders[1:3], key=Contender.rate)
    ratio = rate_ratio(mine, best)
    report.add_target(
        f"semantic hit, {len(part):,} entries, k = {k}", f">= {TARGET:g} x {best.name}", str(ratio), ratio.median >= TARGET
    )


def recall(answers: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Share of the true neighbours that were named; share of queries whose first is the true first."""
    found = sum(len(set(a) & set(t)) for a, t in zip(answers, truth))
    first = sum(a[0] == t[0] for a, t in zip(answers, truth))
    return found / sum(map(len, truth)), first / len(truth)
