"""Drives one client library in the venv of the peer packages, and prints what it measured as JSON.

    python bench/packages_worker.py {llmcache,client,redisvl,langchain,betterdb} PORT BASE.npy QUERIES.npy ENTRIES ASKED

Owns: the same work for each: store entries, ask for them again (hits), ask for what is not there
(misses), and a stampede of 100 callers that miss on one question. Vectors are given, so no library embeds.
Run by bench/packages.py alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients/python/src"))

NEAR, STAMPEDE, MODEL_SECONDS = 0.95, 100, 0.25


class Llmcache:
    """The module by redis-py: FETCH, SETSEM and nothing else."""

    def __init__(self, port: int, rows: np.ndarray):
        self.client = redis.Redis(port=port, protocol=3)
        self.client.execute_command("LLMCACHE.CREATE", "faq", "DIM", rows.shape[1], "THRESHOLD", NEAR, "GUARD", "OFF")

    def settle(self, entries: int) -> None:
        while self.client.execute_command("LLMCACHE.INFO", "faq")[b"tail"]:
            time.sleep(0.05)

    def check(self, prompt: str, vector: np.ndarray) -> str | None:
        told = self.fetch(prompt, vector, 0)
        return told[b"hit"][b"response"].decode() if told[b"status"] == b"HIT" else None

    def fetch(self, prompt: str, vector: np.ndarray, wait_ms: int) -> dict:
        return self.client.execute_command(
            "LLMCACHE.FETCH", "faq", "PROMPT", prompt, "FP32", vector.tobytes(), "RETURN", 1, "response", "WAIT", wait_ms
        )

    def store(self, prompt: str, response: str, vector: np.ndarray) -> None:
        self.client.execute_command(
            "LLMCACHE.SETSEM", "faq", "PROMPT", prompt, "RESPONSE", response, "FP32", vector.tobytes(), "EX", 3_600
        )

    def stampede(self, prompt: str, vector: np.ndarray, model) -> str:
        told = self.fetch(prompt, vector, 30_000)
        if told[b"status"] == b"HIT":
            return told[b"hit"][b"response"].decode()
        answer = model()
        self.client.execute_command(
            "LLMCACHE.SETSEM", "faq", "PROMPT", prompt, "RESPONSE", answer, "FP32", vector.tobytes(), "EX", 3_600,
            "LEASE", told[b"token"],
        )  # fmt: skip
        return answer


class Client(Llmcache):
    """The module by its own client."""

    def __init__(self, port: int, rows: np.ndarray):
        from llmcache import LLMCache

        super().__init__(port, rows)
        self.cache = LLMCache(redis.Redis(port=port), "faq", ttl=3_600, wait=30)

    def check(self, prompt: str, vector: np.ndarray) -> str | None:
        hit = self.cache.search(prompt, vector=vector)
        return None if hit is None else hit.response

    def store(self, prompt: str, response: str, vector: np.ndarray) -> None:
        self.cache.set(prompt, response, vector=vector)

    def stampede(self, prompt: str, vector: np.ndarray, model) -> str:
        return self.cache.get_or_make(prompt, model, vector=vector)


class Redisvl:
    """RedisVL's SemanticCache as its documentation uses it, with a TTL."""

    def __init__(self, port: int, rows: np.ndarray):
        from redisvl.extensions.cache.llm import SemanticCache
        from redisvl.utils.vectorize import CustomVectorizer

        self.client = redis.Redis(port=port)
        dim = rows.shape[1]
        never = CustomVectorizer(embed=lambda text, **_: [0.0] * (dim - 1) + [1.0])
        self.cache = SemanticCache(
            "faq", distance_threshold=1 - NEAR, ttl=3_600, vectorizer=never, redis_url=f"redis://127.0.0.1:{port}"
        )

    def settle(self, entries: int) -> None:
        while int(self.cache._index.info()["num_docs"]) < entries:
            time.sleep(0.05)

    def check(self, prompt: str, vector: np.ndarray) -> str | None:
        found = self.cache.check(vector=vector.tolist(), num_results=1, return_fields=["response"])
        return found[0]["response"] if found else None

    def store(self, prompt: str, response: str, vector: np.ndarray) -> None:
        self.cache.store(prompt=prompt, response=response, vector=vector.tolist())

    def stampede(self, prompt: str, vector: np.ndarray, model) -> str:
        found = self.check(prompt, vector)
        if found is None:
            found = model()
            self.store(prompt, found, vector)
        return found


class Langchain:
    """langchain-redis' RedisSemanticCache, as set_llm_cache is given it."""

    def __init__(self, port: int, rows: np.ndarray):
        from langchain_core.embeddings import Embeddings
        from langchain_core.outputs import Generation
        from langchain_redis import RedisSemanticCache

        self.vectors, self.made = {}, Generation
        dim, vectors = rows.shape[1], self.vectors

        class Given(Embeddings):
            def embed_query(self, text):
                return vectors.get(text, [0.0] * (dim - 1) + [1.0])

            def embed_documents(self, texts):
                return [self.embed_query(text) for text in texts]

        self.client = redis.Redis(port=port)
        self.cache = RedisSemanticCache(
            Given(), f"redis://127.0.0.1:{port}", distance_threshold=1 - NEAR, ttl=3_600, name="faq", prefix="faq"
        )

    def settle(self, entries: int) -> None:
        while int(self.client.ft("faq").info()["num_docs"]) < entries:
            time.sleep(0.05)

    def check(self, prompt: str, vector: np.ndarray) -> str | None:
        self.vectors[prompt] = vector.tolist()
        found = self.cache.lookup(prompt, "model")
        return found[0].text if found else None

    def store(self, prompt: str, response: str, vector: np.ndarray) -> None:
        self.vectors[prompt] = vector.tolist()
        self.cache.update(prompt, "model", [self.made(text=response)])

    stampede = Redisvl.stampede


