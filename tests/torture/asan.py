"""`make asan`: core and module under AddressSanitizer, the module in a stock server, with the leaks of each at its end.

    python tests/torture/asan.py [--minutes 5] [--seed N] [--server PATH] [--only core|module]

Built with the stable compiler: RUSTC_BOOTSTRAP lets it take the sanitizer's flag. The server is not instrumented: gcc's
runtime is preloaded into it, which the module's checks call, and which takes over malloc for both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "target" / "asan"
HOST = "x86_64-unknown-linux-gnu"
MODULE = FOLDER / HOST / "release" / "libllmcache.so"


def cargo(*arguments: str) -> int:
    environment = os.environ | {
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": "-Zsanitizer=address",
        "CARGO_INCREMENTAL": "0",
        "CARGO_TARGET_DIR": str(FOLDER),
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "ASAN_OPTIONS": "detect_leaks=1",
    }
    return subprocess.run(["cargo", *arguments, "--target", HOST], cwd=ROOT, env=environment).returncode


def library() -> str:
    """gcc's runtime: Rust's own is linked into programs only, and the server is none of ours."""
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).is_absolute(), "gcc has no libasan.so"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--server", type=Path, default=shutil.which("redis-server"))
    parser.add_argument("--only", choices=("core", "module"))
    given = parser.parse_args()
    failed = 0
    if given.only != "core":
        failed |= cargo("build", "--release", "--quiet")
        arguments = ["--minutes", str(given.minutes), "--seed", str(given.seed), "--server", str(given.server)]
        torture = [sys.executable, ROOT / "tests/torture/run.py", "--module", MODULE, "--preload", library(), *arguments]
        failed |= failed or subprocess.run(torture).returncode
    if given.only != "module":
        failed |= cargo("test", "--release", "--quiet", "-p", "llmcache-core")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
