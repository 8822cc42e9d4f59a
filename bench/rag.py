"""Retrieval with and without filters beside RediSearch HNSW and vector sets, at equal recall, in one run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from contest import Contender, rate_ratio, rates
from graph_peers import LINKS, fields
from host import Host
from report import Report, check, number
from wire import Batch, encode, joined, learn

K, RECALL, TARGET, DEPTH, TEXT_BYTES = 10, 0.95, 3.0, 32, 400
LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 800)
# Share of the documents that pass, and the member of META that says so.
SHARES = {"none": ("", 1), "50 %": ("half", 2), "5 %": ("twentieth", 20), "0.5 %": ("rare", 200)}

TEXT = f"""Documents have a text of {TEXT_BYTES} bytes and three members of META, by which filters of 50 %, 5 % and 0.5 % are made; a query
answers the text of the {K} nearest that pass: `RAG.SEARCH … COUNT {K} FILTER ".rare == 0" EF n RETURN 1 text`, `FT.SEARCH
"(@rare:{{0}})=>[KNN {K} @v $b EF_RUNTIME n]" … RETURN 1 t` over hashes with TAG fields, `VSIM … FILTER ".rare == 0" EF n
NOTHREAD WITHATTRIBS` with the text among the attributes (its `FILTER-EF` as it comes, and a million). Each is
asked with the `EF` that is fastest among those that find {RECALL:.0%} of the true {K} (brute force over float32 vectors).
One client, pipelines of {DEPTH}; median of the rounds, lowest and highest in brackets.

