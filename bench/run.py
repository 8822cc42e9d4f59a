#!/usr/bin/env python3
"""Measures the module beside its peers on this machine and writes docs/benchmarks/.

    python bench/run.py                       quick: the vectors of bench/data, a few minutes
    python bench/run.py --vectors FOLDER      full: graphs of up to a million entries, a million scopes
    python bench/run.py --trace FILE          full replay of prompts: 20 minutes at the default pace
    python bench/run.py --only graph stalls   some of them, printed; where --out names a page, its sections are replaced

Owns: which benchmark runs at what size, and the pages. Wrong answers and wrong counts fail the run;
times are reported beside their targets and fail nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "bench"), str(ROOT / "tests")]

import embed  # noqa: E402
import embeddings  # noqa: E402
import exact  # noqa: E402
import faults  # noqa: E402
import graph  # noqa: E402
import hybrid  # noqa: E402
import invalidate  # noqa: E402
import kvfetch  # noqa: E402
import kvtrace  # noqa: E402
import large  # noqa: E402
import library  # noqa: E402
import million  # noqa: E402
import packages  # noqa: E402
import page  # noqa: E402
import rag  # noqa: E402
import reference  # noqa: E402
import restart  # noqa: E402
import scopes  # noqa: E402
import semantic  # noqa: E402
import session  # noqa: E402
import stalls  # noqa: E402
import threads  # noqa: E402
import trips  # noqa: E402
import vectors  # noqa: E402
import words  # noqa: E402
from report import Report  # noqa: E402
from servers import provide_all, provide_redisearch  # noqa: E402

OUT = ROOT / "docs" / "benchmarks"
MODULE = ROOT / "target" / "release" / "libllmcache.so"
NAMES = (
    "trips", "exact", "semantic", "packages", "graph", "million", "library", "large", "reference", "restart", "stalls", "faults", "threads", "invalidate", "scopes", "embeddings", "embed", "rag", "words", "hybrid",
    "kvfetch", "kvtrace", "session",
)  # fmt: skip


def main() -> int:
    # Asked to end, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = argparse.ArgumentParser(description="measure the module beside its peers")
    options.add_argument("--vectors", type=Path, help="folder with *base*.npy and *queries*.npy, for the full sizes")
    options.add_argument("--trace", type=Path, help="a Mooncake trace, for the full replay of prompts")
    options.add_argument("--cranfield", type=Path, help="folder of the Cranfield collection, for nDCG of searches by words")
    options.add_argument("--pace", type=float, default=0.2, help="seconds in which a second of the trace is replayed")
    options.add_argument("--only", nargs="+", choices=NAMES, help="some benchmarks, printed; replaced in the page where --out says")
    options.add_argument("--at-most", type=int, default=million.ENTRIES, help="leave out graphs of more entries")
    options.add_argument("--out", type=Path, help="where the page and the figures go")
    chosen = options.parse_args()
    full = chosen.vectors is not None

    wanted = Path(os.environ.get("LLMCACHE_MODULE", MODULE))
    if not wanted.exists():
        raise SystemExit(f"bench: {wanted} is missing; run make build")
    servers = {server.name: server for server in provide_all()}
    for server in servers.values():
        if server.path is None:
            print(f"bench: {server.name} could not be had and is left out: {server.problem}", flush=True)
    here = [server for server in servers.values() if server.path]
    if not here:
        raise SystemExit("bench: no server could be had")
    source = chosen.vectors or vectors.FIXTURE
    base, queries = vectors.load(source)

    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # A copy: a build during the run must not change what is measured.
        module = Path(shutil.copy(wanted, folder))
        for name in named(chosen.only):
            start = time.monotonic()
            print(f"bench: {name} ...", flush=True)
            if report := measure(name, here, servers, module, folder, source, base, queries, full, chosen):
                reports[name] = report
                print(f"\n{report.markdown()}\n\nbench: {name} took {time.monotonic() - start:.0f} s\n", flush=True)

    out = chosen.out or (OUT if chosen.only is None else None)
    if out is not None:
        page.write(out, reports, about(here, full), whole=chosen.only is None)
        print(f"bench: written to {out}")
    print(page.targets(reports).markdown())
    return 0


def named(only: list[str] | None) -> list[str]:
    """What is to be measured: stalls are those of stores and those of the worst commands."""
    if only is None:
        return list(NAMES)
    return [name for name in NAMES if name in only or name == "faults" and "stalls" in only]


def provided_redisearch(peer):
    redisearch = provide_redisearch(peer)
    if redisearch.path is None:
        print(f"bench: {redisearch.name} could not be had and is left out: {redisearch.problem}", flush=True)
    return redisearch


def measure(name, here, servers, module, folder, source, base, queries, full, chosen) -> Report | None:
    first, peer, at_most = here[0], servers["redis-8.2"], chosen.at_most
    if name in ("semantic", "packages", "graph", "rag", "words", "hybrid") and peer.path is None:
        print(f"bench: {name} is left out: it needs a server with vector sets", flush=True)
        return None
    match name:
        case "trips":
            return trips.run(first, module, folder, base)
        case "exact":
            return exact.run(here, module, folder, exact.Plan(rounds=3, seconds=0.4))
        case "invalidate":
            return invalidate.run(first, module, folder, base, invalidate.Plan(100_000 if full else 20_000))
        case "scopes":
            size = 1_000_000 if full else 100_000
            plan = scopes.Plan(size, searched=min(10_000, len(base)), rounds=3, latency_count=500)
            return scopes.run(first, module, folder, base, plan)
        case "semantic":
            sizes = (1_000, 10_000) if full else (1_000, len(base))
            asked = min(len(queries), 320)
            plan = semantic.Plan(sizes, asked, rounds=3, seconds=0.5, latency_count=asked)
            return semantic.run(peer, module, folder, base, queries, plan)
        case "packages":
            redisearch = provided_redisearch(peer)
            plan = packages.Plan(min(len(base), 10_000), asked=min(len(queries), 200))
            return packages.run(peer, redisearch, module, folder, base, queries, plan) if redisearch.path else None
        case "graph":
            sizes = tuple(size for size in (10_000, 50_000, 100_000) if size <= at_most) if full else (len(base),)
            plan = graph.Plan(sizes, rounds=3, seconds=0.4, latency_count=300, removed=1_000)
            redisearch = provided_redisearch(peer)
            return graph.run(peer, redisearch, module, folder, base, queries[:512], plan)
        case "million":
            if not full or at_most < million.ENTRIES:
                print("bench: million is left out: it takes --vectors", flush=True)
                return None
            plan = million.Plan(million.ENTRIES, rounds=3, seconds=4, latency_count=1_000, removed=10_000)
            return million.run(first, module, folder, base, queries, plan)
        case "library":
            return library.run(source, library.Plan(min(50_000, at_most) if full else len(base), rounds=7))
        case "large":
            dims = tuple((10_000 if full else 2_000, dim) for dim in (384, 768, 1_024, 1_536, 3_072))
            million_of = ((at_most, 1_536),) if full and at_most > 10_000 else ()
            return large.run(source, large.Plan(dims + million_of))
        case "reference":
            plan = reference.Plan(10_000 if full else len(base), queries=200)
            return reference.run(first, module, folder, source, plan)
        case "restart":
            plan = restart.Plan(min(50_000, at_most) if full else len(base), rounds=5)
            return restart.run(first, module, folder, base, plan)
        case "stalls":
            plan = stalls.Plan(100_000, ttl_ms=3_000) if full else stalls.Plan(8_000, ttl_ms=1_000)
            return stalls.run(first, module, folder, base, queries, plan)
        case "faults":
            return faults.run(first, module, folder)
        case "threads":
            plan = (
                threads.Plan(min(50_000, at_most), seconds=8, pipelined=min(100_000, 2 * at_most))
                if full
                else threads.Plan(40_000, seconds=3, pipelined=20_000)
            )
            return threads.run(first, module, folder, base, queries, plan)
        case "embeddings":
            plan = embeddings.Plan(10_000 if full else 2_000, rounds=3, seconds=0.4, latency_count=300)
            return embeddings.run(first, peer, module, folder, base, plan)
        case "embed":
            return embed.run(first, module, folder, embed.Plan(asked=1_000 if full else 300, seconds=8 if full else 4))
        case "words":
            plan = words.Plan(min(50_000, at_most), rounds=3, seconds=0.4, ping_seconds=5)
            return words.run(peer, provided_redisearch(peer), module, folder, plan)
        case "hybrid":
            plan = hybrid.Plan(min(50_000, at_most), rounds=3, seconds=0.8, cranfield=chosen.cranfield)
            return hybrid.run(peer, provided_redisearch(peer), module, folder, base, queries, plan)
        case "rag":
            plan = rag.Plan(min(len(base), at_most), rounds=3, seconds=0.4)
            return rag.run(peer, provided_redisearch(peer), module, folder, base, queries[:256], plan)
        case "session":
            return session.run(first, module, folder, session.Plan(rounds=5, seconds=0.4))
        case "kvfetch":
            return kvfetch.run(first, module, folder, kvfetch.plan(full))
        case "kvtrace":
            return kvtrace.run(first, module, folder, kvtrace.plan(chosen.trace, chosen.pace))
    raise SystemExit(f"bench: no benchmark is named {name}")


def machine() -> str:
    """The CPU's name and number of cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def about(here: list, full: bool) -> str:
    versions = ", ".join(f"{server.name} ({server.version})" for server in here)
    size = "full (`make bench VECTORS=… TRACE=…`)" if full else "quick (`make bench`), 4,000 vectors from `bench/data`"
    return f"Machine: {machine()}. Servers: {versions}. Size of the run: {size}."


if __name__ == "__main__":
    sys.exit(main())
