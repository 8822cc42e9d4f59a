#!/usr/bin/env python3
"""Compares what a pass of the encoder costs in two builds, on a machine that others use.

    cargo build --release -p llmcache-core --example embed
    scripts/embed_cost.py OLD NEW [ENGINE [TOKENS [ROUNDS]]]

OLD and NEW are two builds of that example. They run in turns, a second each; of each the shortest pass counts, which other
load lengthens least. Where valgrind runs the engine's instructions (it has no AVX-512), it counts those of a pass.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "models/all-MiniLM-L6-v2"
PASSES = 10


def least(build: str, engine: str, tokens: str) -> int:
    """The shortest pass of a second, in nanoseconds."""
    command = [build, str(MODEL), "least", engine, tokens, "1"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def instructions(build: str, engine: str, tokens: str) -> int | None:
    """Instructions of a pass: what more passes take beside one."""
    counts = []
    for passes in (1, 1 + PASSES):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", build, str(MODEL), "passes", engine, tokens, str(passes)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode != 0 or found is None:
            return None
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) // PASSES


def main() -> None:
    builds = sys.argv[1:3]
    engine, tokens, rounds = [*sys.argv[3:], *("vnni", "12", "10")[len(sys.argv) - 3 :]]
    taken = [[least(build, engine, tokens) for build in builds] for _ in range(int(rounds))]
    shortest = [min(column) for column in zip(*taken, strict=True)]
    counts = [instructions(build, engine, tokens) if shutil.which("valgrind") else None for build in builds]
    for build, took, count in zip(builds, shortest, counts, strict=True):
        print(f"{build}: {took / 1e3:,.0f} us" + (f", {count:,} instructions" if count else ""))
    print(f"new over old: {shortest[1] / shortest[0]:.3f}" + (f", instructions {counts[1] / counts[0]:.3f}" if all(counts) else ""))


if __name__ == "__main__":
    main()
