"""`make planted`: does the harness find faults? Puts one fault at a time into a copy of the sources, builds it, and
says what found it in how long.

    python tests/torture/planted.py [--only N,N] [--minutes 10] [--seed N] [--server PATH]

The copy lies in target/planted; the sources themselves are never changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture.faults import FAULTS, Planted  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "target" / "planted"
TREE = FOLDER / "tree"
BUILT = FOLDER / "build"
# Without the optimisations of a release that take long; the checks of arithmetic are those of a release.
PROFILE = {
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "CARGO_INCREMENTAL": "1",
    "RUST_BACKTRACE": "0",
}
LOOM = {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(FOLDER / "loom")}
# The tests of what the harness does not attack at random.
TESTS = ("tests/test_replica.py", "tests/test_aof.py", "tests/test_rdb.py", "tests/test_expiry.py", "tests/test_orphans.py")


@dataclass
class Trial:
    """One fault and the time there is for it."""

    seed: int
    server: Path
    until: float

    def call(self, *command: str | Path, **more: str) -> bool:
        """Whether a command ends well; one that takes too long found nothing."""
        environment = os.environ | PROFILE | {"CARGO_TARGET_DIR": str(BUILT)} | more
        left = max(1.0, self.until - time.monotonic())
        log = (FOLDER / "log.txt").open("ab")
        with subprocess.Popen(command, cwd=TREE, env=environment, stdout=log, stderr=log, start_new_session=True) as running:
            try:
                return running.wait(left) == 0
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, 15)
                return True

    def torture(self, kind: str, minutes: float) -> bool:
        module = BUILT / "release/libllmcache.so"
        arguments = ["--minutes", str(minutes), "--seed", str(self.seed), "--server", str(self.server)]
        return self.call(
            *(sys.executable, TREE / "tests/torture/run.py", "--only", kind, "--module", module, "--first", *arguments),
        )

    def cargo(self, *arguments: str, **more: str) -> bool:
        return self.call("cargo", "test", "--quiet", "-p", "llmcache-core", *arguments, **more)

    def tests(self) -> bool:
        return self.call(
            *(sys.executable, "-m", "pytest", "-q", "-x", *TESTS),
            LLMCACHE_MODULE=str(BUILT / "release/libllmcache.so"),
            LLMCACHE_TEST_SERVER=str(self.server),
        )


# What may find a fault; each returns whether all was well.
STAGES: dict[str, Callable[[Trial], bool]] = {
    "fuzz": lambda trial: trial.cargo("--test", "fuzz", LLMCACHE_FUZZ_RUNS="100000"),
    "core": lambda trial: trial.cargo(),
    "loom": lambda trial: trial.cargo("--test", "loom", "--release", **LOOM),
    "simulate": lambda trial: trial.cargo("--test", "simulation", "--release", LLMCACHE_SIMULATE_SEEDS="1000000"),
    "traffic": lambda trial: trial.torture("traffic", 4),
    "comebacks": lambda trial: trial.torture("comebacks", 4),
    "kills": lambda trial: trial.torture("kills", 1),
    "clusters": lambda trial: trial.torture("clusters", 2),
    "tests": lambda trial: trial.tests(),
}
BUILDS: dict[str, Callable[[Trial], bool]] = {
    "fuzz": lambda trial: trial.cargo("--test", "fuzz", "--no-run"),
    "core": lambda trial: trial.cargo("--no-run"),
    "loom": lambda trial: trial.cargo("--test", "loom", "--release", "--no-run", **LOOM),
    "simulate": lambda trial: trial.cargo("--test", "simulation", "--release", "--no-run"),
}
NEEDS_MODULE = {"traffic", "comebacks", "kills", "clusters", "tests"}


def copy_tree() -> None:
    """The sources as they are, without what is not in the repository."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = TREE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)


def build(trial: Trial) -> None:
    if not trial.call("cargo", "build", "--release", "--quiet"):
        raise SystemExit(f"the fault does not compile, see {FOLDER / 'log.txt'}")


def hunt(fault: Planted, given: argparse.Namespace) -> str:
    """Which stage found it, after how many seconds of looking; building is not counted."""
    path = fault.path(TREE)
    sound = path.read_text()
    path.write_text(sound.replace(fault.before, fault.after))
    try:
        built, looked = False, 0.0
        for stage in fault.stages:
            trial = Trial(given.seed, given.server, time.monotonic() + 1_200)
            if stage in NEEDS_MODULE and not built:
                build(trial)
                built = True
            if stage in BUILDS:
                # So that building is not counted.
                BUILDS[stage](trial)
            started = time.monotonic()
            trial.until = started + given.minutes * 60 - looked
            if trial.until <= started:
                break
            sees = STAGES[stage](trial)
            looked += time.monotonic() - started
            if not sees:
                return f"found by {stage} in {looked:.0f} s"
        return f"not found in {looked:.0f} s"
    finally:
        path.write_text(sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="numbers of faults, from 1")
    parser.add_argument("--minutes", type=float, default=10, help="for each fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", type=Path, default=shutil.which("redis-server"))
    given = parser.parse_args()
    given.server = Path(given.server).absolute()
    chosen = [int(word) for word in given.only.split(",")] if given.only else range(1, len(FAULTS) + 1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    copy_tree()
    (FOLDER / "log.txt").write_bytes(b"")
    missed = []
    for number in chosen:
        came = hunt(FAULTS[number - 1], given)
        print(f"| {number} | {FAULTS[number - 1].name} | {came} |", flush=True)
        if came.startswith("not"):
            missed.append(number)
    print(f"planted: {len(chosen) - len(missed)} of {len(chosen)} faults found{f', not {missed}' if missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
