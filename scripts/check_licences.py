#!/usr/bin/env python3
"""Checks what is shipped: every crate of the module and of the Python client's extension is from the registry, under a
licence that may be shipped with it.

Reads `cargo metadata --locked`, so that the versions are those of Cargo.lock. A crate from a git repository, without a
licence, or with one that is not in ALLOWED fails. Known vulnerabilities are looked up in CI by `cargo audit`
(`.github/workflows/ci.yml`), which needs the network.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
    "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip
# The module, and the extension of the Python client.
SHIPPED = (".", "clients/python/native")
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met: one side of each OR, all sides of each AND."""
    expression = expression.replace("/", " OR ").strip()
    depth, parts, start = 0, {"OR": [], "AND": []}, 0
    for word in ("OR", "AND"):
        depth, start, found = 0, 0, []
        for match in re.finditer(rf"\(|\)|\b{word}\b", expression):
            depth += (match[0] == "(") - (match[0] == ")")
            if match[0] == word and depth == 0:
                found.append(expression[start : match.start()])
                start = match.end()
        parts[word] = [*found, expression[start:]]
        if found:
            return (any if word == "OR" else all)(is_allowed(part) for part in parts[word])
    if expression.startswith("(") and expression.endswith(")"):
        return is_allowed(expression[1:-1])
    return expression in ALLOWED


def main() -> int:
    packages = []
    for folder in SHIPPED:
        command = ["cargo", "metadata", "--locked", "--format-version", "1"]
        told = subprocess.run(command, cwd=ROOT / folder, check=True, stdout=subprocess.PIPE).stdout
        packages += json.loads(told)["packages"]
    wrong = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] not in (None, REGISTRY):
            wrong.append(f"{name} comes from {package['source']}")
        if not is_allowed(package["license"] or ""):
            wrong.append(f"{name} is under {package['license']!r}")
    for line in wrong:
        print(f"check_licences: {line}", file=sys.stderr)
    if not wrong:
        print(f"licences: {len(packages)} packages, all may be shipped")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
