#!/usr/bin/env python3
"""Runs every test there is: cargo's, then the integration suite once for each server.

Owns: the order, the table of results, the totals. Fails when a test failed, when a test was skipped
(nothing in this suite may be), when no test ran, and, with CI=true, when a server could not be had.

    python scripts/matrix.py [--server NAME] [FILE...]     FILE narrows it to pytest on these files
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from servers import Server, provide_all

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "target" / "test-reports"
MODULE = ROOT / "target" / "release" / "libllmcache.so"
CLIENT = "clients/python/tests"
JAVASCRIPT = ROOT / "clients" / "js" / "check.py"
JAVASCRIPT_RESULT = re.compile(r"^JavaScript client: (\d+) passed, (\d+) failed$", re.MULTILINE)
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


# More failures than this are no accident of timing.
RETRIED_AT_MOST = 5


@dataclass
class Outcome:
    """What one run of tests came to; `note` replaces the numbers where there was no run."""

    name: str
    version: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    def line(self) -> str:
        head = f"{self.name:12} {self.version:8}"
        if self.note and not (self.passed or self.failed):
            return f"{head} {self.note}"
        numbers = f"{self.passed:6} passed {self.failed:4} failed {self.seconds:6.0f} s"
        return f"{head} {numbers}  {self.note}".rstrip()


def run_cargo(name: str, arguments: list[str], **environment: str) -> Outcome:
    outcome = Outcome(name)
    start = time.monotonic()
    process = subprocess.Popen(
        ["cargo", "test", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := CARGO_RESULT.match(line):
            passed, failed, ignored = map(int, found.groups())
            outcome.passed += passed
            outcome.failed += failed
            outcome.skipped += ignored
    outcome.seconds = time.monotonic() - start
    settle(outcome, process.wait())
    return outcome


def run_loom() -> Outcome:
    """What threads read, in every order that the memory model allows; built apart, with the types of the checker."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} --cfg loom".strip()
    arguments = ["--package", "llmcache-core", "--test", "loom", "--release", "--target-dir", "target/loom"]
    return run_cargo("loom", arguments, RUSTFLAGS=flags)


def run_pytest(server: Server, files: list[str], name: str = "") -> Outcome:
    outcome = Outcome(name or server.name, server.version)
    report = REPORTS / f"{outcome.name}.xml"
    report.unlink(missing_ok=True)
    environment = dict(os.environ, LLMCACHE_TEST_SERVER=str(server.path))
    environment.setdefault("LLMCACHE_MODULE", str(MODULE))
    print(f"\n=== {name or 'integration tests'} on {server.name}, version {server.version} ===", flush=True)
    start = time.monotonic()
    command = [
        *(sys.executable, "-m", "pytest", "-q", f"--junitxml={report}"),
        *("-n", "2", "--dist", "worksteal"),
        *(files or ["tests"]),
    ]
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment)
    outcome.seconds = time.monotonic() - start
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            bad = int(suite.get("failures")) + int(suite.get("errors"))
            skipped = int(suite.get("skipped"))
            outcome.failed += bad
            outcome.skipped += skipped
            outcome.passed += max(0, int(suite.get("tests")) - bad - skipped)
    status = run.returncode
    if 0 < outcome.failed <= RETRIED_AT_MOST and not outcome.skipped:
        status = retry_alone(outcome, files, environment)
    settle(outcome, status)
    return outcome


def run_javascript(server: Server) -> Outcome:
    """Types, size and tests of the JavaScript client on one server; where there is no node it says so and is no failure."""
    outcome = Outcome("client js", server.version)
    start = time.monotonic()
    environment = dict(os.environ)
    environment.setdefault("LLMCACHE_MODULE", str(MODULE))
    command = [sys.executable, str(JAVASCRIPT), "--quick", "--server", str(server.path)]
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment, stdout=subprocess.PIPE, text=True)
    print(run.stdout, end="", flush=True)
    outcome.seconds = time.monotonic() - start
    if found := JAVASCRIPT_RESULT.search(run.stdout):
        outcome.passed, outcome.failed = map(int, found.groups())
        settle(outcome, run.returncode)
    elif run.returncode == 0:
        outcome.note = run.stdout.strip().splitlines()[-1]
    else:
        settle(outcome, run.returncode)
    return outcome


def retry_alone(outcome: Outcome, files: list[str], environment: dict[str, str]) -> int:
    """Two servers' worth of load on two cores can outlast a time limit, so what failed beside other
    tests is run once more, alone. The table names how many needed it; a second failure stands."""
    command = [sys.executable, "-m", "pytest", "-q", "--last-failed", *(files or ["tests"])]
    status = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment).returncode
    if status == 0:
        outcome.note = f"{outcome.failed} failed beside other tests and passed alone"
        outcome.passed += outcome.failed
        outcome.failed = 0
    return status


def settle(outcome: Outcome, status: int) -> None:
    """A run that ended badly without naming a failed test counts as one; so do skips and no tests."""
    if outcome.skipped:
        outcome.failed += outcome.skipped
        outcome.note = f"{outcome.skipped} skipped, which counts as failed"
    elif outcome.failed == 0 and status != 0:
        outcome.failed = 1
        outcome.note = f"ended with status {status}"
    elif outcome.failed == 0 and outcome.passed == 0:
        outcome.failed = 1
        outcome.note = "no test ran"


def missing(server: Server) -> Outcome:
    in_ci = os.environ.get("CI") == "true"
    note = f"could not be had: {server.problem}"
    return Outcome(server.name, failed=1 if in_ci else 0, note=note)


def main() -> int:
    options = argparse.ArgumentParser(description="run every test on every server")
    options.add_argument("--server", help="only on this server of the matrix, without cargo's tests")
    options.add_argument("files", nargs="*", help="only these files, without cargo's tests")
    chosen = options.parse_args()

    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / "total").unlink(missing_ok=True)
    servers = provide_all(chosen.server)
    outcomes = [] if chosen.server or chosen.files else [run_cargo("cargo", ["--workspace", "--no-fail-fast"]), run_loom()]
    ran = False
    for server in servers:
        if server.path is None:
            print(f"\n{server.name} could not be had: {server.problem}", flush=True)
            outcomes.append(missing(server))
        else:
            ran = True
            outcomes.append(run_pytest(server, chosen.files))
            if not chosen.files:
                # A run of its own: the client's tests have a configuration and fixtures of their own.
                outcomes.append(run_pytest(server, [CLIENT], f"client {server.name.split('-')[0]}"))

    usable = next((server for server in servers if server.path is not None), None)
    if usable is not None and not chosen.files and not chosen.server:
        outcomes.append(run_javascript(usable))

    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    (REPORTS / "total").write_text(f"{passed} {failed}\n")
    print(f"\n{'tests':12} {'version':8}")
    for outcome in outcomes:
        print(outcome.line())
    if not ran:
        print("no server could be had, so the integration tests did not run")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if ran and failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
