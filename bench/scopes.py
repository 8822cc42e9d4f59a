"""Many scopes of one entry each, beside one scope that holds as many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vectors
from contest import Contender, latencies
from host import Host
from report import Report, check, number
from wire import encode, learn

PROMPT_BYTES = 40
RESPONSE_BYTES = 60
# Names of keys and what a server keeps for each of them are the same on both sides.
SCOPE_BYTES_TARGET = 48
SHOWN = 500

TEXT = f"""Each entry has a prompt of {PROMPT_BYTES} and a response of {RESPONSE_BYTES} bytes and a vector of 384
dimensions, kept as F16. "Scopes" gives every entry a scope of its own, named in 14 bytes; "one scope" puts
all into the empty scope. Latency is that of `LLMCACHE.GETSEM` with a vector, one client, one query at a time,
each in another scope, RETURN 1 response; the server holds all the entries meanwhile. A scope of one entry is
asked for its only entry, a scope of many is searched whole (`INDEX FLAT`, lest the links of a graph be
taken for what scopes cost)."""


@dataclass(frozen=True)
class Plan:
    entries: int
    searched: int
    rounds: int
    latency_count: int


def run(server, module: Path, folder: Path, base: np.ndarray, plan: Plan) -> Report:
    report = Report("Many scopes", TEXT)
    table = report.table("what", "entries", "used_memory, B an entry", "index, B an entry", "p50 us", "p99 us")
    blobs = [vectors.blob(v) for v in base[: min(len(base), 10_000)]]
    with Host(server.name, server.path, folder / f"scopes-{server.name}", module) as host:
        # One scope first, so that the latencies below are taken with the scopes in place.
        one = fill(host, "one", plan.entries, blobs, scoped=False)
        host("FLUSHALL", "SYNC")
        many = fill(host, "many", plan.entries, blobs, scoped=True)
        fill(host, "small", plan.searched, blobs, scoped=False)
        fill(host, "single", 1, blobs, scoped=False)
        numbers = [(at * 7_919) % plan.entries for at in range(SHOWN)]
        asked = {
            "scopes of one": [question(b"many", n, blobs, True) for n in numbers],
            "a cache of one entry": [question(b"single", 0, blobs, False) for _ in numbers],
            f"one scope of {plan.searched:,}": [question(b"small", n % plan.searched, blobs, False) for n in numbers],
        }
        contenders = []
        for name, commands in asked.items():
            batches = learn(host.control, commands, 1, lambda _, reply, name=name: check(reply is not None, f"{name} missed"))
            contenders.append(Contender(name, host, batches, 1))
        latencies(contenders, plan.rounds, plan.latency_count)
    show = dict(zip(asked, contenders))
    tiny, lone, flat = show.values()
    table.add("scopes of one entry", f"{plan.entries:,}", number(many[0]), number(many[1]), number(tiny.p(0.5)), number(tiny.p(0.99)))
    table.add("one scope", f"{plan.entries:,}", number(one[0]), number(one[1]), "", "")
    table.add("one scope", f"{plan.searched:,}", "", "", number(flat.p(0.5)), number(flat.p(0.99)))
    table.add("one scope", "1", "", "", number(lone.p(0.5)), number(lone.p(0.99)))
    report.figures[f"entries {plan.entries}"] = {
        "scopes_bytes": round(many[0]), "scopes_index_bytes": round(many[1]),
        "one_scope_bytes": round(one[0]), "one_scope_index_bytes": round(one[1]),
        "scopes_p50_us": round(tiny.p(0.5), 1), "single_p50_us": round(lone.p(0.5), 1),
        f"one_scope_of_{plan.searched}_p50_us": round(flat.p(0.5), 1),
    }
    extra = many[1] - one[1]
    report.add_target(
        f"index bytes that a scope of its own adds, {plan.entries:,} scopes",
        f"<= {SCOPE_BYTES_TARGET} B", f"{extra:.0f} B", extra <= SCOPE_BYTES_TARGET,
    )
    return report


def scope(n: int) -> bytes:
    return b"tenant-%07d" % n


def prompt(n: int) -> bytes:
    return (b"Where is order %08d? " % n).ljust(PROMPT_BYTES, b".")


def fill(host: Host, cache: str, entries: int, blobs: list[bytes], scoped: bool) -> tuple[float, float]:
    """used_memory and index bytes an entry."""
    host("LLMCACHE.CREATE", cache, "DIM", len(blobs[0]) // 4, "INDEX", "FLAT")
    before = host.used_memory()
    commands = (
        encode([
            "LLMCACHE.SETSEM", cache, "PROMPT", prompt(n), "RESPONSE", b"On its way.".ljust(RESPONSE_BYTES, b"."),
            "FP32", blobs[n % len(blobs)], *(["SCOPE", scope(n)] if scoped else []),
        ])
        for n in range(entries)
    )
    stored = 0
    while True:
        part = [command for _, command in zip(range(50), commands)]
        if not part:
            break
        replies = host.control.flush(part)
        check(all(isinstance(reply, bytes) for reply in replies), f"stored: {replies[0]}")
        stored += len(part)
    info = host("LLMCACHE.INFO", cache)
    info = dict(zip(info[::2], info[1::2]))
    check(int(info[b"entries"]) == entries == stored, f"{entries} entries are there")
    check(int(info[b"partitions"]) == (entries if scoped else 1), "each has the scope it was given")
    return (host.used_memory() - before) / entries, int(info[b"index_bytes"]) / entries


def question(cache: bytes, n: int, blobs: list[bytes], scoped: bool) -> bytes:
    within = ["SCOPE", scope(n)] if scoped else []
    return encode(["LLMCACHE.GETSEM", cache, "FP32", blobs[n % len(blobs)], *within, "RETURN", 1, "response"])
