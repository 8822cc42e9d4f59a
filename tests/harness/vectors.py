"""Vectors that are the same in every run, and the forms in which commands take them."""

from __future__ import annotations

import functools

import numpy as np

Vector = np.ndarray


def unit(seed: int, dim: int = 32) -> Vector:
    """A random unit vector; equal seeds give equal vectors."""
    return normalised(np.random.default_rng([seed, dim]).standard_normal(dim))


def units(count: int, dim: int = 32, seed: int = 0, start: int = 0) -> list[Vector]:
    """Unit vectors `start` to `start + count`; vector i is the same however many are asked for."""
    end = start + count
    blocks = range(start // BLOCK, -(-end // BLOCK))
    rows = [row for number in blocks for row in _block(number, dim, seed)]
    skipped = start - blocks.start * BLOCK
    return rows[skipped : skipped + count]


BLOCK = 1_000


@functools.lru_cache(maxsize=32)
def _block(number: int, dim: int, seed: int) -> list[Vector]:
    # The fourth number keeps this apart from the draws of `unit` and `near`.
    rows = np.random.default_rng([seed, dim, number, 5]).standard_normal((BLOCK, dim))
    return list(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def near(base: Vector, similarity: float, seed: int = 1) -> Vector:
    """A unit vector whose cosine with `base` is `similarity`."""
    base = normalised(base)
    # The third number keeps this apart from the draws of `unit`.
    away = np.random.default_rng([seed, len(base), 3]).standard_normal(len(base))
    away = normalised(away - np.dot(away, base) * base)
    return similarity * base + np.sqrt(1.0 - similarity * similarity) * away


def normalised(vector: Vector) -> Vector:
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def cosine(a: Vector, b: Vector) -> float:
    return float(np.dot(normalised(a), normalised(b)))


def fp32(vector: Vector) -> list:
    return ["FP32", np.asarray(vector, dtype="<f4").tobytes()]


def fp16(vector: Vector) -> list:
    return ["FP16", np.asarray(vector, dtype="<f2").tobytes()]


def values(vector: Vector) -> list:
    return ["VALUES", len(vector), *(repr(float(x)) for x in vector)]


FORMS = {"FP32": fp32, "FP16": fp16, "VALUES": values}
