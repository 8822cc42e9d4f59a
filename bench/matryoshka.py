#!/usr/bin/env python3
"""Measures `MATRYOSHKA` beside indexes of whole vectors: recall, CPU of a search, memory of a document.

    python bench/matryoshka.py path/to/libllmcache.so path/to/redis-server FOLDER [--rows 10000] [--dim 1536]

FOLDER holds real vectors as `*base*.npy` and `*queries*.npy` (`vectors.load`). No model with nested dimensions is among
them, so they are made of the real ones in two ways:

- nested: turned onto their principal axes, so that the first dimensions carry most, and continued by noise of a
  twentieth of the length squared, the same share in each further dimension;
- even: the same vectors, turned at random, so that every dimension carries as much as any other. Angles are the same.

Truth is by brute force over whole vectors in f64. Searches of all settings are asked in turns, and CPU is the least of the
turns, which other work on the machine spoils least.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import vectors  # noqa: E402
from harness.wire import Failure  # noqa: E402
from host import Host  # noqa: E402

# Share of the length squared that the dimensions past the real ones carry.
NOISE = 0.05
ASKED, COUNT, TURNS = 200, 10, 5


def widened(base: np.ndarray, queries: np.ndarray, dim: int) -> list[np.ndarray]:
    """The nested vectors of base and queries."""
    axes = np.linalg.eigh(base.T.astype(np.float64) @ base)[1][:, ::-1]
    order = np.random.default_rng(5)
    made = []
    for rows in (base, queries):
        rest = order.standard_normal((len(rows), dim - base.shape[1]))
        rest *= np.sqrt(NOISE) / np.linalg.norm(rest, axis=1, keepdims=True)
        whole = np.concatenate([np.sqrt(1 - NOISE) * (rows @ axes), rest], axis=1)
        made.append((whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype(np.float32))
    return made


def turned(rows: np.ndarray) -> np.ndarray:
    """The same vectors with their weight spread evenly: signs, a shuffle, and a fast Hadamard turn in blocks of 512."""
    order = np.random.default_rng(6)
    dim = rows.shape[1]
    for _ in range(3):
        rows = (rows * order.choice([-1.0, 1.0], dim))[:, order.permutation(dim)].reshape(len(rows), -1, 512)
        half = 1
        while half < 512:
            pairs = rows.reshape(len(rows), -1, 512 // (2 * half), 2, half)
            rows = np.stack([pairs[:, :, :, 0] + pairs[:, :, :, 1], pairs[:, :, :, 0] - pairs[:, :, :, 1]], axis=3)
            half *= 2
        rows = rows.reshape(len(rows), dim) / np.sqrt(512)
    return rows.astype(np.float32)


class Served(Host):
    """A server with the module, which searches on its main thread."""

    def cpu_us(self) -> float:
        """CPU of the main thread, which the kernel counts in nanoseconds."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e3

    def info(self, name: str) -> dict:
        reply = self("RAG.INFO", name)
        return dict(zip(reply[::2], reply[1::2], strict=True))

    def memory(self) -> int:
        text = self("INFO", "memory").decode()
        return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).split(":")[1])

    def fill(self, name: str, rows: np.ndarray, options: list) -> tuple[float, float]:
        """Makes an index; bytes of index and of all a document takes, its text and its id not counted."""
        before = self.memory()
        self("RAG.CREATE", name, "DIM", rows.shape[1], "INDEX", "HNSW", *options)
        for at in range(0, len(rows), 500):
            numbers = range(at, min(at + 500, len(rows)))
            batch = [("RAG.ADD", name, b"%07d" % n, "FP32", rows[n].tobytes(), "TEXT", b"t" * 100) for n in numbers]
            assert not any(isinstance(reply, Failure) for reply in self.control.pipeline(batch))
        while self.info(name)[b"tail"]:
            time.sleep(0.05)
        return self.info(name)[b"index_bytes"] / len(rows), (self.memory() - before) / len(rows) - 107

    def ask(self, name: str, queries: np.ndarray, ef: int) -> tuple[list[set[int]], float]:
        tail = ("COUNT", COUNT, "EF", ef, "RETURN", 1, "id")
        commands = [("RAG.SEARCH", name, "FP32", query.tobytes(), *tail) for query in queries]
        before = self.cpu_us()
        replies = self.control.pipeline(commands)
        spent = (self.cpu_us() - before) / len(queries)
        return [{int(hit[1]) for hit in reply} for reply in replies], spent


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("module", "server", "folder"):
        given.add_argument(name)
    given.add_argument("--rows", type=int, default=10_000)
    given.add_argument("--dim", type=int, default=1_536, help="a multiple of 512")
    given.add_argument("--quant", default="F16")
    given.add_argument("--first", type=int, nargs="*", default=[256, 512])
    given.add_argument("--ef", type=int, nargs="*", default=[64, 128, 256])
    args = given.parse_args()
    base, queries = vectors.load(Path(args.folder))
    nested = widened(base[: args.rows], queries[:ASKED], args.dim)
    print(f"{args.rows:,} documents of {args.dim:,} dimensions, QUANT {args.quant}, COUNT {COUNT}")
    print("| vectors | MATRYOSHKA | EF | recall@10 | CPU us a search | index, B | all, B |\n|---|---|---|---|---|---|---|")
    for kind, (rows, asked) in (("nested", nested), ("even", [turned(part) for part in nested])):
        with (
            tempfile.TemporaryDirectory() as folder,
            Served("bench", Path(args.server), Path(folder), Path(args.module), **{"llmcache.search-threads": 0}) as served,
        ):
            measure(served, kind, rows, asked, args)


def measure(served: Served, kind: str, rows: np.ndarray, asked: np.ndarray, args: argparse.Namespace) -> None:
    truth = [set(near) for near in vectors.nearest(rows, asked, COUNT)]
    sizes = {}
    for first in (0, *args.first):
        options = ["QUANT", args.quant, *(["MATRYOSHKA", first] if first else [])]
        sizes[first] = served.fill(f"i{first}", rows, options)
    spent: dict[tuple[int, int], list[float]] = {}
    recall = {}
    for _ in range(TURNS):
        for first in sizes:
            for ef in args.ef:
                found, cpu = served.ask(f"i{first}", asked, ef)
                spent.setdefault((first, ef), []).append(cpu)
                recall[first, ef] = sum(len(a & b) for a, b in zip(found, truth, strict=True)) / (COUNT * len(asked))
    for (first, ef), cpu in spent.items():
        index, whole = sizes[first]
        print(
            f"| {kind} | {first or 'off'} | {ef} | {recall[first, ef]:.4f} | {min(cpu):.0f} "
            f"| {index:,.0f} | {whole:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
