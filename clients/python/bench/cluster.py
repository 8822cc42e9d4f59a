#!/usr/bin/env python3
"""One cache in shards over a real cluster of 3 primaries and 3 replicas: filled, asked, and asked on while a primary dies.

    python clients/python/bench/cluster.py [--seconds 300] [--entries 1000000] [--dim 64] [--shards 12]

Stores until there are so many entries or the time is up, and says how many there are. Prints what docs/python.md has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "clients/python/src")]

import numpy as np  # noqa: E402
from harness.cluster import Cluster, expect_ok  # noqa: E402
from harness.server import Fleet  # noqa: E402
from harness.waiting import wait_until  # noqa: E402
from redis.cluster import RedisCluster  # noqa: E402

from llmcache import LLMCache, Pipeline  # noqa: E402
from llmcache.cli import bar  # noqa: E402

SHARES = [[(0, 5_460)], [(5_461, 10_922)], [(10_923, 16_383)], [], [], []]
BATCH = 500


def replicate(cluster: Cluster) -> None:
    """The last three follow the first three."""
    for primary in range(3):
        with cluster.nodes[primary + 3].wire() as wire:
            expect_ok(wire("CLUSTER", "REPLICATE", cluster.ids[primary]))
    for node in cluster.nodes[3:]:
        wait_until(lambda node=node: node.info().get("master_link_status") == "up", "the replica is linked", 60)


def fill(port: int, shards: int, rows: np.ndarray, until: float, entries: int, counts: list[int], thread: int) -> None:
    with RedisCluster(host="127.0.0.1", port=port) as client:
        cache, n = LLMCache(client, "faq", shards=shards, threshold=0.95), 0
        while time.monotonic() < until and sum(counts) < entries:
            with Pipeline(client) as pipe:
                for _ in range(BATCH):
                    name = f"{thread}-{n}"
                    pipe(cache.set, f"question {name}", f"answer {name}", vector=row_of(rows, thread, n))
                    n += 1
            counts[thread] = n


def row_of(rows: np.ndarray, thread: int, n: int) -> np.ndarray:
    """A vector of its own for each entry: one of the base, turned by its number."""
    return np.roll(rows[(n * 2 + thread) % len(rows)], n // len(rows))


def asked(cache: LLMCache, rows: np.ndarray, counts: list[int], times: int) -> tuple[int, list[float], list[float]]:
    rng, found, exact, near = np.random.default_rng(5), 0, [], []
    for _ in range(times):
        thread = int(rng.integers(0, 2))
        n = int(rng.integers(0, counts[thread]))
        begun = time.perf_counter()
        found += cache.get(f"question {thread}-{n}") == f"answer {thread}-{n}"
        exact.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        hit = cache.search(vector=row_of(rows, thread, n))
        near.append(time.perf_counter() - begun)
        found += hit is not None and hit.similarity > 0.99
    return found, exact, near


def shown(name: str, taken: list[float]) -> None:
    print(f"| {name} | {np.percentile(taken, 50) * 1e3:.2f} | {np.percentile(taken, 99) * 1e3:.2f} |", flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--entries", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=64)
    options.add_argument("--shards", type=int, default=12)
    chosen = options.parse_args()
    server = Path(os.environ.get("LLMCACHE_TEST_SERVER") or shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE") or ROOT / "target/release/libllmcache.so")
    folder = Path(tempfile.mkdtemp(prefix="llmcache-cluster-"))
    fleet = Fleet(server, module, folder)
    try:
        cluster = Cluster(fleet, SHARES)
        replicate(cluster)
        port = cluster.nodes[0].port
        rows = np.random.default_rng(1).standard_normal((50_000, chosen.dim)).astype("f4")
        with RedisCluster(host="127.0.0.1", port=port) as client:
            cache = LLMCache(client, "faq", shards=chosen.shards, threshold=0.95)
            cache.create(dim=chosen.dim, guard="OFF", quant="Q8")
            begun, counts = time.monotonic(), [0, 0]
            until = begun + chosen.seconds
            threads = [
                threading.Thread(target=fill, args=(port, chosen.shards, rows, until, chosen.entries, counts, thread))
                for thread in range(2)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                bar(min(sum(counts), chosen.entries), chosen.entries)
                time.sleep(0.5)
            for thread in threads:
                thread.join()
            took, info = time.monotonic() - begun, cache.info()
            print(
                f"{info.entries:,} entries in {took:.0f} s, {info.entries / took:,.0f} a second, {chosen.shards} shards"
            )
            found, exact, near = asked(cache, rows, counts, 300)
            print(f"{found} of 600 look-ups found their answer\n")
            print("| look-up | p50 ms | p99 ms |\n|---|---|---|")
            shown("exact, one shard", exact)
            shown(f"by meaning, all {chosen.shards} shards", near)
            stored = info.entries
            cluster.nodes[0].kill9()
            died = time.monotonic()
            while True:
                try:
                    left = cache.info().entries
                    break
                except Exception as error:
                    if time.monotonic() - died > 120:
                        raise
                    print(f"asked again: {type(error).__name__}", flush=True)
                    time.sleep(1)
            print(
                f"\na primary was killed: all shards answer after {time.monotonic() - died:.0f} s, {left:,} of {stored:,} entries"
            )
            found, _, _ = asked(cache, rows, counts, 100)
            print(f"{found} of 200 look-ups found their answer")
    finally:
        fleet.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
