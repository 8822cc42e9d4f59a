"""Cached embeddings beside plain strings of f32 and RedisVL's EmbeddingsCache: bytes, error, latency of 100 texts."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import packages
from contest import Contender, latencies, rate_ratio, rates
from host import Host
from report import Report, check, number
from vectors import blob
from wire import Batch, encode, learn

from harness.families import embedding_digest

TEXTS = 100
MODEL = "all-MiniLM-L6-v2"
QUANTS = ("NONE", "F16", "Q8")
DIMS = (384, 1_536)
MEMORY_TARGETS = {"F16": 0.6, "Q8": 0.35}
WORKER = Path(__file__).resolve().parent / "embeddings_worker.py"

TEXT = f"""Embeddings of 384 dimensions are those of real texts; of 1,536 dimensions, four of these side by side. Memory is the
growth of `used_memory` for each embedding, index and keys included, over a string key of the same f32 bytes
(`SET emb:<32 hex digits>`). The error is the largest of any element over what
[EMBCACHE.CREATE](../commands/embcache.create.md) states for it: 1 is the bound.

A trip asks for {TEXTS} texts of some 100 bytes. `MGET` of plain strings knows the keys and hashes no text;
`MGET, EXPIRE` is the pipeline of one `MGET` and {TEXTS} `EXPIRE` that a client needs to keep what it uses, beside which
`EMBCACHE.MGETEX` stands. Median of the rounds, lowest and highest in brackets. Below, the same through client libraries
in one Python: the module by redis-py, with the vectors made into arrays, and `EmbeddingsCache.mget` of RedisVL with a TTL."""


@dataclass(frozen=True)
class Plan:
    entries: int
    rounds: int
    seconds: float
    latency_count: int


def text(number: int) -> bytes:
    return (b"How do I change the delivery address of order %08d? " % number).ljust(100, b".")


def widened(base: np.ndarray, dim: int, count: int) -> np.ndarray:
    """Rows of `dim` values, made of as many real ones of `base` as they take."""
    parts = [np.roll(base, 997 * turn, axis=0)[:count] for turn in range(dim // base.shape[1])]
    rows = np.concatenate(parts, axis=1)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")


def run(server, peer, module: Path, folder: Path, base: np.ndarray, plan: Plan) -> Report:
    report = Report("Cached embeddings", TEXT)
    memory = report.table("dimensions", "kept as", "B an embedding", "of a plain f32 string", "largest error / bound")
    speed = report.table("dimensions", "contender", "p50 us", "p99 us", "trips/s", "CPU us", "ours is faster by")
    for dim in DIMS:
        rows = widened(base, dim, plan.entries)
        with Host("embeddings", server.path, folder / f"embeddings-{dim}", module) as host:
            measure_memory(report, memory, host, rows)
            measure_speed(report, speed, host, rows, plan)
    measure_packages(report, server, peer, module, folder, base, plan)
    return report


def measure_memory(report: Report, table, host: Host, rows: np.ndarray) -> None:
    dim, count = rows.shape[1], len(rows)
    growth = grown_by(host, [["SET", plain_key(n), blob(row)] for n, row in enumerate(rows)])
    table.add(dim, "plain string", number(growth / count), "1.00", "0")
    report.figures[f"{dim}/plain"] = {"bytes": growth / count}
    for quant in QUANTS:
        name = quant.lower()
        create = ["EMBCACHE.CREATE", name, "MODEL", MODEL, "DIM", dim, "QUANT", quant]
        store = [["EMBCACHE.SET", name, "TEXT", text(n), "FP32", blob(row)] for n, row in enumerate(rows)]
        own = grown_by(host, [create, *store])
        worst = largest_error(host, name, quant, rows)
        check(worst <= 1, f"{quant} errs by {worst} times its bound")
        table.add(dim, quant, number(own / count), f"{own / growth:.2f}", f"{worst:.2f}")
        report.figures[f"{dim}/{quant}"] = {"bytes": own / count, "of_plain": own / growth, "error_of_bound": worst}
        if dim == max(DIMS) and quant in MEMORY_TARGETS:
            most = MEMORY_TARGETS[quant]
            what = f"memory of an embedding, {dim:,} dimensions, {quant}"
            report.add_target(what, f"<= {most} x a plain f32 string", f"{own / growth:.2f} x", own <= most * growth)


def plain_key(number: int) -> str:
    return "emb:" + embedding_digest(MODEL, text(number))[:32]


def grown_by(host: Host, commands: list[list]) -> int:
    before = host.used_memory()
    replies = host.control.pipeline(encode(command) for command in commands)
    check(all(reply == "OK" for reply in replies), f"stored: {[r for r in replies if r != 'OK'][:1]}")
    return host.used_memory() - before


def largest_error(host: Host, name: str, quant: str, rows: np.ndarray) -> float:
    blobs = host("EMBCACHE.MGET", name, "TEXTS", len(rows), *(text(n) for n in range(len(rows))))
    back = np.stack([np.frombuffer(one, "<f4") for one in blobs]).astype("f8")
    wanted = rows.astype("f8")
    error = np.abs(back - wanted)
    match quant:
        case "NONE":
            return 0.0 if (error == 0).all() else np.inf
        case "F16":
            return float((error / (0.0005 * np.abs(wanted) + 3.1e-8 * np.linalg.norm(wanted, axis=1, keepdims=True))).max())
        case _:
            return float((error / (np.abs(wanted).max(axis=1, keepdims=True) / 253)).max())


def measure_speed(report: Report, table, host: Host, rows: np.ndarray, plan: Plan) -> None:
    dim = rows.shape[1]
    starts = range(0, len(rows) - TEXTS + 1, TEXTS)

    def texts(start: int) -> list:
        return [text(n) for n in range(start, start + TEXTS)]

    def all_there(_: int, reply) -> None:
        check(len(reply) == TEXTS and None not in reply, "an embedding is missing")

    def contender(name: str, commands: list[bytes]) -> Contender:
        return Contender(name, host, learn(host.control, commands, 1, all_there), 1)

    plain = [encode(["MGET", *(plain_key(n) for n in range(start, start + TEXTS))]) for start in starts]
    ours = [
        contender(f"EMBCACHE.MGET, {quant}", [encode(["EMBCACHE.MGET", quant.lower(), "TEXTS", TEXTS, *texts(s)]) for s in starts])
        for quant in QUANTS
    ]
    touching = [encode(["EMBCACHE.MGETEX", "f16", "TEXTS", TEXTS, *texts(s), "EX", 3_600]) for s in starts]
    everything = [
        *ours,
        contender("EMBCACHE.MGETEX, F16", touching),
        contender("MGET of plain strings", plain),
        Contender("MGET, EXPIRE of plain strings", host, with_expiry(host, plain, starts), 1),
    ]
    rates(everything, plan.rounds, plan.seconds)
    latencies(everything, plan.rounds, plan.latency_count)
    *_, touch, get, get_expire = everything
    for one in everything:
        plain_one = one in (get, get_expire)
        ratio = rate_ratio(one, get_expire if one is touch else get)
        table.add(
            *(dim, one.name, number(one.p(0.5)), number(one.p(0.99))),
            *(number(one.rate()), f"{one.cpu():.0f}", "" if plain_one else ratio),
        )
        report.figures[f"{dim}/{one.name}"] = {
            "p50_us": one.p(0.5), "p99_us": one.p(0.99), "trips_per_s": one.rate(), "ratio": ratio.raw(),
        }  # fmt: skip


def with_expiry(host: Host, plain: list[bytes], starts: range) -> list[Batch]:
    batches = []
    for command, start in zip(plain, starts):
        part = [command, *(encode(["EXPIRE", plain_key(n), 3_600]) for n in range(start, start + TEXTS))]
        before = host.control.bytes_read
        replies = host.control.flush(part)
        check(replies[1:] == [1] * TEXTS, "a deadline did not move")
        # A trip counts as one, as that of the others.
        batches.append(Batch(b"".join(part), host.control.bytes_read - before, 1))
    return batches


def measure_packages(report: Report, server, peer, module: Path, folder: Path, base: np.ndarray, plan: Plan) -> None:
    python = packages.provide(packages.VENV, packages.HERE / "peer_packages.txt")
    if python is None:
        return
    table = report.table("library", "dimensions", "p50 us of 100 texts", "p99 us", "commands", "B an embedding", "ours is faster by")
    for dim in DIMS:
        path = folder / f"embeddings-{dim}.npy"
        np.save(path, widened(base, dim, min(plan.entries, 1_000)))
        told = {}
        for name in ("llmcache", "redisvl"):
            with Host(name, server.path, folder / f"embeddings-{name}-{dim}", module if name == "llmcache" else None) as host:
                done = subprocess.run(
                    [str(part) for part in (python, WORKER, name, host.port, path, TEXTS, plan.latency_count)],
                    capture_output=True,
                    text=True,
                )
                check(done.returncode == 0, f"{name} failed: {done.stderr[-2_000:]}")
                told[name] = json.loads(done.stdout.splitlines()[-1])
        ratio = told["redisvl"]["p50_us"] / told["llmcache"]["p50_us"]
        for name, seen in told.items():
            shown = "" if name == "llmcache" else f"{ratio:.1f}"
            label = {"llmcache": "llmcache, redis-py, F16, MGETEX", "redisvl": "RedisVL 0.28 EmbeddingsCache"}[name]
            table.add(label, dim, number(seen["p50_us"]), number(seen["p99_us"]), f"{seen['commands']:.0f}", number(seen["bytes"]), shown)
            report.figures[f"{dim}/{name}"] = seen
        check(told["llmcache"]["commands"] == 1, "a trip is one command")
        report.add_target(f"{TEXTS} texts through the library, {dim:,} dimensions", "faster than RedisVL EmbeddingsCache", f"{ratio:.1f} x", ratio > 1)
