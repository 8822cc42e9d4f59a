"""The index alone beside the best library there is: core and Intel's SVS in a process each, on the same vectors.

No server takes part. Both are single-threaded; what counts is the CPU time of a query, which others on the machine
disturb least, and what is compared is the narrowest search of each that reaches a recall, in turns.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contest import spread
from packages import provide
from report import Report, check, number

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".servers" / "library-packages"
LADDER = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160, 192, 224, 272, 320, 384, 448, 544, 640)
# Most of SVS's CPU time that a query of ours is to take, by recall.
WANTED = {0.95: 0.7, 0.99: 0.8, 0.998: 0.9}
INSERTS_WANTED = 4.0

TEXT = """Core as an index of F16 vectors keeps them (int8 codes, the fine plane, M 16, EFC 100), and Intel's SVS
(`scalable-vs` 0.5: Vamana over float16, degree 32, window 128, alpha 0.95, inner product; its LVQ and LeanVec
refuse CPUs that are not Intel's). Real MiniLM embeddings of 384 dimensions, one thread each, no server. The width is the
smallest of a ladder, each about a fifth above the last, that reaches the recall of the nearest 10, against brute force in
float32. CPU is that of the thread, of all queries in one go; the two take turns, and ratios are of neighbouring turns:
median, lowest and highest. Memory of SVS is what its process grew by while it built."""


@dataclass(frozen=True)
class Plan:
    entries: int
    rounds: int


class Worker:
    """A process with an index in it, asked by a line with a width, answering by a line of JSON."""

    def __init__(self, name: str, command: list[str]):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # One builds after the other: the two are not to take each other's caches.
        self.built = self.read()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        check(bool(line), f"{self.name} ended with {self.process.poll()}")
        return json.loads(line)

    def ask(self, width: int) -> dict:
        print(width, file=self.process.stdin, flush=True)
        return self.read()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind, *_) -> None:
        self.process.stdin.close()
        if kind is not None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def run(source: Path, plan: Plan) -> Report | None:
    """`source` is the folder that holds the vectors; None where a library or cargo is missing."""
    if shutil.which("cargo") is None:
        print("bench: library is left out: it needs cargo", flush=True)
        return None
    python = provide(VENV, HERE / "library_packages.txt")
    if python is None:
        return None
    example = ["cargo", "run", "--release", "--quiet", "-p", "llmcache-core", "--manifest-path", str(ROOT / "Cargo.toml")]
    asks = [*example, "--example", "graph", "--", str(source), str(plan.entries), "ask"]
    builds = [str(python), str(HERE / "library_worker.py"), str(source), str(plan.entries)]
    with Worker("core", asks) as ours, Worker("SVS", builds) as theirs:
        return compared(ours, theirs, plan)


def compared(ours: Worker, theirs: Worker, plan: Plan) -> Report:
    report = Report("The index alone beside SVS", TEXT)
    table = report.table("entries", "recall wanted", "library", "width", "recall@10", "CPU us", "ours takes, of its CPU")
    for wanted, most in WANTED.items():
        widths = {}
        for worker in (ours, theirs):
            reached = (width for width in LADDER if worker.ask(width)["recall"] >= wanted)
            widths[worker.name] = next(reached, None)
        what = f"core beside SVS, {plan.entries:,} vectors, recall {wanted}"
        if None in widths.values():
            missing = [name for name, width in widths.items() if width is None]
            table.add(f"{plan.entries:,}", wanted, ", ".join(missing), "none", "", "", "")
            report.add_target(what, f"<= {most} of its CPU", f"not reached by {', '.join(missing)}", widths["core"] is not None)
            continue
        turns = [(ours.ask(widths["core"]), theirs.ask(widths["SVS"])) for _ in range(plan.rounds)]
        ratio = spread([mine["us"] / its["us"] for mine, its in turns])
        for worker, seen in zip((ours, theirs), zip(*turns)):
            us = spread([turn["us"] for turn in seen]).median
            table.add(
                f"{plan.entries:,}", wanted, worker.name, widths[worker.name], f"{seen[0]['recall']:.4f}", number(us),
                str(ratio) if worker is ours else "",
            )
            report.figures[f"{plan.entries}/{wanted}/{worker.name}"] = {
                "width": widths[worker.name], "recall": round(seen[0]["recall"], 4), "us": [round(turn["us"], 1) for turn in seen],
            }
        report.figures[f"{plan.entries}/{wanted}/ratio"] = ratio.raw()
        report.add_target(what, f"<= {most} of its CPU", str(ratio), ratio.median <= most)
    built = report.table("entries", "library", "inserts/s of CPU", "B a vector")
    for worker in (ours, theirs):
        built.add(f"{plan.entries:,}", worker.name, number(worker.built["inserts_per_s"]), number(worker.built["bytes"]))
        report.figures[f"{plan.entries}/built/{worker.name}"] = {key: round(value) for key, value in worker.built.items()}
    faster = ours.built["inserts_per_s"] / theirs.built["inserts_per_s"]
    report.add_target(
        f"core beside SVS, {plan.entries:,} vectors, inserts/s", f">= {INSERTS_WANTED:g} x", f"{faster:.2f}", faster >= INSERTS_WANTED,
    )
    return report
