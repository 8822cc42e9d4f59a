"""How long a server keeps others waiting while entries pour in, expire and are searched for.

A prober sends PING each millisecond beside a process that stores and one that searches. Its own
stalls do not count: a PING starts when the kernel has it and ends when the kernel stamps the reply's
arrival, whenever the prober comes to read it. What the server's thread waited for a core is shown
apart, and so is a server without the module that is given hashes of the same bytes.
"""

from __future__ import annotations

import bisect
import math
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import vectors
from graph_peers import K, Ours
from host import Host
from report import Report, check, number
from wire import Batch, Failure, Load, Wire, encode, percentile

SO_TIMESTAMPNS = 35
STEP_S = 0.001
CONNECTIONS = 8
SEARCHERS = 2
EF = 40
# Depth of the pipelines, and the most that p99.9 may be.
TARGETS_MS = {1: 2.0, 32: 10.0}
# A probe that the prober itself could not send in one go says nothing.
SEND_NS_MAX = 100_000
# The processes that make the load yield to the server and to the prober.
NICE = 10
BUCKETS_MS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 25, math.inf)

TEXT = f"""PING each millisecond while {CONNECTIONS} connections store entries that expire after {{ttl:g}} s, and
{SEARCHERS} search (`COUNT {K} EF {EF}`), until all have expired; `INDEX HNSW`. "SET" is a server without the
module, given as many strings of the same bytes and lifetime by `SET … PX`, at the rate at which the module took
them, and read from by `GET`: what the server and the machine do by themselves.

A PING is timed from when the kernel takes it to the kernel's stamp on the reply: stalls of the prober do not
count. A reply that took longer than the pause counts for each PING it kept from being sent. "Without waits"
leaves out the time that the server's thread was ready and had no core (at most that much of it), the machine
having {{cores}} cores for the server and three processes. Targets are judged on what was seen, waits included.
"One store" and "longest" are the server's own notes (`INFO latencystats`; `LATENCY LATEST`, events of 1 ms and
more; timers of modules are not among them). All commands that have arrived, {CONNECTIONS} pipelines of them, are
run before the server looks for a PING."""


@dataclass(frozen=True)
class Plan:
    entries: int
    ttl_ms: int


