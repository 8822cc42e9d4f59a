#!/usr/bin/env python3
"""Prints the tables of docs/quality.md: what thresholds, guards and contexts make of labelled questions.

    scripts/quality.py            `make quality`; CONVERSATIONS=folder also measures UNLESS-ALONE on TREC CAsT, of which
                                  the folder is a copy (github.com/daltonj/treccastweb)

All is asked of a server with the module, by the embeddings that lie beside the questions: no model is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness import quality  # noqa: E402
from harness.quality import CONTEXTS, LEVELS, THRESHOLDS, share  # noqa: E402
from harness.server import Server  # noqa: E402
from harness.wire import Wire  # noqa: E402


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def head(first: str, *columns: str) -> None:
    row(first, *columns)
    print("|---" * (1 + len(columns)) + "|")


def percent(flags: list[bool]) -> str:
    return f"{100 * share(flags):.1f} %"


def pairs(wire: Wire) -> None:
    served = {level: quality.pairs(wire, level) for level in LEVELS}
    print("\n## Pairs: 300 repeats, 300 traps\n")
    head("threshold", *(f"{kind}, {level}" for level in LEVELS for kind in ("repeats", "traps")))
    for threshold in THRESHOLDS:
        cells = []
        for level in LEVELS:
            for repeat in (True, False):
                cells.append(percent([s >= threshold for s, same in served[level] if same == repeat]))
        row(f"{threshold:.2f}", *cells)


def utterances(wire: Wire, kind: str, title: str) -> None:
    asked = {level: quality.stream(wire, kind, level) for level in LEVELS}
    print(f"\n## {title}: served rightly, served wrongly\n")
    head("threshold", *(f"{kind}, {level}" for level in LEVELS for kind in ("right", "wrong")))
    for threshold in THRESHOLDS:
        cells = []
        for level in LEVELS:
            for right in (True, False):
                cells.append(percent([a.similarity >= threshold and a.is_right == right for a in asked[level]]))
        row(f"{threshold:.2f}", *cells)


def conversations(wire: Wire) -> None:
    print("\n## Conversations: 120 repeats, 120 traps, at 0.90 with GUARD ON\n")
    head("CONTEXT", "hits", "wrong", "3 to 15 messages, hits / wrong", "41 to 47 messages, hits / wrong")
    for number, (name, context) in enumerate(CONTEXTS.items()):
        rows = quality.served_conversations(wire, f"talks-{number}", context)

        def of(repeat: bool, kept=lambda _: True, rows=rows) -> str:
            return percent([served for served, same, is_long in rows if same == repeat and kept(is_long)])

        short, long = ((lambda is_long: not is_long), (lambda is_long: is_long))
        row(name, of(True), of(False), f"{of(True, short)} / {of(False, short)}", f"{of(True, long)} / {of(False, long)}")


def rewritten(wire: Wire, folder: Path) -> None:
    turns = quality.rewritten_turns(folder)
    alone = quality.stand_alone(wire, [turn.said for turn in turns])
    print("\n## UNLESS-ALONE on conversations whose turns people rewrote\n")
    head("turns", "odd topics", "filed under no context", "even topics", "filed under no context")

    def of(title: str, kept: Callable[[quality.Turn], bool]) -> None:
        cells = []
        for odd in (1, 0):
            flags = [flag for turn, flag in zip(turns, alone, strict=True) if turn.topic % 2 == odd and kept(turn)]
            cells += [str(len(flags)), percent(flags)]
        row(title, *cells)

    of("stand alone: right", lambda turn: not turn.kind)
    of("need their context: wrong", lambda turn: bool(turn.kind))
    for kind in sorted({turn.kind for turn in turns} - {""}):
        of(f"… {kind}", lambda turn, kind=kind: turn.kind == kind)
    for year in sorted({turn.year for turn in turns}):
        of(f"… of {year}", lambda turn, year=year: bool(turn.kind) and turn.year == year)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(shutil.which("redis-server")), ROOT / "target/release/libllmcache.so", Path(folder)).start()
        try:
            with Wire(server.port) as wire:
                pairs(wire)
                utterances(wire, "clinc", "A stream of 3,000 utterances")
                utterances(wire, "banking", "A stream of 2,000 utterances to a bank")
                conversations(wire)
                if said := os.environ.get("CONVERSATIONS"):
                    rewritten(wire, Path(said))
        finally:
            server.stop()
    folder = Path(os.environ.get("CRANFIELD", ROOT.parent / "shared/data/cranfield"))
    if folder.is_dir():
        print("\n## Cranfield: nDCG@10 of RAG.SEARCH\n", flush=True)
        subprocess.run([sys.executable, ROOT / "bench/cranfield.py", folder], check=True)
    else:
        print(f"\nCranfield is not measured: {folder} has no data (`make quality CRANFIELD=folder`, see docs/rag.md).")


if __name__ == "__main__":
    main()
