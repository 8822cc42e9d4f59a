"""`make torture`: rounds of every kind in turn for as long as asked; prints what came of each.

    python tests/torture/run.py --minutes 10 [--server PATH] [--module PATH] [--seed N] [--only traffic,kills]

Ends with status 1 when anything was wrong; the report of a fault has every command that was sent. The last lines begin with
`torture:` and name every fault, so that they tell of it wherever the rest was cut.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.server import Fleet  # noqa: E402
from torture.clocks import Clocks  # noqa: E402
from torture.clusters import Clusters  # noqa: E402
from torture.crowd import Crowd  # noqa: E402
from torture.disks import Disks  # noqa: E402
from torture.files import Files  # noqa: E402
from torture.flood import Flood, Soak  # noqa: E402
from torture.hostile import Hostile  # noqa: E402
from torture.kills import Kills  # noqa: E402
from torture.pairs import Comebacks, Round  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
# Both server and module are asked for what they never freed when they end.
ASAN_OPTIONS = "detect_leaks=1:abort_on_error=1:allocator_may_return_null=1"
REPORTS = ROOT / "target" / "torture"
# Of a fault in the last lines: where it begins and where it ends.
NAMED_CHARACTERS = 600


class Attack(Protocol):
    """A round of some kind."""

    def run(self, seconds: float) -> None: ...

    @property
    def figures(self) -> Mapping[str, int]:
        """What was done, by its name."""
        ...

    def report(self) -> str:
        """What is needed to repeat it."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of round, and how long one takes."""

    attack: type
    seconds: float


KINDS = {
    "traffic": Kind(Round, 40),
    "comebacks": Kind(Comebacks, 40),
    "flood": Kind(Flood, 600),
    "soak": Kind(Soak, 86_400),
    "kills": Kind(Kills, 20),
    "clusters": Kind(Clusters, 60),
    "hostile": Kind(Hostile, 20),
    "files": Kind(Files, 20),
    "disks": Kind(Disks, 15),
    "clocks": Kind(Clocks, 30),
    "crowd": Kind(Crowd, 30),
}


@dataclass
class Sum:
    """What all rounds did, and what was found."""

    figures: Counter[str] = field(default_factory=Counter)
    # One line each.
    faults: list[str] = field(default_factory=list)


def told(figures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in figures.items() if count) or "nothing"


def named(problem: BaseException) -> str:
    """What was wrong, in one line of bounded length."""
    line = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    half = NAMED_CHARACTERS // 2
    return line if len(line) <= NAMED_CHARACTERS else f"{line[:half]} … {line[-half:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--server", type=Path, default=shutil.which("redis-server"))
    parser.add_argument("--module", type=Path, default=ROOT / "target/release/libllmcache.so")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--preload", type=Path, help="a sanitizer's library, for a module that was built with it")
    parser.add_argument("--first", action="store_true", help="end with the first fault")
    parser.add_argument("--keep", action="store_true", help="keep the folders of servers that showed a fault")
    given = parser.parse_args()
    kinds = given.only.split(",") if given.only else list(KINDS)
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"no such kind: {', '.join(unknown)}")
    total = Sum()
    end = time.monotonic() + given.minutes * 60
    seed = given.seed
    while time.monotonic() < end and not (given.first and total.faults):
        for kind in kinds:
            if (left := end - time.monotonic()) > 0:
                one_round(given, kind, seed, min(left, KINDS[kind].seconds), total)
        seed += 1
    print(f"torture: seeds {given.seed} to {seed - 1}: {told(total.figures)}; {len(total.faults)} faults")
    for fault in total.faults:
        print(f"torture: fault of {fault}", flush=True)
    return 1 if total.faults else 0


def one_round(given: argparse.Namespace, kind: str, seed: int, seconds: float, total: Sum) -> None:
    """Runs it on servers of its own and adds up what was done."""
    folder = Path(tempfile.mkdtemp(prefix="llmcache-torture-"))
    # Not resolved: Debian's redis-server is a link whose name decides what the program does.
    fleet = Fleet(Path(given.server).absolute(), given.module.absolute(), folder)
    if given.preload:
        fleet.environment = {"LD_PRELOAD": str(given.preload), "ASAN_OPTIONS": ASAN_OPTIONS}
    attack: Attack = KINDS[kind].attack(fleet, seed)
    fault, problems = "", []
    try:
        attack.run(seconds)
    except Exception as problem:
        fault = traceback.format_exc()
        problems.append(problem)
    try:
        fleet.end()
    except AssertionError as problem:
        fault += f"\n{problem}"
        problems.append(problem)
    total.figures.update(attack.figures)
    print(f"{kind} seed {seed}: {told(attack.figures)}, {'a fault' if fault else 'no fault'}", flush=True)
    if fault:
        fault += f"\n{attack.report()}"
        total.faults += [f"{kind} seed {seed}: {named(problem)}" for problem in problems]
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
