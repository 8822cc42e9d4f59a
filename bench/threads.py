"""Searches of a millisecond beside a client that sends PING, and short ones that many clients send in pipelines: on the
main thread, and in threads of their own."""

from __future__ import annotations

import multiprocessing
import os
import statistics
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
from wire import Failure, Load, Wire, encode, learn, percentile

CONNECTIONS = 4
THREADS = (0, 1, 2)

TEXT = """{entries:,} entries under `INDEX FLAT`, all of which each search compares, asked by {connections} connections, one
query each at a time; and a PING each millisecond beside them, timed as under "Stalls". `llmcache.search-threads` says in
how many threads searches go on (0: on the main thread, as MULTI and scripts have it). The machine has {cores} cores for
the server and both clients, so more threads than that find no more a second."""

PIPELINED = 8
ROUNDS = 5
BY_LOAD = """{entries:,} entries in a graph, asked by {clients} connections, {clients} queries each at a time, for one answer at EF 64.
Rounds without threads and with them take turns; ratios are the median of rounds. CPU time is that of a query: of the main thread
(read, open, reply, hand over, and the searches that it does itself), of the threads, and of the client, which shares the {cores}
cores. `at most` is what that leaves room for: the CPU time of a query without threads, over a {cores}th of that of
server and client with them."""


@dataclass(frozen=True)
class Plan:
    entries: int
    seconds: float
    pipelined: int


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
    return report.joined(by_load(server, module, folder, base, queries, plan))


def by_load(server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    """Throughput of short searches by many clients."""
    cores = os.cpu_count() or 1
    report = Report("Short searches in threads, by load", BY_LOAD.format(entries=plan.pipelined, clients=PIPELINED, cores=cores))
    table = report.table("threads", "queries/s", "main us", "threads us", "client us", "handed over", "ratio", "at most")
    rows = vectors.varied(base, plan.pipelined)
    with Host("llmcache", server.path, folder / "by-load", module) as host:
        cache = Ours("llmcache", host)
        cache.create(rows.shape[1])
        store(host, (cache.insert(n, vectors.blob(row)) for n, row in enumerate(rows)))
        cache.settle()
        asked = [encode(["LLMCACHE.GETSEM", "faq", "FP32", vectors.blob(q), "THRESHOLD", -1, "RETURN", 1, "response"]) for q in queries]
        batches, load = learn(host.control, asked, PIPELINED), Load(host.port, PIPELINED)
        rounds = [{threads: once(host, load, batches, threads, plan.seconds / ROUNDS) for threads in THREADS} for _ in range(ROUNDS)]
        load.close()
    middle = {threads: [statistics.median(one[threads][part] for one in rounds) for part in range(5)] for threads in THREADS}
    ratios = {threads: statistics.median(one[threads][0] / one[0][0] for one in rounds) for threads in THREADS}
    for threads, (rate, main, searching, client, handed) in middle.items():
        most = middle[0][1] / ((main + searching + client) / cores)
        table.add(threads, *map(number, (rate, main, searching, client)), f"{handed:.0%}", f"{ratios[threads]:.2f}", f"{most:.2f}")
        report.figures[f"{threads} threads by load"] = {"queries_per_s": round(rate), "ratio": round(ratios[threads], 2)}
    got = ratios[THREADS[-1]]
    report.add_target(
        f"queries/s of {PIPELINED} pipelined clients over {plan.pipelined:,} entries, {THREADS[-1]} threads on {cores} cores", ">= 1.6 x none",
        f"{got:.2f} x", got >= 1.6,
    )
    return report


def once(host: Host, load: Load, batches, threads: int, seconds: float) -> tuple[float, float, float, float, float]:
    """Queries a second; microseconds of a query on the main thread, in threads and in the client; what share was handed over."""
    host("CONFIG", "SET", "llmcache.search-threads", threads)
    load.run(batches, seconds / 10)
    given, before, client = in_threads(host), thread_seconds(host), time.thread_time()
    count, took = load.run(batches, seconds)
    client = time.thread_time() - client
    spent = {thread: now - before.get(thread, 0) for thread, now in thread_seconds(host).items()}
    searching = sum(of for (_, name), of in spent.items() if name == "llmcache-search")
    main = sum(of for (thread, _), of in spent.items() if thread == host.process.pid)
    return count / took, *(of / count * 1e6 for of in (main, searching, client)), (in_threads(host) - given) / count


def thread_seconds(host: Host) -> dict[tuple[int, str], float]:
    """CPU time of each thread of the server, by number and name."""
    folder = Path(f"/proc/{host.process.pid}/task")
    return {
        (int(task.name), (task / "comm").read_text().strip()): int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in folder.iterdir()
    }


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
