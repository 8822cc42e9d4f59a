#!/usr/bin/env python3
"""Fills in what redis-cli prints for the commands of `docs/examples/*.console`.

    scripts/record_examples.py [docs/examples/session.console ...]

A file has a section for each command of a family, headed by `# COMMAND`. Lines that begin with `redis> ` are typed on
an empty server, the reply takes the place of what stood below. What differs from run to run is written as `<...>`,
and a long reply is cut with a line `...`: look at the difference before it is committed. `make docs` puts the
sections into the pages, and `tests/test_readme.py` types them again in every run.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness.server import Server  # noqa: E402
from harness.transcript import PROMPT, pattern, run, sections  # noqa: E402

FOLDER = ROOT / "docs/examples"
# Replies of more lines are shown up to this one.
MOST_LINES = 24
SHOWN_LINES = 10
# What is different each time, by what it looks like.
MASKS = [
    (re.compile(r'"[0-9a-f]{16}"'), '"<16 hex digits>"'),
    (re.compile(r"\(integer\) \d{13,}"), "(integer) <number>"),
    (re.compile(r'"\d{13,}"'), '"<number>"'),
    (re.compile(r'("(?:age|ttl|retry_ms|bytes|index_bytes|entry_bytes|tree_bytes|payload_bytes|key_bytes)"\n *\d+\) )\(integer\) -?\d+'), r"\1(integer) <number>"),
    (re.compile(r'("(?:kernels)"\n *\d+\) )"[^"]*"'), r'\1"<name>"'),
    (re.compile(r"\{(\w+)\}:[0-9a-f]{16}:"), r"{\1}:<uid>:"),
]


def masked(reply: str) -> list[str]:
    for expression, instead in MASKS:
        reply = expression.sub(instead, reply)
    lines = [line.rstrip() for line in reply.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines if len(lines) <= MOST_LINES else [*lines[:SHOWN_LINES], "..."]


def record(path: Path, server: Server, redis_cli: str) -> None:
    out = []
    for name, steps in sections(path.read_text()).items():
        server.client().flushall()
        out.append(f"# {name}")
        for step, reply in zip(steps, run(steps, redis_cli, server.port), strict=True):
            out.append(PROMPT + step.command)
            # What still fits is left as it is, with whatever was masked by hand.
            fits = step.expected and pattern(step.expected).fullmatch(reply)
            out.extend([line for line in step.expected if line.strip()] if fits else masked(reply))
        out.append("")
    path.write_text("\n".join(out))


def main() -> None:
    binary, module = Path(shutil.which("redis-server")), ROOT / "target/release/libllmcache.so"
    files = [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.console"))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, module, Path(folder)).start()
        try:
            for path in files:
                record(path, server, shutil.which("redis-cli"))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