class Betterdb:
    """betterdb-semantic-cache with its defaults (statistics, embedding cache), on an event loop of its own."""

    def __init__(self, port: int, rows: np.ndarray):
        import valkey.asyncio
        from betterdb_semantic_cache import SemanticCache
        from betterdb_semantic_cache.types import AnalyticsOptions, DiscoveryOptions, SemanticCacheOptions

        self.vectors: dict[str, list[float]] = {}
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        dim = rows.shape[1]

        async def embed(text: str) -> list[float]:
            return self.vectors.get(text, [0.0] * (dim - 1) + [1.0])

        self.cache = SemanticCache(
            SemanticCacheOptions(
                client=valkey.asyncio.Valkey(port=port), embed_fn=embed, name="faq", default_threshold=1 - NEAR,
                default_ttl=3_600, analytics=AnalyticsOptions(disabled=True), discovery=DiscoveryOptions(enabled=False),
            )
        )  # fmt: skip
        self.client = redis.Redis(port=port)
        self.wait(self.cache.initialize())

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def settle(self, entries: int) -> None:
        def indexed() -> int:
            return int(self.client.ft("faq:idx").info()["num_docs"])

        while indexed() < entries:
            time.sleep(0.05)

    def check(self, prompt: str, vector: np.ndarray) -> str | None:
        self.vectors[prompt] = vector.tolist()
        return self.wait(self.cache.check(prompt)).response

    def store(self, prompt: str, response: str, vector: np.ndarray) -> None:
        self.vectors[prompt] = vector.tolist()
        self.wait(self.cache.store(prompt, response))

    stampede = Redisvl.stampede


PACKAGES = {"llmcache": Llmcache, "client": Client, "redisvl": Redisvl, "langchain": Langchain, "betterdb": Betterdb}


def timed(peer, calls) -> dict:
    """Latencies of single calls, one at a time, and the commands that they took."""
    before, taken, cpu = commands(peer.client), [], time.process_time()
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    cpu = time.process_time() - cpu
    return {
        "cpu_us": cpu / len(taken) * 1e6,
        "p50_us": float(np.percentile(taken, 50)),
        "p99_us": float(np.percentile(taken, 99)),
        "commands": (commands(peer.client) - before) / len(taken),
    }


def commands(client: redis.Redis) -> int:
    """Commands so far; those by which a connection is made are not counted."""
    stats = client.info("commandstats")
    made = ("cmdstat_hello", "cmdstat_client", "cmdstat_info")
    return sum(stat["calls"] for name, stat in stats.items() if not name.startswith(made))


def expect(got, wanted) -> None:
    if got != wanted:
        raise SystemExit(f"wanted {wanted!r}, got {got!r}")


def stampede(peer, vector: np.ndarray) -> dict:
    """All ask at once for what is not there; the model takes a quarter of a second."""
    made, answers, barrier = [], [], threading.Barrier(STAMPEDE)

    def model() -> str:
        made.append(1)
        time.sleep(MODEL_SECONDS)
        return "made"

    def ask() -> None:
        barrier.wait()
        answers.append(peer.stampede("a question nobody asked", vector, model))

    before, threads = commands(peer.client), [threading.Thread(target=ask) for _ in range(STAMPEDE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(answers, ["made"] * STAMPEDE)
    return {"model_calls": len(made), "commands": commands(peer.client) - before}


def main(package: str, port: str, base: str, queries: str, entries: str, asked: str) -> None:
    rows, others = (np.load(path).astype(np.float32) for path in (base, queries))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    count, asks = int(entries), int(asked)
    peer = PACKAGES[package](int(port), rows)
    stored = timed(peer, [lambda i=i: peer.store(f"prompt {i}", f"answer {i}", rows[i]) for i in range(count)])
    peer.settle(count)
    picked = np.random.default_rng(7).choice(count, asks, replace=False)
    found = []
    hit = timed(peer, [lambda i=i: found.append(peer.check(f"other words {i}", rows[i]) == f"answer {i}") for i in picked])
    hit["found"] = sum(found) / len(found)
    # What lies far from every entry.
    nearest = (others @ rows[:count].T).max(axis=1)
    far = [n for n in np.argsort(nearest) if nearest[n] < NEAR - 0.05][:asks]
    miss = timed(peer, [lambda n=n: expect(peer.check(f"unknown {n}", others[n]), None) for n in far])
    crowd = stampede(peer, -others[far[0]])
    print(json.dumps({"store": stored, "hit": hit, "miss": miss, "stampede": crowd}))


main(*sys.argv[1:])
