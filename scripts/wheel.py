#!/usr/bin/env python3
"""Makes the wheel `llmcache-server`: a built module, and the few lines of Python that start a server with it.

    scripts/wheel.py MODULE.so ARCHITECTURE FOLDER      (x86_64 or aarch64)

Needs nothing but Python and binutils. The tag names the oldest glibc that the module runs with, read from the module. The
same inputs make the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "packaging" / "wheel"
# Older than the oldest that wheels are told apart by.
GLIBC_LEAST = (2, 17)


def version() -> str:
    return re.search(r'^\[workspace\.package\].*?^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M | re.S)[1]


def glibc(module: Path) -> tuple[int, int]:
    """The newest version of glibc's symbols that the module asks for."""
    objdump = os.environ.get("OBJDUMP", "objdump")
    told = subprocess.run([objdump, "-p", module], capture_output=True, text=True, check=True).stdout
    found = [tuple(map(int, pair)) for pair in re.findall(r"GLIBC_(\d+)\.(\d+)", told)]
    return max([GLIBC_LEAST, *found])


def metadata() -> str:
    return (
        "Metadata-Version: 2.4\nName: llmcache-server\n"
        f"Version: {version()}\n"
        "Summary: Redis or Valkey with the module llmcache, for tests and notebooks\n"
        "License-Expression: MIT OR Apache-2.0\nLicense-File: LICENSE-MIT\nLicense-File: LICENSE-APACHE\n"
        "Requires-Python: >=3.10\nDescription-Content-Type: text/markdown\n"
        "Classifier: Operating System :: POSIX :: Linux\nClassifier: Topic :: Database :: Database Engines/Servers\n"
        f"Classifier: Typing :: Typed\n\n{(SOURCE / 'README.md').read_text()}"
    )


def make(module: Path, architecture: str, folder: Path) -> Path:
    tag = "py3-none-manylinux_{}_{}_{}".format(*glibc(module), architecture)
    info = f"llmcache_server-{version()}.dist-info"
    package = SOURCE / "llmcache_server"
    files = {f"llmcache_server/{path.name}": path.read_bytes() for path in sorted(package.iterdir()) if path.suffix in (".py", ".typed")}
    files["llmcache_server/libllmcache.so"] = module.read_bytes()
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        files[f"{info}/licenses/{name}"] = (ROOT / name).read_bytes()
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: llmcache\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"llmcache_server-{version()}-{tag}.whl"
    rows = []
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(content)}\n")
            add(wheel, name, content)
        add(wheel, f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]).encode())
    return made


def add(wheel: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    # A server loads only a module that may be executed.
    entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    wheel.writestr(entry, content)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
