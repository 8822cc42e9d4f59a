#!/usr/bin/env python3
"""`make suites-lmcache`: LMCache's own tests of L2 adapters, unchanged, over llmcache's adapter, and over its own.

A target of its own, because torch is 5 GB: the environment is made once, in `.servers/lmcache-suite`. Owns: that
environment, the pinned source of the tests, which cases are known to fail and why. Fails where another does.

    python clients/python/suites/lmcache_suites.py [--only NAME ...] [--server BINARY]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT, ROOT = HERE.parent, HERE.parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts"), str(CLIENT / "native")]

from build import built  # noqa: E402
from harness.server import Fleet  # noqa: E402

HOME = Path(os.environ.get("LLMCACHE_LMCACHE_SUITE", ROOT / ".servers" / "lmcache-suite"))
PYTHON = HOME / "venv" / "bin" / "python"
VERSION = "0.5.6"
SOURCE = HOME / "sources" / f"lmcache-{VERSION}"
# A copy: beside the source's own package, which has no compiled parts, the installed one would not be found.
TESTS = HOME / "tests"
COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
# Without a GPU, and telling nobody.
QUIET = {"CUDA_VISIBLE_DEVICES": "", "LMCACHE_TRACK_USAGE": "false"}


@dataclass(frozen=True)
class Suite:
    """Tests of LMCache, and which of its classes are ours in them."""

    name: str
    file: str
    swap: str
    least: int
    # Cases that fail, and why.
    known: dict[str, str]


SUITES = (
    Suite("resp", "tests/v1/distributed/test_resp_l2_adapter_integration.py", "resp", 7, {}),
    Suite(
        "contract",
        "tests/v1/distributed/test_mock_l2_adapter.py",
        "mock",
        43,
        {"test_store_completion_is_delayed_by_bandwidth": "that the mock is as slow as its bandwidth says"},
    ),
    Suite("plugin", f"sources/lmcache-{VERSION}/examples/lmc_external_l2_adapter/tests/test_plugin.py", "", 18, {}),
)


def environment() -> None:
    """LMCache and what it imports, and the source that its tests are in: once for each list of packages."""
    wanted = (HERE / "requirements-lmcache.txt").read_text() + VERSION
    stamp = HOME / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        if not PYTHON.exists():
            venv.create(HOME / "venv", with_pip=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements-lmcache.txt")], check=True)
        subprocess.run([*pip, "--no-deps", f"lmcache=={VERSION}"], check=True)
        stamp.write_text(wanted)
    archive = HOME / "sources" / f"lmcache-{VERSION}.tar.gz"
    if not archive.exists():
        command = [str(PYTHON), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--dest", str(archive.parent), f"lmcache=={VERSION}"]
        subprocess.run(command, check=True, env={**os.environ, "NO_NATIVE_EXT": "1"})
    if not SOURCE.exists():
        with tarfile.open(archive) as packed:
            packed.extractall(archive.parent, filter="data")
    if not TESTS.exists():
        shutil.copytree(SOURCE / "tests", TESTS)


def told(port: int, swap: str) -> dict[str, str]:
    """The environment of a run."""
    paths = os.pathsep.join([str(CLIENT / "src"), str(HERE), str(built())])
    server = {"SUITE_PORT": str(port), "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)}
    return {**os.environ, **QUIET, **server, "SUITE_SWAP": swap, "PYTHONPATH": paths}


def run(suite: Suite, port: int, swap: str) -> tuple[int, list[str], str]:
    """How many passed, which failed, and what was said."""
    command = [
        str(PYTHON),
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "--timeout",
        "120",
        "-p",
        "no:cacheprovider",
        "-p",
        "swap_lmcache",
    ]
    command += ["--rootdir", str(HOME), suite.file]
    done = subprocess.run(command, cwd=HOME, env=told(port, swap), capture_output=True, text=True)
    last = [line for line in done.stdout.splitlines() if COUNTED.search(line)][-1:]
    counts = {word: int(count) for count, word in COUNTED.findall(last[0] if last else "")}
    failed = [name.rsplit("::", 1)[-1] for name in FAILED.findall(done.stdout)]
    return counts.get("passed", 0), failed, done.stdout[-6_000:] + done.stderr[-2_000:]


def main() -> int:
    options = argparse.ArgumentParser(description="LMCache's tests over llmcache")
    options.add_argument("--only", nargs="*", help="only these suites")
    options.add_argument("--server", help="the server binary; default redis-server in PATH")
    chosen = options.parse_args()
    environment()
    binary = Path(chosen.server or shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    work = HOME / "run"
    shutil.rmtree(work, ignore_errors=True)
    fleet, wrong = Fleet(binary, module, work), 0
    try:
        server = fleet.launch()
        for suite in SUITES:
            if chosen.only and suite.name not in chosen.only:
                continue
            passed, failed, said = run(suite, server.port, suite.swap)
            surprising = sorted(set(failed) ^ set(suite.known))
            if surprising or passed < suite.least:
                print(said)
                wrong += 1
            print(
                f"{suite.name}: {passed} passed, {len(failed)} failed; not as listed: {surprising or 'none'}",
                flush=True,
            )
            for case, reason in suite.known.items():
                print(f"    {case} tests {reason}", flush=True)
    finally:
        fleet.end()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
