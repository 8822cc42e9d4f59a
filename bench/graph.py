"""The graph index beside Redis vector sets and RediSearch, on the same vectors at the same recall.

Each contender climbs a ladder of search widths (EF); what is compared is its narrowest search that
reaches the wanted recall. All are stored, asked and made to forget in turns, on a server each.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import graph_peers as peers
import vectors
from contest import Contender, latencies, rate_ratio, rates, spread
from graph_peers import K, Index, Ours, Search, VectorSet, Way
from host import Host
from plot import Line, Panel, chart
from report import Report, check, number
from semantic import recall, store
from wire import Batch, joined, learn

PIPELINE = 32
CONNECTIONS = 8
LADDER = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160, 192, 224, 272, 320, 384, 448, 544, 640)
WANTED = (0.95, 0.99)
TARGET = 3.0
# Entries keep their vectors as F16, the default, and the index a quarter byte of each dimension beside codes and links.
INDEX_TARGET = 700
# Microseconds of search by entries and recall.
CPU_TARGETS = {(100_000, 0.95): 90, (100_000, 0.99): 320, (1_000_000, 0.95): 260}
# What a contender stores before the next one's turn.
TURN = 20_000
SEED_SIZE = 10
X_TICKS = (0.90, 0.92, 0.94, 0.96, 0.98, 1.0)

FIND_HEAD = (
    "entries", "recall wanted", "contender", "EF", "recall@10", "top-1", "p50 us", "p99 us", "queries/s", "CPU us",
    f"{CONNECTIONS} connections, queries/s", "ours is faster by", f"with {CONNECTIONS} connections",
)
KEEP_HEAD = (
    "entries", "index", "stored/s", "served", "CPU us", "ours is faster by", "used_memory, B an entry",
    "index alone, B", "removed/s", "served", "CPU us",
)

TEXT = f"""The nearest {K} of real MiniLM embeddings of 384 dimensions, ours with `INDEX HNSW`. A query
returns what names the rows and no more: `LLMCACHE.GETSEM … THRESHOLD -1 COUNT {K} EF ef RETURN 1 response`
with responses of 8 bytes, `VSIM … COUNT {K} EF ef` (element names; by default on a thread of its own, and
`NOTHREAD`), `FT.SEARCH "*=>[KNN {K} @v $b EF_RUNTIME ef]" SORTBY __v_score RETURN 1` of a field of 8 bytes.
Entries have nothing else. Settings are each one's defaults, M {peers.LINKS} for all; graphs are built with a width
of 100 by us and of 200 by the peers, whose speed of storing with 100 is shown as well.

EF is the smallest of {len(LADDER)} from {LADDER[0]} to {LADDER[-1]}, each about a fifth above the last, that reaches
the recall, which is measured against brute force over the float32 vectors. p50 and p99: one client, one query
at a time. Queries/s: one client, pipelines of {PIPELINE}; and {CONNECTIONS} connections, one query each at a time. CPU
is the server's, all threads, a query of the pipelines. Ratios are ours over the peer's, median of the rounds,
lowest and highest in brackets. "The same over 10 entries" is our command on a cache of 10: all that is not
search.

Stored/s and removed/s: one client, pipelines of {PIPELINE}, in turns. Ours count until `LLMCACHE.INFO` says
`tail 0` and `tombstones 0` after each turn; "served" is the rate at which the client was answered. Linking and
repair go on between commands, in a quarter of the main thread's time while clients call the module and in all
of it while they do not. CPU is the server's for one entry, that work included."""

NOISE_TEXT = """Of {size:,} vectors the last {made:,} are copies of real ones with noise of the real ones'
covariance, 0.3 to 1.5 long: such vectors are about as hard to search as real ones, or somewhat harder."""


@dataclass(frozen=True)
class Plan:
    sizes: tuple[int, ...]
    rounds: int
    seconds: float
    latency_count: int
    removed: int


@dataclass
class Stored:
    """What storing or removing came to."""

    rows: int = 0
    served_s: float = 0.0
    done_s: float = 0.0
    cpu_s: float = 0.0