@dataclass
class Seen:
    """What the prober saw, in microseconds."""

    whole: list[float] = field(default_factory=list)
    # Without the waits of the server's thread for a core.
    own: list[float] = field(default_factory=list)
    left_out: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of server, how it is stored to and searched."""

    name: str
    module: Path | None
    command: str
    store: Callable[[int], bytes]
    reply_bytes: int
    asked: Sequence[bytes]


def run(server, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report:
    report = Report("Stalls", TEXT.format(ttl=plan.ttl_ms / 1000, cores=os.cpu_count()))
    table = report.table(
        "pipelines of", "server", "stored/s", "searches/s", "PINGs", "p50 us", "p99 us", "p99.9 ms", "max ms",
        "without waits: p99.9 ms", "max ms",
        "one store, us: p50, p99, p99.9", "longest, ms",
    )
    buckets = report.table("pipelines of", "server", *(f"< {ms:g} ms" if ms < math.inf else "more" for ms in BUCKETS_MS))
    rows = vectors.grown(base, plan.entries)
    for depth, most in TARGETS_MS.items():
        rate = math.inf
        for kind in (ours(rows, queries, module, plan), plain(rows, plan)):
            with Host(kind.name, server.path, folder / f"stalls-{kind.name}-{depth}", kind.module) as host:
                if kind.module is not None:
                    host("LLMCACHE.CREATE", "faq", "DIM", rows.shape[1], "INDEX", "HNSW")
                host("CONFIG", "SET", "latency-monitor-threshold", 1)
                rate, found, seen = watch(host, kind, depth, plan, rate)
                notes = server_notes(host, kind)
            show(report, (table, buckets), depth, kind, (rate, found), seen, notes)
            if kind.module is not None:
                worst = percentile(seen.whole, 0.999) / 1e3
                how = "unpipelined" if depth == 1 else f"in pipelines of {depth}"
                what = f"p99.9 of PING, {plan.entries:,} entries stored {how}"
                report.add_target(what, f"< {most:g} ms", f"{worst:.2f} ms", worst < most)
    return report


def ours(rows: np.ndarray, queries: np.ndarray, module: Path, plan: Plan) -> Kind:
    cache = Ours("llmcache", None)

    def put(n: int) -> bytes:
        return encode([*cache.insert(n, vectors.blob(rows[n])), "PX", plan.ttl_ms])

    asked = [cache.find(vectors.blob(v), EF) for v in queries[:200]]
    # The reply is an id: 32 hex digits as a bulk string.
    return Kind("llmcache", module, "LLMCACHE.SETSEM", put, 39, asked)


def plain(rows: np.ndarray, plan: Plan) -> Kind:
    def put(n: int) -> bytes:
        return encode(["SET", f"entry:{n:032d}", b"p%015d" % n + rows[n].astype("<f2").tobytes(), "PX", plan.ttl_ms])

    asked = [encode(["GET", f"entry:{n:032d}"]) for n in range(200)]
    return Kind("SET", None, "set", put, len(b"+OK\r\n"), asked)


def watch(host: Host, kind: Kind, depth: int, plan: Plan, rate: float) -> tuple[float, float, Seen]:
    """Rates of storing and of searching, and what the prober saw until all had expired."""
    fork = multiprocessing.get_context("fork")
    over, rates = fork.Event(), fork.Queue()
    storing = fork.Process(target=keep_storing, args=(host.port, kind, depth, plan.entries, rate, rates))
    searching = fork.Process(target=keep_searching, args=(host.port, kind, over, rates))
    try:
        searching.start()
        storing.start()
        seen = probe(host, storing, plan.ttl_ms / 1e3 + 0.3)
    finally:
        over.set()
        # What each came to is read before it is waited for: a process ends once its queue is empty.
        came_to = dict(rates.get(timeout=60) for _ in range(2))
        storing.join()
        searching.join()
    calls = host.info("commandstats")[f"cmdstat_{kind.command}"]
    check(f"calls={plan.entries}," in calls and "failed_calls=0" in calls, f"all were stored: {calls}")
    all_gone(host, 1 if kind.module is not None else 0)
    return came_to["stored"], came_to["searched"], seen


def server_notes(host: Host, kind: Kind) -> tuple[list[float], dict[str, int]]:
    """What the server notes of itself: microseconds of a storing command, and its longest events in milliseconds."""
    shares = host.info("latencystats")[f"latency_percentiles_usec_{kind.command}"]
    longest = {bytes(event[0]).decode(): event[3] for event in host("LATENCY", "LATEST")}
    return [float(share.split("=")[1]) for share in shares.split(",")], longest


def all_gone(host: Host, rest: int) -> None:
    end = time.monotonic() + 30
    while (left := host("DBSIZE")) > rest and time.monotonic() < end:
        time.sleep(0.05)
    check(left == rest, f"{left - rest} entries of {host.name} outlived their time")
    if rest:
        check(Ours("llmcache", host).count() == 0, "no entry is left in the cache")


def keep_storing(port: int, kind: Kind, depth: int, entries: int, rate: float, rates) -> None:
    """Stores all, at most at that rate."""
    os.nice(NICE)
    load = Load(port, CONNECTIONS)
    start = time.perf_counter()
    for first in range(0, entries, depth * CONNECTIONS):
        time.sleep(max(0, start + first / rate - time.perf_counter()))
        numbers = range(first, min(entries, first + depth * CONNECTIONS))
        parts = [numbers[at : at + depth] for at in range(0, len(numbers), depth)]
        load.round([
            Batch(b"".join(map(kind.store, part)), len(part) * kind.reply_bytes, len(part)) for part in parts
        ])
    rates.put(("stored", entries / (time.perf_counter() - start)))


def keep_searching(port: int, kind: Kind, over, rates) -> None:
    """One query under way on each connection; replies differ from time to time, so they are read as such."""
    os.nice(NICE)
    wires = [Wire(port) for _ in range(SEARCHERS)]
    start, asked = time.perf_counter(), 0
    while not over.is_set():
        for wire in wires:
            wire.socket.sendall(kind.asked[asked % len(kind.asked)])
            asked += 1
        for wire in wires:
            check(not isinstance(reply := wire.read(), Failure), f"the search was refused: {reply}")
    rates.put(("searched", asked / (time.perf_counter() - start)))


def probe(host: Host, busy, after_s: float, request: bytes = b"PING\r\n", answer: bytes = b"+PONG\r\n") -> Seen:
    """PINGs, or what else has one short answer, until the busy process has ended and `after_s` more have passed."""
    seen, end = Seen(), math.inf
    waits = os.open(f"/proc/{host.process.pid}/task/{host.process.pid}/schedstat", os.O_RDONLY)
    with socket.create_connection(("127.0.0.1", host.port)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        while time.monotonic() < end:
            if end == math.inf and not busy.is_alive():
                end = time.monotonic() + after_s
            time.sleep(STEP_S)
            waited = waited_ns(waits)
            start = time.clock_gettime_ns(time.CLOCK_REALTIME)
            one.sendall(request)
            sent = time.clock_gettime_ns(time.CLOCK_REALTIME)
            reply, extra, _, _ = one.recvmsg(len(answer) + 64, 64)
            check(reply == answer, f"{request!r} was answered by {reply!r}")
            waited = waited_ns(waits) - waited
            # The kernel starts to stamp a moment after it is first asked to.
            if sent - start > SEND_NS_MAX or not extra:
                seen.left_out += 1
                continue
            seconds, ns = struct.unpack("qq", extra[0][2])
            took = seconds * 10**9 + ns - start
            seen.whole += kept_waiting(took / 1e3)
            seen.own += kept_waiting(max(0, took - waited) / 1e3)
    os.close(waits)
    return seen


def waited_ns(file: int) -> int:
    """How long the server's thread has been ready to run without a core."""
    return int(os.pread(file, 64, 0).split()[1])


