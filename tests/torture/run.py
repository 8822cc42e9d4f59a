"""`make torture`: traffic and kills in turn for as long as asked; prints what came of each round.

    python tests/torture/run.py --minutes 10 [--server PATH] [--module PATH] [--seed N] [--only traffic|kills]

Ends with status 1 when anything was wrong; the report of a fault has every command that was sent.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.server import Fleet  # noqa: E402
from torture.kills import Kills  # noqa: E402
from torture.pairs import Round  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
REPORTS = ROOT / "target" / "torture"
ROUND_SECONDS = {"traffic": 40.0, "kills": 20.0}


@dataclass
class Figures:
    """What was done, and what was found."""

    commands: int = 0
    stores: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--server", type=Path, default=shutil.which("redis-server"))
    parser.add_argument("--module", type=Path, default=ROOT / "target/release/libllmcache.so")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=ROUND_SECONDS)
    parser.add_argument("--keep", action="store_true", help="keep the folders of servers that showed a fault")
    given = parser.parse_args()
    kinds = [given.only] if given.only else list(ROUND_SECONDS)
    figures = Figures()
    end = time.monotonic() + given.minutes * 60
    seed = given.seed
    while (left := end - time.monotonic()) > 0:
        for kind in kinds:
            one_round(given, kind, seed, min(left, ROUND_SECONDS[kind]), figures)
        seed += 1
    print(
        f"torture: seeds {given.seed} to {seed - 1}, {figures.commands} commands, "
        f"{figures.kills} kills among {figures.stores} acknowledged changes, {len(figures.faults)} faults"
    )
    return 1 if figures.faults else 0


def one_round(given: argparse.Namespace, kind: str, seed: int, seconds: float, figures: Figures) -> None:
    """Runs it on servers of its own and adds up what was done."""
    folder = Path(tempfile.mkdtemp(prefix="llmcache-torture-"))
    # Not resolved: Debian's redis-server is a link whose name decides what the program does.
    fleet = Fleet(Path(given.server).absolute(), given.module.absolute(), folder)
    round_ = Round(fleet, seed) if kind == "traffic" else Kills(fleet, seed)
    fault = ""
    try:
        round_.run(seconds)
    except Exception:
        fault = traceback.format_exc()
    try:
        fleet.end()
    except AssertionError as problem:
        fault += f"\n{problem}"
    if isinstance(round_, Round):
        figures.commands += round_.commands
        done = f"{round_.commands} commands"
        if fault:
            fault += "\ncommands:\n" + "\n".join(f"{at} {words!r}" for at, words in round_.log)
    else:
        figures.kills += round_.cycles
        figures.stores += round_.changes
        done = f"{round_.cycles} kills among {round_.changes} changes"
    print(f"{kind} seed {seed}: {done}, {'a fault' if fault else 'no fault'}", flush=True)
    if fault:
        figures.faults.append(fault)
        report = REPORTS / f"{kind}-{seed}.txt"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(fault)
        print(f"{fault[:3_000]}\nwhole report: {report.relative_to(ROOT)}", flush=True)
    if fault and given.keep:
        print(f"servers' folders kept in {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
