"""Embeddings of real texts, and the truth about them by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).resolve().parent / "data"
# Rows that are compared at a time.
BLOCK = 16_384


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The base and the query vectors of a folder, as float32 of unit length."""
    parts = []
    for pattern in ("*base*.npy", "*queries*.npy"):
        found = sorted(folder.glob(pattern))
        if len(found) != 1:
            raise SystemExit(f"bench: {folder} holds {len(found)} files named {pattern}, wanted one")
        rows = np.load(found[0]).astype(np.float32)
        parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return parts[0], parts[1]


def grown(base: np.ndarray, size: int, seed: int = 7) -> np.ndarray:
    """The first `size` rows; where there are fewer, followed by noisy copies of them.

    The noise is as long as half the vector, so that a copy's cosine with its original is about 0.9.
    """
    parts, rows = [base[:size]], np.random.default_rng(seed)
    while (left := size - sum(map(len, parts))) > 0:
        copy = base[:left]
        noise = rows.standard_normal(copy.shape, dtype=np.float32)
        copy = copy + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        parts.append(copy / np.linalg.norm(copy, axis=1, keepdims=True))
    return np.concatenate(parts)


def varied(base: np.ndarray, size: int, seed: int = 7) -> np.ndarray:
    """The first `size` rows; where there are fewer, followed by copies of them that differ as real ones do: by noise of
    the base's own covariance, 0.3 to 1.5 long.

    Noise of one length would put all copies of a row in a shell around it, where neighbours are much harder to tell
    apart than real ones.
    """
    rows, order = np.empty((size, base.shape[1]), dtype=np.float32), np.random.default_rng(seed)
    filled = min(size, len(base))
    rows[:filled] = base[:filled]
    shape = np.linalg.cholesky(np.cov(base.T) + 1e-9 * np.eye(base.shape[1])).T.astype(np.float32)
    while filled < size:
        part = rows[filled : filled + len(base)]
        noise = order.standard_normal(part.shape, dtype=np.float32) @ shape
        length = order.uniform(0.3, 1.5, (len(part), 1)).astype(np.float32)
        part[:] = base[: len(part)] + noise * (length / np.linalg.norm(noise, axis=1, keepdims=True))
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        filled += len(part)
    return rows


def nearest(base: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """The k nearest rows of each query, nearest first, exactly; a block of rows at a time."""
    asked = queries.astype(np.float64)
    rows, scores = np.empty((len(asked), 0), dtype=np.int64), np.empty((len(asked), 0))
    for start in range(0, len(base), BLOCK):
        part = asked @ base[start : start + BLOCK].astype(np.float64).T
        near = np.argpartition(-part, min(k, part.shape[1]) - 1, axis=1)[:, :k]
        # Of equal ones the first row is taken.
        near.sort(axis=1)
        rows = np.concatenate([rows, near + start], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(part, near, axis=1)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return rows.tolist()


def blob(vector: np.ndarray) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()