@dataclass
class Rung:
    """One way to ask, at one width."""

    way: Way
    ef: int
    recall: float
    top: float
    singles: list[Batch]
    quick_rate: float = 0.0


@dataclass
class Stage:
    """The contenders with so many rows in them."""

    size: int
    base: np.ndarray
    queries: np.ndarray
    plan: Plan
    report: Report
    rungs: list[Rung] = field(default_factory=list)


def run(server, redisearch, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("The graph beside its peers", TEXT)
    if plan.sizes[-1] > len(base):
        report.text += "\n\n" + NOISE_TEXT.format(size=plan.sizes[-1], made=plan.sizes[-1] - len(base))
    if redisearch.path is None:
        report.text += f"\n\nRediSearch could not be had and is left out: {redisearch.problem}."
    base = vectors.varied(base, plan.sizes[-1])
    find, keep = report.table(*FIND_HEAD), report.table(*KEEP_HEAD)
    with contextlib.ExitStack() as stack:

        def host(name: str, loaded: Path | None) -> Host:
            return stack.enter_context(Host(name, server.path, folder / f"graph-{name}", loaded))

        indexes: list[Index] = [Ours("llmcache", host("ours", module)), VectorSet("vector set Q8", host("vset", None))]
        extra: list[Index] = [VectorSet("vector set Q8, width 100", host("vset100", None), 100)]
        if redisearch.path is not None:
            indexes.append(Search("RediSearch HNSW", host("search", redisearch.path)))
            extra.append(Search("RediSearch HNSW, width 100", host("search100", redisearch.path), 100))
        for index in indexes + extra:
            index.create(base.shape[1])
            index.empty_bytes = index.host.used_memory()
        there = 0
        for size in plan.sizes:
            stage = Stage(size, base[:size], queries, plan, report)
            taking = indexes + (extra if there == 0 else [])
            stored = keep_rows(taking, base, range(there, size))
            used = {index.name: (index.host.used_memory() - index.empty_bytes, index.index_bytes()) for index in indexes}
            if there == 0:
                for index in extra:
                    index.host.stop()
            ask(stage, find, indexes)
            gone = remove_rows(indexes, range(0, size, size // plan.removed))
            show_kept(stage, keep, taking, stored, used, gone)
            keep_rows(indexes, base, range(0, size, size // plan.removed))
            there = size
    report.plots["graph.svg"] = drawn(report)
    return report


def keep_rows(indexes: Sequence[Index], base: np.ndarray, rows: range) -> dict[str, Stored]:
    """Stores the rows in every index, in turns."""
    return in_turns(indexes, rows, lambda index, n: index.insert(n, vectors.blob(base[n])))


def remove_rows(indexes: Sequence[Index], rows: range) -> dict[str, Stored]:
    before = {index.name: index.count() for index in indexes}
    done = in_turns(indexes, rows, lambda index, n: index.delete(n))
    for index in indexes:
        check(index.count() == before[index.name] - len(rows), f"{index.name} removed {len(rows)}")
    return done


def in_turns(indexes: Sequence[Index], rows: range, command) -> dict[str, Stored]:
    done = {index.name: Stored() for index in indexes}
    for start in range(0, len(rows), TURN):
        part = rows[start : start + TURN]
        for index in indexes:
            commands = [command(index, n) for n in part]
            seen, cpu = done[index.name], index.host.cpu_seconds()
            served = len(part) / store(index.host, commands)
            settling = time.perf_counter()
            index.settle()
            seen.rows += len(part)
            seen.served_s += served
            seen.done_s += served + time.perf_counter() - settling
            seen.cpu_s += index.host.cpu_seconds() - cpu
    return done


def show_kept(stage: Stage, table, indexes, stored, used, gone) -> None:
    """Rows and targets of storing, memory and removing."""
    size, mine = stage.size, stored["llmcache"]
    for index in indexes:
        name, one, removed = index.name, stored[index.name], gone.get(index.name)
        total, alone = used.get(name, (None, None))
        ratio = one.done_s / mine.done_s
        table.add(
            f"{size:,}", name, number(one.rows / one.done_s), number(one.rows / one.served_s),
            number(one.cpu_s / one.rows * 1e6), "" if one is mine else f"{ratio:.2f}",
            "" if total is None else number(total / size), "" if alone is None else number(alone / size),
            *(["", "", ""] if removed is None else [
                number(removed.rows / removed.done_s), number(removed.rows / removed.served_s),
                number(removed.cpu_s / removed.rows * 1e6),
            ]),
        )
        figures = {
            "stored_per_s": round(one.rows / one.done_s), "served_per_s": round(one.rows / one.served_s),
            "cpu_us": round(one.cpu_s / one.rows * 1e6, 1), "ours_over_it": round(ratio, 2),
        }
        if removed is not None:
            figures |= {
                "bytes_per_entry": round(total / size), "removed_per_s": round(removed.rows / removed.done_s),
                "removed_served_per_s": round(removed.rows / removed.served_s),
            }
        if alone is not None:
            figures["index_bytes_per_entry"] = round(alone / size)
            stage.report.add_target(
                f"graph index, {size:,} entries", f"<= {INDEX_TARGET} B an entry", f"{alone / size:,.0f} B",
                alone / size <= INDEX_TARGET,
            )
        stage.report.figures[f"kept/{size}/{name}"] = figures
    best = min((index for index in indexes if index.name in gone and index.name != "llmcache"),
               key=lambda index: stored[index.name].done_s)
    ratio = stored[best.name].done_s / mine.done_s
    stage.report.add_target(f"stored/s, {size:,} entries", f">= {TARGET:g} x {best.name}", f"{ratio:.2f}", ratio >= TARGET)


def ask(stage: Stage, table, indexes: Sequence[Index]) -> None:
    """Climbs the ladder, then compares at each wanted recall."""
    truth = vectors.nearest(stage.base, stage.queries, K)
    blobs = [vectors.blob(v) for v in stage.queries]
    all_ways = [way for index in indexes for way in peers.ways(index)]
    climb(stage, all_ways, blobs, truth)
    for wanted in WANTED:
        chosen = []
        for way in all_ways:
            mine = [rung for rung in stage.rungs if rung.way is way]
            reached = next((rung for rung in mine if rung.recall >= wanted), None)
            if reached is None:
                table.add(f"{stage.size:,}", wanted, way.name, "none", f"{max(r.recall for r in mine):.3f}", *[""] * 8)
            else:
                chosen.append(reached)
        if chosen and isinstance(chosen[0].way.index, Ours):
            compare(stage, table, wanted, chosen)
        else:
            check(wanted > WANTED[0], f"our graph reaches a recall of {wanted}")
            stage.report.add_target(f"recall of {wanted}, {stage.size:,} entries", "reached", "not reached", False)


def climb(stage: Stage, all_ways: Sequence[Way], blobs: list[bytes], truth: list[list[int]]) -> None:
    """Widens each way's search until the highest wanted recall is reached; notes recall and rate of each step."""
    left = list(all_ways)
    for ef in LADDER:
        step = []
        for way in left:
            answers: list[list[int]] = []

            def note(_, reply, answers=answers, way=way) -> None:
                answers.append(way.rows(reply))
                check(len(answers[-1]) == K, f"{way.name} named {len(answers[-1])} of {K}")

            singles = learn(way.index.host.control, [way.find(blob, ef) for blob in blobs], 1, note)
            step.append(Rung(way, ef, *recall(answers, truth), singles))
        racing = [Contender(r.way.name, r.way.index.host, joined(r.singles, PIPELINE), 1) for r in step]
        rates(racing, 1, stage.plan.seconds / 2)
        for rung, contender in zip(step, racing):
            rung.quick_rate = contender.rate()
            stage.report.figures.setdefault(f"ladder/{stage.size}/{rung.way.name}", []).append(
                {"ef": ef, "recall": round(rung.recall, 4), "per_s": round(rung.quick_rate)}
            )
        stage.rungs += step
        left = [rung.way for rung in step if rung.recall < WANTED[-1]]
        if not left:
            break


def compare(stage: Stage, table, wanted: float, chosen: Sequence[Rung]) -> None:
    """Measures the chosen widths against each other."""
    plan = stage.plan

    def contenders(depth: int, connections: int) -> list[Contender]:
        return [Contender(r.way.name, r.way.index.host, joined(r.singles, depth), connections) for r in chosen]

    alone, piped, many = contenders(1, 1), contenders(PIPELINE, 1), contenders(1, CONNECTIONS)
    bare = without_search(chosen[0], stage.base)
    latencies(alone, plan.rounds, plan.latency_count)
    rates([*piped, bare], plan.rounds, plan.seconds)
    rates(many, plan.rounds, plan.seconds)
    for rung, one, pipe, wide in zip(chosen, alone, piped, many):
        ratios = rate_ratio(piped[0], pipe), rate_ratio(many[0], wide)
        table.add(
            f"{stage.size:,}", wanted, one.name, rung.ef, f"{rung.recall:.3f}", f"{rung.top:.3f}", number(one.p(0.5)),
            number(one.p(0.99)), number(pipe.rate()), number(pipe.cpu()), number(wide.rate()),
            *(["", ""] if pipe is piped[0] else ratios),
        )
        stage.report.figures[f"query/{stage.size}/{wanted}/{one.name}"] = {
            "ef": rung.ef, "recall": round(rung.recall, 4), "top1": round(rung.top, 4), "p50_us": round(one.p(0.5), 1),
            "p99_us": round(one.p(0.99), 1), "per_s": round(pipe.rate()), "cpu_us": round(pipe.cpu(), 1),
            "connections_per_s": round(wide.rate()), "ours_over_it": ratios[0].raw(),
            "ours_over_it_connections": ratios[1].raw(),
        }
    table.add(
        f"{stage.size:,}", wanted, "the same over 10 entries", chosen[0].ef, *[""] * 4, number(bare.rate()),
        number(bare.cpu()), *[""] * 3,
    )
    judge(stage, wanted, piped, bare)


def without_search(rung: Rung, base: np.ndarray) -> Contender:
    """The same command on a cache of as many entries as it answers."""
    ours, cache = rung.way.index, "few"
    if ours.host("EXISTS", cache) == 0:
        ours.create(base.shape[1], cache)
        store(ours.host, [ours.insert(n, vectors.blob(base[n]), cache) for n in range(K)])
    commands = [ours.find(vectors.blob(v), rung.ef, cache) for v in base[: 2 * PIPELINE]]
    return Contender("bare", ours.host, joined(learn(ours.host.control, commands, 1), PIPELINE), 1)


def judge(stage: Stage, wanted: float, piped: Sequence[Contender], bare: Contender) -> None:
    what = f"{stage.size:,} entries, recall {wanted}"
    if len(piped) > 1:
        best = max(piped[1:], key=Contender.rate)
        ratio = rate_ratio(piped[0], best)
        stage.report.add_target(f"queries/s, {what}", f">= {TARGET:g} x {best.name}", str(ratio), ratio.median >= TARGET)
    search = spread([all_of - rest for all_of, rest in zip(piped[0].cpu_us, bare.cpu_us)]).median
    stage.report.figures[f"query/{stage.size}/{wanted}/search_cpu_us"] = round(search, 1)
    if most := CPU_TARGETS.get((stage.size, wanted)):
        stage.report.add_target(f"CPU of the search alone, {what}", f"<= {most} us", f"{search:.0f} us", search <= most)


def drawn(report: Report) -> str:
    """Recall against queries/s, a panel a size."""
    panels: dict[int, list[Line]] = {}
    for key, points in report.figures.items():
        if key.startswith("ladder/"):
            _, size, name = key.split("/", 2)
            panels.setdefault(int(size), []).append(Line(name, [(p["recall"], p["per_s"]) for p in points]))
    return chart(
        [Panel(f"{size:,} entries", lines) for size, lines in panels.items()],
        "recall@10", f"queries/s, pipelines of {PIPELINE}", X_TICKS,
    )
