#!/usr/bin/env python3
"""Prints the table of docs/thresholds.md: what each threshold serves of the demo's 600 pairs, with and without guards.

Half of the pairs are one question twice, half are questions that look alike and want other answers. For each pair the
first question is stored and the second one asked, at every level of GUARD.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness.server import Server  # noqa: E402

THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.96)
LEVELS = ("OFF", "ON", "STRICT")


def main() -> None:
    data = ROOT / "demo/data"
    pairs = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    stored, asked = (np.load(data / f"pairs_{side}.f16.npy").astype("<f4") for side in "ab")
    similarity = (stored * asked).sum(1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(asked, axis=1)
    same = np.array([pair["same_answer"] for pair in pairs])
    passed = {level: np.zeros(len(pairs), bool) for level in LEVELS}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(shutil.which("redis-server")), ROOT / "target/release/libllmcache.so", Path(folder)).start()
        run = server.client().execute_command
        run("LLMCACHE.CREATE", "pairs", "GUARD", "OFF")
        for i, pair in enumerate(pairs):
            run("LLMCACHE.SETSEM", "pairs", "PROMPT", pair["a"], "RESPONSE", "r", "FP32", stored[i].tobytes(), "SCOPE", i)
            for level in LEVELS:
                question = ("PROMPT", pair["b"], "FP32", asked[i].tobytes(), "SCOPE", i, "THRESHOLD", -1, "GUARD", level)
                passed[level][i] = run("LLMCACHE.GETSEM", "pairs", *question) is not None
        server.stop()
    print("| threshold | " + " | ".join(f"repeats, {x} | traps, {x}" for x in LEVELS) + " |")
    print("|---|" + "---|" * 2 * len(LEVELS))
    for threshold in THRESHOLDS:
        cells = []
        for level in LEVELS:
            served = passed[level] & (similarity >= threshold)
            cells += [f"{served[group].mean():.1%}" for group in (same, ~same)]
        print(f"| {threshold:.2f} | " + " | ".join(cell.replace("%", " %") for cell in cells) + " |")


if __name__ == "__main__":
    main()
