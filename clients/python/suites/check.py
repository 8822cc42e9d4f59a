#!/usr/bin/env python3
"""`make client`: ruff, mypy --strict, the tests of the client and its adapters on every server that is here, with their
coverage on the first, and the package built and installed.

Runs in the environment of `make suites`; the tests start servers and clusters of their own. Fails below 90 % of coverage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from run import CLIENT, HOME, PYTHON, ROOT, Fleet, environment

COVERED_AT_LEAST = 90


def main() -> int:
    environment()
    told = {**os.environ, "COVERAGE_FILE": str(HOME / "coverage")}
    steps = [
        ["-m", "ruff", "check", "src", "tests", "suites", "examples", "bench", "native"],
        ["-m", "ruff", "format", "--check", "src", "tests", "suites", "examples", "bench", "native"],
        ["-m", "mypy"],
    ]
    failed = 0
    for step in steps:
        print(f"=== {' '.join(step[1:3])}", flush=True)
        failed += subprocess.run([str(PYTHON), *step], cwd=CLIENT, env=told).returncode != 0
    # Not resolved: Debian's redis-server is a link whose name decides what the program does.
    first = Path(shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so")).absolute()
    tests = ["-m", "pytest", "-q", "-n", "2", "tests"]
    cover = ["--cov=llmcache", f"--cov-fail-under={COVERED_AT_LEAST}", "--cov-report=term"]
    for server in [first, *sorted((ROOT / ".servers").glob("*/*-server"))]:
        print(f"=== tests on {server}", flush=True)
        step = [*tests, *(cover if server == first else ())]
        on = {**told, "LLMCACHE_TEST_SERVER": str(server), "LLMCACHE_MODULE": str(module)}
        failed += subprocess.run([str(PYTHON), *step], cwd=CLIENT, env=on).returncode != 0
    fleet = Fleet(first, module, HOME / "run" / "package")
    try:
        port = str(fleet.launch().port)
        failed += subprocess.run([sys.executable, str(CLIENT / "check_package.py"), port]).returncode != 0
    finally:
        fleet.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
