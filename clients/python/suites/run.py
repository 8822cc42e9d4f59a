#!/usr/bin/env python3
"""`make suites`: public test suites, unchanged, over llmcache and over the existing Redis implementations.

Owns: the environment that they run in, the servers, the order, the table in docs/suites.md, and which cases are
known to fail and why (`expected.txt`). Fails when a case fails that is not listed, or passes that is.

    python clients/python/suites/run.py [--only NAME] [--server BINARY] [--no-table]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
import venv
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT, ROOT = HERE.parent, HERE.parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from harness.server import Fleet  # noqa: E402
from servers import MATRIX, provide, provide_redisearch  # noqa: E402

# Beside the wheels of servers, which no commit holds.
HOME = Path(os.environ.get("LLMCACHE_SUITES", ROOT / ".servers" / "suites"))
PYTHON = HOME / "venv" / "bin" / "python"
SOURCES = HOME / "sources"
SDISTS = ("openai-agents==0.24.0", "langgraph-checkpoint==4.3.2", "dogpile.cache==1.5.0")
# Tests that are in no package: read from their repository where it can be reached, or put into this folder by hand.
LLAMAINDEX = "llama_index-0.14.25"
LLAMAINDEX_FILES = (
    "llama-index-integrations/storage/chat_store/llama-index-storage-chat-store-redis/tests/"
    "test_chat_store_redis_chat_store.py",
    "llama-index-core/tests/storage/chat_store/test_sql.py",
)
# Of the second file of the store over Redis, one case in 32 forms, which is younger than that version.
LLAMAINDEX_YOUNGER = (
    "llama-index-integrations/storage/chat_store/llama-index-storage-chat-store-redis/tests/test_delete_message.py"
)
RAW = dict.fromkeys(LLAMAINDEX_FILES, "v0.14.25") | {LLAMAINDEX_YOUNGER: "931e99dd916b08e6c5d74e5c8e30bcb4e655e6f5"}
COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped)")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Suite:
    """One suite: the command of ours, that of theirs where it can run, and what to say of it."""

    name: str
    what: str
    version: str
    ours: list[str]
    theirs: list[str] = field(default_factory=list)
    their_name: str = ""
    folder: str = ""
    swap: tuple[str, str] = ("", "")
    needs_search: bool = False


PYTEST = ["-m", "pytest", "-q", "-rfE", "--timeout", "40", "-p", "no:cacheprovider"]
AGENTS = ["-o", "asyncio_mode=auto", "-p", "swap_agents"]
SUITES = (
    Suite(
        "langchain", "caches 8 + 8 (and 8 by meaning), vector store 25, embeddings 3 + 5, retriever 5", "langchain-tests 1.1.9",
        [*PYTEST, str(HERE / "ours_langchain.py")], [*PYTEST, str(HERE / "theirs_langchain.py"), "-k", "VectorStore"],
        "langchain-redis 0.2.6 (vector store)", needs_search=True,
    ),
    Suite(
        "langgraph", "saver, all eight capabilities", "langgraph-checkpoint-conformance 0.0.2",
        [str(HERE / "ours_langgraph.py")],
    ),
    Suite(
        "nodes", "node cache: test_redis_cache.py", "langgraph-checkpoint 4.3.2",
        [*PYTEST, "-o", "asyncio_mode=auto", "-p", "swap_nodes", "tests/test_redis_cache.py"],
        [*PYTEST, "-o", "asyncio_mode=auto", "-p", "swap_nodes", "tests/test_redis_cache.py"], "langgraph's own RedisCache",
        folder="langgraph_checkpoint-4.3.2", swap=("ours", ""),
    ),
    Suite(
        "agents-redis", "tests/extensions/memory/test_redis_session.py", "openai-agents 0.24.0",
        [*PYTEST, *AGENTS, "tests/extensions/memory/test_redis_session.py"],
        [*PYTEST, *AGENTS, "tests/extensions/memory/test_redis_session.py"], "their own RedisSession",
        folder="openai_agents-0.24.0", swap=("redis", ""),
    ),
    Suite(
        "agents-session", "tests/memory/test_session.py", "openai-agents 0.24.0",
        [*PYTEST, *AGENTS, "tests/memory/test_session.py"], folder="openai_agents-0.24.0", swap=("sqlite", ""),
    ),
    Suite(
        "agents-limit", "tests/memory/test_session_limit.py", "openai-agents 0.24.0",
        [*PYTEST, *AGENTS, "tests/memory/test_session_limit.py"], folder="openai_agents-0.24.0", swap=("sqlite", ""),
    ),
    Suite("dogpile", "dogpile.testing.fixtures: backend, serializer, mutex", "dogpile.cache 1.5.0",
          [*PYTEST, str(HERE / "ours_dogpile.py")]),
    Suite(
        "dogpile-redis", "tests/cache/test_redis_backend.py, without what checks the arguments of its own client", "dogpile.cache 1.5.0",
        [*PYTEST, "-p", "swap_dogpile", "tests/cache/test_redis_backend.py", "-k", "not RedisConnectionTest"],
        [*PYTEST, "tests/cache/test_redis_backend.py", "-k", "not RedisConnectionTest"], "dogpile's own Redis backend",
        folder="dogpile_cache-1.5.0",
    ),
    Suite(
        "llamaindex", "chat stores: test_chat_store_redis_chat_store.py 13, test_delete_message.py 1 in 32 forms, test_sql.py 10",
        "llama_index 0.14.25",
        [*PYTEST, "-o", "asyncio_mode=auto", "-p", "swap_llamaindex", *LLAMAINDEX_FILES, LLAMAINDEX_YOUNGER],
        folder=LLAMAINDEX,
    ),
    Suite("own", "the client's own tests of its adapters", "-", [*PYTEST, "-n", "2", str(CLIENT / "tests" / "adapters")]),
)  # fmt: skip


@dataclass
class Result:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    names: list[str] = field(default_factory=list)


def environment() -> None:
    """The environment of the pinned packages, made once for a list of them."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = HOME / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        venv.create(HOME / "venv", clear=True, with_pip=True)
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        stamp.write_text(wanted)
    SOURCES.mkdir(parents=True, exist_ok=True)
    for sdist in SDISTS:
        package, version = sdist.split("==")
        name = f"{re.sub('[-.]', '_', package)}-{version}"
        folder = SOURCES / name
        if folder.exists():
            continue
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(SOURCES), sdist], check=True)
        with tarfile.open(SOURCES / f"{name}.tar.gz") as archive:
            archive.extractall(SOURCES, filter="data")
    for file, version in RAW.items():
        place = SOURCES / LLAMAINDEX / file
        if not place.exists():
            url = f"https://raw.githubusercontent.com/run-llama/llama_index/{version}/{file}"
            try:
                with urllib.request.urlopen(url, timeout=20) as reply:
                    text = reply.read()
            except OSError as error:
                print(f"{url} cannot be read: {error}", flush=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text)


