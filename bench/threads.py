"""Searches of a millisecond beside a client that sends PING: on the main thread, and in threads of their own."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from graph_peers import K, Ours
from host import Host
from report import Report, check, number
from semantic import store
from stalls import NICE, probe
from wire import Failure, Wire, encode, percentile

CONNECTIONS = 4
THREADS = (0, 1, 2)

TEXT = """{entries:,} entries under `INDEX FLAT`, all of which each search compares, asked by {connections} connections, one
query each at a time; and a PING each millisecond beside them, timed as under "Stalls". `llmcache.search-threads` says in
how many threads searches go on (0: on the main thread, as MULTI and scripts have it). The machine has {cores} cores for
the server and both clients, so more threads than that find no more a second."""


@dataclass(frozen=True)
class Plan:
    entries: int
    seconds: float


def run(server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("Long searches in threads", TEXT.format(entries=plan.entries, connections=CONNECTIONS, cores=os.cpu_count()))
    table = report.table("threads", "searches/s", "PINGs", "PING p50 us", "p99 us", "p99.9 us", "max us", "searches in threads")
    rows = vectors.varied(base, plan.entries)
    with Host("llmcache", server.path, folder / "threads", module) as host:
        host("LLMCACHE.CREATE", "faq", "DIM", rows.shape[1], "INDEX", "FLAT")
        cache = Ours("llmcache", host)
        store(host, (cache.insert(n, vectors.blob(row)) for n, row in enumerate(rows)))
        check(cache.count() == len(rows), "all were stored")
        asked = [find(vectors.blob(query)) for query in queries[:200]]
        seen = {threads: watch(host, asked, threads, plan.seconds, report, table) for threads in THREADS}
    before, after = seen[0], seen[THREADS[-1]]
    report.add_target(
        f"p99 of PING beside searches of all of {plan.entries:,} entries, in threads", "< on the main thread",
        f"{after / 1e3:.2f} ms against {before / 1e3:.2f} ms", after < before,
    )
    return report


def find(blob: bytes) -> bytes:
    return encode(["LLMCACHE.GETSEM", "faq", "FP32", blob, "THRESHOLD", -1, "COUNT", K, "RETURN", 1, "response"])


def watch(host: Host, asked: list[bytes], threads: int, seconds: float, report: Report, table) -> float:
    host("CONFIG", "SET", "llmcache.search-threads", threads)
    given = in_threads(host)
    fork = multiprocessing.get_context("fork")
    rates = fork.Queue()
    searching = fork.Process(target=keep_searching, args=(host.port, asked, seconds, rates))
    searching.start()
    pings = probe(host, searching, 0)
    found = rates.get(timeout=60)
    searching.join()
    given = in_threads(host) - given
    check((given > 0) == (threads > 0), f"{given} searches went to {threads} threads")
    whole = sorted(pings.whole)
    p50, p99, p999 = (percentile(whole, share) for share in (0.5, 0.99, 0.999))
    table.add(threads, number(found), f"{len(whole):,}", *map(number, (p50, p99, p999, whole[-1])), f"{given:,}")
    report.figures[f"{threads} threads"] = {
        "searches_per_s": round(found), "p50_us": round(p50), "p99_us": round(p99), "p999_us": round(p999),
    }
    return p99


def in_threads(host: Host) -> int:
    return int(host.info("everything")["llmcache_searches_in_threads"])


def keep_searching(port: int, asked: list[bytes], seconds: float, rates) -> None:
    os.nice(NICE)
    wires = [Wire(port) for _ in range(CONNECTIONS)]
    start, count = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds:
        for wire in wires:
            wire.socket.sendall(asked[count % len(asked)])
            count += 1
        for wire in wires:
            check(not isinstance(reply := wire.read(), Failure), f"the search was refused: {reply}")
    rates.put(count / took)
