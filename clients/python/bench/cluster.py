#!/usr/bin/env python3
"""One cache in shards over a real cluster of 3 primaries and 3 replicas: filled, asked, asked on while a primary dies,
and brought to another number of shards while it is asked.

    python clients/python/bench/cluster.py [--entries 1000000] [--dim 384] [--shards 12] [--after 13] [--seconds 7200]

Stores until there are so many entries or the time is up, and says how many there are. Ends with 1 when one is lost.
Prints what docs/python.md has.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
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


def vectors(projection: np.ndarray, thread: int, batch: int) -> np.ndarray:
    """The vectors of one batch, made again from its number: of few degrees of freedom, as those of real texts are."""
    latent = np.random.default_rng((thread, batch)).standard_normal((BATCH, len(projection)))
    rows = latent @ projection
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")


@dataclass
class Filled:
    """What the threads that fill have stored, each its own count; the last batch of each may be over the total."""

    port: int
    shards: int
    projection: np.ndarray
    entries: int
    until: float
    counts: list[int] = field(default_factory=lambda: [0, 0])

    def fill(self, thread: int) -> None:
        with RedisCluster(host="127.0.0.1", port=self.port) as client:
            cache = LLMCache(client, "faq", shards=self.shards, threshold=0.95)
            while time.monotonic() < self.until and self.counts[thread] < self.entries // 2:
                n = self.counts[thread]
                rows = vectors(self.projection, thread, n // BATCH)
                with Pipeline(client) as pipe:
                    for at, row in enumerate(rows):
                        name = f"{thread}-{n + at}"
                        pipe(cache.set, f"question {name}", f"answer {name}", vector=row)
                self.counts[thread] = n + BATCH

    def any(self, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """Name and vector of an entry at random."""
        thread = int(rng.integers(0, 2))
        n = int(rng.integers(0, self.counts[thread]))
        return f"{thread}-{n}", vectors(self.projection, thread, n // BATCH)[n % BATCH]


def asked(cache: LLMCache, filled: Filled, times: int, seed: int = 5) -> tuple[int, list[float], list[float]]:
    rng, found, exact, near = np.random.default_rng(seed), 0, [], []
    for _ in range(times):
        name, row = filled.any(rng)
        begun = time.perf_counter()
        found += cache.get(f"question {name}") == f"answer {name}"
        exact.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        hit = cache.search(vector=row)
        near.append(time.perf_counter() - begun)
        found += hit is not None and hit.response == f"answer {name}"
    return found, exact, near


def all_there(cache: LLMCache, client: RedisCluster, filled: Filled) -> int:
    """How many of all that was stored are not found by their question."""
    missing = 0
    for thread, count in enumerate(filled.counts):
        for first in range(0, count, BATCH):
            names = [f"{thread}-{n}" for n in range(first, first + BATCH)]
            with Pipeline(client) as pipe:
                got = [pipe(cache.get, f"question {name}") for name in names]
            missing += sum(one.value != f"answer {name}" for one, name in zip(got, names, strict=True))
            bar(thread * filled.counts[0] + first + BATCH, sum(filled.counts))
    return missing


def shown(name: str, taken: list[float]) -> None:
    print(f"| {name} | {np.percentile(taken, 50) * 1e3:.2f} | {np.percentile(taken, 99) * 1e3:.2f} |", flush=True)


def times_table(cache: LLMCache, filled: Filled, times: int) -> int:
    found, exact, near = asked(cache, filled, times)
    print(f"{found} of {2 * times} look-ups found their answer\n")
    print("| look-up | p50 ms | p99 ms |\n|---|---|---|")
    shown("exact, one shard", exact)
    shown(f"by meaning, all {cache.shards.count} shards", near)
    return 2 * times - found


def kill_one(cluster: Cluster, cache: LLMCache) -> tuple[float, int]:
    """Seconds until all shards answer again without a primary, and how many entries they have."""
    cluster.nodes[0].kill9()
    died = time.monotonic()
    while True:
        try:
            left = cache.info().entries
            return time.monotonic() - died, left
        except Exception as error:
            if time.monotonic() - died > 300:
                raise
            print(f"asked again: {type(error).__name__}", flush=True)
            time.sleep(1)


def resize(client: RedisCluster, port: int, filled: Filled, after: int) -> tuple[int, float, int, int]:
    """How many entries went to another shard, in which time; look-ups meanwhile and how many of them found nothing."""
    new = LLMCache(client, "faq", shards=after, shards_before=filled.shards, threshold=0.95)
    done, told = threading.Event(), [0, 0]

    def ask() -> None:
        with RedisCluster(host="127.0.0.1", port=port) as other:
            reader = LLMCache(other, "faq", shards=after, shards_before=filled.shards, threshold=0.95)
            seed = 100
            while not done.is_set():
                found, _, _ = asked(reader, filled, 10, seed)
                told[0], told[1], seed = told[0] + 20, told[1] + 20 - found, seed + 1
                time.sleep(0.5)

    reader = threading.Thread(target=ask)
    reader.start()
    begun = time.monotonic()
    try:
        moved = new.move(progress=bar)
    finally:
        took = time.monotonic() - begun
        done.set()
        reader.join()
    return moved, took, told[0], told[1]


def main() -> int:
    options = argparse.ArgumentParser(description="one cache in shards over a cluster of 3 + 3")
    options.add_argument("--seconds", type=float, default=7_200)
    options.add_argument("--entries", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=384)
    options.add_argument("--shards", type=int, default=12)
    options.add_argument("--after", type=int, default=13)
    chosen = options.parse_args()
    server = Path(os.environ.get("LLMCACHE_TEST_SERVER") or shutil.which("redis-server") or "redis-server")
    module = Path(os.environ.get("LLMCACHE_MODULE") or ROOT / "target/release/libllmcache.so")
    folder = Path(tempfile.mkdtemp(prefix="llmcache-cluster-"))
    fleet = Fleet(server, module, folder)
    try:
        cluster = Cluster(fleet, SHARES)
        replicate(cluster)
        return measured(cluster, chosen)
    finally:
        fleet.end()
        shutil.rmtree(folder, ignore_errors=True)


def measured(cluster: Cluster, chosen: argparse.Namespace) -> int:
    projection = np.random.default_rng(1).standard_normal((24, chosen.dim))
    # The second node: the first is killed.
    port, lost = cluster.nodes[1].port, 0
    with RedisCluster(host="127.0.0.1", port=port) as client:
        cache = LLMCache(client, "faq", shards=chosen.shards, threshold=0.95)
        cache.create(dim=chosen.dim, guard="OFF", quant="Q8", m=8, efc=48)
        begun = time.monotonic()
        filled = Filled(port, chosen.shards, projection, chosen.entries, begun + chosen.seconds)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            threads = [pool.submit(filled.fill, thread) for thread in range(2)]
            while not all(thread.done() for thread in threads):
                bar(min(sum(filled.counts), chosen.entries), chosen.entries)
                time.sleep(0.5)
            for thread in threads:
                thread.result()
        took, info, stored = time.monotonic() - begun, cache.info(), sum(filled.counts)
        print(f"{info.entries:,} entries in {took:.0f} s, {info.entries / took:,.0f} a second, {chosen.shards} shards")
        lost += stored - info.entries
        memory = sum(int(node.info()["used_memory"]) for node in cluster.nodes[:3])
        print(f"{memory / info.entries:.0f} bytes an entry on the primaries, {memory / 1e9:.2f} GB")
        lost += times_table(cache, filled, 500)

        after, left = kill_one(cluster, cache)
        print(f"\na primary was killed: all shards answer after {after:.0f} s, {left:,} of {stored:,} entries")
        lost += stored - left
        lost += times_table(cache, filled, 200)

        moved, took, times, unfound = resize(client, port, filled, chosen.after)
        print(f"\nfrom {chosen.shards} to {chosen.after} shards: {moved:,} entries moved in {took:.0f} s")
        print(f"{times - unfound} of {times} look-ups meanwhile found their answer")
        lost += unfound
        only = LLMCache(client, "faq", shards=chosen.after, threshold=0.95)
        left, missing = only.info().entries, all_there(only, client, filled)
        print(f"{left:,} entries in {chosen.after} shards, {missing} of {stored:,} questions without their answer")
        lost += abs(stored - left) + missing
        lost += times_table(only, filled, 500)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
