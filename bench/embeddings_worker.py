"""Drives one cache of embeddings by its client library in the venv of the peer packages; prints JSON.

    python bench/embeddings_worker.py {llmcache,redisvl} PORT ROWS.npy TEXTS TRIPS

Owns: the same work for each: store all rows, then ask for TEXTS of them at a time and get arrays of floats. Run
by bench/embeddings.py alone.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import redis

MODEL, TTL_S = "all-MiniLM-L6-v2", 3_600


class Llmcache:
    def __init__(self, port: int, rows: np.ndarray):
        self.client = redis.Redis(port=port)
        self.client.execute_command("EMBCACHE.CREATE", "emb", "MODEL", MODEL, "DIM", rows.shape[1], "TTL", TTL_S)

    def store(self, texts: list[str], rows: np.ndarray) -> None:
        items = [part for text, row in zip(texts, rows) for part in ("TEXT", text, "FP32", row.tobytes())]
        self.client.execute_command("EMBCACHE.MSET", "emb", len(texts), *items)

    def ask(self, texts: list[str]) -> list:
        blobs = self.client.execute_command("EMBCACHE.MGETEX", "emb", "TEXTS", len(texts), *texts, "EX", TTL_S)
        return [np.frombuffer(blob, "<f4") for blob in blobs]


class Redisvl:
    def __init__(self, port: int, rows: np.ndarray):
        from redisvl.extensions.cache.embeddings import EmbeddingsCache

        self.client = redis.Redis(port=port)
        self.cache = EmbeddingsCache(name="emb", ttl=TTL_S, redis_url=f"redis://127.0.0.1:{port}")

    def store(self, texts: list[str], rows: np.ndarray) -> None:
        items = [{"content": text, "model_name": MODEL, "embedding": row.tolist()} for text, row in zip(texts, rows)]
        self.cache.mset(items)

    def ask(self, texts: list[str]) -> list:
        return [found["embedding"] for found in self.cache.mget(contents=texts, model_name=MODEL)]


def commands(client: redis.Redis) -> int:
    made = ("cmdstat_hello", "cmdstat_client", "cmdstat_info")
    return sum(stat["calls"] for name, stat in client.info("commandstats").items() if not name.startswith(made))


def used(client: redis.Redis) -> int:
    return client.info("memory")["used_memory"]


def main(library: str, port: str, path: str, count: str, trips: str) -> None:
    rows, count = np.load(path), int(count)
    peer = {"llmcache": Llmcache, "redisvl": Redisvl}[library](int(port), rows)
    texts = [f"How do I change the delivery address of order {n:08d}? ".ljust(100, ".") for n in range(len(rows))]
    before = used(peer.client)
    for at in range(0, len(rows), count):
        peer.store(texts[at : at + count], rows[at : at + count])
    grown = used(peer.client) - before
    taken, seen = [], commands(peer.client)
    for trip in range(int(trips)):
        at = trip * count % (len(rows) - count + 1)
        start = time.perf_counter()
        found = peer.ask(texts[at : at + count])
        taken.append((time.perf_counter() - start) * 1e6)
        if not np.allclose(np.stack(found), rows[at : at + count], atol=1e-3):
            raise SystemExit("other vectors came back")
    print(json.dumps({
        "p50_us": float(np.percentile(taken, 50)),
        "p99_us": float(np.percentile(taken, 99)),
        "commands": (commands(peer.client) - seen) / len(taken),
        "bytes": grown / len(rows),
    }))  # fmt: skip


main(*sys.argv[1:])
