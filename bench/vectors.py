"""Embeddings of real texts, and the truth about them by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).resolve().parent / "data"


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


def nearest(base: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """The k nearest rows of each query, nearest first, exactly."""
    scores = queries.astype(np.float64) @ base.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


def blob(vector: np.ndarray) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()
