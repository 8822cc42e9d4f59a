"""How long others wait while a hundred thousand answers are taken out of use.

One INVALIDATE at a time, by tag, radius and age, of a full cache, beside the prober of `stalls`. What is
counted is asserted: how many went, and that none is found by the next command.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from graph_peers import Ours
from host import Host
from report import Report, check, number
from stalls import probe
from wire import Wire, encode, percentile

PIPELINE = 100
TAG_MAX_MS = 2.0

TEXT = """A cache of {entries:,} entries with vectors, all with one tag, is invalidated whole: by the tag, by a radius that
holds all, by age. "Answered" is when the command's reply came, "unlinked" when the last entry's memory
was given back. A PING is sent each millisecond from before the command until then; a reply that took
longer counts for each PING it kept from being sent."""


@dataclass(frozen=True)
class Plan:
    entries: int


def run(server, module: Path, folder: Path, base: np.ndarray, plan: Plan) -> Report:
    report = Report("Invalidation", TEXT.format(entries=plan.entries))
    table = report.table(
        "by", "answered, ms", "unlinked, ms", "PINGs", "p50 us", "p99 us", "p99.9 ms", "max ms",
        "without waits for a core: max ms",
    )
    rows = vectors.grown(base, plan.entries)
    ways = {
        "tag": ["TAG", "t"],
        "radius": ["NEAR", "FP32", vectors.blob(rows[0]), "SIMILARITY", -1],
        "age": ["OLDER", 0],
    }
    with Host(server.name, server.path, folder / "invalidate", module) as host:
        for name, way in ways.items():
            fill(host, rows)
            took, seen = invalidate(host, ["LLMCACHE.INVALIDATE", "faq", *way], plan.entries)
            whole, own = sorted(seen.whole), sorted(seen.own)
            table.add(
                name, number(took[0] * 1e3), number(took[1] * 1e3), f"{len(whole):,}", number(percentile(whole, 0.5)),
                number(percentile(whole, 0.99)), f"{percentile(whole, 0.999) / 1e3:.2f}", f"{whole[-1] / 1e3:.2f}",
                f"{own[-1] / 1e3:.2f}",
            )
            report.figures[name] = {
                "answered_ms": round(took[0] * 1e3, 2), "unlinked_ms": round(took[1] * 1e3), "pings": len(whole),
                "p999_us": round(percentile(whole, 0.999)), "max_us": round(whole[-1]), "own_max_us": round(own[-1]),
            }
            if name == "tag":
                worst = own[-1] / 1e3
                what = f"longest stall while {plan.entries:,} entries of a tag go, waits for a core aside"
                report.add_target(what, f"< {TAG_MAX_MS:g} ms", f"{worst:.2f} ms", worst < TAG_MAX_MS)
    return report


def fill(host: Host, rows: np.ndarray) -> None:
    host("FLUSHALL")
    host("LLMCACHE.CREATE", "faq", "DIM", rows.shape[1])
    commands = (
        encode(["LLMCACHE.SETSEM", "faq", "PROMPT", f"p{n}", "RESPONSE", "r", "TAGS", 1, "t", "FP32", vectors.blob(row)])
        for n, row in enumerate(rows)
    )
    host.control.pipeline(commands, PIPELINE)
    Ours("llmcache", host).settle()


def invalidate(host: Host, command: list, entries: int):
    fork = multiprocessing.get_context("fork")
    times = fork.Queue()
    worker = fork.Process(target=keep_invalidating, args=(host.port, command, entries, times))
    worker.start()
    seen = probe(host, worker, 0.2)
    took = times.get(timeout=60)
    worker.join()
    check(worker.exitcode == 0, "the invalidation went as it should")
    return took, seen


def keep_invalidating(port: int, command: list, entries: int, times) -> None:
    time.sleep(0.3)
    with Wire(port, timeout=600) as wire:
        start = time.perf_counter()
        check(wire(*command) == entries, "all entries are counted")
        answered = time.perf_counter() - start
        check(wire("LLMCACHE.GETSEM", "faq", "PROMPT", "p1") is None, "none is found any more")
        while wire("DBSIZE") > 1:
            time.sleep(0.01)
        times.put((answered, time.perf_counter() - start))
