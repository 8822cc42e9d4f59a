"""Recall of the graph beside that of hnsw_rs, which shares no code with it, on the same vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import graph_peers as peers
import vectors
from graph_peers import K, Ours
from host import Host
from report import Report, check, number
from semantic import recall, store

PACKAGE = Path(__file__).resolve().parent / "hnsw-reference"
WIDTHS = (24, 32, 48, 96, 192)
# How far below hnsw_rs our recall may be: it compares float32 vectors, our graph int8 codes.
RECALL_BEHIND = 0.012

TEXT = f"""hnsw_rs 0.3.5 in a process of its own, single-threaded, over float32 vectors, M {peers.LINKS} and a width
of 100 while it builds, as ours has; ours is asked through the server. Recall@{K} at equal EF against brute
force; microseconds of hnsw_rs are those of the library call alone."""


@dataclass(frozen=True)
class Plan:
    entries: int
    queries: int


def run(server, module: Path, folder: Path, source: Path, plan: Plan) -> Report | None:
    """`source` is the folder that holds the vectors; None where cargo is missing."""
    if shutil.which("cargo") is None:
        print("bench: reference is left out: it needs cargo", flush=True)
        return None
    theirs = library(source, plan)
    report = Report("Recall beside an independent graph", TEXT)
    table = report.table("entries", "EF", "our recall", "recall of hnsw_rs", "hnsw_rs us", "hnsw_rs inserts/s")
    base, queries = vectors.load(source)
    part, asked = base[: plan.entries], queries[: plan.queries]
    truth = vectors.nearest(part, asked, K)
    with Host(server.name, server.path, folder / f"reference-{server.name}", module) as host:
        ours = Ours("llmcache", host)
        ours.create(part.shape[1])
        store(host, (ours.insert(n, vectors.blob(v)) for n, v in enumerate(part)))
        ours.settle()
        for row in theirs:
            mine = recall(found(ours, asked, row["ef"]), truth)[0]
            table.add(
                f"{plan.entries:,}", row["ef"], f"{mine:.3f}", f"{row['recall']:.3f}", number(row["us"]),
                number(row["inserts_per_s"]),
            )
            report.figures[f"{plan.entries}/EF {row['ef']}"] = {"ours": round(mine, 4), **row}
            check(mine >= row["recall"] - RECALL_BEHIND, f"recall {mine:.3f} at EF {row['ef']}, hnsw_rs {row['recall']:.3f}")
    return report


def library(source: Path, plan: Plan) -> list[dict]:
    files = [next(iter(sorted(source.glob(pattern)))) for pattern in ("*base*.npy", "*queries*.npy")]
    command = [
        *("cargo", "run", "--release", "--quiet", "--manifest-path", str(PACKAGE / "Cargo.toml"), "--"),
        *map(str, files), *map(str, (plan.entries, plan.queries, peers.LINKS, 100, *WIDTHS)),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    check(done.returncode == 0, "the reference of hnsw_rs could not be built or run")
    return [json.loads(line) for line in done.stdout.splitlines()]


def found(ours: Ours, asked: np.ndarray, ef: int) -> list[list[int]]:
    replies = ours.host.control.pipeline([ours.find(vectors.blob(v), ef) for v in asked])
    return [[int(hit[1]) for hit in reply] for reply in replies]
