"""A response cache as applications use it: the module by redis-py and by its own client, beside RedisVL,
langchain-redis and betterdb-semantic-cache.

Each library runs as published, in one Python, on vectors that are given, so that what is compared is
the library and the server, not an embedding model. The peers run on RediSearch, in the same server
binary; each has a server of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host import Host
from report import Report, check, number

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / ".servers" / "peer-packages"
NAMES = {
    "llmcache": "llmcache, redis-py",
    "client": "llmcache, llmcache-client",
    "redisvl": "RedisVL 0.28",
    "langchain": "langchain-redis 0.2.6",
    "betterdb": "betterdb-semantic-cache 0.13",
}
OURS = ("llmcache", "client")

TEXT = """One Python process does the same through each library: store entries with a TTL, ask for them again by their
vector (a hit), ask for vectors far from all (a miss), then let 100 threads ask at once for what is not
there, where making the answer takes a quarter of a second. Vectors are given; threshold 0.95. The module
is asked by `LLMCACHE.FETCH` (`WAIT` in the stampede). Latency is of single calls, client included; commands
are what the server counted."""


@dataclass(frozen=True)
class Plan:
    entries: int
    asked: int


def run(server, redisearch, module: Path, folder: Path, base: np.ndarray, queries: np.ndarray, plan: Plan) -> Report | None:
    python = provide(VENV, HERE / "peer_packages.txt")
    if python is None:
        return None
    report = Report("Client libraries: hit, miss, store, stampede", TEXT)
    table = report.table("library", "what", "found", "p50 us", "p99 us", "CPU of the process us", "commands", "ours is faster by")
    crowds = report.table("library", "100 callers miss at once: answers made", "commands")
    paths = [folder / "packages-base.npy", folder / "packages-queries.npy"]
    np.save(paths[0], base[: plan.entries].astype(np.float16))
    np.save(paths[1], queries.astype(np.float16))
    told = {}
    for name in NAMES:
        loaded = module if name in OURS else redisearch.path
        with Host(name, server.path, folder / f"packages-{name}", loaded) as host:
            told[name] = ask(python, name, host, paths, plan)
    for name, seen in told.items():
        for what in ("hit", "miss", "store"):
            mine, its = told["llmcache"][what], seen[what]
            ratio = "" if name == "llmcache" else f"{its['p50_us'] / mine['p50_us']:.1f}"
            found = f"{its['found']:.1%}" if what == "hit" else ""
            table.add(NAMES[name], what, found, number(its["p50_us"]), number(its["p99_us"]), number(its["cpu_us"]), f"{its['commands']:.2f}", ratio)  # fmt: skip
        crowds.add(NAMES[name], seen["stampede"]["model_calls"], seen["stampede"]["commands"])
        report.figures[name] = seen
    # The process's own time: what others on the machine do is not in it.
    extra = told["client"]["hit"]["cpu_us"] - told["llmcache"]["hit"]["cpu_us"]
    least = min(told[name]["hit"]["cpu_us"] for name in NAMES if name not in OURS)
    report.add_target(
        "CPU that the client adds to a hit by bare redis-py, us", f"less than any peer takes ({number(least)})",
        number(extra), extra < least,
    )  # fmt: skip
    check(told["client"]["hit"]["commands"] == 1, f"a hit took the client {told['client']['hit']['commands']} commands")
    check(told["client"]["stampede"]["model_calls"] == 1, "the client had more than one answer made")
    ours = told["llmcache"]
    check(ours["hit"]["found"] == 1, f"of the answers asked for again {ours['hit']['found']:.1%} were found")
    for what in ("hit", "miss", "store"):
        check(round(ours[what]["commands"], 6) == 1, f"{what} took {ours[what]['commands']} commands")
    made = ours["stampede"]["model_calls"]
    check(made == 1, f"100 callers had {made} answers made")
    check(ours["stampede"]["commands"] == 101, f"100 callers and a store took {ours['stampede']['commands']} commands")
    report.add_target("answers made when 100 callers miss at once", "1", str(made), made == 1)
    return report


def ask(python: Path, name: str, host: Host, paths: list[Path], plan: Plan) -> dict:
    command = [python, HERE / "packages_worker.py", name, host.port, *paths, plan.entries, plan.asked]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    check(done.returncode == 0, f"{name} failed: {done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def provide(folder: Path, packages: Path) -> Path | None:
    """The Python of a venv in `folder` with the packages that a file lists, installed once; none where they cannot be had."""
    python, wanted = folder / "bin" / "python", packages.read_text()
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "-r", str(packages)]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"bench: the packages of {packages.name} cannot be had: {done.stderr[-500:]}", file=sys.stderr, flush=True)
        return None
    stamp.write_text(wanted)
    return python
