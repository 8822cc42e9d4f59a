"""`make fuzz`: the core's decoders and parsers under libFuzzer with AddressSanitizer, one target after the other.

    python tests/torture/fuzz.py [--target NAME] [--seconds N] [--seed N] [--keep]
    python tests/torture/fuzz.py --runs 10000000 [--target NAME] [--seed N]

The targets are those of `core/tests/fuzz/targets`, which `cargo test` runs for a moment too. Built with the stable
compiler: RUSTC_BOOTSTRAP lets it take the sanitizer's flag. `--keep` writes the smallest inputs that reach most into
`core/tests/fuzz/corpus`. An input that breaks something is printed as the line for that folder that repeats it.

With `--runs` the driver of `cargo test` tries so many mutations a target (fewer of those that are slow), from seeds and
corpora, without coverage and sanitizer: a hundred times as many a second.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "target" / "fuzz"
HOST = "x86_64-unknown-linux-gnu"
PROGRAM = FOLDER / HOST / "release" / "llmcache-fuzz"
KEPT = ROOT / "core/tests/fuzz/corpus"
FLAGS = (
    "--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 "
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table "
    "-Cllvm-args=-sanitizer-coverage-trace-compares"
)
INPUT_MAX_BYTES = 8_192
# What a corpus in the repository may take.
KEPT_BYTES = 12_000
KEPT_INPUT_BYTES = 1_500


def build() -> None:
    environment = os.environ | {
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": FLAGS,
        "CARGO_INCREMENTAL": "0",
        "CARGO_TARGET_DIR": str(FOLDER),
    }
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target", HOST]
    subprocess.run(command, cwd=ROOT / "core/fuzz", env=environment, check=True)


def run(target: str, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"LLMCACHE_FUZZ_TARGET": target, "RUST_BACKTRACE": "0", **more}
    return subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, errors="replace")


def targets() -> list[str]:
    """Their names, by the seeds that they write."""
    seeds = FOLDER / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    told = run("entry", "-runs=0", LLMCACHE_FUZZ_SEEDS=str(seeds))
    names = sorted(path.name for path in seeds.iterdir())
    assert told.returncode == 0 and names, told.stderr
    return names


def attack(target: str, seconds: int, seed: int) -> tuple[int, str]:
    """Mutations tried, and what was wrong."""
    corpus, faults = FOLDER / "corpus" / target, FOLDER / "faults" / target
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(faults, ignore_errors=True)
    faults.mkdir(parents=True)
    told = run(
        target,
        *(f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={INPUT_MAX_BYTES}", "-print_final_stats=1"),
        *("-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={faults}/", corpus, FOLDER / "seeds" / target),
    )
    tried = re.search(r"number_of_executed_units: (\d+)", told.stderr)
    reached = re.findall(r"cov: (\d+)", told.stderr)
    count = int(tried[1]) if tried else 0
    wrong = list(faults.iterdir())
    print(
        f"fuzz {target} seed {seed}: {count} mutations in {seconds} s, {reached[-1] if reached else 0} places reached, "
        f"{'a fault' if told.returncode else 'no fault'}",
        flush=True,
    )
    if not told.returncode:
        return count, ""
    panic = told.stderr.find("panicked at")
    why = told.stderr[panic : panic + 1_000] if panic >= 0 else told.stderr[-3_000:]
    lines = "\n".join(f"{KEPT / target}.hex: {path.read_bytes().hex()}" for path in wrong)
    return count, f"{why}\n{lines}"


def keep(target: str) -> None:
    """The smallest inputs that reach what the corpus reaches, beside those that are in the repository."""
    merged = FOLDER / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    file = KEPT / f"{target}.hex"
    before = file.read_text().splitlines() if file.exists() else []
    done = run(target, "-merge=1", f"-max_len={KEPT_INPUT_BYTES}", merged, FOLDER / "corpus" / target)
    assert done.returncode == 0, done.stderr[-2_000:]
    lines, left = list(before), KEPT_BYTES - sum(len(line) // 2 for line in before)
    for path in sorted(merged.iterdir(), key=lambda path: path.stat().st_size):
        line = path.read_bytes().hex()
        if line and line not in lines and (left := left - len(line) // 2) >= 0:
            lines.append(line)
    file.write_text("\n".join(lines) + "\n")


def unguided(runs: int, seed: int, target: str | None) -> int:
    """Hands over to `cargo test`; returns its status."""
    environment = os.environ | {"LLMCACHE_FUZZ_RUNS": str(runs), "LLMCACHE_FUZZ_SEED": str(seed)}
    if target:
        environment["LLMCACHE_FUZZ_TARGET"] = target
    command = ["cargo", "test", "--release", "--locked", "--quiet", "-p", "llmcache-core", "--test", "fuzz"]
    return subprocess.run([*command, "seeds_are", "--", "--nocapture"], cwd=ROOT, env=environment).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", help="one target; all of them without it")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="write core/tests/fuzz/corpus")
    parser.add_argument("--runs", type=int, help="mutations a target by the driver without coverage, instead of a time")
    given = parser.parse_args()
    if given.runs:
        return unguided(given.runs, given.seed, given.target)
    build()
    names = targets()
    if given.target and given.target not in names:
        parser.error(f"there is no target {given.target}, but {', '.join(names)}")
    total, faults = 0, []
    for target in [given.target] if given.target else names:
        count, fault = attack(target, given.seconds, given.seed)
        total += count
        if fault:
            print(fault, flush=True)
            faults.append(target)
        elif given.keep:
            keep(target)
    print(f"fuzz: {total} mutations, {len(faults)} targets with faults {faults or ''}".rstrip())
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
