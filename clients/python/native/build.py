#!/usr/bin/env python3
"""Builds the extension by plain cargo into `target/python`, where tests, suites and benchmarks import it from.

    python clients/python/native/build.py     prints that folder

The wheel that is installed elsewhere is built by maturin (`pyproject.toml`), as `make native` does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def built() -> Path:
    """The folder of the extension, which is built where its sources are newer."""
    target = Path(os.environ.get("LLMCACHE_NATIVE_TARGET", HERE / "target"))
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", str(HERE / "Cargo.toml")]
    # Of the settings of a build of the module none is meant for this one.
    told = {name: value for name, value in os.environ.items() if name != "RUSTFLAGS"}
    subprocess.run([*command, "--target-dir", str(target)], check=True, env=told)
    library = target / "release" / "libllmcache_native.so"
    folder = target / "python"
    folder.mkdir(exist_ok=True)
    module = folder / "llmcache_native.abi3.so"
    if not module.exists() or module.stat().st_mtime_ns < library.stat().st_mtime_ns:
        # Others may be importing it.
        fresh = folder / f"{os.getpid()}"
        shutil.copyfile(library, fresh)
        fresh.replace(module)
    return folder


if __name__ == "__main__":
    print(built())
