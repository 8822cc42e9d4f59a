#!/usr/bin/env python3
"""What a look-up by meaning over many shards costs, and where that stops paying.

    python clients/python/bench/shards.py [--entries 50000] [--dim 64] [--asked 300] [--shards 1 8 64 1000]

First measured: caches of `entries / shards` answers each on a real server, asked one at a time; the server's own time
of each look-up, and of a real fan-out over all shards of that server in one trip. Then simulated: each shard on a node
of its own, the network's delay given; a look-up takes as long as the slowest of its nodes, drawn from what was
measured. Prints a table for docs/python.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "clients/python/src")]

import numpy as np  # noqa: E402
import redis  # noqa: E402
from harness.server import Fleet  # noqa: E402

from llmcache import LLMCache  # noqa: E402
from llmcache.cli import bar  # noqa: E402

NETWORK_US = 250.0
"""A round trip within a data centre, and its spread (a gamma distribution of shape 4)."""


def fill(cache: LLMCache, rows: np.ndarray, client: redis.Redis) -> None:
    """Stores in trips of 500; entries go where the client would put them."""
    from llmcache import Pipeline

    for first in range(0, len(rows), 500):
        with Pipeline(client) as pipe:
            for n in range(first, min(first + 500, len(rows))):
                pipe(cache.set, f"q{n}", "an answer of some words", vector=rows[n])
        bar(min(first + 500, len(rows)), len(rows))


def settled(client: redis.Redis, names: list[str]) -> None:
    """Returns when every graph has caught up."""
    for name in names:
        while client.execute_command("LLMCACHE.INFO", name)[b"tail"] > 1_024:
            time.sleep(0.1)


def server_us(client: redis.Redis, name: str, queries: np.ndarray) -> np.ndarray:
    """The server's own time of single look-ups, each read from its statistics."""
    taken = []
    for query in queries:
        client.config_resetstat()
        client.execute_command("LLMCACHE.GETSEM", name, "FP32", query.tobytes())
        taken.append(client.info("commandstats")["cmdstat_LLMCACHE.GETSEM"]["usec"])
    return np.array(taken, dtype=float)


def fanned_out_us(cache: LLMCache, queries: np.ndarray) -> np.ndarray:
    """A real look-up over all shards, client included, on one server."""
    taken = []
    for query in queries:
        begun = time.perf_counter()
        cache.search(vector=query)
        taken.append((time.perf_counter() - begun) * 1e6)
    return np.array(taken)


def simulated(work: np.ndarray, shards: int, rng: np.random.Generator, looked: int = 20_000) -> np.ndarray:
    """Latencies of look-ups whose shards each have a node of their own: the slowest says."""
    latest = np.zeros(looked)
    for first in range(0, shards, 50):
        some = min(50, shards - first)
        network = rng.gamma(4.0, NETWORK_US / 4.0, (looked, some))
        latest = np.maximum(latest, (network + rng.choice(work, (looked, some))).max(axis=1))
    return latest


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--entries", type=int, default=50_000)
    options.add_argument("--dim", type=int, default=64)
    options.add_argument("--asked", type=int, default=300)
    options.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4, 8, 16, 64, 256, 1_000])
    chosen = options.parse_args()
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((1_000, chosen.dim))
    rows = (
        centres[rng.integers(0, 1_000, chosen.entries)] + 0.6 * rng.standard_normal((chosen.entries, chosen.dim))
    ).astype("f4")
    queries = (
        centres[rng.integers(0, 1_000, chosen.asked)] + 0.6 * rng.standard_normal((chosen.asked, chosen.dim))
    ).astype("f4")
    server = Path(os.environ.get("LLMCACHE_TEST_SERVER") or shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE") or ROOT / "target/release/libllmcache.so")
    folder = Path(tempfile.mkdtemp(prefix="llmcache-shards-"))
    fleet = Fleet(server, module, folder)
    print(f"{chosen.entries:,} answers of {chosen.dim} dimensions, {chosen.asked} questions each\n")
    print("| shards | answers in each | server time of one, p50 us | fan-out on one server, p50 ms | nodes of their own: p50 ms "
          "| p99 ms | commands a look-up | CPU a look-up, ms | look-ups/s of the whole cluster, unscoped | scoped |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    try:
        for count in chosen.shards:
            node = fleet.launch()
            client = redis.Redis(port=node.port)
            cache = LLMCache(client, "faq", shards=count, threshold=0.9)
            cache.create(dim=chosen.dim, guard="OFF")
            fill(cache, rows, client)
            names = cache.shards.names()
            settled(client, names)
            work = server_us(client, names[0], queries)
            whole = fanned_out_us(cache, queries[: max(20, min(len(queries), 20_000 // count))])
            spread = simulated(work, count, rng)
            # The median: what others on the machine do is in the longest ones.
            usual = float(np.median(work))
            print(
                f"| {count:,} | {chosen.entries // count:,} | {np.median(work):.0f} | {np.median(whole) / 1e3:.2f} "
                f"| {np.percentile(spread, 50) / 1e3:.2f} | {np.percentile(spread, 99) / 1e3:.2f} | {count:,} "
                f"| {count * usual / 1e3:.2f} | {1e6 / usual:,.0f} | {count * 1e6 / usual:,.0f} |",
                flush=True,
            )
            client.close()
            node.stop()
    finally:
        fleet.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