def kept_waiting(us: float) -> list[float]:
    """What a PING took, and what those would have taken that were not sent while it was waited for."""
    return [us - late for late in range(0, max(1, math.ceil(us)), round(STEP_S * 1e6))]


def show(report: Report, tables, depth: int, kind: Kind, per_s, seen: Seen, notes) -> None:
    (table, buckets), (stored, found), (store_us, longest) = tables, per_s, notes
    whole, own = sorted(seen.whole), sorted(seen.own)
    table.add(
        depth, kind.name, number(stored), number(found), f"{len(whole):,}", number(percentile(whole, 0.5)),
        number(percentile(whole, 0.99)), f"{percentile(whole, 0.999) / 1e3:.2f}", f"{whole[-1] / 1e3:.2f}",
        f"{percentile(own, 0.999) / 1e3:.2f}", f"{own[-1] / 1e3:.2f}",
        ", ".join(map(number, store_us)), ", ".join(f"{event} {ms}" for event, ms in longest.items()),
    )
    counts, below = [], 0
    for ms in BUCKETS_MS:
        upto = bisect.bisect_left(whole, ms * 1e3)
        counts.append(upto - below)
        below = upto
    buckets.add(depth, kind.name, *(f"{count:,}" for count in counts))
    report.figures[f"depth {depth}/{kind.name}"] = {
        "stored_per_s": round(stored), "searched_per_s": round(found), "pings": len(whole), "left_out": seen.left_out,
        "p50_us": round(percentile(whole, 0.5), 1), "p99_us": round(percentile(whole, 0.99), 1),
        "p999_us": round(percentile(whole, 0.999)), "max_us": round(whole[-1]),
        "without_waits_p999_us": round(percentile(own, 0.999)), "without_waits_max_us": round(own[-1]),
        "histogram": counts, "store_us": store_us, "longest_ms": longest,
    }
