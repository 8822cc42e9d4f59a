#!/usr/bin/env python3
"""What guards and MAXERROR add to a look-up by meaning, and a model to an exact hit, in instructions of the server, which no
other load disturbs.

    scripts/lookup_cost.py [path/to/libllmcache.so]

Runs a server under `valgrind --tool=callgrind`. Caches of the same 1,000 answers (questions of CLINC150 to a bank, 384
dimensions) differ by a setting; each is asked the same 300 other questions. Exits with 1 where MAXERROR, beside a cache
that judges the same candidates, adds 2 % or more, or a model adds 1 % or more to an exact hit. Without `make model` a model
of made weights stands in: an exact hit embeds nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness.model import write_model  # noqa: E402
from harness.replies import fields  # noqa: E402
from harness.server import Server  # noqa: E402
from harness.wire import Failure, Wire  # noqa: E402

STORED, ASKED = 1_000, 300
MOST, MOST_OF_MODEL = 0.02, 0.01
# Beside which cache a cache is looked at.
LEARNS = ("MAXERROR", "0.05", "AUDIT", "0.02")
# With MINSIM at the threshold the same candidates are opened and judged as without MAXERROR.
SAME = ("MINSIM", "0.90")
CACHES = {
    "plain": (("GUARD", "OFF", "THRESHOLD", "0.90"), None),
    "plain, MAXERROR": (("GUARD", "OFF", "THRESHOLD", "0.90", *LEARNS, *SAME), "plain"),
    "guarded": (("GUARD", "ON", "THRESHOLD", "0.90"), "plain"),
    "guarded, MAXERROR": (("GUARD", "ON", "THRESHOLD", "0.90", *LEARNS, *SAME), "guarded"),
    "the same, MINSIM 0.70": (("GUARD", "ON", "THRESHOLD", "0.90", *LEARNS), "guarded"),
}
GATED = {"plain, MAXERROR", "guarded, MAXERROR"}


def questions() -> list[tuple[str, bytes]]:
    folder = ROOT / "tests/data/quality"
    lines = (folder / "banking.tsv").read_text(encoding="utf-8").splitlines()
    vectors = np.fromfile(folder / "banking.f16", "<f2").reshape(-1, 384)
    return [(line.split("\t")[1], vector.tobytes()) for line, vector in zip(lines, vectors, strict=True)]


class Counter:
    """Instructions of a process under callgrind since the last count."""

    def __init__(self, folder: Path, pid: int):
        self.folder, self.pid = folder, pid

    def take(self) -> int:
        before = set(self.folder.glob("counts.*"))
        subprocess.run(["callgrind_control", "--dump", str(self.pid)], check=True, capture_output=True)
        (new,) = set(self.folder.glob("counts.*")) - before
        return int(re.search(r"^(?:summary|totals): (\d+)", new.read_text(), re.MULTILINE)[1])


def checked(replies: list) -> list:
    failed = [reply for reply in replies if isinstance(reply, Failure)]
    assert not failed, failed[0].text
    return replies


def prove(wire: Wire, name: str, asked: list[tuple[str, bytes]]) -> None:
    """Answers tickets until a threshold is in use, as where a cache has been for a while."""
    for _ in range(40):
        replies = checked(wire.pipeline([("LLMCACHE.GETSEM", name, "PROMPT", text, "FP16", vector, "AUDIT") for text, vector in asked]))
        tickets = [ticket for reply in replies if reply is not None and (ticket := fields(reply).get("audit"))]
        checked(wire.pipeline([("LLMCACHE.FEEDBACK", name, "TICKET", ticket, "RIGHT") for ticket in tickets]))
        if fields(wire("LLMCACHE.STATS", name))["maxerror_state"] == b"proven":
            return
    raise AssertionError("no threshold was proven")


def count(wire: Wire, counter: Counter, name: str, asked: list[tuple[str, bytes]]) -> float:
    commands = [("LLMCACHE.GETSEM", name, "PROMPT", text, "FP16", vector) for text, vector in asked]
    checked(wire.pipeline(commands))
    counter.take()
    checked(wire.pipeline(commands))
    return counter.take() / len(commands)


def exact_hit(wire: Wire, counter: Counter, asked: list[tuple[str, bytes]]) -> dict[str, float]:
    """Instructions of an exact hit, in a cache with a model and in one without."""
    for cache, options in (("without a model", ()), ("with a model", ("EMBED", "minilm"))):
        assert wire("LLMCACHE.CREATE", cache, *options) == "OK"
        checked(wire.pipeline([("LLMCACHE.SET", cache, "PROMPT", text, "RESPONSE", "r") for text, _ in asked]))
    counted = {}
    for cache in ("without a model", "with a model"):
        commands = [("LLMCACHE.GETSEM", cache, "PROMPT", text) for text, _ in asked]
        replies = checked(wire.pipeline(commands))
        assert None not in replies, "a miss"
        counter.take()
        checked(wire.pipeline(commands * 4))
        counted[cache] = counter.take() / len(commands) / 4
    return counted


def model_folder(folder: Path) -> Path:
    real = ROOT / "models/all-MiniLM-L6-v2"
    return real if (real / "model.safetensors").exists() else write_model(folder / "model")


def main() -> None:
    module = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/libllmcache.so").absolute()
    every = questions()
    stored, asked = every[:STORED], every[STORED : STORED + ASKED]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runner = folder / "redis-server"
        valgrind, server = shutil.which("valgrind"), shutil.which("redis-server")
        counts = f"--callgrind-out-file={folder}/counts"
        runner.write_text(f'#!/bin/sh\nexec {valgrind} -q --tool=callgrind {counts} {server} "$@"\n')
        runner.chmod(0o755)
        settings = {"save": "", "hz": "1", "llmcache.embed-models": f"minilm={model_folder(folder)}"}
        running = Server(runner, module, folder / "server", settings).start()
        try:
            with Wire(running.port, timeout=600) as wire:
                counter = Counter(folder, int(running.client().info("server")["process_id"]))
                each = {}
                for cache, (options, _) in CACHES.items():
                    wire("LLMCACHE.CREATE", cache, *options)
                    stores = (("LLMCACHE.SETSEM", cache, "PROMPT", t, "RESPONSE", "r", "FP16", v) for t, v in stored)
                    checked(wire.pipeline(stores))
                    if "MAXERROR" in options:
                        prove(wire, cache, asked)
                    each[cache] = count(wire, counter, cache, asked)
                exact = exact_hit(wire, counter, asked)
                embedded = int(running.info("llmcache")["llmcache_texts_embedded"])
        finally:
            running.stop()
    is_fine = True
    for cache, (_, beside) in CACHES.items():
        more = each[cache] / each[beside] - 1 if beside else 0.0
        is_fine = is_fine and (cache not in GATED or more < MOST)
        print(f"{cache:22} {each[cache]:12,.0f} instructions a look-up" + (f", {100 * more:+.2f} % beside {beside}" if beside else ""))
    more = exact["with a model"] / exact["without a model"] - 1
    for cache, instructions in exact.items():
        print(f"exact, {cache:15} {instructions:12,.0f} instructions a hit")
    print(f"a model adds {100 * more:+.2f} %; {embedded} texts were embedded")
    assert embedded == 0
    if not is_fine:
        sys.exit(f"MAXERROR adds {100 * MOST:.0f} % or more")
    sys.exit(0 if more < MOST_OF_MODEL else f"a model adds {100 * MOST_OF_MODEL:.0f} % or more to an exact hit")


if __name__ == "__main__":
    main()