def run(command: list[str], port: int, folder: str, swap: str) -> tuple[Result, str]:
    paths = os.pathsep.join([str(CLIENT / "src"), str(HERE)])
    told = {**os.environ, "SUITE_PORT": str(port), "SUITE_SWAP": swap, "PYTHONPATH": paths, "OPENAI_API_KEY": "none",
            "DOGPILE_REDIS_PORT": str(port)}  # fmt: skip
    start = time.monotonic()
    where = SOURCES / folder if folder else HERE
    done = subprocess.run([str(PYTHON), *command], cwd=where, env=told, capture_output=True, text=True)
    result = Result(seconds=time.monotonic() - start)
    last = [line for line in done.stdout.splitlines() if COUNTED.search(line)][-1:]
    for count, word in COUNTED.findall(last[0] if last else "1 error"):
        if word == "passed":
            result.passed = int(count)
        elif word == "skipped":
            result.skipped = int(count)
        else:
            result.failed += int(count)
    result.names = [name.split("::", 1)[-1] for name in FAILED.findall(done.stdout)]
    return result, done.stdout + done.stderr


def expected() -> dict[str, dict[str, str]]:
    """Cases that fail, by suite, with the reason."""
    found: dict[str, dict[str, str]] = {}
    for line in (HERE / "expected.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            suite, case, reason = line.split(None, 2)
            found.setdefault(suite, {})[case] = reason
    return found


def main() -> int:
    options = argparse.ArgumentParser(description="run public suites over llmcache")
    options.add_argument("--only", nargs="*", help="only these suites")
    options.add_argument("--server", help="the server binary; default redis-server in PATH")
    options.add_argument("--no-table", action="store_true", help="do not write docs/suites.md")
    chosen = options.parse_args()
    environment()
    binary = Path(chosen.server or shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE", ROOT / "target/release/libllmcache.so"))
    work = HOME / "run"
    shutil.rmtree(work, ignore_errors=True)
    known, rows, wrong = expected(), [], 0
    host = provide(next(wanted for wanted in MATRIX if wanted.name == "redis-8.2"))
    search = provide_redisearch(host)
    fleet, peers = Fleet(binary, module, work / "ours"), Fleet(host.path or binary, search.path, work / "theirs")
    try:
        server = fleet.launch()
        peer = peers.launch() if search.path is not None else None
        for suite in SUITES:
            if chosen.only and suite.name not in chosen.only:
                continue
            print(f"=== {suite.name}", flush=True)
            files = [SOURCES / suite.folder / one for one in suite.ours if suite.folder and one.endswith(".py")]
            if not all(file.exists() for file in files):
                print("not run: its tests are in its repository alone, which cannot be reached", flush=True)
                rows.append((suite, None, None))
                continue
            ours, output = run(suite.ours, server.port, suite.folder, suite.swap[0])
            listed = known.get(suite.name, {})
            for name in ours.names:
                if name not in listed:
                    print(f"not expected to fail: {name}")
                    wrong += 1
            for name in set(listed) - set(ours.names):
                print(f"listed as failing, and passed: {name}")
                wrong += 1
            if ours.failed != len(ours.names) or not ours.passed:
                print(output[-6_000:])
                wrong += 1
            theirs = None
            if suite.theirs and not (suite.needs_search and peer is None):
                at = peer.port if suite.needs_search else server.port
                theirs, _ = run(suite.theirs, at, suite.folder, suite.swap[1])
            rows.append((suite, ours, theirs))
            print(
                f"{ours.passed} passed, {ours.failed} failed, {ours.skipped} skipped, {ours.seconds:.0f} s", flush=True
            )
    finally:
        fleet.end()
        peers.end()
    if not chosen.no_table and not chosen.only:
        (ROOT / "docs" / "suites.md").write_text(page(rows, known))
    print(f"{sum(ours.passed for _, ours, _ in rows if ours)} passed, {wrong} failed", flush=True)
    return 1 if wrong else 0


def page(rows: list, known: dict[str, dict[str, str]]) -> str:
    lines = [
        "# Public suites, unchanged",
        "",
        "Written by `make suites`: each suite as it was published, over llmcache's adapter, and beside it the existing",
        "Redis implementation in the same run. Cases that a suite skips here (they need a fake server) are not counted.",
        "",
        "| Suite | What | llmcache | The existing implementation |",
        "|---|---|---|---|",
    ]
    for suite, ours, theirs in rows:
        if ours is None:
            lines.append(f"| {suite.version} | {suite.what} | not run: its tests are in its repository alone | - |")
            continue
        other = f"{theirs.passed} of {theirs.passed + theirs.failed}, {suite.their_name}" if theirs else "-"
        lines.append(f"| {suite.version} | {suite.what} | {ours.passed} of {ours.passed + ours.failed} | {other} |")
    lines += ["", "## Cases that fail, and why", ""]
    for suite, _, _ in rows:
        for case, reason in known.get(suite.name, {}).items():
            lines.append(f"- {suite.name}: `{case}`: {reason}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
