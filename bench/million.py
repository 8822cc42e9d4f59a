"""A graph of a million entries, ours alone: its recall, what a search costs, what it takes, how soon it is back.

The peers store some 700 to 1,000 vectors a second and would take 17 to 25 minutes each.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import graph
import vectors
from contest import spread
from graph_peers import K, Ours
from host import Host
from report import Report, check, number
from restart import Saved
from restart import TARGET as RESTART_TARGET
from semantic import recall, store

ENTRIES = 1_000_000
INDEX_TARGET = graph.INDEX_TARGET
# How hard made vectors are is seen where as many real ones can be had: made from one in so many of them.
SHARE = 20
ASKED = 500

TEXT = """Our graph alone, as above, with {entries:,} entries of 8 bytes of prompt and of response and a vector as F16. The
peers are left out: storing at their rates takes 17 to 25 minutes each. Of the vectors the first {real:,} are real, the
others copies of them with noise of the real ones' covariance, 0.3 to 1.5 long; the {queries:,} queries are real and
held out. How hard made vectors are is seen by the width they need: {real:,} made so from {few:,}, beside {real:,} real
ones.

"CPU of the search alone" is that of the command less that of the same command over {k} entries. "Loaded" is what the
server's log says of a start on its own RDB file (median of {rounds}), beside a server without the module and a hash
an entry of the same three values; that all are linked then and a query is answered alike is asserted."""


@dataclass(frozen=True)
class Plan:
    entries: int
    rounds: int
    seconds: float
    latency_count: int
    removed: int


def run(server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    rows = vectors.varied(base, plan.entries)
    about = TEXT.format(
        entries=plan.entries, real=len(base), queries=len(queries), few=len(base[::SHARE]), k=K, rounds=plan.rounds
    )
    report = Report("A graph of a million entries", about)
    find = report.table(*graph.FIND_HEAD)
    ours = Saved("llmcache", server.path, folder / "million-ours", module, [])
    with ours.start() as host:
        cache = Ours("llmcache", host)
        cache.create(rows.shape[1])
        cache.empty_bytes = host.used_memory()
        stored = graph.keep_rows([cache], rows, range(plan.entries))[cache.name]
        used, index = host.used_memory() - cache.empty_bytes, cache.index_bytes()
        before = state(host, queries)
        host("SAVE")
        climbing = graph.Plan((plan.entries,), plan.rounds, plan.seconds, plan.latency_count, plan.removed)
        stage = graph.Stage(plan.entries, rows, queries, climbing, report)
        graph.ask(stage, find, [cache])
        gone = graph.remove_rows([cache], range(0, plan.entries, plan.entries // plan.removed))[cache.name]
    show_kept(report, plan.entries, stored, gone, used, index)
    load(report, ours, before, rows, queries, plan.rounds)
    show_hardness(report, server, module, folder, base, queries)
    return report


def show_hardness(report: Report, server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray) -> None:
    """The width that each wanted recall takes among made vectors, and among as many real ones."""
    table = report.table("entries", "vectors", *(f"EF for {wanted}" for wanted in graph.WANTED))
    made = vectors.varied(base[::SHARE], len(base))
    for name, rows in (("real", base), (f"made from {len(base[::SHARE]):,}", made)):
        with Host("hard", server.path, folder / f"million-{name[:4]}", module) as host:
            cache = Ours("llmcache", host)
            cache.create(rows.shape[1])
            graph.keep_rows([cache], rows, range(len(rows)))
            widths = narrowest(cache, queries[:ASKED], vectors.nearest(rows, queries[:ASKED], K))
        table.add(f"{len(rows):,}", name, *widths)
        report.figures[f"hardness/{len(rows)}/{name}"] = widths


def narrowest(cache: Ours, queries: np.ndarray, truth: list[list[int]]) -> list[int | None]:
    """The first width of the ladder that reaches each wanted recall."""
    reached: list[int | None] = [None] * len(graph.WANTED)
    for ef in graph.LADDER:
        replies = cache.host.control.pipeline([cache.find(vectors.blob(v), ef) for v in queries], graph.PIPELINE)
        share = recall([[int(hit[1]) for hit in reply] for reply in replies], truth)[0]
        reached = [ef if had is None and share >= wanted else had for had, wanted in zip(reached, graph.WANTED)]
        if None not in reached:
            break
    return reached


def show_kept(report: Report, entries: int, stored: graph.Stored, gone: graph.Stored, used: int, index: int) -> None:
    table = report.table(
        "entries", "stored/s", "served", "CPU us", "used_memory, B an entry", "index alone, B", "removed/s", "served", "CPU us"
    )
    cells = [
        number(figure)
        for one in (stored, gone)
        for figure in (one.rows / one.done_s, one.rows / one.served_s, one.cpu_s / one.rows * 1e6)
    ]
    table.add(f"{entries:,}", *cells[:3], number(used / entries), number(index / entries), *cells[3:])
    report.figures[f"kept/{entries}"] = {
        "stored_per_s": round(stored.rows / stored.done_s), "served_per_s": round(stored.rows / stored.served_s),
        "cpu_us": round(stored.cpu_s / stored.rows * 1e6, 1), "bytes_per_entry": round(used / entries),
        "index_bytes_per_entry": round(index / entries), "removed_per_s": round(gone.rows / gone.done_s),
        "removed_cpu_us": round(gone.cpu_s / gone.rows * 1e6, 1),
    }  # fmt: skip
    report.add_target(
        f"graph index, {entries:,} entries", f"<= {INDEX_TARGET} B an entry", f"{index / entries:,.0f} B",
        index / entries <= INDEX_TARGET,
    )


def load(report: Report, ours: Saved, before: list, rows: np.ndarray, queries: np.ndarray, rounds: int) -> None:
    """Starts on what was saved, and a server of hashes on the same values, in turns."""
    entries = len(rows)
    table = report.table("entries", "what", "loaded in, s", "RDB, B an entry", "the module over hashes")
    plain = Saved("hashes", ours.binary, ours.folder.parent / "million-plain", None, [])
    with plain.start() as host:
        for start in range(0, entries, graph.TURN):
            store(host, [
                ["HSET", f"entry:{n:032d}", "prompt", f"p{n:07d}", "response", f"{n:08d}", "vector", row.astype("<f2").tobytes()]
                for n, row in enumerate(rows[start : start + graph.TURN], start)
            ])  # fmt: skip
        host("SAVE")
    for _ in range(rounds):
        with ours.start() as host:
            ours.note_load()
            after = state(host, queries)
            check(after == before, f"after the restart: {after[:3]}, before: {before[:3]}")
        with plain.start() as host:
            plain.note_load()
            check(host("DBSIZE") == entries, "all hashes are there again")
    ratio = spread([a / b for a, b in zip(ours.loaded_s, plain.loaded_s)])
    for one, name, shown in ((ours, "llmcache with its graph", ratio), (plain, "hashes", "")):
        took, size = statistics.median(one.loaded_s), one.file_bytes() / entries
        table.add(f"{entries:,}", name, number(took), number(size), shown)
        report.figures[f"load/{entries}/{name}"] = {"loaded_s": round(took, 2), "rdb_bytes_per_entry": round(size)}
    report.figures[f"load/{entries}/ratio"] = ratio.raw()
    what = f"load of {entries:,} entries and graph"
    report.add_target(what, f"<= {RESTART_TARGET:g} x as hashes", str(ratio), ratio.median <= RESTART_TARGET)


def state(host: Host, queries: np.ndarray) -> list:
    """Entries, linked and waiting ones; what some queries answer."""
    cache = Ours("llmcache", host)
    info = cache.info()
    check(info["linked"] == info["entries"] and info["tail"] == 0, f"{info['linked']} are linked, {info['tail']} wait")
    answers = [host.control.flush([cache.find(vectors.blob(v), 40)]) for v in queries[:20]]
    return [info["entries"], info["linked"], info["tail"], *answers]
