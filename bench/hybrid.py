"""Words and meaning together, beside RediSearch whose client fuses: queries a second, and nDCG on judged questions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import cranfield
import vectors
from contest import Contender, rate_ratio, rates
from graph_peers import LINKS
from host import Host
from rag import Rag as Settled
from report import Report, check, number
from wire import Batch, encode, joined, learn
from words import Words

K, DEPTH, CANDIDATES, EF, RANK = 10, 16, 30, 64, 60
TEXT = f"""Each passage has words as above and a vector; a question has three words and a vector. `RAG.SEARCH … FP32 v WORDS "a b c" FUSE RRF
{RANK} COUNT {K} RETURN 1 id` is one command; of RediSearch the client asks two at once, `FT.SEARCH … "a|b|c"` by BM25STD and
`FT.SEARCH … "*=>[KNN {CANDIDATES} @v $b]"`, {CANDIDATES} ids each, and fuses them (reciprocal ranks), as it does without `FT.HYBRID`; its own time
for that is not counted. Both walk the graph {EF} wide (`EF`, `EF_RUNTIME`), and both
order {CANDIDATES} candidates of each side.

nDCG@10 is that of Cranfield (1,400 abstracts, 225 questions, `docs/rag.md`), asked of both in the same way: no words are added."""

# What RediSearch leaves out of questions; it crashes on some that begin with such words.
STOP_WORDS = frozenset(
    "a is the an and are as at be but by for if in into it no not of on or such that their then there these they this to was will with".split()
)


@dataclass(frozen=True)
class Plan:
    size: int
    rounds: int
    seconds: float
    cranfield: Path | None


class Rag:
    name = "RAG.SEARCH"

    def create(self, host: Host, dim: int) -> None:
        host("RAG.CREATE", "docs", "WORDS", "english", "DIM", dim)

    def store(self, name: str, text: str, blob: bytes) -> list:
        return ["RAG.ADD", "docs", name, "FP32", blob, "TEXT", text]

    def asks(self, words: list[str], blob: bytes) -> list[list]:
        tail = ["FUSE", "RRF", RANK, "EF", EF, "COUNT", K, "RETURN", 1, "id"]
        return [["RAG.SEARCH", "docs", "FP32", blob, "WORDS", " ".join(words), *tail]]

    def words_alone(self, words: list[str]) -> list:
        return ["RAG.SEARCH", "docs", "WORDS", " ".join(words), "COUNT", K, "RETURN", 1, "id"]

    def ids(self, reply: list) -> list[str]:
        return [one[1].decode() for one in reply]

    def settle(self, host: Host) -> None:
        Settled(self.name, host).settle()


class Search:
    name = "RediSearch, fused by the client"

    def create(self, host: Host, dim: int) -> None:
        vector = ["TYPE", "FLOAT32", "DIM", dim, "DISTANCE_METRIC", "COSINE", "M", LINKS]
        host("FT.CREATE", "docs", "PREFIX", 1, "d:", "SCHEMA", "t", "TEXT", "v", "VECTOR", "HNSW", len(vector), *vector)

    def store(self, name: str, text: str, blob: bytes) -> list:
        return ["HSET", f"d:{name}", "t", text, "v", blob]

    def asks(self, words: list[str], blob: bytes) -> list[list]:
        near = f"*=>[KNN {CANDIDATES} @v $b EF_RUNTIME {EF}]"
        order = ["SORTBY", "__v_score", "NOCONTENT", "LIMIT", 0, CANDIDATES]
        return [
            self.by_words(words, CANDIDATES),
            ["FT.SEARCH", "docs", near, "PARAMS", 2, "b", blob, *order, "DIALECT", 2],
        ]

    def words_alone(self, words: list[str]) -> list:
        return self.by_words(words, K)

    def by_words(self, words: list[str], count: int) -> list:
        asked = "|".join(word for word in words if word.lower() not in STOP_WORDS)
        return ["FT.SEARCH", "docs", asked, "NOCONTENT", "SCORER", "BM25STD", "LIMIT", 0, count, "DIALECT", 2]

    def ids(self, reply: list) -> list[str]:
        return [one.decode().removeprefix("d:") for one in reply[1:]]

    def settle(self, host: Host) -> None:
        pass


def fused(orders: list[list[str]]) -> list[str]:
    scores: dict[str, float] = {}
    for order in orders:
        for rank, name in enumerate(order, 1):
            scores[name] = scores.get(name, 0) + 1 / (RANK + rank)
    return sorted(scores, key=lambda name: (-scores[name], name))[:K]


def run(server, redisearch, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("Search by words and meaning", TEXT)
    if redisearch.path is None:
        report.text += f"\n\nRediSearch could not be had: {redisearch.problem}."
        return report
    kinds = ((Rag(), module), (Search(), redisearch.path))
    with contextlib.ExitStack() as stack:
        hosts = []
        for kind, loaded in kinds:
            hosts.append(stack.enter_context(Host(kind.name, server.path, folder / f"hybrid-{type(kind).__name__}", loaded)))
        compare(report, [kind for kind, _ in kinds], hosts, base, queries, plan)
        if plan.cranfield is None:
            report.text += "\n\nCranfield was not measured: `--cranfield` names no folder."
            return report
        for host in hosts:
            host("FLUSHALL", "SYNC")
        judge(report, [kind for kind, _ in kinds], hosts, cranfield.Collection.load(plan.cranfield))
    return report


def compare(report: Report, kinds, hosts: list[Host], base: np.ndarray, queries: np.ndarray, plan: Plan) -> None:
    source, rows = Words(7), vectors.varied(base, plan.size)
    passages = [" ".join(source.take(source.draw.randrange(40, 121))) for _ in range(plan.size)]
    questions = [(source.take(3), vectors.blob(query)) for query in queries]
    contenders = []
    for kind, host in zip(kinds, hosts):
        kind.create(host, rows.shape[1])
        stored = (encode(kind.store(f"{n:08d}", text, vectors.blob(rows[n]))) for n, text in enumerate(passages))
        replies = host.control.pipeline(stored, batch=64)
        check(all(isinstance(reply, int) for reply in replies), f"{kind.name} stored {replies[:1]}")
        kind.settle(host)
        batches = [batch for question in questions for batch in asked(host, kind.asks(*question))]
        contenders.append(Contender(kind.name, host, joined(batches, DEPTH), 1))
    rates(contenders, plan.rounds, plan.seconds)
    ours, theirs = contenders
    ratio = rate_ratio(ours, theirs)
    table = report.table("contender", "queries/s", "CPU us", "ours is faster by")
    table.add(ours.name, number(ours.rate()), number(ours.cpu()), "")
    table.add(theirs.name, number(theirs.rate()), number(theirs.cpu()), ratio)
    report.add_target(f"queries/s by words and meaning, {plan.size:,} passages", ">= 3 x RediSearch", str(ratio), ratio.median >= 3)
    report.figures["hybrid"] = {"ratio": ratio.raw(), "per_s": [round(ours.rate()), round(theirs.rate())]}


def asked(host: Host, commands: list[list]) -> list[Batch]:
    """All commands of a question, which count as one."""
    return [replace(batch, commands=1) for batch in learn(host.control, [encode(one) for one in commands], len(commands))]


def judge(report: Report, kinds, hosts: list[Host], collection: cranfield.Collection) -> None:
    table = report.table("contender", "nDCG@10, words", "nDCG@10, both")
    seen = []
    for kind, host in zip(kinds, hosts):
        kind.create(host, collection.vectors[0].shape[1])
        for document in collection.stored():
            host(*kind.store(*document))
        kind.settle(host)

        def by_words(text: str, _: bytes, kind=kind, host=host) -> list[str]:
            return kind.ids(host(*kind.words_alone(cranfield.plain_words(text).split())))

        def by_both(text: str, blob: bytes, kind=kind, host=host) -> list[str]:
            orders = [kind.ids(host(*one)) for one in kind.asks(cranfield.plain_words(text).split(), blob)]
            return fused(orders) if len(orders) > 1 else orders[0]

        ways: list[Callable[[str, bytes], list[str]]] = [by_words, by_both]
        seen.append([collection.score(way) for way in ways])
        table.add(kind.name, *(f"{one:.3f}" for one in seen[-1]))
    for what, ours, theirs in zip(("words", "words and meaning"), *seen):
        report.add_target(f"nDCG@10 of Cranfield by {what}", ">= RediSearch - 0.01", f"{ours:.3f} against {theirs:.3f}", ours >= theirs - 0.01)
    report.figures["ndcg"] = {kind.name: [round(one, 4) for one in scores] for kind, scores in zip(kinds, seen)}