The second table says where the time of `RAG.SEARCH` goes: the same query with `COUNT 1` and the id alone is the price of a command
and of the search; each further document costs a key opened, a vector read and {TEXT_BYTES} bytes sent; what the record beside the index says of the
filter is not asked of META again. A filter is asked for again and again here, as applications do: the rows that
pass it are remembered."""


@dataclass(frozen=True)
class Plan:
    size: int
    rounds: int
    seconds: float


def passes(n: int, of: int) -> bool:
    # Not the order of the rows, which may be that of their topics.
    return (n * 7_919) % 1_000_003 % of == 0


def members(n: int) -> dict[str, int]:
    return {name: int(not passes(n, of)) for name, of in SHARES.values() if name}


def text(n: int) -> str:
    return f"{n:08d} ".ljust(TEXT_BYTES, "t")


class Peer:
    """A server with all documents in it: how to store one, how to ask, how to read the rows of an answer."""

    def __init__(self, name: str, host: Host):
        self.name, self.host = name, host


class Rag(Peer):
    def create(self, dim: int) -> None:
        self.host("RAG.CREATE", "docs", "DIM", dim)

    def store(self, n: int, blob: bytes) -> list:
        return ["RAG.ADD", "docs", f"d{n:07d}", "FP32", blob, "TEXT", text(n), "META", json.dumps(members(n))]

    def finds(self, member: str) -> list[Callable[[bytes, int], list]]:
        tail = ["FILTER", f".{member} == 0"] if member else []
        return [lambda blob, ef: ["RAG.SEARCH", "docs", "FP32", blob, "COUNT", K, *tail, "EF", ef, "RETURN", 1, "text"]]

    def rows(self, reply: list) -> list[int]:
        return [int(found[1][:8]) for found in reply]

    def settle(self) -> None:
        while fields(self.host("RAG.INFO", "docs"))["tail"]:
            time.sleep(0.05)


class Search(Peer):
    def create(self, dim: int) -> None:
        vector = ["TYPE", "FLOAT32", "DIM", dim, "DISTANCE_METRIC", "COSINE", "M", LINKS]
        tags = [part for name, _ in SHARES.values() if name for part in (name, "TAG")]
        self.host("FT.CREATE", "docs", "PREFIX", 1, "d:", "SCHEMA", *tags, "v", "VECTOR", "HNSW", len(vector), *vector)

    def store(self, n: int, blob: bytes) -> list:
        pairs = [part for pair in members(n).items() for part in pair]
        return ["HSET", f"d:{n:08d}", "t", text(n), "v", blob, *pairs]

    def finds(self, member: str) -> list[Callable[[bytes, int], list]]:
        condition = f"(@{member}:{{0}})" if member else "*"

        def find(blob: bytes, ef: int) -> list:
            query = f"{condition}=>[KNN {K} @v $b EF_RUNTIME {ef}]"
            order = ["SORTBY", "__v_score", "LIMIT", 0, K]
            return ["FT.SEARCH", "docs", query, "PARAMS", 2, "b", blob, *order, "RETURN", 1, "t", "DIALECT", 2]

        return [find]

    def rows(self, reply: list) -> list[int]:
        return [int(found[1][:8]) for found in reply[2::2]]

    def settle(self) -> None:
        pass


class VectorSet(Peer):
    def create(self, dim: int) -> None:
        """The first element makes it."""

    def store(self, n: int, blob: bytes) -> list:
        return ["VADD", "docs", "FP32", blob, f"{n:08d}", "SETATTR", json.dumps(members(n) | {"t": text(n)})]

    def finds(self, member: str) -> list[Callable[[bytes, int], list]]:
        def find(*more):
            return lambda blob, ef: ["VSIM", "docs", "FP32", blob, "COUNT", K, "EF", ef, "NOTHREAD", "WITHATTRIBS", *more]

        condition = ["FILTER", f".{member} == 0"]
        return [find(*condition), find(*condition, "FILTER-EF", 1_000_000)] if member else [find()]

    def rows(self, reply: list) -> list[int]:
        return [int(name) for name in reply[::2]]

    def settle(self) -> None:
        pass


def run(server, redisearch, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("Retrieval with filters", TEXT)
    base = base[: plan.size]
    table = report.table("filter", "contender", "EF", "recall@10", "queries/s", "CPU us", "ours is faster by", "CPU, ours is less by")
    with contextlib.ExitStack() as stack:
        kinds = [(Rag, "RAG.SEARCH", module), (VectorSet, "VSIM NOTHREAD", None)]
        if redisearch.path is None:
            report.text += f"\n\nRediSearch could not be had and is left out: {redisearch.problem}."
        else:
            kinds.append((Search, "RediSearch HNSW", redisearch.path))
        peers = []
        for kind, name, loaded in kinds:
            peer = kind(name, stack.enter_context(Host(name, server.path, folder / f"rag-{kind.__name__}", loaded)))
            peer.create(base.shape[1])
            fill(peer, base)
            peers.append(peer)
        for share, (member, of) in SHARES.items():
            compare(report, table, peers, share, member, of, base, queries, plan)
        shares = report.table("filter", "CPU us, COUNT 1, id alone", f"CPU us, COUNT {K}", "each further document")
        for share, (member, _) in SHARES.items():
            profile(report, shares, peers[0].host, share, member, queries, plan)
    return report


def profile(report: Report, table, host: Host, share: str, member: str, queries: np.ndarray, plan: Plan) -> None:
    tail = ["FILTER", f".{member} == 0"] if member else []

    def contender(name: str, *what) -> Contender:
        commands = [encode(["RAG.SEARCH", "docs", "FP32", vectors.blob(query), *tail, "EF", 24, *what]) for query in queries]
        return Contender(name, host, learn(host.control, commands, DEPTH), 1)

    one, ten = contender("one", "COUNT", 1, "RETURN", 1, "id"), contender("ten", "COUNT", K, "RETURN", 1, "text")
    rates([one, ten], plan.rounds, plan.seconds)
    further = (ten.cpu() - one.cpu()) / (K - 1)
    table.add(share, number(one.cpu()), number(ten.cpu()), f"{further:.2f}")
    report.figures[f"{share}/profile"] = {"one_us": round(one.cpu(), 1), "ten_us": round(ten.cpu(), 1), "further_us": round(further, 2)}


def fill(peer: Peer, base: np.ndarray) -> None:
    replies = peer.host.control.pipeline((encode(peer.store(n, vectors.blob(row))) for n, row in enumerate(base)), batch=64)
    check(all(isinstance(reply, int) for reply in replies), f"{peer.name} stored {replies[:1]}")
    peer.settle()


def truth(base: np.ndarray, queries: np.ndarray, of: int) -> list[set[int]]:
    there = np.array([n for n in range(len(base)) if passes(n, of)])
    return [set(there[near].tolist()) for near in vectors.nearest(base[there], queries, min(K, len(there)))]


def compare(report: Report, table, peers, share, member, of, base, queries, plan: Plan) -> None:
    wanted = truth(base, queries, of)
    blobs = [vectors.blob(query) for query in queries]
    contenders, told = [], {}
    for peer in peers:
        best = fastest(peer, member, blobs, wanted, of)
        if best is None:
            table.add(share, peer.name, "", f"never {RECALL}", "", "", "", "")
            check(not isinstance(peer, Rag), f"filter {share}: recall {RECALL} is not reached")
            continue
        ef, recall, batches = best
        told[peer.name] = (ef, recall)
        contenders.append(Contender(peer.name, peer.host, joined(batches, DEPTH), 1))
    rates(contenders, plan.rounds, plan.seconds)
    ours, *theirs = contenders
    for one in contenders:
        ef, recall = told[one.name]
        ratio = rate_ratio(ours, one)
        less = "" if one is ours else f"{one.cpu() / ours.cpu():.2f}"
        table.add(share, one.name, ef, f"{recall:.3f}", number(one.rate()), number(one.cpu()), "" if one is ours else ratio, less)
        report.figures[f"{share}/{one.name}"] = {
            "ef": ef, "recall": round(recall, 4), "per_s": round(one.rate()), "cpu_us": round(one.cpu(), 1), "ratio": ratio.raw(),
        }  # fmt: skip
    recall = told[ours.name][1]
    report.add_target(f"recall@{K}, {len(base):,} documents, filter {share}", f">= {RECALL}", f"{recall:.3f}", recall >= RECALL)
    if theirs:
        best = max(theirs, key=Contender.rate)
        ratio = rate_ratio(ours, best)
        what = f"queries/s, {len(base):,} documents, filter {share}"
        report.add_target(what, f">= {TARGET:g} x {best.name}", str(ratio), ratio.median >= TARGET)


def fastest(peer: Peer, member: str, blobs, wanted, of: int) -> tuple[int, float, list[Batch]] | None:
    """The EF, the recall and the batches of the fastest way that finds enough."""
    best = None
    for find in peer.finds(member):
        for ef in LADDER:
            found: list[list[int]] = []

            def right(at: int, reply, found=found) -> None:
                rows = peer.rows(reply)
                check(all(passes(n, of) for n in rows), f"{peer.name} let through what the filter refuses")
                found.append(rows)

            batches = learn(peer.host.control, [encode(find(blob, ef)) for blob in blobs], 1, right)
            recall = float(np.mean([len(set(rows) & true) / len(true) for rows, true in zip(found, wanted)]))
            if recall < RECALL:
                continue
            start = peer.host.cpu_seconds()
            peer.host.control.flush([batch.request for batch in batches])
            cost = peer.host.cpu_seconds() - start
            if best is None or cost < best[0]:
                best = (cost, ef, recall, batches)
            # More width costs more.
            break
    return None if best is None else best[1:]

