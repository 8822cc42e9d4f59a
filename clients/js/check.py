#!/usr/bin/env python3
"""`make js`: types, tests on every server that is here, resumable-stream's own cases, size, and the package installed.

Owns: what is installed for it (node_modules, from the lock file), the servers, the order, the totals. Where there is no
Node 20 it says so and ends; `LLMCACHE_JS=required` makes that a failure.

    python clients/js/check.py [--server BINARY] [--quick]

Quick: types, size, one server's tests, and resumable-stream's cases where its repository is here or can be reached.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from harness.server import Fleet  # noqa: E402

NODE_AT_LEAST = 20
# Longer than a slow line takes; where there is no network npm would try for many minutes.
INSTALL_SECONDS = 300
HOME = ROOT / ".servers" / "js-suites"
# What suites/resumable-stream/run.mjs ends with where the repository of its cases cannot be reached.
UNREACHED = 3
COUNTED = re.compile(r"(\d+) (passed|failed)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def node_problem() -> str | None:
    """Why there is nothing to run this with."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not on this machine"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < NODE_AT_LEAST:
        return f"node is {version}, and {NODE_AT_LEAST} is needed"
    return None


def install() -> bool:
    """What the lock file names, once for each state of it; whether it is here."""
    stamp = HERE / "node_modules" / ".llmcache-installed"
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return True
    quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=60000"]
    try:
        done = subprocess.run(["npm", "ci", *quiet], cwd=HERE, stdout=sys.stderr, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode != 0:
        return False
    stamp.write_text(wanted)
    return True


def vitest(server: Path, module: Path) -> tuple[int, int, str]:
    """Passed, failed and the output of all tests on one server."""
    told = {**os.environ, "LLMCACHE_TEST_SERVER": str(server), "LLMCACHE_MODULE": str(module)}
    # What failed beside other tests and others' load is run once more, as in scripts/matrix.py; a second failure stands.
    done = subprocess.run(["npx", "vitest", "run", "--retry", "1"], cwd=HERE, env=told, capture_output=True, text=True)
    output = COLOURS.sub("", done.stdout + done.stderr)
    line = next((text for text in output.splitlines() if text.strip().startswith("Tests ")), "")
    counts = {word: int(count) for count, word in COUNTED.findall(line)}
    failed = counts.get("failed", 0)
    if done.returncode != 0 and failed == 0:
        failed = 1
    return counts.get("passed", 0), failed, output


def servers_here() -> list[Path]:
    found = [Path(path)] if (path := shutil.which("redis-server")) else []
    return found + sorted((ROOT / ".servers").glob("*/*-server"))


def main() -> int:
    options = argparse.ArgumentParser(description="check the JavaScript client")
    options.add_argument("--server", help="only on this server")
    options.add_argument("--quick", action="store_true", help="types, size, one server, no package")
    chosen = options.parse_args()
    problem = node_problem() or (None if install() else "npm could not install what package-lock.json names")
    if problem:
        print(f"the JavaScript client is not checked: {problem}")
        return 1 if os.environ.get("LLMCACHE_JS") == "required" else 0
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so")).absolute()
    # Not resolved: Debian's redis-server is a link whose name decides what the program does.
    servers = [Path(chosen.server).absolute()] if chosen.server else servers_here()
    if chosen.quick:
        servers = servers[:1]
    failed = 0
    for step in (["build"], ["types"], ["size"]):
        print(f"=== npm run {step[0]}", flush=True)
        failed += subprocess.run(["npm", "run", "--silent", *step], cwd=HERE).returncode != 0
    passed = 0
    for server in servers:
        start = time.monotonic()
        good, bad, output = vitest(server, module)
        passed, failed = passed + good, failed + bad
        if bad or not good:
            print(output[-12_000:])
        print(f"=== {server.name}: {good} passed, {bad} failed, {time.monotonic() - start:.0f} s", flush=True)
    fleet = Fleet(servers[0], module, HOME / "run")
    try:
        told = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{fleet.launch().port}"}
        for script in ("suites/resumable-stream/run.mjs", *(() if chosen.quick else ("scripts/package.mjs",))):
            print(f"=== {script}", flush=True)
            code = subprocess.run(["node", script], cwd=HERE, env=told).returncode
            failed += code not in ((0, UNREACHED) if chosen.quick else (0,))
    finally:
        fleet.end()
    print(f"JavaScript client: {passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
