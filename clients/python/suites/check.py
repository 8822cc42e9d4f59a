#!/usr/bin/env python3
"""`make client`: ruff, mypy --strict, coverage of the client's tests and its adapters', and the package installed.

Runs in the environment of `make suites`. Fails below 90 % of coverage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.server import Fleet
from run import CLIENT, HOME, PYTHON, ROOT, environment

COVERED_AT_LEAST = 90


def main() -> int:
    environment()
    told = {**os.environ, "COVERAGE_FILE": str(HOME / "coverage")}
    steps = [
        ["-m", "ruff", "check", "src", "tests", "suites", "examples", "bench"],
        ["-m", "ruff", "format", "--check", "src", "tests", "suites", "examples", "bench"],
        ["-m", "mypy"],
        [
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "tests",
            "--cov=llmcache",
            f"--cov-fail-under={COVERED_AT_LEAST}",
            "--cov-report=term",
        ],
    ]
    failed = 0
    for step in steps:
        print(f"=== {' '.join(step[1:3])}", flush=True)
        failed += subprocess.run([str(PYTHON), *step], cwd=CLIENT, env=told).returncode != 0
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    fleet = Fleet(Path(shutil.which("redis-server") or "redis-server"), module, HOME / "run" / "package")
    try:
        port = str(fleet.launch().port)
        failed += subprocess.run([sys.executable, str(CLIENT / "check_package.py"), port]).returncode != 0
    finally:
        fleet.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
